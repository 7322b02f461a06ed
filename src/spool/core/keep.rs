//! Keeping what sources want kept: a thread with a log of its own ([`super::super::keep`]).
//!
//! A record may come with changes that must be known together with it: the packet id of a QoS 2
//! message, and its copies for subscribers. Two logs cannot be synced at once, so there is an
//! order, and a witness:
//!
//! ```text
//! append ─▶ changes synced, with the record's place ─▶ record's frame synced ─▶ offered to Kafka
//!                        └ power cut: at the start the place is not on disk: the changes go
//! ```
//! # Invariants
//! - Of such a record nothing is written before its changes are synced, and Kafka is not offered it
//!   before its frame is: what is on disk or in Kafka has its changes.
//! - A start forgets changes whose record is neither on disk nor behind its stream's cursor, before
//!   anything else moves that cursor; others need no witness any more and are written without.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes};
use parking_lot::{Condvar, Mutex};

use super::super::keep::{Keeper, Opened};
use super::super::log::{LogConfig, LogError, Store};
use super::super::{Change, PROVISIONAL, Run, StreamId, Ticket};
use super::Shared;
use super::state::{Due, State};
use super::stream::Stream;
use crate::config::checked;
use crate::metrics::{Counter, Gauge};
use crate::record::varint;

/// Bytes of changes that one commit takes, at least one call's.
const COMMIT_BYTES: usize = 1 << 20;
/// Wait after a write that failed.
const RETRY: Duration = Duration::from_millis(500);
/// A value without a place; with one.
const PLAIN: u8 = 0;
const PLACED: u8 = 1;

/// What one call wants kept, or one record.
#[derive(Debug)]
pub(super) struct Asked {
    pub changes: Vec<Change>,
    pub ticket: Option<Ticket>,
    /// The record that waits for it.
    pub record: Option<(StreamId, u64)>,
}

impl Asked {
    fn alone(change: Change) -> Self {
        Self {
            changes: vec![change],
            ticket: None,
            record: None,
        }
    }

