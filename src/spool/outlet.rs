//! The spool as the uplink sees it.
//!
//! The life of a stream's records here: [`Outlet::take`] hands out the next ones of a stream and
//! marks the stream *taken*; nothing more of it is handed out until [`Outlet::appended`] or
//! [`Outlet::put_back`]. The taken records stay in the spool and are written to disk if Kafka is
//! slow to confirm them.
//!
//! A stream that has records of older runs on disk is *unresolved* until the uplink has asked Kafka
//! where they stand and has said so with [`Outlet::resolved`].

use std::sync::Arc;

use super::{Run, StreamId, TopicId};
use crate::record::Record;

/// A topic and one of its partitions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicPartition {
    /// Kafka topic.
    pub topic: Arc<str>,
    /// Partition, 0-based.
    pub partition: i32,
}

/// Under which name a run's records are known to Kafka.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// From `InitProducerId`.
    pub producer_id: i64,
    /// One a run, ours to raise (DESIGN.md 2.2).
    pub epoch: i16,
    /// The cluster that gave the id.
    pub cluster_id: String,
    /// The device that took it ([`super::device`]); empty: not known.
    #[serde(default)]
    pub device: String,
}

impl Identity {
    /// Kafka's "no producer": what a run has whose records went out without one.
    pub const NO_PRODUCER_ID: i64 = -1;

    /// Whether Kafka knows the run's records by a producer id.
    #[must_use]
    pub fn has_producer(&self) -> bool {
        self.producer_id != Self::NO_PRODUCER_ID
    }
}

/// How much one [`Outlet::take`] may hand out.
#[derive(Clone, Copy, Debug)]
pub struct TakeLimits {
    /// Most bytes of one stream (at least one record is handed out all the same).
    pub batch_bytes_max: usize,
    /// Most streams.
    pub streams_max: usize,
    /// Most bytes of all streams together.
    pub bytes_max: usize,
}

/// The next records of one stream, all of one run.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Their stream.
    pub stream: StreamId,
    /// Where they go.
    pub to: TopicPartition,
    /// Run that numbered them.
    pub run: Run,
    /// Run whose [`Identity`] sends them: `run`, unless the stream had to take a new epoch.
    pub sent_as: Run,
    /// Number of the first record.
    pub first: u64,
    /// Number of each record, ascending, not always consecutive: what was dropped is not among
    /// them.
    pub numbers: Vec<u64>,
    /// Kafka's sequence of the first record (before the wrap at 2^31); those behind it count on by
    /// one.
    pub sequence: u64,
    /// The records.
    pub records: Vec<Record>,
    /// Some carry a time of sending that nobody can be sure of yet. Rejected for it, they are to be
    /// put back: they get another when they are handed out again.
    pub guessed: bool,
}

/// Records of an older run of which it is not known whether Kafka has them.
#[derive(Clone, Debug)]
pub struct Leftover {
    /// Their stream.
    pub stream: StreamId,
    /// Where they go.
    pub to: TopicPartition,
    /// Run that numbered them.
    pub run: Run,
    /// Run whose identity sent them.
    pub sent_as: Run,
    /// The first that is not known to be confirmed, and its sequence.
    pub first: u64,
    /// Sequence of `first` (before the wrap at 2^31).
    pub sequence: u64,
    /// Number of the last.
    pub last: u64,
    /// Sequence of `last`.
    pub last_sequence: u64,
    /// Kafka offset behind the last record known to be confirmed, where a search may start.
    pub offset: Option<i64>,
    /// Some of its records are dropped or damaged, and whether Kafka has those is not known: until
    /// it is, nobody knows how the sequences behind them count on.
    pub holes: bool,
}

/// What the spool must know of a topic, once Kafka was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    /// Partition count.
    pub partitions: u32,
    /// `max.message.bytes`, if we may read it.
    pub message_bytes_max: Option<usize>,
    /// `message.timestamp.before.max.ms`, if we may read it.
    pub timestamp_before_max_ms: Option<i64>,
}

/// Says whether a stream's records are wanted now.
pub type Wanted<'a> = &'a mut dyn FnMut(StreamId, &TopicPartition) -> bool;

/// The spool as the uplink sees it. Nothing here waits for the disk unless it says so.
pub trait Outlet: Send + Sync + std::fmt::Debug {
    /// Notified (`notify_one`: the pump is the only waiter) when [`Outlet::take`] or
    /// [`Outlet::unresolved`] may have news.
    fn changed(&self) -> &tokio::sync::Notify;

    /// Notified (`notify_one`: the watcher of topics is the only waiter) when
    /// [`Outlet::unknown_topics`] has news.
    fn topics_changed(&self) -> &tokio::sync::Notify;

    /// The pump has come round once more: it is at work, or idle, and not stuck.
    fn came_round(&self) {}

