//! `[kafka.tls]` and `[kafka.sasl]`.
// tidy: table

use super::{Default, Key, Kind, Shape, Table};

pub(super) const TLS: Table = Table {
    path: "kafka.tls",
    shape: Shape::Optional("connections to Kafka are not encrypted"),
    doc: "TLS to the brokers; an empty table is enough where the system trusts their certificates. \
          TLS 1.2 and 1.3. Files are read at start and again when they have changed.",
    keys: &[
        Key {
            name: "ca_file",
            kind: Kind::Path,
            default: Default::Absent("the authorities that the system trusts"),
            doc: "PEM file of the authorities to trust, in place of the system's.",
        },
        Key {
            name: "cert_file",
            kind: Kind::Path,
            default: Default::Absent("no certificate is shown"),
            doc: "PEM file of this gateway's certificate, followed by those that lead to its \
                  authority, for brokers with `ssl.client.auth`. Needs `key_file`.",
        },
        Key {
            name: "key_file",
            kind: Kind::Path,
            default: Default::Absent("no certificate is shown"),
            doc: "PEM file of the private key of `cert_file`, not encrypted: PKCS#8, PKCS#1 or \
                  SEC1. Nobody else should be able to read it.",
        },
        Key {
            name: "server_name",
            kind: Kind::Text,
            default: Default::Absent("the host that is connected to"),
            doc: "Name or IP address that all brokers' certificates must bear, and that is told to \
                  them (SNI). For tunnels and addresses that no certificate names.",
        },
    ],
};

pub(super) const SASL: Table = Table {
    path: "kafka.sasl",
    shape: Shape::Optional("brokers are not told who this gateway is, save by `[kafka.tls]`"),
    doc: "Who this gateway is to the brokers. Passwords, secrets and tokens in files are read for \
          each connection, so a change needs no restart. Where a session ends \
          (`connections.max.reauth.ms`, a token's expiry) the connection is replaced before.",
    keys: &[
        Key {
            name: "mechanism",
            kind: Kind::Choice(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]),
            default: Default::Required,
            doc: "How it is said. `PLAIN` and `OAUTHBEARER` show the password or token as it is \
                  and belong inside TLS; with SCRAM the broker proves that it knows the password \
                  too.",
        },
        Key {
            name: "username",
            kind: Kind::Text,
            default: Default::Absent("needed by PLAIN and SCRAM"),
            doc: "Name, for PLAIN and SCRAM.",
        },
        Key {
            name: "password",
            kind: Kind::Secret,
            default: Default::Absent("needed by PLAIN and SCRAM"),
            doc: "Password, for PLAIN and SCRAM.",
        },
        Key {
            name: "token_file",
            kind: Kind::Path,
            default: Default::Absent("tokens come from `token_url`"),
            doc: "OAUTHBEARER: file with the token, which somebody else keeps fresh.",
        },
        Key {
            name: "token_url",
            kind: Kind::Text,
            default: Default::Absent("tokens come from `token_file`"),
            doc: "OAUTHBEARER: token endpoint of an OIDC provider, asked by the client credentials \
                  grant. `https://`; `http://` only on this machine. A token is used for 80 % of \
                  its life.",
        },
        Key {
            name: "token_ca_file",
            kind: Kind::Path,
            default: Default::Absent("the authorities that the system trusts"),
            doc: "PEM file of the authorities to trust for `token_url`. Those of `[kafka.tls]` do \
                  not count there.",
        },
        Key {
            name: "client_id",
            kind: Kind::Text,
            default: Default::Absent("needed by `token_url`"),
            doc: "Client id at the provider. Not `kafka.client_id`.",
        },
        Key {
            name: "client_secret",
            kind: Kind::Secret,
            default: Default::Absent("needed by `token_url`"),
            doc: "Client secret at the provider.",
        },
        Key {
            name: "scope",
            kind: Kind::Text,
            default: Default::Absent("the provider's default"),
            doc: "Scopes to ask the provider for, with spaces between them.",
        },
        Key {
            name: "extensions",
            kind: Kind::Map,
            default: Default::Is("{}"),
            doc: "OAUTHBEARER: what is told beside the token, as some services want it: \
                  `{ logicalCluster = \"lkc-1\", identityPoolId = \"pool-1\" }`.",
        },
    ],
};
