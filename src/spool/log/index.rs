//! What a segment holds, kept in memory while it is written and at its end when it is full.
//!
//! ```text
//! index: first frame's offset | its number | end of the last frame | last number | last serial
//!        | frames, varints | count of spans | 1 if there are records u8 | oldest timestamp, signed
//!        | spans: stream less the last, run, first, last less first
//!        | for each entry: serial, varint | the entry as in a directory … to the end
//! ```

use std::collections::{BTreeMap, HashMap};

use bytes::BufMut;

use super::frame::Fields;
use super::{COUNT_MAX, Directory, Entry, Section, Span};
use crate::record::varint;
use crate::spool::{Run, StreamId};

/// Bytes of a footer.
pub(super) const FOOTER: usize = 24;
const MAGIC: u32 = 0x4649_4754;
/// Most bytes that a span takes in an index.
const SPAN_BYTES: u64 = 30;
/// Fixed fields of an index.
const FIXED_BYTES: u64 = 90;

/// Entries, of those with the same key the newest; of cursors the furthest, for a frame that moves
/// one may have failed to sync, be found whole all the same, and be older than a head that knows
/// nothing of it.
#[derive(Debug, Default)]
pub(super) struct Newest(HashMap<Vec<u8>, (u64, Entry)>);

impl Newest {
    /// Takes an entry unless a newer one with its key is there. Notes are left out.
    pub fn add(&mut self, serial: u64, entry: Entry) {
        if matches!(entry, Entry::Note(_)) {
            return;
        }
        let key = entry.key();
        match self.0.get_mut(&key) {
            Some(there) if there.0 > serial && !is_further(&entry, &there.1) => {}
            Some(there) if is_further(&there.1, &entry) => {}
            Some(there) => *there = (serial, entry),
            None => {
                self.0.insert(key, (serial, entry));
            }
        }
    }

    /// All, the oldest first.
    pub fn sorted(&self) -> Vec<(u64, &Entry)> {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by(|a, b| (a.1.0, a.0).cmp(&(b.1.0, b.0)));
        all.into_iter()
            .map(|(_, (serial, entry))| (*serial, entry))
            .collect()
    }
}

/// Whether both are cursors and the first is the further one.
fn is_further(one: &Entry, other: &Entry) -> bool {
    match (one, other) {
        (
            Entry::Cursor { run, next, .. },
            Entry::Cursor {
                run: r, next: n, ..
            },
        ) => (run, next) > (r, n),
        _ => false,
    }
}

/// What a segment holds.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub frames_start: u64,
    pub first_number: u64,
    pub frames_end: u64,
    pub last_number: u64,
    pub last_serial: u64,
    pub frames: u64,
    pub oldest_ms: Option<i64>,
    pub entries: Newest,
    spans: BTreeMap<(StreamId, Run), (u64, u64)>,
    /// Most bytes that the index takes on disk.
    bytes: u64,
}

impl Index {
    /// Of a segment whose frames begin at `start` with that number.
    pub fn new(start: u64, number: u64) -> Self {
        Self {
            frames_start: start,
            first_number: number,
            last_number: number.saturating_sub(1),
            frames_end: start,
            ..Self::default()
        }
    }

    /// Adds what a frame's directory says.
    pub fn add(&mut self, serial: u64, number: u64, directory: &Directory) {
        (self.last_serial, self.last_number) = (serial, number);
        self.frames += 1;
        for section in directory
            .sections
            .iter()
            .filter(|section| section.count > 0)
        {
            let (first, last) = (section.first, section.end() - 1);
            let span = self
                .spans
                .entry((section.stream, section.run))
                .or_insert((first, last));
            *span = (span.0.min(first), span.1.max(last));
        }
        if !directory.sections.is_empty() {
            let oldest = self.oldest_ms.unwrap_or(i64::MAX);
            self.oldest_ms = Some(oldest.min(directory.oldest_ms));
        }
        self.bytes += Self::entry_bytes(directory.entries.iter());
        for entry in &directory.entries {
            self.entries.add(serial, entry.clone());
        }
    }

    /// Most bytes of index and footer once a frame with `more` sections and `entries` is added.
    pub fn reserve(&self, sections: usize, entry_bytes: u64) -> u64 {
        let spans = (self.spans.len() + sections) as u64 * SPAN_BYTES;
        FOOTER as u64 + FIXED_BYTES + spans + self.bytes + entry_bytes
    }

