//! What each figure is called outside, and what it says.
//!
//! Prometheus' rules: `tidegate_`, base units (bytes, seconds), `_total` on counters. Figures of
//! one family (records dropped, by reason) differ in a label and stand next to each other.
// tidy: table

use super::{COUNTERS, Counter, GAUGES, Gauge, HISTOGRAMS, Histogram};

/// A figure's name and meaning.
#[derive(Clone, Copy, Debug)]
pub struct Name<T: 'static> {
    /// Which.
    pub of: T,
    /// Name of its family, without `tidegate_`.
    pub family: &'static str,
    /// Name and value of its label, if its family has many members.
    pub label: Option<(&'static str, &'static str)>,
    /// What it says; of a family, the first member's.
    pub help: &'static str,
}

const fn plain<T: Copy>(of: T, family: &'static str, help: &'static str) -> Name<T> {
    Name {
        of,
        family,
        label: None,
        help,
    }
}

const fn reason<T: Copy>(
    of: T,
    family: &'static str,
    why: &'static str,
    help: &'static str,
) -> Name<T> {
    Name {
        of,
        family,
        label: Some(("reason", why)),
        help,
    }
}

const DROPPED: &str = "Messages that will not reach Kafka, by reason: `expired` (ttl_ms), `full` \
    (on_full), `by_hand` (`tidegate buffer drop`), `qos0` (QoS 0 at a bound), `refused` (no \
    route), `denied` (by acl_file, or below $SYS). All but `qos0` are in the loss ledger.";
const LOST: &str = "Records lost against the promise, by reason: `damaged` (on disk), `kafka` \
    (Kafka had confirmed or held them). Each range is in the loss ledger.";

const UNDELIVERED: &str = "Copies that a subscriber did not get, by reason: `qos0` (QoS 0 at a \
    bound of its queue), `full` (QoS 1 and 2 at one), `expired` (message expiry), `too_large` (for \
    its maximum packet size), `denied` (by acl_file). The road to Kafka is not concerned.";

