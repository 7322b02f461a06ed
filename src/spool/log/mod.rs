//! The store on disk: frames of records in recycled segment files. Version 1.
//!
//! A *lane* (0–9: a topic's priority, 10: quarantine) is a row of segment files with frame numbers
//! of its own, 1, 2, 3 … A *generation* numbers segments over all lanes and is never used twice; it
//! is the [`SegmentId`]. Integers are little endian; checksums are CRC-32C. A file `00000001.seg`
//! is written full of zeros as `00000001.new`, synced, and then named; it keeps its name when it is
//! recycled. What is left as `.new` by a power cut is removed.
//!
//! ```text
//! segment   head | zeros to a page | frame | frame … | zeros or stale bytes | index | footer
//! head      magic u64 | version u16 | oldest reader u16 | lane u8 | 0 u8 ×3 | generation u64
//!           | serial u64 | first frame u64 | generation before u64 | last frame before u64
//!           | created ms i64 | length u64 | bytes u32 | bytes unpacked u32
//!           | crc32c u32 of head and checkpoint | checkpoint, zstd
//! frame     magic u32 | lane u8 | codec u8 | 0 u16 | generation u64 | serial u64 | number u64
//!           | directory bytes u32 | body bytes u32 | body bytes unpacked u32
//!           | crc32c u32 of all this and the directory | directory | body | crc32c u32 of the body
//! footer    magic u32 | lane u8 | 0 u8 ×3 | generation u64 | index bytes u32
//!           | crc32c u32 of index and footer
//! ```
//! * The *checkpoint* is a directory (`entry.rs`): what the spool knew when the segment was begun.
//!   "Generation before" and "last frame before" are the lane's segment before it and the last
//!   frame synced there.
//! * A frame's *directory* has a checksum of its own, so that a damaged body still names exactly
//!   what is lost. Its *body* (`body.rs`) is columns of records: codec 0 plain, 1 zstd.
//! * The *serial* counts frames and heads over all lanes: it orders entries.
//! * A segment that is full ends with its *index* (`index.rs`): spans of records and all entries.
//!   So a start reads heads, ends, and whole only those segments without an index: each lane's open
//!   one.
//!
//! # Where a frame starts
//! Where it touches the fewest 4 KiB pages: right behind the frame before (at 8 bytes) if that
//! costs no page more than the next page's start. Readers try both. A write is padded with zeros to
//! the page's end.
//!
//! # Invariants
//! - Frame n+1 is not written before frame n is synced: only a lane's last frame can be torn.
//! - A frame whose write or sync failed is never acknowledged, its number never used again in this
//!   process, and its segment takes no more frames. If it is found whole later its records are
//!   used: they are real, and the same as any later copy with the same numbers. Readers skip
//!   numbers that they have seen.
//! - A new head is synced before the first frame is written; so a segment whose recycling was cut
//!   is whole, or empty, but never half. The segment with the newest checkpoint is not recycled
//!   while another can be had.
//! - Bytes behind the last good frame of a lane's newest segment are a torn tail: cut and counted.
//!   A bad frame anywhere else is damage: reported by range, skipped, never cut. Both leave the
//!   rest usable.
//! - A file is never shorter than its head says, and never too short for one: else it was cut from
//!   outside, which is damage. What it lost is told by what is left of the cut frame, by the next
//!   segment's head (last frame), and by the numbers before and behind; at a lane's end it is not
//!   known.
//! - At a start an open segment's head and last frame are written again and synced: a crash of the
//!   process alone, or a failed sync, may have left them in the page cache only.
//! - If a head does not verify, its segment is known by its frames, which carry generation and lane
//!   themselves.
//!
//! # Newer and older readers
//! A reader takes a segment if the head's "oldest reader" is at most its own [`VERSION`]; else it
//! refuses the whole log, before it has touched anything of it ([`refuse_newer`]). A writer may
//! raise "version" alone when it only adds entry kinds or fields behind known ones. Version 1
//! readers will be kept.
//!
//! # Measured
//! 100 single-record sections, 112-byte JSON with random ids and drifting values, four MQTT
//! headers, zstd 1: the frame takes 3,208 bytes (directory 281), one page, 0.366 written bytes per
//! payload byte; `zstd -1` of the bare payloads alone makes 0.158. `tests/size.rs` prints it.

mod body;
mod entry;
mod files;
mod frame;
mod frozen;
mod index;
mod inspect;
mod packer;
mod reader;
mod recovery;
mod rescan;
mod rolling;
mod scan;
mod segment;
mod store;
mod writer;

#[cfg(test)]
pub(crate) mod sim;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use entry::{Directory, Entry};
pub use frozen::FrozenStore;
pub use inspect::refuse_newer;
pub use reader::{FramePos, LogReader, ReadError, ReadFrame, SectionRecords};
pub use recovery::{Damage, Recovered};
pub use store::{DiskStore, Store, StoreFile};
pub use writer::Log;

use crate::record::Record;
use crate::spool::{Run, StreamId, TopicPartition};

/// Version of the format that is written here.
pub const VERSION: u16 = 1;
/// Lanes: ten priorities and the quarantine.
pub const LANES: u8 = 11;
/// The quarantine's lane.
pub const QUARANTINE: u8 = 10;
/// What flash and the page cache write at least.
const PAGE: u64 = 4096;
/// Most bytes of a frame's records in memory, both ways.
pub const RAW_BYTES_MAX: usize = 64 << 20;
/// Generations, serials and frame numbers count from 1; what is above this was never counted.
const COUNT_MAX: u64 = 1 << 62;
/// Smallest segment that makes sense.
pub const SEGMENT_BYTES_MIN: u64 = 16 * PAGE;
/// Largest segment.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// A segment: its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub u64);

