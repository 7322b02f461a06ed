//! Records of a sick topic, and records that Kafka rejects, on their way to the dead letter topic.
//!
//! A record is appended to that topic's stream like any new one, and leaves its own, through the
//! ledger, once it is safe there. A power cut between the two puts it on the dead letter topic
//! twice; it is never lost. While it moves its stream is held. Headers are named as Kafka Connect
//! names them (`errors.deadletterqueue.context.headers.enable`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::intake::{Incoming, Settle, Ticket, TopicId, TopicOptions};
use super::super::meta::Reason;
use super::super::{Run, StreamId};
use super::Shared;
use super::deal::are_partitions_drained;
use super::intake::RECORD_BYTES_MAX;
use super::state::{Rejected, State};
use super::stream::{Entry, Stream};
use crate::record::{Digits, Record, put};

/// Most records of one stream on their way at a time.
pub(super) const MOVE_RECORDS: usize = 256;
/// And their bytes; one record may have more.
const MOVE_BYTES: usize = 256 << 10;
/// Streams with something on its way at a time.
const MOVES_MAX: usize = 16;
/// How often the writer looks whether what moves is safe, in milliseconds.
const LOOK_EVERY_MS: u64 = 50;

/// Records on their way.
#[derive(Debug)]
pub(super) struct Move {
    stream: StreamId,
    run: Run,
    /// Their old numbers: first, behind the last.
    ranges: Vec<(u64, u64)>,
    count: u64,
    safe: Arc<Safe>,
}

/// Counts what is safe on the dead letter topic's streams.
#[derive(Debug, Default)]
struct Safe(AtomicU64);

impl Settle for Safe {
    fn safe(&self, tokens: &[u64]) {
        self.0.fetch_add(tokens.len() as u64, Ordering::AcqRel);
    }
}

impl Shared {
    /// The dead letter topic, if there is one.
    pub(super) fn dead_letter_topic(&self, state: &mut State) -> Option<TopicId> {
        let name = self.config.dead_letter_topic.as_deref()?;
        Some(state.intern(name, &TopicOptions::default(), RECORD_BYTES_MAX))
    }

    /// On the writer thread: begins what may be moved of the streams that are given up on.
    pub(super) fn begin_moves(&self) {
        let mut batch = Vec::new();
        {
            let mut state = self.state.lock();
            if state.dead.is_empty() || state.stopping || !state.uplink_up {
                return;
            }
            let Some(topic) = self.dead_letter_topic(&mut state) else {
                return;
            };
            let mut ids = std::mem::take(&mut state.dead);
            ids.retain(|id| state.stream(*id).is_some_and(|s| s.dead.is_some()));
            // The first to go last next time, so that a few do not keep the others waiting.
            let turn = MOVES_MAX.min(ids.len());
            ids.rotate_left(turn);
            for id in ids.iter().rev().take(turn) {
                if state.moves.len() >= MOVES_MAX || !self.may_move(&state, topic) {
                    break;
                }
                self.begin(&mut state, *id, topic, &mut batch);
            }
            state.dead = ids;
        }
        self.append_as_they_are(&mut batch);
    }

    /// Whether the dead letter topic can take more: one that is sick or not there, a full spool or
    /// short memory leave everything where it is.
    fn may_move(&self, state: &State, topic: TopicId) -> bool {
        let sick = |s: &Stream| s.topic == topic && (s.stalled || s.refusing);
        let known = state
            .topics
            .get(topic.0 as usize)
            .is_some_and(|it| it.partitions > 0);
        known
            && !state.full
            && state.hot.bytes() < self.config.memory_max_bytes
            && !state.streams.iter().any(sick)
    }

    fn begin(&self, state: &mut State, id: StreamId, topic: TopicId, batch: &mut Vec<Incoming>) {
        let current = state.run;
        let Some(stream) = state.streams.get(id.0 as usize) else {
            return;
        };
        let Some(cause) = stream.dead.clone().filter(|_| stream.topic != topic) else {
            return;
        };
        if !stream.can_be_moved(current) || !may_leave(state, stream) {
            return;
        }
        let queue = if stream.cold.is_empty() {
            &stream.hot
        } else {
            &stream.cold
        };
        let Some(run) = queue.front().map(|head| head.run) else {
            return;
        };
        if stream.is_fate_open(run, current) {
            return;
        }
        let mut bytes = 0;
        let mut fits = |entry: &&Entry| {
            let first = bytes == 0;
            bytes += entry.record.size();
            entry.run == run && entry.is_free() && (first || bytes <= MOVE_BYTES)
        };
        let entries = queue.iter().take(MOVE_RECORDS).take_while(|e| fits(e));
        let all: Vec<_> = entries.map(|e| (e.number, e.record.clone())).collect();
        batch.extend(self.start_move(state, (id, run), (&all, &cause), topic));
    }