    /// Most bytes that these entries add to an index.
    pub fn entry_bytes<'a>(entries: impl Iterator<Item = &'a Entry>) -> u64 {
        let mut bytes = Vec::new();
        let mut count = 0u64;
        for entry in entries.filter(|entry| !matches!(entry, Entry::Note(_))) {
            entry.encode(&mut bytes);
            count += 1;
        }
        bytes.len() as u64 + 10 * count
    }

    /// What it holds.
    pub fn spans(&self) -> Vec<Span> {
        let span = |(&(stream, run), &(first, last)): (&(StreamId, Run), &(u64, u64))| Span {
            stream,
            run,
            first,
            last,
        };
        self.spans.iter().map(span).collect()
    }

    /// Widens the spans, without a frame of its own.
    pub fn cover(&mut self, section: &Section) {
        let span = (section.first, section.end().saturating_sub(1));
        let there = self
            .spans
            .entry((section.stream, section.run))
            .or_insert(span);
        *there = (there.0.min(span.0), there.1.max(span.1));
    }

    /// Index and footer, to be written at the segment's very end.
    pub fn encode(&self, lane: u8, generation: u64) -> Vec<u8> {
        let mut out = Vec::new();
        for field in [
            self.frames_start,
            self.first_number,
            self.frames_end,
            self.last_number,
            self.last_serial,
            self.frames,
            self.spans.len() as u64,
        ] {
            varint::write(&mut out, field);
        }
        out.put_u8(u8::from(self.oldest_ms.is_some()));
        varint::write_signed(&mut out, self.oldest_ms.unwrap_or(0));
        let mut before = 0;
        for (&(stream, run), &(first, last)) in &self.spans {
            varint::write(&mut out, u64::from(stream.0 - before));
            varint::write(&mut out, u64::from(run.0));
            varint::write(&mut out, first);
            varint::write(&mut out, last - first);
            before = stream.0;
        }
        for (serial, entry) in self.entries.sorted() {
            varint::write(&mut out, serial);
            entry.encode(&mut out);
        }
        let bytes = u32::try_from(out.len()).unwrap_or(u32::MAX);
        out.put_u32_le(MAGIC);
        out.put_u8(lane);
        out.put_slice(&[0; 3]);
        out.put_u64_le(generation);
        out.put_u32_le(bytes);
        out.put_u32_le(crc32c::crc32c(&out));
        out
    }

    /// Reads the end of a file: generation and index, or how many bytes of the end are needed.
    pub fn read(end: &[u8]) -> IndexRead {
        Self::parse(end).unwrap_or(IndexRead::Bad)
    }

    fn parse(end: &[u8]) -> Option<IndexRead> {
        let at = end.len().checked_sub(FOOTER)?;
        let mut r = Fields(end.get(at..)?);
        if r.u32()? != MAGIC {
            return None;
        }
        r.skip(4)?;
        let (generation, bytes, sum) = (r.u64()?, usize::try_from(r.u32()?).ok()?, r.u32()?);
        let Some(from) = at.checked_sub(bytes) else {
            return Some(IndexRead::Short(bytes.checked_add(FOOTER)?));
        };
        if crc32c::crc32c(end.get(from..end.len() - 4)?) != sum {
            return None;
        }
        let index = Self::decode(end.get(from..at)?)?;
        let counts = [
            generation,
            index.first_number,
            index.last_number,
            index.last_serial,
        ];
        if counts.into_iter().any(|count| count > COUNT_MAX) {
            return None;
        }
        Some(IndexRead::Good(generation, Box::new(index)))
    }

    fn decode(mut rest: &[u8]) -> Option<Self> {
        let r = &mut rest;
        let mut index = Self {
            frames_start: varint::read(r)?,
            first_number: varint::read(r)?,
            frames_end: varint::read(r)?,
            last_number: varint::read(r)?,
            last_serial: varint::read(r)?,
            frames: varint::read(r)?,
            ..Self::default()
        };
        let spans = varint::read(r)?;
        let (&some, tail) = r.split_first()?;
        *r = tail;
        let oldest = varint::read_signed(r)?;
        index.oldest_ms = (some == 1).then_some(oldest);
        let mut stream = 0u32;
        for _ in 0..spans {
            stream = stream.checked_add(u32::try_from(varint::read(r)?).ok()?)?;
            let run = Run(u32::try_from(varint::read(r)?).ok()?);
            let first = varint::read(r)?;
            let last = first.checked_add(varint::read(r)?)?;
            index.spans.insert((StreamId(stream), run), (first, last));
        }
        while !r.is_empty() {
            let serial = varint::read(r)?;
            let mut payload = r.get(1..)?;
            let length = usize::try_from(varint::read(&mut payload)?).ok()?;
            let whole = (r.len() - payload.len()).checked_add(length)?;
            let (one, tail) = r.split_at_checked(whole)?;
            *r = tail;
            for entry in Directory::decode(one)?.entries {
                index.entries.add(serial, entry);
            }
        }
        Some(index)
    }
}

/// What the end of a file is.
#[derive(Debug)]
pub(super) enum IndexRead {
    /// Generation, index.
    Good(u64, Box<Index>),
    /// More bytes of the end are needed: this many.
    Short(usize),
    /// No index.
    Bad,
}
