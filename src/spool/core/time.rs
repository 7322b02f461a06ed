//! Records whose time is not to be believed: marked as they come in, put right as they go out.
//!
//! What lies in memory or on disk is never rewritten: the mark in the record and the anchor of its
//! run say all. A batch is stamped when it is handed out; one of unknown fate keeps its bytes in
//! the uplink, so it is never stamped twice. In a run that found the clock right and nothing on
//! disk nothing here is done at all; records of a run that found it right are never looked into.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::intake::Incoming;
use super::super::outlet::Taken;
use super::super::{Run, StreamId};
use super::state::{Segment, State};
use super::stream::Entry;
use super::{Shared, Spool};
use crate::clock::{Anchor, Clock, Moment};
use crate::record::{Record, mark};

/// By what the times of each run's marked records can be put right.
pub(super) type Anchors = BTreeMap<Run, Anchor>;

/// A corrected time that is nearer to the topic's bound than this is taken for too old.
const BOUND_MARGIN_MS: i64 = 60_000;

/// How to judge the times of records, at one moment.
pub(super) struct Times<'a> {
    now: Moment<'a>,
    anchors: Arc<Anchors>,
    /// The current run, if the clock was right when it began.
    clean: Option<Run>,
}

impl Shared {
    /// How times are judged now; `None`: as they are.
    pub(super) fn times(&self, state: &State) -> Option<Times<'_>> {
        let anchors = state.anchors.clone()?;
        let clean = !anchors.contains_key(&state.run);
        Some(Times {
            now: self.clock.moment(),
            clean: clean.then_some(state.run),
            anchors,
        })
    }

    /// Marks what comes in while the clock is not to be believed, and stamps it by our time: since
    /// it was stamped somebody may have set the wall clock.
    pub(super) fn mark(&self, batch: &mut [Incoming]) {
        if self.clock.is_sure() {
            return;
        }
        let now_ms = self.clock.moment().now_ms;
        for incoming in batch.iter_mut() {
            incoming.record = mark::marked(&incoming.record, now_ms);
        }
    }
}

impl State {
    /// A record of `run` that is numbered anew in the current run, whose anchor is another.
    pub(super) fn redated(&self, clock: &Clock, run: Run, record: &Record) -> Record {
        if run == self.run || !mark::is_marked(record) {
            return record.clone();
        }
        let (own, now) = (record.timestamp_ms, clock.moment());
        let of = |run| self.anchors.as_ref().and_then(|all| all.get(run));
        let shift = of(&run).and_then(|anchor| now.shift_ms(anchor));
        match shift.map(|ms| own.saturating_add(ms)) {
            Some(right) if now.sure => mark::corrected(record, right),
            // Still marked, and put right by the current run's anchor.
            Some(ours) => Record {
                timestamp_ms: ours,
                ..record.clone()
            },
            None => mark::sent_at(record, now.now_ms, own),
        }
    }

    /// How old a record may be for a stream's topic, in milliseconds, if that is known.
    pub(super) fn before_max_ms(&self, id: StreamId) -> Option<i64> {
        let topic = self.streams.get(id.0 as usize)?.topic;
        self.topics.get(topic.0 as usize)?.timestamp_before_max_ms
    }
}