/// Bounds and settings of the log.
#[derive(Clone, Copy, Debug)]
pub struct LogConfig {
    /// Size of a segment file, bytes; rounded to pages.
    pub segment_bytes: u64,
    /// Most bytes of all segment files.
    pub max_bytes: u64,
    /// Bytes that stay free on the file system when a segment is made.
    pub min_free_bytes: u64,
    /// zstd level of frames.
    pub compression_level: i32,
}

/// `count` records of one stream and run with consecutive numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Section {
    /// The stream.
    pub stream: StreamId,
    /// The run that numbered them.
    pub run: Run,
    /// The first number.
    pub first: u64,
    /// How many.
    pub count: u32,
}

impl Section {
    /// The number behind the last.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }
}

/// From the first to the last number that a segment holds of one stream and run; there may be gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The stream.
    pub stream: StreamId,
    /// The run.
    pub run: Run,
    /// Lowest number.
    pub first: u64,
    /// Highest number.
    pub last: u64,
}

/// What is known of a segment.
#[derive(Clone, Debug)]
pub struct SegmentInfo {
    /// Its generation.
    pub id: SegmentId,
    /// Its lane.
    pub lane: u8,
    /// What it holds, sorted by stream and run.
    pub spans: Vec<Span>,
    /// Bytes of its file.
    pub bytes: u64,
    /// Timestamp of the oldest record, milliseconds since 1970; `None` without records.
    pub oldest_ms: Option<i64>,
    /// Takes no more frames.
    pub sealed: bool,
}

/// Records for one section of a frame.
#[derive(Clone, Debug)]
pub struct SectionDraft {
    /// The stream.
    pub stream: StreamId,
    /// The run that numbered them.
    pub run: Run,
    /// Number of the first; the others follow without gap.
    pub first: u64,
    /// The records; empty sections are left out.
    pub records: Vec<Record>,
}

/// What one frame shall hold.
#[derive(Clone, Debug, Default)]
pub struct FrameDraft {
    /// Entries beside the records; declarations are added by the log.
    pub controls: Vec<Entry>,
    /// Records, in any order.
    pub sections: Vec<SectionDraft>,
}

/// What the log asks the spool for while it writes.
pub trait Catalog {
    /// What a stream is; the log declares it in each segment that holds records of it.
    fn name(&self, stream: StreamId) -> Option<TopicPartition>;

    /// Everything that a start without sled must know, the most important first: runs, identities,
    /// bases, drops, partition counts, cursors. Asked for when a segment is begun; what does not
    /// fit into a quarter of a segment is left out.
    fn checkpoint(&self) -> Vec<Entry>;
}

/// A frame that is on disk and synced.
#[derive(Clone, Debug)]
pub struct Appended {
    /// Where it begins; its segment.
    pub at: FramePos,
    /// Its sections as written: sorted by run, stream and number, neighbours merged.
    pub sections: Vec<Section>,
    /// The segment that was closed to make room, if one was.
    pub sealed: Option<SegmentId>,
    /// Bytes written, in whole pages, heads and indexes included (zeroing new files is not).
    pub bytes_written: u64,
    /// How long the disk took to sync the frame.
    pub sync: Duration,
}

/// Why the log could not be opened. Damage is no reason.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The folder cannot be listed.
    #[error("cannot read the spool's folder: {0}")]
    Folder(#[source] std::io::Error),
    /// zstd has no memory.
    #[error("cannot start the compressor: {0}")]
    Compressor(#[source] std::io::Error),
    /// `segment_bytes` is below [`SEGMENT_BYTES_MIN`] or above 1 GiB.
    #[error("segment size {0} is out of bounds")]
    SegmentBytes(u64),
    /// A newer version wrote it.
    #[error(
        "{file} was written by a newer version of tidegate, in format {version}; this one reads \
         formats up to {VERSION}. Nothing was touched: install the newer version again"
    )]
    Newer {
        /// The segment.
        file: String,
        /// What it takes to read it.
        version: u16,
    },
}

/// Why a frame was not appended. Nothing of it counts.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// No room. Retryable: space returns when segments are freed.
    #[error(
        "spool is full: {used} of {max} bytes are used, or the file system is down to its minimum"
    )]
    Full {
        /// Bytes of segments in use.
        used: u64,
        /// `max_bytes`.
        max: u64,
    },
    /// The frame is larger than half a segment or than [`RAW_BYTES_MAX`]; the caller must cut it.
    #[error("frame of {bytes} bytes is larger than {max}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// The disk failed. The records may be appended again in another frame.
    #[error("cannot write the spool: {0}")]
    Io(#[from] std::io::Error),
    /// The lane is none.
    #[error("lane {0} does not exist")]
    Lane(u8),
}

/// The first page that starts at or behind `at`.
fn page_up(at: u64) -> u64 {
    at.next_multiple_of(PAGE)
}

/// Where a frame of `length` bytes goes behind `end`.
fn place(end: u64, length: u64) -> u64 {
    let (behind, boundary) = (end.next_multiple_of(8), page_up(end));
    // The page that `behind` shares is written again: it counts.
    let pages = page_up(behind + length) - behind / PAGE * PAGE;
    if pages <= page_up(length) {
        behind
    } else {
        boundary
    }
}
