//! Second stage: from what was typed to [`super::checked`], with defaults for what was left out.
//!
//! A key whose value was refused takes its default here too, so that the rest can still be checked
//! and all errors are told at once; the result is thrown away then. What secures
//! connections to Kafka is in [`security`].

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::checked::{
    Api, ClockTrust, Config, Delivery, Gateway, HeaderNames, Kafka, Listener, Local, LogFormat,
    OnFull, OnRefused, Proxy, Route, Spool, SpoolMode, TopicCreation,
};
use super::keys::{self, Default as KeyDefault, TABLES};
use super::problem::Problem;
use super::raw::{Raw, Value};
use super::{ListenAddress, security, tree, value};
use crate::kafka::Compression;
use crate::secret::Source;
use crate::tls::identity::NamedIn;

/// Builds the configuration and says what is doubtful; what is missing is added to `raw.problems`.
pub(super) fn build(raw: &mut Raw) -> (Config, Vec<String>) {
    let mut reader = Reader {
        raw,
        problems: Vec::new(),
        warnings: Vec::new(),
        asked: BTreeSet::new(),
    };
    let config = config(&mut reader);
    let (problems, warnings) = (reader.problems, reader.warnings);
    raw.problems.extend(problems);
    (config, warnings)
}

/// Hands out values by the shown path of their keys.
pub(super) struct Reader<'r> {
    pub(super) raw: &'r Raw,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    /// Which keys were read; a test wants all.
    asked: BTreeSet<String>,
}

impl Reader<'_> {
    fn value(&mut self, path: &str) -> Option<Value> {
        let plain = keys::without_indexes(path);
        let key = keys::key(TABLES, &plain);
        self.asked.insert(plain);
        if let Some(value) = self.raw.value(path).or_else(|| self.raw.below(path)) {
            return Some(value.clone());
        }
        let key = key?;
        match key.default {
            KeyDefault::Is(literal) => value::read(key.kind, &tree::from_literal(literal)?).ok(),
            KeyDefault::Absent(_) => None,
            KeyDefault::Required => {
                if !self.raw.is_refused(path) {
                    let place = self.raw.place(path);
                    let right = format!("set it: {}", first_sentence(key.doc));
                    self.problems
                        .push(Problem::new(place, path, "missing", right));
                }
                None
            }
        }
    }

    pub(super) fn maybe_text(&mut self, path: &str) -> Option<String> {
        match self.value(path) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn text(&mut self, path: &str) -> String {
        self.maybe_text(path).unwrap_or_default()
    }

    fn maybe_integer(&mut self, path: &str) -> Option<i64> {
        match self.value(path) {
            Some(Value::Integer(n)) => Some(n),
            _ => None,
        }
    }

    fn number<T: TryFrom<i64> + Default>(&mut self, path: &str) -> T {
        self.maybe_number(path).unwrap_or_default()
    }

    /// A number within the key's range that `T` cannot hold, as on 32 bits, is refused.
    fn maybe_number<T: TryFrom<i64> + Default>(&mut self, path: &str) -> Option<T> {
        let n = self.maybe_integer(path)?;
        Some(T::try_from(n).unwrap_or_else(|_| {
            let bits = 8 * size_of::<T>();
            let right = format!("write less: here it is a number of {bits} bits");
            let place = self.raw.place(path);
            let problem = Problem::new(place, path, format!("found {n}"), right);
            self.problems.push(problem);
            T::default()
        }))
    }

    fn maybe_millis(&mut self, path: &str) -> Option<Duration> {
        let n = self.maybe_integer(path)?;
        u64::try_from(n).ok().map(Duration::from_millis)
    }

    fn millis(&mut self, path: &str) -> Duration {
        self.maybe_millis(path).unwrap_or_default()
    }

    fn flag(&mut self, path: &str) -> bool {
        matches!(self.value(path), Some(Value::Flag(true)))
    }

    pub(super) fn maybe_path(&mut self, path: &str) -> Option<PathBuf> {
        match self.value(path) {
            Some(Value::Path(value)) => Some(value),
            _ => None,
        }
    }

    pub(super) fn secret(&mut self, path: &str) -> Option<Source> {
        match self.value(path) {
            Some(Value::Secret(source)) => Some(source),
            _ => None,
        }
    }

    fn path(&mut self, path: &str) -> PathBuf {
        self.maybe_path(path).unwrap_or_default()
    }

    fn address(&mut self, path: &str) -> SocketAddr {
        match self.value(path) {
            Some(Value::Address(address)) => address,
            _ => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        }
    }

    fn listen_address(&mut self, path: &str) -> ListenAddress {
        match self.value(path) {
            Some(Value::ListenAddress(address)) => address,
            _ => ListenAddress::Tcp(self.address(path)),
        }
    }

    fn list(&mut self, path: &str) -> Vec<String> {
        match self.value(path) {
            Some(Value::List(list)) => list,
            _ => Vec::new(),
        }
    }

    pub(super) fn map(&mut self, path: &str) -> Vec<(String, String)> {
        match self.value(path) {
            Some(Value::Map(map)) => map,
            _ => Vec::new(),
        }
    }
}

