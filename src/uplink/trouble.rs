//! What the pump knows of streams that are not simply well; all others cost nothing here.
//!
//! ```text
//! Idle   nothing held: the stream may be taken, on the slow road if it is sick
//! Held   its records went back to the spool; not wanted until `due`
//! Send   a batch waits here to be sent (again) at `due`
//! Ask    a batch of unknown fate waits here for a question at `due`
//! Out    a task has its batch
//! ```

use std::collections::HashMap;

use tokio::time::Instant;

use super::Batch;
use crate::spool::{Run, StreamId, Taken};

/// One-record successes in a row after which one of them must have been new: a broker recognises
/// the last five batches of a producer.
const BLIND_ENOUGH: u32 = 6;

/// Where a stream stands; see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Held,
    Send,
    Ask,
    Out,
}

/// Why a batch is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// A try had no answer, or one that leaves its fate open.
    Doubt,
    /// The broker refused the batch for good, though an earlier try of it may be there.
    Refused(super::error::Cause),
    /// 45: the sequence is not the one that the broker expects.
    OutOfOrder,
    /// 47: a higher epoch was here.
    Fenced,
}

/// A stream that is not simply well.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) phase: Phase,
    pub(super) due: Instant,
    /// In `Send` and `Ask`.
    pub(super) batch: Option<Batch>,
    /// What was taken together with the batch and goes after it.
    pub(super) rest: Option<Taken>,
    /// Failures in a row.
    pub(super) failures: u32,
    /// Since when it fails.
    pub(super) since: Option<Instant>,
    /// Since when it fails for a reason of its own topic or partition alone.
    pub(super) refused_since: Option<Instant>,
    /// 0: well. Else it goes on the slow road, at most so many streams in a request: 1 for one
    /// whose answer said so, more for those of a slow request, halved with each slow one until the
    /// culprit is alone.
    pub(super) sick: usize,
    /// The spool was told that it is stalled.
    pub(super) stalled: bool,
    /// In `Ask`: what must be known.
    pub(super) why: Why,
    /// Cut what is taken to this many records: a larger batch was refused. Doubles with each
    /// success.
    pub(super) records_max: Option<usize>,
    /// We may not ask: records up to this run go one a batch; successes in a row.
    pub(super) blind: Option<(Run, u32)>,
}

impl Trouble {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Idle,
            due: now,
            batch: None,
            rest: None,
            failures: 0,
            since: None,
            refused_since: None,
            sick: 0,
            stalled: false,
            why: Why::Doubt,
            records_max: None,
            blind: None,
        }
    }

    /// How many records of `taken` may go in one batch.
    pub(super) fn cut(&self, taken: &Taken) -> usize {
        match self.blind {
            Some((run, _)) if taken.run <= run => 1,
            _ => self.records_max.unwrap_or(usize::MAX),
        }
    }

    /// A batch went through. Whether that ends what was blind.
    pub(super) fn succeeded(&mut self, already_there: bool) -> bool {
        self.failures = 0;
        self.since = None;
        self.refused_since = None;
        self.why = Why::Doubt;
        self.records_max = self
            .records_max
            .map(|records| records.saturating_mul(2))
            .filter(|records| *records < RECORDS_FORGET);
        if let Some((_, successes)) = &mut self.blind {
            *successes = if already_there { 0 } else { *successes + 1 };
        }
        self.blind
            .take_if(|(_, successes)| *successes >= BLIND_ENOUGH)
            .is_some()
    }

    /// Nothing is left to remember.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Idle
            && self.sick == 0
            && !self.stalled
            && self.records_max.is_none()
            && self.blind.is_none()
            && self.rest.is_none()
    }
}

/// A cut at this many records is no cut any more.
const RECORDS_FORGET: usize = 1 << 14;

/// Takes the first `records` (at least one) off; the rest has the sequence that follows.
pub(super) fn split(mut taken: Taken, records: usize) -> (Taken, Option<Taken>) {
    let records = records.max(1);
    if records >= taken.records.len() {
        return (taken, None);
    }
    let rest_records = taken.records.split_off(records);
    let rest_numbers = taken.numbers.split_off(records);
    let rest = Taken {
        stream: taken.stream,
        to: taken.to.clone(),
        run: taken.run,
        sent_as: taken.sent_as,
        first: rest_numbers.first().copied().unwrap_or(taken.first),
        sequence: taken.sequence + u64::try_from(records).unwrap_or(u64::MAX),
        numbers: rest_numbers,
        records: rest_records,
        guessed: taken.guessed,
    };
    (taken, Some(rest))
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Troubles(HashMap<StreamId, Trouble>);

impl Troubles {
    pub(super) fn get(&self, stream: StreamId) -> Option<&Trouble> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&stream)
    }

    pub(super) fn get_mut(&mut self, stream: StreamId) -> Option<&mut Trouble> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get_mut(&stream)
    }

    pub(super) fn entry(&mut self, stream: StreamId) -> &mut Trouble {
        self.0
            .entry(stream)
            .or_insert_with(|| Trouble::new(Instant::now()))
    }

    /// Forgets a stream that is well again.
    pub(super) fn tidy(&mut self, stream: StreamId) {
        if self.0.get(&stream).is_some_and(Trouble::is_over) {
            self.0.remove(&stream);
        }
    }

    /// Streams that are due in `phase`.
    pub(super) fn due(&self, phase: Phase, now: Instant) -> Vec<StreamId> {
        self.0
            .iter()
            .filter(|(_, trouble)| trouble.phase == phase && trouble.due <= now)
            .map(|(stream, _)| *stream)
            .collect()
    }

    /// When the next stream becomes due, if that is ahead.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        self.0
            .values()
            .filter(|trouble| !matches!(trouble.phase, Phase::Idle | Phase::Out))
            .map(|trouble| trouble.due)
            .filter(|due| *due > now)
            .min()
    }

    /// Streams that hold a batch here.
    pub(super) fn holding(&self) -> usize {
        self.0
            .values()
            .filter(|trouble| trouble.batch.is_some())
            .count()
    }

    /// Bytes of records held here.
    pub(super) fn held_bytes(&self) -> usize {
        self.0
            .values()
            .map(|trouble| {
                trouble.batch.as_ref().map_or(0, Batch::size)
                    + trouble.rest.as_ref().map_or(0, super::size)
            })
            .sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