    /// A record's change, with its place.
    pub fn with_record(changes: &[Change], stream: &Stream, (run, number): (Run, u64)) -> Self {
        let placed = |change| placed(change, stream, run, number);
        Self {
            changes: changes.iter().map(placed).collect(),
            ticket: None,
            record: Some((stream.id, number)),
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    asked: VecDeque<Asked>,
    stopping: bool,
}

/// The thread's share of the spool.
#[derive(Debug)]
pub(super) struct Keep {
    keeper: Mutex<Keeper>,
    queue: Mutex<Queue>,
    news: Condvar,
    /// What was found at the start, until it is asked for.
    found: Mutex<Vec<(Bytes, Bytes)>>,
}

/// What a record waits for.
#[derive(Debug)]
pub(super) struct Hold {
    pub changes: Box<[Change]>,
    /// They are synced; the record's own frame is not.
    pub kept: bool,
}

impl Keep {
    /// Opens the log; changes whose records are not safe go.
    pub fn open(
        store: Arc<dyn Store>,
        config: &checked::Spool,
        state: &mut State,
    ) -> Result<Self, LogError> {
        let config = LogConfig {
            segment_bytes: config.segment_bytes,
            max_bytes: config.kept_max_bytes.max(4 * config.segment_bytes),
            min_free_bytes: config.min_free_bytes,
            compression_level: config.compression_level,
        };
        let (keeper, Opened { all, damages }) = Keeper::open(store, config)?;
        if damages > 0 {
            tracing::error!(
                damages,
                "kept sessions are damaged: some may be as they were before"
            );
        }
        let (mut found, mut gone, mut witnessed) = (Vec::new(), Vec::new(), Vec::new());
        for (key, stored) in all {
            let Some(value) = unwrap(state, &stored) else {
                gone.push(Change { key, value: None });
                continue;
            };
            if stored.first() == Some(&PLACED) {
                let key = key.clone();
                let value = Some(value.clone());
                witnessed.push(plain(Change { key, value }));
            }
            found.push((key, value));
        }
        let keep = Self {
            keeper: Mutex::new(keeper),
            queue: Mutex::default(),
            news: Condvar::new(),
            found: Mutex::new(found),
        };
        if !gone.is_empty() {
            let result = keep.keeper.lock().write(&gone);
            if let Err(error) = result {
                tracing::error!(%error, "cannot write what is not kept; it is tried again");
                keep.ask(gone.into_iter().map(Asked::alone));
            }
        }
        keep.ask(witnessed.into_iter().map(Asked::alone));
        Ok(keep)
    }

    /// What was found at the start; gives it once.
    pub fn take_found(&self) -> Vec<(Bytes, Bytes)> {
        std::mem::take(&mut *self.found.lock())
    }

    pub fn ask(&self, asked: impl IntoIterator<Item = Asked>) {
        let mut queue = self.queue.lock();
        let before = queue.asked.len();
        queue.asked.extend(asked);
        if queue.asked.len() > before {
            self.news.notify_one();
        }
    }

    /// The thread is to end when nothing waits any more, or the disk fails.
    pub fn stop(&self) {
        self.queue.lock().stopping = true;
        self.news.notify_one();
    }

    /// Waits for something to keep; `None`: the end.
    fn wait(&self, last: Instant, interval: Duration) -> Option<Vec<Asked>> {
        let mut queue = self.queue.lock();
        loop {
            let due = last + interval;
            if queue.asked.is_empty() {
                if queue.stopping {
                    return None;
                }
                self.news.wait(&mut queue);
            } else if queue.stopping || Instant::now() >= due {
                return Some(next(&mut queue.asked));
            } else {
                self.news.wait_until(&mut queue, due);
            }
        }
    }

    fn pause(&self) -> bool {
        let mut queue = self.queue.lock();
        if !queue.stopping {
            self.news.wait_for(&mut queue, RETRY);
        }
        !queue.stopping
    }
}

/// What one commit takes off the queue.
fn next(asked: &mut VecDeque<Asked>) -> Vec<Asked> {
    let mut bytes = 0;
    let mut fits = |asked: &Asked| {
        let first = bytes == 0;
        bytes += 1 + asked.changes.iter().map(size).sum::<usize>();
        first || bytes <= COMMIT_BYTES
    };
    let count = asked.iter().take_while(|one| fits(one)).count();
    asked.drain(..count).collect()
}

fn size(change: &Change) -> usize {
    change.key.len() + change.value.as_ref().map_or(0, Bytes::len)
}

/// All changes of a commit, of each key the last.
fn merged(asked: &[Asked]) -> Vec<Change> {
    let mut named = HashSet::new();
    let all = asked.iter().flat_map(|one| &one.changes).rev();
    let mut last: Vec<Change> = all
        .filter(|change| named.insert(&change.key))
        .cloned()
        .collect();
    last.reverse();
    last
}

/// A value as it is written.
pub(super) fn plain(mut change: Change) -> Change {
    change.value = change.value.map(|value| {
        let mut wrapped = Vec::with_capacity(value.len() + 1);
        wrapped.put_u8(PLAIN);
        wrapped.extend_from_slice(&value);
        wrapped.into()
    });
    change
}

/// A change as it is written, with the place of the record that comes with it.
fn placed(change: &Change, stream: &Stream, run: Run, number: u64) -> Change {
    let value = change.value.as_ref().map(|value| {
        let topic = stream.to.topic.as_bytes();
        let mut wrapped = Vec::with_capacity(topic.len() + value.len() + 24);
        wrapped.put_u8(PLACED);
        varint::write(&mut wrapped, topic.len() as u64);
        wrapped.extend_from_slice(topic);
        varint::write_signed(&mut wrapped, i64::from(stream.to.partition));
        varint::write(&mut wrapped, u64::from(run.0));
        varint::write(&mut wrapped, number);
        wrapped.extend_from_slice(value);
        wrapped.into()
    });
    Change {
        key: change.key.clone(),
        value,
    }
}

/// The value that a source handed in; `None` if its record is not safe, or it makes no sense.
fn unwrap(state: &mut State, wrapped: &Bytes) -> Option<Bytes> {
    let (kind, mut rest) = wrapped.split_first()?;
    match *kind {
        PLAIN => Some(wrapped.slice(1..)),
        PLACED => {
            let r = &mut rest;
            let length = usize::try_from(varint::read(r)?).ok()?;
            let (topic, mut tail) = r.split_at_checked(length)?;
            let topic = std::str::from_utf8(topic).ok()?;
            let r = &mut tail;
            let partition = i32::try_from(varint::read_signed(r)?).ok()?;
            let run = Run(u32::try_from(varint::read(r)?).ok()?);
            let number = varint::read(r)?;
            let value = wrapped.slice(wrapped.len() - tail.len()..);
            is_safe(state, (topic, partition), run, number).then_some(value)
        }
        _ => None,
    }
}

/// Whether a record is, or was, on disk.
fn is_safe(state: &mut State, to: (&str, i32), run: Run, number: u64) -> bool {
    let id = state.topic_ids.get(to.0).copied();
    let Some(topic) = id.and_then(|id| state.topic(id)) else {
        return false;
    };
    let stream = match usize::try_from(to.1) {
        Ok(at) => topic.streams.get(at).copied().flatten(),
        Err(_) if to.1 == PROVISIONAL => topic.provisional,
        Err(_) => None,
    };
    let Some(stream) = stream.and_then(|id| state.stream(id)) else {
        return false;
    };
    let place = (run, number);
    let is_in = |range: &(u64, u64)| (range.0..range.1).contains(&number);
    place < stream.confirmed
        || stream
            .spans
            .iter()
            .any(|s| s.run == run && s.last >= number)
        || stream.drops_of(run).iter().any(is_in)
        || stream
            .holes
            .iter()
            .any(|hole| hole.0 == run && is_in(&(hole.1, hole.2)))
}

impl Shared {
    /// Has changes kept, in order.
    pub(super) fn ask_to_keep(&self, asked: impl IntoIterator<Item = Asked>) {
        if let Some(keep) = &self.keep {
            keep.ask(asked);
        }
    }

    /// The thread's life.
    pub(super) fn keep_until_stopped(&self) {
        let Some(keep) = &self.keep else { return };
        let interval = self.config.sync_interval;
        let mut last: Option<Instant> = None;
        loop {
            let begun = last.unwrap_or(self.started);
            let Some(asked) = keep.wait(begun, interval) else {
                return;
            };
            last = Some(Instant::now());
            let mut news = true;
            while !self.keep_all(keep, &asked, news) {
                news = false;
                if !keep.pause() {
                    return;
                }
            }
        }
    }

    /// Keeps everything that waits.
    #[cfg(test)]
    pub(super) fn keep_step(&self) {
        let Some(keep) = &self.keep else { return };
        loop {
            let asked = next(&mut keep.queue.lock().asked);
            if asked.is_empty() {
                return;
            }
            if !self.keep_all(keep, &asked, false) {
                let mut queue = keep.queue.lock();
                asked
                    .into_iter()
                    .rev()
                    .for_each(|one| queue.asked.push_front(one));
                return;
            }
        }
    }

    /// Writes and syncs changes, and tells who waits; gives false when the disk failed.
    fn keep_all(&self, keep: &Keep, asked: &[Asked], news: bool) -> bool {
        let (result, size) = {
            let mut keeper = keep.keeper.lock();
            (keeper.write(&merged(asked)), keeper.size())
        };
        if let Err(error) = result {
            self.metrics.add(Counter::DiskErrors, 1);
            if news {
                tracing::error!(%error, "cannot keep sessions: what needs it is not acknowledged");
            }
            return false;
        }
        self.metrics.set(Gauge::KeptEntries, size.0);
        self.metrics.set(Gauge::KeptBytes, size.1);
        let records: Vec<_> = asked.iter().filter_map(|one| one.record).collect();
        if !records.is_empty() {
            self.are_kept(&records);
        }
        let mut due = Due::default();
        for ticket in asked.iter().filter_map(|one| one.ticket.clone()) {
            due.add(ticket);
        }
        due.settle();
        true
    }

    /// The records' changes are synced: the writer may write them.
    fn are_kept(&self, records: &[(StreamId, u64)]) {
        let mut state = self.state.lock();
        for (id, number) in records {
            let Some(stream) = state.stream(*id) else {
                continue;
            };
            let at = stream.hot.partition_point(|entry| entry.number < *number);
            let entry = stream
                .hot
                .get_mut(at)
                .filter(|entry| entry.number == *number);
            let Some(hold) = entry.and_then(|entry| entry.hold.as_mut()) else {
                continue;
            };
            hold.kept = true;
            stream.hasty = true;
            if !std::mem::replace(&mut stream.dirty, true) {
                state.dirty.push(*id);
            }
        }
        self.poke_writer(&mut state);
    }
}
