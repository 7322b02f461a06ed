//! Reads one value by the kind of its key: type, unit and range.

use std::net::SocketAddr;

use super::keys::Kind;
use super::raw::Value;
use super::tree::Node;
use super::{suggest, units};
use crate::secret::{Secret, Source};

/// Longest Kafka topic name (`org.apache.kafka.common.internals.Topic`).
const TOPIC_CHARS_MAX: usize = 249;
const ID_CHARS_MAX: usize = 128;

/// Why a value is not taken.
#[derive(Debug)]
pub(super) struct Wrong {
    /// What stood there, fit to be shown.
    pub found: String,
    /// What would be right.
    pub right: String,
}

/// Reads a value.
pub(super) fn read(kind: Kind, node: &Node) -> Result<Value, Wrong> {
    match kind {
        Kind::Integer { min, max } => integer(node, min, max),
        Kind::Bytes { min, max } => bytes(node, min, max),
        Kind::Millis { min, max } => millis(node, min, max),
        Kind::Flag => match node {
            Node::Flag(flag) => Ok(Value::Flag(*flag)),
            _ => Err(wrong(node, "write true or false")),
        },
        Kind::Choice(words) => choice(node, words),
        Kind::Servers => servers(node),
        Kind::Map => map(node),
        Kind::Secret => secret(node),
        _ => match node {
            Node::Text(text) => read_text(kind, node, text),
            _ => Err(wrong(node, expected_text(kind))),
        },
    }
}

/// What a value of that kind looks like, where it is written as text.
fn expected_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Address => {
            "write an IP address and a port in quotes: \"127.0.0.1:1883\", \"[::1]:1883\""
        }
        Kind::ListenAddress => {
            "write an IP address and a port in quotes, \"0.0.0.0:1883\", or a Unix socket's path, \
             \"unix:/run/tidegate/mqtt.sock\", of at most 107 bytes"
        }
        Kind::Id => "write 1 to 128 of A-Z a-z 0-9 . _ - in quotes",
        Kind::Topic => {
            "write a Kafka topic name in quotes: 1 to 249 of A-Z a-z 0-9 . _ -, not . or .."
        }
        Kind::TopicTemplate => {
            "write a Kafka topic in quotes: 1 to 249 of A-Z a-z 0-9 . _ -, not . or .., or \
             {captures}"
        }
        Kind::Path => "write a path in quotes",
        Kind::LogFilter => "write a level, or levels by module: \"tidegate::uplink=debug,info\"",
        Kind::Name => "write text in quotes",
        _ => "write text in quotes, not empty",
    }
}

fn read_text(kind: Kind, node: &Node, text: &str) -> Result<Value, Wrong> {
    let refused = || Err(wrong(node, expected_text(kind)));
    match kind {
        Kind::Address => match text.parse::<SocketAddr>() {
            Ok(address) => Ok(Value::Address(address)),
            Err(_) => refused(),
        },
        Kind::ListenAddress => match text.parse() {
            Ok(address) => Ok(Value::ListenAddress(address)),
            Err(_) => refused(),
        },
        Kind::Path if !text.is_empty() => Ok(Value::Path(text.into())),
        Kind::Name => Ok(Value::Text(text.to_owned())),
        _ if fits(kind, text) => Ok(Value::Text(text.to_owned())),
        _ => refused(),
    }
}

fn fits(kind: Kind, text: &str) -> bool {
    let name = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    match kind {
        Kind::Id => name && !text.is_empty() && text.len() <= ID_CHARS_MAX,
        Kind::Topic => is_topic(text),
        Kind::TopicTemplate => is_topic(text) || text.contains('{'),
        Kind::LogFilter => tracing_subscriber::EnvFilter::builder().parse(text).is_ok(),
        _ => !text.is_empty(),
    }
}

/// Whether Kafka takes that name for a topic.
pub(super) fn is_topic(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    !name.is_empty()
        && name.len() <= TOPIC_CHARS_MAX
        && name != "."
        && name != ".."
        && name.bytes().all(legal)
}

