//! What a connection owes its client: acknowledgements, in the order in which the messages came.
//!
//! Each QoS 1 and 2 message has a *slot*, numbered from 0 in the order of receipt; the number is
//! the token that the spool gives back. A slot is *done* when its record is safe (or was refused);
//! acknowledgements leave for the unbroken beginning of done slots only. One lock per call of the
//! spool, one per batch read.
//!
//! The queue outlives its connection as long as the spool holds a ticket to it: bytes in flight
//! stay counted, and the session learns that a QoS 2 record became safe, although nobody is left to
//! acknowledge to.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::bounds::Bounds;
use super::packet::{self, Ack, Telling, reason};
use super::session::Session;
use crate::spool::{Settle, Ticket};

/// In the tokens of answers that are held back.
const HELD: u64 = 1 << 63;

/// A message that waits to be acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Packet id.
    pub id: u16,
    /// PUBACK or PUBREC.
    pub kind: Ack,
    /// Reason code of the acknowledgement.
    pub reason: u8,
    /// Whether it may be acknowledged.
    pub done: bool,
    /// How many tickets are settled before the one that makes it so.
    pub waits: u8,
    /// Whether a safe record makes the session's packet id safe (QoS 2, first receipt).
    pub first: bool,
    /// Bytes of its record, while it is in flight.
    pub bytes: usize,
    /// When it was read.
    pub received: Instant,
}

/// What is in flight of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// Messages not acknowledged.
    pub slots: usize,
    /// Bytes that are not safe.
    pub bytes: usize,
}

/// What [`Acks::take`] has taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// PUBACKs.
    pub pubacks: usize,
    /// PUBRECs that end their message, for they refuse it.
    pub refused_pubrecs: usize,
}

#[derive(Debug, Default)]
struct State {
    slots: VecDeque<Slot>,
    /// Number of the first slot.
    front: u64,
    /// Bytes that are not safe.
    bytes: usize,
    /// Who waits for a slot to be done.
    followers: HashMap<u64, Vec<Ticket>>,
    /// Answers of their own that wait for the disk: token, packet, whether it may leave.
    held: VecDeque<(u64, Vec<u8>, bool)>,
    next_held: u64,
    /// No connection any more: slots are dropped when done.
    closed: bool,
}

/// The queue of one connection.
#[derive(Debug)]
pub struct Acks {
    state: Mutex<State>,
    /// Wakes the connection when there is something to send.
    pub news: Notify,
    bounds: Arc<Bounds>,
    session: Arc<Session>,
}

impl State {
    fn open(&self) -> Open {
        Open {
            slots: self.slots.len(),
            bytes: self.bytes,
        }
    }

    fn drop_done(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.done) {
            self.slots.pop_front();
            self.front += 1;
        }
    }
}

impl Acks {
    /// An empty queue.
    #[must_use]
    pub fn new(bounds: Arc<Bounds>, session: Arc<Session>) -> Self {
        Self {
            state: Mutex::default(),
            news: Notify::new(),
            bounds,
            session,
        }
    }

    /// Adds slots, before their records are handed to the spool; leaves `slots` empty.
    pub fn push(&self, slots: &mut Vec<Slot>) -> Open {
        let mut state = self.state.lock();
        let mut bytes = 0;
        for slot in slots.drain(..) {
            if !slot.done {
                bytes += slot.bytes;
            }
            state.slots.push_back(slot);
        }
        state.bytes += bytes;
        self.bounds.add(bytes);
        state.open()
    }

    /// Tickets to settle when their slot is done; before its record is handed to the spool.
    pub fn follow(&self, followers: &mut Vec<(u64, Ticket)>) {
        if followers.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        for (token, ticket) in followers.drain(..) {
            state.followers.entry(token).or_default().push(ticket);
        }
    }

    /// What is in flight.
    pub fn open(&self) -> Open {
        self.state.lock().open()
    }

