//! What is wrong with a configuration: where it stands, what was found, what would be right.
//!
//! A secret's value is in none of them, nor is the value of an unknown key, which may be a misspelt
//! secret.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where something was typed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the file, but nowhere in it: what is missing.
    File,
    /// In that line of the file, from 1.
    Line(usize),
    /// In that environment variable.
    Variable(Arc<str>),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was typed.
    pub place: Place,
    /// Path of the key: `proxy.route[0].topic`; empty when it is about the whole file.
    pub key: String,
    /// What was found.
    pub found: String,
    /// What would be right.
    pub right: String,
}

impl Problem {
    /// A problem with the value of `key`.
    pub fn new(
        place: Place,
        key: impl Into<String>,
        found: impl Into<String>,
        right: impl Into<String>,
    ) -> Self {
        Self {
            place,
            key: key.into(),
            found: found.into(),
            right: right.into(),
        }
    }

    fn write(&self, file: &Path, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File => write!(f, "{}: ", file.display())?,
            Place::Line(line) => write!(f, "{}:{line}: ", file.display())?,
            Place::Variable(name) => write!(f, "{name}: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {}", self.found, self.right)
    }
}

/// All that is wrong with one configuration, in the order of the file, one line each when
/// displayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The file that was read.
    pub file: PathBuf,
    /// At least one.
    pub list: Vec<Problem>,
}

impl Problems {
    /// Sorts `list` by place.
    #[must_use]
    pub fn new(file: &Path, mut list: Vec<Problem>) -> Self {
        list.sort_by(|a, b| (&a.place, &a.key).cmp(&(&b.place, &b.key)));
        list.dedup();
        Self {
            file: file.to_owned(),
            list,
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.list.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            problem.write(&self.file, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
