//! The spool as sources see it: name a topic once, hand in records, hear when they are safe.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::record::Record;

/// A Kafka topic that was named to the spool; valid for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicId(pub u32);

/// What a route says of a Kafka topic. One value a topic: the first route that names it wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicOptions {
    /// 0 to 9; the higher goes first after an outage.
    pub priority: u8,
    /// Age at which a record that is not in Kafka is dropped.
    pub ttl: Option<Duration>,
}

/// Hears that records became safe.
pub trait Settle: Send + Sync + std::fmt::Debug {
    /// Called once for each token, soon after its record became safe; `tokens` in the order of
    /// their streams, not of the source. Must be quick and must not call the spool.
    fn safe(&self, tokens: &[u64]);
}

/// Who waits for a record, and under which number of its own.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// Whom to tell.
    pub to: Arc<dyn Settle>,
    /// What to tell.
    pub token: u64,
}

/// A record on its way in.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Where it goes.
    pub topic: TopicId,
    /// The record.
    pub record: Record,
    /// Who waits for it; `None` for QoS 0, which is dropped first when memory is short.
    pub ticket: Option<Ticket>,
    /// What is to be known together with the record, such as the packet id of a QoS 2 message: all
    /// of it is there after a power cut, or neither it nor the record. Keys that are new; nobody
    /// changes one before the record is safe.
    pub keep: Box<[Change]>,
}

/// A change of what the spool keeps for a source: a small store of keys and values, which survives
/// what the records survive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key; at most [`KEPT_KEY_MAX`] bytes.
    pub key: Bytes,
    /// Its new value, at most [`KEPT_VALUE_MAX`] bytes; `None`: the key goes.
    pub value: Option<Bytes>,
}

/// Longest key of a [`Change`], bytes.
pub const KEPT_KEY_MAX: usize = 256 * 1024;
/// Longest value of a [`Change`], bytes: the largest MQTT packet, and what is noted beside it.
pub const KEPT_VALUE_MAX: usize = 257 * 1024 * 1024;

/// Why a message was refused at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No route takes its topic, and there is no default topic.
    NoRoute,
    /// Larger than the topic's `max.message.bytes`.
    TooLarge,
    /// Its client may not publish it.
    Denied,
}

/// The spool as sources see it.
pub trait Intake: Send + Sync + std::fmt::Debug {
    /// The id of a Kafka topic, made at first sight.
    fn topic(&self, name: &str, options: &TopicOptions) -> TopicId;

    /// Largest record, in bytes of its body, that Kafka takes in this topic as far as is known.
    fn record_bytes_max(&self, topic: TopicId) -> usize;

    /// Whether memory is short, so that a record without a ticket would be dropped: it need not be
    /// made.
    fn is_short(&self) -> bool;

    /// Takes all records of `batch`, in order, and leaves it empty. Never waits: sources bound what
    /// they have in flight.
    fn append(&self, batch: &mut Vec<Incoming>);

    /// Keeps `changes`, in order, behind all that was handed in before; `ticket` is settled when
    /// they are synced, and not before this returns. Not one unit: a power cut may leave the first
    /// of them alone. Never waits. No changes: the ticket waits for those before.
    fn keep(&self, changes: Vec<Change>, ticket: Option<Ticket>);

    /// What was kept when the spool was opened, in the order of keys. Gives it once.
    fn kept(&self) -> Vec<(Bytes, Bytes)>;

    /// Writes refused messages to the loss ledger, where a 3.1.1 client could not be told.
    fn refused(&self, why: Refusal, mqtt_topic: &str, messages: u64);
}
