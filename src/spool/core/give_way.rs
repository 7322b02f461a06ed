//! What gives way: records past their time, and records that make room when the disk is full. And
//! what is written down about it: the ledger, and the drops that Kafka's sequences must know of.

use std::io;

use super::super::log::{self, SegmentId};
use super::super::meta::{Loss, MetaBatch, Reason};
use super::super::outlet::Doubt;
use super::super::{Run, StreamId};
use super::outlet::{is_expired, ttl_ms};
use super::state::{Due, Segment, State};
use super::stream::Span;
use super::{Shared, wall_ms};
use crate::config::checked::OnFull;
use crate::metrics::Counter;

impl Shared {
    /// Drops records at the head of streams that have outlived their time.
    pub(super) fn expire_heads(&self) {
        let streams = std::mem::take(&mut self.state.lock().to_expire);
        for id in streams {
            let ranges = self.expired(&self.state.lock(), id);
            for (run, range) in ranges {
                self.drop_range(id, run, range, Reason::Expired);
            }
            let mut state = self.state.lock();
            if let Some(stream) = state.stream(id) {
                stream.held = false;
            }
            state.offer(id);
            drop(state);
            self.loader.notify_one();
            self.changed.notify_one();
        }
    }

    /// Runs of expired numbers at the head of a stream.
    fn expired(&self, state: &State, id: StreamId) -> Vec<(Run, (u64, u64))> {
        let Some(stream) = state.streams.get(id.0 as usize) else {
            return Vec::new();
        };
        let ttl_ms = ttl_ms(state, id);
        let now_ms = wall_ms();
        let times = self.times(state);
        let is_over = |entry: &super::stream::Entry| match &times {
            None => is_expired(ttl_ms, entry.record.timestamp_ms, now_ms),
            Some(times) => times.is_expired(ttl_ms, entry),
        };
        let queue = if stream.cold.is_empty() {
            &stream.hot
        } else {
            &stream.cold
        };
        let mut ranges: Vec<(Run, (u64, u64))> = Vec::new();
        for entry in queue.iter().take_while(|e| e.is_free() && is_over(e)) {
            match ranges.last_mut() {
                Some((run, (_, end))) if *run == entry.run && *end == entry.number => *end += 1,
                _ => ranges.push((entry.run, (entry.number, entry.number + 1))),
            }
        }
        ranges
    }

    /// Takes numbers `range` (first, behind the last) out of a stream for good: ledger and
    /// sequences first, synced, then memory. None of them may be with Kafka. Gives false when that
    /// could not be stored.
    pub(super) fn drop_range(
        &self,
        id: StreamId,
        run: Run,
        range: (u64, u64),
        reason: Reason,
    ) -> bool {
        let fate_known = {
            let mut state = self.state.lock();
            let current = state.run;
            let stream = state.stream(id);
            stream.is_some_and(|stream| !stream.is_fate_open(run, current))
        };
        let mut batch = MetaBatch::default();
        batch.loss(self.loss(id, run, range, reason));
        batch.drop_range(id, run, range, fate_known);
        if fate_known {
            self.move_bases(&mut batch, id, run, range);
        }
        if let Err(error) = self.meta.lock().apply(&batch, true) {
            self.metrics.add(Counter::DiskErrors, 1);
            tracing::error!(%error, "the loss ledger cannot be written; nothing is dropped");
            return false;
        }
        self.metrics.add(counter_of(reason), range.1 - range.0);
        let mut due = Due::default();
        let mut state = self.state.lock();
        let (stream, from, to, reason) = (id, range.0, range.1, reason as u8);
        state.tell(log::Entry::Drop {
            stream,
            run,
            from,
            to,
            reason,
        });
        forget(&mut state, id, run, range, &mut due);
        // What a stalled stream is tried with may be among it.
        if state.stream(id).is_some_and(|stream| stream.stalled) {
            state.seek(id);
            self.loader.notify_one();
        }
        drop(state);
        self.settle(due);
        true
    }

    /// Later runs that go on counting behind a dropped range count from elsewhere.
    fn move_bases(&self, batch: &mut MetaBatch, id: StreamId, run: Run, range: (u64, u64)) {
        let state = self.state.lock();
        let Some(stream) = state.streams.get(id.0 as usize) else {
            return;
        };
        let mut copy = stream.numbering_copy();
        for (moved, zero) in copy.drop_numbers(run, range.0, range.1) {
            let sent_as = copy.numbering(moved).sent_as;
            batch.base(id, moved, zero, sent_as);
        }
    }

    fn loss(&self, id: StreamId, run: Run, range: (u64, u64), reason: Reason) -> Loss {
        let state = self.state.lock();
        let to = state.streams.get(id.0 as usize).map(|s| s.to.clone());
        let topic = to
            .as_ref()
            .map_or_else(String::new, |to| to.topic.to_string());
        let partition = to.map_or(0, |to| to.partition);
        Loss {
            topic,
            partition,
            run,
            first: range.0,
            end: range.1,
            reason,
            at_ms: wall_ms(),
        }
    }

