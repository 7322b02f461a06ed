//! The face that the uplink sees.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::super::log;
use super::super::meta::MetaBatch;
use super::super::outlet::{
    Doubt, Identity, Leftover, Outlet, TakeLimits, Taken, TopicFacts, Wanted,
};
use super::super::{Run, StreamId, TopicId};
use super::state::{Due, Rejected, State};
use super::stream::{Entry, Stream, TakenRange};
use super::{Shared, Spool, wall_ms};
use crate::metrics::{Counter, Gauge};
use crate::record::Record;

impl Outlet for Spool {
    fn changed(&self) -> &tokio::sync::Notify {
        &self.shared.changed
    }

    fn topics_changed(&self) -> &tokio::sync::Notify {
        &self.shared.topics_changed
    }

    fn came_round(&self) {
        self.shared.rounds.uplink.answer();
    }

    fn take(&self, limits: &TakeLimits, wanted: Wanted<'_>) -> Vec<Taken> {
        let mut all = Vec::new();
        let mut declined = Vec::new();
        let mut bytes = 0;
        let now_ms = wall_ms();
        let mut state = self.shared.state.lock();
        let times = self.shared.times(&state);
        let bucket_ms = self.shared.now_ms();
        let cold_bytes_max = state.replay.batch_bytes_max(limits.batch_bytes_max);
        while all.len() < limits.streams_max && bytes < limits.bytes_max {
            let replay = state.replay.may_go(bucket_ms);
            let Some(id) = state.next_ready(replay) else {
                break;
            };
            let ttl_ms = ttl_ms(&state, id);
            let before_max_ms = state.before_max_ms(id);
            let expired = |entry: &Entry| match &times {
                None => is_expired(ttl_ms, entry.record.timestamp_ms, now_ms),
                Some(times) => times.is_expired(ttl_ms, entry),
            };
            let Some(stream) = state.stream(id) else {
                continue;
            };
            if stream.head().is_some_and(expired) {
                stream.held = true;
                state.to_expire.push(id);
                self.shared.poke_writer(&mut state);
                continue;
            }
            if !wanted(id, &stream.to) {
                declined.push(id);
                continue;
            }
            let cold = !stream.cold.is_empty();
            let bytes_max = if cold {
                cold_bytes_max
            } else {
                limits.batch_bytes_max
            };
            if let Some(mut taken) = stream.take(bytes_max, expired) {
                if let Some(times) = &times {
                    times.stamp(&mut taken, before_max_ms);
                }
                let size = taken.records.iter().map(Record::size).sum::<usize>();
                bytes += size;
                if cold {
                    state.replay.goes(size);
                }
                all.push(taken);
            }
        }
        for id in declined {
            state.offer(id);
        }
        if state.replay_wait_ms().is_some() {
            // It wakes the uplink when the bucket has filled.
            self.shared.loader.notify_one();
        }
        all
    }

    fn appended(&self, id: StreamId, run: Run, last: u64, offset: Option<i64>) {
        let mut due = Due::default();
        let mut state = self.shared.state.lock();
        let Some(stream) = state.stream(id) else {
            return;
        };
        if stream
            .taken
            .is_some_and(|taken| (taken.run, taken.last) <= (run, last))
        {
            stream.taken = None;
        }
        stream.offset = offset.or(stream.offset);
        // Where one record went others go too.
        let was_stalled = std::mem::take(&mut stream.stalled);
        stream.dead = None;
        let sent = state.confirm(id, (run, last + 1), &mut due);
        if was_stalled {
            state.seek(id);
        }
        let want_more = state.lane_done.contains(&false)
            && state.cold_bytes < self.shared.config.memory_max_bytes / 4;
        state.offer(id);
        check_growth(&mut state, id);
        if state.poke {
            self.shared.writer.notify_one();
        }
        drop(state);
        if want_more || was_stalled {
            self.shared.loader.notify_one();
        }
        self.shared.metrics.add(Counter::Sent, sent);
        self.shared.settle(due);
    }

    fn put_back(&self, id: StreamId) {
        let mut state = self.shared.state.lock();
        if let Some(stream) = state.stream(id) {
            stream.taken = None;
            if stream.stalled {
                state.keep_probe(id);
                self.shared.loader.notify_one();
            }
        }
        state.offer(id);
        self.shared.changed.notify_one();
    }