/// All counters.
pub const COUNTER_NAMES: [Name<Counter>; COUNTERS] = [
    plain(
        Counter::Received,
        "received_total",
        "MQTT PUBLISH packets taken.",
    ),
    plain(
        Counter::ReceivedBytes,
        "received_bytes_total",
        "Payload bytes of the PUBLISH packets taken.",
    ),
    plain(
        Counter::Acknowledged,
        "acknowledged_total",
        "PUBACK and PUBREC packets sent.",
    ),
    plain(
        Counter::Safe,
        "safe_total",
        "Records that became safe: confirmed by Kafka or synced to disk.",
    ),
    plain(Counter::Sent, "sent_total", "Records confirmed by Kafka."),
    plain(
        Counter::MaybeTwice,
        "maybe_twice_total",
        "Records that may be in Kafka twice.",
    ),
    reason(Counter::DroppedExpired, "dropped_total", "expired", DROPPED),
    reason(Counter::DroppedFull, "dropped_total", "full", DROPPED),
    reason(Counter::DroppedByHand, "dropped_total", "by_hand", DROPPED),
    reason(Counter::DroppedQos0, "dropped_total", "qos0", DROPPED),
    reason(Counter::Refused, "dropped_total", "refused", DROPPED),
    reason(Counter::Denied, "dropped_total", "denied", DROPPED),
    reason(Counter::LostDamaged, "lost_total", "damaged", LOST),
    reason(Counter::LostByKafka, "lost_total", "kafka", LOST),
    plain(
        Counter::DeadLettered,
        "dead_lettered_total",
        "Records moved to kafka.dead_letter_topic; they leave their own topic's stream, and the \
         ledger has them as `dead_lettered`.",
    ),
    plain(
        Counter::Quarantined,
        "quarantined_total",
        "Records that Kafka rejected for good, put into quarantine.",
    ),
    plain(
        Counter::DiskBytes,
        "disk_written_bytes_total",
        "Bytes written to segment files.",
    ),
    plain(
        Counter::DiskRecords,
        "disk_written_records_total",
        "Records written to segment files.",
    ),
    plain(Counter::Commits, "disk_commits_total", "Group commits."),
    plain(
        Counter::DiskErrors,
        "disk_errors_total",
        "Writes and syncs that failed.",
    ),
    plain(
        Counter::TornTails,
        "disk_torn_tails_total",
        "Torn tails cut at start: the mark of a power cut.",
    ),
    plain(
        Counter::Damages,
        "disk_damages_total",
        "Places on disk found damaged, at start or when read. Records that are known to be lost \
         there are in lost_total; the log says where, and what is not known.",
    ),
    plain(
        Counter::Connections,
        "connections_total",
        "MQTT connections accepted.",
    ),
    plain(
        Counter::ProtocolErrors,
        "protocol_errors_total",
        "MQTT connections closed for a protocol error.",
    ),
    plain(
        Counter::HandshakesFailed,
        "handshakes_failed_total",
        "TLS and WebSocket handshakes of devices that failed or took too long.",
    ),
    plain(
        Counter::LoginsFailed,
        "logins_failed_total",
        "CONNECT packets with a wrong user name or password, or of a user that is locked.",
    ),
    plain(
        Counter::CrowdedOut,
        "connections_crowded_out_total",
        "Connections closed at accept because their address has as many as it may.",
    ),
    plain(
        Counter::ProduceRequests,
        "produce_requests_total",
        "Produce requests sent to Kafka.",
    ),
    plain(
        Counter::ProduceRequestsApart,
        "produce_requests_apart_total",
        "Those of them that went on a broker's second connection, for partitions that are slow or \
         short of replicas.",
    ),
    plain(
        Counter::Batches,
        "produce_batches_total",
        "Batches sent to Kafka.",
    ),
    plain(
        Counter::BatchesRepeated,
        "produce_batches_repeated_total",
        "Batches sent again with the same bytes.",
    ),
    plain(
        Counter::BatchesAlreadyThere,
        "produce_batches_already_there_total",
        "Batches found to be in Kafka already.",
    ),
    plain(
        Counter::ProduceBytes,
        "produce_bytes_total",
        "Bytes of batches sent to Kafka.",
    ),
    plain(
        Counter::Throttled,
        "produce_throttled_total",
        "Produce answers by which a broker wanted to be left alone: a client quota.",
    ),
    plain(
        Counter::Resumed,
        "streams_resumed_total",
        "Streams whose position was asked of Kafka.",
    ),
    plain(
        Counter::ResumedBlind,
        "streams_resumed_blind_total",
        "Those of them that Kafka did not let us ask about (READ is missing): what earlier runs \
         left goes again one record a batch.",
    ),
    plain(
        Counter::Delivered,
        "delivered_total",
        "Messages sent to subscribers, first sendings only.",
    ),
    reason(
        Counter::UndeliveredQos0,
        "undelivered_total",
        "qos0",
        UNDELIVERED,
    ),
    reason(
        Counter::UndeliveredFull,
        "undelivered_total",
        "full",
        UNDELIVERED,
    ),
    reason(
        Counter::UndeliveredExpired,
        "undelivered_total",
        "expired",
        UNDELIVERED,
    ),
    reason(
        Counter::UndeliveredTooLarge,
        "undelivered_total",
        "too_large",
        UNDELIVERED,
    ),
    reason(
        Counter::UndeliveredDenied,
        "undelivered_total",
        "denied",
        UNDELIVERED,
    ),
    plain(
        Counter::UnretainedFull,
        "unretained_total",
        "Messages that could not be retained: max_retained_messages or max_retained_bytes.",
    ),
];

