//! Appends frames: one write and one sync each.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::entry::encode_sections;
use super::files::{Files, Segment, Table};
use super::frame::{self, Header};
use super::index::Index;
use super::packer::{Packed, Packer};
use super::reader::{FramePos, LogReader};
use super::rolling::declarations;
use super::{
    AppendError, Appended, Catalog, Directory, Entry, FrameDraft, LANES, PAGE, SegmentId, page_up,
    place,
};
use crate::spool::StreamId;

/// Files that are made ahead of need.
const SPARES: usize = 2;

/// The segment that a lane writes to.
#[derive(Debug)]
pub(super) struct Open {
    pub segment: Arc<Segment>,
    pub declared: HashSet<StreamId>,
}

impl Open {
    /// A frame that ends at `end` is on disk.
    fn synced(&mut self, header: &Header, directory: &Directory, end: u64) {
        for entry in &directory.entries {
            if let Entry::Declare { stream, .. } = entry {
                self.declared.insert(*stream);
            }
        }
        if let Some(index) = self.segment.index.lock().as_mut() {
            index.add(header.serial, header.number, directory);
            index.frames_end = end;
        }
        self.segment.commit(end, header.serial);
    }
}

/// A lane as the writer sees it.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub open: Option<Open>,
    /// The last number given to a frame, failed ones included.
    pub last_number: u64,
    /// The last frame that was synced, and its segment's generation.
    pub last_synced: u64,
    pub last_generation: u64,
    /// Closed since the last append that succeeded.
    pub closed: Option<SegmentId>,
    pub segments: Vec<SegmentId>,
}

/// The log: one thread appends and frees.
#[derive(Debug)]
pub struct Log {
    pub(super) table: Arc<Table>,
    pub(super) files: Files,
    pub(super) lanes: Vec<Lane>,
    pub(super) next_generation: u64,
    pub(super) next_serial: u64,
    pub(super) reader: LogReader,
    pub(super) packer: Packer,
}

impl Log {
    /// Writes one frame into `lane` and syncs it. Takes, makes or recycles a segment when there is
    /// need.
    ///
    /// # Errors
    /// [`AppendError`]; nothing of the frame counts then, and the segment takes no more frames if
    /// the disk failed.
    pub fn append(
        &mut self,
        lane: u8,
        draft: &FrameDraft,
        catalog: &dyn Catalog,
    ) -> Result<Appended, AppendError> {
        self.append_keeping(0, lane, draft, catalog)
    }

    /// As [`Log::append`], but `keep` files must be left for further segments: without them not
    /// even the open segment is written to, for what made room may have begun it.
    ///
    /// # Errors
    /// As there.
    pub fn append_keeping(
        &mut self,
        keep: usize,
        lane: u8,
        draft: &FrameDraft,
        catalog: &dyn Catalog,
    ) -> Result<Appended, AppendError> {
        if lane >= LANES {
            return Err(AppendError::Lane(lane));
        }
        self.files.check_left(self.table.bytes(), keep)?;
        let packed = self.packer.pack(&draft.sections)?;
        let mut bytes_written = 0;
        let mut directory = self.directory(lane, draft, &packed, catalog);
        let max = self.files.config.segment_bytes / 2;
        let bytes = self.frame_bytes(&packed);
        if bytes > max {
            return Err(AppendError::TooLarge { bytes, max });
        }
        if !self.fits(lane, bytes, &directory) {
            bytes_written += self.roll(keep, lane, catalog)?;
            directory = self.directory(lane, draft, &packed, catalog);
            let bytes = self.frame_bytes(&packed);
            if !self.fits_at_all(lane, bytes) {
                return Err(AppendError::TooLarge { bytes, max });
            }
        }
        self.write(lane, packed, directory, bytes_written)
    }

    /// Builds the directory for the lane's open segment, in `packer.directory` and as it will be
    /// read.
    fn directory(
        &mut self,
        lane: u8,
        draft: &FrameDraft,
        packed: &Packed,
        catalog: &dyn Catalog,
    ) -> Directory {
        let open = self
            .lanes
            .get(usize::from(lane))
            .and_then(|lane| lane.open.as_ref());
        let streams = packed.sections.iter().map(|section| section.stream);
        let streams = streams.chain(draft.controls.iter().filter_map(Entry::mentions));
        let mut entries = declarations(streams, catalog, open.map(|open| &open.declared));
        entries.extend(draft.controls.iter().cloned());
        let out = &mut self.packer.directory;
        out.clear();
        entries.iter().for_each(|entry| entry.encode(out));
        encode_sections(out, &packed.sections, packed.oldest_ms);
        Directory {
            entries,
            sections: packed.sections.clone(),
            oldest_ms: packed.oldest_ms,
        }
    }

    fn frame_bytes(&self, packed: &Packed) -> u64 {
        let fixed = (frame::HEADER + frame::TRAILER) as u64;
        fixed + self.packer.directory.len() as u64 + u64::from(packed.body_bytes)
    }

