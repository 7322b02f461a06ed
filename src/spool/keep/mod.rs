//! What is kept for a source beside records: keys and values, in a log of their own.
//!
//! The log is the same as the records' (`log`: frames, checksums, recycled segments), in a folder
//! of its own, with one lane and one stream. A change is a record of that stream: its key, and its
//! value or null where the key goes. All keys are in memory, values are not: a start reads
//! everything, and the last change of a key holds.
//!
//! ```text
//! oldest ─────────────────────────────────────▶ newest
//! [ a=1 b=1 a=2 ][ c=1 b=∅ a=3 ][ d=1 …         b=∅ hides b=1: segments leave oldest first only
//! ```
//! # Invariants
//! - A change counts when its frame is synced, and not before all that came before it.
//! - Segments leave in the order in which they came, when nothing in them holds any more; so a key
//!   that went stays gone.
//! - A segment that left may be found again after a power cut, and those behind it not. So a frame
//!   and all heads say from which number on the log counts, and a segment leaves only when they say
//!   that nothing before it does.
//! - What still holds in the oldest segment is written again, behind all others, when the log is
//!   more than twice what holds, so a byte that holds is written about once more in its life.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::intake::Change;
use super::log::{
    AppendError, Catalog, Entry, FrameDraft, Log, LogConfig, LogError, LogReader, ReadError,
    SectionDraft, SegmentId, Store,
};
use super::{Run, StreamId, TopicPartition};
use crate::record::{Record, RecordWriter};

const LANE: u8 = 0;
const STREAM: StreamId = StreamId(0);
const RUN: Run = Run(1);
/// Bytes of changes in one frame, unless one alone has more.
const FRAME_BYTES: usize = 256 * 1024;
/// Segments that the log may have beyond twice what holds.
const SEGMENTS_SPARE: u64 = 2;
/// What a change costs beside its key and value, about.
const CHANGE_BYTES: u64 = 16;

/// Where the last change of a key stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    number: u64,
    bytes: u32,
}

/// A segment, and what in it holds.
#[derive(Debug)]
struct Segment {
    id: SegmentId,
    /// Its first number.
    first: u64,
    live: u64,
}

/// The store.
#[derive(Debug)]
pub struct Keeper {
    log: Log,
    reader: LogReader,
    config: LogConfig,
    keys: HashMap<Bytes, Place>,
    /// Bytes of all that holds.
    live_bytes: u64,
    /// The oldest first; the last alone may take more.
    segments: VecDeque<Segment>,
    next: u64,
    /// Numbers below this do not count.
    from: u64,
    /// What the last frame and the heads before it say of that.
    told: u64,
}

/// What a start finds.
#[derive(Debug, Default)]
pub struct Opened {
    /// Everything that holds.
    pub all: BTreeMap<Bytes, Bytes>,
    /// Frames that could not be read: what they said is forgotten, and what it hid may hold again.
    pub damages: u64,
}

impl Keeper {
    /// Opens the log in `store` and reads it.
    ///
    /// # Errors
    /// [`LogError`]; damage is none.
    pub fn open(store: Arc<dyn Store>, config: LogConfig) -> Result<(Self, Opened), LogError> {
        let (log, recovered) = Log::open(store, config)?;
        let mut keeper = Self {
            reader: log.reader(),
            log,
            config,
            keys: HashMap::new(),
            live_bytes: 0,
            segments: VecDeque::new(),
            next: 1,
            from: 0,
            told: 0,
        };
        let mut opened = Opened {
            damages: recovered.damage.len() as u64,
            ..Opened::default()
        };
        for damage in &recovered.damage {
            tracing::error!(what = %damage.what, "kept sessions are damaged");
        }
        let from = recovered.entries.iter().filter_map(|entry| match entry {
            Entry::Cursor { next, .. } => Some(*next),
            _ => None,
        });
        keeper.from = from.max().unwrap_or(0);
        keeper.told = keeper.from;
        let mut segments = recovered.segments;
        segments.sort_unstable_by_key(|info| info.id);
        for info in segments {
            keeper.segments.push_back(Segment {
                id: info.id,
                first: keeper.next,
                live: 0,
            });
            keeper.read_at_start(info.id, &mut opened);
        }
        Ok((keeper, opened))
    }

    fn read_at_start(&mut self, segment: SegmentId, opened: &mut Opened) {
        let reader = self.reader.clone();
        let damages = walk(&reader, segment, |number, record| {
            self.next = self.next.max(number + 1);
            let Some(key) = key_of(&record).filter(|_| number >= self.from) else {
                return;
            };
            let value = record.value().ok().flatten();
            let bytes = key.len() + value.map_or(0, <[u8]>::len);
            self.note(&key, number, value.map(|_| bytes));
            match value {
                Some(value) => opened.all.insert(key, Bytes::copy_from_slice(value)),
                None => opened.all.remove(&key),
            };
        });
        opened.damages += damages;
    }