    /// Whether everything has been taken.
    pub fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.slots.is_empty() && state.held.is_empty()
    }

    /// Whether a SUBACK is held back: what is retained comes behind it.
    pub fn holds_suback(&self) -> bool {
        let state = self.state.lock();
        let mut held = state.held.iter();
        held.any(|(_, answer, _)| answer.first() == Some(&0x90))
    }

    /// Holds an answer back until the returned token is settled.
    pub fn hold(&self, answer: Vec<u8>) -> u64 {
        let mut state = self.state.lock();
        let token = HELD | state.next_held;
        state.next_held += 1;
        state.held.push_back((token, answer, false));
        token
    }

    /// Appends the acknowledgements that may leave to `out`. Tells `came` when their messages came,
    /// and how many at once.
    pub fn take(
        &self,
        out: &mut Vec<u8>,
        telling: Telling,
        mut came: impl FnMut(Instant, u64),
    ) -> Taken {
        let mut taken = Taken::default();
        let mut together: Option<(Instant, u64)> = None;
        let mut state = self.state.lock();
        while let Some(slot) = state.slots.front().filter(|slot| slot.done) {
            packet::answer(out, telling, slot.kind, slot.id, slot.reason);
            match slot.kind {
                Ack::Puback => taken.pubacks += 1,
                _ if slot.reason >= reason::UNSPECIFIED => taken.refused_pubrecs += 1,
                _ => {}
            }
            match &mut together {
                Some((at, count)) if *at == slot.received => *count += 1,
                _ => {
                    if let Some((at, count)) = together.replace((slot.received, 1)) {
                        came(at, count);
                    }
                }
            }
            state.slots.pop_front();
            state.front += 1;
        }
        if let Some((at, count)) = together {
            came(at, count);
        }
        while let Some((_, answer, _)) = state.held.pop_front_if(|(_, _, done)| *done) {
            out.extend_from_slice(&answer);
            // What waits for it may follow.
            self.news.notify_one();
        }
        taken
    }

    /// The connection is gone.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.drop_done();
        state.slots.shrink_to_fit();
    }

    /// Gives memory back while the connection is idle.
    pub fn shrink(&self) {
        let mut state = self.state.lock();
        if state.slots.is_empty() {
            state.slots = VecDeque::new();
        }
    }

    /// Marks a slot as done that has no record of its own.
    pub fn done(&self, token: u64) {
        self.safe(&[token]);
    }
}

impl Settle for Acks {
    fn safe(&self, tokens: &[u64]) {
        let mut bytes = 0;
        let mut waiters = Vec::new();
        let mut due = Vec::new();
        let wake = {
            let mut state = self.state.lock();
            let State {
                slots,
                front,
                bytes: open,
                held,
                followers,
                ..
            } = &mut *state;
            for token in tokens {
                if token & HELD != 0 {
                    held.iter_mut()
                        .filter(|(of, _, _)| of == token)
                        .for_each(|(_, _, done)| *done = true);
                    continue;
                }
                let at = token
                    .checked_sub(*front)
                    .and_then(|at| usize::try_from(at).ok());
                let Some(slot) = at
                    .and_then(|at| slots.get_mut(at))
                    .filter(|slot| !slot.done)
                else {
                    continue;
                };
                if slot.waits > 0 {
                    slot.waits -= 1;
                    continue;
                }
                slot.done = true;
                bytes += slot.bytes;
                *open = open.saturating_sub(slot.bytes);
                if slot.first {
                    // Before a PUBREC can leave: the client's PUBREL may be faster than this.
                    waiters.extend(self.session.made_safe(slot.id));
                    due.extend(followers.remove(token).into_iter().flatten());
                }
            }
            if state.closed {
                state.drop_done();
            }
            state.slots.front().is_some_and(|slot| slot.done)
                || state.held.front().is_some_and(|(_, _, done)| *done)
        };
        self.bounds.sub(bytes);
        for Ticket { to, token } in due {
            to.safe(&[token]);
        }
        for (acks, token) in waiters {
            acks.done(token);
        }
        if wake {
            self.news.notify_one();
        }
    }
}
