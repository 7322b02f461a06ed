//! Random lives on a simulated disk, against a model. What was appended and synced must be there
//! after any crash with equal records; what was not may be; nothing else may.

use std::collections::{BTreeMap, BTreeSet};

use super::super::sim::{Fail, Rng, each_seed};
use super::*;

/// What the world outside the log knows.
#[derive(Default)]
struct Model {
    /// Next number by stream; a number's record is always the same.
    next: BTreeMap<u32, u64>,
    run: u32,
    /// Synced records by segment.
    safe: BTreeMap<SegmentId, BTreeSet<(u8, u32, u32, u64)>>,
    /// The cursor entries that were synced, newest last.
    cursors: BTreeMap<StreamId, u64>,
}

#[derive(Debug, Default)]
struct Bites {
    appends: u64,
    crashes: u64,
    kills: u64,
    failed: u64,
    full: u64,
    torn: u64,
    freed: u64,
    recycled: u64,
    unsynced_found: u64,
    unfinished: u64,
}

impl Bites {
    fn with(self, other: &Self) -> Self {
        Self {
            appends: self.appends + other.appends,
            crashes: self.crashes + other.crashes,
            kills: self.kills + other.kills,
            failed: self.failed + other.failed,
            full: self.full + other.full,
            torn: self.torn + other.torn,
            freed: self.freed + other.freed,
            recycled: self.recycled + other.recycled,
            unsynced_found: self.unsynced_found + other.unsynced_found,
            unfinished: self.unfinished + other.unfinished,
        }
    }
}

impl Model {
    fn draft(&mut self, rng: &mut Rng) -> FrameDraft {
        let mut frame = FrameDraft::default();
        for _ in 0..rng.below(5) {
            let stream = u32::try_from(rng.below(9)).unwrap();
            let count = if rng.one_in(6) {
                rng.below(60)
            } else {
                rng.below(4)
            };
            let next = self.next.entry(stream).or_insert(0);
            // Now and then numbers are left out: dropped by policy.
            *next += u64::from(rng.one_in(5)) * rng.below(3);
            frame.sections.push(section(stream, self.run, *next, count));
            *next += count;
        }
        if rng.one_in(3) {
            let stream = StreamId(u32::try_from(rng.below(9)).unwrap());
            let next = self.cursors.get(&stream).map_or(0, |next| next + 1);
            frame.controls.push(cursor(stream, next));
        }
        frame
    }

    fn names(&self) -> Names {
        let cursors = self
            .cursors
            .iter()
            .map(|(stream, next)| cursor(*stream, *next));
        let run = Entry::RunStart {
            run: Run(self.run),
            at_ms: 1,
        };
        Names([run].into_iter().chain(cursors).collect())
    }
}

fn cursor(stream: StreamId, next: u64) -> Entry {
    Entry::Cursor {
        stream,
        run: Run(1),
        next,
        offset: Some(7),
    }
}

fn keys(lane: u8, sections: &[Section]) -> impl Iterator<Item = (u8, u32, u32, u64)> {
    sections
        .iter()
        .flat_map(move |s| (s.first..s.end()).map(move |n| (lane, s.stream.0, s.run.0, n)))
}

/// One life: a random walk of appends, frees, failures, kills and power cuts.
fn live(seed: u64, bites: &mut Bites) {
    let store = SimStore::new(seed);
    let mut rng = Rng::new(seed ^ 0xabcd);
    let config = LogConfig {
        max_bytes: 8 * SEGMENT_BYTES_MIN,
        ..config()
    };
    let mut model = Model {
        run: 1,
        ..Model::default()
    };
    let start = || Log::open(Arc::new(store.clone()), config).unwrap();
    let (mut log, _) = start();
    for _ in 0..rng.below(60) + 10 {
        match rng.below(20) {
            0 => {
                // Power cut, in the middle of an append most times; or the end of the process
                // alone.
                let power = rng.one_in(2);
                if power && !rng.one_in(4) {
                    store.fail_in(1 + rng.below(2) * rng.below(8), Fail::Power);
                    append(&mut model, &mut log, &mut rng, bites);
                }
                drop(log);
                store.no_failure();
                if power {
                    store.crash();
                }
                bites.crashes += u64::from(power);
                bites.kills += u64::from(!power);
                let unfinished = |(name, _): &(String, usize)| name.ends_with(".new");
                bites.unfinished += u64::from(store.files().iter().any(unfinished));
                let (again, found) = start();
                log = again;
                bites.torn += found.torn_tails;
                check(&model, &log, &found, bites);
                model.run += 1;
                model.next.clear();
                // What was freed and is there again needs freeing again.
                for segment in &found.segments {
                    model.safe.entry(segment.id).or_default();
                }
            }
            1 | 2 => {
                let ids: Vec<SegmentId> = model.safe.keys().copied().collect();
                if let Some(id) = ids.get(rng.below(ids.len().max(1) as u64) as usize) {
                    log.free(*id);
                    model.safe.remove(id);
                    bites.freed += 1;
                }
            }
            3 => store.fail_in(
                rng.below(4),
                if rng.one_in(2) {
                    Fail::Eio
                } else {
                    Fail::NoSpace
                },
            ),
            _ => append(&mut model, &mut log, &mut rng, bites),
        }
    }
    let (all, damaged) = read_all(&log);
    assert!(damaged.is_empty(), "seed {seed}: {damaged:?}");
    holds(&model, &all);
    let newest = model.safe.keys().last().map_or(0, |id| id.0);
    bites.recycled += newest.saturating_sub(store.files().len() as u64);
    bites.failed += store.failed();
}

