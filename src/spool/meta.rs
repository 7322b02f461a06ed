//! What moves and what points at the records, kept in sled: runs and their identities, cursors,
//! partition counts, what Kafka's sequences must know, and the loss ledger.
//!
//! ```text
//! run/RUN                 when it began; under which identity it sends
//! stream/ID               topic, partition
//! count/TOPIC             partition count
//! cursor/ID               run, number, offset
//! base/ID/RUN             number with sequence 0, run that sends
//! drop/ID/RUN/FIRST       number behind the last; whether Kafka's fate of it is known
//! loss/NUMBER             a line of the ledger
//! ```
//! Numbers in keys have leading zeros, so that sled's order is theirs; values are JSON.
//!
//! sled's `flush` is no fsync on Linux (LIBRARIES.md 5.1), so [`Meta::apply`] syncs sled's file
//! itself. Nothing here is what a PUBACK depends on: a folder that cannot be opened is put aside
//! and made anew.

mod ledger;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Identity, Run, StreamId, TopicPartition};

/// sled's page cache. Its default is 1 GiB.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// Key that every state of ours has.
const MARK: &str = "mark/tidegate";
/// Lines of the ledger that are kept.
const LEDGER_MAX: usize = 100_000;
/// Damaged folders that are kept for a look.
const ASIDE_MAX: u32 = 2;
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

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Run of `next`.
    pub run: Run,
    /// First number that is not confirmed.
    pub next: u64,
    /// Kafka offset behind the last confirmed record.
    pub offset: Option<i64>,
}

/// Under which run a stream's records are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The stream.
    pub stream: StreamId,
    /// Run that numbers the records.
    pub run: Run,
    /// Number with sequence 0; below zero when records of an older run go before.
    pub zero: i64,
    /// Run whose identity sends them.
    pub sent_as: Run,
}

/// Numbers that take no Kafka sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop {
    /// The stream.
    pub stream: StreamId,
    /// Run of the numbers.
    pub run: Run,
    /// First number.
    pub first: u64,
    /// Number behind the last.
    pub end: u64,
    /// `false`: they belong to a run of which Kafka had not been asked yet.
    pub fate_known: bool,
}

/// All that is stored, but the ledger.
#[derive(Debug, Default)]
pub struct Stored {
    /// Greatest run.
    pub newest_run: Option<Run>,
    /// Runs that have an identity.
    pub identities: Vec<(Run, Identity)>,
    /// What the streams are.
    pub streams: Vec<(StreamId, TopicPartition)>,
    /// Partition counts.
    pub partitions: Vec<(Arc<str>, u32)>,
    /// Cursors.
    pub cursors: Vec<(StreamId, Cursor)>,
    /// Bases.
    pub bases: Vec<Base>,
    /// Drops.
    pub drops: Vec<Drop>,
}

/// Changes that are stored all or none.
#[derive(Debug, Default)]
pub struct MetaBatch {
    sled: sled::Batch,
    identities: Vec<(Run, Identity)>,
    losses: Vec<Loss>,
    /// Drops to forget: stream, run, number behind the last.
    passed: Vec<(StreamId, Run, u64)>,
    changes: usize,
}

impl MetaBatch {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    fn put(&mut self, key: &str, value: &Value) {
        self.changes += 1;
        self.sled.insert(key, value.to_string().as_bytes());
    }

    /// Where a stream stands, and what it is.
    pub fn cursor(&mut self, stream: StreamId, to: &TopicPartition, cursor: Cursor) {
        self.put(
            &format!("stream/{:010}", stream.0),
            &json!([&*to.topic, to.partition]),
        );
        self.put(&format!("cursor/{:010}", stream.0), &json!(cursor));
    }

    /// A topic's partition count.
    pub fn partitions(&mut self, topic: &Arc<str>, count: u32) {
        self.put(&format!("count/{topic}"), &json!(count));
    }

    /// A run's identity.
    pub fn identity(&mut self, run: Run, identity: &Identity) {
        self.put(
            &format!("run/{:010}", run.0),
            &json!({ "identity": identity }),
        );
        self.identities.push((run, identity.clone()));
    }

    /// Under which run records are sent.
    pub fn base(&mut self, stream: StreamId, run: Run, zero: i64, sent_as: Run) {
        let key = format!("base/{:010}/{:010}", stream.0, run.0);
        self.put(&key, &json!([zero, sent_as]));
    }

    /// A run has drained.
    pub fn forget_base(&mut self, stream: StreamId, run: Run) {
        self.changes += 1;
        self.sled
            .remove(format!("base/{:010}/{:010}", stream.0, run.0).as_str());
    }

    /// The cursor has passed all drops of a run below `end`; what they did to sequences is in the
    /// run's base.
    pub fn forget_drops(&mut self, stream: StreamId, run: Run, end: u64) {
        self.changes += 1;
        self.passed.push((stream, run, end));
    }

