//! Bit flips, failing calls, full disks, and what a start costs.

use std::collections::BTreeSet;

use super::super::sim::{Fail, Rng};
use super::*;

/// A log of some segments in two lanes; what each frame holds, in order.
fn filled(store: &SimStore, frames: u64) -> Vec<(u8, Vec<Section>)> {
    let (mut log, _) = open(store);
    let names = Names(vec![Entry::RunStart {
        run: Run(1),
        at_ms: 1,
    }]);
    let mut all = Vec::new();
    for i in 0..frames {
        let lane = u8::try_from(i % 2).unwrap();
        let stream = u32::try_from(i % 5).unwrap() + 10 * u32::from(lane);
        // Each stream comes every tenth frame; its numbers have no gap.
        let first = i / 10 * 30;
        let frame = draft(vec![
            section(stream, 1, first, 30),
            section(stream + 50, 1, first, 30),
        ]);
        all.push((lane, log.append(lane, &frame, &names).unwrap().sections));
    }
    all
}

fn numbers(ranges: &[Section]) -> BTreeSet<(u32, u64)> {
    ranges
        .iter()
        .flat_map(|s| (s.first..s.end()).map(|n| (s.stream.0, n)))
        .collect()
}

#[test]
fn a_flipped_bit_costs_one_frame_and_is_told_exactly() {
    let (mut hit, mut exact, mut torn, mut harmless) = (0, 0, 0, 0);
    let rounds = if cfg!(debug_assertions) { 150 } else { 1500 };
    for seed in 0..rounds {
        let store = SimStore::new(seed);
        let frames = filled(&store, 120);
        let mut rng = Rng::new(seed);
        let files = store.files();
        let (name, length) = &files[rng.below(files.len() as u64) as usize];
        let at = rng.below(*length as u64) as usize;
        store.tamper(name, |bytes| bytes[at] ^= 1 << rng.below(8));
        let (log, found) = open(&store);
        let (all, damaged) = read_all(&log);
        let mut lost = 0;
        let mut missing = BTreeSet::new();
        for (lane, sections) in &frames {
            let wanted: Vec<_> = sections
                .iter()
                .flat_map(|s| (s.first..s.end()).map(move |n| (s.stream.0, n)))
                .collect();
            let there = wanted
                .iter()
                .filter(|(s, n)| all.get(&(*lane, *s, 1, *n)) == Some(&record(*s, 1, *n)));
            if there.count() < wanted.len() {
                lost += 1;
                missing.extend(wanted);
            }
        }
        if lost > 1 {
            println!(
                "{name} at {at} of {length}: {:?}\nread: {damaged:?}\nmissing {missing:?}\n\
                 {:?} torn {}",
                found.damage, found.segments, found.torn_tails
            );
        }
        assert!(lost <= 1, "seed {seed}: {lost} frames lost");
        let told: Vec<&[Section]> = found
            .damage
            .iter()
            .map(|damage| &damage.ranges[..])
            .chain(damaged.iter().map(|(ranges, _)| &ranges[..]))
            .chain([&found.torn[..]])
            .collect();
        let told: BTreeSet<_> = told.into_iter().flat_map(numbers).collect();
        if lost == 0 {
            assert!(told.is_empty(), "seed {seed}: {told:?}");
            harmless += 1;
        } else {
            hit += 1;
            torn += found.torn_tails;
            exact += u64::from(told == missing);
            let noticed = found.torn_tails > 0 || !found.damage.is_empty() || !damaged.is_empty();
            assert!(noticed, "seed {seed}: not noticed");
            assert!(
                told.is_subset(&missing),
                "seed {seed}: told {told:?}, missing {missing:?}"
            );
        }
    }
    println!(
        "{rounds} flips: {hit} hit a frame, {exact} told exactly, {torn} at the end; \
         {harmless} harmless"
    );
    assert!(hit > rounds / 10);
    assert!(exact + torn >= hit, "{exact} + {torn} of {hit}");
}

