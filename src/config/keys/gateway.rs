//! `[gateway]` and `[api]`.
// tidy: table

use super::{Default, Key, Kind, MINUTE, Shape, Table};

pub(super) const GATEWAY: Table = Table {
    path: "gateway",
    shape: Shape::Always,
    doc: "Who this gateway is, where it keeps things and how it logs.",
    keys: &[
        Key {
            name: "id",
            kind: Kind::Id,
            default: Default::Absent("the host name"),
            doc: "Name of the gateway: in record headers, logs and Kafka's client id. \
                  Two gateways with one name cannot be told apart in Kafka.",
        },
        Key {
            name: "data_dir",
            kind: Kind::Path,
            default: Default::Is("\"/var/lib/tidegate\""),
            doc: "Folder for everything that must survive a power cut: segment files, sled, \
                  quarantine. It belongs on a file system that honours `fdatasync`, and to one \
                  gateway alone.",
        },
        Key {
            name: "log_filter",
            kind: Kind::LogFilter,
            default: Default::Is("\"info\""),
            doc: "What is logged to stderr, in `tracing`'s filter syntax: a level, or levels by \
                  module (`tidegate::uplink=debug,info`). `debug` and `trace` cost speed, and \
                  flash where the journal is kept on disk; `error` hides the warnings about \
                  weakened promises.",
        },
        Key {
            name: "log_format",
            kind: Kind::Choice(&["text", "json"]),
            default: Default::Is("\"text\""),
            doc: "How log lines look: `text` for people, `json` for collectors, one object a line.",
        },
        Key {
            name: "clock",
            kind: Kind::Choice(&["auto", "trusted"]),
            default: Default::Is("\"auto\""),
            doc: "When the clock is believed. `auto`: once the kernel says that NTP has put it \
                  right (on 32-bit boards, and where a sandbox forbids to ask it: \
                  systemd-timesyncd, by its file); until then records carry the header \
                  `tidegate.clock` and are put right as soon as that is possible. `trusted`: \
                  always, for a host whose clock is kept by means that the kernel does not hear \
                  of (virtual machines, some containers); a wrong clock then gives wrong \
                  timestamps, unmarked.",
        },
        Key {
            name: "clock_file",
            kind: Kind::Path,
            default: Default::Absent("`clock` decides"),
            doc: "A file whose presence says that the clock is right, as \
                  `/run/systemd/timesync/synchronized` does; for hosts where the kernel cannot \
                  tell. It is looked for once a second until it is there.",
        },
        Key {
            name: "shutdown_timeout_ms",
            kind: Kind::Millis {
                min: 1_000,
                max: 10 * MINUTE,
            },
            default: Default::Is("10_000"),
            doc: "Longest time from SIGTERM or SIGINT to exit. Too little: records that Kafka \
                  would have confirmed are written to flash instead, and devices may send some \
                  again. Too much: a stop with Kafka away takes long; keep it below systemd's \
                  `TimeoutStopSec` (90 s). Nothing acknowledged is lost either way.",
        },
        Key {
            name: "worker_threads",
            kind: Kind::Integer { min: 0, max: 64 },
            default: Default::Is("0"),
            doc: "Threads that serve connections and Kafka; 0: one per core, at most four. Too \
                  few: one core's speed is the limit. More than cores: only switching costs.",
        },
    ],
};

pub(super) const API: Table = Table {
    path: "api",
    shape: Shape::Optional("there is no HTTP server"),
    doc: "Health and metrics over HTTP: `/health/live`, `/health/ready`, `/metrics`; and what \
          `tidegate status`, `buffer` and `verify` ask a running gateway (`docs/tools.md`).",
    keys: &[Key {
        name: "listen",
        kind: Kind::Address,
        default: Default::Is("\"127.0.0.1:8083\""),
        doc: "Address of the HTTP server. Port 0 takes a free one, which is logged and written to \
              `listening` in the data folder. It asks for no credentials: beyond loopback \
              everybody who reaches it can read the figures; records are shown and dropped over \
              loopback only.",
    }],
};
