//! Sessions: which client ids are connected, and what is kept of them when they are not.
//!
//! Of a session the QoS 2 packet ids, the subscriptions and the outbox are kept; if it outlives its
//! connection, on disk too ([`super::keep`]):
//!
//! ```text
//!   PUBLISH ──▶ pending ──record safe──▶ safe ──PUBREL──▶ forgotten
//!                  └ PUBREC is withheld    └ PUBREC is sent, again for each repeat
//! ```
//! # Invariants
//! - Of one client id at most one connection is served: a new one ends the old one and waits for
//!   its last batch, so that order holds across a takeover.
//! - At most `max_sessions` sessions without a connection are kept; the one that expires first goes
//!   first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::access::Pass;
use super::acks::Acks;
use super::bounds::WillPart;
use super::clients::ClientInfo;
use super::keep::{Keep, KeptSession, wall_ms};
use super::local::Local;
use super::local::queue::Outbox;
use super::packet::{Version, Will};
use super::socket::Peer;

/// Longest wait for a connection that is being taken over.
const TAKEOVER_MAX: Duration = Duration::from_secs(5);

/// What a client finds again when it comes back.
#[derive(Debug)]
pub struct Session {
    received: Mutex<HashMap<u16, Received>>,
    /// What it is to get.
    pub outbox: Arc<Outbox>,
}

impl Session {
    /// Its part of the disk; `None`: it ends with its connection.
    pub fn keep(&self) -> Option<&Keep> {
        self.outbox.keep.as_ref()
    }

    /// It ends: nothing of it is kept.
    fn end(&self) {
        if let Some(keep) = self.keep() {
            keep.end(self.received.lock().keys().copied());
        }
    }
}

/// A QoS 2 message that was received and not released.
#[derive(Debug)]
enum Received {
    /// Its record is not safe. The connection that was the last to send it; if that is not the
    /// first one, its slot, which waits for the record.
    Pending(u64, Option<(Arc<Acks>, u64)>),
    /// Its record is safe.
    Safe,
}

/// What a QoS 2 PUBLISH is to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// A new message.
    New,
    /// A repeat, on the same connection, of one that is not safe: its PUBREC is on the way.
    Repeat,
    /// A repeat, on a later connection, of one that is not safe.
    Pending,
    /// A repeat of one that is safe.
    Safe,
}

impl Session {
    /// Nothing but an outbox.
    #[must_use]
    pub fn new(outbox: Arc<Outbox>) -> Self {
        Self::with_ids(outbox, Vec::new())
    }

    /// An outbox, and the QoS 2 packet ids of messages that are safe.
    #[must_use]
    pub fn with_ids(outbox: Arc<Outbox>, ids: Vec<u16>) -> Self {
        let received = ids.into_iter().map(|id| (id, Received::Safe)).collect();
        Self {
            received: Mutex::new(received),
            outbox,
        }
    }

    /// Whether a QoS 2 packet id is in use.
    pub fn knows(&self, id: u16) -> bool {
        self.received.lock().contains_key(&id)
    }

    /// Notes a QoS 2 PUBLISH on a connection.
    pub fn receive(&self, id: u16, connection: u64) -> Receipt {
        let mut received = self.received.lock();
        match received.get_mut(&id) {
            None => {
                received.insert(id, Received::Pending(connection, None));
                Receipt::New
            }
            Some(Received::Pending(by, _)) if *by == connection => Receipt::Repeat,
            Some(Received::Pending(by, _)) => {
                *by = connection;
                Receipt::Pending
            }
            Some(Received::Safe) => Receipt::Safe,
        }
    }

    /// After [`Receipt::Pending`]: this slot is done when the record is safe. `false`: it is safe
    /// already.
    pub fn wait(&self, id: u16, acks: &Arc<Acks>, token: u64) -> bool {
        match self.received.lock().get_mut(&id) {
            Some(Received::Pending(_, waiter)) => {
                *waiter = Some((Arc::clone(acks), token));
                true
            }
            _ => false,
        }
    }

    /// The record of a pending message is safe. Returns who waits for it.
    pub fn made_safe(&self, id: u16) -> Option<(Arc<Acks>, u64)> {
        let mut received = self.received.lock();
        match std::mem::replace(received.get_mut(&id)?, Received::Safe) {
            Received::Pending(_, waiter) => waiter,
            Received::Safe => None,
        }
    }

