//! Changes on their way into sled.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Cursor, Identity, Loss, Run, StreamId, TopicPartition};

/// Changes that are stored all or none.
#[derive(Debug, Default)]
pub struct MetaBatch {
    pub(super) sled: sled::Batch,
    /// Cursors and their streams' names: key and value.
    pub(super) cursors: Vec<(String, String)>,
    pub(super) identities: Vec<(Run, Identity)>,
    pub(super) losses: Vec<Loss>,
    /// Drops to forget: stream, run, number behind the last.
    pub(super) passed: Vec<(StreamId, Run, u64)>,
    pub(super) changes: usize,
}

impl MetaBatch {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    pub(super) fn put(&mut self, key: &str, value: &Value) {
        self.changes += 1;
        self.sled.insert(key, value.to_string().as_bytes());
    }

    /// Where a stream stands, and what it is.
    pub fn cursor(&mut self, stream: StreamId, to: &TopicPartition, cursor: Cursor) {
        self.changes += 1;
        let name = json!([&*to.topic, to.partition]).to_string();
        self.cursors
            .push((format!("stream/{:010}", stream.0), name));
        self.cursors.push((
            format!("cursor/{:010}", stream.0),
            json!(cursor).to_string(),
        ));
    }

    /// A topic's partition count.
    pub fn partitions(&mut self, topic: &Arc<str>, count: u32) {
        self.put(&format!("count/{topic}"), &json!(count));
    }

    /// A run's identity.
    pub fn identity(&mut self, run: Run, identity: &Identity) {
        self.put(
            &format!("run/{:010}", run.0),
            &json!({ "identity": identity }),
        );
        self.identities.push((run, identity.clone()));
    }

    /// Under which run records are sent.
    pub fn base(&mut self, stream: StreamId, run: Run, zero: i64, sent_as: Run) {
        let key = format!("base/{:010}/{:010}", stream.0, run.0);
        self.put(&key, &json!([zero, sent_as]));
    }

    /// A run has drained.
    pub fn forget_base(&mut self, stream: StreamId, run: Run) {
        self.changes += 1;
        self.sled
            .remove(format!("base/{:010}/{:010}", stream.0, run.0).as_str());
    }

    /// The cursor has passed all drops of a run below `end`; what they did to sequences is in the
    /// run's base.
    pub fn forget_drops(&mut self, stream: StreamId, run: Run, end: u64) {
        self.changes += 1;
        self.passed.push((stream, run, end));
    }

    /// Numbers (first, behind the last) that take no sequence.
    pub fn drop_range(&mut self, stream: StreamId, run: Run, range: (u64, u64), fate_known: bool) {
        self.put(
            &drop_key(stream, run, range.0),
            &json!([range.1, fate_known]),
        );
    }

    /// Kafka stands before `next`: what it has of a range is no drop, what it has not is one for
    /// good.
    pub fn drop_settled(&mut self, stream: StreamId, run: Run, range: (u64, u64), next: u64) {
        self.changes += 1;
        self.sled.remove(drop_key(stream, run, range.0).as_str());
        if range.1 > next {
            self.drop_range(stream, run, (range.0.max(next), range.1), true);
        }
    }

    /// A line of the ledger.
    pub fn loss(&mut self, loss: Loss) {
        self.changes += 1;
        self.losses.push(loss);
    }
}

pub(super) fn drop_key(stream: StreamId, run: Run, first: u64) -> String {
    format!("drop/{:010}/{:010}/{first:020}", stream.0, run.0)
}
