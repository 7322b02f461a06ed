//! What the pump does with answers.
//!
//! ```text
//! acknowledged            the spool forgets the records
//! surely not appended     they go back to the spool and are taken again after a wait
//! fate unknown            the bytes stay here; ask, then the same bytes again
//! 45, 47                  ask; then go on behind what is there, or under another epoch
//! too large, rejected     halves, down to the one record that goes into quarantine
//! ```
//! A batch of unknown fate is never cut, put back or forgotten before its fate is known, but for
//! one case: the broker refuses it for good and says that it is not there. That is counted as maybe
//! twice.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::{Cause, INVALID_TIMESTAMP, SendError, is_sick, is_topics_own};
use super::pump::{Event, Pump, STALLED_AFTER};
use super::trouble::{Phase, Why, split};
use super::{Batch, Door, Engine, Reply, Sent, Stand};
use crate::kafka::client::Road;
use crate::metrics::Counter;
use crate::spool::outlet::Doubt;
use crate::spool::{Run, StreamId, TopicPartition};

/// Least time between two lines about failures, and between `STALLS_MAX` about stalled partitions.
const REPORT_EVERY: Duration = Duration::from_secs(10);
const STALLS_MAX: u32 = 20;

/// Failures, summed up for the log.
#[derive(Debug, Default)]
pub(super) struct Report {
    last: Option<Instant>,
    unsaid: u64,
    stalls: (Option<Instant>, u32),
}

impl Report {
    /// Writes a line, or counts what the next line will sum up; `debug` has them all.
    pub(super) fn failed(&mut self, what: &'static str, cause: &Cause) {
        if self.last.is_some_and(|last| last.elapsed() < REPORT_EVERY) {
            self.unsaid += 1;
            tracing::debug!(%cause, "{what}");
            return;
        }
        tracing::warn!(%cause, unsaid = self.unsaid, "{what}");
        self.last = Some(Instant::now());
        self.unsaid = 0;
    }

    /// Names a partition that cannot be sent.
    fn stalled(&mut self, to: &TopicPartition, cause: &Cause) {
        let (since, said) = &mut self.stalls;
        if since.is_none_or(|since| since.elapsed() > REPORT_EVERY) {
            (*since, *said) = (Some(Instant::now()), 0);
        }
        *said += 1;
        if *said <= STALLS_MAX {
            let (topic, partition) = (&to.topic, to.partition);
            tracing::warn!(%topic, partition, %cause, "partition is held up; its records wait");
        }
    }
}

/// Rejected for a time that nobody was sure of: it has another when it is handed out again.
fn is_guess(batch: &Batch, cause: &Cause) -> bool {
    batch.taken.guessed && cause.code == Some(INVALID_TIMESTAMP)
}

impl<E: Engine> Pump<E> {
    /// A request has come back.
    pub(super) fn replied(&mut self, door: Door, road: Road, reply: Reply) {
        self.doors.comes(door, road);
        let mut slow = false;
        if let Some(cause) = &reply.away {
            if self.doors.failed(door, self.random.draw()) {
                self.report.failed("broker does not answer", cause);
            }
        } else if !reply.took.is_zero() {
            self.lost = false;
            slow = self
                .doors
                .answered(door, road, (reply.took, reply.throttle));
            self.reopen(door);
        }
        let streams = reply.answers.len();
        // Where the codes name the culprits, nobody else is suspected.
        let named = reply.answers.iter().any(|(_, result)| {
            let cause = result.as_ref().err().map(SendError::cause);
            cause.is_some_and(|cause| cause.code.is_some_and(is_sick))
        });
        let suspect = slow && !named;
        for (batch, result) in reply.answers {
            let stream = batch.taken.stream;
            if suspect {
                self.troubles.entry(stream).sick = (streams / 2).max(1);
            } else if road == Road::Slow && !suspect && result.is_ok() {
                self.troubles.entry(stream).sick = 0;
            }
            match result {
                Ok(Sent::Appended { base_offset }) => {
                    let records = i64::try_from(batch.taken.records.len()).unwrap_or(0);
                    let behind = base_offset.map(|base| base + records);
                    self.acknowledged(&batch, behind, false);
                }
                Ok(Sent::AlreadyThere) => {
                    self.metrics.add(Counter::BatchesAlreadyThere, 1);
                    self.acknowledged(&batch, None, true);
                }
                Err(error) => self.failed(batch, error),
            }
        }
    }