/// All gauges. One whose name ends in `_seconds` is kept in milliseconds, `u64::MAX` for endless.
pub const GAUGE_NAMES: [Name<Gauge>; GAUGES] = [
    plain(
        Gauge::ConnectionsOpen,
        "connections_open",
        "MQTT connections open.",
    ),
    plain(
        Gauge::Subscriptions,
        "subscriptions",
        "Subscriptions of all sessions, connected or not.",
    ),
    plain(Gauge::Retained, "retained_messages", "Retained messages."),
    plain(
        Gauge::BufferedRecords,
        "buffered_records",
        "Records not yet confirmed by Kafka.",
    ),
    plain(
        Gauge::BufferedMemoryBytes,
        "buffered_memory_bytes",
        "Bytes in memory of records not yet confirmed.",
    ),
    plain(
        Gauge::BufferedDiskBytes,
        "buffered_disk_bytes",
        "Bytes of segment files that hold records not yet confirmed.",
    ),
    plain(
        Gauge::KeptEntries,
        "kept_entries",
        "Entries on disk of what the proxy keeps: sessions, subscriptions, queued and retained \
         messages.",
    ),
    plain(
        Gauge::KeptBytes,
        "kept_bytes",
        "Bytes of their keys and values.",
    ),
    plain(
        Gauge::BufferedAgeMs,
        "buffered_age_seconds",
        "Age of the oldest record not yet confirmed.",
    ),
    plain(
        Gauge::UplinkUp,
        "uplink_up",
        "1 while Kafka answers; with nothing to send, while a connection to it is open \
         or can be opened.",
    ),
    plain(
        Gauge::CertificateEndsMs,
        "listener_certificate_not_after_seconds",
        "When the first certificate of a listener ends, seconds since 1970; 0 without TLS.",
    ),
    plain(
        Gauge::SpoolFull,
        "spool_full",
        "1 while there is no room on disk.",
    ),
    plain(
        Gauge::ClockSynchronised,
        "clock_synchronised",
        "1 once the clock is believed; until then records are marked.",
    ),
    plain(
        Gauge::Streams,
        "streams",
        "Streams (Kafka topic partitions) known.",
    ),
    plain(
        Gauge::StreamsStalled,
        "streams_stalled",
        "Streams that cannot be sent while others can.",
    ),
    plain(
        Gauge::RoomBytes,
        "room_bytes",
        "Bytes that records may still take on disk within `max_bytes` and `min_free_bytes`.",
    ),
    plain(
        Gauge::RunwayMs,
        "runway_seconds",
        "How long the disk lasts if nothing is sent, at the rate of the last half minute; `+Inf` \
         when nothing comes in.",
    ),
    plain(
        Gauge::DrainMs,
        "drain_seconds",
        "How long the backlog on disk takes to drain at the rate of the last half minute; 0 \
         without one, `+Inf` while it does not shrink.",
    ),
];

/// All histograms.
pub const HISTOGRAM_NAMES: [Name<Histogram>; HISTOGRAMS] = [
    plain(
        Histogram::PubackSeconds,
        "puback_seconds",
        "From PUBLISH read to PUBACK written.",
    ),
    plain(
        Histogram::SyncSeconds,
        "sync_seconds",
        "One fdatasync of a segment file.",
    ),
    plain(
        Histogram::ProduceSeconds,
        "produce_seconds",
        "One produce request, from sent to answered.",
    ),
];

/// Figures of the process, which `process.rs` reads from `/proc`: name, type, meaning.
pub const PROCESS_NAMES: [(&str, &str, &str); 4] = [
    (
        "process_cpu_seconds_total",
        "counter",
        "CPU time of the process, user and system.",
    ),
    (
        "process_resident_memory_bytes",
        "gauge",
        "Memory of the process that is in RAM.",
    ),
    ("process_open_fds", "gauge", "Files and sockets open."),
    (
        "process_start_time_seconds",
        "gauge",
        "When the process started, seconds since 1970.",
    ),
];
