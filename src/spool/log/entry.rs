//! Directory entries: what a frame, a segment's head and its index say beside records.
//!
//! A directory is a row of `kind u8 | length varint | payload`; a reader skips kinds that it does
//! not know. Integers are varints ([`crate::record::varint`]), signed ones zigzag; a text is
//! `length | bytes`.
//!
//! | kind | payload |
//! |---|---|
//! | 1 sections | `base_ms` signed, then runs: `run less the last run`, `n`, then n sections (below) |
//! | 2 declare | `stream`, `partition` signed, `topic` |
//! | 3 cursor | `stream`, `run`, `next`, `offset + 1` or 0 |
//! | 4 drop | `stream`, `run`, `from`, `to - from`, `reason` u8 |
//! | 5 base | `stream`, `run`, `from`, `sent_as` |
//! | 6 identity | `run`, `producer_id` signed, `epoch` signed, `cluster_id`, `device` |
//! | 7 run start | `run`, `at_ms` signed |
//! | 8 partitions | `count`, `topic` |
//! | 9 note | bytes |
//!
//! Sections are sorted by run, stream, first: `(stream less the last stream) * 2 + (1 if one
//! record)`, `first less the last section's first` signed, and `count` unless it is one record.
//! Payloads may grow at their end: a reader ignores what is behind the fields it knows.

use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::Section;
use crate::record::varint;
use crate::spool::{Identity, Run, StreamId, TopicPartition};

const SECTIONS: u8 = 1;

/// A statement that is kept beside records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// What a stream is. The log writes these by itself.
    Declare {
        /// The stream.
        stream: StreamId,
        /// Its topic and partition.
        to: TopicPartition,
    },
    /// Everything of the stream below (`run`, `next`) is confirmed, older runs too.
    Cursor {
        /// The stream.
        stream: StreamId,
        /// Run of `next`.
        run: Run,
        /// First number that is not confirmed.
        next: u64,
        /// Kafka offset behind the last confirmed record. −1 is kept as `None`.
        offset: Option<i64>,
    },
    /// Numbers `from..to` were dropped: they take no Kafka sequence.
    Drop {
        /// The stream.
        stream: StreamId,
        /// Run of the numbers.
        run: Run,
        /// First number.
        from: u64,
        /// Number behind the last.
        to: u64,
        /// Why, as the ledger has it.
        reason: u8,
    },
    /// From number `from` on, this run's records are sent under run `sent_as`, sequences from 0.
    Base {
        /// The stream.
        stream: StreamId,
        /// Run that numbers the records.
        run: Run,
        /// First number.
        from: u64,
        /// Run whose identity sends them.
        sent_as: Run,
    },
    /// Under which name a run is known to Kafka.
    Identity {
        /// The run.
        run: Run,
        /// Its name.
        identity: Identity,
    },
    /// When a run began.
    RunStart {
        /// The run.
        run: Run,
        /// Milliseconds since 1970.
        at_ms: i64,
    },
    /// A topic's partition count.
    Partitions {
        /// Kafka topic.
        topic: Arc<str>,
        /// Its partitions.
        count: u32,
    },
    /// Free bytes, such as the cause of a quarantine. Found in its frame alone, not in indexes.
    Note(Bytes),
}

impl Entry {
    fn kind(&self) -> u8 {
        match self {
            Entry::Declare { .. } => 2,
            Entry::Cursor { .. } => 3,
            Entry::Drop { .. } => 4,
            Entry::Base { .. } => 5,
            Entry::Identity { .. } => 6,
            Entry::RunStart { .. } => 7,
            Entry::Partitions { .. } => 8,
            Entry::Note(_) => 9,
        }
    }

    /// The stream that the entry speaks of, if it is not the one that declares it.
    pub(super) fn mentions(&self) -> Option<StreamId> {
        match self {
            Entry::Cursor { stream, .. }
            | Entry::Drop { stream, .. }
            | Entry::Base { stream, .. } => Some(*stream),
            _ => None,
        }
    }