    /// Numbers (first, behind the last) that take no sequence.
    pub fn drop_range(&mut self, stream: StreamId, run: Run, range: (u64, u64), fate_known: bool) {
        self.put(
            &drop_key(stream, run, range.0),
            &json!([range.1, fate_known]),
        );
    }

    /// Kafka stands before `next`: what it has of a range is no drop, what it has not is one for
    /// good.
    pub fn drop_settled(&mut self, stream: StreamId, run: Run, range: (u64, u64), next: u64) {
        self.changes += 1;
        self.sled.remove(drop_key(stream, run, range.0).as_str());
        if range.1 > next {
            self.drop_range(stream, run, (range.0.max(next), range.1), true);
        }
    }

    /// A line of the ledger.
    pub fn loss(&mut self, loss: Loss) {
        self.changes += 1;
        self.losses.push(loss);
    }
}

fn drop_key(stream: StreamId, run: Run, first: u64) -> String {
    format!("drop/{:010}/{:010}/{first:020}", stream.0, run.0)
}

/// The state beside the records.
#[derive(Debug)]
pub struct Meta {
    folder: PathBuf,
    /// `None` between a failure and the next try: sled keeps failing once its disk has.
    db: Option<sled::Db>,
    /// sled's one file, for the sync that sled does not do.
    file: File,
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
        match open_sled(folder).and_then(|db| check_mark(db, fresh)) {
            Ok(db) => Self::start(db, folder, fresh),
            Err(sled::Error::Io(source)) if source.to_string().contains("acquire lock") => {
                Err(MetaError::Locked {
                    path: folder.into(),
                })
            }
            Err(error) => {
                let path = folder.display();
                tracing::error!(%error, %path, "the spool's state is damaged; it is put aside");
                put_aside(folder).map_err(|source| MetaError::Io {
                    path: folder.into(),
                    source,
                })?;
                let db = open_sled(folder).map_err(|source| MetaError::Sled {
                    path: folder.into(),
                    source,
                })?;
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
            identities: BTreeMap::new(),
            ledger: VecDeque::new(),
            next_loss: 0,
        };
        if fresh {
            meta.sync().map_err(io_error)?;
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
        let result = self.try_apply(batch, sync);
        if result.is_err() {
            self.db = None;
        }
        result
    }

    fn try_apply(&mut self, batch: &MetaBatch, sync: bool) -> io::Result<()> {
        if self.db.is_none() {
            self.db = Some(open_sled(&self.folder)?);
            self.file = File::open(self.folder.join("db"))?;
        }
        let Some(db) = &self.db else {
            return Err(io::ErrorKind::NotConnected.into());
        };
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
        let lines = self.ledger.len() + batch.losses.len();
        let surplus = lines.saturating_sub(LEDGER_MAX).min(self.ledger.len());
        for oldest in self.ledger.range(..surplus) {
            all.remove(format!("loss/{oldest:020}").as_str());
        }
        db.apply_batch(all)?;
        self.ledger.drain(..surplus);
        self.ledger.extend(self.next_loss..next);
        self.next_loss = next;
        self.identities.extend(batch.identities.iter().cloned());
        self.forget_runs()?;
        if sync { self.sync() } else { Ok(()) }
    }

    /// Old runs go, but for the newest of each producer id, which tells the next epoch.
    fn forget_runs(&mut self) -> io::Result<()> {
        while self.identities.len() > RUNS_MAX {
            let newest: BTreeMap<i64, Run> = self
                .identities
                .iter()
                .map(|(run, id)| (id.producer_id, *run))
                .collect();
            let oldest = self
                .identities
                .keys()
                .find(|run| !newest.values().any(|n| n == *run))
                .copied();
            let Some(oldest) = oldest else { return Ok(()) };
            self.identities.remove(&oldest);
            if let Some(db) = &self.db {
                db.remove(format!("run/{:010}", oldest.0))?;
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if let Some(db) = &self.db {
            db.flush()?;
        }
        self.file.sync_data()
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

/// The numbers in a key, in order.
fn numbers(key: &[u8]) -> impl Iterator<Item = u64> {
    let text = String::from_utf8_lossy(key).into_owned();
    let parts: Vec<u64> = text
        .split('/')
        .skip(1)
        .filter_map(|part| part.parse().ok())
        .collect();
    parts.into_iter()
}

fn read(stored: &mut Stored, key: &[u8], value: Value) -> Option<()> {
    let text = std::str::from_utf8(key).ok()?;
    let (kind, rest) = text.split_once('/')?;
    let mut ids = numbers(key);
    let mut id = || ids.next().and_then(|n| u32::try_from(n).ok());
    match kind {
        "run" => {
            let run = Run(id()?);
            stored.newest_run = stored.newest_run.max(Some(run));
            if let Some(identity) = value.get("identity") {
                stored
                    .identities
                    .push((run, serde_json::from_value(identity.clone()).ok()?));
            }
        }
        "stream" => {
            let (topic, partition): (String, i32) = serde_json::from_value(value).ok()?;
            stored.streams.push((
                StreamId(id()?),
                TopicPartition {
                    topic: topic.into(),
                    partition,
                },
            ));
        }
        "count" => stored
            .partitions
            .push((rest.into(), serde_json::from_value(value).ok()?)),
        "cursor" => stored
            .cursors
            .push((StreamId(id()?), serde_json::from_value(value).ok()?)),
        "base" => {
            let (stream, run) = (StreamId(id()?), Run(id()?));
            let (zero, sent_as) = serde_json::from_value(value).ok()?;
            stored.bases.push(Base {
                stream,
                run,
                zero,
                sent_as,
            });
        }
        "drop" => {
            let (stream, run) = (StreamId(id()?), Run(id()?));
            let first = ids.next()?;
            let (end, fate_known) = serde_json::from_value(value).ok()?;
            stored.drops.push(Drop {
                stream,
                run,
                first,
                end,
                fate_known,
            });
        }
        "loss" | "mark" => {}
        _ => return None,
    }
    Some(())
}

/// sled panics on some damage; that must not end the gateway.
fn open_sled(folder: &Path) -> sled::Result<sled::Db> {
    let open = || {
        sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::LowSpace)
            .open()
    };
    std::panic::catch_unwind(open).unwrap_or_else(|_| {
        Err(sled::Error::Io(io::Error::other(
            "sled panicked over the folder",
        )))
    })
}

/// sled takes a file of garbage for an empty store: what is not new has our mark.
fn check_mark(db: sled::Db, fresh: bool) -> sled::Result<sled::Db> {
    if fresh {
        db.insert(MARK, &[1])?;
    } else if db.get(MARK)?.is_none() {
        return Err(sled::Error::Io(io::Error::other(
            "the state has lost its mark",
        )));
    }
    Ok(db)
}

fn put_aside(folder: &Path) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(epoch: i16) -> Identity {
        Identity {
            producer_id: 7,
            epoch,
            cluster_id: "c".into(),
            device: "d".into(),
        }
    }

    #[test]
    fn what_was_applied_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meta");
        let (mut meta, fresh) = Meta::open(&path).unwrap();
        assert!(fresh);
        let to = TopicPartition {
            topic: "a/b".into(),
            partition: 3,
        };
        let cursor = Cursor {
            run: Run(2),
            next: 9,
            offset: Some(40),
        };
        let loss = Loss {
            topic: "t".into(),
            partition: 0,
            run: Run(2),
            first: 1,
            end: 4,
            reason: Reason::Expired,
            at_ms: 5,
        };
        let mut batch = MetaBatch::default();
        batch.cursor(StreamId(1), &to, cursor);
        batch.partitions(&"a/b".into(), 6);
        batch.identity(Run(3), &identity(4));
        batch.base(StreamId(1), Run(2), -5, Run(3));
        batch.drop_range(StreamId(1), Run(2), (10, 20), false);
        batch.drop_settled(StreamId(1), Run(2), (10, 20), 15);
        batch.loss(loss.clone());
        meta.apply(&batch, true).unwrap();
        drop(meta);
        let (meta, fresh) = Meta::open(&path).unwrap();
        assert!(!fresh);
        let stored = meta.load();
        assert_eq!(stored.newest_run, Some(Run(3)));
        assert_eq!(stored.cursors, [(StreamId(1), cursor)]);
        assert_eq!(stored.streams, [(StreamId(1), to)]);
        assert_eq!(stored.partitions, [("a/b".into(), 6)]);
        let base = Base {
            stream: StreamId(1),
            run: Run(2),
            zero: -5,
            sent_as: Run(3),
        };
        assert_eq!(stored.bases, [base]);
        let drop = Drop {
            stream: StreamId(1),
            run: Run(2),
            first: 15,
            end: 20,
            fate_known: true,
        };
        assert_eq!(stored.drops, [drop]);
        assert_eq!(meta.identities(), [(Run(3), identity(4))]);
        assert_eq!(meta.ledger(10), [loss]);
    }

    #[test]
    fn a_damaged_folder_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meta");
        drop(Meta::open(&path).unwrap());
        std::fs::write(path.join("conf"), b"garbage").unwrap();
        std::fs::write(path.join("db"), vec![0x5a; 100_000]).unwrap();
        let (meta, fresh) = Meta::open(&path).unwrap();
        assert!(fresh && meta.load().newest_run.is_none());
        assert!(folder.path().join("meta.damaged-1").exists());
    }
}