    fn quarantine(&self, stream: StreamId, run: Run, number: u64, cause: &str) {
        let mut state = self.shared.state.lock();
        let Some(found) = state.stream(stream) else {
            return;
        };
        found.held = true;
        found.taken = None;
        state.to_quarantine.push(Rejected {
            stream,
            run,
            number,
            cause: cause.to_owned(),
        });
        self.shared.poke_writer(&mut state);
    }

    fn dead_letter(&self, id: StreamId, cause: &str) {
        if self.shared.config.dead_letter_topic.is_none() {
            return;
        }
        let mut state = self.shared.state.lock();
        state.give_up(id, cause);
        state.seek(id);
        self.shared.poke_writer(&mut state);
        drop(state);
        self.shared.loader.notify_one();
    }

    fn dead_letter_unknown(&self, topic: TopicId, cause: &str) {
        let provisional = self
            .shared
            .state
            .lock()
            .topic(topic)
            .and_then(|t| t.provisional);
        if let Some(provisional) = provisional {
            self.dead_letter(provisional, cause);
        }
    }

    fn unresolved(&self, at_most: usize) -> Vec<Leftover> {
        let state = self.shared.state.lock();
        let mut all: Vec<Leftover> = state
            .streams
            .iter()
            .filter(|s| !s.unresolved.is_empty() && s.taken.is_none())
            .filter_map(leftover)
            .collect();
        all.sort_by_key(|leftover| leftover.run);
        all.truncate(at_most);
        all
    }

    fn resolved(&self, id: StreamId, run: Run, next: u64, offset: Option<i64>, proven: bool) {
        let Some((first, next)) = self.shared.number_of(id, run, next) else {
            return;
        };
        if let Err(error) = self.shared.settle_holes(id, run, next) {
            // Without the ledger the sequences behind the hole are not known: the question is asked
            // again.
            tracing::error!(%error, "cannot store what is missing of a stream");
            return;
        }
        let mut due = Due::default();
        let mut state = self.shared.state.lock();
        let Some(stream) = state.stream(id) else {
            return;
        };
        stream.unresolved.retain(|unresolved| *unresolved != run);
        // Nothing of this run is there: that says nothing of what older runs have left before it.
        if next > first {
            stream.load_next = stream.load_next.max((run, next));
            stream.offset = offset.or(stream.offset);
            if proven {
                state.confirm(id, (run, next), &mut due);
            }
        }
        state.seek(id);
        state.offer(id);
        check_growth(&mut state, id);
        if state.poke {
            self.shared.writer.notify_one();
        }
        drop(state);
        self.shared.loader.notify_one();
        self.shared.changed.notify_one();
        self.shared.settle(due);
    }

    fn blind(&self, id: StreamId, blind: bool) {
        if let Some(stream) = self.shared.state.lock().stream(id) {
            stream.blind = blind;
        }
    }

    fn doubt(&self, stream: StreamId, run: Run, doubt: Doubt) {
        self.shared.record_doubt(stream, run, doubt);
    }

    fn rebase(&self, id: StreamId, run: Run, from: u64, identity: Identity) -> io::Result<Run> {
        self.shared.rebase(id, run, from, identity)
    }

    fn identities(&self) -> Vec<(Run, Option<Identity>)> {
        let mut known: BTreeMap<Run, Option<Identity>> = self
            .shared
            .meta
            .lock()
            .identities()
            .into_iter()
            .map(|(run, id)| (run, Some(id)))
            .collect();
        let state = self.shared.state.lock();
        let runs = state
            .streams
            .iter()
            .flat_map(|s| s.numberings.iter().map(|n| n.sent_as));
        for run in runs.chain([state.run]) {
            known.entry(run).or_default();
        }
        known.into_iter().collect()
    }

    fn device(&self) -> String {
        self.shared.device.clone()
    }

    fn current_run(&self) -> Run {
        self.shared.state.lock().run
    }

    fn identify(&self, run: Run, identity: Identity) -> io::Result<()> {
        self.shared.identify(run, identity)
    }

    fn unknown_topics(&self) -> Vec<(TopicId, Arc<str>)> {
        let state = self.shared.state.lock();
        let unknown = |(at, topic): (usize, &super::state::Topic)| {
            let id = TopicId(u32::try_from(at).ok()?);
            (!topic.asked).then(|| (id, topic.name.clone()))
        };
        state
            .topics
            .iter()
            .enumerate()
            .filter_map(unknown)
            .collect()
    }

