//! The keeper over a disk that crashes and fails, against a plain map.

use super::super::log::sim::{Fail, Rng, SimStore, each_seed};
use super::*;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 64 << 10,
        max_bytes: 1 << 20,
        min_free_bytes: 0,
        compression_level: 1,
    }
}

fn open(store: &SimStore) -> (Keeper, Opened) {
    Keeper::open(Arc::new(store.clone()), config()).unwrap()
}

fn change(key: &str, value: Option<&[u8]>) -> Change {
    Change {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.map(Bytes::copy_from_slice),
    }
}

fn noise(random: &mut Rng, bytes: u64) -> Vec<u8> {
    (0..bytes).map(|_| random.next().to_le_bytes()[0]).collect()
}

/// What may be kept after a crash: what was synced, and of a write that failed a beginning.
fn is_allowed(
    all: &BTreeMap<Bytes, Bytes>,
    synced: &BTreeMap<Bytes, Bytes>,
    tried: &[Change],
) -> bool {
    let mut model = synced.clone();
    let mut fits = *all == model;
    for change in tried {
        match &change.value {
            Some(value) => model.insert(change.key.clone(), value.clone()),
            None => model.remove(&change.key),
        };
        fits |= *all == model;
    }
    fits
}

#[derive(Default)]
struct Counts {
    crashes: u64,
    failures: u64,
    full: u64,
    freed: u64,
}

fn life(seed: u64, counts: &mut Counts) {
    let mut random = Rng::new(seed);
    let store = SimStore::new(seed);
    let (mut keeper, mut opened) = open(&store);
    let mut synced: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    let mut tried: Vec<Change> = Vec::new();
    let keys = 1 + random.below(60);
    let large = random.one_in(3);
    for _ in 0..random.below(300) {
        if random.one_in(12) {
            let how = [Fail::Eio, Fail::NoSpace, Fail::Power];
            store.fail_in(
                random.below(8),
                how[usize::try_from(random.below(3)).unwrap()],
            );
        }
        if tried.is_empty() {
            let mut named = std::collections::BTreeSet::new();
            for _ in 0..=random.below(6) {
                let key = format!("key {}", random.below(keys));
                if named.insert(key.clone()) {
                    let bytes = random.below(if large { 9_000 } else { 300 });
                    let value = noise(&mut random, bytes);
                    let gone = random.one_in(3);
                    tried.push(change(&key, (!gone).then_some(&value)));
                }
            }
        }
        let segments = keeper.segments.front().map(|s| s.id);
        match keeper.write(&tried) {
            Ok(()) => {
                for change in tried.drain(..) {
                    match change.value {
                        Some(value) => synced.insert(change.key, value),
                        None => synced.remove(&change.key),
                    };
                }
            }
            Err(AppendError::Full { .. }) => counts.full += 1,
            Err(_) => counts.failures += 1,
        }
        counts.freed += u64::from(segments != keeper.segments.front().map(|s| s.id));
        assert_eq!(
            keeper.keys.len() as u64,
            keeper.segments.iter().map(|s| s.live).sum::<u64>()
        );
        if random.one_in(15) {
            counts.crashes += 1;
            store.no_failure();
            drop(keeper);
            store.crash();
            (keeper, opened) = open(&store);
            assert_eq!(opened.damages, 0);
            assert!(
                is_allowed(&opened.all, &synced, &tried),
                "kept {:?}, synced {:?}",
                opened.all.keys(),
                synced.keys()
            );
            synced.clone_from(&opened.all);
            tried.clear();
        }
    }
    assert!(store.files().len() <= 16, "{:?}", store.files());
    drop(opened);
}

#[test]
fn what_is_kept_survives_crashes_and_failures() {
    let (seeds, counts) = each_seed("TIDEGATE_KEEP_SEEDS", 1_500, life);
    let sum = |of: fn(&Counts) -> u64| counts.iter().map(of).sum::<u64>();
    let (crashes, failures) = (sum(|c| c.crashes), sum(|c| c.failures));
    let (full, freed) = (sum(|c| c.full), sum(|c| c.freed));
    println!("{seeds:?}: {crashes} crashes, {failures} failures, {full} full, {freed} freed");
    assert!(crashes > 0 && failures > 0 && freed > 0);
}

#[test]
fn a_key_that_changes_for_ever_takes_no_more_room() {
    let store = SimStore::new(3);
    let (mut keeper, _) = open(&store);
    let mut random = Rng::new(3);
    let stays = noise(&mut random, 2_000);
    keeper.write(&[change("stays", Some(&stays))]).unwrap();
    for round in 0..2_000u64 {
        let value = noise(&mut random, 1_000);
        keeper.write(&[change("moves", Some(&value))]).unwrap();
        if round % 3 == 0 {
            keeper.write(&[change("goes", Some(&value))]).unwrap();
            keeper.write(&[change("goes", None)]).unwrap();
        }
    }
    assert!(keeper.segments.len() <= 4, "{}", keeper.segments.len());
    assert_eq!(keeper.size().0, 2);
    drop(keeper);
    let (_, opened) = open(&store);
    assert_eq!(opened.all.get(&b"stays"[..]), Some(&Bytes::from(stays)));
    assert_eq!(opened.all.len(), 2);
}

#[test]
fn a_full_log_takes_changes_again_when_keys_have_gone() {
    let store = SimStore::new(5);
    let (mut keeper, _) = open(&store);
    let mut random = Rng::new(5);
    let mut written = 0u32;
    let full = loop {
        let value = noise(&mut random, 20_000);
        match keeper.write(&[change(&format!("key {written}"), Some(&value))]) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, AppendError::Full { .. }), "{full}");
    assert!(written > 20, "{written}");
    // Nothing can be written, not even that a key goes, before room is made; the file that is kept
    // back is for that.
    let gone: Vec<Change> = (0..written)
        .map(|n| change(&format!("key {n}"), None))
        .collect();
    let mut tries = 0;
    while keeper.write(&gone).is_err() {
        tries += 1;
        assert!(tries < 10, "no room is made");
    }
    assert_eq!(keeper.size(), (0, 0));
    keeper.write(&[change("new", Some(b"1"))]).unwrap();
}
