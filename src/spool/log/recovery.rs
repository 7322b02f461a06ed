//! Opens the log: looks at every file's head and end, scans what has no index, cuts torn tails,
//! reports damage. What is in a file never keeps the log from opening.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::files::{Files, FreeFile, Segment, Table, UNFINISHED};
use super::index::{Index, Newest};
use super::inspect::{Candidate, Kind, inspect};
use super::packer::Packer;
use super::reader::LogReader;
use super::rescan::{scan, settle};
use super::scan::{Ident, Region};
use super::writer::{Lane, Log, Open};
use super::{
    Entry, LANES, LogConfig, LogError, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, Section, SegmentId,
    SegmentInfo, Store, page_up,
};
use crate::spool::{Run, StreamId};

/// Records that were synced and cannot be read.
#[derive(Clone, Debug)]
pub struct Damage {
    /// Their lane, if it is known.
    pub lane: Option<u8>,
    /// Their segment, if it is known.
    pub segment: Option<SegmentId>,
    /// Which records are lost.
    pub ranges: Vec<Section>,
    /// `ranges` are what the damaged frames themselves say. Else neighbours tell: numbers that were
    /// dropped or confirmed may be among them, and a stream may be missing.
    pub exact: bool,
    /// What was found, with the file's name.
    pub what: String,
}

/// What a start finds.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Segments in use, by lane, then age.
    pub segments: Vec<SegmentInfo>,
    /// Entries of heads and frames, the oldest first; of those that replace each other the newest
    /// alone. Notes are left out.
    pub entries: Vec<Entry>,
    /// Lanes whose last frame was torn and cut.
    pub torn_tails: u64,
    /// What those frames were to hold, as far as they say. Their sync had not returned, unless the
    /// disk lies.
    pub torn: Vec<Section>,
    /// What cannot be read.
    pub damage: Vec<Damage>,
    /// The newest run that anything names.
    pub newest_run: Option<Run>,
}

impl Log {
    /// Opens the log in `store`.
    ///
    /// # Errors
    /// [`LogError`]: the folder cannot be read, or the settings are impossible.
    pub fn open(
        store: Arc<dyn Store>,
        mut config: LogConfig,
    ) -> Result<(Self, Recovered), LogError> {
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&config.segment_bytes) {
            return Err(LogError::SegmentBytes(config.segment_bytes));
        }
        config.segment_bytes = page_up(config.segment_bytes);
        let mut names = store.list().map_err(LogError::Folder)?;
        names.sort_unstable();
        let table = Arc::new(Table::default());
        let mut opening = Opening {
            log: Log {
                reader: LogReader::new(table.clone()).map_err(LogError::Compressor)?,
                table,
                files: Files {
                    store,
                    config,
                    free: Vec::new(),
                    alien_bytes: 0,
                    next_name: 1,
                    newest_head: 0,
                },
                lanes: (0..LANES).map(|_| Lane::default()).collect(),
                next_generation: 1,
                next_serial: 1,
                packer: Packer::new(config.compression_level).map_err(LogError::Compressor)?,
            },
            found: Recovered::default(),
            entries: Newest::default(),
            stubs: Vec::new(),
            gaps: Vec::new(),
            has_alien: false,
        };
        let lanes = opening.inspect_all(&names);
        for (lane, segments) in lanes {
            opening.lane(lane, segments);
        }
        opening.report_stubs();
        Ok(opening.finish())
    }
}

/// Of each stream and run a number.
type Numbers = HashMap<(StreamId, Run), u64>;

/// A segment that was looked at.
struct Looked {
    candidate: Candidate,
    index: Box<Index>,
    sealed: bool,
    /// May take more frames.
    usable: bool,
    /// Frames that are missing at its end: the first, and the last if it is known.
    lost: Option<(u64, Option<u64>)>,
    /// The first frame of the next segment.
    next_first: Option<u64>,
    /// Numbers behind the last in it and in older segments, where they are wanted.
    ends: Numbers,
}

impl Looked {
    fn sealed(candidate: Candidate, index: Box<Index>) -> Self {
        Self {
            candidate,
            index,
            sealed: true,
            usable: false,
            lost: None,
            next_first: None,
            ends: HashMap::new(),
        }
    }
}

