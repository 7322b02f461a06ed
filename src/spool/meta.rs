//! What moves and what points at the records, kept in sled: runs and their identities, cursors,
//! partition counts, what Kafka's sequences must know, and the loss ledger.
//!
//! ```text
//! run/RUN                 when it began; under which identity it sends
//! stream/ID               topic, partition
//! count/TOPIC             partition count
//! cursor/ID               run, number, offset
//! base/ID/RUN             number with sequence 0, run that sends
//! clock/RUN               by what the run's times can be put right
//! drop/ID/RUN/FIRST       number behind the last; whether Kafka's fate of it is known
//! loss/NUMBER             a line of the ledger
//! mark/format             version of all this, where it is not 1
//! ```
//! Numbers in keys have leading zeros, so that sled's order is theirs; values are JSON. A field
//! that an older version may pass over raises no version; a newer one than `FORMAT` is refused.
//!
//! sled's `flush` is no fsync on Linux (LIBRARIES.md 5.1), so [`Meta::apply`] syncs sled's file
//! itself. Nothing here is what a PUBACK depends on: a folder that cannot be opened is put aside
//! and made anew.

mod ballast;
mod batch;
mod database;
mod ledger;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use ballast::{Ballast, is_full};
pub use batch::MetaBatch;
use batch::drop_key;
pub use stored::{Base, Cursor, Drop, Stored};
use stored::{numbers, read};

use super::{Identity, Run, StreamId, TopicPartition};
use crate::clock::Anchor;

/// Version of what is stored here.
const FORMAT: u64 = 1;
/// Lines of the ledger that are kept.
const LEDGER_MAX: usize = 100_000;
/// Runs whose identities are kept though nothing points at them.
const RUNS_MAX: usize = 1_000;

/// Why the state cannot be opened even when made anew.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// sled's own words.
    #[error("{}: {source}", path.display())]
    Sled {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: sled::Error,
    },
    /// Another gateway runs on the same folder.
    #[error("{}: another process uses it", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A newer version wrote it.
    #[error(
        "{}: written by a newer version of tidegate, in format {version}; this one reads formats \
         up to {FORMAT}. Nothing was touched: install the newer version again", path.display()
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// What it takes to read it.
        version: u64,
    },
    /// The folder cannot be put aside or synced.
    #[error("{}: {source}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why records or messages are not in Kafka, or may be there twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Reason {
    /// Their time to live passed.
    Expired = 1,
    /// They made room by `on_full`.
    Full,
    /// Kafka rejected them; they are in quarantine.
    Rejected,
    /// No route took them, or they were too large.
    Refused,
    /// They were damaged on disk.
    Damaged,
    /// Kafka lost them after it had confirmed them.
    LostByKafka,
    /// They were sent again although they may have been there.
    MaybeTwice,
    /// Somebody dropped them.
    ByHand,
    /// They went to the dead letter topic.
    DeadLettered,
}

/// A line of the loss ledger: numbers `first..end` of a stream's run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Kafka topic; of refused messages the MQTT topic.
    pub topic: String,
    /// Partition; of refused messages −1: no route, −2: too large.
    pub partition: i32,
    /// Run that numbered them.
    pub run: Run,
    /// First number.
    pub first: u64,
    /// Number behind the last.
    pub end: u64,
    /// Why.
    pub reason: Reason,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
}

/// The state beside the records.
#[derive(Debug)]
pub struct Meta {
    folder: PathBuf,
    /// `None` between a failure and the next try: sled keeps failing once its disk has.
    db: Option<sled::Db>,
    /// sled's one file, for the sync that sled does not do.
    file: File,
    ballast: Ballast,
    identities: BTreeMap<Run, Identity>,
    ledger: VecDeque<u64>,
    next_loss: u64,
}

