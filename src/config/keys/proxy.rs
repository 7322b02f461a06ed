//! `[proxy]`, `[proxy.headers]` and `[[proxy.route]]`.
// tidy: table

use super::{DAY, Default, GIB, KIB, Key, Kind, MIB, MINUTE, Shape, Table};

pub(super) const PROXY: Table = Table {
    path: "proxy",
    shape: Shape::Optional("no device can connect"),
    doc: "The MQTT front door: devices publish to it as if it were a broker.",
    keys: &[
        Key {
            name: "listen",
            kind: Kind::Address,
            default: Default::Is("\"127.0.0.1:1883\""),
            doc: "Address that devices connect to, without TLS; where there are \
                  `[[proxy.listener]]`, only if it is written. Port 0 takes a free one, which is \
                  logged and written to `listening` in the data folder. Beyond loopback it needs \
                  `password_file`, or `allow_anonymous`.",
        },
        Key {
            name: "allow_anonymous",
            kind: Kind::Flag,
            default: Default::Is("false"),
            doc: "Whether `listen` takes clients without credentials although it is beyond \
                  loopback, or has a `password_file`: everybody who reaches the port can then \
                  publish.",
        },
        Key {
            name: "password_file",
            kind: Kind::Path,
            default: Default::Absent("no password is asked for, and user names are not believed"),
            doc: "File of users and their passwords, made by `tidegate passwd FILE USER` or \
                  mosquitto_passwd: clients of `listen` must say who they are. Read again within \
                  a second when it has changed; users who are gone, or have another password, lose \
                  their connections.",
        },
        Key {
            name: "acl_file",
            kind: Kind::Path,
            default: Default::Absent("all may publish and read everything"),
            doc: "File that says who may publish and be sent what, in mosquitto's syntax; what no \
                  line allows is denied. Read again within a second when it has changed.",
        },
        Key {
            name: "default_topic",
            kind: Kind::Topic,
            default: Default::Absent("a message that no route takes is refused"),
            doc: "Kafka topic where no route matches.",
        },
        Key {
            name: "on_refused",
            kind: Kind::Choice(&["ack", "disconnect"]),
            default: Default::Is("\"ack\""),
            doc: "What an MQTT 3.1.1 client, which cannot be told, gets for a message that no \
                  route takes. `ack`: it is acknowledged, dropped, counted and in the loss ledger. \
                  `disconnect`: the connection is closed, and most clients send the message again, \
                  for ever. MQTT 5 clients get a reason code.",
        },
        Key {
            name: "max_connections",
            kind: Kind::Integer {
                min: 1,
                max: 1_000_000,
            },
            default: Default::Is("10_000"),
            doc: "Most connections at once; the next is closed after accept. Too little: devices \
                  stay out. Too much: memory (some KiB each), and more than the process may open \
                  files.",
        },
        Key {
            name: "max_connections_per_address",
            kind: Kind::Integer {
                min: 1,
                max: 1_000_000,
            },
            default: Default::Is("1_000"),
            doc: "Most connections at once of one IP address, loopback apart. Too little: devices \
                  behind one router stay out. Too much: one machine takes the places of all.",
        },
        Key {
            name: "max_publishes_per_second",
            kind: Kind::Integer {
                min: 1,
                max: 10_000_000,
            },
            default: Default::Absent("as fast as the gateway takes them"),
            doc: "Messages that one client may publish in a second; beyond it its connection is \
                  not read, and nothing is dropped. Too little: devices fall behind. Too much: one \
                  of them takes the share of others.",
        },
        Key {
            name: "max_packet_bytes",
            kind: Kind::Bytes {
                min: 256,
                max: 256 * MIB - 1,
            },
            default: Default::Is("\"1MiB\""),
            doc: "Largest MQTT packet; MQTT 5 clients are told, others lose the connection. Too \
                  little: messages cannot be sent. Too much: memory, and above the topic's \
                  `max.message.bytes` (1 MiB by default) a message is refused anyhow. It must fit \
                  into `max_inflight_bytes` and into half a spool segment.",
        },
        Key {
            name: "connect_timeout_ms",
            kind: Kind::Millis {
                min: 100,
                max: 5 * MINUTE,
            },
            default: Default::Is("10_000"),
            doc: "From TCP accept to a whole CONNECT. Too little: devices on slow links never get \
                  in. Too much: idle strangers hold connections.",
        },
        Key {
            name: "max_inflight_messages",
            kind: Kind::Integer {
                min: 1,
                max: 65_535,
            },
            default: Default::Is("1_000"),
            doc: "Unacknowledged messages of one client (MQTT 5: receive maximum); beyond it its \
                  connection is not read. Too little: in an outage acknowledgements come once a \
                  `sync_interval_ms`, so 1,000 let one client send 5,000 messages a second, 20 \
                  only 100. Too much: nothing but memory, which `max_inflight_bytes` bounds.",
        },
        Key {
            name: "max_inflight_bytes",
            kind: Kind::Bytes {
                min: 4 * KIB,
                max: GIB,
            },
            default: Default::Is("\"4MiB\""),
            doc: "Unacknowledged bytes of one client; beyond it its connection is not read. Too \
                  little: large messages go one by one. Too much: one client takes the share of \
                  all.",
        },
        Key {
            name: "max_total_inflight_bytes",
            kind: Kind::Bytes {
                min: 64 * KIB,
                max: 16 * GIB,
            },
            default: Default::Is("\"16MiB\""),
            doc: "Unacknowledged bytes of all clients; beyond it no connection is read. As many \
                  more may wait in packets whose rest has not come; beyond that the connection \
                  whose packet began first is closed. Too little: Kafka's answer time limits the \
                  rate (16 MiB at 100 ms are 160 MiB/s). Too much: memory.",
        },
        Key {
            name: "topic_alias_max",
            kind: Kind::Integer {
                min: 0,
                max: 65_535,
            },
            default: Default::Is("32"),
            doc: "MQTT 5 topic aliases a client may use. 0: clients send whole topic names. Too \
                  much: memory, a topic name each per client.",
        },
        Key {
            name: "session_expiry_max_ms",
            kind: Kind::Millis {
                min: 0,
                max: 365 * DAY,
            },
            default: Default::Is("86_400_000"),
            doc: "Longest time a disconnected persistent session is kept, whatever the client \
                  asks; it is kept through restarts. Too little: QoS 2 messages in flight may come \
                  twice. Too much: memory and disk for clients that never return.",
        },
        Key {
            name: "max_sessions",
            kind: Kind::Integer {
                min: 0,
                max: 10_000_000,
            },
            default: Default::Is("10_000"),
            doc: "Most disconnected sessions kept; beyond it the one longest away goes. Too \
                  little: as above. Too much: memory.",
        },
        Key {
            name: "max_subscriptions",
            kind: Kind::Integer {
                min: 0,
                max: 1_000_000,
            },
            default: Default::Is("1_000"),
            doc: "Subscriptions of one client; more are refused (0x97; to 3.1.1 0x80). 0: nobody \
                  subscribes. Too little: applications with many filters do not get in. Too much: \
                  memory, which all clients together may take 64 MiB of.",
        },
        Key {
            name: "max_queued_messages",
            kind: Kind::Integer {
                min: 1,
                max: 10_000_000,
            },
            default: Default::Is("1_000"),
            doc: "Messages that wait for one subscriber that is slow, or away with a persistent \
                  session. Beyond it QoS 0 is not queued, and of QoS 1 and 2 the oldest goes; both \
                  are counted, and the road to Kafka is not concerned. Too little: short \
                  absences lose messages. Too much: memory, which the next two bound.",
        },
        Key {
            name: "max_queued_bytes",
            kind: Kind::Bytes {
                min: 4 * KIB,
                max: GIB,
            },
            default: Default::Is("\"1MiB\""),
            doc: "Bytes of them, with those that were sent and are not acknowledged. A message \
                  larger than this is delivered to nobody. Too little, too much: as above.",
        },
        Key {
            name: "max_total_queued_bytes",
            kind: Kind::Bytes {
                min: 64 * KIB,
                max: 16 * GIB,
            },
            default: Default::Is("\"32MiB\""),
            doc: "The same of all subscribers; a message counts for each that it waits for. Too \
                  little: a few slow subscribers take the room of all. Too much: memory.",
        },
        Key {
            name: "max_retained_messages",
            kind: Kind::Integer {
                min: 0,
                max: 10_000_000,
            },
            default: Default::Is("10_000"),
            doc: "Retained messages, one a topic; what does not fit is delivered and not retained, \
                  and counted. Too little: new subscribers do not learn the last values. Too much: \
                  memory, and a filter that begins with a wildcard has all looked at.",
        },
        Key {
            name: "max_retained_bytes",
            kind: Kind::Bytes {
                min: 0,
                max: 16 * GIB,
            },
            default: Default::Is("\"16MiB\""),
            doc: "Bytes of the retained messages. Too little, too much: as above.",
        },
    ],
};

