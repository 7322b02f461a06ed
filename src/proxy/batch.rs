//! What one read brought: the packets of the buffer become records, slots and answers.
//!
//! All records of a read go to the spool in one call, after their slots are in the queue of
//! acknowledgements. A PUBLISH that a bound does not admit stays in the buffer with all behind it.

mod subscriber;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::RwLockReadGuard;
use tokio::time::Instant;

use super::Shared;
use super::acks::{Acks, Open, Slot};
use super::keep::WithRecord;
use super::local::queue::Outbox;
use super::local::{is_bridge_state, is_system};
use super::pace::Pace;
use super::packet::{self, Ack, Bad, Packet, Publish, Version, reason};
use super::routes::{Place, Seen, Target};
use super::session::Receipt;
use crate::access::acl::{Action, Rights};
use crate::config::checked::OnRefused;
use crate::metrics::{Counter, Histogram};
use crate::mqtt_topic as topic;
use crate::spool::intake::Refusal;
use crate::spool::{Incoming, Settle, Ticket, TopicId};

/// How far [`Inbox::process`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All whole packets are processed.
    Read,
    /// A message waits until something of this client is acknowledged.
    Held,
    /// A message waits until something of any client is safe.
    HeldByAll,
    /// A message waits because the client publishes faster than it may.
    HeldByPace,
    /// The client has said goodbye: reason code, and the session expiry it wants.
    Goodbye(u8, Option<u32>),
}

/// What a connection keeps to turn packets into records.
#[derive(Debug)]
pub struct Inbox {
    shared: Arc<Shared>,
    /// The queue of acknowledgements, and the same as the spool sees it.
    pub acks: Arc<Acks>,
    settle: Arc<dyn Settle>,
    /// Whose it is.
    pub client: super::Client,
    /// Its session's: looked at for every packet.
    outbox: Arc<Outbox>,
    /// What it may publish; `None`: everything.
    rights: Option<Rights>,
    /// How fast it may; `None`: as it likes.
    pace: Option<Pace>,
    open: Open,
    /// v5: messages of the window, QoS 1 and QoS 2.
    window: (usize, usize),
    aliases: hashbrown::HashMap<u16, Arc<[u8]>>,
    /// Packets to send that wait for nothing.
    pub out: Vec<u8>,
    /// Whether messages for the client are among them.
    delivering: bool,
    incoming: Vec<Incoming>,
    slots: Vec<Slot>,
    /// Repeats on this connection of messages that an earlier one sent: packet id and slot.
    waits: Vec<(u16, u64)>,
    refused: Vec<(Refusal, String, u64)>,
    /// Slots that wait for what is kept, too.
    kept: Vec<u64>,
    /// Who waits for a slot to be done.
    followers: Vec<(u64, Ticket)>,
    next: u64,
    received: (u64, u64),
    /// QoS 0 messages that a bound did not admit.
    dropped: u64,
    batch_bytes: usize,
}

/// When a read happened.
#[derive(Clone, Copy, Debug)]
pub struct When {
    /// Milliseconds since 1970.
    pub unix_ms: i64,
    /// The same on the clock that never jumps.
    pub instant: Instant,
}

impl When {
    /// Now, of something that came at `instant`.
    #[must_use]
    pub fn now(instant: Instant) -> Self {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            unix_ms: i64::try_from(unix.as_millis()).unwrap_or(i64::MAX),
            instant,
        }
    }
}

/// What becomes of a message.
enum Fate {
    Record(TopicId, crate::record::Record),
    /// There is no memory for a record; subscribers get it all the same.
    Dropped,
    Refused(u8),
}

impl Inbox {
    /// For a new connection.
    #[must_use]
    pub fn new(shared: Arc<Shared>, client: super::Client) -> Self {
        let acks = Arc::new(Acks::new(
            Arc::clone(&shared.bounds),
            Arc::clone(&client.session),
        ));
        Self {
            settle: Arc::clone(&acks) as Arc<dyn Settle>,
            acks,
            rights: client.pass.rights(&client.id),
            outbox: Arc::clone(&client.session.outbox),
            pace: shared.config.max_publishes_per_second.map(Pace::new),
            shared,
            client,
            open: Open::default(),
            window: (0, 0),
            aliases: hashbrown::HashMap::new(),
            out: Vec::new(),
            delivering: false,
            incoming: Vec::new(),
            slots: Vec::new(),
            waits: Vec::new(),
            refused: Vec::new(),
            kept: Vec::new(),
            followers: Vec::new(),
            next: 0,
            received: (0, 0),
            dropped: 0,
            batch_bytes: 0,
        }
    }

