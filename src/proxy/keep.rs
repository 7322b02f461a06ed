//! What the proxy keeps on disk of its clients, through the spool's store of keys and values.
//!
//! Only sessions that outlive their connection are kept, and retained messages. Keys; texts have no
//! zero byte (MQTT 1.5.4), so it ends them:
//!
//! ```text
//! r TOPIC                          a retained message
//! s CLIENT                         a session: its number, expiry, when its client left
//! f CLIENT 0 SESSION u64 FILTER    a subscription's options
//! i CLIENT 0 SESSION u64 ID u16    a QoS 2 message that was received and not released
//! q CLIENT 0 SESSION u64 N u64     a message for the client, waiting or on the way
//! ```
//! Numbers in keys are big endian. A session's number is never used again, so what a session that
//! ended left behind is known as such, and goes at the next start. Values begin with a version;
//! integers are varints ([`crate::record::varint`]), texts `length | bytes`, null −1
//! ([`crate::record::put`]). A value that makes no sense is dropped, with a warning.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut as _, Bytes};
use tokio::time::Instant;

use super::local::message::Message;
use super::local::queue::Grant;
use super::local::tree::Options;
use super::packet::Properties;
use crate::record::{put, take, varint};
use crate::spool::{Change, Intake, Ticket};

const VERSION: u8 = 1;

/// Milliseconds since 1970.
#[must_use]
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// What comes with the record of a QoS 2 message.
#[derive(Debug, Default)]
pub struct WithRecord {
    /// Known after a power cut if the record is, and not without it.
    pub changes: Vec<Change>,
    /// Settled when it is safe.
    pub tickets: Vec<Ticket>,
}

/// One session's part of the store.
#[derive(Clone, Debug)]
pub struct Keep {
    intake: Arc<dyn Intake>,
    client_id: Arc<str>,
    /// Its number.
    pub session: u64,
}

impl Keep {
    /// Of a session.
    #[must_use]
    pub fn new(intake: Arc<dyn Intake>, client_id: Arc<str>, session: u64) -> Self {
        Self {
            intake,
            client_id,
            session,
        }
    }

    fn key(&self, kind: u8, rest: &[u8]) -> Bytes {
        let mut key = Vec::with_capacity(self.client_id.len() + rest.len() + 10);
        key.put_u8(kind);
        key.put_slice(self.client_id.as_bytes());
        key.put_u8(0);
        key.put_u64(self.session);
        key.put_slice(rest);
        key.into()
    }

    fn session_key(&self) -> Bytes {
        let mut key = vec![b's'];
        key.put_slice(self.client_id.as_bytes());
        key.into()
    }

    fn set(&self, key: Bytes, value: Vec<u8>, ticket: Option<Ticket>) {
        let value = Some(value.into());
        self.keep(Change { key, value }, ticket);
    }

    fn unset(&self, keys: impl IntoIterator<Item = Bytes>) {
        let gone = |key| Change { key, value: None };
        let changes: Vec<Change> = keys.into_iter().map(gone).collect();
        if !changes.is_empty() {
            self.intake.keep(changes, None);
        }
    }

    /// The session's client is connected, or left at a time.
    pub fn session(&self, expiry: Duration, left_ms: Option<i64>) {
        let mut value = vec![VERSION];
        varint::write(&mut value, self.session);
        varint::write(&mut value, expiry.as_secs());
        varint::write_signed(&mut value, left_ms.unwrap_or(-1));
        self.set(self.session_key(), value, None);
    }

    /// The session ends; its QoS 2 packet ids go with it.
    pub fn end(&self, ids: impl Iterator<Item = u16>) {
        let ids = ids.map(|id| self.key(b'i', &id.to_be_bytes()));
        self.unset(ids.chain([self.session_key()]));
    }

    /// A subscription.
    pub fn subscribed(&self, filter: &str, options: &Options) {
        let flags = u8::from(options.no_local) | u8::from(options.as_published) << 1;
        let mut value = vec![VERSION, options.qos, flags];
        varint::write(&mut value, options.identifier.map_or(0, u64::from));
        self.set(self.key(b'f', filter.as_bytes()), value, None);
    }