/// The numbers that lie between what older and what newer segments hold.
fn between(older: &Numbers, newer: &Numbers) -> Vec<Section> {
    let gap = |(key, end): (&(StreamId, Run), &u64)| {
        let first = *older.get(key)?;
        let count = u32::try_from(end.checked_sub(first)?).ok()?;
        (count > 0).then_some(Section {
            stream: key.0,
            run: key.1,
            first,
            count,
        })
    };
    let mut gaps: Vec<Section> = newer.iter().filter_map(gap).collect();
    gaps.sort_unstable();
    gaps
}

/// Generations, and serials, that are left to files whose own cannot be known.
const ALIEN_GENERATIONS: u64 = 1 << 32;

struct Opening {
    log: Log,
    found: Recovered,
    entries: Newest,
    /// Files of which nothing is left, and how long they were, if that is known.
    stubs: Vec<(FreeFile, Option<u64>)>,
    /// Frames that a stub may have held: lane, first, last, and the numbers that lie there.
    gaps: Vec<(u8, u64, Option<u64>, Vec<Section>)>,
    /// A file could not be read, or is of a newer version.
    has_alien: bool,
}

impl Opening {
    /// Looks at each file; returns the segments by lane, the oldest first.
    fn inspect_all(&mut self, names: &[String]) -> BTreeMap<u8, Vec<Candidate>> {
        let mut lanes: BTreeMap<u8, Vec<Candidate>> = BTreeMap::new();
        let mut generations = HashSet::new();
        for name in names {
            let (number, is_whole) = match name.strip_suffix(UNFINISHED) {
                Some(number) => (Some(number), false),
                None => (name.strip_suffix(".seg"), true),
            };
            let Some(number) = number.and_then(|n| n.parse::<u64>().ok()) else {
                continue;
            };
            self.log.files.next_name = self.log.files.next_name.max(number.saturating_add(1));
            if !is_whole {
                self.log.files.clear_unfinished(name);
                continue;
            }
            match inspect(self.log.files.store.as_ref(), name) {
                Kind::Free(file) => self.log.files.release(file),
                Kind::Stub(file, whole) => self.stubs.push((file, whole)),
                Kind::Alien(bytes, what) => {
                    self.has_alien = true;
                    self.log.files.alien_bytes += bytes;
                    self.damage(None, (Vec::new(), false, &what), name);
                }
                // A copy that somebody has made.
                Kind::Segment(candidate) if !generations.insert(candidate.ident.generation) => {
                    self.has_alien = true;
                    self.log.files.alien_bytes += candidate.file.length;
                    let what = "it says that it is a segment which another file is";
                    self.damage(Some(candidate.ident), (Vec::new(), false, what), name);
                }
                Kind::Segment(mut candidate) => {
                    // A head names all streams. What heads say is put together at once, for as many
                    // copies as there are segments would take a long backlog's memory.
                    self.take_head(&mut candidate);
                    lanes
                        .entry(candidate.ident.lane)
                        .or_default()
                        .push(*candidate);
                }
            }
        }
        for segments in lanes.values_mut() {
            segments.sort_by_key(|candidate| candidate.ident.generation);
        }
        lanes
    }

    /// Takes what a segment's head says, but for whom it declares.
    fn take_head(&mut self, candidate: &mut Candidate) {
        let serial = candidate.head.map_or(0, |head| head.serial);
        for entry in std::mem::take(&mut candidate.entries) {
            if let Entry::Declare { stream, .. } = &entry {
                candidate.declared.push(*stream);
            }
            self.entries.add(serial, entry);
        }
        candidate.declared.shrink_to_fit();
    }