    /// Processes the packets at the beginning of `data`. Returns the bytes that are done with.
    ///
    /// # Errors
    /// [`Bad`] when the connection must end; what came before is on its way all the same.
    pub fn process(&mut self, data: &[u8], when: When) -> (usize, Result<Progress, Bad>) {
        self.open = self.acks.open();
        let shared = Arc::clone(&self.shared);
        let mut seen = shared.router.seen();
        let mut done = 0;
        let result = loop {
            let rest = data.get(done..).unwrap_or_default();
            let frame = match packet::frame(rest, shared.config.max_packet_bytes) {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(Progress::Read),
                Err(bad) => break Err(bad),
            };
            let version = self.client.telling.version;
            let step = if frame.is_publish() {
                packet::publish(version, &frame)
                    .and_then(|publish| self.publish(&publish, (&shared, &mut seen), when))
            } else {
                packet::decode(version, &frame).and_then(|other| self.other(&other))
            };
            match step {
                Ok(Progress::Read) => done += frame.length,
                Ok(Progress::Goodbye(..)) | Err(_) => {
                    done += frame.length;
                    break step;
                }
                Ok(Progress::Held | Progress::HeldByAll | Progress::HeldByPace) => break step,
            }
        };
        drop(seen);
        self.hand_over();
        (done, result)
    }

