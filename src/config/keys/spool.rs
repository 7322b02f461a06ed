//! `[spool]`.
// tidy: table

use super::{Default, GIB, KIB, Key, Kind, MINUTE, Shape, TIB, Table};

pub(super) const SPOOL: Table = Table {
    path: "spool",
    shape: Shape::Always,
    doc: "What is kept while Kafka is away, and what gives way when there is no room.",
    keys: &[
        Key {
            name: "mode",
            kind: Kind::Choice(&["hybrid", "always"]),
            default: Default::Is("\"hybrid\""),
            doc: "When records are written to disk. `hybrid`: only when Kafka does not confirm \
                  them in time, so steady traffic costs no flash. `always`: all, before they are \
                  acknowledged; devices then hear back at the speed of the disk, and flash wears. \
                  Both keep what was acknowledged through a power cut.",
        },
        Key {
            name: "spill_after_ms",
            kind: Kind::Millis {
                min: 1,
                max: MINUTE,
            },
            default: Default::Is("500"),
            doc: "`hybrid`: age at which a record that Kafka has not confirmed is written to disk. \
                  Too little, near Kafka's usual answer time: steady traffic wears the flash. Too \
                  much: devices wait that long for an answer when Kafka is slow, and may send \
                  again.",
        },
        Key {
            name: "sync_interval_ms",
            kind: Kind::Millis {
                min: 0,
                max: MINUTE,
            },
            default: Default::Is("200"),
            doc: "Least time between group commits; after a pause, and with 128 KiB to write, one \
                  starts at once; 0: as fast as the disk. Too little: a commit costs a page of \
                  flash however small it is. Too much: in an outage devices wait that long for \
                  each answer.",
        },
        Key {
            name: "max_bytes",
            kind: Kind::Bytes {
                min: 256 * KIB,
                max: 16 * TIB,
            },
            default: Default::Is("\"2GiB\""),
            doc: "Most bytes of segment files; at least four segments. Too little: a short outage \
                  reaches `on_full`. Too much: other users of the file system find it full.",
        },
        Key {
            name: "min_free_bytes",
            kind: Kind::Bytes {
                min: 0,
                max: 16 * TIB,
            },
            default: Default::Is("\"256MiB\""),
            doc: "Bytes that stay free on the file system, whoever fills it. Too little: the \
                  system around the gateway suffers, and sled's index needs some room. Too much: \
                  room for an outage is given away.",
        },
        Key {
            name: "on_full",
            kind: Kind::Choice(&["refuse", "drop_oldest", "drop_lowest_priority"]),
            default: Default::Is("\"refuse\""),
            doc: "What happens at either bound. `refuse`: devices are not acknowledged until there \
                  is room, and keep their messages. `drop_oldest`: the oldest records are dropped. \
                  `drop_lowest_priority`: the oldest of the lowest priority. Every drop is counted \
                  and stands in the loss ledger.",
        },
        Key {
            name: "segment_bytes",
            kind: Kind::Bytes {
                min: 64 * KIB,
                max: GIB,
            },
            default: Default::Is("\"8MiB\""),
            doc: "Size of a segment file, which is made full of zeros once and then recycled. Too \
                  little: many files, and a record must fit into one. Too much: room comes back in \
                  lumps, and a new file makes one commit wait.",
        },
        Key {
            name: "memory_max_bytes",
            kind: Kind::Bytes {
                min: 256 * KIB,
                max: 16 * GIB,
            },
            default: Default::Is("\"16MiB\""),
            doc: "Most bytes of records in memory that were read back from disk or not yet \
                  written. Too little: draining crawls. Too much: the board swaps or the kernel \
                  kills.",
        },
        Key {
            name: "replay_bytes_per_second",
            kind: Kind::Bytes { min: 0, max: TIB },
            default: Default::Is("0"),
            doc: "Most bytes of records a second, before compression, that go to Kafka from disk; \
                  what comes in live is not counted; 0: as fast as Kafka takes it. Too little: \
                  the backlog outlasts the next outage, and what comes in behind it waits with \
                  it. Too much: after an outage the line belongs to the backlog.",
        },
        Key {
            name: "stalled_max_percent",
            kind: Kind::Integer { min: 1, max: 100 },
            default: Default::Is("25"),
            doc: "Share of `max_bytes` for streams that cannot be sent while others can (a deleted \
                  or forbidden topic). Too little: such records reach `on_stalled_full` soon. Too \
                  much: one sick topic takes the room that all need in an outage.",
        },
        Key {
            name: "on_stalled_full",
            kind: Kind::Choice(&["refuse", "drop_oldest"]),
            default: Default::Is("\"refuse\""),
            doc: "What happens to such a stream at its share: `refuse` acknowledges no more of its \
                  messages, and their devices stand still; `drop_oldest` drops its oldest records, \
                  counted and in the ledger.",
        },
        Key {
            name: "compression_level",
            kind: Kind::Integer { min: -7, max: 19 },
            default: Default::Is("1"),
            doc: "zstd level of what is written to disk. Lower: more flash worn and a shorter \
                  runway. Higher: CPU that a small board does not have; above 3 little is won.",
        },
        Key {
            name: "quarantine_max_bytes",
            kind: Kind::Bytes { min: 0, max: TIB },
            default: Default::Is("\"64MiB\""),
            doc: "Most bytes of records that Kafka rejected for good and that are kept whole to be \
                  looked at; beyond it they are dropped, counted and in the ledger. Too little: \
                  evidence is lost. Too much: room on the card.",
        },
        Key {
            name: "kept_max_bytes",
            kind: Kind::Bytes {
                min: 256 * KIB,
                max: TIB,
            },
            default: Default::Is("\"128MiB\""),
            doc: "Most bytes on disk, beside `max_bytes`, for what the proxy keeps of its clients: \
                  sessions, subscriptions, messages queued for them, retained messages. At least \
                  four segments. Too little: such messages are not acknowledged until there is \
                  room; twice `proxy.max_total_queued_bytes` and `proxy.max_retained_bytes` \
                  together is enough. Too much: room on the card.",
        },
    ],
};
