//! Damage on disk as the whole spool sees it: what the hit frame held is in the ledger, once, and
//! everything else reaches Kafka.

use std::collections::BTreeSet;
use std::time::Instant;

use super::super::super::log::{FramePos, Log, LogConfig};
use super::super::super::meta::Reason;
use super::*;

fn roomy() -> checked::Spool {
    checked::Spool {
        memory_max_bytes: 8 << 20,
        ..config()
    }
}

/// A spool of some segments that nobody has read yet.
fn backlog(seed: u64, records: u64) -> World {
    let mut world = World::new(seed, roomy());
    for topic in 0..3 {
        world.publish(topic, 0, 10);
    }
    world.facts(2);
    world.write();
    world.spool.uplink(false);
    for n in 0..records {
        let size = usize::try_from(world.random.below(200)).unwrap();
        world.publish(n % 3, n % 11, size);
        if n % 60 == 0 {
            world.write();
        }
    }
    world.write();
    assert_eq!(world.acks.0.lock().len() as u64, records + 3);
    world
}

/// Where each frame begins, and its ids, in the order of the disk.
fn frames(store: &SimStore) -> Vec<(FramePos, BTreeSet<u64>)> {
    let log_config = LogConfig {
        segment_bytes: config().segment_bytes,
        max_bytes: config().max_bytes,
        min_free_bytes: 0,
        compression_level: 1,
    };
    let (log, found) = Log::open(Arc::new(store.copy()), log_config).unwrap();
    let reader = log.reader();
    let mut all = Vec::new();
    for segment in found.segments {
        let mut at = reader.first(segment.id).unwrap();
        while let Some(frame) = reader.read_frame(at).unwrap() {
            at = frame.next;
            let records = frame.sections.iter().flat_map(|section| &section.records);
            let ids = records.map(|record| id_of(record.value().unwrap().unwrap()));
            all.push((frame.at, ids.collect()));
        }
    }
    all
}

fn ids(frames: &[(FramePos, BTreeSet<u64>)]) -> BTreeSet<u64> {
    frames.iter().flat_map(|(_, ids)| ids).copied().collect()
}

/// What Kafka has in the end.
fn there(world: &World) -> BTreeSet<u64> {
    world.broker.1.iter().map(|(_, id)| *id).collect()
}

/// Records that the ledger calls damaged.
fn in_ledger(world: &World) -> u64 {
    let lines = world.spool.shared.meta.lock().ledger(10_000);
    let damaged = lines.iter().filter(|line| line.reason == Reason::Damaged);
    damaged.map(|line| line.end - line.first).sum()
}

#[test]
fn a_file_cut_short_is_counted_once_and_the_rest_flows() {
    let mut world = backlog(20, 3_000);
    let all = ids(&frames(&world.store));
    let (name, length) = world.store.files()[1].clone();
    world
        .store
        .tamper(&name, |bytes| bytes.truncate(length / 2));
    world.crash(false);
    let counted = world.metrics.count(Counter::LostDamaged);
    assert!(counted > 100, "the fault did not bite");
    world.crash(false);
    assert_eq!(world.metrics.count(Counter::LostDamaged), counted);
    assert_eq!(in_ledger(&world), counted);
    world.drain();
    world.check(20);
    let lost = all.difference(&there(&world)).count() as u64;
    assert_eq!(lost, counted);
    assert!(world.metrics.count(Counter::Damages) >= 2, "at each start");
}

/// A start finds it, and so does who reads the frames around it.
#[test]
fn a_header_lost_in_the_newest_file_is_counted_once() {
    for turn in 0.. {
        let mut world = backlog(24, 3_000);
        // On a slow machine, other records share a frame.
        let frames = frames(&world.store);
        let newest = frames.last().unwrap().0.segment;
        let here: Vec<_> = frames.iter().filter(|f| f.0.segment == newest).collect();
        // No file has been used twice.
        let name = format!("{:08}.seg", newest.0);
        assert!(here.len() > 2, "{} frames in {name}", here.len());
        let Some((at, hit)) = here[..here.len() - 1].get(turn) else {
            break;
        };
        let header = usize::try_from(at.offset).unwrap();
        world.store.tamper(&name, |bytes| bytes[header + 9] ^= 1);
        world.crash(false);
        world.drain();
        let place = format!("{name}, the frame at {}", at.offset);
        let lost = ids(&frames).difference(&there(&world)).copied().collect();
        assert_eq!(*hit, lost, "{place}");
        assert_eq!(in_ledger(&world), hit.len() as u64, "{place}");
    }
}

