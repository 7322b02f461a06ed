//! The client as a subscriber, and its will.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Fate, Inbox, When};
use crate::proxy::packet::{self, Ack, Bad, Properties, Publish, Subscribe, Will, reason};
use crate::spool::{Incoming, Settle, Ticket};

/// Bytes for a subscriber that are written before the client is listened to again.
const DELIVERY_BYTES: usize = 64 * 1024;

/// Waits for no acknowledgement.
#[derive(Debug)]
struct Nobody;

impl Settle for Nobody {
    fn safe(&self, _: &[u64]) {}
}

impl Inbox {
    pub(super) fn subscribe(&mut self, subscribe: &Subscribe) -> Result<(), Bad> {
        let outbox = &self.outbox;
        let codes = self.shared.local.subscribe_all(outbox, subscribe);
        let mut answer = Vec::new();
        packet::suback(
            &mut answer,
            self.client.telling.version,
            subscribe.id,
            &codes,
        );
        self.answer_if_it_fits(answer)
    }

    pub(super) fn unsubscribe(&mut self, id: u16, filters: &[String]) -> Result<(), Bad> {
        let outbox = &self.outbox;
        let one = |filter: &String| self.shared.local.unsubscribe(outbox, filter);
        let codes: Vec<u8> = filters.iter().map(one).collect();
        let mut answer = Vec::new();
        packet::unsuback(&mut answer, self.client.telling.version, id, &codes);
        self.answer_if_it_fits(answer)
    }

    /// Whether the client takes an answer of this size (section 3.1.2.11.4).
    fn answer_if_it_fits(&mut self, answer: Vec<u8>) -> Result<(), Bad> {
        if answer.len() <= self.client.telling.packet_bytes_max {
            self.answer(|out| out.extend_from_slice(&answer));
            return Ok(());
        }
        Err(Bad {
            reason: reason::TOO_LARGE,
            what: "answer larger than the client takes",
        })
    }

    /// PUBACK, PUBREC or PUBCOMP.
    pub(super) fn acknowledged(&mut self, kind: Ack, id: u16, code: u8) -> Result<(), Bad> {
        let due = self.outbox.acknowledge(kind, id, code);
        if due.map_err(|_| Bad::protocol("acknowledgement that does not fit its message"))? {
            packet::ack(
                &mut self.out,
                self.client.telling.version,
                Ack::Pubrel,
                id,
                0,
            );
        }
        Ok(())
    }

    /// Appends messages for the client. `true`: there are more.
    pub fn deliver(&mut self) -> bool {
        let outbox = &self.outbox;
        if !outbox.has_work() || (outbox.keep.is_some() && self.acks.holds_suback()) {
            return false;
        }
        let before = self.out.len();
        let out = (&mut self.out, DELIVERY_BYTES);
        let more = self.shared.local.deliver(outbox, self.client.number, out);
        self.delivering |= self.out.len() > before;
        more
    }

    /// All of `out` has been written.
    pub fn written(&mut self) {
        if std::mem::take(&mut self.delivering) {
            self.outbox.written(self.client.number);
        }
        self.out.clear();
        if self.out.capacity() > 2 * DELIVERY_BYTES {
            self.out = Vec::new();
        }
    }

    /// Publishes a will. Its client is gone: a refusal goes to the ledger, and nobody waits for
    /// safety, but a will of QoS 1 or 2 is not among those that memory pressure drops first.
    pub fn will(&mut self, will: &Will) {
        let properties = will.properties.clone();
        let publish = Publish {
            flags: will.qos << 1 | u8::from(will.retain),
            topic: will.topic.as_bytes(),
            id: 0,
            alias: None,
            properties: (properties != Properties::default()).then(|| Box::new(properties)),
            payload: &will.payload,
        };
        let shared = Arc::clone(&self.shared);
        let mut seen = shared.router.seen();
        let fate = self.fate(
            &publish,
            publish.topic,
            (&shared, &mut seen),
            When::now(Instant::now()),
        );
        drop(seen);
        if let Ok(Fate::Record(topic, record)) = fate {
            shared
                .local
                .publish(&publish, publish.topic, &self.client.id, None);
            let ticket = (publish.qos() > 0).then(|| Ticket {
                to: Arc::new(Nobody),
                token: 0,
            });
            self.incoming.push(Incoming {
                topic,
                record,
                ticket,
                keep: Box::default(),
            });
        }
        self.hand_over();
    }
}