    /// Gives slots, records and refusals to those who wait for them.
    fn hand_over(&mut self) {
        if !self.slots.is_empty() {
            self.acks.follow(&mut self.followers);
            self.open = self.acks.push(&mut self.slots);
        }
        self.batch_bytes = 0;
        if !self.incoming.is_empty() {
            self.shared.intake.append(&mut self.incoming);
        }
        for token in self.kept.drain(..) {
            // Behind all that was kept for the message.
            let to = Arc::clone(&self.settle);
            let ticket = Some(Ticket { to, token });
            self.shared.intake.keep(Vec::new(), ticket);
        }
        for (id, token) in self.waits.drain(..) {
            if !self.client.session.wait(id, &self.acks, token) {
                self.acks.done(token);
            }
        }
        for (why, topic, messages) in self.refused.drain(..) {
            self.shared.intake.refused(why, &topic, messages);
        }
        if self.received.0 > 0 {
            let (messages, bytes) = std::mem::take(&mut self.received);
            self.shared.metrics.add(Counter::Received, messages);
            self.shared.metrics.add(Counter::ReceivedBytes, bytes);
        }
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            self.shared.metrics.add(Counter::DroppedQos0, dropped);
        }
    }

    fn publish(
        &mut self,
        publish: &Publish<'_>,
        routes: (&Shared, &mut RwLockReadGuard<'_, Seen>),
        when: When,
    ) -> Result<Progress, Bad> {
        let qos = publish.qos();
        let bound = self.bound(publish)?;
        if bound != Progress::Read {
            if qos > 0 {
                return Ok(bound);
            }
            self.dropped += 1;
            return Ok(Progress::Read);
        }
        if self.pace.as_mut().is_some_and(|pace| !pace.take()) {
            return Ok(Progress::HeldByPace);
        }
        let known;
        let name = match publish.alias {
            None => publish.topic,
            Some(alias) => {
                known = self.alias(alias, publish.topic)?;
                &known
            }
        };
        if qos == 2 && !self.receive(publish.id, when) {
            return Ok(Progress::Read);
        }
        self.received.0 += 1;
        self.received.1 += publish.payload.len() as u64;
        let fate = self.fate(publish, name, routes, when)?;
        let mut kept = false;
        let mut with = None;
        if let (2, Some(keep)) = (qos, self.client.session.keep()) {
            let changes = vec![keep.received(publish.id)];
            with = Some(WithRecord {
                changes,
                tickets: Vec::new(),
            });
        }
        let local = &self.shared.local;
        if local.wants(publish.flags) && !matches!(fate, Fate::Refused(_)) {
            kept = local.publish(publish, name, &self.client.id, with.as_mut());
        }
        self.enlist(publish, fate, (kept && qos > 0, with), when);
        Ok(Progress::Read)
    }

    /// Whether a bound forbids the message for now, and which.
    fn bound(&self, publish: &Publish<'_>) -> Result<Progress, Bad> {
        let config = &self.shared.config;
        let messages_max = usize::from(config.max_inflight_messages);
        if publish.qos() > 0 {
            if self.client.telling.version == Version::V5 {
                let full = self.window.0 + self.window.1 >= messages_max;
                if full && !(publish.qos() == 2 && self.client.session.knows(publish.id)) {
                    return Err(Bad {
                        reason: reason::RECEIVE_MAXIMUM,
                        what: "receive maximum exceeded",
                    });
                }
            }
            // Also what only waits for its turn: repeats and refusals behind a message that is not
            // safe.
            if self.open.slots + self.slots.len() >= messages_max {
                return Ok(Progress::Held);
            }
        }
        if self.open.bytes + self.batch_bytes >= config.max_inflight_bytes {
            return Ok(Progress::Held);
        }
        if self.shared.bounds.full() {
            return Ok(Progress::HeldByAll);
        }
        Ok(Progress::Read)
    }

    /// The topic that an alias stands for, after it was set if the packet does so.
    fn alias(&mut self, alias: u16, topic: &[u8]) -> Result<Arc<[u8]>, Bad> {
        if alias > self.shared.config.topic_alias_max {
            return Err(Bad {
                reason: reason::ALIAS_INVALID,
                what: "topic alias above the maximum",
            });
        }
        let known = self.aliases.get(&alias);
        if topic.is_empty() {
            return known
                .cloned()
                .ok_or(Bad::protocol("topic alias was never set"));
        }
        if let Some(known) = known.filter(|known| ***known == *topic) {
            return Ok(Arc::clone(known));
        }
        let topic: Arc<[u8]> = topic.into();
        self.aliases.insert(alias, Arc::clone(&topic));
        Ok(topic)
    }

    /// Notes a QoS 2 message; `false` when it is a repeat and no new record.
    fn receive(&mut self, id: u16, when: When) -> bool {
        let receipt = self.client.session.receive(id, self.client.number);
        match receipt {
            Receipt::New => {
                self.window.1 += 1;
                return true;
            }
            Receipt::Repeat => {}
            Receipt::Pending | Receipt::Safe => {
                if receipt == Receipt::Pending {
                    self.waits.push((id, self.next));
                }
                self.slot(Slot {
                    id,
                    kind: Ack::Pubrec,
                    reason: reason::SUCCESS,
                    done: receipt == Receipt::Safe,
                    waits: 0,
                    first: false,
                    bytes: 0,
                    received: when.instant,
                });
            }
        }
        false
    }

    /// Routes a message. The record is made here; a refusal is noted for the ledger if the client
    /// cannot be told.
    ///
    /// # Errors
    /// When a 3.1.1 client is to be disconnected for it, or the topic is none.
    // Inlined: a record that comes back through memory, and is read at once, holds the CPU up.
    #[inline(always)]
    fn fate(
        &mut self,
        publish: &Publish<'_>,
        name: &[u8],
        (shared, seen): (&Shared, &mut RwLockReadGuard<'_, Seen>),
        when: When,
    ) -> Result<Fate, Bad> {
        if self.rights.is_some() {
            topic::name(name).map_err(Bad::malformed)?;
        }
        let rights = self.rights.as_mut();
        let allowed = rights.is_none_or(|rights| rights.allow(Action::Write, name));
        if !allowed || (is_system(name) && !is_bridge_state(name)) {
            shared.metrics.add(Counter::Denied, 1);
            return self.refuse(publish, name, (Refusal::Denied, reason::NOT_AUTHORISED));
        }
        let learned;
        let target = match seen.get(name) {
            Some(target) => &**target,
            None => {
                // 0x90 is for names that are well formed.
                let text = topic::name(name).map_err(Bad::malformed)?;
                learned = RwLockReadGuard::unlocked(seen, || shared.router.learn(text));
                &*learned
            }
        };
        let (refusal, code) = match target {
            Target::Topic {
                id,
                key,
                headers,
                header_count,
                limit,
            } => {
                if publish.qos() == 0 && shared.intake.is_short() {
                    return Ok(Fate::Dropped);
                }
                let place = Place {
                    topic: name,
                    key: key.as_deref(),
                    headers: (headers, *header_count),
                    client: &self.client.header,
                    now_ms: when.unix_ms,
                };
                let record = shared.headers.record(publish, &place);
                if record.body.len() <= limit.bytes(&*shared.intake, *id, when.unix_ms) {
                    return Ok(Fate::Record(*id, record));
                }
                (Refusal::TooLarge, reason::TOO_LARGE)
            }
            Target::NoRoute => (Refusal::NoRoute, reason::NOT_AUTHORISED),
            Target::TooManyTopics => (Refusal::NoRoute, reason::QUOTA),
        };
        shared.metrics.add(Counter::Refused, 1);
        self.refuse(publish, name, (refusal, code))
    }

    fn refuse(
        &mut self,
        publish: &Publish<'_>,
        name: &[u8],
        (refusal, code): (Refusal, u8),
    ) -> Result<Fate, Bad> {
        let is_v3 = self.client.telling.version == Version::V3;
        if is_v3 || publish.qos() == 0 {
            self.note_refused(refusal, name);
        }
        if is_v3 && self.shared.config.on_refused == OnRefused::Disconnect {
            return Err(Bad {
                reason: code,
                what: "message refused",
            });
        }
        Ok(Fate::Refused(code))
    }

    fn note_refused(&mut self, why: Refusal, name: &[u8]) {
        match self.refused.last_mut() {
            Some((last, topic, count)) if *last == why && topic.as_bytes() == name => *count += 1,
            _ => {
                let topic = String::from_utf8_lossy(name).into_owned();
                self.refused.push((why, topic, 1));
            }
        }
    }

    /// Puts a message into the batch, with what comes with its record. `kept`: something else of it
    /// was kept for subscribers, which is to be synced before it is acknowledged.
    fn enlist(
        &mut self,
        publish: &Publish<'_>,
        fate: Fate,
        (kept, with): (bool, Option<WithRecord>),
        when: When,
    ) {
        let qos = publish.qos();
        let token = self.next;
        let (bytes, code) = match fate {
            Fate::Record(topic, record) => {
                let bytes = record.size();
                let ticket = (qos > 0).then(|| Ticket {
                    to: Arc::clone(&self.settle),
                    token,
                });
                let with = with.unwrap_or_default();
                self.incoming.push(Incoming {
                    topic,
                    record,
                    ticket,
                    keep: with.changes.into(),
                });
                let followers = with.tickets.into_iter();
                self.followers.extend(followers.map(|it| (token, it)));
                if kept {
                    self.kept.push(token);
                }
                (bytes, None)
            }
            Fate::Dropped => {
                self.dropped += 1;
                return;
            }
            Fate::Refused(code) => (0, Some(code)),
        };
        let kind = match qos {
            0 => return,
            1 => {
                self.window.0 += 1;
                Ack::Puback
            }
            _ => Ack::Pubrec,
        };
        if kind == Ack::Pubrec && code.is_some() {
            self.client.session.refuse(publish.id);
        }
        self.slot(Slot {
            id: publish.id,
            kind,
            reason: code.unwrap_or(reason::SUCCESS),
            done: code.is_some(),
            waits: u8::from(kept),
            first: kind == Ack::Pubrec && code.is_none(),
            bytes,
            received: when.instant,
        });
    }

    fn slot(&mut self, slot: Slot) {
        self.batch_bytes += slot.bytes;
        self.slots.push(slot);
        self.next += 1;
    }

    fn other(&mut self, packet: &Packet) -> Result<Progress, Bad> {
        match packet {
            Packet::Ping => packet::pingresp(&mut self.out),
            Packet::Ack(Ack::Pubrel, id, _) => self.release(*id)?,
            Packet::Ack(kind, id, code) => self.acknowledged(*kind, *id, *code)?,
            Packet::Subscribe(subscribe) => self.subscribe(subscribe)?,
            Packet::Unsubscribe(id, filters) => self.unsubscribe(*id, filters)?,
            Packet::Disconnect(code, expiry) => return Ok(Progress::Goodbye(*code, *expiry)),
        }
        Ok(Progress::Read)
    }

    fn release(&mut self, id: u16) -> Result<(), Bad> {
        match self.client.session.release(id) {
            Some(true) => self.window.1 = self.window.1.saturating_sub(1),
            Some(false) => return Err(Bad::protocol("PUBREL before PUBREC")),
            // Released already: its PUBCOMP was lost, and 0x92 would look like a failure to the
            // client.
            None => {}
        }
        let version = self.client.telling.version;
        self.answer(|out| packet::ack(out, version, Ack::Pubcomp, id, 0));
        Ok(())
    }

    /// Sends an answer, of a session that is kept when all that was kept of it so far is synced.
    fn answer(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.client.session.keep().is_none() {
            write(&mut self.out);
            return;
        }
        let mut answer = Vec::new();
        write(&mut answer);
        let token = self.acks.hold(answer);
        let to = Arc::clone(&self.settle);
        let ticket = Some(Ticket { to, token });
        self.shared.intake.keep(Vec::new(), ticket);
    }

    /// Moves the acknowledgements that may leave behind the other answers. `false`: there are none.
    pub fn collect(&mut self) -> bool {
        let metrics = &self.shared.metrics;
        let (mut now, mut messages) = (None, 0);
        let taken = self
            .acks
            .take(&mut self.out, self.client.telling, |came, count| {
                let now: Instant = *now.get_or_insert_with(Instant::now);
                let took = now.saturating_duration_since(came);
                metrics.observe(Histogram::PubackSeconds, took, count);
                messages += count;
            });
        if messages == 0 {
            return false;
        }
        metrics.add(Counter::Acknowledged, messages);
        self.window.0 = self.window.0.saturating_sub(taken.pubacks);
        self.window.1 = self.window.1.saturating_sub(taken.refused_pubrecs);
        true
    }

    /// How long a message that is held by its client's pace waits.
    #[must_use]
    pub fn pace_wait(&self) -> Duration {
        self.pace.as_ref().map_or(Duration::ZERO, Pace::wait)
    }

    /// Gives memory back while the connection is idle.
    pub fn shrink(&mut self) {
        self.out = Vec::new();
        self.incoming = Vec::new();
        self.slots = Vec::new();
        self.acks.shrink();
    }
}
