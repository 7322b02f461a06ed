//! Segment files: which there are, which are free, how new ones are made; and the table of live
//! segments that writer and readers share.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::index::{Index, IndexRead};
use super::scan::{Ident, Region};
use super::{AppendError, LogConfig, SegmentId, Span, Store, StoreFile};

/// What the name of a file ends with until it is full of zeros and synced.
pub(super) const UNFINISHED: &str = ".new";

/// A segment that is in use.
#[derive(Debug)]
pub(super) struct Segment {
    pub ident: Ident,
    pub name: String,
    pub file: Arc<dyn StoreFile>,
    pub length: u64,
    /// Where frames begin.
    pub start: u64,
    /// The first frame's number.
    pub first_number: u64,
    /// The byte behind the last synced frame. Readers go no further.
    committed: AtomicU64,
    /// That frame's serial, or the head's.
    serial: AtomicU64,
    /// The head's serial, 0 for none.
    head: u64,
    freed: AtomicBool,
    /// What it holds, while it is not written at the segment's end.
    pub index: Mutex<Option<Box<Index>>>,
}

impl Segment {
    pub fn new(ident: Ident, file: FreeFile, index: Box<Index>, sealed: bool) -> Self {
        Self {
            ident,
            name: file.name,
            file: file.file,
            length: file.length,
            start: index.frames_start,
            first_number: index.first_number,
            committed: AtomicU64::new(index.frames_end),
            serial: AtomicU64::new(file.serial),
            head: file.head,
            freed: AtomicBool::new(false),
            index: Mutex::new((!sealed).then_some(index)),
        }
    }

    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// A frame that ends there is synced.
    pub fn commit(&self, end: u64, serial: u64) {
        self.serial.store(serial, Ordering::Relaxed);
        self.committed.store(end, Ordering::Release);
    }

    /// Its file, free.
    pub fn free_file(&self) -> FreeFile {
        FreeFile {
            name: self.name.clone(),
            file: self.file.clone(),
            length: self.length,
            generation: self.ident.generation,
            serial: self.serial.load(Ordering::Relaxed),
            head: self.head,
        }
    }

    pub fn is_freed(&self) -> bool {
        self.freed.load(Ordering::Acquire)
    }

    /// The committed part.
    pub fn region(&self) -> Region<'_> {
        Region {
            file: self.file.as_ref(),
            ident: self.ident,
            limit: self.committed(),
        }
    }

    /// What it holds; from the disk if it is sealed. Empty if that is damaged.
    pub fn spans(&self) -> Vec<Span> {
        if let Some(index) = self.index.lock().as_ref() {
            return index.spans();
        }
        match read_index(self.file.as_ref(), self.length) {
            IndexRead::Good(generation, index) if generation == self.ident.generation => {
                index.spans()
            }
            _ => Vec::new(),
        }
    }
}

/// Reads the index at a file's end.
pub(super) fn read_index(file: &dyn StoreFile, length: u64) -> IndexRead {
    let mut wanted = 4096usize;
    for _ in 0..2 {
        let Some(at) = length.checked_sub(wanted as u64) else {
            return IndexRead::Bad;
        };
        let mut end = vec![0; wanted];
        if !file.read_at(at, &mut end).is_ok_and(|read| read == wanted) {
            return IndexRead::Bad;
        }
        match Index::read(&end) {
            IndexRead::Short(more) => wanted = more,
            // A search through frames goes as far as the index says that they go.
            IndexRead::Good(_, index)
                if index.frames_start > index.frames_end || index.frames_end > length =>
            {
                return IndexRead::Bad;
            }
            other => return other,
        }
    }
    IndexRead::Bad
}

/// Live segments by generation.
#[derive(Debug, Default)]
pub(super) struct Table(RwLock<HashMap<SegmentId, Arc<Segment>>>);

impl Table {
    pub fn get(&self, id: SegmentId) -> Option<Arc<Segment>> {
        self.0.read().get(&id).cloned()
    }

    pub fn insert(&self, segment: Arc<Segment>) {
        let id = SegmentId(segment.ident.generation);
        self.0.write().insert(id, segment);
    }

    /// Takes a segment out; readers that are in it will notice.
    pub fn remove(&self, id: SegmentId) -> Option<Arc<Segment>> {
        let segment = self.0.write().remove(&id)?;
        segment.freed.store(true, Ordering::Release);
        Some(segment)
    }

    pub fn bytes(&self) -> u64 {
        self.0.read().values().map(|segment| segment.length).sum()
    }
}

/// A file that holds nothing needed.
#[derive(Clone, Debug)]
pub(super) struct FreeFile {
    pub name: String,
    pub file: Arc<dyn StoreFile>,
    pub length: u64,
    /// Of the segment it held, 0 for none.
    pub generation: u64,
    /// Of the last frame or head in it, 0 for none.
    pub serial: u64,
    /// Of its head, 0 for none.
    pub head: u64,
}

/// Files that are free, and the making of new ones.
#[derive(Debug)]
pub(super) struct Files {
    pub store: Arc<dyn Store>,
    pub config: LogConfig,
    pub free: Vec<FreeFile>,
    /// Bytes of files that are left alone: of a newer version, or unreadable.
    pub alien_bytes: u64,
    pub next_name: u64,
    /// Serial of the newest head that was synced. What was said since stands in no head.
    pub newest_head: u64,
}

