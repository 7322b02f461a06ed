//! How fast one client may publish: a bucket of tokens, one a message, a second's worth at most.

use std::time::Duration;

use tokio::time::Instant;

/// The tokens of one client.
#[derive(Debug)]
pub struct Pace {
    /// Time that a token takes to grow.
    each: Duration,
    /// The bucket is empty as if the last token had been taken then; in the past: there are some.
    empty_at: Instant,
}

impl Pace {
    /// A full bucket. 0 a second counts as one.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        let each = Duration::from_secs(1) / per_second.max(1);
        Self {
            each,
            empty_at: Instant::now() - Duration::from_secs(1),
        }
    }

    /// Takes a token. `false`: there is none.
    pub fn take(&mut self) -> bool {
        let now = Instant::now();
        let next = self.empty_at + self.each;
        if next > now {
            return false;
        }
        let full = now - Duration::from_secs(1);
        self.empty_at = next.max(full + self.each);
        true
    }

    /// Time until there is one.
    #[must_use]
    pub fn wait(&self) -> Duration {
        (self.empty_at + self.each).saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_s_worth_at_once_and_then_one_by_one() {
        tokio::time::advance(Duration::from_secs(60)).await;
        let mut pace = Pace::new(10);
        for second in 0..3 {
            let taken = (0..100).filter(|_| pace.take()).count();
            assert_eq!(taken, 10, "after {second} pauses");
            // What is not used for long does not add up.
            tokio::time::advance(Duration::from_secs(5)).await;
        }
        while pace.take() {}
        assert_eq!(pace.wait(), Duration::from_millis(100));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(pace.take() && !pace.take());
    }
}
