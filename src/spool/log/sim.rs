//! A simulated disk: keeps apart what was written and what is durable, crashes, fails and flips
//! bits by a seed.
//!
//! At a crash each 512-byte sector of each write that was not synced survives or not, by itself; so
//! do names that were made or removed and not synced, and a file's new length. After a failed sync
//! some of its writes are durable and the others stay in the cache alone, though the next sync
//! succeeds, as on Linux.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{io, thread};

use parking_lot::Mutex;

use super::store::{Store, StoreFile};

const SECTOR: usize = 512;

/// A small generator (xorshift64*), so that a seed is all there is to know.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    /// Below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Debug, Default)]
struct Inode {
    cache: Vec<u8>,
    durable: Vec<u8>,
    /// Offset and bytes of writes that are not synced.
    pending: Vec<(usize, Vec<u8>)>,
}

/// What a planned failure hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fail {
    Eio,
    NoSpace,
    /// The power goes: this call and all later ones fail, until [`SimStore::crash`].
    Power,
}

impl Fail {
    fn error(self) -> io::Error {
        match self {
            Fail::Eio | Fail::Power => io::Error::from_raw_os_error(5),
            Fail::NoSpace => io::Error::from_raw_os_error(28),
        }
    }
}

#[derive(Debug)]
struct Disk {
    rng: Rng,
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    free_bytes: u64,
    reads: u64,
    read_bytes: u64,
    /// Writes, syncs, creations and removals so far.
    calls: u64,
    fail_at: Option<(u64, Fail)>,
    failed: u64,
    dead: bool,
    /// Cannot be opened, so many times more.
    unreadable: Option<(String, u32)>,
}

/// The disk.
#[derive(Clone, Debug)]
pub(crate) struct SimStore(Arc<Mutex<Disk>>);

impl SimStore {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            rng: Rng::new(seed),
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            free_bytes: 1 << 40,
            reads: 0,
            read_bytes: 0,
            calls: 0,
            fail_at: None,
            failed: 0,
            dead: false,
            unreadable: None,
        })))
    }

    /// The power goes off and on.
    pub fn crash(&self) {
        let disk = &mut *self.0.lock();
        (disk.dead, disk.fail_at) = (false, None);
        // None, all, or some of what was not synced.
        let mood = disk.rng.below(4);
        let rng = &mut disk.rng;
        let mut keep = || match mood {
            0 => false,
            1 => true,
            _ => rng.one_in(2),
        };
        for inode in &mut disk.inodes {
            for (at, bytes) in std::mem::take(&mut inode.pending) {
                for (i, sector) in bytes.chunks(SECTOR).enumerate() {
                    if keep() {
                        put(&mut inode.durable, at + i * SECTOR, sector);
                    }
                }
            }
            inode.cache = inode.durable.clone();
        }
        let mut all: Vec<String> = disk.names.keys().cloned().collect();
        all.extend(disk.durable_names.keys().cloned());
        all.sort();
        all.dedup();
        for name in all {
            let (now, then) = (disk.names.get(&name), disk.durable_names.get(&name));
            if now != then && keep() {
                match now.copied() {
                    Some(inode) => disk.durable_names.insert(name, inode),
                    None => disk.durable_names.remove(&name),
                };
            }
        }
        disk.names = disk.durable_names.clone();
    }

    /// The `n`th call from now that changes the disk fails (0: the next).
    pub fn fail_in(&self, n: u64, how: Fail) {
        let mut disk = self.0.lock();
        disk.fail_at = Some((disk.calls + n, how));
    }

    /// The next `times` tries to open a file fail.
    pub fn hide(&self, name: &str, times: u32) {
        self.0.lock().unreadable = Some((name.to_owned(), times));
    }

    pub fn no_failure(&self) {
        self.0.lock().fail_at = None;
    }

    pub fn failed(&self) -> u64 {
        self.0.lock().failed
    }

    pub fn set_free_bytes(&self, bytes: u64) {
        self.0.lock().free_bytes = bytes;
    }

    /// Reads and bytes read since the last time.
    pub fn take_reads(&self) -> (u64, u64) {
        let mut disk = self.0.lock();
        (
            std::mem::take(&mut disk.reads),
            std::mem::take(&mut disk.read_bytes),
        )
    }

    /// Names and lengths of the files.
    pub fn files(&self) -> Vec<(String, usize)> {
        let disk = self.0.lock();
        let length = |inode: &usize| disk.inodes[*inode].cache.len();
        disk.names
            .iter()
            .map(|(name, inode)| (name.clone(), length(inode)))
            .collect()
    }

    /// Another disk with the same files.
    pub fn copy(&self) -> Self {
        let other = Self::new(1);
        {
            let (disk, mut to) = (self.0.lock(), other.0.lock());
            for (name, inode) in &disk.names {
                let bytes = disk.inodes[*inode].cache.clone();
                let at = to.inodes.len();
                to.inodes.push(Inode {
                    cache: bytes.clone(),
                    durable: bytes,
                    pending: Vec::new(),
                });
                to.names.insert(name.clone(), at);
                to.durable_names.insert(name.clone(), at);
            }
        }
        other
    }

    /// Makes a copy of a file behind everybody's back, durably.
    pub fn duplicate(&self, name: &str, to: &str) {
        let mut disk = self.0.lock();
        let bytes = disk.inodes[disk.names[name]].cache.clone();
        let at = disk.inodes.len();
        disk.inodes.push(Inode {
            cache: bytes.clone(),
            durable: bytes,
            pending: Vec::new(),
        });
        disk.names.insert(to.to_owned(), at);
        disk.durable_names.insert(to.to_owned(), at);
    }

    /// Changes bytes behind everybody's back, durably.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.0.lock();
        let inode = disk.names[name];
        let inode = &mut disk.inodes[inode];
        change(&mut inode.cache);
        inode.durable = inode.cache.clone();
        inode.pending.clear();
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    if bytes.len() < at + new.len() {
        let mut more = vec![0; at + new.len() - bytes.len()];
        bytes.append(&mut more);
    }
    bytes[at..at + new.len()].copy_from_slice(new);
}

