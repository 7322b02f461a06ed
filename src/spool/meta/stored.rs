//! What is stored, and how it is read from sled's keys and values.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::{Identity, Run, StreamId, TopicPartition};
use crate::clock::Anchor;

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Run of `next`.
    pub run: Run,
    /// First number that is not confirmed.
    pub next: u64,
    /// Kafka offset behind the last confirmed record.
    pub offset: Option<i64>,
}

/// Under which run a stream's records are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The stream.
    pub stream: StreamId,
    /// Run that numbers the records.
    pub run: Run,
    /// Number with sequence 0; below zero when records of an older run go before.
    pub zero: i64,
    /// Run whose identity sends them.
    pub sent_as: Run,
}

/// Numbers that take no Kafka sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop {
    /// The stream.
    pub stream: StreamId,
    /// Run of the numbers.
    pub run: Run,
    /// First number.
    pub first: u64,
    /// Number behind the last.
    pub end: u64,
    /// `false`: they belong to a run of which Kafka had not been asked yet.
    pub fate_known: bool,
}

/// All that is stored, but the ledger.
#[derive(Debug, Default)]
pub struct Stored {
    /// Greatest run.
    pub newest_run: Option<Run>,
    /// Runs that have an identity.
    pub identities: Vec<(Run, Identity)>,
    /// What the streams are.
    pub streams: Vec<(StreamId, TopicPartition)>,
    /// Partition counts.
    pub partitions: Vec<(Arc<str>, u32)>,
    /// Cursors.
    pub cursors: Vec<(StreamId, Cursor)>,
    /// Bases.
    pub bases: Vec<Base>,
    /// Drops.
    pub drops: Vec<Drop>,
    /// By what the times of runs can be put right whose clock was not synchronised.
    pub anchors: Vec<(Run, Anchor)>,
}

/// The numbers in a key, in order.
pub(super) fn numbers(key: &[u8]) -> impl Iterator<Item = u64> {
    let text = String::from_utf8_lossy(key).into_owned();
    let parts: Vec<u64> = text
        .split('/')
        .skip(1)
        .filter_map(|part| part.parse().ok())
        .collect();
    parts.into_iter()
}

/// Takes one key and its value in; `None` when they make no sense.
pub(super) fn read(stored: &mut Stored, key: &[u8], value: Value) -> Option<()> {
    let text = std::str::from_utf8(key).ok()?;
    let (kind, rest) = text.split_once('/')?;
    let mut ids = numbers(key);
    let mut id = || ids.next().and_then(|n| u32::try_from(n).ok());
    match kind {
        "run" => {
            let run = Run(id()?);
            stored.newest_run = stored.newest_run.max(Some(run));
            if let Some(identity) = value.get("identity") {
                stored
                    .identities
                    .push((run, serde_json::from_value(identity.clone()).ok()?));
            }
        }
        "stream" => {
            let (topic, partition): (String, i32) = serde_json::from_value(value).ok()?;
            stored.streams.push((
                StreamId(id()?),
                TopicPartition {
                    topic: topic.into(),
                    partition,
                },
            ));
        }
        "count" => stored
            .partitions
            .push((rest.into(), serde_json::from_value(value).ok()?)),
        "cursor" => stored
            .cursors
            .push((StreamId(id()?), serde_json::from_value(value).ok()?)),
        "base" => {
            let (stream, run) = (StreamId(id()?), Run(id()?));
            let (zero, sent_as) = serde_json::from_value(value).ok()?;
            stored.bases.push(Base {
                stream,
                run,
                zero,
                sent_as,
            });
        }
        "drop" => {
            let (stream, run) = (StreamId(id()?), Run(id()?));
            let first = ids.next()?;
            let (end, fate_known) = serde_json::from_value(value).ok()?;
            stored.drops.push(Drop {
                stream,
                run,
                first,
                end,
                fate_known,
            });
        }
        "clock" => {
            let anchor = serde_json::from_value(value).ok()?;
            stored.anchors.push((Run(id()?), anchor));
        }
        "loss" | "mark" => {}
        _ => return None,
    }
    Some(())
}