#[test]
fn a_failure_of_any_call_acknowledges_nothing_and_blocks_nothing() {
    for how in [Fail::Eio, Fail::NoSpace] {
        let mut at = 0;
        loop {
            let store = SimStore::new(at);
            store.fail_in(at, how);
            let (mut log, _) = open(&store);
            let mut safe = Contents::new();
            for i in 0..40 {
                let frame = draft(vec![section(1, 1, i * 40, 40), section(2, 1, i, 1)]);
                if let Ok(appended) = log.append(0, &frame, &Names::default()) {
                    for s in &appended.sections {
                        for n in s.first..s.end() {
                            safe.insert((0, s.stream.0, 1, n), record(s.stream.0, 1, n));
                        }
                    }
                } else {
                    assert_eq!(store.failed(), 1);
                }
            }
            let failed = store.failed();
            assert!(
                safe.len() >= 38 * 41,
                "{how:?} at {at}: {} records",
                safe.len()
            );
            drop(log);
            store.crash();
            let (log, found) = open(&store);
            assert!(
                found.damage.is_empty(),
                "{how:?} at {at}: {:?}",
                found.damage
            );
            let (all, damaged) = read_all(&log);
            assert!(damaged.is_empty());
            for (key, wanted) in &safe {
                assert_eq!(all.get(key), Some(wanted), "{how:?} at {at}");
            }
            if failed == 0 {
                println!("{how:?}: each of {at} calls failed once");
                break;
            }
            at += 1;
        }
        assert!(at > 80);
    }
}

#[test]
fn a_failing_disk_does_not_eat_the_spool() {
    let store = SimStore::new(1);
    let (mut log, _) = open(&store);
    let frame = draft(vec![section(1, 1, 0, 10)]);
    log.append(0, &frame, &Names::default()).unwrap();
    for i in 0..100u64 {
        store.fail_in(i % 2, Fail::Eio);
        log.append(0, &frame, &Names::default()).ok();
    }
    assert!(store.failed() > 50);
    assert!(store.files().len() <= 3, "{:?}", store.files());
}