impl Meta {
    /// Opens the state; also tells whether it had to be made anew, because there was none or it was
    /// damaged.
    ///
    /// # Errors
    /// [`MetaError`] when not even a new one can be made.
    pub fn open(folder: &Path) -> Result<(Self, bool), MetaError> {
        let fresh = !folder.join("db").exists();
        let open = || database::open(folder).and_then(|db| database::check_mark(db, fresh));
        let mut opened = open();
        if let Err(sled::Error::Io(error)) = &opened
            && is_full(error)
            && Ballast::of(folder).give()
        {
            opened = open();
        }
        let sled = |source| MetaError::Sled {
            path: folder.into(),
            source,
        };
        match opened {
            Ok(db) => match database::format(&db).map_err(sled)? {
                version if version > FORMAT => Err(MetaError::Newer {
                    path: folder.into(),
                    version,
                }),
                _ => Self::start(db, folder, fresh),
            },
            // A full disk is no damage.
            Err(sled::Error::Io(error)) if is_full(&error) => Err(sled(sled::Error::Io(error))),
            Err(sled::Error::Io(source)) if source.to_string().contains("acquire lock") => {
                Err(MetaError::Locked {
                    path: folder.into(),
                })
            }
            Err(error) => {
                let path = folder.display();
                tracing::error!(%error, %path, "the spool's state is damaged; it is put aside");
                database::put_aside(folder).map_err(|source| MetaError::Io {
                    path: folder.into(),
                    source,
                })?;
                let db = database::open(folder).map_err(sled)?;
                Self::start(db, folder, true)
            }
        }
    }

    fn start(db: sled::Db, folder: &Path, fresh: bool) -> Result<(Self, bool), MetaError> {
        let io_error = |source| MetaError::Io {
            path: folder.into(),
            source,
        };
        let file = File::open(folder.join("db")).map_err(io_error)?;
        let mut meta = Self {
            folder: folder.into(),
            db: Some(db),
            file,
            ballast: Ballast::of(folder),
            identities: BTreeMap::new(),
            ledger: VecDeque::new(),
            next_loss: 0,
        };
        if fresh && let Some(db) = &meta.db {
            database::attend(db, |db| flush(db, &meta.file)).map_err(io_error)?;
            File::open(folder)
                .and_then(|dir| dir.sync_all())
                .map_err(io_error)?;
        }
        meta.identities = meta.load().identities.into_iter().collect();
        let keys = meta
            .db
            .iter()
            .flat_map(|db| db.scan_prefix("loss/").keys().flatten());
        meta.ledger = keys.filter_map(|key| numbers(&key).next()).collect();
        meta.next_loss = meta.ledger.back().map_or(0, |last| last + 1);
        Ok((meta, fresh))
    }

    /// Everything but the ledger. What cannot be understood is passed over.
    #[must_use]
    pub fn load(&self) -> Stored {
        let mut stored = Stored::default();
        let mut odd = 0u32;
        for (key, value) in self.db.iter().flat_map(|db| db.iter().flatten()) {
            let value = serde_json::from_slice(&value).unwrap_or(Value::Null);
            if read(&mut stored, &key, value).is_none() {
                odd += 1;
            }
        }
        if odd > 0 {
            tracing::warn!(
                odd,
                "entries of the spool's state make no sense and are passed over"
            );
        }
        stored
    }

    /// Stores changes, all or none; with `sync` they are on disk when this returns.
    ///
    /// # Errors
    /// The disk's; the changes may or may not be there after the next start.
    pub fn apply(&mut self, batch: &MetaBatch, sync: bool) -> io::Result<()> {
        let mut result = self.try_apply(batch, sync);
        if result.as_ref().is_err_and(is_full) && self.ballast.give() {
            result = self.try_apply(batch, sync);
        }
        if result.is_ok() {
            self.ballast.take();
        }
        result
    }

    fn try_apply(&mut self, batch: &MetaBatch, sync: bool) -> io::Result<()> {
        let result = self.change(batch, sync);
        if result.is_err()
            && let Some(db) = self.db.take()
        {
            database::close(db);
        }
        result
    }

    fn change(&mut self, batch: &MetaBatch, sync: bool) -> io::Result<()> {
        if self.db.is_none() {
            self.db = Some(database::open(&self.folder)?);
            self.file = File::open(self.folder.join("db"))?;
        }
        let Some(db) = &self.db else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let lines = self.ledger.len() + batch.losses.len();
        let surplus = lines.saturating_sub(LEDGER_MAX).min(self.ledger.len());
        let (next, all) = self.changes(db, batch, surplus)?;
        let identities = (!batch.identities.is_empty()).then(|| {
            let mut identities = self.identities.clone();
            identities.extend(batch.identities.iter().cloned());
            let old = surplus_runs(&mut identities);
            (identities, old)
        });
        let old = identities.iter().flat_map(|(_, old)| old);
        database::attend(db, |db| {
            move_cursors(db, &batch.cursors)?;
            db.apply_batch(all)?;
            for run in old {
                db.remove(format!("run/{:010}", run.0))?;
            }
            if sync { flush(db, &self.file) } else { Ok(()) }
        })?;
        if let Some((identities, _)) = identities {
            self.identities = identities;
        }
        self.ledger.drain(..surplus);
        self.ledger.extend(self.next_loss..next);
        self.next_loss = next;
        Ok(())
    }

