//! Logging: lines to stderr, and [`RateLimited`] for what fails again and again.
//!
//! Logs are bounded: nobody writes a line per message, and a failure that repeats is summarised.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing_subscriber::EnvFilter;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter does not parse.
    #[error("bad log filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Somebody has set up logging already.
    #[error("logging is set up already")]
    Twice,
}

/// Sends log lines that pass `filter` (`tracing`'s syntax) to stderr, as text or as JSON, one
/// object a line.
///
/// # Errors
/// [`Error`].
pub fn init(filter: &str, json: bool) -> Result<(), Error> {
    // rskafka has a line for each failure; the uplink sums them up.
    let filter = EnvFilter::builder().parse(format!("rskafka=off,{filter}"))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    let set = if json {
        lines.json().flatten_event(true).try_init()
    } else {
        lines.try_init()
    };
    set.map_err(|_| Error::Twice)
}

/// Says when a failure that may repeat deserves a line: the first at once, then at most one every
/// `every`, with the number of those held back since.
///
/// ```
/// use tidegate::log::RateLimited;
/// static FAILED: RateLimited = RateLimited::new(std::time::Duration::from_secs(10));
/// if let Some(held_back) = FAILED.check() {
///     tracing::warn!(held_back, "cannot reach the broker");
/// }
/// // … and once it works again:
/// if let Some(held_back) = FAILED.over() {
///     tracing::info!(held_back, "the broker answers again");
/// }
/// ```
#[derive(Debug)]
pub struct RateLimited {
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the last line was due; `None`: no failure since the trouble was last over.
    told: Option<Instant>,
    held_back: u64,
}

impl RateLimited {
    /// At most one line every `every`.
    #[must_use]
    pub const fn new(every: Duration) -> Self {
        Self {
            every,
            state: Mutex::new(State {
                told: None,
                held_back: 0,
            }),
        }
    }

    /// Counts a failure. `Some`: write a line now, and say that so many were held back since the
    /// last.
    pub fn check(&self) -> Option<u64> {
        self.check_at(Instant::now())
    }

    /// As [`Self::check`], with the time given.
    pub fn check_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        let due = state
            .told
            .is_none_or(|told| now.saturating_duration_since(told) >= self.every);
        if due {
            state.told = Some(now);
            Some(std::mem::take(&mut state.held_back))
        } else {
            state.held_back = state.held_back.saturating_add(1);
            None
        }
    }

    /// The trouble is over: the next failure is told at once. `Some` if there was any, with the
    /// number held back since the last line.
    pub fn over(&self) -> Option<u64> {
        let mut state = self.state.lock();
        state.told.take()?;
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_at_once_then_one_an_interval_with_the_count() {
        let limit = RateLimited::new(Duration::from_secs(10));
        let start = Instant::now();
        let at = |ms| limit.check_at(start + Duration::from_millis(ms));
        assert_eq!(at(0), Some(0));
        for ms in 1..=500 {
            assert_eq!(at(ms), None);
        }
        assert_eq!(at(9_999), None);
        assert_eq!(at(10_000), Some(501));
        assert_eq!(at(10_001), None);
        assert_eq!(at(60_000), Some(1));
    }

    #[test]
    fn when_it_is_over_the_rest_is_told_once() {
        let limit = RateLimited::new(Duration::from_secs(10));
        let start = Instant::now();
        assert_eq!(limit.over(), None);
        assert_eq!(limit.check_at(start), Some(0));
        assert_eq!(limit.check_at(start), None);
        assert_eq!(limit.over(), Some(1));
        assert_eq!(limit.over(), None);
        assert_eq!(limit.check_at(start), Some(0));
    }

    #[test]
    fn a_clock_that_steps_back_holds_back() {
        let limit = RateLimited::new(Duration::from_secs(10));
        let start = Instant::now() + Duration::from_secs(60);
        assert_eq!(limit.check_at(start), Some(0));
        assert_eq!(limit.check_at(start - Duration::from_secs(60)), None);
    }
}
