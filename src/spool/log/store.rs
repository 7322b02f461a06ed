//! The disk as the log sees it: a flat folder of files. A trait, so that tests can put a simulated
//! one there.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A flat folder.
pub trait Store: Send + Sync + Debug {
    /// Names of its files.
    ///
    /// # Errors
    /// The disk's; so for all of these.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A new, empty file.
    ///
    /// # Errors
    /// If there is one of that name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn StoreFile>>;

    /// A file that is there.
    ///
    /// # Errors
    /// If it is not.
    fn open(&self, name: &str) -> io::Result<Arc<dyn StoreFile>>;

    /// Gives a file another name, which nothing has.
    ///
    /// # Errors
    /// If it is not there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Takes a file's name away.
    ///
    /// # Errors
    /// If it is not there.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable.
    ///
    /// # Errors
    /// The disk's.
    fn sync_dir(&self) -> io::Result<()>;

    /// Bytes that are free for us on the file system.
    ///
    /// # Errors
    /// The disk's.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Where a file lies, for those who read of it in the log.
    fn path(&self, name: &str) -> String;
}

/// A file, read and written by position from several threads.
pub trait StoreFile: Send + Sync + Debug {
    /// Fills `buffer` from `at` as far as the file goes; how many bytes that were.
    ///
    /// # Errors
    /// The disk's.
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `at`.
    ///
    /// # Errors
    /// The disk's; some of the bytes may have been written.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes all that was written durable, a new length included.
    ///
    /// # Errors
    /// The disk's: what was not synced before may never be, even if a later sync succeeds.
    fn sync_data(&self) -> io::Result<()>;

    /// Its length.
    ///
    /// # Errors
    /// The disk's.
    fn length(&self) -> io::Result<u64>;

    /// Lets the kernel forget what it keeps of the file in memory; only a hint. Whoever changes a
    /// page of a large folio dirties all of it in the kernel's books, though not on the disk.
    fn forget(&self) {}
}

/// A real folder.
#[derive(Debug)]
pub struct DiskStore {
    folder: PathBuf,
}

impl DiskStore {
    /// The folder, made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made; the error names the path.
    pub fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder).map_err(|error| with_path(folder, &error))?;
        if let Some(parent) = folder.parent() {
            // So that the folder's own name survives a power cut.
            let synced = File::open(parent).and_then(|parent| parent.sync_all());
            synced.map_err(|error| with_path(parent, &error))?;
        }
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    fn file(&self, name: &str, create: bool) -> io::Result<Arc<dyn StoreFile>> {
        let path = self.folder.join(name);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(create)
            .open(&path);
        let file = opened.map_err(|error| with_path(&path, &error))?;
        Ok(Arc::new(DiskFile { path, file }))
    }
}

impl Store for DiskStore {
    fn list(&self) -> io::Result<Vec<String>> {
        let read = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(&self.folder)? {
                names.extend(entry?.file_name().into_string());
            }
            Ok(names)
        };
        read().map_err(|error| with_path(&self.folder, &error))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        self.file(name, true)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        self.file(name, false)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let path = self.folder.join(from);
        std::fs::rename(&path, self.folder.join(to)).map_err(|error| with_path(&path, &error))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.folder.join(name);
        std::fs::remove_file(&path).map_err(|error| with_path(&path, &error))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| with_path(&self.folder, &error))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.folder)
            .map_err(|error| with_path(&self.folder, &io::Error::from(error)))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// Fills `buffer` from `at` on, as far as the file goes; the bytes read.
pub(super) fn read_up_to(file: &File, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + done as u64) {
            Ok(0) => break,
            Ok(some) => done += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[derive(Debug)]
struct DiskFile {
    path: PathBuf,
    file: File,
}

impl StoreFile for DiskFile {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        read_up_to(&self.file, at, buffer).map_err(|error| with_path(&self.path, &error))
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all_at(bytes, at);
        written.map_err(|error| with_path(&self.path, &error))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file
            .sync_data()
            .map_err(|error| with_path(&self.path, &error))
    }

    fn length(&self) -> io::Result<u64> {
        let metadata = self.file.metadata();
        Ok(metadata
            .map_err(|error| with_path(&self.path, &error))?
            .len())
    }

    fn forget(&self) {
        let hint = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
        if let Err(error) = hint {
            tracing::debug!(%error, "a segment's pages stay in memory");
        }
    }
}

/// The same error, with the path in its text.
pub(crate) fn with_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