    /// A batch is in Kafka; what was taken with it follows.
    fn acknowledged(&mut self, batch: &Batch, offset: Option<i64>, already_there: bool) {
        let taken = &batch.taken;
        let stream = taken.stream;
        let last = taken.numbers.last().copied().unwrap_or(taken.first);
        self.outlet.appended(stream, taken.run, last, offset);
        self.progress = Instant::now();
        if let Some(offset) = offset {
            self.offsets.insert(stream, offset);
        }
        let offset = self.offsets.get(&stream).copied();
        let Some(trouble) = self.troubles.get_mut(stream) else {
            return;
        };
        if trouble.succeeded(already_there) {
            self.outlet.blind(stream, false);
        }
        trouble.phase = Phase::Idle;
        if std::mem::take(&mut trouble.stalled) {
            self.outlet.stalled(stream, false);
        }
        if let Some(rest) = trouble.rest.take() {
            let records = trouble.cut(&rest);
            let (next, rest) = split(rest, records);
            trouble.batch = Some(Batch::new(next, offset));
            trouble.rest = rest;
            trouble.phase = Phase::Send;
            trouble.due = Instant::now();
        }
        self.troubles.tidy(stream);
    }

    /// A batch was not acknowledged.
    fn failed(&mut self, mut batch: Batch, error: SendError) {
        let stream = batch.taken.stream;
        let cause = error.cause();
        batch.doubtful |= !error.surely_not_appended();
        let wait = self.count_failure(stream, Some(&batch.taken.to), &cause);
        match error {
            SendError::TooLarge(_) | SendError::Rejected(..) if batch.doubtful => {
                self.ask_later(batch, Why::Refused(cause), Duration::ZERO);
            }
            SendError::TooLarge(cause) => self.smaller(&batch, cause),
            SendError::Rejected(cause, _) if is_guess(&batch, &cause) => {
                self.smaller(&batch, cause);
            }
            SendError::Rejected(cause, blamed) => {
                let bad = blamed.into_iter().find_map(|(index, words)| {
                    Some((batch.taken.numbers.get(index).copied()?, words))
                });
                match bad {
                    Some((number, words)) => {
                        self.quarantine(
                            stream,
                            (batch.taken.run, number),
                            format!("{cause}: {words}"),
                        );
                    }
                    None => self.smaller(&batch, cause),
                }
            }
            SendError::NoIdentity => self.rebase(batch, None, None),
            SendError::OutOfOrder(_) => {
                let blind = self.troubles.get(stream).and_then(|trouble| trouble.blind);
                if blind.is_some_and(|(run, _)| batch.taken.run <= run) {
                    self.metrics.add(Counter::BatchesAlreadyThere, 1);
                    self.acknowledged(&batch, None, true);
                } else {
                    self.ask_later(batch, Why::OutOfOrder, wait);
                }
            }
            SendError::Fenced(_) => self.ask_later(batch, Why::Fenced, wait),
            SendError::Denied(_) if !batch.doubtful => {
                self.hold(stream, self.limits.backoff.longest);
                self.dead_letter_in_time(stream, &cause);
            }
            _ if batch.doubtful => self.ask_later(batch, Why::Doubt, wait),
            _ => {
                self.hold(stream, wait);
                self.dead_letter_in_time(stream, &cause);
            }
        }
    }

    /// Has the spool give up on a stream that Kafka has refused for long enough; its records are in
    /// the spool again.
    fn dead_letter_in_time(&mut self, stream: StreamId, cause: &Cause) {
        let since = self.troubles.entry(stream).refused_since;
        if self.gives_up(since) {
            self.outlet.dead_letter(stream, &cause.to_string());
        }
    }

    /// Whether what is refused since then goes to the dead letter topic; never while Kafka as a
    /// whole is away.
    pub(super) fn gives_up(&self, since: Option<Instant>) -> bool {
        let after = self.limits.dead_letter_after;
        self.up == Some(true)
            && after
                .zip(since)
                .is_some_and(|(after, since)| since.elapsed() >= after)
    }

    /// Counts a stream's failure, tells the spool of one that lasts, and says how long to wait.
    fn count_failure(
        &mut self,
        stream: StreamId,
        to: Option<&TopicPartition>,
        cause: &Cause,
    ) -> Duration {
        self.report.failed("batch was not acknowledged", cause);
        let random = self.random.draw();
        let backoff = self.limits.backoff;
        let trouble = self.troubles.entry(stream);
        trouble.failures = trouble.failures.saturating_add(1);
        if cause.code.is_some_and(is_sick) {
            trouble.sick = 1;
        }
        if cause.code.is_some_and(is_topics_own) {
            trouble.refused_since.get_or_insert_with(Instant::now);
        } else {
            trouble.refused_since = None;
        }
        let since = *trouble.since.get_or_insert_with(Instant::now);
        if !trouble.stalled && since.elapsed() > STALLED_AFTER && self.doors.any_well() {
            trouble.stalled = true;
            self.outlet.stalled(stream, true);
            if let Some(to) = to {
                self.report.stalled(to, cause);
            }
        }
        backoff.wait(trouble.failures, random)
    }

