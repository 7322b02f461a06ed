//! Room on the disk that is kept for sled: on a disk that is full cursors must move and ledger
//! lines be written, or nothing would ever be given back, and a start must open the state.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

/// What sled needs to open and to store a few times: its file grows by 512 KiB.
const BYTES: u64 = 2 << 20;
/// The room is taken when so many times as much is free.
const PLENTY: u64 = 4;

/// A file of unwritten blocks beside sled's folder.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    taken: bool,
}

impl Ballast {
    pub fn of(folder: &Path) -> Self {
        let mut name = folder.as_os_str().to_owned();
        name.push(".ballast");
        let path = PathBuf::from(name);
        let taken = path.exists();
        Self { path, taken }
    }

    /// Takes the room, if it is not taken and the disk has plenty.
    pub fn take(&mut self) {
        if self.taken {
            return;
        }
        let taken = self.try_take();
        if let Err(error) = &taken {
            tracing::debug!(%error, "no room is kept for the spool's state");
            self.give();
        }
        self.taken = taken.unwrap_or(false);
    }

    fn try_take(&self) -> io::Result<bool> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let disk = rustix::fs::statvfs(folder)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < BYTES * PLENTY {
            return Ok(false);
        }
        let file = File::create(&self.path)?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, BYTES)?;
        Ok(true)
    }

    /// Gives the room back; tells whether there was some.
    pub fn give(&mut self) -> bool {
        self.taken = false;
        std::fs::remove_file(&self.path).is_ok()
    }
}

/// Whether that is what failed.
pub(super) fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull
}
