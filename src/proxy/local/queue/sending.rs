//! The way of messages out of an outbox, and of their acknowledgements.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::HashMap;
use tokio::time::Instant;

use super::{CAPACITY_KEPT, Door, Flight, Outbox, Stage, State, Wait, Waiting};
use crate::metrics::Counter;
use crate::proxy::local::encode::{Delivery, publish};
use crate::proxy::packet::{self, Ack, reason};

/// The client acknowledged what it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unexpected;

impl Outbox {
    /// Appends what the client may get now, about `bytes_max` at once. `true`: there is more.
    pub fn take(&self, connection: u64, out: &mut Vec<u8>, bytes_max: usize) -> bool {
        if !self.work.load(Ordering::Acquire) {
            return false;
        }
        let mut state = self.state.lock();
        self.work.store(false, Ordering::Relaxed);
        let Some(mut door) = state.door.take() else {
            return false;
        };
        let our = door.number == connection;
        // Another connection's work stays.
        let mut more = !our;
        if our {
            let now = Instant::now();
            let end = out.len() + bytes_max;
            while self.take_one(&mut state, &mut door, out, now) {
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
        more && our
    }

    /// What was taken has been written: QoS 0 messages count until then, for a client that does not
    /// read keeps them in its connection's memory.
    pub fn written(&self, connection: u64) {
        let mut state = self.state.lock();
        if state.door.as_ref().map(|door| door.number) == Some(connection) {
            let writing = std::mem::take(&mut state.writing);
            self.free(&mut state, writing);
        }
    }

    /// Sends, or drops, one message. `false`: there is none that may go.
    fn take_one(
        &self,
        state: &mut State,
        door: &mut Door,
        out: &mut Vec<u8>,
        now: Instant,
    ) -> bool {
        if let Some(id) = state.releases.pop_front() {
            packet::ack(out, door.version, Ack::Pubrel, id, reason::SUCCESS);
            return true;
        }
        let sent = state.flights.len().saturating_sub(state.again.len());
        let room = sent < door.receive_maximum;
        if room && let Some(id) = state.again.pop_front() {
            self.repeat(state, door, out, (id, now));
            return true;
        }
        let room = room && state.again.is_empty();
        let lasting = state
            .lasting
            .front()
            .filter(|first| room && first.waits == Wait::Nothing);
        let fleeting = state.fleeting.front();
        let first_lasts = match (lasting, fleeting) {
            (Some(lasting), Some(fleeting)) => lasting.number < fleeting.number,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let next = if first_lasts {
            state.pop_lasting()
        } else {
            state.pop_fleeting()
        };
        let Some(waiting) = next else {
            return false;
        };
        self.send(state, door, out, (waiting, now));
        true
    }

    fn send(
        &self,
        state: &mut State,
        door: &mut Door,
        out: &mut Vec<u8>,
        (waiting, now): (Waiting, Instant),
    ) {
        let bytes = waiting.bytes();
        let qos = waiting.grant.qos;
        let id = match waiting.id {
            Some(id) => id,
            None if qos > 0 => state.free_id(),
            None => 0,
        };
        let copy = Delivery {
            message: &waiting.message,
            grant: &waiting.grant,
            id,
            again: waiting.again,
        };
        let undelivered = if waiting.message.is_expired(now) {
            Some(Counter::UndeliveredExpired)
        } else if !door.allows(&waiting.message.topic) {
            Some(Counter::UndeliveredDenied)
        } else if !publish(out, door.version, &copy, (door.packet_bytes_max, now)) {
            Some(Counter::UndeliveredTooLarge)
        } else {
            None
        };
        if let Some(why) = undelivered {
            self.done((qos > 0).then_some(waiting.number));
            self.free(state, bytes);
            self.dropped(why);
            return;
        }
        self.dropped(Counter::Delivered);
        if qos == 0 {
            state.writing += bytes;
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

    /// Sends again what the last connection had sent.
    fn repeat(
        &self,
        state: &mut State,
        door: &mut Door,
        out: &mut Vec<u8>,
        (id, now): (u16, Instant),
    ) {
        let undelivered = match state.flights.get(&id).map(|flight| &flight.stage) {
            // Its PUBREL follows when it is synced.
            None | Some(Stage::Releasing) => return,
            Some(Stage::Released) => {
                packet::ack(out, door.version, Ack::Pubrel, id, reason::SUCCESS);
                None
            }
            Some(Stage::Sent(message, _)) if !door.allows(&message.topic) => {
                Some(Counter::UndeliveredDenied)
            }
            Some(Stage::Sent(message, grant)) => {
                let copy = Delivery {
                    message,
                    grant,
                    id,
                    again: true,
                };
                let fits = publish(out, door.version, &copy, (door.packet_bytes_max, now));
                (!fits).then_some(Counter::UndeliveredTooLarge)
            }
        };
        if let Some(why) = undelivered {
            self.forget(state, id);
            self.dropped(why);
        }
    }

    fn forget(&self, state: &mut State, id: u16) {
        if let Some(flight) = state.flights.remove(&id) {
            self.done([flight.number]);
            self.free(state, flight.bytes);
        }
        if state.flights.is_empty() && state.flights.capacity() > CAPACITY_KEPT {
            state.flights = HashMap::new();
        }
        self.work.store(true, Ordering::Release);
    }

    /// The client acknowledges. `Ok(true)`: a PUBREL is due.
    ///
    /// # Errors
    /// [`Unexpected`] when the message is not at a stage that this ends. An id that is not known
    /// may be of a session that has ended, and is passed over.
    pub fn acknowledge(self: &Arc<Self>, kind: Ack, id: u16, code: u8) -> Result<bool, Unexpected> {
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
            (Ack::Pubrec, 2, Stage::Releasing) => Ok(false),
            (Ack::Pubrec, 2, Stage::Sent(..)) if self.keep.is_some() => {
                flight.stage = Stage::Releasing;
                let number = flight.number;
                let bytes = std::mem::take(&mut flight.bytes);
                self.free(&mut state, bytes);
                if let Some(keep) = &self.keep {
                    keep.handed_over(number, id, self.ticket(number << 1 | 1));
                }
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
    /// The next packet id, for a message that waits.
    pub(super) fn reserve_id(&mut self) -> u16 {
        let id = self.free_id();
        self.last_id = id;
        self.reserved.insert(id);
        id
    }

    /// The next packet id that is not in use. There is one, for a receive maximum is at most
    /// 65,535 and this is called below it.
    fn free_id(&self) -> u16 {
        let mut id = self.last_id;
        loop {
            id = id.checked_add(1).unwrap_or(1);
            if !self.flights.contains_key(&id) && !self.reserved.contains(&id) {
                return id;
            }
        }
    }
}
