//! From one segment to the next: a head is written, the one before is sealed with its index.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::files::{FreeFile, Segment};
use super::index::Index;
use super::scan::Ident;
use super::segment::Head;
use super::writer::{Log, Open};
use super::{AppendError, Catalog, Entry, PAGE, SegmentId, page_up};
use crate::spool::StreamId;

impl Log {
    /// The disk failed: the lane's segment takes no more frames. Without a good frame it is free
    /// again, so that a failing disk does not eat the spool segment by segment.
    pub(super) fn give_up(&mut self, lane_id: u8) {
        let Some(lane) = self.lanes.get_mut(usize::from(lane_id)) else {
            return;
        };
        let Some(open) = lane.open.take() else {
            return;
        };
        let id = SegmentId(open.segment.ident.generation);
        if open.segment.committed() > open.segment.start {
            lane.closed = Some(id);
        } else {
            self.free(id);
        }
    }

    /// Opens a new segment in the lane and closes the one before. Returns the bytes written.
    pub(super) fn roll(
        &mut self,
        keep: usize,
        lane_id: u8,
        catalog: &dyn Catalog,
    ) -> Result<u64, AppendError> {
        let file = self.files.obtain(self.table.bytes(), keep)?;
        let generation = self.next_generation;
        self.next_generation += 1;
        let serial = self.next_serial;
        let (head, start, declared) = self.head(lane_id, generation, catalog);
        let written = file
            .file
            .write_at(0, &head)
            .and_then(|()| file.file.sync_data());
        if let Err(error) = written {
            self.files.release(file);
            return Err(error.into());
        }
        self.files.newest_head = serial;
        let file = FreeFile {
            generation,
            serial,
            head: serial,
            ..file
        };
        let first = self
            .lanes
            .get(usize::from(lane_id))
            .map_or(0, |lane| lane.last_number)
            + 1;
        let index = Box::new(Index::new(start, first));
        let ident = Ident {
            generation,
            lane: lane_id,
        };
        let segment = Arc::new(Segment::new(ident, file, index, false));
        self.table.insert(segment.clone());
        let mut bytes = start;
        if let Some(lane) = self.lanes.get_mut(usize::from(lane_id)) {
            if let Some(before) = lane.open.replace(Open { segment, declared }) {
                lane.closed = Some(SegmentId(before.segment.ident.generation));
                bytes += seal(&before.segment);
            }
            lane.segments.push(SegmentId(generation));
        }
        Ok(bytes)
    }

    /// A head, whole pages of it, where frames begin behind it, and the streams that it declares.
    fn head(
        &mut self,
        lane_id: u8,
        generation: u64,
        catalog: &dyn Catalog,
    ) -> (Vec<u8>, u64, HashSet<StreamId>) {
        let lane = self.lanes.get(usize::from(lane_id));
        let head = Head {
            lane: lane_id,
            generation,
            serial: self.next_serial,
            first_number: lane.map_or(0, |lane| lane.last_number) + 1,
            generation_before: lane.map_or(0, |lane| lane.last_generation),
            last_before: lane.map_or(0, |lane| lane.last_synced),
            created_ms: now_ms(),
            length: self.files.config.segment_bytes,
        };
        self.next_serial += 1;
        let most = usize::try_from(self.files.config.segment_bytes / 4).unwrap_or(usize::MAX);
        let mut raw = Vec::new();
        let mut declared = HashSet::new();
        for entry in catalog.checkpoint() {
            let from = raw.len();
            let fresh = declarations(entry.mentions().into_iter(), catalog, Some(&declared));
            fresh
                .iter()
                .chain([&entry])
                .for_each(|entry| entry.encode(&mut raw));
            if raw.len() > most {
                raw.truncate(from);
                tracing::warn!(generation, "a segment's checkpoint was cut");
                break;
            }
            declared.extend(entry.mentions().filter(|_| !fresh.is_empty()));
        }
        let (packed, raw_bytes) = self.packer.pack_head(&raw);
        let mut bytes = head.encode(&packed, raw_bytes);
        let start = page_up(bytes.len() as u64);
        bytes.resize(usize::try_from(start).unwrap_or(bytes.len()), 0);
        (bytes, start, declared)
    }
}

/// Declarations of those streams that are not declared.
pub(super) fn declarations(
    streams: impl Iterator<Item = StreamId>,
    catalog: &dyn Catalog,
    declared: Option<&HashSet<StreamId>>,
) -> Vec<Entry> {
    let mut fresh: Vec<StreamId> = streams
        .filter(|stream| !declared.is_some_and(|all| all.contains(stream)))
        .collect();
    fresh.sort_unstable();
    fresh.dedup();
    let declare = |stream| {
        let to = catalog.name(stream)?;
        Some(Entry::Declare { stream, to })
    };
    fresh.into_iter().filter_map(declare).collect()
}

/// Writes the index at a segment's end; returns the bytes written. If that fails a start reads the
/// whole segment instead.
fn seal(segment: &Segment) -> u64 {
    let mut held = segment.index.lock();
    let Some(index) = held.as_ref() else {
        return 0;
    };
    let bytes = index.encode(segment.ident.lane, segment.ident.generation);
    let Some(at) = segment.length.checked_sub(bytes.len() as u64) else {
        return 0;
    };
    if at < index.frames_end {
        return 0;
    }
    let written = segment
        .file
        .write_at(at, &bytes)
        .and_then(|()| segment.file.sync_data());
    match written {
        Ok(()) => {
            *held = None;
            segment.length - at / PAGE * PAGE
        }
        Err(error) => {
            tracing::warn!(%error, "a segment's index could not be written");
            0
        }
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
