//! What all connections together may have in memory.
//!
//! * In flight: bytes that were handed to the spool and are not safe. At the bound every connection
//!   stops reading until some of it is safe.
//! * Wills: at the bound a CONNECT with a will is refused.
//! * Unfinished: bytes of packets whose rest has not come. At the bound the connection whose packet
//!   began first is closed, so that many that send slowly, or never go on, keep nobody out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Less of an unfinished packet is not counted: a connection has that much anyhow.
const UNCOUNTED: usize = 1024;

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

/// Most bytes of all wills, of connected clients and of those whose delay runs.
const WILLS_BYTES_MAX: usize = 32 << 20;

/// How many bytes wills take.
#[derive(Debug, Default)]
pub struct Wills(AtomicUsize);

/// A will's part of them, for as long as it lives.
#[derive(Debug)]
pub struct WillPart(Arc<Wills>, usize);

impl WillPart {
    /// Counts a will of so many bytes, if there is room for it.
    #[must_use]
    pub fn take(all: &Arc<Wills>, bytes: usize) -> Option<Self> {
        let part = Self(Arc::clone(all), bytes);
        let before = all.0.fetch_add(bytes, Ordering::Relaxed);
        (before + bytes <= WILLS_BYTES_MAX).then_some(part)
    }
}

impl Drop for WillPart {
    fn drop(&mut self) {
        self.0.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// The bound of unfinished packets, and who holds how much of it.
#[derive(Debug)]
pub struct Unfinished {
    bytes_max: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    next: u64,
    by_age: BTreeMap<u64, (usize, CancellationToken)>,
}

impl Unfinished {
    /// Nothing is held.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            held: Mutex::default(),
        }
    }
}

impl Held {
    fn release(&mut self, number: u64) {
        if let Some((bytes, _)) = self.by_age.remove(&number) {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}

/// One connection's part of it.
#[derive(Debug)]
pub struct Part {
    all: Arc<Unfinished>,
    held: Option<(u64, CancellationToken)>,
}

impl Part {
    /// Of a connection that has sent nothing yet.
    #[must_use]
    pub fn new(all: Arc<Unfinished>) -> Self {
        Self { all, held: None }
    }

    /// So much of a packet is there, and its rest is not. May cut off whose packet began first.
    pub fn set(&mut self, bytes: usize) {
        if bytes <= UNCOUNTED {
            if let Some((number, _)) = self.held.take() {
                self.all.held.lock().release(number);
            }
            return;
        }
        let mut held = self.all.held.lock();
        let (number, cut) = self.held.get_or_insert_with(|| {
            held.next += 1;
            (held.next, CancellationToken::new())
        });
        if cut.is_cancelled() {
            return;
        }
        held.release(*number);
        held.bytes += bytes;
        held.by_age.insert(*number, (bytes, cut.clone()));
        while held.bytes > self.all.bytes_max {
            let Some((_, (bytes, cut))) = held.by_age.pop_first() else {
                return;
            };
            held.bytes = held.bytes.saturating_sub(bytes);
            cut.cancel();
        }
    }

    /// Returns when this connection has to give way; never, while its packets come whole.
    pub async fn cut(&self) {
        match &self.held {
            Some((_, cut)) => cut.cancelled().await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_cut(part: &Part) -> bool {
        part.held
            .as_ref()
            .is_some_and(|(_, cut)| cut.is_cancelled())
    }

    #[test]
    fn who_began_first_gives_way_and_who_finishes_does_not() {
        let all = Arc::new(Unfinished::new(10_000));
        let mut parts: Vec<Part> = (0..4).map(|_| Part::new(Arc::clone(&all))).collect();
        for (at, bytes) in [(0, 4_000), (1, 4_000), (0, 5_000), (2, UNCOUNTED)] {
            parts[at].set(bytes);
        }
        assert!(!parts.iter().any(is_cut));
        parts[3].set(3_000);
        assert_eq!(
            parts.iter().map(is_cut).collect::<Vec<_>>(),
            [true, false, false, false]
        );
        parts[0].set(6_000);
        assert_eq!(all.held.lock().bytes, 7_000);
        parts[1].set(0);
        parts[1].set(6_000);
        assert!(!is_cut(&parts[1]) && !is_cut(&parts[3]));
        parts.remove(3);
        assert_eq!(all.held.lock().bytes, 6_000);
        drop(parts);
        assert_eq!(all.held.lock().bytes, 0);
        assert!(all.held.lock().by_age.is_empty());
    }
}
