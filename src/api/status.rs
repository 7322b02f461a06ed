//! `/tidegate/status`: how the gateway is, in the figures that a person asks for first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::ApiState;
use super::buffer::answer;
use crate::metrics::names::COUNTER_NAMES;
use crate::metrics::{Counter, Gauge, Metrics};
use crate::spool::core::Runway;

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Seconds since the gateway started.
    pub uptime_seconds: u64,
    /// Whether devices are accepted.
    pub accepting: bool,
    /// MQTT connections open.
    pub connections: u64,
    /// Whether Kafka answers; with nothing to send, whether a connection to it is open.
    pub uplink_up: bool,
    /// Streams that cannot be sent while others can.
    pub streams_stalled: u64,
    /// Records not yet confirmed by Kafka.
    pub buffered_records: u64,
    /// Their bytes in memory.
    pub buffered_memory_bytes: u64,
    /// Bytes of segment files that hold some of them.
    pub buffered_disk_bytes: u64,
    /// Age of the oldest, milliseconds.
    pub buffered_age_ms: u64,
    /// Whether there is no room on disk.
    pub full: bool,
    /// How long the disk lasts, and how long the backlog takes.
    pub runway: Runway,
    /// Records in quarantine.
    pub quarantined: u64,
    /// Messages that will not reach Kafka, by reason, since the start.
    pub dropped: BTreeMap<String, u64>,
    /// Records lost against the promise, by reason, since the start.
    pub lost: BTreeMap<String, u64>,
    /// Records that may be in Kafka twice, since the start.
    pub maybe_twice: u64,
}

pub(super) async fn status(State(state): State<Arc<ApiState>>) -> Response {
    let told = Arc::clone(&state);
    answer(state, move |spool| {
        (told.refresh)();
        let level = |gauge| told.metrics.level(gauge);
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: told.started.elapsed().as_secs(),
            accepting: told.accepting.load(Ordering::Relaxed),
            connections: level(Gauge::ConnectionsOpen),
            uplink_up: level(Gauge::UplinkUp) != 0,
            streams_stalled: level(Gauge::StreamsStalled),
            buffered_records: level(Gauge::BufferedRecords),
            buffered_memory_bytes: level(Gauge::BufferedMemoryBytes),
            buffered_disk_bytes: level(Gauge::BufferedDiskBytes),
            buffered_age_ms: level(Gauge::BufferedAgeMs),
            full: level(Gauge::SpoolFull) != 0,
            runway: spool.runway(),
            quarantined: spool.quarantine_count(),
            dropped: by_reason(&told.metrics, "dropped_total"),
            lost: by_reason(&told.metrics, "lost_total"),
            maybe_twice: told.metrics.count(Counter::MaybeTwice),
        })
    })
    .await
}

/// The members of a family of counters that are not 0.
fn by_reason(metrics: &Metrics, family: &str) -> BTreeMap<String, u64> {
    let members = COUNTER_NAMES.iter().filter(|name| name.family == family);
    let named = members.filter_map(|name| Some((name.label?.1, metrics.count(name.of))));
    named
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| (reason.to_owned(), count))
        .collect()
}
