//! Who may come in, and what for: one [`Access`] per listener.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

/// The rules of a listener.
#[derive(Debug, Default)]
pub struct Access {}

/// Who stands at the door.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// Address of the client.
    pub peer: SocketAddr,
    /// Until when it must have said CONNECT.
    pub deadline: Instant,
    /// Rules of the listener that it came to.
    pub access: Arc<Access>,
}