    /// Keys that are kept, and bytes of all that holds.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        (self.keys.len() as u64, self.live_bytes)
    }

    /// Writes changes and syncs them, in order; the keys that they name must differ.
    ///
    /// # Errors
    /// [`AppendError`]; the first of them may count all the same, so the same must come again
    /// before any other.
    pub fn write(&mut self, changes: &[Change]) -> Result<(), AppendError> {
        // What is not there need not go.
        let changes = changes
            .iter()
            .filter(|change| change.value.is_some() || self.keys.contains_key(&change.key))
            .cloned()
            .collect();
        for frame in self.cut(changes) {
            self.append_or_make_room(&frame)?;
        }
        self.tidy();
        Ok(())
    }

    fn append_or_make_room(&mut self, frame: &[Change]) -> Result<(), AppendError> {
        let mut tries = self.segments.len();
        loop {
            match self.append(1, frame) {
                Err(AppendError::Full { .. }) if tries > 0 && self.make_room() => tries -= 1,
                // Nothing that a source may hand in is as large; it would be in the way for ever.
                Err(AppendError::TooLarge { bytes, max }) => {
                    tracing::error!(bytes, max, "too large to be kept");
                    return Ok(());
                }
                other => return other,
            }
        }
    }

    fn append(&mut self, keep: usize, changes: &[Change]) -> Result<(), AppendError> {
        let from = From(self.from);
        let first = self.next;
        // A frame that failed may be found later: its numbers are not used again.
        self.next += changes.len() as u64;
        let records = changes.iter().map(record_of).collect();
        let draft = FrameDraft {
            controls: Vec::from_iter((self.told < self.from).then(|| from.entry())),
            sections: vec![SectionDraft {
                stream: STREAM,
                run: RUN,
                first,
                records,
            }],
        };
        let result = self.log.append_keeping(keep, LANE, &draft, &from);
        // One that the disk failed may hold the frame all the same.
        for id in self.log.segments_of(LANE) {
            if self.segments.back().is_none_or(|last| last.id < *id) {
                self.segments.push_back(Segment {
                    id: *id,
                    first,
                    live: 0,
                });
            }
        }
        result?;
        self.told = from.0;
        for (number, change) in (first..).zip(changes) {
            let bytes = change
                .value
                .as_ref()
                .map(|value| change.key.len() + value.len());
            self.note(&change.key, number, bytes);
        }
        Ok(())
    }

    /// Notes that a key's last change is this one; `bytes`: none if it is gone.
    fn note(&mut self, key: &Bytes, number: u64, bytes: Option<usize>) {
        let old = match bytes {
            Some(bytes) => {
                let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
                self.live_bytes += u64::from(bytes) + CHANGE_BYTES;
                if let Some(segment) = segment_of(&mut self.segments, number) {
                    segment.live += 1;
                }
                let place = Place { number, bytes };
                match self.keys.get_mut(key) {
                    Some(had) => Some(std::mem::replace(had, place)),
                    // Not a part of a larger buffer.
                    None => self.keys.insert(Bytes::copy_from_slice(key), place),
                }
            }
            None => self.keys.remove(key),
        };
        let Some(old) = old else { return };
        self.live_bytes = self
            .live_bytes
            .saturating_sub(u64::from(old.bytes) + CHANGE_BYTES);
        if let Some(segment) = segment_of(&mut self.segments, old.number) {
            segment.live = segment.live.saturating_sub(1);
        }
    }

    /// Gives back what nothing holds in any more, and writes the oldest segment's rest again where
    /// the log has grown too long. A failure leaves everything as it is.
    fn tidy(&mut self) {
        loop {
            while self.segments.front().is_some_and(|s| s.live == 0) && self.drop_oldest() {}
            let held = self.live_bytes.div_ceil(self.config.segment_bytes);
            let too_long = self.segments.len() as u64 > 2 * held + SEGMENTS_SPARE;
            if !too_long || !self.rewrite_oldest(1) {
                return;
            }
        }
    }

    /// The log is full: the oldest segment goes, with the help of the file that is kept back; if
    /// something in it holds, only where enough of all is needless.
    fn make_room(&mut self) -> bool {
        let Some((first, live)) = self.segments.front().map(|s| (s.first, s.live)) else {
            return false;
        };
        if self.told < first {
            self.from = self.from.max(first);
            if self.append(0, &[]).is_err() {
                return false;
            }
        }
        let is_enough = (self.keys.len() as u64) < (self.next - self.from) / 4 * 3;
        match live {
            0 => self.drop_oldest(),
            _ => is_enough && self.rewrite_oldest(0),
        }
    }

    /// Writes again what holds in the oldest segment, which then goes. Gives false when it cannot.
    fn rewrite_oldest(&mut self, keep: usize) -> bool {
        let Some(oldest) = self.segments.front().filter(|_| self.segments.len() > 1) else {
            return false;
        };
        let id = oldest.id;
        let mut changes = Vec::new();
        let reader = self.reader.clone();
        walk(&reader, id, |number, record| {
            let Some(key) = key_of(&record) else { return };
            if self
                .keys
                .get(&key)
                .is_some_and(|place| place.number == number)
            {
                let value = record.value().ok().flatten().map(Bytes::copy_from_slice);
                changes.push(Change { key, value });
            }
        });
        for frame in self.cut(changes) {
            if let Err(error) = self.append(keep, &frame) {
                tracing::warn!(%error, "what is kept cannot be written again");
                return false;
            }
        }
        // What could not be read goes with it.
        let first_left = self.segments.get(1).map_or(self.next, |next| next.first);
        let lost = self.keys.iter().filter(|(_, at)| at.number < first_left);
        let lost: Vec<Bytes> = lost.map(|(key, _)| key.clone()).collect();
        for key in lost {
            tracing::error!("a kept value is damaged and forgotten");
            self.note(&key, 0, None);
        }
        self.drop_oldest()
    }

    /// Gives the oldest segment back, if it is on disk that nothing before it counts; if not, the
    /// next frame will say so. The newest stays: it is what says so.
    fn drop_oldest(&mut self) -> bool {
        let Some(first) = self.segments.front().map(|oldest| oldest.first) else {
            return false;
        };
        if self.segments.len() == 1 {
            return false;
        }
        self.from = self.from.max(first);
        if self.told < first {
            return false;
        }
        if let Some(oldest) = self.segments.pop_front() {
            self.log.free(oldest.id);
        }
        true
    }

    /// Cuts changes into frames: what zstd cannot compress must fit into half a segment.
    fn cut(&self, changes: Vec<Change>) -> Vec<Vec<Change>> {
        let quarter = usize::try_from(self.config.segment_bytes / 4).unwrap_or(usize::MAX);
        let bytes_max = FRAME_BYTES.min(quarter);
        let mut frames: Vec<Vec<Change>> = Vec::new();
        let mut bytes = 0;
        for change in changes {
            let size = change.key.len() + change.value.as_ref().map_or(0, Bytes::len);
            match frames.last_mut() {
                Some(frame) if bytes + size <= bytes_max => {
                    bytes += size;
                    frame.push(change);
                }
                _ => {
                    bytes = size;
                    frames.push(vec![change]);
                }
            }
        }
        frames
    }
}