    /// Makes room by `on_full`; gives false when nothing may be dropped.
    pub(super) fn give_way(&self) -> bool {
        let unneeded = unneeded(&mut self.state.lock());
        if let Some(segment) = unneeded {
            // It may hold what moved a provisional stream's cursor.
            if self.store() {
                self.log.lock().free(segment);
                return true;
            }
            self.state.lock().to_free.push(segment);
            return false;
        }
        let victim = {
            let state = self.state.lock();
            match self.config.on_full {
                OnFull::Refuse => return false,
                OnFull::DropOldest => oldest_segment(&state, None),
                OnFull::DropLowestPriority => {
                    let lane = state
                        .segments
                        .values()
                        .filter(|s| s.sealed && s.spans > 0)
                        .map(|s| s.lane)
                        .min();
                    lane.and_then(|lane| oldest_segment(&state, Some(lane)))
                }
            }
        };
        victim.is_some_and(|segment| self.drop_segment(segment))
    }

    /// Drops all live records of a segment and gives the segment back.
    fn drop_segment(&self, id: SegmentId) -> bool {
        let spans: Vec<(StreamId, Span)> = {
            let state = self.state.lock();
            let here = |s: &super::stream::Stream| {
                let id_of = s.id;
                let confirmed = s.confirmed;
                let spans = s
                    .spans
                    .iter()
                    .filter(move |span| span.segment == id)
                    .copied();
                spans
                    .map(move |mut span| {
                        if confirmed.0 == span.run {
                            span.first = span.first.max(confirmed.1);
                        }
                        (id_of, span)
                    })
                    .collect::<Vec<_>>()
            };
            state.streams.iter().flat_map(here).collect()
        };
        for (stream, span) in spans {
            if !self.drop_range(stream, span.run, (span.first, span.last + 1), Reason::Full) {
                return false;
            }
        }
        let mut state = self.state.lock();
        if state.segments.remove(&id).is_some() || state.to_free.contains(&id) {
            state.to_free.retain(|freed| *freed != id);
            drop(state);
            self.log.lock().free(id);
            return true;
        }
        false
    }

    /// What is missing of an unresolved run, now that Kafka was asked: what it has is not lost,
    /// what it has not leaves the sequence.
    pub(super) fn settle_holes(&self, id: StreamId, run: Run, next: u64) -> io::Result<()> {
        let holes = {
            let mut state = self.state.lock();
            let Some(stream) = state.stream(id) else {
                return Ok(());
            };
            let (here, elsewhere) = stream
                .holes
                .iter()
                .partition(|(hole_run, ..)| *hole_run == run);
            stream.holes = elsewhere;
            here
        };
        let holes: Vec<(Run, u64, u64)> = holes;
        if holes.is_empty() {
            return Ok(());
        }
        let mut batch = MetaBatch::default();
        for (_, first, end) in &holes {
            batch.drop_settled(id, run, (*first, *end), next);
            if *end > next {
                self.move_bases(&mut batch, id, run, ((*first).max(next), *end));
            }
        }
        if let Err(error) = self.meta.lock().apply(&batch, true) {
            if let Some(stream) = self.state.lock().stream(id) {
                stream.holes.extend(holes);
            }
            return Err(error);
        }
        let mut state = self.state.lock();
        if let Some(stream) = state.stream(id) {
            for (_, first, end) in holes.into_iter().filter(|(_, _, end)| *end > next) {
                stream.drop_numbers(run, first.max(next), end);
            }
        }
        Ok(())
    }

    /// Writes what Kafka lost, or may have twice, to the ledger.
    pub(super) fn record_doubt(&self, id: StreamId, run: Run, doubt: Doubt) {
        // What may be twice is counted by the uplink, which knows it first.
        let (reason, range) = match doubt {
            Doubt::LostByKafka { from, to } => {
                self.metrics
                    .add(Counter::LostByKafka, to.saturating_sub(from));
                (Reason::LostByKafka, (from, to))
            }
            Doubt::MaybeTwice(count) => (Reason::MaybeTwice, (0, count)),
        };
        let mut batch = MetaBatch::default();
        batch.loss(self.loss(id, run, range, reason));
        if let Err(error) = self.meta.lock().apply(&batch, false) {
            tracing::error!(%error, "the loss ledger cannot be written");
        }
    }
}

fn counter_of(reason: Reason) -> Counter {
    match reason {
        Reason::Expired => Counter::DroppedExpired,
        Reason::Damaged => Counter::LostDamaged,
        Reason::LostByKafka => Counter::LostByKafka,
        Reason::MaybeTwice => Counter::MaybeTwice,
        Reason::Refused => Counter::Refused,
        Reason::Rejected => Counter::Quarantined,
        Reason::Full => Counter::DroppedFull,
        Reason::ByHand => Counter::DroppedByHand,
        Reason::DeadLettered => Counter::DeadLettered,
    }
}

