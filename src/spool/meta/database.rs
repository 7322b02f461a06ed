//! sled, with what it lacks: it panics over some damage and some failures of the disk, and after
//! others it waits for ever.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// sled's page cache. Its default is 1 GiB.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// Key that every state of ours has.
const MARK: &str = "mark/tidegate";
/// Damaged folders that are kept for a look.
const ASIDE_MAX: u32 = 2;
/// Wait for a change of sled's after which it is woken, should it have failed without noticing.
const WAKE_AFTER: Duration = Duration::from_secs(1);

/// sled panics on some damage; that must not end the gateway.
pub(super) fn open(folder: &Path) -> sled::Result<sled::Db> {
    let config = || {
        sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::LowSpace)
            .open()
    };
    catch_unwind(config).unwrap_or_else(|_| {
        Err(sled::Error::Io(io::Error::other(
            "sled panicked over the folder",
        )))
    })
}

/// sled takes a file of garbage for an empty store: what is not new has our mark.
pub(super) fn check_mark(db: sled::Db, fresh: bool) -> sled::Result<sled::Db> {
    if fresh {
        db.insert(MARK, &[1])?;
    } else if db.get(MARK)?.is_none() {
        return Err(sled::Error::Io(io::Error::other(
            "the state has lost its mark",
        )));
    }
    Ok(db)
}

/// Version of what is stored. The first has none.
pub(super) fn format(db: &sled::Db) -> sled::Result<u64> {
    let stored = db.get("mark/format")?;
    Ok(stored.map_or(1, |value| serde_json::from_slice(&value).unwrap_or(1)))
}

/// Renames a damaged folder, so that somebody may look at it.
pub(super) fn put_aside(folder: &Path) -> io::Result<()> {
    let name = |n: u32| {
        let mut name = folder.as_os_str().to_owned();
        name.push(format!(".damaged-{n}"));
        PathBuf::from(name)
    };
    let oldest = name(ASIDE_MAX);
    if oldest.exists() {
        std::fs::remove_dir_all(&oldest)?;
    }
    for n in (1..ASIDE_MAX).rev() {
        if name(n).exists() {
            std::fs::rename(name(n), name(n + 1))?;
        }
    }
    std::fs::rename(folder, name(1))
}

/// Runs what changes sled, until it is done or has failed.
///
/// When a write of its log fails, sled notes the error, but does not always wake who waits for that
/// write (0.34.7, `Log::exit_reservation`). Any other change does.
pub(super) fn attend<T>(
    db: &sled::Db,
    change: impl FnOnce(&sled::Db) -> io::Result<T>,
) -> io::Result<T> {
    let (done, is_done) = sync_channel::<()>(1);
    let waker = db.clone();
    std::thread::scope(|scope| {
        let attendant = std::thread::Builder::new().name("sled-waker".into());
        attendant.spawn_scoped(scope, move || {
            // Another value each time: what changes nothing wakes nobody.
            let mut value = 1u64;
            while is_done.recv_timeout(WAKE_AFTER) == Err(RecvTimeoutError::Timeout) {
                value += 1;
                let mark = value.to_le_bytes();
                let woken = catch_unwind(AssertUnwindSafe(|| waker.insert(MARK, &mark)));
                tracing::debug!(?woken, "sled takes long");
            }
        })?;
        let changed = catch_unwind(AssertUnwindSafe(|| change(db)));
        drop(done);
        changed.unwrap_or_else(|_| Err(io::Error::other("sled panicked over a change")))
    })
}

/// Lets go of sled, which panics when its last sync fails. All that matters was synced before.
pub(super) fn close(db: sled::Db) {
    if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
        tracing::warn!("sled panicked when it was closed");
    }
}
