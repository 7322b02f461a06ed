//! Values of the meta store and how they are written. The table is in `meta/mod.rs`; payloads may grow at
//! their end.

use std::sync::Arc;

use crate::record::varint;
use crate::spool::{Identity, Run, StreamId, TopicPartition};

/// How far a stream is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Run of `next`; older runs are confirmed.
    pub run: Run,
    /// First number that is not confirmed.
    pub next: u64,
    /// Kafka offset behind the last confirmed record.
    pub offset: Option<i64>,
}

/// What is known of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFacts {
    /// When it began, milliseconds since 1970.
    pub started_ms: i64,
    /// Its name at Kafka, once it has one.
    pub identity: Option<Identity>,
}

/// What is known of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicMemory {
    /// Its partition count.
    pub partitions: u32,
    /// `max.message.bytes`, if it could be read.
    pub message_bytes_max: Option<u64>,
    /// Kafka's id of the topic: another one under the same name is another topic.
    pub topic_id: Option<[u8; 16]>,
}

/// From number `from` on, `run`'s records of the stream are sent under run `sent_as`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The stream.
    pub stream: StreamId,
    /// Run of the numbers.
    pub run: Run,
    /// First number.
    pub from: u64,
    /// Run that sends.
    pub sent_as: Run,
}

/// Numbers `from..to` that take no Kafka sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The stream.
    pub stream: StreamId,
    /// Run of the numbers.
    pub run: Run,
    /// First number.
    pub from: u64,
    /// Number behind the last.
    pub to: u64,
    /// Why.
    pub reason: Reason,
}

/// Why records are in the ledger. The numbers are on disk, also in the log's `Drop` entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// Older than their time to live.
    Expired = 1,
    /// Dropped for room, by policy.
    Full = 2,
    /// Kafka rejects them for good; they are in quarantine.
    Rejected = 3,
    /// No route, or too large; never spooled.
    Refused = 4,
    /// Their frame is damaged.
    Damaged = 5,
    /// Kafka had confirmed them and has them no more.
    LostByKafka = 6,
    /// Sent again although they may be there: not lost, perhaps twice.
    MaybeTwice = 7,
}

impl Reason {
    /// The reason of that number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        use Reason::{Damaged, Expired, Full, LostByKafka, MaybeTwice, Refused, Rejected};
        let all = [
            Expired,
            Full,
            Rejected,
            Refused,
            Damaged,
            LostByKafka,
            MaybeTwice,
        ];
        all.into_iter().find(|reason| reason.code() == code)
    }

    /// Its number on disk.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// Whose records are lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A stream's.
    Stream(StreamId),
    /// Messages of an MQTT topic that never became records: `from..to` is a count.
    Mqtt(Arc<str>),
}

/// A line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Whose.
    pub subject: Subject,
    /// Run of the numbers.
    pub run: Run,
    /// First number.
    pub from: u64,
    /// Number behind the last.
    pub to: u64,
    /// Why.
    pub reason: Reason,
    /// When the last of them was lost, milliseconds since 1970.
    pub at_ms: i64,
}

impl Loss {
    /// Both as one, if they have the same subject, run and reason and touch. Counts of MQTT topics add up.
    pub(super) fn join(&self, next: &Loss) -> Option<Loss> {
        if (&self.subject, self.run, self.reason) != (&next.subject, next.run, next.reason) {
            return None;
        }
        let to = match self.subject {
            Subject::Mqtt(_) => self.to.checked_add(next.to.checked_sub(next.from)?)?,
            Subject::Stream(_) if next.from == self.to => next.to,
            Subject::Stream(_) => return None,
        };
        Some(Loss {
            to,
            at_ms: next.at_ms,
            ..self.clone()
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.reason.code()];
        put(
            &mut out,
            &[
                u64::from(self.run.0),
                self.from,
                self.to.saturating_sub(self.from),
            ],
        );
        varint::write_signed(&mut out, self.at_ms);
        match &self.subject {
            Subject::Stream(stream) => put(&mut out, &[0, u64::from(stream.0)]),
            Subject::Mqtt(topic) => {
                put(&mut out, &[1]);
                put_text(&mut out, topic);
            }
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&reason, mut rest) = bytes.split_first()?;
        let r = &mut rest;
        let (run, from) = (Run(get_u32(r)?), varint::read(r)?);
        let to = from.checked_add(varint::read(r)?)?;
        let at_ms = varint::read_signed(r)?;
        let subject = match varint::read(r)? {
            0 => Subject::Stream(StreamId(get_u32(r)?)),
            1 => Subject::Mqtt(get_text(r)?.into()),
            _ => return None,
        };
        Some(Self {
            subject,
            run,
            from,
            to,
            reason: Reason::from_code(reason)?,
            at_ms,
        })
    }
}

impl Cursor {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let offset = self
            .offset
            .map_or(0, |at| at.wrapping_add(1).cast_unsigned());
        put(&mut out, &[u64::from(self.run.0), self.next, offset]);
        out
    }

