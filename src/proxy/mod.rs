//! The MQTT front door: takes MQTT 3.1.1 and 5, also inside TLS and WebSocket, hands records to the
//! spool, and acknowledges when they are safe.
//!
//! ```text
//!  socket ─▶ buffer ─▶ packet ─▶ batch ─▶ routes ─▶ Intake (one call a read)
//!     ▲                            │
//!     └── acks (in order) ◀── slots┘ ◀── Settle: records became safe
//! ```
//! # Invariants
//! - PUBACK and PUBREC leave only for safe or refused messages, in the order in which these came.
//! - At a bound (window, bytes of a client, bytes of all) the PUBLISH that does not fit stays in
//!   the buffer and the socket is not read; such a connection is not timed out. QoS 0 is dropped
//!   and counted instead.
//! - Of one client id one connection is served.
//! - No panic is reachable from the network.
//! - What a client may not publish or be sent (`access`) it does not: looked at when it is
//!   published, when it is queued for a subscriber, and when it is sent to one.

pub mod access;
pub mod acks;
mod batch;
pub mod bounds;
mod buffer;
pub mod clients;
mod connection;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod handshake;
pub mod keep;
mod listener;
pub mod local;
pub mod pace;
pub mod packet;
mod proxy_protocol;
pub mod routes;
pub mod session;
pub mod socket;
pub mod sys;
#[cfg(test)]
mod tests;
mod websocket;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{ListenAddress, checked};
use crate::metrics::{Gauge, Metrics};
use crate::spool::{Change, Intake};

pub use listener::spawn;
pub use routes::{RouteError, Routes};

/// What all connections of a proxy share.
#[derive(Debug)]
struct Shared {
    config: checked::Proxy,
    intake: Arc<dyn Intake>,
    metrics: Arc<Metrics>,
    router: routes::Router,
    headers: routes::HeaderTable,
    sessions: Arc<session::Sessions>,
    local: Arc<local::Local>,
    bounds: Arc<bounds::Bounds>,
    unfinished: Arc<bounds::Unfinished>,
    wills: Arc<bounds::Wills>,
    gate: Arc<access::Gate>,
    shutdown: CancellationToken,
    open: AtomicU64,
    /// Connections of each address but loopback.
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

/// A client that was let in.
#[derive(Clone, Debug)]
struct Client {
    id: Arc<str>,
    /// What it speaks, and how much it is told.
    telling: packet::Telling,
    session: Arc<session::Session>,
    /// Its connection's number.
    number: u64,
    /// What it came in by.
    pass: access::Pass,
    header: routes::ClientHeader,
}

impl Shared {
    fn new(
        config: &checked::Proxy,
        intake: Arc<dyn Intake>,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> io::Result<Self> {
        let compiled = Routes::compile(config).map_err(|errors| {
            let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
            io::Error::new(io::ErrorKind::InvalidInput, text.join("; "))
        })?;
        let parts = (Arc::clone(&intake), Arc::clone(&metrics));
        let local = Arc::new(local::Local::new(&config.local, parts.0, parts.1));
        let shared = Self {
            router: routes::Router::new(compiled, Arc::clone(&intake)),
            headers: routes::HeaderTable::new(&config.headers),
            sessions: Arc::new(session::Sessions::new(
                Arc::clone(&local),
                config.max_sessions,
                config.session_expiry_max,
                shutdown.clone(),
            )),
            bounds: Arc::new(bounds::Bounds::new(config.max_total_inflight_bytes)),
            unfinished: Arc::new(bounds::Unfinished::new(config.max_total_inflight_bytes)),
            wills: Arc::default(),
            gate: Arc::new(access::Gate::new(Arc::clone(&metrics))),
            config: config.clone(),
            intake,
            local,
            metrics,
            shutdown,
            open: AtomicU64::new(0),
            addresses: Mutex::default(),
        };
        shared.restore();
        Ok(shared)
    }

    /// Takes up what was kept.
    fn restore(&self) {
        let found = keep::Found::read(self.intake.kept());
        if found.senseless > 0 {
            tracing::error!(
                values = found.senseless,
                "kept values make no sense and are dropped"
            );
        }
        let gone = |key| Change { key, value: None };
        let needless: Vec<_> = found.needless.into_iter().map(gone).collect();
        if !needless.is_empty() {
            self.intake.keep(needless, None);
        }
        let sessions = found.sessions.len();
        for (client_id, kept) in found.sessions {
            self.sessions.restore(&client_id, kept);
        }
        let retained = found.retained.len();
        for message in found.retained {
            self.local.restore_retained(message);
        }
        if sessions + retained > 0 {
            tracing::info!(
                sessions,
                retained,
                "sessions and retained messages are back"
            );
        }
    }

    /// Publishes the wills whose delay has passed, or whose session has; forgets what has expired.
    fn publish_due(self: &Arc<Self>) {
        self.local.expire();
        for delayed in self.sessions.due() {
            batch::Inbox::new(Arc::clone(self), delayed.client).will(&delayed.will.0);
        }
    }

    /// Counts a connection that opens (or `false`, that closes).
    fn count_open(&self, opens: bool) {
        let now = if opens {
            self.open.fetch_add(1, Ordering::Relaxed) + 1
        } else {
            self.open.fetch_sub(1, Ordering::Relaxed) - 1
        };
        self.metrics.set(Gauge::ConnectionsOpen, now);
    }
}

/// A proxy that runs.
#[derive(Debug)]
pub struct Running {
    /// Of its listeners.
    pub addresses: Vec<ListenAddress>,
    /// Ends with the last connection.
    pub task: JoinHandle<()>,
    /// Looks at its clients.
    pub clients: clients::Clients,
}