fn append(model: &mut Model, log: &mut Log, rng: &mut Rng, bites: &mut Bites) {
    let lane = u8::try_from(rng.below(3)).unwrap() * 5;
    let frame = model.draft(rng);
    match log.append(lane, &frame, &model.names()) {
        Ok(appended) => {
            bites.appends += 1;
            let safe = model.safe.entry(appended.at.segment).or_default();
            safe.extend(keys(lane, &appended.sections));
            for entry in &frame.controls {
                if let Entry::Cursor { stream, next, .. } = entry {
                    model.cursors.insert(*stream, *next);
                }
            }
        }
        Err(AppendError::Full { .. }) => bites.full += 1,
        Err(AppendError::Io(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

fn holds(model: &Model, all: &Contents) {
    for key in model.safe.values().flatten() {
        let (_, stream, run, number) = *key;
        assert_eq!(all.get(key), Some(&record(stream, run, number)), "{key:?}");
    }
    for (&(_, stream, run, number), found) in all {
        assert_eq!(found, &record(stream, run, number));
    }
}

fn check(model: &Model, log: &Log, found: &Recovered, bites: &mut Bites) {
    assert!(found.damage.is_empty(), "{:?}", found.damage);
    let (all, damaged) = read_all(log);
    assert!(damaged.is_empty(), "{damaged:?}");
    holds(model, &all);
    let safe: BTreeSet<_> = model.safe.values().flatten().collect();
    bites.unsynced_found += all.keys().filter(|key| !safe.contains(key)).count() as u64;
    // Spans tell all that is there.
    for &(lane, stream, run, number) in all.keys() {
        let covers = |span: &Span| {
            (span.stream.0, span.run.0) == (stream, run)
                && (span.first..=span.last).contains(&number)
        };
        let told = |segment: &SegmentInfo| segment.lane == lane && segment.spans.iter().any(covers);
        assert!(found.segments.iter().any(told));
    }
    for (stream, next) in &model.cursors {
        let newest = found.entries.iter().rev().find_map(|entry| match entry {
            Entry::Cursor {
                stream: of, next, ..
            } if of == stream => Some(*next),
            _ => None,
        });
        assert!(
            newest >= Some(*next),
            "cursor of {stream:?}: {newest:?} < {next}"
        );
    }
}

/// A lane goes on with its segment after another's head was written: no head repeats what it says
/// then, so its file is kept although there are plenty.
#[test]
fn what_a_freed_file_alone_says_is_kept_until_a_head_says_it() {
    let store = SimStore::new(1);
    // Bounds that keep four free files.
    let config = LogConfig {
        max_bytes: 16 * SEGMENT_BYTES_MIN,
        ..config()
    };
    let start = || Log::open(Arc::new(store.clone()), config).unwrap();
    let names = Names::default();
    let (mut log, _) = start();
    let mut segments = Vec::new();
    for lane in 0..9 {
        let appended = log.append(lane, &draft(vec![section(0, 1, 0, 1)]), &names);
        segments.push(appended.unwrap().at.segment);
    }
    let moved = FrameDraft {
        controls: vec![cursor(StreamId(0), 1)],
        sections: Vec::new(),
    };
    let said = log.append(0, &moved, &names).unwrap().at.segment;
    assert_eq!(said, segments[0]);
    let files = store.files().len();
    for segment in segments.into_iter().rev() {
        log.free(segment);
    }
    assert!(store.files().len() < files, "there was room for all");
    drop(log);
    let found = start().1.entries;
    assert!(found.contains(&cursor(StreamId(0), 1)), "{found:?}");
}

#[test]
fn nothing_synced_is_lost_whatever_happens() {
    // Without optimisation a life takes some ten times as long.
    let usual = if cfg!(debug_assertions) { 300 } else { 20_000 };
    let (seeds, counts) = each_seed("TIDEGATE_SIM_SEEDS", usual, live);
    let bites = counts.iter().fold(Bites::default(), Bites::with);
    println!("seeds {seeds:?}: {bites:?}");
    if seeds.end - seeds.start < 300 {
        return;
    }
    for bit in [
        bites.crashes,
        bites.kills,
        bites.failed,
        bites.torn,
        bites.full,
        bites.recycled,
        bites.unfinished,
    ] {
        assert!(bit > 0, "a fault never bit: {bites:?}");
    }
    assert!(bites.unsynced_found > 0);
}