fn integer(node: &Node, min: i64, max: i64) -> Result<Value, Wrong> {
    let range = range(min, max, units::show_integer);
    match node {
        Node::Integer(n) if (min..=max).contains(n) => Ok(Value::Integer(*n)),
        Node::Integer(_) => Err(wrong(node, format!("write {range}"))),
        _ => Err(wrong(node, format!("write a whole number, {range}"))),
    }
}

fn bytes(node: &Node, min: i64, max: i64) -> Result<Value, Wrong> {
    let range = range(min, max, units::show_bytes);
    let n = match node {
        Node::Integer(n) => Some(*n),
        Node::Text(text) => units::bytes(text),
        _ => None,
    };
    match (n, node) {
        (Some(n), _) if (min..=max).contains(&n) => Ok(Value::Integer(n)),
        (Some(_), _) => Err(wrong(node, format!("write {range}"))),
        (None, Node::Text(text)) => match units::bytes_meant(text) {
            Some(meant) => Err(wrong(node, format!("write {meant:?}"))),
            None => Err(wrong(node, format!("write bytes like \"256MiB\", {range}"))),
        },
        (None, _) => Err(wrong(node, format!("write bytes like \"256MiB\", {range}"))),
    }
}

fn millis(node: &Node, min: i64, max: i64) -> Result<Value, Wrong> {
    let range = range(min, max, units::show_integer);
    match node {
        Node::Integer(n) if (min..=max).contains(n) => Ok(Value::Integer(*n)),
        Node::Integer(_) => Err(wrong(node, format!("write {range} milliseconds"))),
        Node::Text(text) => {
            let meant = units::millis_meant(text).or_else(|| units::integer(text));
            let right = match meant.filter(|ms| (min..=max).contains(ms)) {
                Some(ms) => format!("write milliseconds: {}", units::show_integer(ms)),
                None => format!("write milliseconds without quotes, {range}"),
            };
            Err(wrong(node, right))
        }
        _ => Err(wrong(node, format!("write milliseconds, {range}"))),
    }
}

fn range(min: i64, max: i64, show: impl Fn(i64) -> String) -> String {
    format!("{} to {}", show(min), show(max))
}

fn choice(node: &Node, words: &[&str]) -> Result<Value, Wrong> {
    let all = words.join(", ");
    let Node::Text(text) = node else {
        return Err(wrong(node, format!("write one of {all} in quotes")));
    };
    if words.contains(&text.as_str()) {
        return Ok(Value::Text(text.clone()));
    }
    Err(match suggest::nearest(words, text) {
        Some(near) => wrong(node, format!("did you mean {near:?}? (one of {all})")),
        None => wrong(node, format!("write one of {all}")),
    })
}

fn servers(node: &Node) -> Result<Value, Wrong> {
    const RIGHT: &str = "write a list of \"host:port\": [\"kafka-1:9092\", \"kafka-2:9092\"]";
    let Node::List(items) = node else {
        return Err(wrong(node, RIGHT));
    };
    let mut servers = Vec::new();
    for item in items {
        match &item.node {
            Node::Text(text) if is_server(text) => servers.push(text.clone()),
            node => return Err(wrong(node, RIGHT)),
        }
    }
    if servers.is_empty() {
        return Err(Wrong {
            found: "an empty list".to_owned(),
            right: RIGHT.to_owned(),
        });
    }
    Ok(Value::List(servers))
}

/// `host:port`, `1.2.3.4:port` or `[v6]:port`.
fn is_server(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_is_right = match bare {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '/', '[', ']', ' ', '@', ',']),
    };
    host_is_right && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn map(node: &Node) -> Result<Value, Wrong> {
    const RIGHT: &str = "write names and texts: { name = \"text\" }";
    let Node::Table(entries) = node else {
        return Err(wrong(node, RIGHT));
    };
    let mut map = Vec::new();
    for (name, item) in entries {
        match &item.node {
            Node::Text(text) if !name.is_empty() => map.push((name.clone(), text.clone())),
            node => {
                let found = format!("{name} = {}", node.shown());
                let right = RIGHT.to_owned();
                return Err(Wrong { found, right });
            }
        }
    }
    Ok(Value::Map(map))
}