/// A segment of which nothing is needed, also one that is still written to: to be closed it would
/// need another file.
fn unneeded(state: &mut State) -> Option<SegmentId> {
    let freed = state.to_free.pop();
    freed.or_else(|| {
        let open = state.segments.iter();
        let id = open
            .filter(|(_, s)| s.spans == 0)
            .map(|(id, _)| *id)
            .min()?;
        state.segments.remove(&id);
        Some(id)
    })
}

/// The oldest sealed segment none of whose records is with the uplink.
fn oldest_segment(state: &State, lane: Option<u8>) -> Option<SegmentId> {
    let pinned = |id: &SegmentId| {
        state.streams.iter().any(|stream| {
            stream.taken.is_some_and(|taken| {
                let overlaps =
                    |s: &Span| s.segment == *id && (s.run, s.first) <= (taken.run, taken.last);
                stream.spans.iter().any(overlaps)
            })
        })
    };
    let fits = |(_, segment): &(&SegmentId, &Segment)| {
        segment.sealed && segment.spans > 0 && lane.is_none_or(|lane| lane == segment.lane)
    };
    let mut candidates: Vec<_> = state.segments.iter().filter(fits).collect();
    candidates.sort_by_key(|(id, _)| **id);
    candidates
        .into_iter()
        .map(|(id, _)| id)
        .find(|id| !pinned(id))
        .copied()
}

/// Takes a dropped range out of memory and out of what is on disk.
fn forget(state: &mut State, id: StreamId, run: Run, range: (u64, u64), due: &mut Due) {
    let current = state.run;
    let Some(stream) = state.streams.get_mut(id.0 as usize) else {
        return;
    };
    if stream.is_fate_open(run, current) {
        stream.holes.push((run, range.0, range.1));
        if !stream.unresolved.contains(&run) {
            stream.unresolved.push(run);
            stream.unresolved.sort_unstable();
        }
    } else {
        stream.drop_numbers(run, range.0, range.1);
    }
    let dropped = |entry: &super::stream::Entry| {
        entry.run == run && (range.0..range.1).contains(&entry.number)
    };
    let (mut cold, mut hot) = (0, 0);
    stream.cold.retain(|entry| {
        let gone = dropped(entry);
        cold += if gone { entry.record.size() } else { 0 };
        !gone
    });
    stream.hot.retain_mut(|entry| {
        let gone = dropped(entry);
        if gone {
            hot += entry.record.size();
            if let Some(ticket) = entry.ticket.take() {
                due.add(ticket);
            }
        }
        !gone
    });
    stream.cold_bytes = stream.cold_bytes.saturating_sub(cold);
    state.cold_bytes = state.cold_bytes.saturating_sub(cold);
    state.hot.sub(hot);
    cut_spans(state, id, run, range);
    let Some(stream) = state.streams.get_mut(id.0 as usize) else {
        return;
    };
    if stream.spans.iter().all(|span| span.run != run) {
        // Nothing of it is left that Kafka could be asked about.
        stream.unresolved.retain(|unresolved| *unresolved != run);
        stream.holes.retain(|hole| hole.0 != run);
    }
    let nothing_before = stream
        .first_left()
        .is_none_or(|left| left >= (run, range.1));
    if stream.unresolved.is_empty() && nothing_before {
        state.confirm(id, (run, range.1), due);
    }
}

/// Cuts a range out of a stream's spans.
fn cut_spans(state: &mut State, id: StreamId, run: Run, range: (u64, u64)) {
    let Some(stream) = state.stream(id) else {
        return;
    };
    let mut unpinned = Vec::new();
    let mut kept = std::collections::VecDeque::with_capacity(stream.spans.len());
    let mut split = Vec::new();
    for span in stream.spans.drain(..) {
        if span.run != run || span.last < range.0 || span.first >= range.1 {
            kept.push_back(span);
            continue;
        }
        let before = (span.first < range.0).then(|| Span {
            last: range.0 - 1,
            ..span
        });
        let after = (span.last >= range.1).then_some(Span {
            first: range.1,
            ..span
        });
        match (before, after) {
            (None, None) => unpinned.push(span.segment),
            (Some(before), Some(after)) => {
                split.push(span.segment);
                kept.extend([before, after]);
            }
            (Some(one), None) | (None, Some(one)) => kept.push_back(one),
        }
    }
    stream.spans = kept;
    for segment in split {
        if let Some(segment) = state.segments.get_mut(&segment) {
            segment.spans += 1;
        }
    }
    for segment in unpinned {
        state.unpin(segment);
    }
}