    /// PUBREL. `None`: unknown id. `Some(false)`: not safe, so not released.
    pub fn release(&self, id: u16) -> Option<bool> {
        let mut received = self.received.lock();
        match received.get(&id)? {
            Received::Pending(..) => Some(false),
            Received::Safe => {
                received.remove(&id);
                if let Some(keep) = self.keep() {
                    keep.released(id);
                }
                if received.is_empty() {
                    received.shrink_to_fit();
                }
                Some(true)
            }
        }
    }

    /// Forgets an id whose message was refused.
    pub fn refuse(&self, id: u16) {
        self.received.lock().remove(&id);
    }
}

/// Why a connection is ended from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// Another connection has its client id.
    #[default]
    #[error("client id taken over")]
    TakenOver,
    /// What it came in by does not hold any more.
    #[error("its user is gone, or has another password")]
    NotAuthorised,
    /// Somebody at the gateway wants it so.
    #[error("sent away by hand")]
    Kicked {
        /// And its session with it.
        forgets: bool,
    },
}

/// Who has a connection.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Where it is.
    pub peer: Peer,
    /// What it speaks.
    pub version: Version,
    /// What it came in by.
    pub pass: Pass,
}

#[derive(Debug)]
pub(super) struct Live {
    number: u64,
    stop: CancellationToken,
    why: Arc<Mutex<Stopped>>,
    pub(super) guest: Guest,
    pub(super) since: Instant,
    gone: CancellationToken,
}

impl Live {
    fn end(&self, why: Stopped) {
        *self.why.lock() = why;
        self.stop.cancel();
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) session: Arc<Session>,
    pub(super) live: Option<Box<Live>>,
    /// Where it stands in the order of expiry, while it has no connection.
    pub(super) expires: Option<(Instant, u64)>,
    /// A will whose delay runs, and when it is over.
    will: Option<((Instant, u64), Box<Delayed>)>,
}

/// A will, and its part of the bound of all.
pub type KeptWill = Box<(Will, WillPart)>;

/// A will that waits for its delay to pass.
#[derive(Debug)]
pub struct Delayed {
    /// What is to be published.
    pub will: KeptWill,
    /// Whose it is.
    pub(super) client: super::Client,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Arc<str>, Entry>,
    by_expiry: BTreeMap<(Instant, u64), Arc<str>>,
    by_will: BTreeMap<(Instant, u64), Arc<str>>,
    /// Wills that are to be published.
    due: Vec<Delayed>,
    next: u64,
}

/// All sessions of a proxy.
#[derive(Debug)]
pub struct Sessions {
    state: Mutex<State>,
    local: Arc<Local>,
    sessions_max: usize,
    expiry_max: Duration,
    shutdown: CancellationToken,
}

/// A connection's hold of its session; ends with it.
#[derive(Debug)]
pub struct Claim {
    sessions: Arc<Sessions>,
    /// Whose it is.
    pub client_id: Arc<str>,
    /// The connection's number.
    pub number: u64,
    gone: CancellationToken,
    /// What is kept.
    pub session: Arc<Session>,
    /// Whether it was there before.
    pub present: bool,
    /// Cancelled when the proxy stops, and when the connection is to end for another reason.
    pub stop: CancellationToken,
    why: Arc<Mutex<Stopped>>,
    /// How long the session is kept after the connection.
    pub expiry: Duration,
    /// What is to be published when this long has passed after it, unless the client is back.
    pub will: Option<(Duration, Box<Delayed>)>,
}

