//! A session's outbox: what it is to get, bounded, and what was sent and is not acknowledged.
//!
//! ```text
//!   offer ─▶ waiting ─take─▶ Sent ──PUBACK──▶ gone
//!                              └──PUBREC──▶ Released ──PUBCOMP──▶ gone
//! ```
//! # Invariants
//! - Whoever offers a message never waits: at a bound messages are dropped and counted. Of QoS 0
//!   the newest goes, and nothing is kept while the client is away; of QoS 1 and 2 the oldest that
//!   was not sent.
//! - At most the client's receive maximum of messages is unacknowledged.
//! - After a new connection what was sent goes first, in its order: PUBLISH with DUP, or PUBREL.

mod search;
mod sending;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;

use super::message::Message;
use crate::metrics::{Counter, Metrics};
use crate::proxy::acks::Acks;
use crate::proxy::packet::Version;

pub use search::{Room, Search};
pub use sending::Unexpected;

/// Memory that a copy takes beside its message, in bytes, about.
const COPY_BYTES: usize = 64;
/// Places that an empty queue keeps.
const CAPACITY_KEPT: usize = 64;

/// What all outboxes share.
#[derive(Debug)]
pub struct Limits {
    /// Most messages of one outbox that wait.
    pub messages_max: usize,
    /// Most bytes of one outbox.
    pub bytes_max: usize,
    /// Most bytes of all.
    pub total_max: usize,
    /// Bytes of all.
    pub total: AtomicUsize,
    /// Where drops are counted.
    pub metrics: Arc<Metrics>,
}

/// What a subscription makes of a message.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    /// Of its delivery.
    pub qos: u8,
    /// Of its delivery.
    pub retain: bool,
    /// v5: identifiers of the subscriptions it matched.
    pub identifiers: Vec<u32>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    message: Arc<Message>,
    grant: Grant,
}

/// How far a sent message has come.
#[derive(Debug)]
enum Stage {
    /// Neither PUBACK nor PUBREC has come.
    Sent(Arc<Message>, Grant),
    /// PUBREC has come, its PUBREL was sent.
    Released,
}

#[derive(Debug)]
struct Flight {
    number: u64,
    qos: u8,
    bytes: usize,
    stage: Stage,
}

/// The connection that an outbox is emptied by.
#[derive(Debug)]
pub struct Door {
    /// Its number.
    pub number: u64,
    /// What it speaks.
    pub version: Version,
    /// Most unacknowledged messages.
    pub receive_maximum: usize,
    /// Largest packet the client takes, in bytes.
    pub packet_bytes_max: usize,
    /// Wakes it.
    pub acks: Arc<Acks>,
}

#[derive(Debug, Default)]
struct State {
    door: Option<Door>,
    /// QoS 0, and QoS 1 and 2: apart, for QoS 0 does not wait for acknowledgements.
    fleeting: VecDeque<Waiting>,
    lasting: VecDeque<Waiting>,
    lasting_bytes: usize,
    /// Filters whose retained messages are to be looked for.
    searches: VecDeque<Search>,
    flights: HashMap<u16, Flight>,
    /// Packet ids to send again on this connection.
    again: VecDeque<u16>,
    next_number: u64,
    last_id: u16,
    /// Bytes of QoS 0 messages that the connection writes.
    writing: usize,
    bytes: usize,
    ended: bool,
}

/// One session's outbox.
#[derive(Debug)]
pub struct Outbox {
    /// Its number, of all outboxes of the proxy.
    pub number: u64,
    /// Whose it is.
    pub client_id: Arc<str>,
    /// The filters it subscribes to, as written; `None` when the session has ended.
    pub filters: Mutex<Option<HashSet<Arc<str>>>>,
    limits: Arc<Limits>,
    connected: AtomicBool,
    work: AtomicBool,
    searching: AtomicBool,
    state: Mutex<State>,
}

/// Memory that a copy counts for, in bytes: each as if it had the message for itself.
fn size(message: &Message, grant: &Grant) -> usize {
    COPY_BYTES + message.bytes() + size_of_val(&*grant.identifiers)
}

impl Waiting {
    fn bytes(&self) -> usize {
        size(&self.message, &self.grant)
    }
}