    fn topic_facts(&self, id: TopicId, facts: TopicFacts) {
        let mut state = self.shared.state.lock();
        let provisional = state.topic(id).and_then(|topic| topic.provisional);
        if let Some(stream) = provisional.and_then(|it| state.stream(it)) {
            stream.dead = None;
        }
        let Some(topic) = state.topic(id) else { return };
        topic.asked = true;
        if let Some(bytes) = facts.message_bytes_max {
            topic.record_bytes_max = bytes.saturating_sub(1024).max(1);
        }
        topic.timestamp_before_max_ms = facts
            .timestamp_before_max_ms
            .or(topic.timestamp_before_max_ms);
        if topic.partitions == facts.partitions || facts.partitions == 0 {
            return;
        }
        // A topic with fewer partitions than before is another topic; its records are dealt anew.
        topic.growing = Some(facts.partitions);
        state.deal_later(id);
        self.shared.poke_writer(&mut state);
    }

    fn uplink(&self, up: bool) {
        let mut state = self.shared.state.lock();
        if state.uplink_up == up {
            return;
        }
        state.uplink_up = up;
        self.shared.metrics.set(Gauge::UplinkUp, u64::from(up));
        if up {
            self.shared.loader.notify_one();
        } else {
            self.shared.poke_writer(&mut state);
        }
    }

    fn stalled(&self, id: StreamId, stalled: bool) {
        let mut state = self.shared.state.lock();
        let Some(stream) = state.stream(id) else {
            return;
        };
        if !stalled {
            stream.dead = None;
        }
        if stream.stalled == stalled {
            return;
        }
        stream.stalled = stalled;
        if stalled {
            state.keep_probe(id);
        } else {
            state.seek(id);
            state.offer(id);
        }
        self.shared.loader.notify_one();
    }
}

impl Stream {
    fn head(&self) -> Option<&Entry> {
        self.cold.front().or(self.hot.front())
    }

    /// The next records of one run, up to a bound of bytes but at least one; none that has expired,
    /// and none behind numbers that were never read back, for they have sequences of their own.
    fn take(&mut self, bytes_max: usize, expired: impl Fn(&Entry) -> bool) -> Option<Taken> {
        let cold = !self.cold.is_empty();
        let queue = if cold { &self.cold } else { &self.hot };
        let (run, first) = queue.front().map(|head| (head.run, head.number))?;
        let drops = self.drops_of(run);
        let mut bytes = 0;
        let mut next = first;
        let mut fits = |entry: &&Entry| {
            if !entry.is_free() {
                return false;
            }
            bytes += entry.record.size();
            if entry.number > next {
                let drop = drops.iter().find(|drop| drop.0 <= next && next < drop.1);
                next = drop.map_or(next, |drop| drop.1);
            }
            let follows = entry.run == run && entry.number == next;
            next += 1;
            follows && (entry.number == first || (bytes <= bytes_max && !expired(entry)))
        };
        let count = queue.iter().take_while(|entry| fits(entry)).count();
        let entries = || queue.iter().take(count);
        let numbers: Vec<u64> = entries().map(|entry| entry.number).collect();
        let records: Vec<_> = entries().map(|entry| entry.record.clone()).collect();
        let last = *numbers.last()?;
        let to = self.to.clone();
        let stream = self.id;
        let numbering = self.numbering(run);
        let (sent_as, sequence) = (numbering.sent_as, numbering.sequence(first));
        self.taken = Some(TakenRange { run, last, cold });
        Some(Taken {
            stream,
            to,
            run,
            sent_as,
            first,
            numbers,
            sequence,
            records,
            guessed: false,
        })
    }
}

/// A stream's time to live; none while it is blind.
pub(super) fn ttl_ms(state: &State, id: StreamId) -> Option<i64> {
    let stream = state.streams.get(id.0 as usize)?;
    let ttl = state.topics.get(stream.topic.0 as usize)?.options.ttl;
    let ttl = ttl.filter(|_| !stream.blind)?;
    i64::try_from(ttl.as_millis()).ok()
}