impl Disk {
    /// Counts a call and fails it if it is planned to.
    fn call(&mut self) -> Result<(), Fail> {
        let now = self.calls;
        self.calls += 1;
        match self.fail_at {
            _ if self.dead => Err(Fail::Power),
            Some((at, how)) if at == now => {
                self.failed += 1;
                self.dead = how == Fail::Power;
                self.fail_at = None;
                Err(how)
            }
            _ => Ok(()),
        }
    }
}

impl Store for SimStore {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        let mut disk = self.0.lock();
        disk.call().map_err(Fail::error)?;
        if disk.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = disk.inodes.len();
        disk.inodes.push(Inode::default());
        disk.names.insert(name.to_owned(), inode);
        drop(disk);
        Ok(Arc::new(SimFile(self.clone(), inode)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        let mut disk = self.0.lock();
        if let Some((hidden, times)) = &mut disk.unreadable
            && hidden == name
            && *times > 0
        {
            *times -= 1;
            return Err(Fail::Eio.error());
        }
        let inode = disk.names.get(name).copied();
        drop(disk);
        let inode = inode.ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile(self.clone(), inode)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.call().map_err(Fail::error)?;
        let inode = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.call().map_err(Fail::error)?;
        disk.names
            .remove(name)
            .map(|_| ())
            .ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.call().map_err(Fail::error)?;
        disk.durable_names = disk.names.clone();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let disk = self.0.lock();
        let used: usize = disk
            .names
            .values()
            .map(|inode| disk.inodes[*inode].cache.len())
            .sum();
        Ok(disk.free_bytes.saturating_sub(used as u64))
    }

    fn path(&self, name: &str) -> String {
        name.to_owned()
    }
}

#[derive(Debug)]
struct SimFile(SimStore, usize);

impl StoreFile for SimFile {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.0.0.lock();
        let there = disk.inodes[self.1].cache.get(at as usize..).unwrap_or(&[]);
        let length = there.len().min(buffer.len());
        buffer[..length].copy_from_slice(&there[..length]);
        disk.reads += 1;
        disk.read_bytes += length as u64;
        Ok(length)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.0.0.lock();
        let died = disk.dead;
        let called = disk.call();
        if died {
            return called.map_err(Fail::error);
        }
        // A failed write leaves a part.
        let part = if called == Err(Fail::Eio) || called == Err(Fail::NoSpace) {
            disk.rng.below(bytes.len() as u64 + 1) as usize
        } else {
            bytes.len()
        };
        let inode = &mut disk.inodes[self.1];
        put(&mut inode.cache, at as usize, &bytes[..part]);
        inode.pending.push((at as usize, bytes[..part].to_vec()));
        called.map_err(Fail::error)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.0.0.lock();
        let called = disk.call();
        let Disk { rng, inodes, .. } = &mut *disk;
        let inode = &mut inodes[self.1];
        if called == Err(Fail::Power) {
            return called.map_err(Fail::error);
        }
        for (at, bytes) in std::mem::take(&mut inode.pending) {
            if called.is_ok() || rng.one_in(2) {
                put(&mut inode.durable, at, &bytes);
            }
        }
        called.map_err(Fail::error)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.0.lock().inodes[self.1].cache.len() as u64)
    }
}

/// Runs a life for each seed, on all cores, and gives what each core counted; a seed that fails is
/// named. The variable holds how many (`20000`) or which (`700..800`); `usual` without it.
pub(crate) fn each_seed<T: Default + Send>(
    variable: &str,
    usual: u64,
    life: impl Fn(u64, &mut T) + Sync,
) -> (Range<u64>, Vec<T>) {
    let wanted = std::env::var(variable).ok();
    let seeds = wanted.map_or(0..usual, |wanted| {
        let (first, end) = wanted.split_once("..").unwrap_or(("0", &wanted));
        first.parse().unwrap()..end.parse().unwrap()
    });
    let (next, last) = (AtomicU64::new(seeds.start), seeds.end);
    let work = || {
        let mut counts = T::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= last {
                return counts;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| life(seed, &mut counts))) {
                next.store(last, Ordering::Relaxed);
                eprintln!("{variable}={seed}..{} failed", seed + 1);
                resume_unwind(panic);
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let counts = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let done = threads.into_iter().map(thread::ScopedJoinHandle::join);
        done.map(|counts| counts.unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    (seeds, counts)
}