fn first_sentence(doc: &str) -> &str {
    doc.split_once(". ")
        .map_or(doc, |(first, _)| first)
        .trim_end_matches('.')
}

fn config(r: &mut Reader<'_>) -> Config {
    let gateway = gateway(r);
    Config {
        kafka: kafka(r, &gateway.id),
        gateway,
        proxy: r.raw.has("proxy").then(|| proxy(r)),
        spool: spool(r),
        api: r.raw.has("api").then(|| Api {
            listen: r.address("api.listen"),
        }),
    }
}

fn gateway(r: &mut Reader<'_>) -> Gateway {
    Gateway {
        id: r.maybe_text("gateway.id").unwrap_or_else(host_name),
        data_dir: r.path("gateway.data_dir"),
        log_filter: r.text("gateway.log_filter"),
        log_format: match r.text("gateway.log_format").as_str() {
            "json" => LogFormat::Json,
            _ => LogFormat::Text,
        },
        clock: match r.text("gateway.clock").as_str() {
            "trusted" => ClockTrust::Trusted,
            _ => ClockTrust::Auto,
        },
        clock_file: r.maybe_path("gateway.clock_file"),
        shutdown_timeout: r.millis("gateway.shutdown_timeout_ms"),
        worker_threads: r.number("gateway.worker_threads"),
    }
}

/// The kernel's host name, with what an id may not hold made `-`; `tidegate` where there is none.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let legal = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = name.trim().chars().map(legal).collect();
    if name.is_empty() {
        "tidegate".to_owned()
    } else {
        name
    }
}

fn kafka(r: &mut Reader<'_>, gateway_id: &str) -> Kafka {
    Kafka {
        bootstrap_servers: r.list("kafka.bootstrap_servers"),
        delivery: match r.text("kafka.delivery").as_str() {
            "at_least_once" => Delivery::AtLeastOnce,
            _ => Delivery::ExactlyOnce,
        },
        compression: match r.text("kafka.compression").as_str() {
            "none" => Compression::None,
            "gzip" => Compression::Gzip,
            "snappy" => Compression::Snappy,
            "lz4" => Compression::Lz4,
            _ => Compression::Zstd,
        },
        client_id: r
            .maybe_text("kafka.client_id")
            .unwrap_or_else(|| format!("tidegate-{gateway_id}")),
        provenance: r.flag("kafka.provenance"),
        connect_timeout: r.millis("kafka.connect_timeout_ms"),
        request_timeout: r.millis("kafka.request_timeout_ms"),
        server_timeout: r.millis("kafka.server_timeout_ms"),
        batch_bytes_max: r.number("kafka.batch_bytes_max"),
        request_bytes_max: r.number("kafka.request_bytes_max"),
        retry_backoff: (
            r.millis("kafka.retry_backoff_min_ms"),
            r.millis("kafka.retry_backoff_max_ms"),
        ),
        security: security::security(r),
        dead_letter_after: {
            let after = r.millis("kafka.dead_letter_after_ms");
            r.maybe_text("kafka.dead_letter_topic").map(|_| after)
        },
        topic_creation: r.raw.has("kafka.topic_creation").then(|| TopicCreation {
            partitions: r.number("kafka.topic_creation.partitions"),
            replication_factor: r.number("kafka.topic_creation.replication_factor"),
            configs: r.map("kafka.topic_creation.configs"),
        }),
    }
}

