//! What the pump knows of each broker: requests out, when to leave it alone, how long it usually
//! takes.
//!
//! ```text
//! main road: at most MAIN_OUT requests, many partitions each (one is encoded while one is out)
//! slow road: one request, one partition
//! away: the last call failed as a whole; nothing is sent until `quiet_until`, then one request
//! tries
//! ```

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Door;
use crate::backoff::Backoff;
use crate::kafka::client::Road;

/// Requests out at once on the main road of a broker.
const MAIN_OUT: usize = 2;
/// The same on the slow road: a broker answers one request of a connection at a time.
const SLOW_OUT: usize = 1;
/// A request is slow when it takes this many times the usual …
const SLOW_FACTOR: u32 = 8;
/// … and at least this long.
const SLOW_LEAST: Duration = Duration::from_millis(750);

#[derive(Debug, Default)]
struct State {
    main_out: usize,
    slow_out: usize,
    quiet_until: Option<Instant>,
    failures: u32,
    /// Since when it does not answer.
    away_since: Option<Instant>,
    usual: Duration,
    /// When the last answer came, on either road.
    answered: [Option<Instant>; 2],
}

/// All brokers that were sent to.
#[derive(Debug)]
pub(super) struct Doors {
    states: HashMap<Door, State>,
    backoff: Backoff,
}

