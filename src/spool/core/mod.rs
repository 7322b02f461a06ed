//! The running spool: one lock over all streams, a thread that writes, a thread that reads back.
//!
//! * `stream`, `numbering`, `state`: what the lock guards; pure.
//! * `hot`: memory of what is not in Kafka yet. `lanes`: who goes first, and how fast what was on
//!   disk may go.
//! * `time`: records that came in while nobody knew what time it was.
//! * `intake`, `outlet`: the two faces, called from connections and from the uplink.
//! * `writer`: group commits, cursors, the ledger. `give_way`: expiry and `on_full`. `deal`:
//!   provisional streams.
//! * `loader`: reads the backlog back, frame by frame, within a bound. `gaps`: what is not there.
//! * `recover`: from what lies on disk to a running spool.
//! * `rounds`: whether the loops still go round.
//! * `inspect`, `describe`, `runway`: what tools see. `by_hand`: what they take out.
//! * `dead_letter`: what goes to the dead letter topic instead.
//! * `keep`: what sources want kept beside records, in a log of its own with a thread of its own.
//!
//! # Invariants
//! - The lock is never held across I/O, and no ticket is settled under it.
//! - A ticket is settled after Kafka confirmed the record or after its frame was synced, never
//!   before.
//! - What changes Kafka's sequences (drops, bases) is synced before anything behind it is handed
//!   out.

mod by_hand;
mod dead_letter;
mod deal;
mod describe;
mod gaps;
mod give_way;
mod hot;
mod inspect;
mod intake;
mod keep;
mod lanes;
mod loader;
mod numbering;
mod outlet;
mod page;
mod persist;
mod quarantine;
mod recover;
mod room;
mod rounds;
mod runway;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod time;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::log::{self, Log, LogReader};
use super::meta::{self, Meta};
use crate::clock::Clock;
use crate::config::checked;
use crate::metrics::{Counter, Metrics};
pub use by_hand::HandError;
pub use inspect::Look;
use rounds::Rounds;
pub use runway::Runway;
use state::State;

/// Why the spool cannot be opened. Damage is no reason: it is reported and passed over.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The segment files cannot be read or made.
    #[error("cannot open the spool: {0}")]
    Log(#[from] log::LogError),
    /// The state beside them cannot be opened even when made anew.
    #[error("cannot open the spool's state: {0}")]
    Meta(#[from] meta::MetaError),
    /// A thread cannot be started, or a folder not be made.
    #[error("cannot open the spool: {0}")]
    Io(#[from] std::io::Error),
}

/// The running spool; see [`super::Intake`] and [`super::Outlet`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spool {
    shared: Arc<Shared>,
}

/// What the faces and the threads share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Whether memory is short: [`hot::Hot`].
    short: Arc<AtomicBool>,
    /// For the uplink's pump, and for its watcher of topics.
    changed: Notify,
    topics_changed: Notify,
    /// For the writer thread.
    writer: Condvar,
    /// For the loader thread.
    loader: Condvar,
    log: Mutex<Log>,
    reader: LogReader,
    meta: Mutex<Meta>,
    /// `None` for tools, which have nothing to keep.
    keep: Option<keep::Keep>,
    /// See [`super::device`].
    device: String,
    config: checked::Spool,
    metrics: Arc<Metrics>,
    samples: runway::Samples,
    rounds: Rounds,
    clock: Arc<Clock>,
    started: Instant,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").finish_non_exhaustive()
    }
}

impl Spool {
    /// Opens the spool in `folder` (`segments/`, `kept/` and `meta/` are made in it) and starts its
    /// threads.
    /// The system's clock is believed.
    ///
    /// # Errors
    /// [`OpenError`]; a damaged or half-written spool is none.
    pub fn open(
        config: &checked::Spool,
        folder: &Path,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        Self::open_by(config, folder, metrics, Arc::new(Clock::trusted()))
    }

    /// As [`Self::open`], by a clock that may not be right yet.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_by(
        config: &checked::Spool,
        folder: &Path,
        metrics: Arc<Metrics>,
        clock: Arc<Clock>,
    ) -> Result<Self, OpenError> {
        let segments = Arc::new(log::DiskStore::open(&folder.join("segments"))?);
        let kept = Arc::new(log::DiskStore::open(&folder.join("kept"))?);
        Self::start(recover::open(
            config,
            (segments, kept),
            &folder.join("meta"),
            (metrics, clock),
        )?)
    }

    fn start(shared: Shared) -> Result<Self, OpenError> {
        let spool = Self {
            shared: Arc::new(shared),
        };
        // Its partitions and bounds are asked for before they are needed.
        spool
            .shared
            .dead_letter_topic(&mut spool.shared.state.lock());
        spool.spawn("spool-writer", Shared::write_until_stopped)?;
        spool.spawn("spool-loader", Shared::load_until_stopped)?;
        spool.spawn("spool-keeper", Shared::keep_until_stopped)?;
        Ok(spool)
    }

    fn spawn(&self, name: &str, run: fn(&Shared)) -> std::io::Result<()> {
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || run(&shared))?;
        self.shared.threads.lock().push(thread);
        Ok(())
    }

    /// From now on records are written at once, without waiting for Kafka: the gateway is about to
    /// stop.
    pub fn hurry(&self) {
        let mut state = self.shared.state.lock();
        state.hurry = true;
        self.shared.poke_writer(&mut state);
    }

    /// Brings the gauges up to date.
    pub fn show_figures(&self) {
        self.shared.show_figures();
    }

    /// Writes what is not safe yet, stores the cursors and ends the threads. Blocks on the disk.
    pub fn stop(&self) {
        // The records that wait for what is kept are written with the last.
        if let Some(keep) = &self.shared.keep {
            keep.stop();
        }
        let keeper = self.shared.threads.lock().pop();
        self.join(keeper);
        self.shared.state.lock().stopping = true;
        self.shared.writer.notify_all();
        self.shared.loader.notify_all();
        let threads = std::mem::take(&mut *self.shared.threads.lock());
        self.join(threads);
    }

    fn join(&self, threads: impl IntoIterator<Item = JoinHandle<()>>) {
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the spool has panicked");
            }
        }
    }
}

impl Shared {
    /// Milliseconds since the spool was opened.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn poke_writer(&self, state: &mut State) {
        state.poke = true;
        self.writer.notify_one();
    }

    /// Settles tickets; the lock must not be held.
    fn settle(&self, due: state::Due) {
        self.metrics.add(Counter::Safe, due.count);
        due.settle();
    }
}

/// Milliseconds since 1970.
fn wall_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