#[test]
fn every_file_but_one_cut_to_nothing_and_the_spool_starts() {
    let mut world = backlog(21, 3_000);
    for (name, _) in world.store.files().into_iter().skip(1) {
        world.store.tamper(&name, Vec::clear);
    }
    world.crash(false);
    assert!(world.metrics.count(Counter::Damages) > 3);
    for n in 0..200 {
        world.publish(n % 3, n % 11, 20);
    }
    world.drain();
    let newest: BTreeSet<u64> = (world.next_id - 200..world.next_id).collect();
    assert!(newest.is_subset(&there(&world)));
    let files = world.store.files();
    assert!(files.iter().all(|(_, length)| *length > 0), "{files:?}");
}

/// A folder whose syncs cost nothing: what is tried is not the real disk.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn wanted_flips() -> u64 {
    let wanted = std::env::var("TIDEGATE_FLIPS").ok();
    wanted.and_then(|flips| flips.parse().ok()).unwrap_or(2_000)
}

#[derive(Debug, Default)]
struct Flips {
    hit: u64,
    told_exactly: u64,
    torn_tail: u64,
    harmless: u64,
    records_lost: u64,
}

#[test]
fn a_flipped_bit_costs_its_frame_alone_and_the_ledger_says_exactly_what() {
    let mut filled = backlog(22, 3_000);
    let frames = frames(&filled.store);
    let meta = filled.folder.path().join("meta");
    let empty = tempfile::tempdir().unwrap();
    let placeholder = Arc::new(SimStore::new(0));
    filled.spool = open(
        &filled.config,
        (&placeholder, &placeholder.clone()),
        empty.path(),
        (&filled.metrics, &filled.time),
    );
    let all = ids(&frames);
    let files = filled.store.files();
    let mut random = Rng::new(23);
    let (mut flips, mut slowest) = (Flips::default(), Duration::ZERO);
    for flip in 0..wanted_flips() {
        let store = filled.store.copy();
        let (name, length) = &files[random.below(files.len() as u64) as usize];
        let at = random.below(*length as u64) as usize;
        store.tamper(name, |bytes| bytes[at] ^= 1 << random.below(8));
        let folder = in_memory();
        copy_folder(&meta, &folder.path().join("meta"));
        let begin = Instant::now();
        let mut world = World::over(flip, roomy(), store, folder);
        slowest = slowest.max(begin.elapsed());
        world.drain();
        let lost: BTreeSet<u64> = all.difference(&there(&world)).copied().collect();
        let place = format!("bit flip {flip}: {name} at {at}");
        let (damaged, torn) = (
            world.metrics.count(Counter::LostDamaged),
            world.metrics.count(Counter::TornTails),
        );
        assert_eq!(in_ledger(&world), damaged, "{place}");
        if lost.is_empty() {
            assert_eq!(damaged, 0, "{place}");
            flips.harmless += 1;
            continue;
        }
        flips.hit += 1;
        flips.records_lost += lost.len() as u64;
        assert!(
            frames.iter().any(|(_, ids)| *ids == lost),
            "{place}: other than one frame"
        );
        if torn > 0 {
            flips.torn_tail += 1;
        } else {
            assert_eq!(damaged, lost.len() as u64, "{place}");
            assert!(world.metrics.count(Counter::Damages) > 0, "{place}");
            flips.told_exactly += 1;
        }
    }
    println!(
        "{} flips over {} files, {} frames, {} records: {flips:?}; slowest start {slowest:?}",
        wanted_flips(),
        files.len(),
        frames.len(),
        all.len()
    );
    assert!(flips.hit > wanted_flips() / 4, "the fault did not bite");
}