    /// Whether the open segment has room for the frame and for its own index behind it.
    fn fits(&self, lane: u8, bytes: u64, directory: &Directory) -> bool {
        let Some(segment) = self.open_segment(lane) else {
            return false;
        };
        let index = segment.index.lock();
        let Some(index) = index.as_ref() else {
            return false;
        };
        let more = Index::entry_bytes(directory.entries.iter());
        let reserve = index.reserve(directory.sections.len(), more);
        place(index.frames_end, bytes) + bytes + reserve <= segment.length
    }

    /// Whether the open segment has room if its index is given up.
    fn fits_at_all(&self, lane: u8, bytes: u64) -> bool {
        self.open_segment(lane)
            .is_some_and(|segment| place(segment.committed(), bytes) + bytes <= segment.length)
    }

    fn open_segment(&self, lane: u8) -> Option<&Arc<Segment>> {
        Some(&self.lanes.get(usize::from(lane))?.open.as_ref()?.segment)
    }

    fn write(
        &mut self,
        lane_id: u8,
        packed: Packed,
        directory: Directory,
        mut bytes_written: u64,
    ) -> Result<Appended, AppendError> {
        let no_lane = AppendError::Lane(lane_id);
        let Some(lane) = self.lanes.get_mut(usize::from(lane_id)) else {
            return Err(no_lane);
        };
        let Some(open) = lane.open.as_mut() else {
            return Err(no_lane);
        };
        lane.last_number += 1;
        let header = Header {
            lane: lane_id,
            codec: packed.codec,
            generation: open.segment.ident.generation,
            serial: self.next_serial,
            number: lane.last_number,
            directory_bytes: u32::try_from(self.packer.directory.len()).unwrap_or(u32::MAX),
            body_bytes: packed.body_bytes,
            raw_bytes: packed.raw_bytes,
        };
        self.next_serial += 1;
        let mut out = std::mem::take(&mut self.packer.out);
        out.clear();
        header.encode(
            &self.packer.directory,
            self.packer.body(packed.codec),
            &mut out,
        );
        let at = place(open.segment.committed(), out.len() as u64);
        let end = at + out.len() as u64;
        // Whole pages, so that the system need not read the last one's rest from the disk first.
        out.resize(
            out.len() + usize::try_from(page_up(end) - end).unwrap_or(0),
            0,
        );
        let written = open.segment.file.write_at(at, &out);
        let before = Instant::now();
        let synced = written.and_then(|()| open.segment.file.sync_data());
        self.packer.out = out;
        if let Err(error) = synced {
            self.give_up(lane_id);
            return Err(error.into());
        }
        let sync = before.elapsed();
        bytes_written += page_up(end) - at / PAGE * PAGE;
        open.synced(&header, &directory, end);
        lane.last_synced = header.number;
        lane.last_generation = header.generation;
        Ok(Appended {
            at: FramePos {
                segment: SegmentId(header.generation),
                offset: at,
                number: header.number,
            },
            sections: packed.sections,
            sealed: lane.closed.take(),
            bytes_written,
            sync,
        })
    }

    /// Takes a segment that is needed no more out of the log; its file is used again. Readers in it
    /// notice.
    pub fn free(&mut self, segment: SegmentId) {
        let Some(gone) = self.table.remove(segment) else {
            return;
        };
        if let Some(lane) = self.lanes.get_mut(usize::from(gone.ident.lane)) {
            lane.segments.retain(|id| *id != segment);
            lane.open.take_if(|open| open.segment.ident == gone.ident);
            lane.closed.take_if(|id| *id == segment);
        }
        self.files.release(gone.free_file());
    }

    /// Makes files for the next segments ahead of need, as the bounds allow: one to be written
    /// next, and one that is kept back. Zeroing takes the time of a segment's write, which is
    /// better spent while nobody waits.
    ///
    /// # Errors
    /// The disk's.
    pub fn prepare_spares(&mut self) -> io::Result<()> {
        while self.files.spares() < SPARES && self.files.can_create(self.table.bytes(), 1) {
            let file = self.files.create()?;
            self.files.free.push(file);
        }
        Ok(())
    }

    /// Reads what is synced, from any thread.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        self.reader.clone()
    }

    /// A lane's segments, the oldest first; the last may be open.
    #[must_use]
    pub fn segments_of(&self, lane: u8) -> &[SegmentId] {
        self.lanes
            .get(usize::from(lane))
            .map_or(&[], |lane| &lane.segments)
    }

    /// Bytes of segments in use, and of files that are left alone.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.table.bytes() + self.files.alien_bytes
    }

    /// Bytes of frames that still fit: free and possible files, and the rest of the open segments.
    /// Asks the file system.
    #[must_use]
    pub fn capacity_left(&self) -> u64 {
        let config = &self.files.config;
        let live = self.table.bytes();
        let by_bound = config.max_bytes.saturating_sub(self.files.total(live));
        let disk = self.files.store.free_bytes().unwrap_or(0);
        let new = by_bound.min(disk.saturating_sub(config.min_free_bytes));
        let new = new / config.segment_bytes * config.segment_bytes;
        let free: u64 = self.files.free.iter().map(|file| file.length).sum();
        let open = self.lanes.iter().filter_map(|lane| lane.open.as_ref());
        let rest = open.map(|open| open.segment.length - open.segment.committed());
        new + free + rest.sum::<u64>()
    }
}
