//! Secrets: given as a value, in a file or in an environment variable; never shown.
//!
//! [`Source`] is what was typed, [`Secret`] what it led to. Neither's `Debug` tells the value,
//! there is no `Display`, and errors name the file or the variable alone.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file that is read as a secret.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A secret's value.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Typed as it is.
    Value(Secret),
    /// The text of a file, less one line end.
    File(PathBuf),
    /// The text of an environment variable.
    Variable(String),
}

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is too large or is no text.
    #[error("{path} is no secret: {what}")]
    NotText {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The variable is not set, or is no text. Its name, unless it may be a secret in the wrong
    /// place.
    #[error("environment variable {0} is not set, or is not UTF-8")]
    Variable(String),
    /// Nothing in it.
    #[error("the secret is empty")]
    Empty,
}

impl Source {
    /// Fetches the secret.
    ///
    /// # Errors
    /// [`Error`]; none tells a value.
    pub fn fetch(&self) -> Result<Secret, Error> {
        let secret = match self {
            Self::Value(secret) => secret.clone(),
            Self::File(path) => Secret(read(path)?),
            Self::Variable(name) => {
                Secret(std::env::var(name).map_err(|_| Error::Variable(shown(name)))?)
            }
        };
        if secret.0.is_empty() {
            return Err(Error::Empty);
        }
        Ok(secret)
    }
}

/// A variable's name, if it is written as such names are: in capitals.
fn shown(name: &str) -> String {
    let usual = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if name.chars().all(usual) {
        name.to_owned()
    } else {
        "(name not shown: it is not in capitals)".to_owned()
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::File {
        path: path.to_owned(),
        source,
    };
    let refused = |what| Error::NotText {
        path: path.to_owned(),
        what,
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    if read.map_err(failed)? as u64 > FILE_BYTES_MAX {
        return Err(refused("it is larger than 64 KiB"));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| refused("it is not UTF-8"))?;
    if text.ends_with('\n') {
        text.pop();
    }
    if text.ends_with('\r') {
        text.pop();
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_never_shown() {
        let source = Source::Value(Secret::new("hunter2".to_owned()));
        assert_eq!(source.fetch().unwrap().expose(), "hunter2");
        let shown = format!("{source:?} {:?}", source.fetch());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_file_loses_its_last_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "pass word\r\n").unwrap();
        assert_eq!(Source::File(path).fetch().unwrap().expose(), "pass word");
    }

    #[test]
    fn errors_name_the_source() {
        let missing = Source::File("/nowhere/password".into()).fetch();
        assert!(
            missing
                .unwrap_err()
                .to_string()
                .contains("/nowhere/password")
        );
        let unset = Source::Variable("TIDEGATE_NO_SUCH".to_owned()).fetch();
        assert!(unset.unwrap_err().to_string().contains("TIDEGATE_NO_SUCH"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("binary");
        std::fs::write(&path, [b'h', b'u', 0xff]).unwrap();
        assert!(matches!(
            Source::File(path).fetch(),
            Err(Error::NotText { .. })
        ));
    }
}
