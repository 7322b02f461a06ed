//! What tools are told of a spool: plain data that travels as JSON. The running spool
//! ([`super::core::Spool`]) answers, of a running gateway through its API, of a stopped one by
//! itself.
//!
//! Long answers come in pages: `next` is where the next one begins, `None` the end.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::meta::Loss;

/// One stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamInfo {
    /// Kafka topic.
    pub topic: String,
    /// Partition; −1: the topic's partitions are not known yet.
    pub partition: i32,
    /// 0 to 9.
    pub priority: u8,
    /// Everything before `next` of `run`, and older runs, is in Kafka or in the loss ledger.
    pub run: u32,
    /// First number that is not.
    pub next: u64,
    /// Records left to send. After a restart it may count numbers that Kafka had confirmed before.
    pub records: u64,
    /// Bytes of those in memory.
    pub memory_bytes: u64,
    /// Bytes of those on disk, from the average record of their segments.
    pub disk_bytes: u64,
    /// Timestamp of the oldest, milliseconds since 1970; of what lies on disk only, the oldest of
    /// its segment.
    pub oldest_ms: Option<i64>,
    /// Why nothing of it is sent now, if that is so.
    pub held: Option<String>,
}

/// Numbers of one run that are left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeInfo {
    /// The run.
    pub run: u32,
    /// First number.
    pub first: u64,
    /// Number behind the last.
    pub end: u64,
    /// On disk; else in memory only.
    pub on_disk: bool,
}

/// Records of one page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RecordsPage {
    /// Objects: topic, partition, run, seq, `timestamp_ms`, key, value, headers.
    pub records: Vec<Value>,
    /// Where the next page begins.
    pub next: Option<String>,
}

/// Frames that one page of a check has read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CheckPage {
    /// Frames that are whole.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of them on disk.
    pub bytes: u64,
    /// What cannot be read.
    pub damage: Vec<DamageInfo>,
    /// Where the next page begins.
    pub next: Option<String>,
}

/// A place on disk that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageInfo {
    /// Segment (its generation) and byte in it, if they are known.
    pub segment: Option<u64>,
    /// The byte.
    pub offset: Option<u64>,
    /// What was found.
    pub what: String,
    /// Whether the damaged frame itself names the ranges; else its neighbours do.
    pub exact: bool,
    /// The records that cannot be read.
    pub ranges: Vec<DamagedRange>,
}

/// Records that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedRange {
    /// Kafka topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Run.
    pub run: u32,
    /// First number.
    pub first: u64,
    /// Number behind the last.
    pub end: u64,
    /// The parts (first number, number behind the last) that are neither in Kafka nor in the
    /// ledger.
    pub lost: Vec<(u64, u64)>,
}

/// A record that Kafka has rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineInfo {
    /// Its name here: segment and frame number, never used twice.
    pub id: String,
    /// Why Kafka rejected it.
    pub cause: String,
    /// Kafka topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Run that had numbered it.
    pub run: u32,
    /// Its number.
    pub seq: u64,
}

/// Records in quarantine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct QuarantinePage {
    /// The oldest first.
    pub records: Vec<QuarantineInfo>,
    /// Where the next page begins.
    pub next: Option<String>,
}

/// Lines of the loss ledger.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LedgerPage {
    /// The oldest first.
    pub lines: Vec<Loss>,
    /// Older lines were given up: the ledger is bounded.
    pub cut: bool,
    /// Where the next page begins.
    pub next: Option<String>,
}

/// A place to go on from that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no place to go on from: give back `next` as it was answered")]
pub struct BadPlace(pub String);
