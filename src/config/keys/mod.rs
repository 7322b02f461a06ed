//! The one definition of every key of `tidegate.toml`: its type, default, range, unit and meaning.
//!
//! From it come parsing and checking (`super::raw`), "did you mean" (`super::suggest`), the names
//! of the environment variables (`super::environment`) and `docs/config.md` (`super::document`). A
//! file a table of the configuration; what two keys mean together is in `super::combine`.

mod gateway;
mod kafka;
mod listener;
mod proxy;
mod security;
mod spool;

/// All tables, in the order of the documentation. A table comes after its parent.
pub const TABLES: &[Table] = &[
    gateway::GATEWAY,
    kafka::KAFKA,
    kafka::TOPIC_CREATION,
    security::TLS,
    security::SASL,
    proxy::PROXY,
    listener::LISTENER,
    proxy::HEADERS,
    proxy::ROUTE,
    spool::SPOOL,
    gateway::API,
];

/// One table of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name with that of its parent: `proxy.route`.
    pub path: &'static str,
    /// Whether and how often it stands in the file.
    pub shape: Shape,
    /// What it is for.
    pub doc: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// Whether and how often a table stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Counts as present even when it is left out.
    Always,
    /// Its absence means something.
    Optional(&'static str),
    /// Any number of times, in order: `[[name]]`.
    Repeated,
}

/// One key of a table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name; a unit is its last word.
    pub name: &'static str,
    /// What may be written.
    pub kind: Kind,
    /// What holds when it is left out.
    pub default: Default,
    /// Meaning, and the cost of too little and too much; Markdown, one paragraph.
    pub doc: &'static str,
}

/// What holds when a key is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// An error.
    Required,
    /// This value, as it would be typed in TOML.
    Is(&'static str),
    /// Nothing is set, which means this.
    Absent(&'static str),
}

/// What may be written for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text that is not empty.
    Text,
    /// Text that may be empty.
    Name,
    /// 1 to 128 of `A-Z a-z 0-9 . _ -`.
    Id,
    /// A legal Kafka topic name.
    Topic,
    /// A template; without captures it must be a legal Kafka topic name.
    TopicTemplate,
    /// A path.
    Path,
    /// A filter in the syntax of `tracing`.
    LogFilter,
    /// An IP address and a port.
    Address,
    /// The same, or a Unix socket.
    ListenAddress,
    /// A list of `host:port`, at least one.
    Servers,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Integer {
        /// Least.
        min: i64,
        /// Most.
        max: i64,
    },
    /// A number of bytes, as an integer or as text with `KiB`, `MiB`, `GiB`, `TiB`.
    Bytes {
        /// Least.
        min: i64,
        /// Most.
        max: i64,
    },
    /// A number of milliseconds.
    Millis {
        /// Least.
        min: i64,
        /// Most.
        max: i64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A table of names and texts, free in its names.
    Map,
    /// A secret: text, `{ file = "…" }` or `{ env = "…" }`; never shown.
    Secret,
}

const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
const TIB: i64 = 1 << 40;
const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// The table of that path, without indexes.
#[must_use]
pub fn table<'t>(tables: &'t [Table], path: &str) -> Option<&'t Table> {
    tables.iter().find(|table| table.path == path)
}

/// The key of that path (`proxy.route.topic`), without indexes.
#[must_use]
pub fn key<'t>(tables: &'t [Table], path: &str) -> Option<&'t Key> {
    let (parent, name) = path.rsplit_once('.')?;
    table(tables, parent)?
        .keys
        .iter()
        .find(|key| key.name == name)
}

/// Names of the tables right below `path` (empty: the top).
pub fn children<'t>(tables: &'t [Table], path: &str) -> impl Iterator<Item = &'t str> {
    tables.iter().filter_map(move |table| {
        let below = match path {
            "" => table.path,
            _ => table.path.strip_prefix(path)?.strip_prefix('.')?,
        };
        (!below.contains('.')).then_some(below)
    })
}

/// Drops the indexes of a shown path: `proxy.route[2].topic` → `proxy.route.topic`.
#[must_use]
pub fn without_indexes(path: &str) -> String {
    let mut inside = false;
    path.chars()
        .filter(|c| {
            let keep = !inside && *c != '[';
            inside = *c == '[' || (inside && *c != ']');
            keep
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_their_indexes() {
        assert_eq!(
            without_indexes("proxy.route[12].topic"),
            "proxy.route.topic"
        );
        assert_eq!(without_indexes("spool.mode"), "spool.mode");
    }

    #[test]
    fn children_are_one_level_down() {
        let top: Vec<_> = children(TABLES, "").collect();
        assert_eq!(top, ["gateway", "kafka", "proxy", "spool", "api"]);
        let proxy: Vec<_> = children(TABLES, "proxy").collect();
        assert_eq!(proxy, ["listener", "headers", "route"]);
    }

    /// STYLE: the unit is the key's last word.
    #[test]
    fn units_are_in_the_names() {
        for table in TABLES {
            for key in table.keys {
                let path = format!("{}.{}", table.path, key.name);
                let (bytes, millis) = (key.name.contains("bytes"), key.name.ends_with("_ms"));
                assert_eq!(matches!(key.kind, Kind::Bytes { .. }), bytes, "{path}");
                assert_eq!(matches!(key.kind, Kind::Millis { .. }), millis, "{path}");
                assert!(
                    key.doc.ends_with('.'),
                    "{path}: the paragraph ends in a full stop"
                );
            }
        }
    }
}