impl Outbox {
    /// An empty one.
    #[must_use]
    pub fn new(number: u64, client_id: Arc<str>, limits: Arc<Limits>) -> Self {
        Self {
            number,
            client_id,
            filters: Mutex::new(Some(HashSet::new())),
            limits,
            connected: AtomicBool::new(false),
            work: AtomicBool::new(false),
            searching: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Whether a client is there to take what is offered.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// A connection takes over: what was sent before is to be sent again.
    pub fn attach(&self, door: Door) {
        let mut state = self.state.lock();
        let mut again: Vec<(u64, u16)> = state
            .flights
            .iter()
            .map(|(id, flight)| (flight.number, *id))
            .collect();
        again.sort_unstable();
        state.again = again.into_iter().map(|(_, id)| id).collect();
        state.door = Some(door);
        self.connected.store(true, Ordering::Relaxed);
        self.work.store(true, Ordering::Release);
    }

    /// The connection is gone. QoS 0 is not kept.
    pub fn detach(&self, connection: u64) {
        let mut state = self.state.lock();
        if state.door.as_ref().map(|door| door.number) != Some(connection) {
            return;
        }
        state.door = None;
        self.connected.store(false, Ordering::Relaxed);
        let fleeting = std::mem::take(&mut state.fleeting);
        for waiting in fleeting {
            self.free(&mut state, waiting.bytes());
        }
        let writing = std::mem::take(&mut state.writing);
        self.free(&mut state, writing);
    }

    /// The session ends, and all that it was to get.
    pub fn end(&self) {
        let mut state = self.state.lock();
        let bytes = state.bytes;
        self.free(&mut state, bytes);
        let door = state.door.take();
        *state = State {
            door,
            ended: true,
            ..State::default()
        };
    }

    fn free(&self, state: &mut State, bytes: usize) {
        state.bytes = state.bytes.saturating_sub(bytes);
        self.limits.total.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn dropped(&self, why: Counter) {
        self.limits.metrics.add(why, 1);
    }

    /// Takes a message for the client. Never waits.
    pub fn offer(&self, message: &Arc<Message>, grant: Grant) {
        let mut state = self.state.lock();
        if state.ended || (grant.qos == 0 && state.door.is_none()) {
            return;
        }
        let bytes = size(message, &grant);
        if !self.make_room(&mut state, grant.qos, bytes) {
            self.dropped(if grant.qos == 0 {
                Counter::UndeliveredQos0
            } else {
                Counter::UndeliveredFull
            });
            return;
        }
        state.bytes += bytes;
        self.limits.total.fetch_add(bytes, Ordering::Relaxed);
        let number = state.next_number;
        state.next_number += 1;
        let qos = grant.qos;
        let waiting = Waiting {
            number,
            message: Arc::clone(message),
            grant,
        };
        if qos == 0 {
            state.fleeting.push_back(waiting);
        } else {
            state.lasting.push_back(waiting);
            state.lasting_bytes += bytes;
        }
        if let Some(door) = &state.door
            && !self.work.swap(true, Ordering::Release)
        {
            door.acks.news.notify_one();
        }
    }

    /// Drops what is older, if that helps. `false`: the message does not fit.
    fn make_room(&self, state: &mut State, qos: u8, bytes: usize) -> bool {
        let limits = &self.limits;
        let over = |used: usize, max: usize| (used + bytes).saturating_sub(max);
        let total = limits.total.load(Ordering::Relaxed);
        let excess = over(state.bytes, limits.bytes_max).max(over(total, limits.total_max));
        if qos == 0 {
            return excess == 0 && state.fleeting.len() < limits.messages_max;
        }
        // What others have queued, or what is on the way, does not go for this.
        if excess > state.lasting_bytes {
            return false;
        }
        let mut freed = 0;
        while freed < excess || state.lasting.len() >= limits.messages_max {
            let Some(oldest) = state.pop_lasting() else {
                return freed >= excess;
            };
            freed += oldest.bytes();
            self.free(state, oldest.bytes());
            self.dropped(Counter::UndeliveredFull);
        }
        true
    }
}

impl State {
    fn pop_lasting(&mut self) -> Option<Waiting> {
        let first = self.lasting.pop_front()?;
        self.lasting_bytes = self.lasting_bytes.saturating_sub(first.bytes());
        if self.lasting.is_empty() && self.lasting.capacity() > CAPACITY_KEPT {
            self.lasting = VecDeque::new();
        }
        Some(first)
    }

    fn pop_fleeting(&mut self) -> Option<Waiting> {
        let first = self.fleeting.pop_front()?;
        if self.fleeting.is_empty() && self.fleeting.capacity() > CAPACITY_KEPT {
            self.fleeting = VecDeque::new();
        }
        Some(first)
    }
}
