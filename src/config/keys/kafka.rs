//! `[kafka]` and `[kafka.topic_creation]`.
// tidy: table

use super::{Default, KIB, Key, Kind, MIB, MINUTE, Shape, Table};

pub(super) const KAFKA: Table = Table {
    path: "kafka",
    shape: Shape::Always,
    doc: "The cluster, and how records get there.",
    keys: &[
        Key {
            name: "bootstrap_servers",
            kind: Kind::Servers,
            default: Default::Required,
            doc: "`host:port` of the brokers to ask first; a name may resolve to many addresses. \
                  The rest of the cluster is learned from them. With one only, a start while it is \
                  away finds no cluster; records are buffered all the same.",
        },
        Key {
            name: "delivery",
            kind: Kind::Choice(&["exactly_once", "at_least_once"]),
            default: Default::Is("\"exactly_once\""),
            doc: "Which engine sends. `exactly_once`: each record once, through power cuts. \
                  `at_least_once` (by the crate rskafka) is for services that refuse idempotent \
                  producers: nothing is lost, some records may be there twice, as many as \
                  `tidegate_maybe_twice_total` counts at most; under a produce quota many more.",
        },
        Key {
            name: "compression",
            kind: Kind::Choice(&["none", "gzip", "snappy", "lz4", "zstd"]),
            default: Default::Is("\"zstd\""),
            doc: "How batches are compressed on the way to Kafka and in its log. `none` costs \
                  network, `gzip` costs the most CPU for what it saves; `lz4` and `snappy` are the \
                  cheapest.",
        },
        Key {
            name: "client_id",
            kind: Kind::Id,
            default: Default::Absent("`tidegate-{gateway.id}`"),
            doc: "Name in the brokers' logs and quotas. Gateways that share one share its quota.",
        },
        Key {
            name: "provenance",
            kind: Kind::Flag,
            default: Default::Is("true"),
            doc: "Whether records carry the headers `tidegate.id`, `tidegate.run` and \
                  `tidegate.seq`, by which a consumer can find gaps and repeats. They cost some 60 \
                  bytes a record before compression; without them nobody can prove afterwards that \
                  nothing is missing.",
        },
        Key {
            name: "connect_timeout_ms",
            kind: Kind::Millis {
                min: 100,
                max: MINUTE,
            },
            default: Default::Is("5_000"),
            doc: "Deadline for a connection to a broker. Too little: a slow mobile link never \
                  connects. Too much: a dead broker is noticed late.",
        },
        Key {
            name: "request_timeout_ms",
            kind: Kind::Millis {
                min: 500,
                max: 2 * MINUTE,
            },
            default: Default::Is("10_000"),
            doc: "Deadline for a broker's answer, from the request or from the answer before it on \
                  that connection, and after what a quota lets it wait; must be above \
                  `server_timeout_ms`. Too little: \
                  slow answers are thrown away and asked for again. Too much: a frozen broker \
                  holds its partitions for that long, and what waits is written to flash.",
        },
        Key {
            name: "server_timeout_ms",
            kind: Kind::Millis {
                min: 100,
                max: 5_000,
            },
            default: Default::Is("5_000"),
            doc: "How long a broker may wait for its followers (`acks=all`) before it answers with \
                  an error. Too little: a follower's hiccup makes batches go again. More than 5 s \
                  is refused: a request waits for its slowest partition.",
        },
        Key {
            name: "batch_bytes_max",
            kind: Kind::Bytes {
                min: 4 * KIB,
                max: 16 * MIB,
            },
            default: Default::Is("\"512KiB\""),
            doc: "Largest batch of one partition, in bytes before compression; a larger record \
                  goes alone. Too little: more requests and worse compression. Too much: above the \
                  topic's `max.message.bytes` (1 MiB by default) brokers reject batches that do \
                  not compress.",
        },
        Key {
            name: "request_bytes_max",
            kind: Kind::Bytes {
                min: 4 * KIB,
                max: 64 * MIB,
            },
            default: Default::Is("\"2MiB\""),
            doc: "Most bytes of all batches in one request, before compression. Too little: more \
                  requests. Too much: memory, and on a thin link a request that outlasts its \
                  timeout.",
        },
        Key {
            name: "retry_backoff_min_ms",
            kind: Kind::Millis {
                min: 10,
                max: MINUTE,
            },
            default: Default::Is("100"),
            doc: "First wait before something that failed is tried again; it doubles up to \
                  `retry_backoff_max_ms`. Too little: a sick cluster is pestered. Too much: a \
                  leader change costs that much delay.",
        },
        Key {
            name: "retry_backoff_max_ms",
            kind: Kind::Millis {
                min: 10,
                max: 10 * MINUTE,
            },
            default: Default::Is("5_000"),
            doc: "Longest wait before something that failed is tried again. Too little: CPU and \
                  radio time in a long outage. Too much: the backlog starts to drain that much \
                  later.",
        },
        Key {
            name: "dead_letter_topic",
            kind: Kind::Topic,
            default: Default::Absent("sick topics are held, what Kafka rejects goes to quarantine"),
            doc: "Kafka topic for records that their own cannot take: rejected or too large, of a \
                  partition that Kafka has refused for `dead_letter_after_ms`, or of a topic that \
                  was not there for so long. Headers `__connect.errors.topic`, `.partition` and \
                  `.exception.message` say what happened. What it rejects itself goes to \
                  quarantine. A power cut may put a record there twice.",
        },
        Key {
            name: "dead_letter_after_ms",
            kind: Kind::Millis {
                min: 1_000,
                max: 7 * 24 * 60 * MINUTE,
            },
            default: Default::Is("600_000"),
            doc: "How long Kafka must have refused a topic's partition (deleted, no right to \
                  WRITE, no leader, too few replicas), while the cluster answers, before its \
                  records go to `dead_letter_topic`. Too little: a leader election sends records \
                  astray. Too much: they fill the disk until then.",
        },
    ],
};

pub(super) const TOPIC_CREATION: Table = Table {
    path: "kafka.topic_creation",
    shape: Shape::Optional("missing topics are reported, not made, and their records wait"),
    doc: "How missing Kafka topics are made.",
    keys: &[
        Key {
            name: "partitions",
            kind: Kind::Integer {
                min: -1,
                max: 10_000,
            },
            default: Default::Is("-1"),
            doc: "Partitions of a new topic; -1 is the broker's default (`num.partitions`). Too \
                  few: consumers cannot share the work, and growing a topic later moves keys. Too \
                  many: each is a stream here and a batch a request.",
        },
        Key {
            name: "replication_factor",
            kind: Kind::Integer { min: -1, max: 100 },
            default: Default::Is("-1"),
            doc: "Replicas of each partition; -1 is the broker's default \
                  (`default.replication.factor`). With 1 the death of a broker's disk loses \
                  records that were acknowledged; more than there are brokers cannot be made.",
        },
        Key {
            name: "configs",
            kind: Kind::Map,
            default: Default::Is("{}"),
            doc: "Topic configs by their Kafka names, as text: `\"retention.ms\" = \"604800000\"`. \
                  Kafka checks them when the topic is made.",
        },
    ],
};