    fn ask_later(&mut self, batch: Batch, why: Why, wait: Duration) {
        self.later(Phase::Ask, batch, wait).why = why;
    }

    fn ask_again(&mut self, batch: Batch, why: Why, cause: &Cause) {
        let wait = self.count_failure(batch.taken.stream, Some(&batch.taken.to), cause);
        self.ask_later(batch, why, wait);
    }

    fn later(
        &mut self,
        phase: Phase,
        batch: Batch,
        wait: Duration,
    ) -> &mut super::trouble::Trouble {
        let trouble = self.troubles.entry(batch.taken.stream);
        trouble.phase = phase;
        trouble.due = Instant::now() + wait;
        trouble.batch = Some(batch);
        trouble
    }

    /// It is known where a batch of unknown fate stands, or why that cannot be known.
    pub(super) fn asked(&mut self, mut batch: Batch, result: Result<Stand, SendError>) {
        let stream = batch.taken.stream;
        let why = self.troubles.entry(stream).why.clone();
        let all = u64::try_from(batch.taken.records.len()).unwrap_or(u64::MAX);
        let wait = self.limits.backoff.first;
        match result {
            Err(error) => self.ask_again(batch, why, &error.cause()),
            Ok(Stand::NoIdentity) => self.rebase(batch, None, None),
            Ok(Stand::Unidentified) => {
                self.rebase(batch, None, Some(Doubt::MaybeTwice(all)));
            }
            Ok(Stand::There {
                records,
                proven,
                offset,
            }) if records >= all => {
                if proven {
                    self.metrics.add(Counter::BatchesAlreadyThere, 1);
                    self.acknowledged(&batch, offset, true);
                } else if why == Why::Doubt {
                    // The same bytes are recognised, and answered when the replicas have them.
                    self.metrics.add(Counter::BatchesAlreadyThere, 1);
                    self.later(Phase::Send, batch, Duration::ZERO);
                } else {
                    self.ask_again(batch, why, &Cause::text("waiting for replicas"));
                }
            }
            Ok(stand @ (Stand::There { records: 0, .. } | Stand::Blind | Stand::Unknown))
                if matches!(why, Why::Refused(_)) =>
            {
                if let Why::Refused(cause) = why {
                    if !matches!(stand, Stand::There { .. }) {
                        self.maybe_twice(&batch);
                    }
                    self.smaller(&batch, cause);
                }
            }
            Ok(Stand::There { records: 0, .. }) => {
                let now = why == Why::Doubt;
                self.later(Phase::Send, batch, if now { Duration::ZERO } else { wait });
            }
            Ok(Stand::There { records, .. }) => {
                // A late request of a dead run brought the first ones; the next acknowledgement
                // covers them.
                let records = usize::try_from(records).unwrap_or(usize::MAX);
                let (there, rest) = split(batch.taken, records);
                batch.taken = rest.unwrap_or(there);
                (batch.encoded, batch.doubtful) = (None, false);
                self.later(Phase::Send, batch, Duration::ZERO);
            }
            Ok(Stand::Unknown) => {
                if batch.doubtful {
                    self.maybe_twice(&batch);
                }
                self.later(Phase::Send, batch, wait);
            }
            Ok(Stand::Behind { lost }) => {
                let to = batch.taken.first;
                let from = to.saturating_sub(lost);
                self.rebase(batch, None, Some(Doubt::LostByKafka { from, to }));
            }
            Ok(Stand::Fenced) => self.fenced(batch),
            Ok(Stand::Blind) => match why {
                Why::OutOfOrder => self.lost_place(batch),
                Why::Fenced => self.fenced(batch),
                _ => {
                    self.later(Phase::Send, batch, Duration::ZERO);
                }
            },
        }
    }

    /// The broker expects other records here than those behind what it has confirmed, and we may
    /// not ask which.
    fn lost_place(&mut self, batch: Batch) {
        let taken = &batch.taken;
        tracing::error!(
            topic = %taken.to.topic,
            partition = taken.to.partition,
            "Kafka has not the sequence that it had confirmed (45): records may be lost there; \
             with the right READ on the topic it would be known which"
        );
        let records = u64::try_from(taken.records.len()).unwrap_or(u64::MAX);
        let twice = batch.doubtful.then_some(Doubt::MaybeTwice(records));
        self.rebase(batch, None, twice);
    }