    /// Has a record that Kafka rejects go there, if it can; gives false when it cannot.
    pub(super) fn begin_rejected(&self, rejected: &Rejected, record: &Record) -> bool {
        let mut batch = {
            let mut state = self.state.lock();
            let id = rejected.stream;
            let Some(topic) = self.dead_letter_topic(&mut state) else {
                return false;
            };
            let itself = state.stream(id).is_none_or(|s| s.topic == topic);
            if itself || state.stopping || !self.may_move(&state, topic) {
                return false;
            }
            let all = [(rejected.number, record.clone())];
            let what = (&all[..], rejected.cause.as_str());
            self.start_move(&mut state, (id, rejected.run), what, topic)
        };
        tracing::warn!(cause = %rejected.cause, "a record goes to the dead letter topic");
        self.append_as_they_are(&mut batch);
        true
    }

    fn start_move(
        &self,
        state: &mut State,
        (id, run): (StreamId, Run),
        (all, cause): (&[(u64, Record)], &str),
        topic: TopicId,
    ) -> Vec<Incoming> {
        let mut batch = Vec::with_capacity(all.len());
        let Some(to) = state.streams.get(id.0 as usize).map(|s| s.to.clone()) else {
            return batch;
        };
        let safe = Arc::new(Safe::default());
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (number, record) in all {
            match ranges.last_mut() {
                Some((_, end)) if *end == *number => *end += 1,
                _ => ranges.push((*number, number + 1)),
            }
            let record = state.redated(&self.clock, run, record);
            batch.push(Incoming {
                topic,
                record: explained(&record, &to.topic, to.partition, cause),
                ticket: Some(Ticket {
                    to: safe.clone(),
                    token: *number,
                }),
                keep: Box::default(),
            });
        }
        if let Some(stream) = state.stream(id) {
            stream.held = true;
        }
        let count = all.len() as u64;
        state.moves.push(Move {
            stream: id,
            run,
            ranges,
            count,
            safe,
        });
        batch
    }

    /// On the writer thread: takes what is safe on the dead letter topic out of its own stream.
    pub(super) fn finish_moves(&self) {
        let moves = std::mem::take(&mut self.state.lock().moves);
        let mut left = Vec::new();
        for mut moving in moves {
            if moving.safe.0.load(Ordering::Acquire) < moving.count {
                left.push(moving);
                continue;
            }
            let (id, run) = (moving.stream, moving.run);
            // What is not stored is tried again with the next turn.
            let stays =
                |range: &(u64, u64)| !self.drop_range(id, run, *range, Reason::DeadLettered);
            moving.ranges.retain(stays);
            if !moving.ranges.is_empty() {
                left.push(moving);
                continue;
            }
            let mut state = self.state.lock();
            if let Some(stream) = state.stream(id) {
                stream.held = false;
            }
            state.seek(id);
            state.offer(id);
            drop(state);
            self.loader.notify_one();
            self.changed.notify_one();
        }
        self.state.lock().moves.extend(left);
    }
}

/// What was dealt goes before what was not, and a deal that failed comes first.
fn may_leave(state: &State, stream: &Stream) -> bool {
    let Some(topic) = state.topics.get(stream.topic.0 as usize) else {
        return false;
    };
    let failed = state.failed_deal.as_ref();
    let may_be_dealt = failed.is_some_and(|deal| deal.is_of(stream.id));
    !stream.is_provisional() || (!may_be_dealt && are_partitions_drained(state, topic))
}

impl State {
    /// A topic is given up on until it is well again, or no more.
    pub fn give_up(&mut self, id: StreamId, cause: &str) {
        let Some(stream) = self.streams.get_mut(id.0 as usize) else {
            return;
        };
        stream.dead = Some(cause.into());
        if !self.dead.contains(&id) {
            self.dead.push(id);
        }
    }

    /// When the writer should look at what moves, if anything does.
    pub fn look_at_moves_ms(&self, now_ms: u64) -> Option<u64> {
        let any = !self.moves.is_empty() || !self.dead.is_empty();
        any.then(|| now_ms + LOOK_EVERY_MS)
    }
}

/// The record with headers that say where it was to go (without a partition when that was not
/// decided yet), and why it did not. They stand before its own, whose last one may say that its
/// time is not to be believed.
fn explained(record: &Record, topic: &str, partition: i32, cause: &str) -> Record {
    let at = usize::try_from(record.headers_at).unwrap_or(usize::MAX);
    let (before, own) = record.body.split_at_checked(at).unwrap_or_default();
    let number = u64::try_from(partition).ok().map(Digits::new);
    let partition = number
        .as_ref()
        .map(|number| ("__connect.errors.partition", number.text()));
    let headers: [Option<(&str, &[u8])>; 3] = [
        Some(("__connect.errors.topic", topic.as_bytes())),
        partition,
        Some(("__connect.errors.exception.message", cause.as_bytes())),
    ];
    let added = if partition.is_some() { 3 } else { 2 };
    let mut body = Vec::with_capacity(record.body.len() + 128 + topic.len() + cause.len());
    body.extend_from_slice(before);
    for (name, value) in headers.into_iter().flatten() {
        put(&mut body, Some(name.as_bytes()));
        put(&mut body, Some(value));
    }
    body.extend_from_slice(own);
    Record {
        timestamp_ms: record.timestamp_ms,
        headers_at: record.headers_at,
        header_count: record.header_count.saturating_add(added),
        body: body.into(),
    }
}