pub(super) const HEADERS: Table = Table {
    path: "proxy.headers",
    shape: Shape::Always,
    doc: "Names of the record headers that carry MQTT's own fields. An empty name leaves a header \
          out, which saves its bytes in every record. The first four are those of Confluent's MQTT \
          source, as text.",
    keys: &[
        header(
            "message_id",
            "\"mqtt.message.id\"",
            "Packet id; 0 for QoS 0.",
        ),
        header("qos", "\"mqtt.qos\"", "QoS: 0, 1 or 2."),
        header(
            "retained",
            "\"mqtt.retained\"",
            "Retain flag: `true` or `false`.",
        ),
        header(
            "duplicate",
            "\"mqtt.duplicate\"",
            "DUP flag: `true` or `false`.",
        ),
        header(
            "topic",
            "\"\"",
            "MQTT topic. Left out by default, for it is the key by default.",
        ),
        header("client_id", "\"mqtt.client.id\"", "Client id."),
        header("content_type", "\"mqtt.content.type\"", "v5 content type."),
        header(
            "response_topic",
            "\"mqtt.response.topic\"",
            "v5 response topic.",
        ),
        header(
            "correlation_data",
            "\"mqtt.correlation.data\"",
            "v5 correlation data.",
        ),
        Key {
            name: "user_properties",
            kind: Kind::Flag,
            default: Default::Is("true"),
            doc: "Whether v5 user properties become headers.",
        },
        header(
            "user_property_prefix",
            "\"mqtt.user.\"",
            "What stands before the names of v5 user properties; empty: nothing.",
        ),
    ],
};