impl Doors {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            states: HashMap::new(),
            backoff,
        }
    }

    /// Whether one more request may go out.
    pub(super) fn is_open(&self, door: Door, road: Road, now: Instant) -> bool {
        let Some(state) = self.states.get(&door) else {
            return true;
        };
        let room = match road {
            // A broker that was away gets one request to show that it is back.
            _ if state.failures > 0 => state.main_out + state.slow_out == 0,
            Road::Main => state.main_out < MAIN_OUT,
            Road::Slow => state.slow_out < SLOW_OUT,
        };
        room && state.quiet_until.is_none_or(|until| until <= now)
    }

    /// Whether any broker takes a request; one that was never sent to does.
    pub(super) fn any_open(&self, roads: &[Road], now: Instant) -> bool {
        let mut doors = self.states.keys();
        self.states.is_empty()
            || doors.any(|door| roads.iter().any(|road| self.is_open(*door, *road, now)))
    }

    /// A request goes out.
    pub(super) fn goes(&mut self, door: Door, road: Road) {
        let state = self.states.entry(door).or_default();
        match road {
            Road::Main => state.main_out += 1,
            Road::Slow => state.slow_out += 1,
        }
    }

    /// A request that went out has come back, one way or the other.
    pub(super) fn comes(&mut self, door: Door, road: Road) {
        if let Some(state) = self.states.get_mut(&door) {
            match road {
                Road::Main => state.main_out = state.main_out.saturating_sub(1),
                Road::Slow => state.slow_out = state.slow_out.saturating_sub(1),
            }
        }
    }

    /// The broker has answered: after how long, and for how long it wants to be left alone. Whether
    /// that was slow: it answers one request of a connection at a time, so one that waited behind
    /// another is not to blame for that.
    pub(super) fn answered(
        &mut self,
        door: Door,
        road: Road,
        (took, throttle): (Duration, Duration),
    ) -> bool {
        let now = Instant::now();
        let state = self.states.entry(door).or_default();
        state.failures = 0;
        state.away_since = None;
        state.quiet_until = (!throttle.is_zero()).then(|| now + throttle);
        let before = match road {
            Road::Main => state.answered[0].replace(now),
            Road::Slow => state.answered[1].replace(now),
        };
        let took = before.map_or(took, |before| took.min(now - before));
        let slow = !state.usual.is_zero() && took > SLOW_LEAST.max(state.usual * SLOW_FACTOR);
        // One slow answer must not make the next ones usual; a dozen of them do, for then it is
        // the broker that has become slow, and not a partition.
        state.usual = if state.usual.is_zero() {
            took
        } else {
            (state.usual * 7 + took.min(state.usual * 2)) / 8
        };
        slow
    }

    /// The broker did not answer: leaves it alone for a while. Whether that is news.
    pub(super) fn failed(&mut self, door: Door, random: u64) -> bool {
        let state = self.states.entry(door).or_default();
        state.failures = state.failures.saturating_add(1);
        state.away_since.get_or_insert_with(Instant::now);
        state.quiet_until = Some(Instant::now() + self.backoff.wait(state.failures, random));
        state.failures == 1
    }

    /// Whether a broker has not answered for so long.
    pub(super) fn is_away(&self, door: Door, long: Duration, now: Instant) -> bool {
        let since = self.states.get(&door).and_then(|state| state.away_since);
        since.is_some_and(|since| now.duration_since(since) > long)
    }

    /// The cluster was reached another way: every broker is worth a try now.
    pub(super) fn knock(&mut self) {
        for state in self.states.values_mut() {
            state.quiet_until = None;
            state.failures = 0;
        }
    }

    /// Whether any broker is thought to answer.
    pub(super) fn any_well(&self) -> bool {
        self.states.is_empty() || self.states.values().any(|state| state.failures == 0)
    }

    /// Requests out.
    pub(super) fn out(&self) -> usize {
        self.states
            .values()
            .map(|state| state.main_out + state.slow_out)
            .sum()
    }

    /// When a broker that is left alone may be tried again, if that is ahead.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        self.states
            .values()
            .filter_map(|state| state.quiet_until)
            .filter(|until| *until > now)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOOR: Door = Door(1);

    fn doors() -> Doors {
        Doors::new(Backoff {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(1),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_was_away_gets_one_request_first() {
        let mut doors = doors();
        assert!(doors.failed(DOOR, 0));
        assert!(!doors.is_open(DOOR, Road::Main, Instant::now()));
        tokio::time::advance(Duration::from_millis(101)).await;
        let both = |doors: &Doors| {
            [Road::Main, Road::Slow].map(|road| doors.is_open(DOOR, road, Instant::now()))
        };
        assert_eq!(both(&doors), [true, true]);
        doors.goes(DOOR, Road::Main);
        assert_eq!(both(&doors), [false, false]);
        doors.comes(DOOR, Road::Main);
        doors.answered(DOOR, Road::Main, (Duration::from_millis(5), Duration::ZERO));
        doors.goes(DOOR, Road::Main);
        assert!(doors.is_open(DOOR, Road::Main, Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttle_closes_the_door_for_as_long() {
        let mut doors = doors();
        doors.answered(
            DOOR,
            Road::Main,
            (Duration::from_millis(5), Duration::from_millis(300)),
        );
        assert!(!doors.is_open(DOOR, Road::Main, Instant::now()));
        tokio::time::advance(Duration::from_millis(301)).await;
        assert!(doors.is_open(DOOR, Road::Main, Instant::now()));
    }

    /// Requests that were out for these times, and whether each was slow; they are sent `pipelined`
    /// or one after the other.
    async fn slow(doors: &mut Doors, pipelined: bool, times_ms: &[u64]) -> Vec<bool> {
        let mut slow = Vec::new();
        let mut out_ms = 0;
        for ms in times_ms {
            tokio::time::advance(Duration::from_millis(*ms)).await;
            out_ms = if pipelined { out_ms + ms } else { *ms };
            let took = Duration::from_millis(out_ms);
            slow.push(doors.answered(DOOR, Road::Main, (took, Duration::ZERO)));
        }
        slow
    }

    #[tokio::test(start_paused = true)]
    async fn slow_is_measured_by_the_usual() {
        let mut doors = doors();
        assert_eq!(slow(&mut doors, false, &[10; 20]).await, [false; 20]);
        assert_eq!(slow(&mut doors, false, &[700, 900]).await, [false, true]);
        // One that is slow does not make the next ones usual.
        assert_eq!(slow(&mut doors, false, &[5_000, 2_000]).await, [true; 2]);
        let answers = slow(&mut doors, false, &[1_000; 20]).await;
        assert!(answers[0] && !answers[19], "{answers:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waited_behind_a_slow_request_is_not_slow() {
        let mut doors = doors();
        slow(&mut doors, false, &[10; 20]).await;
        let answers = slow(&mut doors, true, &[5_000, 10]).await;
        assert_eq!(answers, [true, false]);
    }
}