#[test]
fn a_full_log_says_so_and_goes_on_when_a_segment_is_freed() {
    let store = SimStore::new(1);
    let config = LogConfig {
        max_bytes: 3 * SEGMENT_BYTES_MIN,
        ..config()
    };
    let (mut log, _) = Log::open(Arc::new(store.clone()), config).unwrap();
    let frame = draft(vec![section(1, 1, 0, 200)]);
    let fill = |log: &mut Log| loop {
        match log.append(0, &frame, &Names::default()) {
            Ok(_) => {}
            Err(AppendError::Full { used, max }) => return (used, max),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(fill(&mut log), (config.max_bytes, config.max_bytes));
    for _ in 0..20 {
        let oldest = log.segments_of(0)[0];
        let reader = log.reader();
        let first = reader.first(oldest).unwrap();
        log.free(oldest);
        fill(&mut log);
        assert!(matches!(reader.read_frame(first), Err(ReadError::Gone(_))));
    }
    assert_eq!(store.files().len(), 3);
    // The file system's bound.
    store.set_free_bytes(0);
    let (mut log, _) = Log::open(
        Arc::new(SimStore::new(2)),
        LogConfig {
            min_free_bytes: 1 << 40,
            ..config
        },
    )
    .unwrap();
    assert!(matches!(
        log.append(0, &frame, &Names::default()),
        Err(AppendError::Full { .. })
    ));
}

#[test]
fn a_start_costs_by_segments() {
    let cost = |segment_bytes: u64| {
        let store = SimStore::new(1);
        let config = LogConfig {
            segment_bytes,
            max_bytes: 1 << 30,
            ..config()
        };
        let (mut log, _) = Log::open(Arc::new(store.clone()), config).unwrap();
        let mut sealed = 0;
        for i in 0.. {
            let appended = log
                .append(
                    0,
                    &draft(vec![section(1, 1, i * 50, 50)]),
                    &Names::default(),
                )
                .unwrap();
            sealed += u64::from(appended.sealed.is_some());
            if sealed == 8 {
                break;
            }
        }
        drop(log);
        store.take_reads();
        Log::open(Arc::new(store.clone()), config).unwrap();
        store.take_reads()
    };
    let (small, large) = (cost(SEGMENT_BYTES_MIN), cost(8 * SEGMENT_BYTES_MIN));
    println!(
        "start with 8 sealed segments: {small:?} reads and bytes; with eight times the bytes: \
         {large:?}"
    );
    // The open segment's rest is looked through for frames behind a hole; that is all that grew.
    assert!(large.1 - small.1 <= 8 * SEGMENT_BYTES_MIN);
    assert!(large.0 - small.0 <= 8 * SEGMENT_BYTES_MIN / (64 << 10));
}

#[test]
fn a_newer_version_is_refused_and_left_alone() {
    let store = SimStore::new(1);
    filled(&store, 4);
    let (name, _) = store.files()[0].clone();
    store.tamper(&name, |bytes| {
        bytes[10] = 9;
        let length = super::super::segment::HEAD;
        let packed =
            u32::from_le_bytes(bytes[length - 12..length - 8].try_into().unwrap()) as usize;
        let sum = crc32c::crc32c(&bytes[..length - 4]);
        let sum = crc32c::crc32c_append(sum, &bytes[length..length + packed]);
        bytes[length - 4..length].copy_from_slice(&sum.to_le_bytes());
    });
    let before = store.files();
    let error = refuse_newer(&store).unwrap_err().to_string();
    assert!(error.contains(&name), "{error}");
    assert!(error.contains("format 9"), "{error}");
    assert_eq!(store.files(), before);
    // Who opens it all the same does not take it for free room.
    let (log, found) = open(&store);
    assert_eq!(found.damage.len(), 1);
    assert!(found.damage[0].what.contains("version 9"));
    assert_eq!(log.used_bytes(), 2 * SEGMENT_BYTES_MIN);
}

#[test]
fn a_copied_segment_is_told_and_keeps_no_record_from_being_found() {
    let store = SimStore::new(1);
    filled(&store, 60);
    let before = read_all(&open(&store).0).0;
    for (name, _) in store.files() {
        store.duplicate(&name, &format!("9{name}"));
    }
    let (mut log, found) = open(&store);
    assert_eq!(found.damage.len(), found.segments.len());
    for damage in &found.damage {
        assert!(damage.what.contains("another file is"), "{}", damage.what);
    }
    assert_eq!(read_all(&log).0, before);
    let frame = draft(vec![section(7, 2, 0, 30)]);
    log.append(0, &frame, &Names::default()).unwrap();
    drop(log);
    assert_eq!(read_all(&open(&store).0).0.len(), before.len() + 30);
}

#[test]
fn a_file_that_cannot_be_read_for_a_while_is_all_there_afterwards() {
    // One failure is tried again within the start; more leave the file alone for that life.
    for times in [1, 20] {
        let store = SimStore::new(1);
        filled(&store, 60);
        let before = read_all(&open(&store).0).0;
        let newest = store.files().last().unwrap().0.clone();
        store.hide(&newest, times);
        let (mut log, found) = open(&store);
        assert_eq!(
            found.damage.len(),
            usize::from(times > 1),
            "{:?}",
            found.damage
        );
        for i in 0..20 {
            let frame = draft(vec![section(7, 2, i * 30, 30)]);
            log.append(u8::try_from(i % 2).unwrap(), &frame, &Names::default())
                .unwrap();
        }
        drop(log);
        store.hide("", 0);
        let (log, found) = open(&store);
        assert!(found.damage.is_empty(), "{:?}", found.damage);
        let all = read_all(&log).0;
        assert_eq!(all.len(), before.len() + 600);
        assert!(
            before
                .iter()
                .all(|(key, record)| all.get(key) == Some(record))
        );
    }
}