fn secret(node: &Node) -> Result<Value, Wrong> {
    let source = match node {
        Node::Text(text) if !text.is_empty() => Some(Source::Value(Secret::new(text.clone()))),
        Node::Table(entries) => match entries.as_slice() {
            [(name, item)] => match (name.as_str(), &item.node) {
                ("file", Node::Text(path)) => Some(Source::File(path.into())),
                ("env", Node::Text(variable)) => Some(Source::Variable(variable.clone())),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    source.map(Value::Secret).ok_or_else(|| Wrong {
        found: "a secret that is not shown".to_owned(),
        right: "write text, { file = \"path\" } or { env = \"VARIABLE\" }".to_owned(),
    })
}

fn wrong(node: &Node, right: impl Into<String>) -> Wrong {
    Wrong {
        found: node.shown(),
        right: right.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::from_literal;
    use super::*;

    fn take(kind: Kind, literal: &str) -> Result<Value, String> {
        let read = read(kind, &from_literal(literal).unwrap());
        read.map_err(|wrong| format!("{}; {}", wrong.found, wrong.right))
    }

    #[test]
    fn numbers_have_units_and_ranges() {
        let ms = Kind::Millis {
            min: 10,
            max: 60_000,
        };
        assert_eq!(take(ms, "1_000"), Ok(Value::Integer(1_000)));
        assert!(
            take(ms, "\"5s\"")
                .unwrap_err()
                .ends_with("write milliseconds: 5_000")
        );
        assert!(take(ms, "\"5d\"").unwrap_err().contains("10 to 60_000"));
        assert!(take(ms, "1.5").unwrap_err().starts_with("1.5;"));
        let size = Kind::Bytes {
            min: 1,
            max: 1 << 30,
        };
        assert_eq!(take(size, "\"256MiB\""), Ok(Value::Integer(256 << 20)));
        assert!(
            take(size, "\"256MB\"")
                .unwrap_err()
                .ends_with("write \"256MiB\"")
        );
        assert!(
            take(size, "\"2GiB\"")
                .unwrap_err()
                .ends_with("write 1 to 1GiB")
        );
    }

    #[test]
    fn servers_are_hosts_with_ports() {
        for good in ["[\"kafka-1:9092\"]", "[\"[::1]:9092\", \"10.0.0.1:1\"]"] {
            assert!(take(Kind::Servers, good).is_ok(), "{good}");
        }
        for bad in [
            "[]",
            "\"a:1\"",
            "[\"a\"]",
            "[\"::1:9\"]",
            "[\"tcp://a:1\"]",
            "[\"a:0\"]",
        ] {
            assert!(take(Kind::Servers, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn topics_are_legal_in_kafka() {
        assert!(is_topic("a.b_c-D9"));
        assert!(is_topic(&"x".repeat(249)));
        for bad in ["", ".", "..", "a/b", "é", &"x".repeat(250)] {
            assert!(!is_topic(bad), "{bad}");
        }
        assert!(take(Kind::TopicTemplate, "\"t-{line}\"").is_ok());
        assert!(take(Kind::TopicTemplate, "\"a b\"").is_err());
    }

    #[test]
    fn choices_suggest() {
        let modes = Kind::Choice(&["hybrid", "always"]);
        assert!(
            take(modes, "\"hybird\"")
                .unwrap_err()
                .contains("did you mean \"hybrid\"?")
        );
    }

    #[test]
    fn secrets_are_taken_three_ways_and_not_shown() {
        let file = Value::Secret(Source::File("/run/pass".into()));
        assert_eq!(take(Kind::Secret, "{ file = \"/run/pass\" }"), Ok(file));
        assert!(take(Kind::Secret, "{ env = \"PASS\" }").is_ok());
        let shown = format!("{:?}", take(Kind::Secret, "\"hunter2\""));
        assert!(!shown.contains("hunter2"), "{shown}");
        let shown = take(Kind::Secret, "{ fil = \"hunter2\" }").unwrap_err();
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
