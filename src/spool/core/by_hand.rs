//! What a person takes out of the buffer: records dropped from a stream, and records in quarantine
//! that are dropped or tried again. Through the ledger like every other drop.
//!
//! The writer thread drops, for it alone lets go of streams that are held. Everything here waits
//! for the disk, and for records that are with Kafka.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::super::intake::{Incoming, Settle, Ticket, TopicOptions};
use super::super::log::{Entry, FrameDraft, QUARANTINE, SegmentId};
use super::super::meta::Reason;
use super::super::{Run, StreamId};
use super::intake::RECORD_BYTES_MAX;
use super::quarantine::Kept;
use super::{Shared, Spool};

/// How long records that are with Kafka are waited for; after it they are left out.
const TAKEN_WAIT: Duration = Duration::from_secs(5);
/// How often the writer is asked to look again.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long records that are tried again may take to be safe.
const SAFE_WAIT: Duration = Duration::from_secs(60);
/// Ids in one note.
const IDS_MAX: usize = 1_000;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum HandError {
    /// The spool's disk or its thread failed; the log says more.
    #[error("the loss ledger or the spool cannot be written; the gateway's log says why")]
    Failed,
    /// No such record.
    #[error("no record {0} is in quarantine")]
    Missing(String),
    /// Tried again, and not safe in time.
    #[error(
        "the records are in the buffer but were not safe within a minute: they are still in \
         quarantine, and would be sent twice if they were tried again"
    )]
    NotSafe,
}

/// Numbers of a stream to be dropped.
#[derive(Debug)]
pub(super) struct Job {
    stream: StreamId,
    run: Run,
    range: (u64, u64),
    /// Until when records that are with Kafka are waited for.
    until: Instant,
    /// How many were dropped; `None`: that could not be stored.
    answer: SyncSender<Option<u64>>,
}

impl Spool {
    /// Drops what is left of numbers `range` (first, behind the last) of a stream's run; gives how
    /// many records that were. What is with Kafka, and stays so, is left out.
    ///
    /// # Errors
    /// [`HandError::Failed`]; some may have been dropped.
    pub fn drop_by_hand(
        &self,
        stream: StreamId,
        run: Run,
        range: (u64, u64),
    ) -> Result<u64, HandError> {
        let mut dropped = 0;
        for left in self.ranges(stream).iter().filter(|left| left.run == run.0) {
            let part = (left.first.max(range.0), left.end.min(range.1));
            if part.0 < part.1 {
                dropped += self.shared.have_dropped(stream, run, part)?;
            }
        }
        Ok(dropped)
    }

    /// Takes records out of quarantine for good; the ledger has them as rejected. Gives how many.
    ///
    /// # Errors
    /// [`HandError`]; `Missing`: nothing was done.
    pub fn quarantine_drop(&self, ids: &[String]) -> Result<u64, HandError> {
        let kept = self.shared.chosen(ids)?;
        self.shared.release(&kept)?;
        Ok(kept.len() as u64)
    }

    /// Puts records of the quarantine behind their topics' streams once more, and takes them out of
    /// it when they are safe there. Gives how many.
    ///
    /// # Errors
    /// [`HandError`]; `Missing`: nothing was done.
    pub fn quarantine_retry(&self, ids: &[String]) -> Result<u64, HandError> {
        let kept = self.shared.chosen(ids)?;
        let waiter = Arc::new(Waiter::default());
        let mut batch = Vec::with_capacity(kept.len());
        for (token, kept) in (0u64..).zip(&kept) {
            let record = self.shared.read_quarantined(kept);
            let record = record.ok_or_else(|| HandError::Missing(kept.id()))?;
            let to = self.shared.name_of(kept.section.stream);
            let mut state = self.shared.state.lock();
            let record = state.redated(&self.shared.clock, kept.section.run, &record);
            // What a route says of the topic, it says itself.
            let topic = state.intern(&to.topic, &TopicOptions::default(), RECORD_BYTES_MAX);
            batch.push(Incoming {
                topic,
                record,
                ticket: Some(Ticket {
                    to: waiter.clone(),
                    token,
                }),
                keep: Box::default(),
            });
        }
        self.shared.append_as_they_are(&mut batch);
        if !waiter.wait_for(kept.len() as u64) {
            return Err(HandError::NotSafe);
        }
        self.shared.release(&kept)?;
        Ok(kept.len() as u64)
    }
}

