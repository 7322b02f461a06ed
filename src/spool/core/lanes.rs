//! Who goes first: streams without a backlog, then backlogs by priority, as fast as
//! `replay_bytes_per_second` lets them.
//!
//! A stream stands in one queue at a time. Where it belongs may change while it stands there (its
//! records went to disk and came back, its route gave it another priority); so it is looked at once
//! more when its turn comes.

use std::collections::VecDeque;

use super::super::StreamId;
use super::state::{LANES, State};

/// The bucket holds what may go in this time, in milliseconds.
const BURST_MS: i64 = 1_000;

/// A token bucket: bytes of records that were read back from disk. A batch goes when the bucket is
/// not empty, and may leave it in debt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replay {
    /// Bytes a second; 0: no bound.
    rate: i64,
    /// In thousandths of a byte.
    level: i64,
    filled_ms: u64,
}

impl Replay {
    /// A full bucket; 0 is no bound.
    pub fn new(bytes_per_second: u64) -> Self {
        let rate = i64::try_from(bytes_per_second).unwrap_or(i64::MAX);
        let level = rate.saturating_mul(BURST_MS);
        Self {
            rate,
            level,
            filled_ms: 0,
        }
    }

    /// Whether a batch may go now.
    pub fn may_go(&mut self, now_ms: u64) -> bool {
        if self.rate == 0 {
            return true;
        }
        let passed = i64::try_from(now_ms.saturating_sub(self.filled_ms)).unwrap_or(i64::MAX);
        let full = self.rate.saturating_mul(BURST_MS);
        self.level = self
            .level
            .saturating_add(self.rate.saturating_mul(passed))
            .min(full);
        self.filled_ms = now_ms;
        self.level > 0
    }

    /// A batch of so many bytes goes.
    pub fn goes(&mut self, bytes: usize) {
        if self.rate > 0 {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.level = self.level.saturating_sub(bytes.saturating_mul(1_000));
        }
    }

    /// Milliseconds from the last look until a batch may go; `None`: it may.
    pub fn wait_ms(&self) -> Option<u64> {
        let short = self.rate > 0 && self.level <= 0;
        short.then(|| u64::try_from(1 - self.level / self.rate).unwrap_or(1))
    }

    /// Largest batch of a stream: of a thin line it takes no more than a second.
    pub fn batch_bytes_max(&self, usual: usize) -> usize {
        match usize::try_from(self.rate) {
            Ok(0) | Err(_) => usual,
            Ok(rate) => usual.min(rate),
        }
    }
}

impl State {
    /// Lists a stream as ready if it is.
    pub fn offer(&mut self, id: StreamId) {
        let run = self.run;
        let Some(stream) = self.streams.get_mut(id.0 as usize) else {
            return;
        };
        if stream.ready || !stream.can_be_taken(run) {
            return;
        }
        stream.ready = true;
        let backlog = stream.has_backlog(run).then_some(usize::from(stream.lane));
        self.queue(backlog).push_back(id);
    }

    fn queue(&mut self, backlog: Option<usize>) -> &mut VecDeque<StreamId> {
        let lane = backlog.and_then(|lane| self.ready_backlog.get_mut(lane));
        lane.unwrap_or(&mut self.ready_live)
    }

    /// The next stream that can be taken: without a backlog first, then, if they may go, backlogs
    /// by priority.
    pub fn next_ready(&mut self, replay: bool) -> Option<StreamId> {
        while let Some(id) = self.ready_live.pop_front() {
            if self.leaves_queue(id, None) {
                return Some(id);
            }
        }
        if !replay {
            return None;
        }
        for lane in (0..LANES).rev() {
            while let Some(id) = self.queue(Some(lane)).pop_front() {
                if self.leaves_queue(id, Some(lane)) {
                    return Some(id);
                }
            }
        }
        None
    }

    /// Whether a stream that was taken from a queue can be handed out, and belonged there; else it
    /// goes where it belongs.
    fn leaves_queue(&mut self, id: StreamId, queue: Option<usize>) -> bool {
        let run = self.run;
        let Some(stream) = self.streams.get_mut(id.0 as usize) else {
            return false;
        };
        stream.ready = false;
        if !stream.can_be_taken(run) {
            return false;
        }
        let belongs = stream.has_backlog(run).then_some(usize::from(stream.lane));
        // One that stands too far behind is not sent farther back.
        let overtakes = match (queue, belongs) {
            (None, Some(_)) => true,
            (Some(here), Some(there)) => there < here,
            (_, None) => false,
        };
        if overtakes {
            self.offer(id);
        }
        !overtakes
    }

    /// Whether some backlog waits for the bucket alone, and for how many milliseconds.
    pub fn replay_wait_ms(&self) -> Option<u64> {
        let waits = self.ready_backlog.iter().any(|queue| !queue.is_empty());
        self.replay.wait_ms().filter(|_| waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_lets_through_its_rate_and_a_seconds_burst() {
        let mut replay = Replay::new(10_000);
        let mut gone = 0;
        for now_ms in (0..10_000).step_by(7) {
            while replay.may_go(now_ms) {
                replay.goes(1_500);
                gone += 1_500;
            }
            assert!(replay.wait_ms().is_some_and(|wait| wait <= 151));
        }
        assert!((108_000..=111_500).contains(&gone), "{gone}");
    }

    #[test]
    fn the_wait_is_as_long_as_it_takes() {
        let mut replay = Replay::new(1_000);
        assert!(replay.may_go(0));
        replay.goes(500_000);
        let wait = replay.wait_ms().unwrap();
        assert!(!replay.may_go(wait - 2));
        assert!(replay.may_go(wait));
        assert_eq!(replay.batch_bytes_max(512 << 10), 1_000);
    }

    #[test]
    fn without_a_bound_everything_goes() {
        let mut replay = Replay::new(0);
        replay.goes(usize::MAX);
        assert!(replay.may_go(0) && replay.wait_ms().is_none());
        assert_eq!(replay.batch_bytes_max(5), 5);
    }
}
