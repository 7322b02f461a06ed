//! A real folder that is only looked at: what the log would write at a start (a torn tail cut, a
//! last frame written again, a file removed) does not happen.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::store::{read_up_to, with_path};
use super::{Store, StoreFile};

/// The folder.
#[derive(Debug)]
pub struct FrozenStore(PathBuf);

impl FrozenStore {
    /// A folder that is there; nobody else may write to it meanwhile.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }
}

impl Store for FrozenStore {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(&self.0).and_then(|entries| {
            let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string()));
            names.collect::<io::Result<Vec<_>>>()
        });
        let names = names.map_err(|error| with_path(&self.0, &error))?;
        Ok(names.into_iter().flatten().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        let error = io::ErrorKind::ReadOnlyFilesystem.into();
        Err(with_path(&self.0.join(name), &error))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        let path = self.0.join(name);
        match File::open(&path) {
            Ok(file) => Ok(Arc::new(FrozenFile { path, file })),
            Err(error) => Err(with_path(&path, &error)),
        }
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

#[derive(Debug)]
struct FrozenFile {
    path: PathBuf,
    file: File,
}

impl StoreFile for FrozenFile {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        read_up_to(&self.file, at, buffer).map_err(|error| with_path(&self.path, &error))
    }

    fn write_at(&self, _at: u64, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        let metadata = self.file.metadata();
        Ok(metadata
            .map_err(|error| with_path(&self.path, &error))?
            .len())
    }
}