impl Shared {
    /// Has the writer thread drop a range, and waits for it.
    fn have_dropped(
        &self,
        stream: StreamId,
        run: Run,
        range: (u64, u64),
    ) -> Result<u64, HandError> {
        let (answer, answered) = sync_channel(1);
        let job = Job {
            stream,
            run,
            range,
            until: Instant::now() + TAKEN_WAIT,
            answer,
        };
        self.state.lock().by_hand.push(job);
        loop {
            self.poke_writer(&mut self.state.lock());
            match answered.recv_timeout(LOOK_EVERY) {
                Ok(dropped) => return dropped.ok_or(HandError::Failed),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(HandError::Failed),
            }
        }
    }

    /// On the writer thread: drops what was asked for, unless it is with Kafka just now.
    pub(super) fn do_by_hand(&self) {
        let jobs = std::mem::take(&mut self.state.lock().by_hand);
        for job in jobs {
            match self.ready_range(&job) {
                Err(()) => self.state.lock().by_hand.push(job),
                Ok(range) => {
                    let stored = range.0 >= range.1
                        || self.drop_range(job.stream, job.run, range, Reason::ByHand);
                    let mut state = self.state.lock();
                    if let Some(stream) = state.stream(job.stream) {
                        stream.held = false;
                    }
                    state.offer(job.stream);
                    drop(state);
                    self.loader.notify_one();
                    self.changed.notify_one();
                    let dropped = stored.then(|| range.1.saturating_sub(range.0));
                    let _asker_may_have_gone = job.answer.try_send(dropped);
                }
            }
        }
    }

    /// What of a job's range may be dropped now; the stream is held from here on, so that it stays
    /// so. `Err`: part of it is with Kafka, and is waited for.
    fn ready_range(&self, job: &Job) -> Result<(u64, u64), ()> {
        let mut state = self.state.lock();
        let stopping = state.stopping;
        let Some(stream) = state.stream(job.stream) else {
            return Ok((0, 0));
        };
        stream.held = true;
        let (mut first, end) = job.range;
        if let Some(taken) = stream.taken
            && (taken.run, taken.last) >= (job.run, first)
        {
            if Instant::now() < job.until && !stopping {
                return Err(());
            }
            first = if taken.run == job.run {
                first.max(taken.last + 1)
            } else {
                end
            };
        }
        match stream.confirmed.0.cmp(&job.run) {
            std::cmp::Ordering::Greater => first = end,
            std::cmp::Ordering::Equal => first = first.max(stream.confirmed.1),
            std::cmp::Ordering::Less => {}
        }
        Ok((first, end))
    }

    /// Records in quarantine by their ids.
    fn chosen(&self, ids: &[String]) -> Result<Vec<Kept>, HandError> {
        let mut wanted: HashSet<&str> = ids.iter().map(String::as_str).collect();
        let mut chosen = self.quarantined();
        chosen.retain(|kept| wanted.remove(kept.id().as_str()));
        match wanted.into_iter().min() {
            Some(missing) => Err(HandError::Missing(missing.to_owned())),
            None => Ok(chosen),
        }
    }

    /// Writes that these records are out of quarantine, synced, and gives back its oldest segments
    /// as far as they hold nothing any more.
    fn release(&self, kept: &[Kept]) -> Result<(), HandError> {
        // Held all the while, so that no record comes to a segment that is being given back.
        let mut log = self.log.lock();
        for kept in kept.chunks(IDS_MAX) {
            let ids: Vec<String> = kept.iter().map(Kept::id).collect();
            let frame = FrameDraft {
                controls: vec![Entry::Note(ids.join(" ").into())],
                sections: Vec::new(),
            };
            if let Err(error) = log.append(QUARANTINE, &frame, self) {
                tracing::error!(%error, "the quarantine cannot be written");
                return Err(HandError::Failed);
            }
        }
        let segments: Vec<SegmentId> = log.segments_of(QUARANTINE).to_vec();
        let left = self.quarantined_in(&segments);
        for segment in segments {
            if left.iter().any(|kept| kept.at.segment == segment) {
                break;
            }
            log.free(segment);
        }
        Ok(())
    }
}

/// Waits until records are safe.
#[derive(Debug, Default)]
struct Waiter {
    safe: Mutex<u64>,
    changed: Condvar,
}

impl Settle for Waiter {
    fn safe(&self, tokens: &[u64]) {
        *self.safe.lock() += tokens.len() as u64;
        self.changed.notify_one();
    }
}

impl Waiter {
    fn wait_for(&self, count: u64) -> bool {
        let until = Instant::now() + SAFE_WAIT;
        let mut safe = self.safe.lock();
        while *safe < count {
            if self.changed.wait_until(&mut safe, until).timed_out() {
                return *safe >= count;
            }
        }
        true
    }
}
