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

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::encode::{Delivery, publish};
use super::message::Message;
use crate::metrics::{Counter, Metrics};
use crate::proxy::acks::Acks;
use crate::proxy::packet::{self, Ack, Version, reason};

/// Memory that a copy takes beside its message, in bytes, about.
const COPY_BYTES: usize = 64;

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
    flights: HashMap<u16, Flight>,
    /// Packet ids to send again on this connection.
    again: VecDeque<u16>,
    next_number: u64,
    last_id: u16,
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
    pub filters: Mutex<Option<HashSet<Box<str>>>>,
    limits: Arc<Limits>,
    connected: AtomicBool,
    work: AtomicBool,
    state: Mutex<State>,
}

/// The client acknowledged what it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unexpected;

fn size(message: &Message) -> usize {
    COPY_BYTES + message.bytes()
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
            self.free(&mut state, size(&waiting.message));
        }
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
        let bytes = size(message);
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
        if bytes > limits.bytes_max {
            return false;
        }
        loop {
            let waiting = if qos == 0 {
                state.fleeting.len()
            } else {
                state.lasting.len()
            };
            let fits = waiting < limits.messages_max
                && state.bytes + bytes <= limits.bytes_max
                && limits.total.load(Ordering::Relaxed) + bytes <= limits.total_max;
            if fits || qos == 0 {
                return fits;
            }
            let Some(oldest) = state.lasting.pop_front() else {
                return false;
            };
            self.free(state, size(&oldest.message));
            self.dropped(Counter::UndeliveredFull);
        }
    }

    /// Appends what the client may get now, about `bytes_max` at once. `true`: there is more.
    pub fn take(&self, connection: u64, out: &mut Vec<u8>, bytes_max: usize) -> bool {
        if !self.work.load(Ordering::Acquire) {
            return false;
        }
        let mut state = self.state.lock();
        self.work.store(false, Ordering::Relaxed);
        let Some(door) = state.door.take() else {
            return false;
        };
        let mut more = false;
        if door.number == connection {
            let now = Instant::now();
            let end = out.len() + bytes_max;
            while self.take_one(&mut state, &door, out, now) {
                if out.len() >= end {
                    more = true;
                    break;
                }
            }
        }
        state.door = Some(door);
        if more {
            self.work.store(true, Ordering::Relaxed);
        }
        more
    }

    /// Sends, or drops, one message. `false`: there is none that may go.
    fn take_one(&self, state: &mut State, door: &Door, out: &mut Vec<u8>, now: Instant) -> bool {
        let sent = state.flights.len().saturating_sub(state.again.len());
        let room = sent < door.receive_maximum;
        if room && let Some(id) = state.again.pop_front() {
            self.repeat(state, door, out, (id, now));
            return true;
        }
        let room = room && state.again.is_empty();
        let lasting = state.lasting.front().filter(|_| room);
        let fleeting = state.fleeting.front();
        let first_lasts = match (lasting, fleeting) {
            (Some(lasting), Some(fleeting)) => lasting.number < fleeting.number,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let next = if first_lasts {
            state.lasting.pop_front()
        } else {
            state.fleeting.pop_front()
        };
        let Some(waiting) = next else {
            if state.fleeting.is_empty() && state.fleeting.capacity() > 64 {
                state.fleeting = VecDeque::new();
            }
            return false;
        };
        self.send(state, door, out, (waiting, now));
        true
    }

    fn send(
        &self,
        state: &mut State,
        door: &Door,
        out: &mut Vec<u8>,
        (waiting, now): (Waiting, Instant),
    ) {
        let bytes = size(&waiting.message);
        let qos = waiting.grant.qos;
        let id = if qos > 0 { state.free_id() } else { 0 };
        let copy = Delivery {
            message: &waiting.message,
            grant: &waiting.grant,
            id,
            again: false,
        };
        if waiting.message.is_expired(now) {
            self.free(state, bytes);
            self.dropped(Counter::UndeliveredExpired);
        } else if !publish(out, door.version, &copy, (door.packet_bytes_max, now)) {
            self.free(state, bytes);
            self.dropped(Counter::UndeliveredTooLarge);
        } else {
            self.dropped(Counter::Delivered);
            if qos == 0 {
                self.free(state, bytes);
                return;
            }
            state.last_id = id;
            let flight = Flight {
                number: waiting.number,
                qos,
                bytes,
                stage: Stage::Sent(waiting.message, waiting.grant),
            };
            state.flights.insert(id, flight);
        }
    }

    /// Sends again what the last connection had sent.
    fn repeat(&self, state: &mut State, door: &Door, out: &mut Vec<u8>, (id, now): (u16, Instant)) {
        let fits = match state.flights.get(&id).map(|flight| &flight.stage) {
            None => return,
            Some(Stage::Released) => {
                packet::ack(out, door.version, Ack::Pubrel, id, reason::SUCCESS);
                true
            }
            Some(Stage::Sent(message, grant)) => {
                let copy = Delivery {
                    message,
                    grant,
                    id,
                    again: true,
                };
                publish(out, door.version, &copy, (door.packet_bytes_max, now))
            }
        };
        if !fits {
            self.forget(state, id);
            self.dropped(Counter::UndeliveredTooLarge);
        }
    }

    fn forget(&self, state: &mut State, id: u16) {
        if let Some(flight) = state.flights.remove(&id) {
            self.free(state, flight.bytes);
        }
        if state.flights.is_empty() && state.flights.capacity() > 64 {
            state.flights = HashMap::new();
        }
        self.work.store(true, Ordering::Release);
    }

    /// The client acknowledges. `Ok(true)`: a PUBREL is due.
    ///
    /// # Errors
    /// [`Unexpected`] when the message is not at a stage that this ends. An id that is not known
    /// may be of a session that has ended, and is passed over.
    pub fn acknowledge(&self, kind: Ack, id: u16, code: u8) -> Result<bool, Unexpected> {
        let mut state = self.state.lock();
        let unknown = kind == Ack::Pubrec && code < reason::UNSPECIFIED;
        // What this connection was not sent yet it cannot acknowledge.
        let unsent = state.again.contains(&id);
        let Some(flight) = state.flights.get_mut(&id).filter(|_| !unsent) else {
            return Ok(unknown);
        };
        match (kind, flight.qos, &flight.stage) {
            (Ack::Puback, 1, Stage::Sent(..)) | (Ack::Pubcomp, 2, Stage::Released) => {
                self.forget(&mut state, id);
                Ok(false)
            }
            (Ack::Pubrec, 2, _) if code >= reason::UNSPECIFIED => {
                self.forget(&mut state, id);
                Ok(false)
            }
            (Ack::Pubrec, 2, _) => {
                flight.stage = Stage::Released;
                let bytes = std::mem::take(&mut flight.bytes);
                self.free(&mut state, bytes);
                Ok(true)
            }
            _ => Err(Unexpected),
        }
    }
}

impl State {
    /// The next packet id that is not in use. There is one, for a receive maximum is at most
    /// 65,535 and this is called below it.
    fn free_id(&self) -> u16 {
        let mut id = self.last_id;
        loop {
            id = id.checked_add(1).unwrap_or(1);
            if !self.flights.contains_key(&id) {
                return id;
            }
        }
    }
}