fn proxy(r: &mut Reader<'_>) -> Proxy {
    Proxy {
        listeners: listeners(r),
        default_topic: r.maybe_text("proxy.default_topic"),
        on_refused: match r.text("proxy.on_refused").as_str() {
            "disconnect" => OnRefused::Disconnect,
            _ => OnRefused::Ack,
        },
        max_connections: r.number("proxy.max_connections"),
        max_connections_per_address: r.number("proxy.max_connections_per_address"),
        max_publishes_per_second: r.maybe_number("proxy.max_publishes_per_second"),
        max_packet_bytes: r.number("proxy.max_packet_bytes"),
        connect_timeout: r.millis("proxy.connect_timeout_ms"),
        max_inflight_messages: r.number("proxy.max_inflight_messages"),
        max_inflight_bytes: r.number("proxy.max_inflight_bytes"),
        max_total_inflight_bytes: r.number("proxy.max_total_inflight_bytes"),
        topic_alias_max: r.number("proxy.topic_alias_max"),
        session_expiry_max: r.millis("proxy.session_expiry_max_ms"),
        max_sessions: r.number("proxy.max_sessions"),
        local: Local {
            max_subscriptions: r.number("proxy.max_subscriptions"),
            max_queued_messages: r.number("proxy.max_queued_messages"),
            max_queued_bytes: r.number("proxy.max_queued_bytes"),
            max_total_queued_bytes: r.number("proxy.max_total_queued_bytes"),
            max_retained_messages: r.number("proxy.max_retained_messages"),
            max_retained_bytes: r.number("proxy.max_retained_bytes"),
        },
        headers: header_names(r),
        routes: (0..r.raw.count("proxy.route"))
            .map(|i| route(r, i))
            .collect(),
    }
}

fn listeners(r: &mut Reader<'_>) -> Vec<Listener> {
    let first = Listener {
        allow_anonymous: r.flag("proxy.allow_anonymous"),
        passwords: security::rules(r, "proxy"),
        acl: security::rules(r, "proxy"),
        ..Listener::plain(r.address("proxy.listen"))
    };
    let count = r.raw.count("proxy.listener");
    let first = Some(first).filter(|first| count == 0 || r.raw.has(&first.key));
    let more = (0..count).map(|i| {
        let at = |key: &str| format!("proxy.listener[{i}].{key}");
        Listener {
            key: at("listen"),
            address: r.listen_address(&at("listen")),
            allow_anonymous: r.flag(&at("allow_anonymous")),
            passwords: security::rules(r, &format!("proxy.listener[{i}]")),
            acl: security::rules(r, &format!("proxy.listener[{i}]")),
            certificate_user: match r.text(&at("certificate_user")).as_str() {
                "common_name" => Some(NamedIn::CommonName),
                "alternative_name" => Some(NamedIn::AlternativeName),
                _ => None,
            },
            websocket: r.text(&at("transport")) == "websocket",
            proxy_protocol: r.flag(&at("proxy_protocol")),
            tls: security::server(r, &format!("proxy.listener[{i}]")).map(Arc::new),
        }
    });
    first.into_iter().chain(more).collect()
}

fn header_names(r: &mut Reader<'_>) -> HeaderNames {
    let prefix = r.text("proxy.headers.user_property_prefix");
    HeaderNames {
        message_id: r.text("proxy.headers.message_id"),
        qos: r.text("proxy.headers.qos"),
        retained: r.text("proxy.headers.retained"),
        duplicate: r.text("proxy.headers.duplicate"),
        topic: r.text("proxy.headers.topic"),
        client_id: r.text("proxy.headers.client_id"),
        content_type: r.text("proxy.headers.content_type"),
        response_topic: r.text("proxy.headers.response_topic"),
        correlation_data: r.text("proxy.headers.correlation_data"),
        user_property_prefix: r.flag("proxy.headers.user_properties").then_some(prefix),
    }
}