    fn fenced(&mut self, batch: Batch) {
        tracing::error!(
            topic = %batch.taken.to.topic,
            partition = batch.taken.to.partition,
            "another gateway writes under our producer id: a copy of this one's data is in use; \
             taking a new id"
        );
        let blind = self.troubles.get(batch.taken.stream);
        let blind = blind.is_some_and(|trouble| trouble.blind.is_some());
        let twice = (batch.doubtful || blind).then(|| {
            Doubt::MaybeTwice(u64::try_from(batch.taken.records.len()).unwrap_or(u64::MAX))
        });
        let sent_as = batch.taken.sent_as;
        self.rebase(batch, Some(sent_as), twice);
    }

    fn maybe_twice(&self, batch: &Batch) {
        let records = u64::try_from(batch.taken.records.len()).unwrap_or(u64::MAX);
        self.metrics.add(Counter::MaybeTwice, records);
        let taken = &batch.taken;
        self.outlet
            .doubt(taken.stream, taken.run, Doubt::MaybeTwice(records));
    }

    /// From this batch on the stream takes another epoch.
    fn rebase(&mut self, batch: Batch, fenced: Option<Run>, doubt: Option<Doubt>) {
        let stream = batch.taken.stream;
        let at = (batch.taken.run, batch.taken.first);
        // Kept until it is done, in case it cannot be.
        self.later(Phase::Out, batch, Duration::ZERO);
        self.rebase_at(stream, at, (fenced, doubt));
    }

    pub(super) fn rebase_at(
        &mut self,
        stream: StreamId,
        at: (Run, u64),
        (fenced, doubt): (Option<Run>, Option<Doubt>),
    ) {
        if let Some(doubt) = doubt {
            tracing::warn!(stream = stream.0, run = %at.0, ?doubt, "stream takes a new epoch");
            if let Doubt::MaybeTwice(records) = doubt {
                self.metrics.add(Counter::MaybeTwice, records);
            }
        }
        if let Some(trouble) = self.troubles.get_mut(stream) {
            trouble.blind = None;
        }
        let engine = Arc::clone(&self.engine);
        let outlet = Arc::clone(&self.outlet);
        self.tasks.spawn(async move {
            let ledger = tokio::task::spawn_blocking(move || {
                if let Some(doubt) = doubt {
                    outlet.doubt(stream, at.0, doubt);
                }
            });
            let result = match ledger.await {
                Ok(()) => engine.rebase(stream, at, fenced).await,
                Err(error) => Err(SendError::Retry(Cause::text(error.to_string()))),
            };
            Event::Stored(stream, result)
        });
    }

    /// Half of it, or if it is one record, into quarantine. Surely nothing of it is there.
    fn smaller(&mut self, batch: &Batch, cause: Cause) {
        let taken = &batch.taken;
        if is_guess(batch, &cause) {
            self.hold(taken.stream, self.limits.backoff.longest);
            return;
        }
        if taken.records.len() <= 1 {
            self.quarantine(taken.stream, (taken.run, taken.first), cause.to_string());
            return;
        }
        self.troubles.entry(taken.stream).records_max = Some(taken.records.len().div_ceil(2));
        self.hold(taken.stream, Duration::ZERO);
    }

    fn quarantine(&mut self, stream: StreamId, (run, number): (Run, u64), cause: String) {
        tracing::warn!(stream = stream.0, %run, number, cause, "record goes into quarantine");
        let trouble = self.troubles.entry(stream);
        trouble.phase = Phase::Out;
        (trouble.batch, trouble.rest) = (None, None);
        let outlet = Arc::clone(&self.outlet);
        self.tasks.spawn(async move {
            let stored = tokio::task::spawn_blocking(move || {
                outlet.quarantine(stream, run, number, &cause);
            });
            let result = stored.await;
            let result = result.map_err(|e| SendError::Retry(Cause::text(e.to_string())));
            Event::Stored(stream, result)
        });
    }

    /// A record is in quarantine, or a stream has its new epoch: its records are in the spool
    /// again.
    pub(super) fn stored(&mut self, stream: StreamId, result: Result<(), SendError>) {
        let failed = result
            .err()
            .map(|error| self.count_failure(stream, None, &error.cause()));
        if self.resumes.stored(stream, failed) {
            self.outlet.stalled(stream, false);
        }
        let trouble = self.troubles.entry(stream);
        match failed {
            Some(wait) => {
                trouble.due = Instant::now() + wait;
                trouble.phase = if trouble.batch.is_some() {
                    Phase::Ask
                } else {
                    Phase::Held
                };
            }
            None => {
                (trouble.batch, trouble.rest) = (None, None);
                trouble.phase = Phase::Idle;
                self.troubles.tidy(stream);
            }
        }
    }
}