    fn lane(&mut self, lane: u8, candidates: Vec<Candidate>) {
        let mut ends: Numbers = HashMap::new();
        let mut all = Vec::new();
        let mut candidates = candidates.into_iter().peekable();
        while let Some(mut candidate) = candidates.next() {
            let newest = candidates.peek().is_none();
            let generation = candidate.ident.generation;
            // What the next segment's head says that this one had.
            let next = candidates.peek().and_then(|next| next.head);
            let expected = next.filter(|head| head.generation_before == generation);
            let expected = expected.map(|head| head.last_before);
            let looked = match candidate.sealed.take() {
                Some(index) => Looked::sealed(candidate, index),
                None => self.scanned(candidate, newest, expected, &ends),
            };
            for span in looked.index.spans() {
                let end = ends.entry((span.stream, span.run)).or_insert(0);
                *end = span.last.saturating_add(1).max(*end);
            }
            let mut looked = looked;
            // Where a file is a stub, what is missing between two segments may have been in it.
            looked.next_first = candidates.peek().map(|next| next.number);
            if looked.lost.is_some() || !self.stubs.is_empty() {
                looked.ends.clone_from(&ends);
            }
            all.push(looked);
        }
        let mut behind: Numbers = HashMap::new();
        for looked in all.iter_mut().rev() {
            self.report_end(lane, looked, &behind);
            for span in looked.index.spans() {
                let first = behind.entry((span.stream, span.run)).or_insert(span.first);
                *first = span.first.min(*first);
            }
        }
        for looked in all {
            self.take(lane, looked);
        }
    }

    /// Reads a segment without index.
    fn scanned(
        &mut self,
        candidate: Candidate,
        newest: bool,
        expected: Option<u64>,
        ends: &Numbers,
    ) -> Looked {
        let region = Region {
            file: candidate.file.file.as_ref(),
            ident: candidate.ident,
            limit: candidate.cut_from.unwrap_or(candidate.file.length),
        };
        let mut scan = scan(region, (candidate.start, candidate.number), ends);
        let mut lost = None;
        let is_missing = expected.is_some_and(|last| scan.index.last_number < last);
        if candidate.cut_from.is_some() || is_missing {
            if !scan.tail.is_empty() {
                let what = "a frame's body is missing or damaged".into();
                scan.damage
                    .push((std::mem::take(&mut scan.tail), true, what));
            }
            scan.torn = false;
            lost = Some((scan.last_named + 1, expected));
        }
        let mut usable =
            newest && candidate.head.is_some() && scan.damage.is_empty() && lost.is_none();
        if scan.torn {
            self.found.torn_tails += 1;
            self.found.torn.append(&mut scan.tail);
        }
        for (ranges, exact, what) in std::mem::take(&mut scan.damage) {
            for lost in &ranges {
                scan.index.cover(lost);
            }
            let name = candidate.file.name.clone();
            self.damage(Some(candidate.ident), (ranges, exact, &what), &name);
        }
        if let Err(error) = settle(region, &scan) {
            tracing::warn!(%error, "a segment's end cannot be written again");
            usable = false;
        }
        Looked {
            candidate,
            index: scan.index,
            sealed: false,
            usable,
            lost,
            next_first: None,
            ends: HashMap::new(),
        }
    }

    /// Tells what is missing at a segment's end, and what a stub may have held behind it; `behind`
    /// are the first numbers in newer segments of its lane.
    fn report_end(&mut self, lane: u8, looked: &mut Looked, behind: &Numbers) {
        let ranges = || between(&looked.ends, behind);
        let file = &looked.candidate.file;
        let length = file.length;
        let size = looked.candidate.cut_from.map_or_else(String::new, |whole| {
            format!("the file was cut from {whole} to {length} bytes: ")
        });
        match looked.lost {
            None => {}
            Some((from, None)) => {
                let what = format!("{size}frames from {from} on are lost, if there were any");
                let name = file.name.clone();
                self.damage(
                    Some(looked.candidate.ident),
                    (Vec::new(), false, &what),
                    &name,
                );
            }
            Some((from, Some(last))) if from > last => {
                let what = format!("{size}no frame is lost beyond those that were named");
                let name = file.name.clone();
                self.damage(
                    Some(looked.candidate.ident),
                    (Vec::new(), true, &what),
                    &name,
                );
            }
            Some((from, Some(last))) => {
                let what = format!("{size}frames {from} to {last} are lost");
                let (name, ranges) = (file.name.clone(), ranges());
                ranges.iter().for_each(|range| looked.index.cover(range));
                self.damage(Some(looked.candidate.ident), (ranges, false, &what), &name);
            }
        }
        if self.stubs.is_empty() || looked.lost.is_some() {
            return;
        }
        let first = looked.index.last_number + 1;
        match looked.next_first {
            Some(next) if next > first => {
                let ranges = ranges();
                ranges.iter().for_each(|range| looked.index.cover(range));
                self.gaps.push((lane, first, Some(next - 1), ranges));
            }
            Some(_) => {}
            None => self.gaps.push((lane, first, None, Vec::new())),
        }
    }

