//! Reads frames while the writer appends. Sees synced frames only.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use zstd::bulk::Decompressor;

use super::files::{Segment, Table};
use super::frame;
use super::scan::{Found, Want, lost};
use super::{Directory, RAW_BYTES_MAX, Section, SegmentId, body};
use crate::record::Record;

/// A place in a segment: the start of a frame, or the end of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FramePos {
    /// The segment.
    pub segment: SegmentId,
    /// Bytes from its start.
    pub offset: u64,
    /// The frame's number in its lane.
    pub number: u64,
}

/// Records of one section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectionRecords {
    /// Which records these are.
    pub section: Section,
    /// The records, `section.count` of them.
    pub records: Vec<Record>,
}

/// A frame, read and verified. Its records share one allocation.
#[derive(Clone, Debug)]
pub struct ReadFrame {
    /// Where it begins.
    pub at: FramePos,
    /// Its entries, declarations included.
    pub entries: Vec<super::Entry>,
    /// Its records, sorted by run, stream, number.
    pub sections: Vec<SectionRecords>,
    /// Where the next frame is looked for.
    pub next: FramePos,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Why a frame cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes are damaged.
    #[error("segment {} is damaged at {}: {what}", at.segment.0, at.offset)]
    Damaged {
        /// Where.
        at: FramePos,
        /// Which records are lost.
        ranges: Vec<Section>,
        /// `ranges` are the frame's own words. Else they were found from its neighbours, and may
        /// hold numbers that were never written (dropped, confirmed) or leave a stream out.
        exact: bool,
        /// What was found.
        what: &'static str,
        /// Where to go on; `None` at the segment's end.
        next: Option<FramePos>,
    },
    /// The segment was freed.
    #[error("segment {} was freed", .0.0)]
    Gone(SegmentId),
}

/// Reads frames; cheap to clone.
#[derive(Clone)]
pub struct LogReader {
    table: Arc<Table>,
    unpacker: Arc<Mutex<Decompressor<'static>>>,
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader").finish_non_exhaustive()
    }
}

impl LogReader {
    pub(super) fn new(table: Arc<Table>) -> std::io::Result<Self> {
        Ok(Self {
            table,
            unpacker: Arc::new(Mutex::new(Decompressor::new()?)),
        })
    }

    /// Where a segment's frames begin; `None` if it was freed.
    #[must_use]
    pub fn first(&self, segment: SegmentId) -> Option<FramePos> {
        let found = self.table.get(segment)?;
        Some(position(&found, found.start, found.first_number))
    }

    /// The frame at `at`; `None` at the end of what is synced.
    ///
    /// # Errors
    /// [`ReadError`]; after `Damaged` go on at its `next`.
    pub fn read_frame(&self, at: FramePos) -> Result<Option<ReadFrame>, ReadError> {
        let segment = self.segment(at.segment)?;
        if at.offset >= segment.committed() {
            return Ok(None);
        }
        let Some(mut found) = segment.region().follow(at.offset, at.number, Want::Body) else {
            return Err(self.hole(&segment, at));
        };
        let Some(packed) = found.body.take() else {
            return Err(self.bad(&segment, found, "body"));
        };
        match self.unpack(&found, &packed) {
            Some(sections) => Ok(Some(ReadFrame {
                at: start_of(&segment, &found),
                next: end_of(&segment, &found),
                bytes: found.header.frame_bytes(),
                entries: found.directory.entries,
                sections,
            })),
            None => Err(self.bad(&segment, found, "columns")),
        }
    }

    /// The directory of the frame at `at` and where the next one is; `None` at the end of what is
    /// synced.
    ///
    /// # Errors
    /// As [`LogReader::read_frame`], but a damaged body is not noticed.
    pub fn read_directory(&self, at: FramePos) -> Result<Option<(Directory, FramePos)>, ReadError> {
        let segment = self.segment(at.segment)?;
        if at.offset >= segment.committed() {
            return Ok(None);
        }
        match segment.region().follow(at.offset, at.number, Want::Front) {
            Some(found) => {
                let next = end_of(&segment, &found);
                Ok(Some((found.directory, next)))
            }
            None => Err(self.hole(&segment, at)),
        }
    }

    fn segment(&self, id: SegmentId) -> Result<Arc<Segment>, ReadError> {
        self.table.get(id).ok_or(ReadError::Gone(id))
    }

    fn unpack(&self, found: &Found, packed: &[u8]) -> Option<Vec<SectionRecords>> {
        let length = usize::try_from(found.header.raw_bytes).ok()?;
        let unpacked;
        let raw = match found.header.codec {
            frame::PLAIN => packed,
            frame::ZSTD if length <= RAW_BYTES_MAX => {
                unpacked = self.unpacker.lock().decompress(packed, length).ok()?;
                &unpacked
            }
            _ => return None,
        };
        if raw.len() != length {
            return None;
        }
        let sections = &found.directory.sections;
        let counts = sections
            .iter()
            .map(|section| usize::try_from(section.count).ok());
        let count = counts.sum::<Option<usize>>()?;
        let mut records = body::decode(raw, count, found.directory.oldest_ms)?.into_iter();
        let one = |section: &Section| SectionRecords {
            section: *section,
            records: records.by_ref().take(section.count as usize).collect(),
        };
        Some(sections.iter().map(one).collect())
    }

    /// The body of a frame is bad, its directory is good.
    fn bad(&self, segment: &Segment, found: Found, what: &'static str) -> ReadError {
        if segment.is_freed() {
            return ReadError::Gone(SegmentId(segment.ident.generation));
        }
        let next = end_of(segment, &found);
        ReadError::Damaged {
            at: start_of(segment, &found),
            ranges: found.directory.sections,
            exact: true,
            what,
            next: (next.offset < segment.committed()).then_some(next),
        }
    }

    /// Where a frame should be is none.
    fn hole(&self, segment: &Segment, at: FramePos) -> ReadError {
        let region = segment.region();
        let next = region.search(at.offset, at.number);
        let bounds = (segment.start, segment.first_number, at.offset);
        let ranges = lost(region, bounds, &segment.spans(), &HashMap::new());
        if segment.is_freed() {
            return ReadError::Gone(at.segment);
        }
        ReadError::Damaged {
            at,
            ranges,
            exact: false,
            what: "header or directory",
            next: next.map(|(at, number)| position(segment, at, number)),
        }
    }
}

fn start_of(segment: &Segment, found: &Found) -> FramePos {
    position(segment, found.at, found.header.number)
}

fn end_of(segment: &Segment, found: &Found) -> FramePos {
    position(segment, found.end(), found.header.number + 1)
}

fn position(segment: &Segment, offset: u64, number: u64) -> FramePos {
    FramePos {
        segment: SegmentId(segment.ident.generation),
        offset,
        number,
    }
}