impl Times<'_> {
    /// What our clock shows, milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.now.now_ms
    }

    fn is_marked(&self, run: Run, record: &Record) -> bool {
        self.clean != Some(run) && mark::is_marked(record)
    }

    /// Milliseconds to add to the times of a run's marked records; `None`: nobody knows.
    fn shift_ms(&self, run: Run) -> Option<i64> {
        self.now.shift_ms(self.anchors.get(&run)?)
    }

    /// When a record came in, by our clock as it is now; `None`: nobody knows, or does not yet.
    pub fn came_in(&self, entry: &Entry) -> Option<i64> {
        let own = entry.record.timestamp_ms;
        if self.is_marked(entry.run, &entry.record) {
            self.shift_ms(entry.run).map(|ms| own.saturating_add(ms))
        } else {
            Some(own).filter(|_| self.now.sure)
        }
    }

    /// When the oldest record of a segment came in, as far as that is known. Nobody has looked
    /// whether it is marked: the latest time is taken that it may have, but none to come.
    pub fn oldest_of(&self, segment: &Segment) -> Option<i64> {
        let own = segment.oldest_ms;
        let mut latest = Some(own).filter(|ms| self.now.sure && *ms <= self.now.now_ms);
        for anchor in segment.runs.iter().filter_map(|run| self.anchors.get(run)) {
            let right = own.saturating_add(self.now.shift_ms(anchor)?);
            latest = latest.max(Some(right).filter(|ms| *ms <= self.now.now_ms));
        }
        latest
    }

    /// Whether a record has outlived its time to live. None has of which nobody knows when it came
    /// in.
    pub fn is_expired(&self, ttl_ms: Option<i64>, entry: &Entry) -> bool {
        let expired = |own| super::outlet::is_expired(ttl_ms, own, self.now.now_ms);
        ttl_ms.is_some() && self.came_in(entry).is_some_and(expired)
    }

    /// Stamps what is handed out. `before_max_ms`: how old a record may be for the topic.
    pub fn stamp(&self, taken: &mut Taken, before_max_ms: Option<i64>) {
        if self.clean == Some(taken.run) {
            return;
        }
        let shift = self.shift_ms(taken.run).filter(|_| self.now.sure);
        let oldest = before_max_ms.map_or(i64::MIN, |ms| {
            let bound = self.now.now_ms.saturating_sub(ms);
            bound.saturating_add(BOUND_MARGIN_MS)
        });
        for record in taken.records.iter_mut().filter(|it| mark::is_marked(it)) {
            *record = self.stamped(record, shift, oldest);
            taken.guessed |= !self.now.sure;
        }
    }

    fn stamped(&self, record: &Record, shift: Option<i64>, oldest: i64) -> Record {
        let own = record.timestamp_ms;
        match shift.map(|ms| own.saturating_add(ms)) {
            Some(right) if right >= oldest => mark::corrected(record, right),
            Some(right) => mark::sent_at(record, self.now.now_ms, right),
            None => mark::sent_at(record, self.now.now_ms, own),
        }
    }
}

impl Spool {
    /// The clock has become sure: what waits for that goes on.
    pub fn clock_is_sure(&self) {
        self.shared.changed.notify_one();
    }
}

impl Shared {
    /// Keeps what the current run's times can be put right with, and forgets runs of which nothing
    /// is left.
    pub(super) fn begin_times(&self) {
        let now = (!self.clock.is_sure()).then(|| self.clock.anchor());
        let (gone, now) = self.state.lock().begin_times(now);
        if gone.is_empty() && now.is_none() {
            return;
        }
        if now.is_some() {
            tracing::warn!(
                "the clock is not synchronised: records are marked, and put right when it is"
            );
        }
        // Without it what a restart finds of this run is sent with the time of sending, as marked.
        if let Err(error) = self.meta.lock().put_anchors(&gone, now) {
            tracing::warn!(%error, "cannot store how the clock stands");
        }
    }
}

impl State {
    fn begin_times(&mut self, now: Option<Anchor>) -> (Vec<Run>, Option<(Run, Anchor)>) {
        let spans = self.streams.iter().flat_map(|stream| &stream.spans);
        let left: BTreeSet<Run> = spans.map(|span| span.run).collect();
        let mut anchors = self
            .anchors
            .take()
            .map_or_else(Anchors::default, Arc::unwrap_or_clone);
        let gone: Vec<Run> = anchors
            .keys()
            .filter(|run| !left.contains(run))
            .copied()
            .collect();
        anchors.retain(|run, _| left.contains(run));
        let now = now.map(|anchor| (self.run, anchor));
        anchors.extend(now.clone());
        if !(left.is_empty() && anchors.is_empty()) {
            self.anchors = Some(Arc::new(anchors));
        }
        (gone, now)
    }
}
