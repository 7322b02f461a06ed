//! What moves, in sled: cursors, runs, streams, topics, bases, drops, the loss ledger, odds and ends.
//!
//! Everything but the ledger can be found again in the log's heads and frames, so a damaged folder is renamed
//! to `<name>.damaged-N` and a new one made; the gateway starts all the same. `sled::Db::flush` is no fsync on
//! Linux: a synced batch is flushed, then `db`, sled's only file of data, is synced by us. Its own flusher is off.
//!
//! One tree, so that a batch is atomic. A key is a letter and big-endian integers; values are varints (`value.rs`):
//!
//! | key | value |
//! |---|---|
//! | `c` stream u32 | cursor: run, next, offset + 1 or 0 |
//! | `r` run u32 | started ms signed, then nothing or producer id signed, epoch signed, cluster id |
//! | `s` stream u32 | partition signed, topic |
//! | `t` topic | partitions, message bytes max + 1 or 0, then nothing or topic id 16 bytes |
//! | `b` stream u32, run u32, from u64 | run that sends |
//! | `d` stream u32, run u32, from u64 | to less from, reason |
//! | `l` id u64 | loss: reason, run, from, to less from, at ms signed, 0 and stream, or 1 and MQTT topic |
//! | `m` name | bytes |

mod value;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

pub use value::{Base, Cursor, Dropped, Loss, Reason, RunFacts, Subject, TopicMemory};
use value::{key, key_u32};

use super::log::with_path;
use super::{Run, StreamId, TopicPartition};

/// Losses that are kept; older ones are forgotten.
pub const LEDGER_MAX: u64 = 100_000;
/// Largest value: larger ones would one day land in files that sled never syncs.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// Name of the value that every store has.
const MARK: &str = "tidegate";
/// Damaged folders that are kept.
const DAMAGED_KEPT: usize = 2;
/// Losses that a later one may still join.
const OPEN_LOSSES_MAX: usize = 4096;

/// Why the folder could not be opened; damage is no reason.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// Another process has it open.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// The disk's.
    #[error("cannot open {path}: {source}")]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The store of what moves.
#[derive(Debug)]
pub struct Meta {
    db: sled::Db,
    data: File,
    data_path: PathBuf,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    oldest: u64,
    next: u64,
    /// The last loss of each subject, run and reason.
    open: HashMap<(Subject, Run, Reason), (u64, Loss)>,
}

/// Changes that are applied together or not at all.
#[derive(Debug, Default)]
pub struct MetaBatch {
    batch: sled::Batch,
    losses: Vec<Loss>,
    too_large: bool,
}

impl MetaBatch {
    fn put_value(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.too_large |= value.len() >= VALUE_BYTES_MAX;
        self.batch.insert(key, value);
    }

    /// Sets a stream's cursor.
    pub fn cursor(&mut self, stream: StreamId, cursor: Cursor) {
        self.put_value(key_u32(b'c', stream.0), cursor.encode());
    }

    /// Sets what is known of a run.
    pub fn run(&mut self, run: Run, facts: &RunFacts) {
        self.put_value(key_u32(b'r', run.0), facts.encode());
    }

    /// Forgets a run.
    pub fn forget_run(&mut self, run: Run) {
        self.batch.remove(key_u32(b'r', run.0));
    }

    /// Names a stream.
    pub fn stream(&mut self, stream: StreamId, to: &TopicPartition) {
        self.put_value(key_u32(b's', stream.0), value::encode_stream(to));
    }

    /// Sets what is known of a topic.
    pub fn topic(&mut self, topic: &str, memory: &TopicMemory) {
        self.put_value(key(b't', topic.as_bytes()), memory.encode());
    }

    /// Sets under which run records are sent.
    pub fn base(&mut self, base: &Base) {
        self.put_value(base.key(), base.encode());
    }

    /// Forgets a base.
    pub fn forget_base(&mut self, base: &Base) {
        self.batch.remove(base.key());
    }

    /// Keeps a dropped range for the count of sequences.
    pub fn dropped(&mut self, dropped: &Dropped) {
        self.put_value(dropped.key(), dropped.encode());
    }

    /// Forgets a dropped range.
    pub fn forget_dropped(&mut self, dropped: &Dropped) {
        self.batch.remove(dropped.key());
    }

    /// Appends to the ledger; joins the last loss of the same subject, run and reason if they touch.
    pub fn loss(&mut self, loss: Loss) {
        self.losses.push(loss);
    }

    /// Sets a named value of less than [`VALUE_BYTES_MAX`].
    pub fn put(&mut self, name: &str, bytes: &[u8]) {
        self.put_value(key(b'm', name.as_bytes()), bytes.to_vec());
    }

