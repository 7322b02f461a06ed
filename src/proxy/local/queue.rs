//! A session's outbox: what it is to get, bounded, and what was sent and is not acknowledged.
//!
//! ```text
//!   offer ─▶ waiting ─take─▶ Sent ──PUBACK──▶ gone
//!                              └──PUBREC──▶ Released ──PUBCOMP──▶ gone
//! ```
//! # Invariants
//! - Whoever offers a message never waits: at a bound messages are dropped and counted. Of QoS 0
//!   the newest goes, and nothing is kept while the client is away; of QoS 1 and 2 the oldest that
//!   was not sent, or the newest while the oldest goes to disk with its record.
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
use crate::access::acl::{Action, Rights};
use crate::metrics::{Counter, Metrics};
use crate::proxy::acks::Acks;
use crate::proxy::keep::{Keep, Queued, WithRecord};
use crate::proxy::packet::Version;
use crate::spool::{Settle, Ticket};

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

/// What a message waits for, beside its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Nothing,
    /// What is kept of it is being synced.
    Sync,
    /// It is kept with its record, which is not safe.
    Record,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    /// QoS 2 of a session that is kept: its packet id, which is kept with it.
    id: Option<u16>,
    waits: Wait,
    /// It may have been sent before a restart.
    again: bool,
    message: Arc<Message>,
    grant: Grant,
}

/// How far a sent message has come.
#[derive(Debug)]
enum Stage {
    /// Neither PUBACK nor PUBREC has come.
    Sent(Arc<Message>, Grant),
    /// PUBREC has come, and if that must be synced, it is: its PUBREL may be sent.
    Released,
    /// PUBREC has come, which is being synced.
    Releasing,
}

#[derive(Debug)]
struct Flight {
    number: u64,
    qos: u8,
    bytes: usize,
    stage: Stage,
}

/// What is in an outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Messages that were not sent.
    pub queued: usize,
    /// Messages that were, and are not acknowledged.
    pub unacknowledged: usize,
    /// Bytes of both.
    pub bytes: usize,
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
    /// What the client may be sent; `None`: everything.
    pub rights: Option<Rights>,
    /// Wakes it.
    pub acks: Arc<Acks>,
}