    /// Hands out records of streams that are resolved and not taken: those without a backlog first,
    /// then by priority. Records whose time to live has passed go to the ledger instead. A stream
    /// that `wanted` declines is left as it is (its broker is busy, or it waits for another try);
    /// `wanted` is asked only of streams that would be handed out, must be quick and must not call
    /// the spool.
    fn take(&self, limits: &TakeLimits, wanted: Wanted<'_>) -> Vec<Taken>;

    /// Kafka has acknowledged all of `stream`'s taken records up to and including `last`; `offset`
    /// is behind the last of them. Ends the taking when nothing taken is left behind `last`.
    fn appended(&self, stream: StreamId, run: Run, last: u64, offset: Option<i64>);

    /// Surely none of `stream`'s taken records was appended: they are handed out again by the next
    /// take.
    fn put_back(&self, stream: StreamId);

    /// Kafka rejects this one record of `stream` for good. Surely nothing of the taken batch was
    /// appended. The record is put into quarantine and synced before anything behind it is handed
    /// out (the stream stays taken until then and is put back); blocks on the disk.
    fn quarantine(&self, stream: StreamId, run: Run, number: u64, cause: &str);

    /// Kafka has refused `stream` for so long, for a reason of its own topic or partition, that its
    /// records go to the dead letter topic until [`Outlet::appended`] or [`Outlet::stalled`] says
    /// that it is well again. What is taken stays, and so does what is of unknown fate.
    fn dead_letter(&self, _stream: StreamId, _cause: &str) {}

    /// As [`Outlet::dead_letter`], for records of a topic that Kafka has not known for so long, or
    /// does not let us see, until [`Outlet::topic_facts`] says that it is there.
    fn dead_letter_unknown(&self, _topic: TopicId, _cause: &str) {}

    /// Streams whose leftovers Kafka must be asked about, oldest run first; of each stream one run
    /// at a time.
    fn unresolved(&self, at_most: usize) -> Vec<Leftover>;

    /// Kafka stands before the record of that run whose sequence (before the wrap) is `next`, at
    /// most one behind [`Leftover::last_sequence`]. `proven`: what is below `next` is replicated,
    /// or was read below the high watermark; else it is kept until a later record of the stream is
    /// acknowledged.
    #[expect(clippy::too_many_arguments, reason = "what Kafka said, flat")]
    fn resolved(&self, stream: StreamId, run: Run, next: u64, offset: Option<i64>, proven: bool);

    /// While a stream is blind, any of its records of older runs may be in Kafka, for it could not
    /// be asked: none expires, and where one is dropped all the same the stream is unresolved
    /// again, with [`Leftover::holes`]. Said before [`Outlet::resolved`]; [`Outlet::rebase`] ends
    /// it too.
    fn blind(&self, stream: StreamId, blind: bool);

    /// Kafka has lost records of this stream that it had confirmed, or their fate cannot be known:
    /// goes to the ledger or is counted as maybe twice.
    fn doubt(&self, stream: StreamId, run: Run, doubt: Doubt);

    /// From record `from` of `run` on this stream is sent under a new run: allocates it, stores it
    /// together with its `identity`, synced. That holds for all that stands behind `from` in the
    /// stream, of later runs too, up to the one that is current: so on each stream epochs grow in
    /// the order of its records, and sequences count from 0 at `from`. Records before `from` must
    /// have a known fate. Ends the taking. An unresolved stream is thereby resolved: Kafka stands
    /// before `from`.
    ///
    /// # Errors
    /// The disk's error; nothing has changed then.
    fn rebase(
        &self,
        stream: StreamId,
        run: Run,
        from: u64,
        identity: Identity,
    ) -> std::io::Result<Run>;

    /// The runs that still matter (the current one is among them) and the newest run of each
    /// producer id, in order; `None`: nothing was ever sent under it.
    fn identities(&self) -> Vec<(Run, Option<Identity>)>;

    /// The device that this spool is on, as its identities name it.
    fn device(&self) -> String {
        String::new()
    }

    /// The run that numbers new records.
    fn current_run(&self) -> Run;

    /// Stores a run's identity, synced, before its first record is sent. One that was never used
    /// may be replaced.
    ///
    /// # Errors
    /// The disk's error; the identity must not be used then.
    fn identify(&self, run: Run, identity: Identity) -> std::io::Result<()>;

    /// Topics whose partition count is wanted: those of which this start of the gateway has had no
    /// facts.
    fn unknown_topics(&self) -> Vec<(TopicId, Arc<str>)>;

    /// What Kafka says of a topic. More partitions than before: newer records wait until the older
    /// are sent.
    fn topic_facts(&self, topic: TopicId, facts: TopicFacts);

    /// Whether Kafka answers at all: while it does not, records are written to disk at once.
    fn uplink(&self, up: bool);

    /// Whether a stream cannot be sent while others can.
    fn stalled(&self, stream: StreamId, stalled: bool);
}

/// What went wrong between a stream's cursor and the broker's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Records `from..to` were confirmed and are no longer in the log.
    LostByKafka {
        /// First number.
        from: u64,
        /// Number behind the last.
        to: u64,
    },
    /// This many records are sent again although they may be there.
    MaybeTwice(u64),
}
