//! TLS by rustls with ring: whom we trust, who we are, and what a failed handshake means.
//!
//! The files are read when the settings are made, so that a missing one is told at once, and again
//! before a connection when one of them has changed: short-lived certificates are renewed without a
//! restart. The provider is handed to each configuration; nothing is installed for the process.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls::{Unfit, Watch, certificates, private_key, roots_of};

/// A connection inside TLS.
pub(in crate::kafka) type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Where certificates and names come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// PEM: the authorities to trust, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM: our certificate with the ones that lead to its authority, and our private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// How connections are encrypted.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    /// The configuration key of `files.ca_file`, for errors.
    ca_key: &'static str,
    server_name: Option<ServerName<'static>>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ClientConfig>,
    watch: Watch,
}

impl Tls {
    /// Reads the files. `server_name`: the name that brokers' certificates are held against, in
    /// place of the one that was connected to. `ca_key` is what the configuration calls the file of
    /// authorities.
    ///
    /// # Errors
    /// [`Unfit`]: a file that cannot be read or is not PEM, a key that does not fit its
    /// certificate, a system without authorities, a name that is none.
    pub fn new(
        files: Files,
        server_name: Option<&str>,
        ca_key: &'static str,
    ) -> Result<Self, Unfit> {
        let server_name = server_name.map(|name| {
            ServerName::try_from(name.to_owned()).map_err(|_| Unfit {
                key: "server_name",
                found: format!("{name:?} is no name"),
                right: "write a host name or an IP address, without a port".into(),
            })
        });
        let watch = Watch::on(all(&files));
        let config = Arc::new(load(&files, ca_key)?);
        Ok(Self {
            files,
            ca_key,
            server_name: server_name.transpose()?,
            current: Mutex::new(Current { config, watch }),
        })
    }

    /// Whether brokers' certificates are held against another name than the one connected to.
    #[must_use]
    pub fn has_server_name(&self) -> bool {
        self.server_name.is_some()
    }

    /// Makes the handshake with `host`.
    pub(super) async fn connect(&self, tcp: TcpStream, host: &str) -> io::Result<TlsStream> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned())
                .map_err(|_| failed(host, "this is no name that a certificate could bear"))?,
        };
        let connector = TlsConnector::from(self.config());
        let shown = name.to_str().into_owned();
        let result = connector.connect(name, tcp).await;
        result.map_err(|error| failed(&shown, &explain(&error)))
    }

    /// The configuration of the files as they are now; of what they were, if that cannot be read.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        let mut current = self.current.lock();
        if current.watch.look(all(&self.files)) {
            match load(&self.files, self.ca_key) {
                Ok(config) => {
                    current.config = Arc::new(config);
                    current.watch.read(None);
                }
                Err(unfit) => {
                    if current.watch.read(Some(&unfit)) {
                        let Unfit { key, found, .. } = unfit;
                        tracing::warn!(key, found, "changed TLS files are not used");
                    }
                }
            }
        }
        Arc::clone(&current.config)
    }
}

fn all(files: &Files) -> impl Iterator<Item = &PathBuf> {
    let identity = files.identity.iter().flat_map(|(cert, key)| [cert, key]);
    files.ca_file.iter().chain(identity)
}

fn load(files: &Files, ca_key: &'static str) -> Result<ClientConfig, Unfit> {
    let roots = match &files.ca_file {
        Some(path) => roots_of(path, ca_key)?,
        None => roots_of_system(ca_key)?,
    };
    let provider = Arc::new(ring::default_provider());
    let unusable = |key, error: &dyn std::fmt::Display| Unfit {
        key,
        found: error.to_string(),
        right: "name a PEM file of certificates".into(),
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .map_err(|error| unusable(ca_key, &error))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(ca_key, &error))?
        .with_webpki_verifier(verifier);
    let Some((cert_file, key_file)) = &files.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates("cert_file", cert_file)?;
    let key = private_key("key_file", key_file)?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| Unfit {
            key: "key_file",
            found: format!("{} cannot be used: {error}", key_file.display()),
            right: format!("name the key of the certificate in {}", cert_file.display()),
        })
}

/// What the system's owner trusts, kept fresh by its updates; a list compiled in would age with the
/// binary.
fn roots_of_system(key: &'static str) -> Result<RootCertStore, Unfit> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _unreadable) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(Unfit {
            key,
            found: "missing, and this system has no certificates of authorities".into(),
            right: "name a PEM file, or install the package ca-certificates".into(),
        });
    }
    Ok(roots)
}

fn failed(name: &str, why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("TLS with {name}: {why}"))
}

/// What a failed handshake says, and where to look.
fn explain(error: &io::Error) -> String {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let hint = match inner {
        Some(rustls::Error::InvalidCertificate(certificate)) => hint(certificate),
        Some(rustls::Error::InvalidMessage(_)) => "is this a TLS listener?",
        None if error.kind() == ErrorKind::UnexpectedEof => "is this a TLS listener?",
        _ => "",
    };
    match hint {
        "" => error.to_string(),
        hint => format!("{error} ({hint})"),
    }
}

/// A TLS 1.3 broker says only after the handshake that it does not like our certificate, or wants
/// one.
pub(in crate::kafka) fn late(error: io::Error) -> io::Error {
    let text = error.to_string();
    if text.starts_with("received fatal alert") {
        let hint = "the broker refuses, or lacks, this client's certificate: cert_file, key_file";
        return io::Error::new(error.kind(), format!("TLS: {text} ({hint})"));
    }
    error
}

fn hint(certificate: &CertificateError) -> &'static str {
    match certificate {
        CertificateError::UnknownIssuer => "does ca_file hold the authority of this certificate?",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "connect by a name that the certificate bears, or set server_name"
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => "is this machine's clock right?",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
