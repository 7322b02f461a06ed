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

/// By what changed files are known: when each was written, and its length.
pub type Stamp = Vec<Option<(SystemTime, u64)>>;

/// The stamp of files as they are now.
pub fn stamp_of<'f>(files: impl Iterator<Item = &'f PathBuf>) -> Stamp {
    let one = |path| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.modified().ok()?, file.len()))
    };
    files.map(one).collect()
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