impl Door {
    /// Whether the client may be sent messages of this topic.
    fn allows(&mut self, topic: &[u8]) -> bool {
        let rights = self.rights.as_mut();
        rights.is_none_or(|rights| rights.allow(Action::Read, topic))
    }
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
    /// Packet ids whose PUBREL is due.
    releases: VecDeque<u16>,
    /// Packet ids of messages that wait.
    reserved: HashSet<u16>,
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
    /// The session's part of the disk; `None`: it ends with its connection.
    pub keep: Option<Keep>,
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
    pub fn new(number: u64, client_id: Arc<str>, limits: Arc<Limits>, keep: Option<Keep>) -> Self {
        Self {
            number,
            client_id,
            filters: Mutex::new(Some(HashSet::new())),
            limits,
            keep,
            connected: AtomicBool::new(false),
            work: AtomicBool::new(false),
            searching: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// What is in it.
    #[must_use]
    pub fn waits(&self) -> Waits {
        let state = self.state.lock();
        Waits {
            queued: state.fleeting.len() + state.lasting.len(),
            unacknowledged: state.flights.len(),
            bytes: state.bytes,
        }
    }

    /// Whether a client is there to take what is offered.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Whether [`Outbox::take`] or [`Outbox::next_search`] may have something.
    #[inline]
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.work.load(Ordering::Acquire) || self.searching.load(Ordering::Acquire)
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
        state.releases.clear();
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
        let flights = state.flights.values().map(|flight| flight.number);
        let waiting = state.lasting.iter().map(|waiting| waiting.number);
        self.done(flights.chain(waiting));
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

    /// Messages are kept no more.
    fn done(&self, numbers: impl IntoIterator<Item = u64>) {
        if let Some(keep) = &self.keep {
            keep.done(numbers);
        }
    }

    fn dropped(&self, why: Counter) {
        self.limits.metrics.add(why, 1);
    }

    /// Takes a message for the client. Never waits. Returns whether it is kept. At QoS 2 the client
    /// must not get it under another packet id after a restart, nor get it at all if its publisher
    /// sends it again: it waits to be kept, or for its record, if that comes `with` something.
    pub fn offer(
        self: &Arc<Self>,
        message: &Arc<Message>,
        grant: Grant,
        with: Option<&mut WithRecord>,
    ) -> bool {
        let mut state = self.state.lock();
        if state.ended || (grant.qos == 0 && state.door.is_none()) {
            return false;
        }
        let door = state.door.as_mut();
        if door.is_some_and(|door| !door.allows(&message.topic)) {
            self.dropped(Counter::UndeliveredDenied);
            return false;
        }
        let bytes = size(message, &grant);
        if !self.make_room(&mut state, grant.qos, bytes) {
            self.dropped(if grant.qos == 0 {
                Counter::UndeliveredQos0
            } else {
                Counter::UndeliveredFull
            });
            return false;
        }
        state.bytes += bytes;
        self.limits.total.fetch_add(bytes, Ordering::Relaxed);
        let number = state.next_number;
        state.next_number += 1;
        let qos = grant.qos;
        let keep = self.keep.as_ref().filter(|_| qos > 0);
        let id = keep.filter(|_| qos == 2).map(|_| state.reserve_id());
        let mut waits = Wait::Nothing;
        if let Some(keep) = keep {
            let change = keep.queued(number, (message, &grant), id.unwrap_or(0));
            let ticket = id.map(|_| self.ticket(number << 1));
            match with {
                Some(with) if qos == 2 => {
                    waits = Wait::Record;
                    with.changes.push(change);
                    with.tickets.extend(ticket);
                }
                _ => {
                    if qos == 2 {
                        waits = Wait::Sync;
                    }
                    keep.keep(change, ticket);
                }
            }
        }
        let kept = keep.is_some() && waits != Wait::Record;
        let waiting = Waiting {
            number,
            id,
            waits,
            again: false,
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
        kept
    }

    /// Settled when what is kept of a message is synced: its number twice, and 1 for PUBREC's.
    fn ticket(self: &Arc<Self>, token: u64) -> Ticket {
        Ticket {
            to: Arc::clone(self) as Arc<dyn Settle>,
            token,
        }
    }

    /// Takes up a message that was kept; those of one outbox in the order of their numbers.
    pub fn restore(&self, number: u64, queued: Queued) {
        let mut state = self.state.lock();
        state.next_number = state.next_number.max(number.saturating_add(1));
        match queued {
            Queued::Released(id) => {
                let flight = Flight {
                    number,
                    qos: 2,
                    bytes: 0,
                    stage: Stage::Released,
                };
                state.flights.insert(id, flight);
            }
            Queued::Waiting(copy, id) => {
                let (message, grant) = *copy;
                let id = Some(id).filter(|id| *id > 0);
                state.reserved.extend(id);
                let waiting = Waiting {
                    number,
                    id,
                    waits: Wait::Nothing,
                    again: id.is_some(),
                    message: Arc::new(message),
                    grant,
                };
                let bytes = waiting.bytes();
                state.bytes += bytes;
                state.lasting_bytes += bytes;
                self.limits.total.fetch_add(bytes, Ordering::Relaxed);
                state.lasting.push_back(waiting);
            }
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
            // What goes to disk with its record cannot be taken back before that is there.
            let oldest = state.lasting.front();
            if oldest.is_some_and(|oldest| oldest.waits == Wait::Record) {
                return false;
            }
            let Some(oldest) = state.pop_lasting() else {
                return freed >= excess;
            };
            freed += oldest.bytes();
            self.done([oldest.number]);
            self.free(state, oldest.bytes());
            self.dropped(Counter::UndeliveredFull);
        }
        true
    }
}

impl Settle for Outbox {
    fn safe(&self, tokens: &[u64]) {
        let mut state = self.state.lock();
        for token in tokens {
            let number = token >> 1;
            if token & 1 == 0 {
                let at = state.lasting.binary_search_by_key(&number, |it| it.number);
                if let Some(waiting) = at.ok().and_then(|at| state.lasting.get_mut(at)) {
                    waiting.waits = Wait::Nothing;
                }
                continue;
            }
            let mut flights = state.flights.iter_mut();
            let id = flights.find(|(_, flight)| flight.number == number);
            if let Some((id, flight)) = id.filter(|(_, f)| matches!(f.stage, Stage::Releasing)) {
                let id = *id;
                flight.stage = Stage::Released;
                // One that is to be sent again is sent as it is now.
                if !state.again.contains(&id) {
                    state.releases.push_back(id);
                }
            }
        }
        if let Some(door) = &state.door
            && !self.work.swap(true, Ordering::Release)
        {
            door.acks.news.notify_one();
        }
    }
}

impl State {
    fn pop_lasting(&mut self) -> Option<Waiting> {
        let first = self.lasting.pop_front()?;
        if let Some(id) = first.id {
            self.reserved.remove(&id);
        }
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