impl Sessions {
    /// No sessions.
    #[must_use]
    pub fn new(
        local: Arc<Local>,
        sessions_max: usize,
        expiry_max: Duration,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            state: Mutex::default(),
            local,
            sessions_max,
            expiry_max,
            shutdown,
        }
    }

    /// The time a session is really kept.
    #[must_use]
    pub fn granted(&self, expiry_s: u32) -> Duration {
        Duration::from_secs(u64::from(expiry_s)).min(self.expiry_max)
    }

    /// Takes up a session that was kept; it expires as if the gateway had run all the time.
    pub fn restore(&self, client_id: &str, kept: KeptSession) {
        let client_id: Arc<str> = client_id.into();
        let outbox = self
            .local
            .restore(&client_id, &kept.filters, kept.session, kept.queued);
        let session = Arc::new(Session::with_ids(outbox, kept.received));
        let expiry = kept.expiry.min(self.expiry_max);
        let away = kept
            .left_ms
            .map_or(0, |left| wall_ms().saturating_sub(left));
        // A clock that is behind says nothing.
        let away = Duration::from_millis(u64::try_from(away).unwrap_or(0));
        let mut state = self.state.lock();
        let key = (Instant::now() + expiry.saturating_sub(away), state.next);
        state.next += 1;
        if kept.left_ms.is_none()
            && let Some(keep) = session.keep()
        {
            keep.session(expiry, Some(wall_ms()));
        }
        state.by_expiry.insert(key, Arc::clone(&client_id));
        let entry = Entry {
            session,
            live: None,
            expires: Some(key),
            will: None,
        };
        state.entries.insert(client_id, entry);
        state.expire(&self.local);
        while state.by_expiry.len() > self.sessions_max {
            state.drop_first(&self.local);
        }
    }

    /// Claims a client id for a new connection; ends the connection that has it.
    pub async fn claim(
        self: &Arc<Self>,
        client_id: &str,
        (clean, expiry): (bool, Duration),
        guest: Guest,
    ) -> Claim {
        let deadline = Instant::now() + TAKEOVER_MAX;
        loop {
            let gone = {
                let mut state = self.state.lock();
                let live = state
                    .entries
                    .get(client_id)
                    .and_then(|entry| entry.live.as_ref());
                match live {
                    Some(live) if Instant::now() < deadline => {
                        live.end(Stopped::TakenOver);
                        live.gone.clone()
                    }
                    _ => return self.enter(&mut state, client_id, (clean, expiry), guest),
                }
            };
            if timeout(TAKEOVER_MAX, gone.cancelled()).await.is_err() {
                tracing::warn!(client_id, "connection does not end for its successor");
            }
        }
    }

    fn enter(
        self: &Arc<Self>,
        state: &mut State,
        client_id: &str,
        (clean, expiry): (bool, Duration),
        guest: Guest,
    ) -> Claim {
        state.expire(&self.local);
        let client_id: Arc<str> = client_id.into();
        let kept = state.take(&client_id, clean, &self.local);
        let present = kept.is_some();
        let lasts = !expiry.is_zero();
        let session =
            kept.unwrap_or_else(|| Arc::new(Session::new(self.local.outbox(&client_id, lasts))));
        if let Some(keep) = session.keep() {
            keep.session(expiry, None);
        }
        let number = state.next;
        state.next += 1;
        let stop = self.shutdown.child_token();
        let gone = CancellationToken::new();
        let why = Arc::default();
        let live = Live {
            number,
            stop: stop.clone(),
            why: Arc::clone(&why),
            guest,
            since: Instant::now(),
            gone: gone.clone(),
        };
        state.entries.insert(
            Arc::clone(&client_id),
            Entry {
                session: Arc::clone(&session),
                live: Some(Box::new(live)),
                expires: None,
                will: None,
            },
        );
        Claim {
            sessions: Arc::clone(self),
            client_id,
            number,
            gone,
            session,
            present,
            stop,
            why,
            expiry,
            will: None,
        }
    }

    /// Ends the connections that would not be let in any more.
    pub fn look_at_passes(&self) {
        let state = self.state.lock();
        let live = state.entries.values().filter_map(|it| it.live.as_ref());
        for live in live.filter(|live| !live.guest.pass.holds()) {
            live.end(Stopped::NotAuthorised);
        }
    }

    /// The clients behind `after`, in the order of their ids, at most so many; whether there are
    /// more.
    pub fn list(&self, after: &str, most: usize) -> (Vec<ClientInfo>, bool) {
        let state = self.state.lock();
        let behind = state.entries.keys().filter(|id| ***id > *after);
        let mut ids: Vec<&Arc<str>> = behind.collect();
        ids.sort_unstable();
        let more = ids.len() > most;
        let now = Instant::now();
        let entries = ids.into_iter().take(most);
        let told = entries.filter_map(|id| Some(ClientInfo::of(id, state.entries.get(id)?, now)));
        (told.collect(), more)
    }

    /// Clients that are connected, and that are away.
    pub fn count(&self) -> (u64, u64) {
        let state = self.state.lock();
        let away = state.by_expiry.len();
        let connected = state.entries.len().saturating_sub(away);
        (connected as u64, away as u64)
    }

    /// Sends a client away, and `forgets` its session or not. `false`: there is no such client.
    pub fn kick(&self, client_id: &str, forgets: bool) -> bool {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get(client_id) else {
            return false;
        };
        if let Some(live) = &entry.live {
            live.end(Stopped::Kicked { forgets });
        } else if forgets {
            state.take(client_id, true, &self.local);
        }
        true
    }

    /// The wills whose time has come; forgets the sessions whose time has.
    pub fn due(&self) -> Vec<Delayed> {
        let mut state = self.state.lock();
        state.expire(&self.local);
        let now = Instant::now();
        while let Some(first) = state
            .by_will
            .first_entry()
            .filter(|first| first.key().0 <= now)
        {
            let client_id = first.remove();
            let entry = state.entries.get_mut(&client_id);
            if let Some((_, will)) = entry.and_then(|entry| entry.will.take()) {
                state.due.push(*will);
            }
        }
        std::mem::take(&mut state.due)
    }

    fn leave(&self, claim: &mut Claim) {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(&claim.client_id) else {
            return;
        };
        if entry.live.as_ref().map(|live| live.number) != Some(claim.number) {
            return;
        }
        entry.live = None;
        let now = Instant::now();
        let will = claim.will.take().map(|(delay, will)| {
            let key = (now + delay.min(claim.expiry), claim.number);
            (key, will)
        });
        let will_key = will.as_ref().map(|(key, _)| *key);
        entry.will = will;
        if let Some(key) = will_key {
            state.by_will.insert(key, Arc::clone(&claim.client_id));
        }
        if claim.expiry.is_zero() {
            state.take(&claim.client_id, true, &self.local);
            return;
        }
        if let Some(keep) = claim.session.keep() {
            keep.session(claim.expiry, Some(wall_ms()));
        }
        let key = (now + claim.expiry, claim.number);
        if let Some(entry) = state.entries.get_mut(&claim.client_id) {
            entry.expires = Some(key);
        }
        state.by_expiry.insert(key, Arc::clone(&claim.client_id));
        state.expire(&self.local);
        while state.by_expiry.len() > self.sessions_max {
            state.drop_first(&self.local);
        }
    }
}

