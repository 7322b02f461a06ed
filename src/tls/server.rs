//! TLS of a listener: its certificate, whom it asks for one, and files that change.
//!
//! The files are read at the start, and again when one of them has changed: connections that are
//! open stay. What cannot be used then is told, and the old stays in use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use x509_cert::der::Decode as _;

use super::{Unfit, Watch, certificates, private_key, roots_of};

/// A certificate that ends sooner is warned of.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);
/// TLS 1.2 sessions, and secrets of TLS 1.3, that are kept so that devices come back faster.
const SESSIONS: usize = 1_000;

/// Where the certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// PEM: our certificate with the ones that lead to its authority.
    pub cert_file: PathBuf,
    /// PEM: its private key.
    pub key_file: PathBuf,
    /// PEM: authorities of the clients' certificates, which are then needed.
    pub client_ca_file: Option<PathBuf>,
}

/// How connections of a listener are encrypted.
#[derive(Debug)]
pub struct Server {
    files: Files,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    loaded: Loaded,
    watch: Watch,
}

#[derive(Clone, Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// When the first certificate of the chain ends.
    not_after: SystemTime,
}

impl Server {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Unfit`]: a file that cannot be read or is not PEM, a key that does not fit its
    /// certificate.
    pub fn new(files: Files) -> Result<Self, Unfit> {
        let watch = Watch::on(all(&files));
        let loaded = load(&files)?;
        let current = Mutex::new(Current { loaded, watch });
        Ok(Self { files, current })
    }

    /// Whether clients need a certificate.
    #[must_use]
    pub fn asks_clients(&self) -> bool {
        self.files.client_ca_file.is_some()
    }

    /// The configuration of the files as they were when they could be used last.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.lock().loaded.config)
    }

    /// When the certificate in use ends, milliseconds since 1970.
    #[must_use]
    pub fn not_after_ms(&self) -> u64 {
        let end = self.current.lock().loaded.not_after;
        let since = end.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Reads files that have changed.
    pub fn refresh(&self) {
        let mut current = self.current.lock();
        if !current.watch.look(all(&self.files)) {
            return;
        }
        match load(&self.files) {
            Ok(loaded) => {
                let cert_file = self.files.cert_file.display();
                tracing::info!(%cert_file, "changed TLS files are in use");
                current.loaded = loaded;
                current.watch.read(None);
            }
            Err(unfit) => {
                if current.watch.read(Some(&unfit)) {
                    let Unfit { key, found, right } = unfit;
                    tracing::error!(key, found, right, "changed TLS files are not used");
                }
            }
        }
    }
}

fn all(files: &Files) -> impl Iterator<Item = &PathBuf> {
    let both = [&files.cert_file, &files.key_file].into_iter();
    both.chain(&files.client_ca_file)
}

fn load(files: &Files) -> Result<Loaded, Unfit> {
    let chain = certificates("cert_file", &files.cert_file)?;
    let key = private_key("key_file", &files.key_file)?;
    let not_after = chain.first().map_or(Ok(UNIX_EPOCH), |first| {
        not_after(first).map_err(|error| Unfit {
            key: "cert_file",
            found: format!("{}: {error}", files.cert_file.display()),
            right: "name a PEM file with an X.509 certificate".into(),
        })
    })?;
    let provider = Arc::new(ring::default_provider());
    let unusable = |key, error: &dyn std::fmt::Display| Unfit {
        key,
        found: error.to_string(),
        right: "name a PEM file of certificates".into(),
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("cert_file", &error))?;
    let builder = match &files.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(roots_of(path, "client_ca_file")?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            let verifier = verifier.map_err(|error| unusable("client_ca_file", &error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| Unfit {
            key: "key_file",
            found: format!("{} cannot be used: {error}", files.key_file.display()),
            right: format!(
                "name the key of the certificate in {}",
                files.cert_file.display()
            ),
        })?;
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(SESSIONS);
    tell_end(files, not_after);
    Ok(Loaded {
        config: Arc::new(config),
        not_after,
    })
}

/// When a certificate ends (RFC 5280, section 4.1.2.5).
fn not_after(certificate: &CertificateDer<'_>) -> Result<SystemTime, x509_cert::der::Error> {
    let parsed = x509_cert::Certificate::from_der(certificate)?;
    Ok(parsed.tbs_certificate.validity.not_after.to_system_time())
}

fn tell_end(files: &Files, not_after: SystemTime) {
    let cert_file = files.cert_file.display();
    match not_after.duration_since(SystemTime::now()) {
        Err(_) => tracing::error!(%cert_file, "the certificate has ended, or the clock is wrong"),
        Ok(left) if left < SOON => {
            let days = left.as_secs() / (24 * 3600);
            tracing::warn!(%cert_file, days, "the certificate ends soon");
        }
        Ok(_) => {}
    }
}