    /// What a batch changes in sled, and the number behind the ledger's last line then; so many of
    /// its oldest lines go.
    fn changes(
        &self,
        db: &sled::Db,
        batch: &MetaBatch,
        surplus: usize,
    ) -> io::Result<(u64, sled::Batch)> {
        let mut all = batch.sled.clone();
        let mut next = self.next_loss;
        for loss in &batch.losses {
            all.insert(
                format!("loss/{next:020}").as_str(),
                serde_json::to_vec(loss)?,
            );
            next += 1;
        }
        for (stream, run, end) in &batch.passed {
            let (first, end) = (drop_key(*stream, *run, 0), drop_key(*stream, *run, *end));
            for key in db.range(first.as_str()..end.as_str()).keys() {
                all.remove(key?);
            }
        }
        for oldest in self.ledger.range(..surplus) {
            all.remove(format!("loss/{oldest:020}").as_str());
        }
        Ok((next, all))
    }

    /// Runs that have an identity, ascending.
    #[must_use]
    pub fn identities(&self) -> Vec<(Run, Identity)> {
        self.identities
            .iter()
            .map(|(run, identity)| (*run, identity.clone()))
            .collect()
    }

    /// Stores that a run has begun, synced.
    ///
    /// # Errors
    /// The disk's.
    pub fn put_run(&mut self, run: Run, at_ms: i64) -> io::Result<()> {
        let mut batch = MetaBatch::default();
        batch.put(
            &format!("run/{:010}", run.0),
            &json!({ "started_ms": at_ms }),
        );
        self.apply(&batch, true)
    }

    /// Stores by what a run's times can be put right, and forgets runs that are gone, synced.
    ///
    /// # Errors
    /// The disk's.
    pub fn put_anchors(&mut self, gone: &[Run], new: Option<(Run, Anchor)>) -> io::Result<()> {
        let mut batch = MetaBatch::default();
        for run in gone {
            batch.changes += 1;
            batch.sled.remove(format!("clock/{:010}", run.0).as_str());
        }
        if let Some((run, anchor)) = new {
            batch.put(&format!("clock/{:010}", run.0), &json!(anchor));
        }
        self.apply(&batch, true)
    }

    /// The newest lines of the ledger, oldest first, at most `at_most`.
    #[must_use]
    pub fn ledger(&self, at_most: usize) -> Vec<Loss> {
        let lines = self
            .db
            .iter()
            .flat_map(|db| db.scan_prefix("loss/").values().rev().flatten());
        let lines = lines.take(at_most);
        let mut lines: Vec<Loss> = lines
            .filter_map(|line| serde_json::from_slice(&line).ok())
            .collect();
        lines.reverse();
        lines
    }
}

impl std::ops::Drop for Meta {
    fn drop(&mut self) {
        if let Some(db) = self.db.take() {
            database::close(db);
        }
    }
}

/// Stores cursors one by one, each whole in itself, and before what they allow to forget. In one
/// batch sled keeps a copy of a node for each change until long after: with thousands of streams,
/// once a second, that is memory without end (crossbeam-epoch 0.9 collects after 128 pins).
fn move_cursors(db: &sled::Db, cursors: &[(String, String)]) -> sled::Result<()> {
    for (key, value) in cursors {
        if db.get(key)?.as_deref() != Some(value.as_bytes()) {
            db.insert(key, value.as_bytes())?;
        }
    }
    Ok(())
}

/// sled's own flush is no fsync.
fn flush(db: &sled::Db, file: &File) -> io::Result<()> {
    db.flush()?;
    file.sync_data()
}

/// Takes old runs out, but for the newest of each producer id, which tells the next epoch; gives
/// them.
fn surplus_runs(identities: &mut BTreeMap<Run, Identity>) -> Vec<Run> {
    let mut old = Vec::new();
    while identities.len() > RUNS_MAX {
        let newest: BTreeMap<i64, Run> = identities
            .iter()
            .map(|(run, id)| (id.producer_id, *run))
            .collect();
        let oldest = identities
            .keys()
            .find(|run| !newest.values().any(|n| n == *run));
        let Some(oldest) = oldest.copied() else { break };
        identities.remove(&oldest);
        old.push(oldest);
    }
    old
}