    /// Reports files of which nothing is left, with what they may have held.
    fn report_stubs(&mut self) {
        let mut may = String::new();
        let mut ranges = Vec::new();
        for (lane, first, last, lost) in std::mem::take(&mut self.gaps) {
            let to = last.map_or_else(|| "on".to_owned(), |last| format!("to {last}"));
            let or = if may.is_empty() { ": it may be" } else { " or" };
            // A String takes all that is written.
            let _always = write!(may, "{or} frames from {first} {to} of lane {lane}");
            ranges.extend(lost);
        }
        for (file, whole) in std::mem::take(&mut self.stubs) {
            let whole = whole.unwrap_or(self.log.files.config.segment_bytes);
            let what = format!(
                "the file was cut from {whole} to {} bytes: what it held is not known{may}",
                file.length
            );
            self.damage(
                None,
                (std::mem::take(&mut ranges), false, &what),
                &file.name,
            );
            // It goes when the next file is made: not before the ledger has heard of it.
            self.log.files.free.push(file);
        }
    }

    fn damage(&mut self, ident: Option<Ident>, lost: (Vec<Section>, bool, &str), name: &str) {
        let (ranges, exact, what) = lost;
        self.found.damage.push(Damage {
            lane: ident.map(|ident| ident.lane),
            segment: ident.map(|ident| SegmentId(ident.generation)),
            ranges,
            exact,
            what: format!("{}: {what}", self.log.files.store.path(name)),
        });
    }

    /// Puts a segment into the log.
    fn take(&mut self, lane_id: u8, looked: Looked) {
        let Looked {
            candidate,
            index,
            sealed,
            usable,
            ..
        } = looked;
        let log = &mut self.log;
        let generation = candidate.ident.generation;
        let head = candidate.head.unwrap_or_default();
        log.next_generation = log.next_generation.max(generation + 1);
        log.next_serial = log
            .next_serial
            .max(head.serial + 1)
            .max(index.last_serial + 1);
        if candidate.head.is_some() {
            log.files.newest_head = log.files.newest_head.max(head.serial);
        }
        let mut declared: HashSet<StreamId> = candidate.declared.into_iter().collect();
        for (serial, entry) in index.entries.sorted() {
            if let Entry::Declare { stream, .. } = entry {
                declared.insert(*stream);
            }
            self.entries.add(serial, entry.clone());
        }
        let spans = index.spans();
        let runs = spans.iter().map(|span| span.run);
        self.found.newest_run = self.found.newest_run.max(runs.max());
        self.found.segments.push(SegmentInfo {
            id: SegmentId(generation),
            lane: lane_id,
            spans,
            bytes: candidate.file.length,
            oldest_ms: index.oldest_ms,
            sealed: !usable,
        });
        let last = index.last_number.max(head.first_number.saturating_sub(1));
        let synced = index.last_number.max(head.last_before);
        let file = FreeFile {
            generation,
            serial: head.serial.max(index.last_serial),
            head: head.serial,
            ..candidate.file
        };
        let segment = Arc::new(Segment::new(candidate.ident, file, index, sealed));
        log.table.insert(segment.clone());
        if let Some(lane) = log.lanes.get_mut(usize::from(lane_id)) {
            lane.last_number = lane.last_number.max(last);
            lane.last_synced = lane.last_synced.max(synced);
            lane.last_generation = generation;
            lane.segments.push(SegmentId(generation));
            lane.open = usable.then_some(Open { segment, declared });
        }
    }

    fn finish(mut self) -> (Log, Recovered) {
        let log = &mut self.log;
        // Generations of free files count too: a frame of theirs must not come to life again.
        for file in &log.files.free {
            log.next_generation = log.next_generation.max(file.generation + 1);
        }
        if self.has_alien {
            // It may come back, and must not meet another segment of its generation.
            log.next_generation += ALIEN_GENERATIONS;
            log.next_serial += ALIEN_GENERATIONS;
        }
        let entries = self.entries.sorted();
        self.found.entries = entries
            .into_iter()
            .map(|(_, entry)| entry.clone())
            .collect();
        let runs = self.found.entries.iter().filter_map(Entry::run);
        self.found.newest_run = self.found.newest_run.max(runs.max());
        (self.log, self.found)
    }
}
