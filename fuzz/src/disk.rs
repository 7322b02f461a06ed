//! A folder of segment files in memory, and how a small input stands for one.
//!
//! input: flags u8 (1: checksums stay as they are) | chunks
//! chunk: file u8 | place u16le, in units of 8 bytes | length u16le | bytes
//!
//! All else is zeros. Unless the flags say no, the checksums of heads, frames and indexes are made
//! right again, or the fuzzer would never get past them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tidegate::spool::log::{SEGMENT_BYTES_MIN, Store, StoreFile};

/// Files of an input.
const FILES: u8 = 4;
/// Bytes of each.
const FILE_BYTES: usize = SEGMENT_BYTES_MIN as usize;
const UNIT: usize = 8;
/// Units of a run that [`Folder::write`] keeps.
const RUN_UNITS_MAX: usize = 256;
const SEGMENT_MAGIC: &[u8] = b"TGSEGMNT";
const FRAME_MAGIC: &[u8] = b"TGFG";
const FOOTER_MAGIC: &[u8] = b"TGIF";

/// A file.
#[derive(Debug, Default)]
pub struct File(Mutex<Vec<u8>>);

/// A folder; its clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Folder(Arc<Mutex<BTreeMap<String, Arc<File>>>>);

impl Folder {
    /// The folder that an input stands for.
    #[must_use]
    pub fn read(input: &[u8]) -> Self {
        let (flags, mut rest) = input.split_first().unwrap_or((&0, &[]));
        let mut files: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        while let [file, low, high, l, h, bytes @ ..] = rest {
            let file = files
                .entry(file % FILES)
                .or_insert_with(|| vec![0; FILE_BYTES]);
            let at = usize::from(u16::from_le_bytes([*low, *high])) * UNIT % FILE_BYTES;
            let length = usize::from(u16::from_le_bytes([*l, *h])).min(bytes.len());
            let fits = length.min(FILE_BYTES - at);
            file[at..at + fits].copy_from_slice(&bytes[..fits]);
            rest = &bytes[length..];
        }
        let folder = Self::default();
        for (number, mut bytes) in files {
            if flags & 1 == 0 {
                seal(&mut bytes);
            }
            let file = Arc::new(File(Mutex::new(bytes)));
            folder
                .0
                .lock()
                .insert(format!("{:08}.seg", number + 1), file);
        }
        folder
    }

    /// The input that stands for this folder: its first files, and of long runs of bytes, which are
    /// noise, the beginning.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut input = vec![0];
        for (number, file) in (0..FILES).zip(self.0.lock().values()) {
            let bytes = file.0.lock();
            let units: Vec<&[u8]> = bytes.chunks(UNIT).collect();
            let mut at = 0;
            while at < units.len() {
                let is_data = |unit: &&&[u8]| unit.iter().any(|byte| *byte != 0);
                let run = units[at..].iter().take_while(is_data).count();
                if run > 0 {
                    let kept = run.min(RUN_UNITS_MAX);
                    let length = u16::try_from(kept * UNIT).expect("less than a file");
                    input.push(number);
                    input.extend_from_slice(&u16::try_from(at).expect("less").to_le_bytes());
                    input.extend_from_slice(&length.to_le_bytes());
                    input.extend(units[at..at + kept].iter().copied().flatten());
                }
                at += run + 1;
            }
        }
        input
    }
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

/// The checksum of `parts`, put at `at`.
fn sum(bytes: &mut [u8], parts: [std::ops::Range<usize>; 2], at: usize) -> Option<()> {
    let mut sum = 0;
    for part in parts {
        sum = crc32c::crc32c_append(sum, bytes.get(part)?);
    }
    bytes
        .get_mut(at..)?
        .first_chunk_mut::<4>()?
        .copy_from_slice(&sum.to_le_bytes());
    Some(())
}

/// Makes the checksums right, by the layout at the top of `src/spool/log/mod.rs`. What is cut short
/// stays as it is.
fn seal(bytes: &mut [u8]) {
    if bytes.starts_with(SEGMENT_MAGIC) {
        let packed = number(bytes, 72).unwrap_or(0);
        sum(bytes, [0..80, 84..packed.saturating_add(84)], 80);
    }
    for at in (0..bytes.len()).step_by(UNIT) {
        if bytes[at..].starts_with(FRAME_MAGIC) {
            seal_frame(bytes, at);
        }
    }
    let footer = bytes.len() - 24;
    if bytes[footer..].starts_with(FOOTER_MAGIC) {
        let end = bytes.len() - 4;
        let index = number(bytes, end - 4).and_then(|index| footer.checked_sub(index));
        if let Some(from) = index {
            sum(bytes, [from..end, 0..0], end);
        }
    }
}

fn seal_frame(bytes: &mut [u8], at: usize) -> Option<()> {
    let directory = number(bytes, at + 32)?;
    let body = number(bytes, at + 36)?;
    let begin = at.checked_add(48)?.checked_add(directory)?;
    let end = begin.checked_add(body)?;
    sum(bytes, [at..at + 44, at + 48..begin], at + 44)?;
    sum(bytes, [begin..end, 0..0], end)
}

impl Store for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        let file = Arc::new(File::default());
        match self.0.lock().insert(name.to_owned(), Arc::clone(&file)) {
            None => Ok(file),
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        let file = self.0.lock().get(name).cloned();
        Ok(file.ok_or(io::ErrorKind::NotFound)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let file = self.0.lock().remove(name);
        file.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        name.to_owned()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(1 << 40)
    }
}

impl StoreFile for File {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.lock();
        let from = usize::try_from(at).map_or(bytes.len(), |at| at.min(bytes.len()));
        let length = buffer.len().min(bytes.len() - from);
        buffer[..length].copy_from_slice(&bytes[from..from + length]);
        Ok(length)
    }

    fn write_at(&self, at: u64, new: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.lock();
        let at = usize::try_from(at).expect("a small file");
        let end = at + new.len();
        assert!(end <= 16 * FILE_BYTES, "a write at {at} of {}", new.len());
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[at..end].copy_from_slice(new);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }
}
