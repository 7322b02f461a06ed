//! Counters, gauges and histograms of the gateway: one enum of names each, one registry, no locks.
//!
//! [`names`] says what each is called outside; `render` writes the Prometheus text format 0.0.4.
//! Adding one: a variant here, a line in [`names`], `UPDATE=1 cargo test` for `docs/metrics.md`.

pub mod document;
pub mod names;
mod process;
mod render;

pub use render::CONTENT_TYPE;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// MQTT PUBLISH packets taken.
    Received,
    /// Payload bytes in them.
    ReceivedBytes,
    /// PUBACK and PUBREC sent.
    Acknowledged,
    /// Records that became safe.
    Safe,
    /// Records confirmed by Kafka.
    Sent,
    /// Records that may be in Kafka twice.
    MaybeTwice,
    /// Records dropped because their `ttl_ms` passed.
    DroppedExpired,
    /// Records dropped by `on_full`.
    DroppedFull,
    /// Records that somebody dropped.
    DroppedByHand,
    /// QoS 0 messages dropped at a bound.
    DroppedQos0,
    /// Messages that no route took.
    Refused,
    /// Messages that their clients may not publish.
    Denied,
    /// Records moved to the dead letter topic.
    DeadLettered,
    /// Records put into quarantine.
    Quarantined,
    /// Records lost to damage on disk.
    LostDamaged,
    /// Records that Kafka lost after it had confirmed or held them.
    LostByKafka,
    /// Bytes written to segment files.
    DiskBytes,
    /// Records written to segment files.
    DiskRecords,
    /// Group commits.
    Commits,
    /// Writes and syncs that failed.
    DiskErrors,
    /// Torn tails cut at start.
    TornTails,
    /// Places on disk found damaged.
    Damages,
    /// MQTT connections accepted.
    Connections,
    /// MQTT connections closed for a protocol error.
    ProtocolErrors,
    /// TLS and WebSocket handshakes that failed.
    HandshakesFailed,
    /// CONNECTs with a wrong user name or password.
    LoginsFailed,
    /// Connections closed because their address has too many.
    CrowdedOut,
    /// Produce requests sent.
    ProduceRequests,
    /// Those of them on the slow road.
    ProduceRequestsApart,
    /// Batches sent.
    Batches,
    /// Batches sent again with the same bytes.
    BatchesRepeated,
    /// Batches found to be in Kafka already.
    BatchesAlreadyThere,
    /// Produce bytes sent.
    ProduceBytes,
    /// Produce answers that asked to be left alone for a while.
    Throttled,
    /// Streams whose position was asked of Kafka.
    Resumed,
    /// Those of them where it could not be asked.
    ResumedBlind,
    /// Messages sent to subscribers.
    Delivered,
    /// Copies for subscribers dropped: QoS 0 at a bound.
    UndeliveredQos0,
    /// QoS 1 and 2 at a bound.
    UndeliveredFull,
    /// Their message expired.
    UndeliveredExpired,
    /// Larger than the client takes.
    UndeliveredTooLarge,
    /// The client may not read it.
    UndeliveredDenied,
    /// Messages not retained for want of room.
    UnretainedFull,
}

/// What goes up and down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Gauge {
    /// MQTT connections open.
    ConnectionsOpen,
    /// Subscriptions of all sessions.
    Subscriptions,
    /// Retained messages.
    Retained,
    /// Records not yet confirmed.
    BufferedRecords,
    /// Their bytes in memory.
    BufferedMemoryBytes,
    /// Bytes of segment files that hold unconfirmed records.
    BufferedDiskBytes,
    /// Entries kept for sources: sessions, queued and retained messages.
    KeptEntries,
    /// Their bytes.
    KeptBytes,
    /// Age of the oldest unconfirmed record, milliseconds.
    BufferedAgeMs,
    /// 1 while Kafka answers.
    UplinkUp,
    /// When the first certificate of a listener ends, milliseconds since 1970.
    CertificateEndsMs,
    /// 1 while there is no room on disk.
    SpoolFull,
    /// 1 once the clock is believed.
    ClockSynchronised,
    /// Streams known.
    Streams,
    /// Streams that cannot be sent while others can.
    StreamsStalled,
    /// Bytes that can still be written to segment files.
    RoomBytes,
    /// Time until the disk is full if nothing is sent, milliseconds; `u64::MAX`: endless.
    RunwayMs,
    /// Time until the backlog is sent, milliseconds; `u64::MAX`: endless.
    DrainMs,
}

/// What is spread over buckets of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Histogram {
    /// From PUBLISH read to PUBACK written.
    PubackSeconds,
    /// One `fdatasync`.
    SyncSeconds,
    /// One produce request.
    ProduceSeconds,
}

const COUNTERS: usize = Counter::UnretainedFull as usize + 1;
const GAUGES: usize = Gauge::DrainMs as usize + 1;
const HISTOGRAMS: usize = Histogram::ProduceSeconds as usize + 1;
const BUCKETS: usize = 16;

/// All figures of one gateway.
#[derive(Debug)]
pub struct Metrics {
    counters: [AtomicU64; COUNTERS],
    gauges: [AtomicU64; GAUGES],
    /// Bucket i counts durations below 2^i × 100 µs; the last everything above.
    buckets: [[AtomicU64; BUCKETS]; HISTOGRAMS],
    sums_us: [AtomicU64; HISTOGRAMS],
}

impl Default for Metrics {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            counters: std::array::from_fn(|_| zero()),
            gauges: std::array::from_fn(|_| zero()),
            buckets: std::array::from_fn(|_| std::array::from_fn(|_| zero())),
            sums_us: std::array::from_fn(|_| zero()),
        }
    }
}

impl Metrics {
    /// Adds to a counter.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) {
        if let Some(cell) = self.counters.get(counter as usize) {
            cell.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Reads a counter.
    #[must_use]
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters
            .get(counter as usize)
            .map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// Sets a gauge.
    #[inline]
    pub fn set(&self, gauge: Gauge, value: u64) {
        if let Some(cell) = self.gauges.get(gauge as usize) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// Adds `n` observations of `duration` to a histogram.
    #[inline]
    pub fn observe(&self, histogram: Histogram, duration: Duration, n: u64) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (64 - (us / 100).leading_zeros() as usize).min(BUCKETS - 1);
        if let Some(cell) = self
            .buckets
            .get(histogram as usize)
            .and_then(|row| row.get(bucket))
        {
            cell.fetch_add(n, Ordering::Relaxed);
        }
        if let Some(cell) = self.sums_us.get(histogram as usize) {
            cell.fetch_add(us.saturating_mul(n), Ordering::Relaxed);
        }
    }

    /// Reads a gauge.
    #[must_use]
    pub fn level(&self, gauge: Gauge) -> u64 {
        self.gauges
            .get(gauge as usize)
            .map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// How often each bucket of a histogram was hit, and the sum of the durations in microseconds.
    fn spread(&self, histogram: Histogram) -> ([u64; BUCKETS], u64) {
        let mut counts = [0; BUCKETS];
        if let Some(row) = self.buckets.get(histogram as usize) {
            for (count, cell) in counts.iter_mut().zip(row) {
                *count = cell.load(Ordering::Relaxed);
            }
        }
        let sum = self.sums_us.get(histogram as usize);
        (counts, sum.map_or(0, |cell| cell.load(Ordering::Relaxed)))
    }
}