/// The segment that holds a number.
fn segment_of(segments: &mut VecDeque<Segment>, number: u64) -> Option<&mut Segment> {
    let behind = segments.partition_point(|segment| segment.first <= number);
    segments.get_mut(behind.checked_sub(1)?)
}

/// Visits what a segment holds, in order. Gives the number of places that could not be read.
fn walk(reader: &LogReader, segment: SegmentId, mut visit: impl FnMut(u64, Record)) -> u64 {
    let mut damages = 0;
    let mut at = reader.first(segment);
    while let Some(place) = at {
        at = match reader.read_frame(place) {
            Ok(Some(frame)) => {
                for section in frame.sections {
                    for (number, record) in (section.section.first..).zip(section.records) {
                        visit(number, record);
                    }
                }
                Some(frame.next)
            }
            Ok(None) | Err(ReadError::Gone(_)) => None,
            Err(ReadError::Damaged { what, next, .. }) => {
                damages += 1;
                tracing::error!(segment = segment.0, what, "kept sessions are damaged");
                next
            }
        };
    }
    damages
}

fn record_of(change: &Change) -> Record {
    let value = change.value.as_deref();
    RecordWriter::new(Some(&change.key), value).finish(0)
}

fn key_of(record: &Record) -> Option<Bytes> {
    let key = record.key().ok().flatten()?;
    Some(Bytes::copy_from_slice(key))
}

/// What the heads of segments say: what the stream is, and the number from which it counts.
struct From(u64);

impl From {
    fn entry(&self) -> Entry {
        Entry::Cursor {
            stream: STREAM,
            run: RUN,
            next: self.0,
            offset: None,
        }
    }
}

impl Catalog for From {
    fn name(&self, _: StreamId) -> Option<TopicPartition> {
        Some(TopicPartition {
            topic: "kept".into(),
            partition: 0,
        })
    }

    fn checkpoint(&self) -> Vec<Entry> {
        vec![self.entry()]
    }
}