impl State {
    /// Takes a session out. If it is to end, its subscriptions do, and its will is due; else it is
    /// handed out, and its will taken back.
    fn take(&mut self, client_id: &str, ends: bool, local: &Local) -> Option<Arc<Session>> {
        let old = self.entries.remove(client_id)?;
        if let Some(key) = old.expires {
            self.by_expiry.remove(&key);
        }
        if let Some((key, will)) = old.will {
            self.by_will.remove(&key);
            if ends {
                self.due.push(*will);
            }
        }
        if ends {
            old.session.end();
            local.end(&old.session.outbox);
            return None;
        }
        Some(old.session)
    }

    fn expire(&mut self, local: &Local) {
        let now = Instant::now();
        while self
            .by_expiry
            .first_key_value()
            .is_some_and(|((at, _), _)| *at <= now)
        {
            self.drop_first(local);
        }
    }

    fn drop_first(&mut self, local: &Local) {
        if let Some((_, client_id)) = self.by_expiry.pop_first() {
            self.take(&client_id, true, local);
        }
    }
}

impl Claim {
    /// Why the connection was stopped, if the proxy has not.
    pub fn stopped(&mut self) -> Stopped {
        let why = *self.why.lock();
        if why == (Stopped::Kicked { forgets: true }) {
            self.expiry = Duration::ZERO;
        }
        why
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.session.outbox.detach(self.number);
        let sessions = Arc::clone(&self.sessions);
        sessions.leave(self);
        self.gone.cancel();
    }
}