    /// Forgets a named value.
    pub fn forget(&mut self, name: &str) {
        self.batch.remove(key(b'm', name.as_bytes()));
    }
}

impl Meta {
    /// Opens `folder`; says also whether what was there was damaged and put aside. Blocks on the disk.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn open(folder: &Path) -> Result<(Self, bool), MetaError> {
        let failed = |source| MetaError::Io {
            path: folder.to_owned(),
            source,
        };
        if let Some(parent) = folder.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        // Sled panics where it finds what it does not expect.
        let opened = catch_unwind(AssertUnwindSafe(|| Self::try_open(folder)));
        let error = match opened {
            Ok(Ok(meta)) => return Ok((meta, false)),
            Ok(Err(sled::Error::Io(error))) if error.to_string().contains("acquire lock") => {
                return Err(MetaError::Locked(folder.to_owned()));
            }
            Ok(Err(sled::Error::Io(error))) if is_no_damage(&error) => return Err(failed(error)),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "sled panicked".to_owned(),
        };
        let aside = put_aside(folder).map_err(failed)?;
        tracing::warn!(error, aside = %aside.display(), "state was damaged: starting from the log");
        let meta = Self::try_open(folder).map_err(|error| failed(error.into()))?;
        Ok((meta, true))
    }

    fn try_open(folder: &Path) -> sled::Result<Self> {
        let was_there = folder.join("db").exists();
        let config = sled::Config::new().path(folder).cache_capacity(4 << 20);
        let db = config.flush_every_ms(None).open()?;
        let data_path = folder.join("db");
        let data = File::open(&data_path)?;
        File::open(folder)?.sync_all()?;
        if let Some(parent) = folder.parent() {
            File::open(parent)?.sync_all()?;
        }
        // Sled takes a file of garbage for an empty one: what is not new has our mark.
        let mark = key(b'm', MARK.as_bytes());
        if was_there && db.get(&mark)?.is_none() {
            return Err(sled::Error::Corruption { at: None, bt: () });
        }
        db.insert(mark, &[1])?;
        db.flush()?;
        data.sync_data()?;
        let id = |found: Option<sled::Result<(sled::IVec, sled::IVec)>>| {
            let id_of = |(key, _): (sled::IVec, _)| value::read_id(&key).ok_or_else(malformed);
            found.map(|found| found.and_then(id_of)).transpose()
        };
        let oldest = id(db.scan_prefix(b"l").next())?.unwrap_or(0);
        let next = id(db.scan_prefix(b"l").next_back())?.map_or(0, |last| last + 1);
        let ledger = Ledger {
            oldest,
            next,
            open: HashMap::new(),
        };
        let meta = Self {
            db,
            data,
            data_path,
            ledger: Mutex::new(ledger),
        };
        // All is read once, so that damage shows now.
        meta.cursors()?;
        meta.runs()?;
        meta.streams()?;
        meta.topics()?;
        meta.bases()?;
        meta.dropped()?;
        Ok(meta)
    }

    /// Applies a batch; with `sync` it is durable when this returns. Blocks on the disk.
    ///
    /// # Errors
    /// The disk's; a batch that was to be synced may then be there or not. A value that is too large.
    pub fn apply(&self, mut batch: MetaBatch, sync: bool) -> io::Result<()> {
        if batch.too_large {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "value is too large",
            ));
        }
        {
            let mut ledger = self.ledger.lock();
            for loss in std::mem::take(&mut batch.losses) {
                ledger.add(loss, &mut batch.batch);
            }
            self.db.apply_batch(batch.batch)?;
        }
        if sync { self.sync() } else { Ok(()) }
    }

    /// Makes all that was applied durable.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> io::Result<()> {
        self.db.flush()?;
        self.data
            .sync_data()
            .map_err(|error| with_path(&self.data_path, &error))
    }

    fn all<T>(&self, letter: u8, read: impl Fn(&[u8], &[u8]) -> Option<T>) -> sled::Result<Vec<T>> {
        let one = |item: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, value) = item?;
            read(key.get(1..).unwrap_or(&[]), &value).ok_or_else(malformed)
        };
        self.db.scan_prefix([letter]).map(one).collect()
    }

    /// All cursors, by stream.
    ///
    /// # Errors
    /// The disk's, or damage; so for all of these.
    pub fn cursors(&self) -> sled::Result<Vec<(StreamId, Cursor)>> {
        self.all(b'c', |key, value| {
            Some((StreamId(value::u32_of(key)?), Cursor::decode(value)?))
        })
    }

    /// All runs, the oldest first.
    ///
    /// # Errors
    /// See [`Meta::cursors`].
    pub fn runs(&self) -> sled::Result<Vec<(Run, RunFacts)>> {
        self.all(b'r', |key, value| {
            Some((Run(value::u32_of(key)?), RunFacts::decode(value)?))
        })
    }

    /// All streams.
    ///
    /// # Errors
    /// See [`Meta::cursors`].
    pub fn streams(&self) -> sled::Result<Vec<(StreamId, TopicPartition)>> {
        self.all(b's', |key, value| {
            Some((StreamId(value::u32_of(key)?), value::decode_stream(value)?))
        })
    }

    /// All topics.
    ///
    /// # Errors
    /// See [`Meta::cursors`].
    pub fn topics(&self) -> sled::Result<Vec<(String, TopicMemory)>> {
        self.all(b't', |key, value| {
            Some((
                std::str::from_utf8(key).ok()?.to_owned(),
                TopicMemory::decode(value)?,
            ))
        })
    }

    /// All bases, by stream, run, number.
    ///
    /// # Errors
    /// See [`Meta::cursors`].
    pub fn bases(&self) -> sled::Result<Vec<Base>> {
        self.all(b'b', Base::decode)
    }

    /// All dropped ranges that still matter, by stream, run, number.
    ///
    /// # Errors
    /// See [`Meta::cursors`].
    pub fn dropped(&self) -> sled::Result<Vec<Dropped>> {
        self.all(b'd', Dropped::decode)
    }

    /// The ledger, the newest first, with each loss's number.
    pub fn ledger(&self) -> impl Iterator<Item = sled::Result<(u64, Loss)>> + use<> {
        self.db.scan_prefix(b"l").rev().map(|item| {
            let (key, value) = item?;
            let id = value::read_id(&key).ok_or_else(malformed)?;
            Ok((id, Loss::decode(&value).ok_or_else(malformed)?))
        })
    }

    /// A named value.
    ///
    /// # Errors
    /// See [`Meta::cursors`].
    pub fn get(&self, name: &str) -> sled::Result<Option<Vec<u8>>> {
        Ok(self
            .db
            .get(key(b'm', name.as_bytes()))?
            .map(|value| value.to_vec()))
    }
}