    /// Subscriptions are no more.
    pub fn unsubscribed<'a>(&self, filters: impl Iterator<Item = &'a str>) {
        self.unset(filters.map(|filter| self.key(b'f', filter.as_bytes())));
    }

    /// What is to be known together with a QoS 2 message's record.
    #[must_use]
    pub fn received(&self, id: u16) -> Change {
        Change {
            key: self.key(b'i', &id.to_be_bytes()),
            value: Some(Bytes::from_static(&[VERSION])),
        }
    }

    /// A QoS 2 message is released.
    pub fn released(&self, id: u16) {
        self.unset([self.key(b'i', &id.to_be_bytes())]);
    }

    /// A message for the client; at QoS 2 with its packet id, else 0.
    #[must_use]
    pub fn queued(&self, number: u64, (message, grant): (&Message, &Grant), id: u16) -> Change {
        let mut value = vec![VERSION, WAITING];
        varint::write(&mut value, u64::from(id));
        value.put_u8(grant.qos << 1 | u8::from(grant.retain));
        varint::write(&mut value, grant.identifiers.len() as u64);
        for identifier in &grant.identifiers {
            varint::write(&mut value, u64::from(*identifier));
        }
        put_message(&mut value, message);
        Change {
            key: self.key(b'q', &number.to_be_bytes()),
            value: Some(value.into()),
        }
    }

    /// Has a change kept.
    pub fn keep(&self, change: Change, ticket: Option<Ticket>) {
        self.intake.keep(vec![change], ticket);
    }

    /// Its client has it, and is to be told by PUBREL that it may forget the packet id.
    pub fn handed_over(&self, number: u64, id: u16, ticket: Ticket) {
        let mut value = vec![VERSION, RELEASED];
        varint::write(&mut value, u64::from(id));
        self.set(self.key(b'q', &number.to_be_bytes()), value, Some(ticket));
    }

    /// Messages for the client are no more.
    pub fn done(&self, numbers: impl IntoIterator<Item = u64>) {
        let keys = numbers.into_iter();
        self.unset(keys.map(|number| self.key(b'q', &number.to_be_bytes())));
    }
}

const WAITING: u8 = 0;
const RELEASED: u8 = 1;

/// A topic has a retained message, or none any more.
pub fn retained(intake: &dyn Intake, topic: &[u8], message: Option<&Message>) {
    let mut key = vec![b'r'];
    key.put_slice(topic);
    let value = message.map(|message| {
        let mut value = vec![VERSION];
        put_message(&mut value, message);
        value.into()
    });
    let key = key.into();
    intake.keep(vec![Change { key, value }], None);
}

fn put_message(out: &mut Vec<u8>, message: &Message) {
    let now = Instant::now();
    let expires_ms = message.expires.map(|at| {
        let left = i64::try_from(at.saturating_duration_since(now).as_millis());
        wall_ms().saturating_add(left.unwrap_or(i64::MAX))
    });
    out.put_u8(message.qos << 1 | u8::from(message.retain));
    varint::write_signed(out, expires_ms.unwrap_or(-1));
    put(out, Some(message.from.as_bytes()));
    put(out, Some(&message.topic));
    put(out, Some(&message.payload));
    let Some(properties) = message.properties.as_deref() else {
        out.put_u8(0);
        return;
    };
    out.put_u8(1);
    put(out, properties.content_type.as_deref().map(str::as_bytes));
    put(out, properties.response_topic.as_deref().map(str::as_bytes));
    put(out, properties.correlation_data.as_deref());
    varint::write_signed(out, properties.payload_format.map_or(-1, i64::from));
    varint::write(out, properties.user.len() as u64);
    for (name, value) in &properties.user {
        put(out, Some(name.as_bytes()));
        put(out, Some(value.as_bytes()));
    }
}

fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, tail) = rest.split_first()?;
    *rest = tail;
    Some(*first)
}

fn take_text(rest: &mut &[u8]) -> Option<Option<String>> {
    match take(rest).ok()? {
        None => Some(None),
        Some(text) => Some(Some(std::str::from_utf8(text).ok()?.to_owned())),
    }
}

fn take_message(rest: &mut &[u8]) -> Option<Message> {
    let flags = take_byte(rest)?;
    let expires_ms = varint::read_signed(rest)?;
    let from: Arc<str> = take_text(rest)??.into();
    let topic: Arc<[u8]> = take(rest).ok()??.into();
    let payload = take(rest).ok()??.into();
    let mut properties = None;
    if take_byte(rest)? == 1 {
        let mut all = Properties {
            content_type: take_text(rest)?,
            response_topic: take_text(rest)?,
            correlation_data: take(rest).ok()?.map(<[u8]>::to_vec),
            payload_format: u8::try_from(varint::read_signed(rest)?).ok(),
            ..Properties::default()
        };
        for _ in 0..varint::read(rest)? {
            all.user.push((take_text(rest)??, take_text(rest)??));
        }
        properties = Some(Box::new(all));
    }
    let left = (expires_ms >= 0).then(|| expires_ms.saturating_sub(wall_ms()));
    let expires = left.and_then(|left| {
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
        Instant::now().checked_add(left)
    });
    Some(Message {
        topic,
        payload,
        qos: (flags >> 1) & 3,
        retain: flags & 1 != 0,
        properties,
        expires,
        from,
    })
}

