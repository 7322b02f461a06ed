//! Opens the log: looks at every file's head and end, scans what has no index, cuts torn tails,
//! reports damage. What is in a file never keeps the log from opening.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::files::{Files, FreeFile, Segment, Table, read_index};
use super::index::{Index, IndexRead, Newest};
use super::reader::LogReader;
use super::scan::{Ident, Region, Step, Walk, Want, lost, search};
use super::segment::{Head, HeadRead};
use super::writer::{Lane, Log, Open, Packer};
use super::{
    Entry, LANES, LogConfig, LogError, PAGE, SEGMENT_BYTES_MIN, Section, SegmentId, SegmentInfo,
    Store, StoreFile, page_up,
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

/// A file that holds a segment.
struct Candidate {
    file: FreeFile,
    ident: Ident,
    head: Option<Head>,
    sealed: Option<Box<Index>>,
    start: u64,
    /// Number of the frame there.
    number: u64,
    entries: Vec<Entry>,
}

/// What a file is.
enum Kind {
    Segment(Box<Candidate>),
    /// Nothing is in it.
    Free(FreeFile),
    /// Left alone: its bytes, and why.
    Alien(u64, String),
}

/// A segment that was read whole.
struct Scan {
    index: Box<Index>,
    damage: Vec<(Vec<Section>, bool, &'static str)>,
    /// Bad frames behind the last good one.
    tail: Vec<Section>,
    torn: bool,
    /// Where the last good frame begins.
    last_at: Option<u64>,
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
        if !(SEGMENT_BYTES_MIN..=1 << 30).contains(&config.segment_bytes) {
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
        };
        let lanes = opening.inspect_all(&names);
        for (lane, segments) in lanes {
            opening.lane(lane, segments);
        }
        Ok(opening.finish())
    }
}

struct Opening {
    log: Log,
    found: Recovered,
    entries: Newest,
}

impl Opening {
    /// Looks at each file; returns the segments by lane, the oldest first.
    fn inspect_all(&mut self, names: &[String]) -> BTreeMap<u8, Vec<Candidate>> {
        let mut lanes: BTreeMap<u8, Vec<Candidate>> = BTreeMap::new();
        for name in names {
            let Some(number) = name
                .strip_suffix(".seg")
                .and_then(|n| n.parse::<u64>().ok())
            else {
                continue;
            };
            self.log.files.next_name = self.log.files.next_name.max(number.saturating_add(1));
            match inspect(self.log.files.store.as_ref(), name) {
                Kind::Free(file) => self.log.files.release(file),
                Kind::Alien(bytes, what) => {
                    self.log.files.alien_bytes += bytes;
                    self.damage(None, (Vec::new(), false, &what), name);
                }
                Kind::Segment(candidate) => {
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

    fn lane(&mut self, lane: u8, candidates: Vec<Candidate>) {
        let mut ends: HashMap<(StreamId, Run), u64> = HashMap::new();
        let mut candidates = candidates.into_iter().peekable();
        while let Some(mut candidate) = candidates.next() {
            let newest = candidates.peek().is_none();
            let generation = candidate.ident.generation;
            // What the next segment's head says that this one had.
            let next = candidates.peek().and_then(|next| next.head);
            let expected = next.filter(|head| head.generation_before == generation);
            let sealed = candidate.sealed.take();
            let is_sealed = sealed.is_some();
            let (index, usable) = match sealed {
                Some(index) => (index, false),
                None => self.scanned(
                    &candidate,
                    newest,
                    expected.map(|head| head.last_before),
                    &ends,
                ),
            };
            for span in index.spans() {
                let end = ends.entry((span.stream, span.run)).or_insert(0);
                *end = span.last.saturating_add(1).max(*end);
            }
            self.take(lane, candidate, index, (is_sealed, newest && usable));
        }
    }

    /// Reads a segment without index; says also whether it may take more frames.
    fn scanned(
        &mut self,
        candidate: &Candidate,
        newest: bool,
        expected: Option<u64>,
        ends: &HashMap<(StreamId, Run), u64>,
    ) -> (Box<Index>, bool) {
        let region = Region {
            file: candidate.file.file.as_ref(),
            ident: candidate.ident,
            limit: candidate.file.length,
        };
        let mut scan = scan(region, (candidate.start, candidate.number), ends);
        let missing = expected.is_some_and(|last| scan.index.last_number < last);
        if missing {
            scan.damage.push((
                std::mem::take(&mut scan.tail),
                false,
                "frames at the end are missing",
            ));
            scan.torn = false;
        }
        let mut usable = newest && candidate.head.is_some() && scan.damage.is_empty();
        if scan.torn {
            self.found.torn_tails += 1;
            self.found.torn.append(&mut scan.tail);
        }
        for (ranges, exact, what) in std::mem::take(&mut scan.damage) {
            for lost in &ranges {
                scan.index.cover(lost);
            }
            let name = candidate.file.name.clone();
            self.damage(Some(candidate.ident), (ranges, exact, what), &name);
        }
        if let Err(error) = settle(region, &scan) {
            tracing::warn!(%error, "a segment's end cannot be written again");
            usable = false;
        }
        (scan.index, usable)
    }

    fn damage(&mut self, ident: Option<Ident>, lost: (Vec<Section>, bool, &str), name: &str) {
        let (ranges, exact, what) = lost;
        self.found.damage.push(Damage {
            lane: ident.map(|ident| ident.lane),
            segment: ident.map(|ident| SegmentId(ident.generation)),
            ranges,
            exact,
            what: format!("{name}: {what}"),
        });
    }

    /// Puts a segment into the log.
    fn take(&mut self, lane_id: u8, candidate: Candidate, index: Box<Index>, state: (bool, bool)) {
        let (sealed, usable) = state;
        let log = &mut self.log;
        let generation = candidate.ident.generation;
        let head = candidate.head.unwrap_or_default();
        log.next_generation = log.next_generation.max(generation + 1);
        log.next_serial = log
            .next_serial
            .max(head.serial + 1)
            .max(index.last_serial + 1);
        if candidate.head.is_some() {
            log.files.newest_head = log.files.newest_head.max(generation);
        }
        let mut declared = std::collections::HashSet::new();
        for entry in candidate.entries {
            if let Entry::Declare { stream, .. } = &entry {
                declared.insert(*stream);
            }
            self.entries.add(head.serial, entry);
        }
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
        let segment = Arc::new(Segment::new(candidate.ident, candidate.file, index, sealed));
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

/// Tells what a file is by its head and its end.
fn inspect(store: &dyn Store, name: &str) -> Kind {
    let opened = store.open(name).and_then(|file| Ok((file.length()?, file)));
    let (length, file) = match opened {
        Ok(opened) => opened,
        Err(error) => return Kind::Alien(0, error.to_string()),
    };
    let free = FreeFile {
        name: name.to_owned(),
        file,
        length,
        generation: 0,
    };
    match read_head(free.file.as_ref()) {
        Ok(HeadRead::Good(head, bytes, entries)) if head.lane < LANES => {
            let ident = Ident {
                generation: head.generation,
                lane: head.lane,
            };
            let sealed = match read_index(free.file.as_ref(), length) {
                IndexRead::Good(generation, index) if generation == head.generation => Some(index),
                _ => None,
            };
            Kind::Segment(Box::new(Candidate {
                file: free,
                ident,
                head: Some(head),
                sealed,
                start: page_up(bytes),
                number: head.first_number,
                entries,
            }))
        }
        Ok(HeadRead::Newer(version)) => {
            Kind::Alien(length, format!("needs a reader of version {version}"))
        }
        Ok(_) => headless(free),
        Err(error) => Kind::Alien(length, error.to_string()),
    }
}

fn read_head(file: &dyn StoreFile) -> std::io::Result<HeadRead> {
    let mut wanted = usize::try_from(PAGE).unwrap_or(0);
    for _ in 0..2 {
        let mut bytes = vec![0; wanted];
        let read = file.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        match Head::read(&bytes) {
            HeadRead::Short(more) => wanted = more,
            other => return Ok(other),
        }
    }
    Ok(HeadRead::Bad)
}

/// A file without a head is what its newest frames say, or free.
fn headless(mut file: FreeFile) -> Kind {
    let at_of = |generation: u64| {
        let above = search(file.file.as_ref(), 0, file.length, move |header| {
            header.generation > generation && header.lane < LANES
        });
        // A header that only looks like one is passed over.
        above.into_iter().find_map(|at| {
            let mut bytes = [0; super::frame::HEADER];
            file.file.read_at(at, &mut bytes).ok()?;
            let header = super::frame::Header::parse(&bytes)?;
            let ident = Ident {
                generation: header.generation,
                lane: header.lane,
            };
            let region = Region {
                file: file.file.as_ref(),
                ident,
                limit: file.length,
            };
            region
                .probe(at, Want::Front)
                .map(|found| (ident, at, found.header.number))
        })
    };
    let mut newest: Option<(Ident, u64, u64)> = None;
    while let Some(newer) = at_of(newest.map_or(0, |(ident, ..)| ident.generation)) {
        newest = Some(newer);
    }
    let Some((ident, at, number)) = newest else {
        file.generation = 0;
        return Kind::Free(file);
    };
    let sealed = match read_index(file.file.as_ref(), file.length) {
        IndexRead::Good(generation, index) if generation == ident.generation => Some(index),
        _ => None,
    };
    Kind::Segment(Box::new(Candidate {
        file,
        ident,
        head: None,
        start: sealed.as_ref().map_or(at, |index| index.frames_start),
        number: sealed.as_ref().map_or(number, |index| index.first_number),
        sealed,
        entries: Vec::new(),
    }))
}

/// Reads all frames from `start` on, where frame `first` is; `ends` is what older segments hold.
fn scan(
    region: Region<'_>,
    (start, first): (u64, u64),
    ends: &HashMap<(StreamId, Run), u64>,
) -> Scan {
    let mut scan = Scan {
        index: Box::new(Index::new(start, first)),
        damage: Vec::new(),
        tail: Vec::new(),
        torn: false,
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
            scan.damage
                .push((ranges, false, "a frame's header or directory is damaged"));
        }
        if found.body.is_none() {
            scan.tail.extend(&found.directory.sections);
            scan.torn = true;
            continue;
        }
        if scan.torn {
            let ranges = std::mem::take(&mut scan.tail);
            scan.damage
                .push((ranges, true, "a frame's body is damaged"));
            scan.torn = false;
        }
        scan.index
            .add(found.header.serial, found.header.number, &found.directory);
        scan.index.frames_end = found.end();
        scan.last_at = Some(found.at);
    }
    let torn = region.is_torn(scan.index.frames_end, last + 1);
    scan.torn |= torn;
    scan
}

/// Makes the end of a scanned segment what it seems: the last frame is written again, since it may
/// be in the page cache alone, and a torn frame's header is wiped out, so that it is not found
/// again.
fn settle(region: Region<'_>, scan: &Scan) -> std::io::Result<()> {
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
