//! PEM files of certificates and keys, as TLS with Kafka and TLS with devices read them; and TLS
//! with devices ([`server`]).

pub mod identity;
pub mod server;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A setting that cannot be used: which, what was found, what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// The last word of its configuration key.
    pub key: &'static str,
    /// What was found; never a secret.
    pub found: String,
    /// What would be right.
    pub right: String,
}

/// What is known of files that may change while they are in use.
#[derive(Debug, Default)]
pub struct Watch {
    /// When each was written, and its length.
    stamps: Vec<Option<(SystemTime, u64)>>,
    /// Why they could not be used when they were read last.
    wrong: Option<Unfit>,
}

impl Watch {
    /// Of files that are about to be read for the first time.
    #[must_use]
    pub fn on<'f>(files: impl Iterator<Item = &'f PathBuf>) -> Self {
        let mut watch = Self::default();
        watch.look(files);
        watch
    }

    /// Looks at the files. Returns whether they are to be read: one has changed, or they could not
    /// be used, which need not lie in them: with no file descriptor left nothing can be read.
    pub fn look<'f>(&mut self, files: impl Iterator<Item = &'f PathBuf>) -> bool {
        let one = |path| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.modified().ok()?, file.len()))
        };
        let now: Vec<_> = files.map(one).collect();
        let due = self.wrong.is_some() || self.stamps != now;
        self.stamps = now;
        due
    }

    /// They were read, and are used or not. Returns whether `wrong` is to be told: it is not what
    /// was wrong before.
    pub fn read(&mut self, wrong: Option<&Unfit>) -> bool {
        let news = self.wrong.as_ref() != wrong;
        self.wrong = wrong.cloned();
        news
    }
}

/// The certificates of a file, at least one.
///
/// # Errors
/// [`Unfit`]: it cannot be read, or is not PEM, or has none.
pub fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Unfit> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(all) if all.is_empty() => {
            Err(not_pem(key, path, &pem::Error::NoItemsFound, CERTIFICATES))
        }
        Ok(all) => Ok(all),
        Err(error) => Err(not_pem(key, path, &error, CERTIFICATES)),
    }
}

const CERTIFICATES: &str = "certificates";

fn not_pem(key: &'static str, path: &Path, error: &pem::Error, what: &str) -> Unfit {
    let shown = path.display();
    let found = match error {
        pem::Error::Io(error) => format!("cannot read {shown}: {error}"),
        pem::Error::NoItemsFound => format!("{shown} holds no PEM of {what}"),
        error => format!("{shown} is not PEM: {error:?}"),
    };
    Unfit {
        key,
        found,
        right: format!("name a PEM file with {what}"),
    }
}

/// The authorities of a file.
///
/// # Errors
/// As [`certificates`]; or one is no authority's.
pub fn roots_of(path: &Path, key: &'static str) -> Result<RootCertStore, Unfit> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(key, path)? {
        roots.add(certificate).map_err(|error| Unfit {
            key,
            found: format!("{} holds a bad certificate: {error}", path.display()),
            right: "name a PEM file with certificates of authorities".into(),
        })?;
    }
    Ok(roots)
}

/// The private key of a file.
///
/// # Errors
/// [`Unfit`]: it cannot be read, or has none.
pub fn private_key(key: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, Unfit> {
    let read = PrivateKeyDer::from_pem_file(path);
    read.map_err(|error| {
        let what = "an unencrypted PKCS#8, PKCS#1 or SEC1 private key";
        not_pem(key, path, &error, what)
    })
}