impl Ledger {
    fn add(&mut self, loss: Loss, batch: &mut sled::Batch) {
        let of = (loss.subject.clone(), loss.run, loss.reason);
        if self.open.len() >= OPEN_LOSSES_MAX {
            self.open.clear();
        }
        let joined = self
            .open
            .get(&of)
            .and_then(|(id, last)| Some((*id, last.join(&loss)?)));
        let (id, loss) = joined
            .filter(|(id, _)| *id >= self.oldest)
            .unwrap_or_else(|| {
                self.next += 1;
                (self.next - 1, loss)
            });
        batch.insert(key(b'l', &id.to_be_bytes()), loss.encode());
        self.open.insert(of, (id, loss));
        if self.next - self.oldest > LEDGER_MAX {
            batch.remove(key(b'l', &self.oldest.to_be_bytes()));
            self.oldest += 1;
        }
    }
}

fn malformed() -> sled::Error {
    sled::Error::ReportableBug("a value is malformed".to_owned())
}

/// Errors that a new folder would not cure.
fn is_no_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{OutOfMemory, PermissionDenied, ReadOnlyFilesystem, StorageFull};
    matches!(
        error.kind(),
        PermissionDenied | StorageFull | ReadOnlyFilesystem | OutOfMemory
    )
}

/// Renames the folder; the oldest of those renamed before goes.
fn put_aside(folder: &Path) -> io::Result<PathBuf> {
    let name = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let parent = folder.parent().unwrap_or(Path::new("."));
    let prefix = format!("{name}.damaged-");
    let mut there: Vec<u64> = Vec::new();
    for entry in std::fs::read_dir(parent)? {
        let other = entry?.file_name().to_string_lossy().into_owned();
        there.extend(
            other
                .strip_prefix(&prefix)
                .and_then(|n| n.parse::<u64>().ok()),
        );
    }
    there.sort_unstable();
    while there.len() >= DAMAGED_KEPT {
        std::fs::remove_dir_all(parent.join(format!("{prefix}{}", there.remove(0))))?;
    }
    let aside = parent.join(format!(
        "{prefix}{}",
        there.last().map_or(1, |last| last + 1)
    ));
    std::fs::rename(folder, &aside)?;
    File::open(parent)?.sync_all()?;
    Ok(aside)
}
