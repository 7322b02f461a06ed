//! What keys mean together: combinations that cannot work are refused, doubtful ones are warned of.

use std::time::Duration;

use super::ListenAddress;
use super::checked::{Api, Config, Delivery, Proxy, Route, Spool, SpoolMode};
use super::problem::Problem;
use super::raw::Raw;
use super::units;
use crate::board::Board;

/// Checks the whole; adds to `raw.problems` and returns the warnings.
pub(super) fn check(config: &mut Config, raw: &mut Raw) -> Vec<String> {
    let mut found = Found {
        raw,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    kafka(config, &mut found);
    spool(&config.spool, &mut found);
    if let Some(proxy) = &mut config.proxy {
        proxy_listens(proxy, &mut found);
        proxy_bounds(proxy, &config.spool, &mut found);
        one_value_a_topic(&mut proxy.routes, &mut found);
        if proxy.routes.is_empty() && proxy.default_topic.is_none() {
            let warning = "[proxy] has no route and no default_topic: all messages are refused";
            found.warnings.push(warning.to_owned());
        }
    }
    listeners_differ(config, &mut found);
    let (problems, warnings) = (found.problems, found.warnings);
    raw.problems.extend(problems);
    warnings
}

/// Share of a board's memory that records may take before it is told; the rest is for the system,
/// and for what connections and streams cost.
const MEMORY_SHARE: u64 = 4;

/// Whether the records that may lie in memory are too many for the board.
pub(super) fn memory(config: &Config, board: &Board) -> Option<String> {
    // As many bytes as are unacknowledged may be in packets that are not whole yet.
    let proxy = config.proxy.as_ref();
    let proxy = proxy.map_or(0, |proxy| 2 * proxy.max_total_inflight_bytes as u64);
    let records = proxy + config.spool.memory_max_bytes as u64;
    let bound = (u64::from(board.profile.memory_mib) << 20) / MEMORY_SHARE;
    (records > bound).then(|| {
        format!(
            "spool.memory_max_bytes and twice proxy.max_total_inflight_bytes are {}, more than {} \
             (a quarter of the memory of board {}): the kernel may kill the gateway",
            size(records),
            size(bound),
            board.id
        )
    })
}

struct Found<'r> {
    raw: &'r Raw,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Found<'_> {
    /// Refuses the value of `key`, unless it was refused by itself.
    fn refuse(&mut self, key: &str, found: String, right: impl Into<String>) {
        if !self.raw.is_refused(key) {
            let place = self.raw.place(key);
            self.problems.push(Problem::new(place, key, found, right));
        }
    }
}

fn ms(duration: Duration) -> String {
    units::show_integer(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

fn size(bytes: u64) -> String {
    units::show_bytes(i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn kafka(config: &Config, found: &mut Found<'_>) {
    let kafka = &config.kafka;
    if kafka.delivery == Delivery::AtLeastOnce && !cfg!(feature = "rskafka") {
        found.refuse(
            "kafka.delivery",
            "found \"at_least_once\", which this binary was built without".to_owned(),
            "write \"exactly_once\", or build with --features rskafka",
        );
    }
    let tls = kafka.security.tls.as_ref();
    if kafka.delivery == Delivery::AtLeastOnce && tls.is_some_and(|tls| tls.has_server_name()) {
        found.refuse(
            "kafka.tls.server_name",
            "rskafka, the engine of at_least_once, cannot use it".to_owned(),
            "leave it out, or write delivery = \"exactly_once\"",
        );
    }
    if kafka.server_timeout >= kafka.request_timeout {
        found.refuse(
            "kafka.server_timeout_ms",
            format!(
                "{} is not below request_timeout_ms",
                ms(kafka.server_timeout)
            ),
            format!("write less than {}", ms(kafka.request_timeout)),
        );
    }
    if kafka.batch_bytes_max > kafka.request_bytes_max {
        found.refuse(
            "kafka.batch_bytes_max",
            format!(
                "{} is more than request_bytes_max",
                size(kafka.batch_bytes_max as u64)
            ),
            format!("write at most {}", size(kafka.request_bytes_max as u64)),
        );
    }
    let (first, longest) = kafka.retry_backoff;
    if first > longest {
        found.refuse(
            "kafka.retry_backoff_min_ms",
            format!("{} is more than retry_backoff_max_ms", ms(first)),
            format!("write at most {}", ms(longest)),
        );
    }
    let after = "kafka.dead_letter_after_ms";
    if kafka.dead_letter_after.is_none() && found.raw.has(after) {
        found.refuse(
            after,
            "found without dead_letter_topic".to_owned(),
            "write kafka.dead_letter_topic too, or leave it out",
        );
    }
    if let Some(creation) = &kafka.topic_creation {
        let numbers = [
            ("partitions", creation.partitions),
            ("replication_factor", i32::from(creation.replication_factor)),
        ];
        for (name, number) in numbers {
            if number == 0 {
                found.refuse(
                    &format!("kafka.topic_creation.{name}"),
                    "found 0".to_owned(),
                    "write at least 1, or -1 for the broker's default",
                );
            }
        }
    }
}

fn spool(spool: &Spool, found: &mut Found<'_>) {
    const SEGMENTS_MIN: u64 = 4;
    let least = SEGMENTS_MIN.saturating_mul(spool.segment_bytes);
    if spool.max_bytes < least {
        found.refuse(
            "spool.max_bytes",
            format!(
                "{} is less than four segments of {}",
                size(spool.max_bytes),
                size(spool.segment_bytes)
            ),
            format!("write at least {} or a smaller segment_bytes", size(least)),
        );
    }
    if spool.mode == SpoolMode::Hybrid && spool.sync_interval > spool.spill_after {
        found.warnings.push(format!(
            "spool.sync_interval_ms ({}) is above spill_after_ms ({}): a record may wait longer \
             for its commit than for Kafka",
            ms(spool.sync_interval),
            ms(spool.spill_after)
        ));
    }
    if spool.mode == SpoolMode::Always && found.raw.has("spool.spill_after_ms") {
        let warning = "spool.spill_after_ms has no effect with mode = \"always\"";
        found.warnings.push(warning.to_owned());
    }
}

fn proxy_listens(proxy: &Proxy, found: &mut Found<'_>) {
    for listener in &proxy.listeners {
        let asks = listener.tls.as_ref().is_some_and(|tls| tls.asks_clients());
        let outside = !listener.address.is_local() || listener.proxy_protocol;
        if outside && listener.passwords.is_some() && listener.tls.is_none() {
            found.warnings.push(format!(
                "{}: without TLS the network sees the passwords",
                listener.key
            ));
        }
        if listener.certificate_user.is_some() && !asks {
            let table = listener.key.trim_end_matches("listen");
            found.refuse(
                &format!("{table}certificate_user"),
                "found, and clients are not asked for a certificate".to_owned(),
                "set client_ca_file too, or leave it out",
            );
        }
        let asks = asks || listener.passwords.is_some();
        if outside && !listener.allow_anonymous && !asks {
            found.refuse(
                &listener.key,
                format!(
                    "found {}, which is reached from outside, and nothing says who may come in",
                    listener.address
                ),
                "write \"127.0.0.1:1883\", a password_file, a [[proxy.listener]] with \
                 client_ca_file, or allow_anonymous = true to let everybody publish",
            );
        }
    }
}

fn proxy_bounds(proxy: &Proxy, spool: &Spool, found: &mut Found<'_>) {
    let packet = proxy.max_packet_bytes as u64;
    let bounds = [
        ("max_inflight_bytes", proxy.max_inflight_bytes as u64),
        ("spool.memory_max_bytes", spool.memory_max_bytes as u64),
        ("half of spool.segment_bytes", spool.segment_bytes / 2),
    ];
    for (name, bound) in bounds {
        if packet > bound {
            found.refuse(
                "proxy.max_packet_bytes",
                format!("{} is more than {name}", size(packet)),
                format!("write at most {}, or raise the other", size(bound)),
            );
        }
    }
    if proxy.max_inflight_bytes > proxy.max_total_inflight_bytes {
        found.refuse(
            "proxy.max_inflight_bytes",
            format!(
                "{} for one client is more than max_total_inflight_bytes for all",
                size(proxy.max_inflight_bytes as u64)
            ),
            format!(
                "write at most {}",
                size(proxy.max_total_inflight_bytes as u64)
            ),
        );
    }
}

/// Priority and time to live belong to the Kafka topic: two routes to one static topic must agree.
/// One that leaves them out takes those of the other.
fn one_value_a_topic(routes: &mut [Route], found: &mut Found<'_>) {
    let says = |i: usize, key: &str| found.raw.has(&format!("proxy.route[{i}].{key}"));
    let typed: Vec<(bool, bool)> = (0..routes.len())
        .map(|i| (says(i, "priority"), says(i, "ttl_ms")))
        .collect();
    let before = routes.to_vec();
    for (i, route) in routes.iter_mut().enumerate() {
        if route.topic.contains('{') {
            continue;
        }
        let same = || {
            before
                .iter()
                .zip(&typed)
                .enumerate()
                .filter(|(_, (r, _))| r.topic == route.topic)
        };
        let priority = same()
            .find(|(_, (_, typed))| typed.0)
            .map(|(j, (r, _))| (j, r.priority));
        let ttl = same()
            .find(|(_, (_, typed))| typed.1)
            .map(|(j, (r, _))| (j, r.ttl));
        let (typed_priority, typed_ttl) = typed.get(i).copied().unwrap_or_default();
        if let Some((j, other)) = priority {
            if typed_priority && other != route.priority {
                disagree(found, i, j, ("priority", &route.topic));
            }
            route.priority = other;
        }
        if let Some((j, other)) = ttl {
            if typed_ttl && other != route.ttl {
                disagree(found, i, j, ("ttl_ms", &route.topic));
            }
            route.ttl = other;
        }
    }
}

fn disagree(found: &mut Found<'_>, i: usize, j: usize, (key, topic): (&str, &str)) {
    found.refuse(
        &format!("proxy.route[{i}].{key}"),
        format!("another {key} for Kafka topic {topic:?} than proxy.route[{j}] says"),
        "write one value a topic",
    );
}

fn listeners_differ(config: &Config, found: &mut Found<'_>) {
    let proxies = config.proxy.iter().flat_map(|proxy| &proxy.listeners);
    let mut all: Vec<(&str, ListenAddress)> =
        proxies.map(|it| (&*it.key, it.address.clone())).collect();
    let api = |api: &Api| ("api.listen", ListenAddress::Tcp(api.listen));
    all.extend(config.api.iter().map(api));
    let overlap = |a: &ListenAddress, b: &ListenAddress| {
        let (Some(a), Some(b)) = (a.tcp(), b.tcp()) else {
            return a == b;
        };
        let any = a.ip().is_unspecified() || b.ip().is_unspecified();
        a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || any)
    };
    for (i, (key, address)) in all.iter().enumerate() {
        let before = all.iter().take(i);
        for (other, _) in before.filter(|(_, other)| overlap(address, other)) {
            let (what, right) = match (*key, address.tcp()) {
                ("api.listen", _) => ("port", "write another port: 8083 is usual"),
                (_, Some(_)) => ("port", "write another port"),
                (_, None) => ("socket", "write another path"),
            };
            found.refuse(
                key,
                format!("found {address}, the {what} of {other}"),
                right,
            );
        }
    }
}
