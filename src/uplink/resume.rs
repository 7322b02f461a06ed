//! After a start: where do the records that older runs left stand? Many streams at once, a bounded
//! number of questions out; streams that are known flow while others are still being asked about.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::SendError;
use super::pump::{Event, Pump, STALLED_AFTER};
use super::{Door, Engine, Stand};
use crate::metrics::Counter;
use crate::spool::outlet::Doubt;
use crate::spool::{Leftover, StreamId};

/// Questions out at once.
const OUT_MAX: usize = 8;
/// Streams in one question.
const STREAMS_MAX: usize = 64;
/// Least time between two looks for leftovers; the hot path has none.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// For this long after the last leftover the pump wakes up to look for more.
const BUSY_FOR: Duration = Duration::from_mins(1);
/// Leftovers that are looked at in one turn, beyond those that wait.
const LOOK_MAX: usize = 512;

/// A stream that is being asked about, or will be again at `due`.
#[derive(Debug)]
struct State {
    out: bool,
    failures: u32,
    due: Instant,
    since: Instant,
    /// The spool was told that it is stalled.
    stalled: bool,
}

/// The questions.
#[derive(Debug, Default)]
pub(super) struct Resumes {
    states: HashMap<StreamId, State>,
    out: usize,
    /// When the spool is asked for leftovers again, and when it had some last.
    look_due: Option<Instant>,
    had_some: Option<Instant>,
    /// It was said that we may not ask.
    said: bool,
}

impl Resumes {
    /// When a question is to be asked again, if that is ahead.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        let waiting = self.states.values().filter(|state| !state.out);
        let waiting = waiting.map(|state| state.due);
        // Behind one run's leftovers there may be the next one's.
        let busy = self.had_some.is_some_and(|at| now - at < BUSY_FOR);
        let look = self.look_due.filter(|_| busy);
        waiting.chain(look).filter(|due| *due > now).min()
    }

    /// A stream's new epoch is stored, or that failed. Whether it was stalled and is no more.
    pub(super) fn stored(&mut self, stream: StreamId, failed: Option<Duration>) -> bool {
        let Some(wait) = failed else {
            return self.states.remove(&stream).is_some_and(|it| it.stalled);
        };
        if let Some(state) = self.states.get_mut(&stream) {
            state.out = false;
            state.due = Instant::now() + wait;
        }
        false
    }

    fn is_free(&self, stream: StreamId, now: Instant) -> bool {
        self.states
            .get(&stream)
            .is_none_or(|state| !state.out && state.due <= now)
    }

    fn goes(&mut self, stream: StreamId, now: Instant) {
        let state = self.states.entry(stream).or_insert(State {
            out: false,
            failures: 0,
            due: now,
            since: now,
            stalled: false,
        });
        state.out = true;
    }
}

impl<E: Engine> Pump<E> {
    /// Asks about streams with leftovers.
    pub(super) fn resume(&mut self, now: Instant) {
        let early = self.resumes.look_due.is_some_and(|due| due > now);
        if self.resumes.out >= OUT_MAX || early {
            return;
        }
        let leftovers = self.outlet.unresolved(LOOK_MAX + self.resumes.states.len());
        self.resumes.look_due = Some(now + LOOK_EVERY);
        if leftovers.is_empty() {
            return;
        }
        self.resumes.had_some = Some(now);
        let mut groups: BTreeMap<Door, Vec<Leftover>> = BTreeMap::new();
        for leftover in leftovers {
            if leftover.to.partition < 0 || !self.resumes.is_free(leftover.stream, now) {
                continue;
            }
            match self.engine.door(&leftover.to) {
                Some(door) => groups.entry(door).or_default().push(leftover),
                None => self.search(&leftover.to, leftover.stream, now),
            }
        }
        for (door, mut leftovers) in groups {
            while !leftovers.is_empty() && self.resumes.out < OUT_MAX {
                let rest = leftovers.split_off(leftovers.len().min(STREAMS_MAX));
                let asked = std::mem::replace(&mut leftovers, rest);
                for leftover in &asked {
                    self.resumes.goes(leftover.stream, now);
                }
                self.resumes.out += 1;
                let engine = Arc::clone(&self.engine);
                self.tasks
                    .spawn(async move { Event::Resumed(engine.resume(door, asked).await) });
            }
        }
    }