fn route(r: &mut Reader<'_>, i: usize) -> Route {
    let at = |key: &str| format!("proxy.route[{i}].{key}");
    Route {
        mqtt: r.text(&at("mqtt")),
        topic: r.text(&at("topic")),
        key: r.maybe_text(&at("key")),
        headers: r.map(&at("headers")),
        priority: r.number(&at("priority")),
        ttl: r.maybe_millis(&at("ttl_ms")),
    }
}

fn spool(r: &mut Reader<'_>) -> Spool {
    Spool {
        mode: match r.text("spool.mode").as_str() {
            "always" => SpoolMode::Always,
            _ => SpoolMode::Hybrid,
        },
        spill_after: r.millis("spool.spill_after_ms"),
        sync_interval: r.millis("spool.sync_interval_ms"),
        max_bytes: r.number("spool.max_bytes"),
        min_free_bytes: r.number("spool.min_free_bytes"),
        on_full: on_full(&r.text("spool.on_full")),
        segment_bytes: r.number("spool.segment_bytes"),
        memory_max_bytes: r.number("spool.memory_max_bytes"),
        replay_bytes_per_second: r.number("spool.replay_bytes_per_second"),
        stalled_max_percent: r.number("spool.stalled_max_percent"),
        on_stalled_full: on_full(&r.text("spool.on_stalled_full")),
        compression_level: r.number("spool.compression_level"),
        quarantine_max_bytes: r.number("spool.quarantine_max_bytes"),
        kept_max_bytes: r.number("spool.kept_max_bytes"),
        dead_letter_topic: r.maybe_text("kafka.dead_letter_topic"),
    }
}

fn on_full(word: &str) -> OnFull {
    match word {
        "drop_oldest" => OnFull::DropOldest,
        "drop_lowest_priority" => OnFull::DropLowestPriority,
        _ => OnFull::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_the_machine_cannot_hold_is_refused() {
        let text = "[proxy]\nmax_connections = 70_000\n";
        let raw = Raw::new(TABLES, &tree::from_toml(text).0);
        let mut reader = Reader {
            raw: &raw,
            problems: Vec::new(),
            warnings: Vec::new(),
            asked: BTreeSet::new(),
        };
        assert_eq!(reader.number::<u32>("proxy.max_connections"), 70_000);
        assert_eq!(reader.number::<u16>("proxy.max_connections"), 0);
        let refused = reader.problems.first().unwrap();
        assert_eq!(refused.key, "proxy.max_connections");
        assert_eq!(refused.found, "found 70000");
    }

    /// The one definition and the checked structs cannot drift apart: every key is read once.
    #[test]
    fn every_key_is_read_and_every_default_is_legal() {
        let text = "[kafka]\nbootstrap_servers = ['a:1']\n[kafka.topic_creation]\n[kafka.tls]\n\
                    [kafka.sasl]\nmechanism = 'PLAIN'\n[proxy]\n\
                    [[proxy.route]]\nmqtt = 'a'\ntopic = 'a'\n\
                    [[proxy.listener]]\nlisten = '127.0.0.1:0'\n[api]\n";
        let raw = Raw::new(TABLES, &tree::from_toml(text).0);
        let mut reader = Reader {
            raw: &raw,
            problems: Vec::new(),
            warnings: Vec::new(),
            asked: BTreeSet::new(),
        };
        config(&mut reader);
        let problems = &reader.problems;
        assert!(
            problems.iter().all(|p| p.key.starts_with("kafka.sasl")),
            "{problems:?}"
        );
        let mut defined = BTreeSet::new();
        for table in TABLES {
            for key in table.keys {
                defined.insert(format!("{}.{}", table.path, key.name));
                if let KeyDefault::Is(literal) = key.default {
                    let node = tree::from_literal(literal).unwrap();
                    assert!(value::read(key.kind, &node).is_ok(), "{}", key.name);
                }
            }
        }
        assert_eq!(reader.asked, defined);
    }
}
