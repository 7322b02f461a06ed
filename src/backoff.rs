//! How long to wait before something is tried again: doubling, capped, with jitter.
//!
//! The jitter comes from the caller, so that tests see the same waits each time; [`Random`] is a
//! source for everybody else.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// First and longest wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Wait after the first failure.
    pub first: Duration,
    /// No wait is longer.
    pub longest: Duration,
}

impl Backoff {
    /// The wait after failure number `failures` (1 is the first): `first` doubled each time, at
    /// most `longest`, of which `random` takes up to half away.
    #[must_use]
    pub fn wait(&self, failures: u32, random: u64) -> Duration {
        let doubled = 1u32
            .checked_shl(failures.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let whole = self.first.saturating_mul(doubled).min(self.longest);
        let half = u64::try_from(whole.as_micros() / 2).unwrap_or(u64::MAX);
        whole.saturating_sub(Duration::from_micros(random % half.saturating_add(1)))
    }
}

/// Numbers for jitter (`SplitMix64`); nothing secret may depend on them.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed, the same numbers.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Another row of numbers in each process.
    #[must_use]
    pub fn new() -> Self {
        Self(RandomState::new().hash_one(0u8))
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURVE: Backoff = Backoff {
        first: Duration::from_millis(100),
        longest: Duration::from_secs(5),
    };

    #[test]
    fn waits_double_up_to_the_longest_and_stay_there() {
        let waits: Vec<u128> = [1, 2, 3, 6, 7, 33, u32::MAX]
            .iter()
            .map(|&failures| CURVE.wait(failures, 0).as_millis())
            .collect();
        assert_eq!(waits, [100, 200, 400, 3200, 5000, 5000, 5000]);
    }

    #[test]
    fn jitter_takes_at_most_half_and_spreads() {
        let mut random = Random::seeded(1);
        let mut seen = std::collections::HashSet::new();
        for failures in 0..200 {
            let wait = CURVE.wait(failures, random.draw());
            let whole = CURVE.wait(failures, 0);
            assert!(wait >= whole / 2 && wait <= whole, "{wait:?} of {whole:?}");
            seen.insert(wait);
        }
        assert!(seen.len() > 150);
    }
}