    pub(super) fn decode(mut rest: &[u8]) -> Option<Self> {
        let r = &mut rest;
        Some(Self {
            run: Run(get_u32(r)?),
            next: varint::read(r)?,
            offset: varint::read(r)?.checked_sub(1).map(u64::cast_signed),
        })
    }
}

impl RunFacts {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        varint::write_signed(&mut out, self.started_ms);
        if let Some(identity) = &self.identity {
            varint::write_signed(&mut out, identity.producer_id);
            varint::write_signed(&mut out, i64::from(identity.epoch));
            put_text(&mut out, &identity.cluster_id);
        }
        out
    }

    pub(super) fn decode(mut rest: &[u8]) -> Option<Self> {
        let r = &mut rest;
        let started_ms = varint::read_signed(r)?;
        let identity = if r.is_empty() {
            None
        } else {
            Some(Identity {
                producer_id: varint::read_signed(r)?,
                epoch: i16::try_from(varint::read_signed(r)?).ok()?,
                cluster_id: get_text(r)?.to_owned(),
            })
        };
        Some(Self {
            started_ms,
            identity,
        })
    }
}

impl TopicMemory {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let max = self
            .message_bytes_max
            .map_or(0, |max| max.saturating_add(1));
        put(&mut out, &[u64::from(self.partitions), max]);
        out.extend(self.topic_id.iter().flatten());
        out
    }

    pub(super) fn decode(mut rest: &[u8]) -> Option<Self> {
        let r = &mut rest;
        Some(Self {
            partitions: get_u32(r)?,
            message_bytes_max: varint::read(r)?.checked_sub(1),
            topic_id: r.first_chunk::<16>().copied(),
        })
    }
}

impl Base {
    pub(super) fn key(&self) -> Vec<u8> {
        key_of(b'b', self.stream, self.run, self.from)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, &[u64::from(self.sent_as.0)]);
        out
    }

    pub(super) fn decode(key: &[u8], mut value: &[u8]) -> Option<Self> {
        let (stream, run, from) = split(key)?;
        Some(Self {
            stream,
            run,
            from,
            sent_as: Run(get_u32(&mut value)?),
        })
    }
}

impl Dropped {
    pub(super) fn key(&self) -> Vec<u8> {
        key_of(b'd', self.stream, self.run, self.from)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put(
            &mut out,
            &[
                self.to.saturating_sub(self.from),
                u64::from(self.reason.code()),
            ],
        );
        out
    }

    pub(super) fn decode(key: &[u8], mut value: &[u8]) -> Option<Self> {
        let (stream, run, from) = split(key)?;
        Some(Self {
            stream,
            run,
            from,
            to: from.checked_add(varint::read(&mut value)?)?,
            reason: Reason::from_code(u8::try_from(varint::read(&mut value)?).ok()?)?,
        })
    }
}

pub(super) fn encode_stream(to: &TopicPartition) -> Vec<u8> {
    let mut out = Vec::new();
    varint::write_signed(&mut out, i64::from(to.partition));
    put_text(&mut out, &to.topic);
    out
}

pub(super) fn decode_stream(mut rest: &[u8]) -> Option<TopicPartition> {
    let partition = i32::try_from(varint::read_signed(&mut rest)?).ok()?;
    let topic = get_text(&mut rest)?.into();
    Some(TopicPartition { topic, partition })
}

pub(super) fn key(letter: u8, rest: &[u8]) -> Vec<u8> {
    [&[letter], rest].concat()
}

pub(super) fn key_u32(letter: u8, id: u32) -> Vec<u8> {
    key(letter, &id.to_be_bytes())
}

fn key_of(letter: u8, stream: StreamId, run: Run, from: u64) -> Vec<u8> {
    let ids = [stream.0.to_be_bytes(), run.0.to_be_bytes()].concat();
    [&[letter], &ids[..], &from.to_be_bytes()].concat()
}

fn split(key: &[u8]) -> Option<(StreamId, Run, u64)> {
    let (stream, rest) = key.split_first_chunk::<4>()?;
    let (run, from) = rest.split_first_chunk::<4>()?;
    let from = u64::from_be_bytes(*from.first_chunk::<8>()?);
    Some((
        StreamId(u32::from_be_bytes(*stream)),
        Run(u32::from_be_bytes(*run)),
        from,
    ))
}

pub(super) fn u32_of(key: &[u8]) -> Option<u32> {
    key.first_chunk::<4>().map(|id| u32::from_be_bytes(*id))
}

/// The number in a ledger's key, letter included.
pub(super) fn read_id(key: &[u8]) -> Option<u64> {
    let id = key.get(1..)?.first_chunk::<8>()?;
    Some(u64::from_be_bytes(*id))
}

fn put(out: &mut Vec<u8>, fields: &[u64]) {
    fields.iter().for_each(|field| varint::write(out, *field));
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, &[text.len() as u64]);
    out.extend_from_slice(text.as_bytes());
}

fn get_u32(rest: &mut &[u8]) -> Option<u32> {
    u32::try_from(varint::read(rest)?).ok()
}

fn get_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(varint::read(rest)?).ok()?;
    let (text, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    std::str::from_utf8(text).ok()
}