    /// Answers to one question.
    pub(super) fn resumed(&mut self, answers: Vec<(Leftover, Result<Stand, SendError>)>) {
        self.resumes.out = self.resumes.out.saturating_sub(1);
        self.resumes.look_due = None;
        for (leftover, result) in answers {
            self.resumed_one(&leftover, result);
        }
    }

    /// We may not ask: one record a batch tells (DESIGN.md 2.2 rule 5).
    fn go_blind(&mut self, leftover: &Leftover) {
        let Leftover { stream, run, .. } = *leftover;
        self.metrics.add(Counter::ResumedBlind, 1);
        self.outlet.blind(stream, true);
        self.troubles.entry(stream).blind = Some((run, 0));
        if !std::mem::replace(&mut self.resumes.said, true) {
            let (topic, partition) = (&leftover.to.topic, leftover.to.partition);
            tracing::warn!(%topic, partition, "Kafka does not let us ask where records stand: what \
                earlier runs left goes again one record a batch; READ on the topics would help");
        }
    }

    fn resumed_one(&mut self, leftover: &Leftover, result: Result<Stand, SendError>) {
        let Leftover { stream, run, .. } = *leftover;
        let records = (leftover.last_sequence + 1).saturating_sub(leftover.sequence);
        let done = |pump: &mut Self, there: u64, offset, proven| {
            let next = leftover.sequence + there;
            pump.outlet.resolved(stream, run, next, offset, proven);
            if pump
                .resumes
                .states
                .remove(&stream)
                .is_some_and(|it| it.stalled)
            {
                pump.outlet.stalled(stream, false);
            }
            pump.metrics.add(Counter::Resumed, 1);
        };
        let rebase = |pump: &mut Self, fenced, doubt| {
            pump.metrics.add(Counter::Resumed, 1);
            pump.rebase_at(stream, (run, leftover.first), (fenced, doubt));
        };
        match result {
            Ok(Stand::There {
                records,
                proven,
                offset,
            }) => {
                if let Some(offset) = offset.or(leftover.offset) {
                    self.offsets.insert(stream, offset);
                }
                tracing::debug!(stream = stream.0, %run, records, proven, "resumed");
                done(self, records, offset, proven);
            }
            Ok(Stand::Unknown) => {
                self.metrics.add(Counter::MaybeTwice, records);
                self.outlet.doubt(stream, run, Doubt::MaybeTwice(records));
                done(self, 0, None, false);
            }
            Ok(Stand::Behind { lost }) => {
                let to = leftover.first;
                let from = to.saturating_sub(lost);
                rebase(self, None, Some(Doubt::LostByKafka { from, to }));
            }
            Ok(Stand::NoIdentity) => rebase(self, None, None),
            Ok(Stand::Unidentified) => rebase(self, None, Some(Doubt::MaybeTwice(records))),
            Ok(Stand::Fenced) => {
                let doubt = Some(Doubt::MaybeTwice(records));
                rebase(self, Some(leftover.sent_as), doubt);
            }
            Ok(Stand::Blind) => {
                self.go_blind(leftover);
                done(self, 0, None, false);
            }
            Err(error) => {
                self.report
                    .failed("cannot ask where records stand", &error.cause());
                let random = self.random.draw();
                let backoff = self.limits.backoff;
                if let Some(state) = self.resumes.states.get_mut(&stream) {
                    state.out = false;
                    state.failures = state.failures.saturating_add(1);
                    state.due = Instant::now() + backoff.wait(state.failures, random);
                    let long = state.since.elapsed() > STALLED_AFTER;
                    if !state.stalled && long && self.doors.any_well() {
                        state.stalled = true;
                        self.outlet.stalled(stream, true);
                    }
                }
            }
        }
    }
}