const fn header(name: &'static str, default: &'static str, doc: &'static str) -> Key {
    Key {
        name,
        kind: Kind::Name,
        default: Default::Is(default),
        doc,
    }
}

pub(super) const ROUTE: Table = Table {
    path: "proxy.route",
    shape: Shape::Repeated,
    doc: "Which messages go to which Kafka topic. The first route that matches wins; where none \
          does, `proxy.default_topic` takes the message or it is refused.",
    keys: &[
        Key {
            name: "mqtt",
            kind: Kind::Text,
            default: Default::Required,
            doc: "MQTT topic filter; a named `+` or `#` captures: `plant/+line/#rest`.",
        },
        Key {
            name: "topic",
            kind: Kind::TopicTemplate,
            default: Default::Required,
            doc: "Kafka topic; `{name}` is replaced by the capture, with what Kafka does not allow \
                  in a name made legal. A template makes as many topics as devices care to name.",
        },
        Key {
            name: "key",
            kind: Kind::Name,
            default: Default::Absent("the MQTT topic"),
            doc: "Template of the record key, which chooses the partition. Order holds per key: a \
                  coarse one makes a hot partition, an empty one gives up order.",
        },
        Key {
            name: "headers",
            kind: Kind::Map,
            default: Default::Is("{}"),
            doc: "Header names and templates of their values: `{ line = \"{line}\" }`.",
        },
        Key {
            name: "priority",
            kind: Kind::Integer { min: 0, max: 9 },
            default: Default::Is("0"),
            doc: "Of the Kafka topic: the higher goes first after an outage, and goes last under \
                  `drop_lowest_priority`. One value a topic; if all are high, none is.",
        },
        Key {
            name: "ttl_ms",
            kind: Kind::Millis {
                min: 1,
                max: 3_650 * DAY,
            },
            default: Default::Absent("records are kept until Kafka has them"),
            doc: "Of the Kafka topic: age at which a record that is not in Kafka is dropped, \
                  counted and written to the loss ledger. Too little: an outage loses what one \
                  would have waited for. Too much: stale values delay fresh ones.",
        },
    ],
};
