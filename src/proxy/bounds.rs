//! What all connections together may have in flight: bytes that were handed to the spool and are
//! not safe.
//!
//! At the bound every connection stops reading until some of it is safe.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The bound, and how much of it is used.
#[derive(Debug)]
pub struct Bounds {
    bytes_max: usize,
    bytes: AtomicUsize,
    freed: Notify,
}

impl Bounds {
    /// Nothing in flight.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: AtomicUsize::new(0),
            freed: Notify::new(),
        }
    }

    /// Counts bytes that are handed to the spool.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that became safe.
    pub fn sub(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before >= self.bytes_max && before.saturating_sub(bytes) < self.bytes_max {
            self.freed.notify_waiters();
        }
    }

    /// Whether nobody may read.
    #[must_use]
    pub fn full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.bytes_max
    }

    /// Returns when it is worth looking again.
    pub async fn freed(&self) {
        let freed = self.freed.notified();
        tokio::pin!(freed);
        freed.as_mut().enable();
        if self.full() {
            freed.await;
        }
    }
}
