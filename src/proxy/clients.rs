//! The proxy's clients, for people who look at them and send them away.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::packet::Version;
use super::session::{Entry, Sessions};

/// Clients in one answer.
const PAGE: usize = 1_000;

/// One client: connected, or with a session that waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientInfo {
    /// Its client id.
    pub client_id: String,
    /// Its connection; absent while it is away.
    pub connection: Option<ConnectionInfo>,
    /// While it is away: seconds until its session is forgotten.
    pub expires_in_seconds: Option<u64>,
    /// Filters that it subscribes to.
    pub subscriptions: usize,
    /// Messages that wait for it.
    pub queued_messages: usize,
    /// Messages that were sent to it and are not acknowledged.
    pub unacknowledged_messages: usize,
    /// Bytes of both, with what each costs.
    pub queued_bytes: usize,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// Its address and port; `unix`: a process on this machine.
    pub address: String,
    /// The user that it has proved to be.
    pub user: Option<String>,
    /// `3.1.1` (also for 3.1) or `5`.
    pub mqtt: String,
    /// How long it is there.
    pub seconds: u64,
}

/// Clients in the order of their ids.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ClientsPage {
    /// At most a thousand.
    pub clients: Vec<ClientInfo>,
    /// What to ask for `after`; absent: there are no more.
    pub next: Option<String>,
}

/// Looks at clients, and sends them away.
#[derive(Clone, Debug)]
pub struct Clients(pub(super) Arc<Sessions>);

impl Clients {
    /// Those whose ids come behind `after`; the empty text begins.
    #[must_use]
    pub fn page(&self, after: &str) -> ClientsPage {
        let (clients, more) = self.0.list(after, PAGE);
        let last = clients.last().filter(|_| more);
        let next = last.map(|client| client.client_id.clone());
        ClientsPage { clients, next }
    }

    /// Ends a client's connection, and if it is to be forgotten its session. `false`: there is no
    /// such client.
    #[must_use]
    pub fn kick(&self, client_id: &str, forget: bool) -> bool {
        self.0.kick(client_id, forget)
    }
}

impl ClientInfo {
    pub(super) fn of(client_id: &str, entry: &Entry, now: Instant) -> Self {
        let outbox = &entry.session.outbox;
        let waits = outbox.waits();
        let connection = entry.live.as_ref().map(|live| ConnectionInfo {
            address: live.guest.peer.to_string(),
            user: live.guest.pass.user.as_deref().map(str::to_owned),
            mqtt: match live.guest.version {
                Version::V3 => "3.1.1".to_owned(),
                Version::V5 => "5".to_owned(),
            },
            seconds: now.saturating_duration_since(live.since).as_secs(),
        });
        let expires = entry.expires.map(|(at, _)| at);
        Self {
            client_id: client_id.to_owned(),
            connection,
            expires_in_seconds: expires.map(|at| at.saturating_duration_since(now).as_secs()),
            subscriptions: outbox.filters.lock().as_ref().map_or(0, |all| all.len()),
            queued_messages: waits.queued,
            unacknowledged_messages: waits.unacknowledged,
            queued_bytes: waits.bytes,
        }
    }
}