    /// The newest run that the entry names.
    pub(super) fn run(&self) -> Option<Run> {
        match self {
            Entry::Cursor { run, .. }
            | Entry::Drop { run, .. }
            | Entry::Identity { run, .. }
            | Entry::RunStart { run, .. } => Some(*run),
            Entry::Base { run, sent_as, .. } => Some(*run.max(sent_as)),
            Entry::Declare { .. } | Entry::Partitions { .. } | Entry::Note(_) => None,
        }
    }

    /// Of two entries with the same key the newer alone counts.
    pub(super) fn key(&self) -> Vec<u8> {
        let mut key = vec![self.kind()];
        match self {
            Entry::Declare { stream, .. } | Entry::Cursor { stream, .. } => key.put_u32(stream.0),
            Entry::Identity { run, .. } | Entry::RunStart { run, .. } => key.put_u32(run.0),
            Entry::Partitions { topic, .. } => key.put_slice(topic.as_bytes()),
            Entry::Drop { .. } | Entry::Base { .. } | Entry::Note(_) => self.payload(&mut key),
        }
        key
    }

    /// Appends the entry with its kind and length.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        group(out, self.kind(), |out| self.payload(out));
    }

    fn payload(&self, out: &mut Vec<u8>) {
        match self {
            Entry::Declare { stream, to } => {
                varint::write(out, u64::from(stream.0));
                varint::write_signed(out, i64::from(to.partition));
                put_text(out, &to.topic);
            }
            Entry::Cursor {
                stream,
                run,
                next,
                offset,
            } => {
                put_three(out, *stream, *run, *next);
                varint::write(
                    out,
                    offset.map_or(0, |at| at.wrapping_add(1).cast_unsigned()),
                );
            }
            Entry::Drop {
                stream,
                run,
                from,
                to,
                reason,
            } => {
                put_three(out, *stream, *run, *from);
                varint::write(out, to.saturating_sub(*from));
                out.put_u8(*reason);
            }
            Entry::Base {
                stream,
                run,
                from,
                sent_as,
            } => {
                put_three(out, *stream, *run, *from);
                varint::write(out, u64::from(sent_as.0));
            }
            Entry::Identity { run, identity } => {
                varint::write(out, u64::from(run.0));
                varint::write_signed(out, identity.producer_id);
                varint::write_signed(out, i64::from(identity.epoch));
                put_text(out, &identity.cluster_id);
                put_text(out, &identity.device);
            }
            Entry::RunStart { run, at_ms } => {
                varint::write(out, u64::from(run.0));
                varint::write_signed(out, *at_ms);
            }
            Entry::Partitions { topic, count } => {
                varint::write(out, u64::from(*count));
                put_text(out, topic);
            }
            Entry::Note(bytes) => out.put_slice(bytes),
        }
    }

    /// The entry of that kind; `Ok(None)` for a kind that is not known here.
    fn decode(kind: u8, mut rest: &[u8]) -> Option<Option<Self>> {
        let r = &mut rest;
        Some(Some(match kind {
            2 => {
                let stream = StreamId(get_u32(r)?);
                let partition = i32::try_from(varint::read_signed(r)?).ok()?;
                let topic = get_text(r)?.into();
                Entry::Declare {
                    stream,
                    to: TopicPartition { topic, partition },
                }
            }
            3 => Entry::Cursor {
                stream: StreamId(get_u32(r)?),
                run: Run(get_u32(r)?),
                next: varint::read(r)?,
                offset: varint::read(r)?.checked_sub(1).map(u64::cast_signed),
            },
            4 => {
                let (stream, run) = (StreamId(get_u32(r)?), Run(get_u32(r)?));
                let from = varint::read(r)?;
                Entry::Drop {
                    stream,
                    run,
                    from,
                    to: from.checked_add(varint::read(r)?)?,
                    reason: *r.first()?,
                }
            }
            5 => Entry::Base {
                stream: StreamId(get_u32(r)?),
                run: Run(get_u32(r)?),
                from: varint::read(r)?,
                sent_as: Run(get_u32(r)?),
            },
            6 => Entry::Identity {
                run: Run(get_u32(r)?),
                identity: Identity {
                    producer_id: varint::read_signed(r)?,
                    epoch: i16::try_from(varint::read_signed(r)?).ok()?,
                    cluster_id: get_text(r)?.to_owned(),
                    // Older versions wrote none.
                    device: get_text(r).unwrap_or_default().to_owned(),
                },
            },
            7 => Entry::RunStart {
                run: Run(get_u32(r)?),
                at_ms: varint::read_signed(r)?,
            },
            8 => Entry::Partitions {
                count: get_u32(r)?,
                topic: get_text(r)?.into(),
            },
            9 => Entry::Note(Bytes::copy_from_slice(r)),
            _ => return Some(None),
        }))
    }
}

