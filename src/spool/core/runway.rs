//! How long the disk lasts if nothing drains, and how long the backlog takes to drain: from what
//! came in, was written and was sent lately.
//!
//! Somebody must call [`Spool::sample`] every few seconds. Rates are averages in which the last
//! [`MEMORY`] weigh most; the bytes that a record takes on disk are those of the records written
//! last, or, while nothing was ever written, its bytes in memory.

use std::time::Duration;

use parking_lot::Mutex;

use super::{Shared, Spool};
use crate::metrics::{Counter, Gauge};

/// Time in which the weight of what was seen falls to a third.
const MEMORY: Duration = Duration::from_secs(30);

/// What tells how the buffer will fare.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Runway {
    /// Records that come in, a second.
    pub inflow_records_per_second: f64,
    /// Bytes that they would take on disk, a second.
    pub inflow_disk_bytes_per_second: f64,
    /// Records that Kafka confirms, a second.
    pub sent_records_per_second: f64,
    /// Bytes that can still be written within `max_bytes` and `min_free_bytes`.
    pub room_bytes: u64,
    /// The disk bytes of a record are not known yet: its bytes in memory stand for them.
    pub guessed: bool,
    /// Seconds until the disk is full if nothing is sent; `None`: nothing comes in.
    pub runway_seconds: Option<f64>,
    /// Seconds until the backlog on disk is sent; 0 without one; `None`: it does not shrink.
    pub drain_seconds: Option<f64>,
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    records_in: u64,
    bytes_in: u64,
    sent: u64,
    disk_records: u64,
    disk_bytes: u64,
}

/// A sum in which what is long ago weighs less.
#[derive(Clone, Copy, Debug, Default)]
struct Fading(f64);

impl Fading {
    fn add(&mut self, more: f64, weight: f64) {
        self.0 = self.0 * weight + more;
    }
}

/// What [`Spool::sample`] remembers.
#[derive(Debug, Default)]
pub(super) struct Samples(Mutex<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    last_ms: u64,
    totals: Totals,
    seconds: Fading,
    records_in: Fading,
    bytes_in: Fading,
    sent: Fading,
    disk_records: Fading,
    disk_bytes: Fading,
    now: Runway,
}

/// What the rates are held against.
#[derive(Clone, Copy, Debug)]
struct Present {
    room_bytes: u64,
    /// Records to drain; `None` without a backlog.
    backlog: Option<u64>,
    up: bool,
}

impl State {
    fn update(&mut self, now_ms: u64, totals: Totals, present: Present) {
        let seconds = Duration::from_millis(now_ms.saturating_sub(self.last_ms)).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let weight = (-seconds / MEMORY.as_secs_f64()).exp();
        let before = self.totals;
        self.seconds.add(seconds, weight);
        self.records_in
            .add(since(totals.records_in, before.records_in), weight);
        self.bytes_in
            .add(since(totals.bytes_in, before.bytes_in), weight);
        self.sent.add(since(totals.sent, before.sent), weight);
        // These fade by what is written, not by time: the last records written are what is known.
        let written = since(totals.disk_records, before.disk_records);
        if written > 0.0 {
            self.disk_records.add(written, weight);
            let bytes = since(totals.disk_bytes, before.disk_bytes);
            self.disk_bytes.add(bytes, weight);
        }
        (self.totals, self.last_ms) = (totals, now_ms);
        self.now = self.judge(present);
    }

    fn judge(&self, present: Present) -> Runway {
        let rate = |sum: Fading| sum.0 / self.seconds.0;
        let (records_in, sent) = (rate(self.records_in), rate(self.sent));
        let guessed = self.disk_records.0 <= 0.0;
        let bytes_each = if guessed {
            self.bytes_in.0 / self.records_in.0.max(1.0)
        } else {
            self.disk_bytes.0 / self.disk_records.0
        };
        let disk_bytes = records_in * bytes_each;
        let shrinks = sent - records_in;
        Runway {
            inflow_records_per_second: records_in,
            inflow_disk_bytes_per_second: disk_bytes,
            sent_records_per_second: sent,
            room_bytes: present.room_bytes,
            guessed,
            runway_seconds: (disk_bytes > 1e-3).then(|| present.room_bytes as f64 / disk_bytes),
            drain_seconds: match present.backlog {
                None => Some(0.0),
                Some(left) if present.up && shrinks > 1e-3 => Some(left as f64 / shrinks),
                Some(_) => None,
            },
        }
    }
}

