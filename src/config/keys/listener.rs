//! `[[proxy.listener]]`.
// tidy: table

use super::{Default, Key, Kind, Shape, Table};

pub(super) const LISTENER: Table = Table {
    path: "proxy.listener",
    shape: Shape::Repeated,
    doc: "More doors for devices, beside `proxy.listen` or in its place: with TLS, for WebSocket, \
          each with rules of its own. What `[proxy]` says holds for all of them together.",
    keys: &[
        Key {
            name: "listen",
            kind: Kind::ListenAddress,
            default: Default::Required,
            doc: "Address that devices connect to: port 8883 is usual for TLS, 9001 for \
                  WebSocket. Port 0 takes a free one. `unix:/run/tidegate/mqtt.sock`: a Unix \
                  socket, for processes that reach its folder; it counts as loopback.",
        },
        Key {
            name: "transport",
            kind: Kind::Choice(&["mqtt", "websocket"]),
            default: Default::Is("\"mqtt\""),
            doc: "`mqtt`: as over TCP. `websocket`: inside WebSocket, with the subprotocol `mqtt`, \
                  at any path; for browsers, and where only HTTP gets through.",
        },
        Key {
            name: "proxy_protocol",
            kind: Kind::Flag,
            default: Default::Is("false"),
            doc: "Whether each connection begins with a PROXY header, version 1 or 2, as load \
                  balancers send it: the address in it is the client's. One without it is closed. \
                  Nobody but the balancer should reach this listener, for an address is believed; \
                  and it counts as beyond loopback.",
        },
        Key {
            name: "cert_file",
            kind: Kind::Path,
            default: Default::Absent("connections are not encrypted"),
            doc: "PEM file of this listener's certificate, followed by those that lead to its \
                  authority: TLS 1.2 and 1.3. Needs `key_file`. Read again within a second when it \
                  has changed; open connections stay.",
        },
        Key {
            name: "key_file",
            kind: Kind::Path,
            default: Default::Absent("connections are not encrypted"),
            doc: "PEM file of the private key of `cert_file`, not encrypted: PKCS#8, PKCS#1 or \
                  SEC1. Nobody else should be able to read it.",
        },
        Key {
            name: "client_ca_file",
            kind: Kind::Path,
            default: Default::Absent("clients are not asked for a certificate"),
            doc: "PEM file of authorities: only clients that show a certificate of one of them \
                  come in.",
        },
        Key {
            name: "certificate_user",
            kind: Kind::Choice(&["common_name", "alternative_name"]),
            default: Default::Absent("the certificate lets in, and does not say who it is"),
            doc: "Where a client's certificate names its user, for `acl_file`; who has none there \
                  stays out, and no password is asked for. `alternative_name`: the first DNS name, \
                  else the first e-mail address, else the first URI. Needs `client_ca_file`.",
        },
        Key {
            name: "allow_anonymous",
            kind: Kind::Flag,
            default: Default::Is("false"),
            doc: "Whether clients without credentials may come in beyond loopback, or although \
                  there is a `password_file`. Not needed with `client_ca_file`.",
        },
        Key {
            name: "password_file",
            kind: Kind::Path,
            default: Default::Absent("no password is asked for, and user names are not believed"),
            doc: "File of users and their passwords, made by `tidegate passwd FILE USER` or \
                  mosquitto_passwd: clients of this listener must say who they are. Read again \
                  within a second when it has changed; users who are gone, or have another \
                  password, lose their connections.",
        },
        Key {
            name: "acl_file",
            kind: Kind::Path,
            default: Default::Absent("all may publish and read everything"),
            doc: "File that says who may publish and be sent what, in mosquitto's syntax; what no \
                  line allows is denied. Read again within a second when it has changed.",
        },
    ],
};