/// Whether a record has outlived its time to live.
pub(super) fn is_expired(ttl_ms: Option<i64>, timestamp_ms: i64, now_ms: i64) -> bool {
    ttl_ms.is_some_and(|ttl| timestamp_ms.saturating_add(ttl) < now_ms)
}

/// What is left of a stream's oldest unresolved run.
fn leftover(stream: &Stream) -> Option<Leftover> {
    let run = *stream.unresolved.first()?;
    let spans = stream.spans.iter().filter(|span| span.run == run);
    let first_on_disk = spans.clone().map(|span| span.first).min()?;
    let last = spans.map(|span| span.last).max()?;
    let floor = if stream.confirmed.0 == run {
        stream.confirmed.1
    } else {
        0
    };
    let first = first_on_disk.max(floor);
    let numbering = stream.numberings.iter().find(|n| n.run == run)?;
    Some(Leftover {
        stream: stream.id,
        to: stream.to.clone(),
        run,
        sent_as: numbering.sent_as,
        first,
        sequence: numbering.sequence(first),
        last,
        last_sequence: numbering.sequence(last),
        offset: stream.offset,
        holes: stream.holes.iter().any(|hole| hole.0 == run),
    })
}

/// A topic that grows is dealt anew when what was numbered before has drained.
fn check_growth(state: &mut State, id: StreamId) {
    let Some(topic) = state.streams.get(id.0 as usize).map(|stream| stream.topic) else {
        return;
    };
    if state
        .topics
        .get(topic.0 as usize)
        .is_some_and(|t| t.growing.is_some())
    {
        state.deal_later(topic);
        state.poke = true;
    }
}

impl Shared {
    /// The first number that is left of an unresolved run, and the number that has sequence `next`.
    fn number_of(&self, id: StreamId, run: Run, next: u64) -> Option<(u64, u64)> {
        let mut state = self.state.lock();
        let stream = state.stream(id)?;
        let left = leftover(stream).filter(|left| left.run == run)?;
        let next = match next > left.last_sequence {
            true => left.last + 1,
            false => stream.numbering(run).number_at(next),
        };
        Some((left.first, next.clamp(left.first, left.last + 1)))
    }

    fn identify(&self, run: Run, identity: Identity) -> io::Result<()> {
        let mut batch = MetaBatch::default();
        batch.identity(run, &identity);
        self.meta.lock().apply(&batch, true)?;
        self.state
            .lock()
            .tell(log::Entry::Identity { run, identity });
        Ok(())
    }

    fn rebase(&self, id: StreamId, run: Run, from: u64, identity: Identity) -> io::Result<Run> {
        let unresolved: Vec<Run> = {
            let state = self.state.lock();
            state
                .streams
                .get(id.0 as usize)
                .map_or_else(Vec::new, |s| s.unresolved.clone())
        };
        for old in unresolved {
            self.settle_holes(id, old, if old == run { from } else { 0 })?;
        }
        let sent_as = {
            let mut state = self.state.lock();
            state.newest_run = Run(state.newest_run.0 + 1);
            state.newest_run
        };
        let bases = {
            let state = self.state.lock();
            // Tried on a copy first: nothing may change if it cannot be stored.
            let Some(stream) = state.streams.get(id.0 as usize) else {
                return Ok(sent_as);
            };
            stream.numbering_copy().rebase(run, from, sent_as)
        };
        let mut batch = MetaBatch::default();
        batch.identity(sent_as, &identity);
        let stored = bases.clone();
        for (run, zero) in bases {
            batch.base(id, run, zero, sent_as);
        }
        self.meta.lock().apply(&batch, true)?;
        let mut state = self.state.lock();
        if let Some(stream) = state.stream(id) {
            stream.rebase(run, from, sent_as);
            stream.unresolved.clear();
            stream.blind = false;
            stream.load_next = stream.load_next.max((run, from));
            stream.taken = None;
        }
        state.seek(id);
        state.tell(log::Entry::Identity {
            run: sent_as,
            identity,
        });
        for (run, zero) in stored {
            let from = zero.cast_unsigned();
            state.tell(log::Entry::Base {
                stream: id,
                run,
                from,
                sent_as,
            });
        }
        state.offer(id);
        drop(state);
        self.loader.notify_one();
        self.changed.notify_one();
        Ok(sent_as)
    }
}
