//! The file `listening` in the data folder: which addresses were bound, for tests and tools with
//! port 0.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Name of the file.
pub const LISTENING: &str = "listening";

/// Content of the file, as JSON:
/// `{"mqtt": "127.0.0.1:1883", "listeners": ["127.0.0.1:1883"], "api": "127.0.0.1:8083"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// The first of `[proxy]` with a port.
    pub mqtt: Option<SocketAddr>,
    /// All of them: `proxy.listen`, then each `[[proxy.listener]]`.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// Of `[api]`.
    pub api: Option<SocketAddr>,
}

/// Writes the addresses to `<data_dir>/listening`, whole or not at all, and to the log.
///
/// # Errors
/// The disk's, with the path.
pub fn write_listening(data_dir: &Path, listening: &Listening) -> io::Result<()> {
    let shown = |address: Option<SocketAddr>| address.map(tracing::field::display);
    let (mqtt, api) = (shown(listening.mqtt), shown(listening.api));
    tracing::info!(mqtt, api, "listening");
    let path = data_dir.join(LISTENING);
    let fresh = data_dir.join("listening.new");
    let json = serde_json::to_vec(listening)?;
    std::fs::write(&fresh, json)
        .and_then(|()| std::fs::rename(&fresh, &path))
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
