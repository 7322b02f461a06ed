//! Who may come in, and what for: password files ([`password`]) and ACL files ([`acl`]).
//!
//! A file of rules is read when the gateway starts and again when it has changed. What cannot be
//! used then is told, and the old rules stay in force: a slip of the pen locks nobody out, and lets
//! nobody in.

pub mod acl;
pub mod password;

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::tls::{Unfit, Watch};

/// Largest file of rules, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A line that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Its number, from 1; 0: the file as a whole.
    pub line: usize,
    /// What is wrong with it; never a password or a hash.
    pub found: String,
    /// What would be right.
    pub right: &'static str,
}

/// What a file of rules says.
pub trait Rules: Sized {
    /// The last word of the configuration key that names such files.
    const KEY: &'static str;

    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first line that is wrong.
    fn read(text: &str) -> Result<Self, Wrong>;
}

/// A file of rules, and what it said when it could be used last.
#[derive(Debug)]
pub struct Watched<R> {
    path: PathBuf,
    current: RwLock<Arc<R>>,
    generation: AtomicU64,
    watch: Mutex<Watch>,
}

impl<R: Rules> Watched<R> {
    /// Reads the file.
    ///
    /// # Errors
    /// [`Unfit`]: it cannot be read, or a line of it cannot.
    pub fn open(path: PathBuf) -> Result<Self, Unfit> {
        let watch = Mutex::new(Watch::on(std::iter::once(&path)));
        let current = RwLock::new(Arc::new(load(&path)?));
        Ok(Self {
            path,
            current,
            generation: AtomicU64::new(0),
            watch,
        })
    }

    /// Rules that stand in no file.
    #[cfg(feature = "fuzzing")]
    pub fn still(rules: R) -> Self {
        Self {
            path: PathBuf::new(),
            current: RwLock::new(Arc::new(rules)),
            generation: AtomicU64::new(0),
            watch: Mutex::default(),
        }
    }

    /// The rules in force.
    #[must_use]
    pub fn current(&self) -> Arc<R> {
        Arc::clone(&self.current.read())
    }

    /// Another number when other rules are in force.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Reads the file if it has changed or could not be used, or `always`. Returns whether other
    /// rules are in force.
    pub fn refresh(&self, always: bool) -> bool {
        let mut watch = self.watch.lock();
        if !watch.look(std::iter::once(&self.path)) && !always {
            return false;
        }
        let path = self.path.display();
        match load(&self.path) {
            Ok(rules) => {
                *self.current.write() = Arc::new(rules);
                self.generation.fetch_add(1, Ordering::Release);
                watch.read(None);
                tracing::info!(key = R::KEY, %path, "rules are read again, and in force");
                true
            }
            Err(unfit) => {
                if watch.read(Some(&unfit)) || always {
                    let Unfit { key, found, right } = unfit;
                    tracing::error!(
                        key,
                        found,
                        right,
                        "changed rules are not used: the old hold"
                    );
                }
                false
            }
        }
    }
}

fn load<R: Rules>(path: &Path) -> Result<R, Unfit> {
    let shown = path.display();
    let unfit = |found, right: &str| Unfit {
        key: R::KEY,
        found,
        right: right.to_owned(),
    };
    let text = text_of(path).map_err(|error| {
        unfit(
            format!("cannot read {shown}: {error}"),
            "name a text file of at most 16 MiB that the gateway may read",
        )
    })?;
    R::read(&text).map_err(|Wrong { line, found, right }| match line {
        0 => unfit(format!("{shown}: {found}"), right),
        line => unfit(format!("{shown}, line {line}: {found}"), right),
    })
}

fn text_of(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    if file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)? as u64 > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// The lines of a file of rules that say something, with their numbers from 1. A line that begins
/// with `#` is a comment, as in mosquitto's files.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text
        .lines()
        .zip(1..)
        .map(|(line, at)| (at, line.trim_end()));
    lines.filter(|(_, line)| !line.trim_start().is_empty() && !line.starts_with('#'))
}