/// A message for a client, as it was kept.
#[derive(Debug)]
pub enum Queued {
    /// It waits, or was sent and not acknowledged; with its packet id at QoS 2.
    Waiting(Box<(Message, Grant)>, u16),
    /// The client has it: a PUBREL is due.
    Released(u16),
}

/// A session as it was kept.
#[derive(Debug, Default)]
pub struct KeptSession {
    /// Its number.
    pub session: u64,
    /// How long it is kept after its client left.
    pub expiry: Duration,
    /// When that was, milliseconds since 1970; `None`: it was connected.
    pub left_ms: Option<i64>,
    /// Its subscriptions, as written.
    pub filters: Vec<(String, Options)>,
    /// QoS 2 packet ids that are in use.
    pub received: Vec<u16>,
    /// Messages for it, in order.
    pub queued: Vec<(u64, Queued)>,
}

/// What was kept.
#[derive(Debug, Default)]
pub struct Found {
    /// Retained messages.
    pub retained: Vec<Message>,
    /// By client id.
    pub sessions: std::collections::BTreeMap<String, KeptSession>,
    /// Keys of sessions that ended, and of values that make no sense.
    pub needless: Vec<Bytes>,
    /// How many of them made no sense.
    pub senseless: u64,
}

impl Found {
    /// Reads what was kept, which is in the order of keys: sessions come behind what is theirs.
    #[must_use]
    pub fn read(all: Vec<(Bytes, Bytes)>) -> Self {
        let mut found = Self::default();
        let (sessions, rest): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|(key, _)| key.first() == Some(&b's'));
        for (key, value) in sessions.into_iter().chain(rest) {
            match found.one(&key, &value) {
                Some(true) => {}
                Some(false) => found.needless.push(key),
                None => {
                    found.senseless += 1;
                    found.needless.push(key);
                }
            }
        }
        found
    }

    /// `Some(false)`: of a session that has ended.
    fn one(&mut self, key: &[u8], value: &[u8]) -> Option<bool> {
        let (kind, rest) = key.split_first()?;
        let (version, mut value) = value.split_first()?;
        if *version != VERSION {
            return None;
        }
        let value = &mut value;
        match kind {
            b'r' => {
                let message = take_message(value)?;
                let same = *message.topic == *rest;
                same.then(|| self.retained.push(message))?;
                return Some(true);
            }
            b's' => {
                let kept = KeptSession {
                    session: varint::read(value)?,
                    expiry: Duration::from_secs(varint::read(value)?),
                    left_ms: Some(varint::read_signed(value)?).filter(|ms| *ms >= 0),
                    ..KeptSession::default()
                };
                let client_id = std::str::from_utf8(rest).ok()?;
                self.sessions.insert(client_id.to_owned(), kept);
                return Some(true);
            }
            _ => {}
        }
        let end = rest.iter().position(|byte| *byte == 0)?;
        let client_id = std::str::from_utf8(rest.get(..end)?).ok()?;
        let (session, rest) = rest.get(end + 1..)?.split_first_chunk::<8>()?;
        let session = u64::from_be_bytes(*session);
        let of = |kept: &&mut KeptSession| kept.session == session;
        let Some(kept) = self.sessions.get_mut(client_id).filter(of) else {
            return Some(false);
        };
        match kind {
            b'f' => {
                let (qos, flags) = (take_byte(value)?, take_byte(value)?);
                let identifier = u32::try_from(varint::read(value)?).ok()?;
                let options = Options {
                    qos: qos.min(2),
                    no_local: flags & 1 != 0,
                    as_published: flags & 2 != 0,
                    identifier: Some(identifier).filter(|it| *it > 0),
                };
                let filter = std::str::from_utf8(rest).ok()?;
                kept.filters.push((filter.to_owned(), options));
            }
            b'i' => kept
                .received
                .push(u16::from_be_bytes(rest.try_into().ok()?)),
            b'q' => {
                let number = u64::from_be_bytes(rest.try_into().ok()?);
                kept.queued.push((number, take_queued(value)?));
            }
            _ => return None,
        }
        Some(true)
    }
}

fn take_queued(value: &mut &[u8]) -> Option<Queued> {
    let stage = take_byte(value)?;
    let id = u16::try_from(varint::read(value)?).ok()?;
    if stage == RELEASED {
        return Some(Queued::Released(id));
    }
    let flags = take_byte(value)?;
    let mut grant = Grant {
        qos: (flags >> 1) & 3,
        retain: flags & 1 != 0,
        identifiers: Vec::new(),
    };
    for _ in 0..varint::read(value)? {
        let identifier = u32::try_from(varint::read(value)?).ok()?;
        grant.identifiers.push(identifier);
    }
    let message = take_message(value)?;
    (stage == WAITING && grant.qos > 0 && grant.qos < 3 && (id > 0) == (grant.qos == 2))
        .then(|| Queued::Waiting(Box::new((message, grant)), id))
}