/// What a frame's directory says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// Entries in the order written.
    pub entries: Vec<Entry>,
    /// Which records the body holds, sorted by run, stream, number; the body has the same order.
    pub sections: Vec<Section>,
    /// The oldest record's timestamp, or 0 without records.
    pub oldest_ms: i64,
}

impl Directory {
    /// Reads a whole directory; `None` when it is malformed.
    pub(super) fn decode(mut rest: &[u8]) -> Option<Self> {
        let mut directory = Self::default();
        while let Some((&kind, tail)) = rest.split_first() {
            rest = tail;
            let length = usize::try_from(varint::read(&mut rest)?).ok()?;
            let (payload, tail) = rest.split_at_checked(length)?;
            rest = tail;
            if kind == SECTIONS {
                directory.decode_sections(payload)?;
            } else if let Some(entry) = Entry::decode(kind, payload)? {
                directory.entries.push(entry);
            }
        }
        Some(directory)
    }

    fn decode_sections(&mut self, mut rest: &[u8]) -> Option<()> {
        let r = &mut rest;
        self.oldest_ms = varint::read_signed(r)?;
        let mut run = 0u32;
        while !r.is_empty() {
            run = run.checked_add(get_u32(r)?)?;
            let (mut stream, mut first) = (0u32, 0u64);
            for _ in 0..varint::read(r)? {
                let head = varint::read(r)?;
                stream = stream.checked_add(u32::try_from(head >> 1).ok()?)?;
                first = first.wrapping_add(varint::read_signed(r)?.cast_unsigned());
                let count = if head & 1 == 1 { 1 } else { get_u32(r)? };
                first.checked_add(u64::from(count))?;
                self.sections.push(Section {
                    stream: StreamId(stream),
                    run: Run(run),
                    first,
                    count,
                });
            }
        }
        Some(())
    }
}

/// Appends the sections, which must be sorted by run, stream, first.
pub(super) fn encode_sections(out: &mut Vec<u8>, sections: &[Section], oldest_ms: i64) {
    if sections.is_empty() {
        return;
    }
    group(out, SECTIONS, |out| {
        varint::write_signed(out, oldest_ms);
        let mut last_run = 0;
        for same_run in sections.chunk_by(|a, b| a.run == b.run) {
            let run = same_run.first().map_or(0, |section| section.run.0);
            varint::write(out, u64::from(run - last_run));
            last_run = run;
            varint::write(out, same_run.len() as u64);
            let (mut stream, mut first) = (0, 0u64);
            for section in same_run {
                let single = u64::from(section.count == 1);
                varint::write(out, u64::from(section.stream.0 - stream) << 1 | single);
                varint::write_signed(out, section.first.wrapping_sub(first).cast_signed());
                if single == 0 {
                    varint::write(out, u64::from(section.count));
                }
                (stream, first) = (section.stream.0, section.first);
            }
        }
    });
}

/// Appends `kind`, the payload's length and the payload.
fn group(out: &mut Vec<u8>, kind: u8, payload: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = Vec::with_capacity(64);
    payload(&mut bytes);
    out.put_u8(kind);
    varint::write(out, bytes.len() as u64);
    out.extend_from_slice(&bytes);
}

fn put_three(out: &mut Vec<u8>, stream: StreamId, run: Run, number: u64) {
    varint::write(out, u64::from(stream.0));
    varint::write(out, u64::from(run.0));
    varint::write(out, number);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    varint::write(out, text.len() as u64);
    out.put_slice(text.as_bytes());
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
