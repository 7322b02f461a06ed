//! How much memory records take that came in and are not in Kafka yet, and whether that is more
//! than they may: then QoS 0 is dropped. Sources ask for that without the lock, before they make a
//! record.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The bytes; all changes go through here, under the lock.
#[derive(Debug)]
pub(super) struct Hot {
    bytes: usize,
    bytes_max: usize,
    short: Arc<AtomicBool>,
}

impl Hot {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes: 0,
            bytes_max,
            short: Arc::default(),
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_short(&self) -> bool {
        self.bytes > self.bytes_max
    }

    /// What [`Self::is_short`] says, for who does not have the lock.
    pub fn short(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.short)
    }

    pub fn add(&mut self, bytes: usize) {
        self.set(self.bytes + bytes);
    }

    pub fn sub(&mut self, bytes: usize) {
        self.set(self.bytes.saturating_sub(bytes));
    }

    fn set(&mut self, bytes: usize) {
        let was_short = self.is_short();
        self.bytes = bytes;
        if self.is_short() != was_short {
            self.short.store(self.is_short(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_is_told_above_the_bound_only() {
        let mut hot = Hot::new(10);
        let short = hot.short();
        let told = |hot: &Hot| (hot.is_short(), short.load(Ordering::Relaxed));
        hot.add(10);
        assert_eq!(told(&hot), (false, false));
        hot.add(1);
        assert_eq!(told(&hot), (true, true));
        hot.add(5);
        hot.sub(6);
        assert_eq!(told(&hot), (false, false));
        hot.sub(100);
        assert_eq!(hot.bytes(), 0);
    }
}