fn since(now: u64, before: u64) -> f64 {
    now.saturating_sub(before) as f64
}

impl Spool {
    /// Takes note of the rates; every few seconds. Asks the file system, and waits while the log
    /// writes.
    pub fn sample(&self) {
        self.shared.sample();
    }

    /// How the buffer will fare, by the last sample.
    #[must_use]
    pub fn runway(&self) -> Runway {
        self.shared.samples.0.lock().now
    }
}

impl Shared {
    fn sample(&self) {
        let room_bytes = self.room_left();
        let (present, totals) = {
            let state = self.state.lock();
            let left = || state.streams.iter().map(|s| s.left(state.run)).sum();
            let present = Present {
                room_bytes,
                backlog: state.has_backlog().then(left),
                up: state.uplink_up,
            };
            let totals = Totals {
                records_in: state.came_in.0,
                bytes_in: state.came_in.1,
                sent: self.metrics.count(Counter::Sent),
                disk_records: self.metrics.count(Counter::DiskRecords),
                disk_bytes: self.metrics.count(Counter::DiskBytes),
            };
            (present, totals)
        };
        let mut samples = self.samples.0.lock();
        samples.update(self.now_ms(), totals, present);
        let now = samples.now;
        drop(samples);
        self.metrics.set(Gauge::RoomBytes, now.room_bytes);
        self.metrics
            .set(Gauge::RunwayMs, millis(now.runway_seconds));
        self.metrics.set(Gauge::DrainMs, millis(now.drain_seconds));
    }

    /// Bytes that ordinary frames may still take: one segment is kept back for those that free more
    /// than they take.
    fn room_left(&self) -> u64 {
        let left = self.log.lock().capacity_left();
        left.saturating_sub(self.config.segment_bytes)
    }
}

/// Milliseconds for a gauge; `u64::MAX` is shown as endless.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float's cast saturates"
)]
fn millis(seconds: Option<f64>) -> u64 {
    seconds.map_or(u64::MAX, |seconds| (seconds * 1e3) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(backlog: Option<u64>, up: bool) -> Present {
        Present {
            room_bytes: 1_000_000,
            backlog,
            up,
        }
    }

    fn about(found: Option<f64>, wanted: f64) -> bool {
        found.is_some_and(|found| (found - wanted).abs() < wanted * 0.02)
    }

    #[test]
    fn an_outage_and_its_drain_are_foretold() {
        let (mut state, mut totals) = (State::default(), Totals::default());
        let mut now_ms = 0;
        // 100 records a second, 200 bytes each in memory; nothing was ever written.
        let mut pass = |state: &mut State, seconds: u64, each: (u64, u64, u64), present| {
            for _ in 0..seconds / 5 {
                now_ms += 5_000;
                totals.records_in += 5 * each.0;
                totals.bytes_in += 5 * each.0 * 200;
                totals.sent += 5 * each.1;
                totals.disk_records += 5 * each.2;
                totals.disk_bytes += 5 * each.2 * 50;
                state.update(now_ms, totals, present);
            }
        };
        pass(&mut state, 60, (100, 100, 0), present(None, true));
        assert!(state.now.guessed && state.now.drain_seconds == Some(0.0));
        assert!(about(state.now.runway_seconds, 1_000_000.0 / 20_000.0));
        // Kafka is away: on disk a record takes 50 bytes.
        pass(&mut state, 20, (100, 0, 100), present(Some(2_000), false));
        assert!(!state.now.guessed && state.now.drain_seconds.is_none());
        assert!(about(state.now.runway_seconds, 1_000_000.0 / 5_000.0));
        // It is back and takes 600 a second: after a while the past is forgotten.
        pass(&mut state, 180, (100, 600, 0), present(Some(50_000), true));
        assert!(about(state.now.drain_seconds, 100.0), "{:?}", state.now);
        assert!(about(state.now.runway_seconds, 200.0), "{:?}", state.now);
        // Nothing comes in any more.
        pass(&mut state, 1_800, (0, 0, 0), present(None, true));
        assert_eq!(state.now.runway_seconds, None);
        assert_eq!((millis(None), millis(Some(1.5))), (u64::MAX, 1_500));
    }
}