impl Files {
    /// A file for the next segment; after it `keep` more must be there or possible. `live` is what
    /// segments take. Those that say something that no other file does come last, and the one with
    /// the newest head the very last.
    pub fn obtain(&mut self, live: u64, keep: usize) -> Result<FreeFile, AppendError> {
        let size = self.config.segment_bytes;
        let fits = |file: &FreeFile| file.length == size;
        let spare = self.spares() > keep;
        let oldest = |files: &Self, even_needed: bool| {
            let usable = files
                .free
                .iter()
                .enumerate()
                .filter(|(_, file)| fits(file) && (even_needed || !files.is_needed(file)));
            usable
                .min_by_key(|(_, file)| (file.head == files.newest_head, file.generation))
                .map(|(at, _)| at)
        };
        if let Some(at) = oldest(self, false).filter(|_| spare) {
            return Ok(self.free.swap_remove(at));
        }
        // Free files of another size only take room.
        let odd: Vec<FreeFile> = self
            .free
            .extract_if(.., |file| file.length != size)
            .collect();
        for file in odd {
            self.discard(file);
        }
        let wanted = (1 + keep).saturating_sub(self.spares()).max(1);
        if self.can_create(live, wanted) {
            match self.create() {
                Ok(file) => return Ok(file),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
                Err(error) => return Err(error.into()),
            }
        }
        oldest(self, true)
            .filter(|_| spare)
            .map(|at| self.free.swap_remove(at))
            .ok_or_else(|| self.full(live))
    }

    /// Whether a file says something since the newest head was written, or is that head's.
    fn is_needed(&self, file: &FreeFile) -> bool {
        file.serial > 0 && file.serial >= self.newest_head
    }

    /// Bytes of all files.
    pub fn total(&self, live: u64) -> u64 {
        live + self.alien_bytes + self.free.iter().map(|file| file.length).sum::<u64>()
    }

    /// Free files that a segment can take.
    pub fn spares(&self) -> usize {
        let size = self.config.segment_bytes;
        let fits = self.free.iter().filter(|file| file.length == size);
        fits.count()
    }

    /// Whether both bounds allow so many files more.
    pub fn can_create(&self, live: u64, count: usize) -> bool {
        let bytes = (count as u64).saturating_mul(self.config.segment_bytes);
        let disk = || self.store.free_bytes().unwrap_or(0);
        self.total(live).saturating_add(bytes) <= self.config.max_bytes
            && disk() >= self.config.min_free_bytes.saturating_add(bytes)
    }

    /// Fails unless so many files are free or possible.
    pub fn check_left(&self, live: u64, count: usize) -> Result<(), AppendError> {
        let missing = count.saturating_sub(self.spares());
        if missing == 0 || self.can_create(live, missing) {
            return Ok(());
        }
        Err(self.full(live))
    }

    fn full(&self, live: u64) -> AppendError {
        AppendError::Full {
            used: live + self.alien_bytes,
            max: self.config.max_bytes,
        }
    }

    /// Makes a file full of zeros, durable with its name. It has its name when it is whole and
    /// synced, not before: a segment that is too short was cut by somebody else.
    pub fn create(&mut self) -> io::Result<FreeFile> {
        let name = format!("{:08}.seg", self.next_name);
        let unfinished = format!("{:08}{UNFINISHED}", self.next_name);
        self.next_name += 1;
        let made = self.fill(&unfinished, &name);
        // Whichever name it had; what stays is found at the next start.
        if made.is_err()
            && self.store.remove(&unfinished).is_err()
            && self.store.remove(&name).is_err()
        {
            tracing::debug!(name, "an unfinished segment file stays");
        }
        Ok(FreeFile {
            name,
            file: made?,
            length: self.config.segment_bytes,
            generation: 0,
            serial: 0,
            head: 0,
        })
    }

    fn fill(&self, unfinished: &str, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        const CHUNK: u64 = 256 << 10;
        let file = self.store.create(unfinished)?;
        let zeros = vec![0; usize::try_from(CHUNK).unwrap_or(0)];
        let size = self.config.segment_bytes;
        let mut at = 0;
        while at < size {
            let length = usize::try_from(CHUNK.min(size - at)).unwrap_or(0);
            file.write_at(at, zeros.get(..length).unwrap_or(&zeros))?;
            at += length as u64;
        }
        file.sync_data()?;
        // Else 256 KiB of zeros stay in one piece in memory, and each frame of 4 KiB counts as a
        // write of all of it in `write_bytes` of `/proc/PID/io`.
        file.forget();
        self.store.rename(unfinished, name)?;
        self.store.sync_dir()?;
        Ok(file)
    }

    /// Removes what a power cut has left of a file that was being made.
    pub fn clear_unfinished(&self, name: &str) {
        if let Err(error) = self.store.remove(name) {
            tracing::warn!(%error, "an unfinished segment file cannot be removed");
        }
    }

    /// Keeps a file for reuse, or removes it when a quarter of the bound is kept already. Zeros are
    /// written once a file, so files are kept rather than made again.
    pub fn release(&mut self, file: FreeFile) {
        let kept: u64 = self.free.iter().map(|file| file.length).sum();
        let few = (self.config.max_bytes / 4).max(4 * self.config.segment_bytes);
        let keep = kept + file.length <= few || self.is_needed(&file);
        if keep && file.length == self.config.segment_bytes {
            self.free.push(file);
        } else {
            self.discard(file);
        }
    }

    fn discard(&mut self, file: FreeFile) {
        if let Err(error) = self.store.remove(&file.name) {
            tracing::warn!(%error, "a free segment file cannot be removed");
            self.free.push(file);
        }
    }
}
