//! Reads a segment without an index whole, and makes its end durable.

use std::collections::HashMap;

use super::index::Index;
use super::scan::{Region, Step, Walk, Want, lost};
use super::{PAGE, Section, page_up};
use crate::spool::{Run, StreamId};

/// A segment that was read whole.
pub(super) struct Scan {
    pub index: Box<Index>,
    pub damage: Vec<(Vec<Section>, bool, String)>,
    /// Bad frames behind the last good one.
    pub tail: Vec<Section>,
    pub torn: bool,
    /// The last frame that can at least be named.
    pub last_named: u64,
    /// Where the last good frame begins.
    last_at: Option<u64>,
}

/// Reads all frames from `start` on, where frame `first` is; `ends` is what older segments hold.
pub(super) fn scan(
    region: Region<'_>,
    (start, first): (u64, u64),
    ends: &HashMap<(StreamId, Run), u64>,
) -> Scan {
    let mut scan = Scan {
        index: Box::new(Index::new(start, first)),
        damage: Vec::new(),
        tail: Vec::new(),
        torn: false,
        last_named: first.saturating_sub(1),
        last_at: None,
    };
    let walk = Walk::new(region, start, first, Want::Body);
    let (mut hole, mut last) = (None, first.saturating_sub(1));
    for step in walk {
        let found = match step {
            Step::Frame(found) => found,
            Step::Hole(at) => {
                hole = Some(at);
                continue;
            }
        };
        let skipped = hole.take().filter(|_| found.header.number > last + 1);
        last = found.header.number;
        if let Some(at) = skipped {
            let ranges = lost(region, (start, first, at), &[], ends);
            scan.damage.push((
                ranges,
                false,
                "a frame's header or directory is damaged".into(),
            ));
        }
        if found.body.is_none() {
            scan.tail.extend(&found.directory.sections);
            scan.torn = true;
            continue;
        }
        if scan.torn {
            let ranges = std::mem::take(&mut scan.tail);
            scan.damage
                .push((ranges, true, "a frame's body is damaged".into()));
            scan.torn = false;
        }
        scan.index
            .add(found.header.serial, found.header.number, &found.directory);
        scan.index.frames_end = found.end();
        scan.last_at = Some(found.at);
    }
    let torn = region.is_torn(scan.index.frames_end, last + 1);
    scan.torn |= torn;
    scan.last_named = last;
    scan
}

/// Makes the end of a scanned segment what it seems: the last frame is written again, since it may
/// be in the page cache alone, and a torn frame's header is wiped out, so that it is not found
/// again.
pub(super) fn settle(region: Region<'_>, scan: &Scan) -> std::io::Result<()> {
    // The head too: its sync may have failed, and under it lies the head of the segment before.
    let mut head = vec![0; usize::try_from(scan.index.frames_start).unwrap_or(0)];
    if region.file.read_at(0, &mut head)? == head.len() {
        region.file.write_at(0, &head)?;
        region.file.sync_data()?;
    }
    let end = scan.index.frames_end;
    let from = scan.last_at.unwrap_or(end);
    let mut bytes = vec![0; usize::try_from(end - from).unwrap_or(0)];
    let read = region.file.read_at(from, &mut bytes)?;
    if read < bytes.len() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    if scan.torn {
        let wipe = (page_up(end) + PAGE).min(region.limit) - end;
        bytes.resize(bytes.len() + usize::try_from(wipe).unwrap_or(0), 0);
    }
    if bytes.is_empty() {
        return Ok(());
    }
    region.file.write_at(from, &bytes)?;
    region.file.sync_data()
}
