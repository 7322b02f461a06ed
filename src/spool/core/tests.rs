//! The spool against a model: a broker that keeps sequences as Kafka does, a disk that loses what
//! was not synced, and an uplink that may be cut at any step. No threads: each step is made by
//! hand, from a seed.

mod damage;
mod dead_letter;
mod keeps;
mod lanes;
mod leftovers;
mod room;
mod time;
mod world;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::super::intake::{Change, Incoming, Intake, Settle, Ticket, TopicOptions};
use super::super::log::QUARANTINE;
use super::super::log::sim::{Fail, Rng, SimStore, each_seed};
use super::super::meta::{MetaError, Reason};
use super::super::outlet::{Identity, Leftover, Outlet, TakeLimits, Taken, TopicFacts};
use super::super::{Run, StreamId, TopicId, TopicPartition};
use super::stream::{Entry, Stream};
use super::writer::Done;
use super::{OpenError, Spool, recover};
use crate::clock::Clock;
use crate::config::checked::{self, OnFull, SpoolMode};
use crate::metrics::{Counter, Metrics};
use crate::record::{Record, RecordWriter};

pub(super) use world::config;
use world::{Acks, LIMITS, World, id_of, kept_with, open};

fn live(seed: u64, steps: u64, blind: bool) -> World {
    let mut world = World::new(seed, config());
    world.priorities = [0, 9, 4, 4];
    world.blind = blind;
    for _ in 0..steps {
        step(&mut world);
    }
    world
}

fn step(world: &mut World) {
    match world.random.below(21) {
        20 if world.random.one_in(4) => world.crash(false),
        other => step_of(world, other),
    }
}

fn step_but_crash(world: &mut World) {
    let step = world.random.below(21);
    step_of(world, step);
}

fn step_of(world: &mut World, step: u64) {
    match step {
        0..=5 => {
            let (topic, key) = (world.random.below(4), world.random.below(6));
            let size = usize::try_from(world.random.below(200)).unwrap();
            world.publish(topic, key, size);
        }
        6..=8 => {
            world.write();
            if world.random.one_in(4) {
                world.spool.shared.store();
            }
        }
        9 => world.load(),
        10..=11 => world.take(),
        12..=15 => world.answer(),
        16 => {
            let up = world.random.one_in(2);
            world.spool.uplink(up);
        }
        17 => world.facts(3),
        18 => world.resolve(),
        19 => world.stall(),
        _ if world.random.one_in(3) => {
            let at = world.random.below(6);
            let how = if world.random.one_in(2) {
                Fail::Eio
            } else {
                Fail::NoSpace
            };
            world.store.fail_in(at, how);
        }
        _ => {}
    }
}

#[test]
fn seeded_lives_lose_nothing_and_send_each_record_once() {
    let (seeds, counts) = each_seed(
        "TIDEGATE_SPOOL_SEEDS",
        1_000,
        |seed, counts: &mut [u64; 3]| {
            // Every third without the right to ask.
            let mut world = live(seed, 400, seed % 3 == 0);
            world.drain();
            world.check(seed);
            let acked = u64::try_from(world.acks.0.lock().len()).unwrap();
            for (sum, more) in counts.iter_mut().zip([world.crashes, acked, world.resumed]) {
                *sum += more;
            }
        },
    );
    let sum = |i: usize| counts.iter().map(|core| core[i]).sum::<u64>();
    let (crashes, acked, resumed) = (sum(0), sum(1), sum(2));
    println!(
        "seeds {seeds:?}: {crashes} power cuts, {acked} acknowledged, {resumed} streams resumed"
    );
    assert!(crashes > 0 && resumed > 0, "the faults did not bite");
}

#[test]
fn what_kafka_confirms_in_time_is_never_written() {
    let mut config = config();
    config.spill_after = Duration::from_secs(3600);
    let mut world = World::new(1, config);
    world.facts(3);
    for n in 0..200 {
        world.publish(0, n % 7, 50);
        world.facts(3);
        world.write();
        world.take();
        for (taken, appended) in std::mem::take(&mut world.out) {
            world.acknowledge(&taken, appended);
        }
    }
    world.drain();
    world.check(1);
    assert_eq!(world.acks.0.lock().len(), 200);
    assert_eq!(world.metrics.count(Counter::DiskBytes), 0);
}

#[test]
fn with_kafka_away_records_are_safe_on_disk_and_leave_memory() {
    let mut world = World::new(2, config());
    world.publish(0, 1, 10);
    world.facts(3);
    world.write();
    world.spool.uplink(false);
    for n in 0..2_000 {
        world.publish(0, n % 50, 100);
        if n % 100 == 0 {
            world.write();
        }
    }
    world.write();
    assert_eq!(world.acks.0.lock().len(), 2_001);
    assert!(world.spool.shared.state.lock().hot.bytes() < 1_000);
    world.crash(true);
    world.drain();
    world.check(2);
}

#[test]
fn a_batch_of_unknown_fate_keeps_itself_in_memory_and_nothing_else() {
    let mut world = World::new(11, config());
    world.publish(0, 1, 10);
    world.facts(1);
    world.write();
    for _ in 0..5 {
        world.publish(0, 1, 100);
    }
    world.take();
    assert_eq!(world.out.len(), 1);
    world.spool.uplink(false);
    for n in 0..2_000 {
        world.publish(0, 1, 100);
        if n % 100 == 0 {
            world.write();
        }
    }
    world.write();
    assert_eq!(world.acks.0.lock().len(), 2_006);
    {
        let state = world.spool.shared.state.lock();
        assert!(state.hot.bytes() < 1_000 && state.cold_bytes < 1_000);
    }
    // It turns out to have been appended.
    world.drain();
    world.check(11);
    let log = &world.broker.0[&("t0".to_owned(), 0)].log;
    assert_eq!(log.len(), 2_006);
}

#[test]
fn a_rejected_record_goes_to_quarantine_and_the_rest_flows() {
    let mut world = World::new(4, config());
    world.publish(0, 1, 10);
    world.facts(1);
    world.write();
    for _ in 0..9 {
        world.publish(0, 1, 10);
    }
    world.take();
    let (taken, _) = world.out.pop().unwrap();
    world
        .spool
        .quarantine(taken.stream, taken.run, taken.numbers[2], "too large");
    world.write();
    world.drain();
    let log = &world.broker.0[&("t0".to_owned(), 0)].log;
    assert_eq!(log.len(), 9);
    assert!(!log.contains(&2));
    assert_eq!(world.acks.0.lock().len(), 10);
    assert_eq!(world.metrics.count(Counter::Quarantined), 1);
}

#[test]
fn expired_records_leave_the_middle_of_a_stream() {
    let mut world = World::new(5, config());
    let options = TopicOptions {
        priority: 3,
        ttl: Some(Duration::from_secs(60)),
    };
    let id = world.spool.topic("old", &options);
    world.facts(1);
    world.write();
    for n in 0..10u64 {
        let age = if (3..6).contains(&n) { 3_600_000 } else { 0 };
        let value = world.next_id.to_le_bytes();
        let record = RecordWriter::new(Some(b"k"), Some(&value)).finish(super::wall_ms() - age);
        world.append(id, ("old".into(), 0), record);
    }
    world.drain();
    world.check(5);
    assert_eq!(
        world.broker.0[&("old".to_owned(), 0)].log,
        [0, 1, 2, 6, 7, 8, 9]
    );
    assert_eq!(world.metrics.count(Counter::DroppedExpired), 3);
}

#[test]
fn a_topic_that_grows_keeps_the_order_of_its_keys() {
    let mut world = World::new(6, config());
    world.publish(0, 0, 10);
    world.facts(2);
    world.write();
    for n in 0..200 {
        world.publish(0, n % 10, 20);
        if n == 100 {
            let id = world.spool.topic("t0", &TopicOptions::default());
            world.spool.topic_facts(
                id,
                TopicFacts {
                    partitions: 5,
                    message_bytes_max: None,
                    timestamp_before_max_ms: None,
                },
            );
            world.spool.uplink(false);
        }
        if n % 9 == 0 {
            world.write();
        }
    }
    world.crash(false);
    world.spool.uplink(true);
    let id = world.spool.topic("t0", &TopicOptions::default());
    world.spool.topic_facts(
        id,
        TopicFacts {
            partitions: 5,
            message_bytes_max: None,
            timestamp_before_max_ms: None,
        },
    );
    world.drain();
    world.check(6);
    assert!(world.broker.0.keys().any(|(_, partition)| *partition > 1));
}

#[test]
fn stream_ids_are_dense() {
    let world = World::new(7, config());
    assert!(
        world
            .spool
            .shared
            .state
            .lock()
            .stream(StreamId(0))
            .is_none()
    );
}

#[test]
fn a_commit_waits_for_company_but_for_no_more_than_it_needs() {
    let patient = checked::Spool {
        sync_interval: Duration::from_secs(3600),
        segment_bytes: 1 << 20,
        memory_max_bytes: 16 << 20,
        ..config()
    };
    let mut world = World::new(1, patient);
    world.spool.uplink(false);
    world.publish(0, 0, 10);
    world.write();
    assert_eq!(world.acks.0.lock().len(), 0);
    for _ in 0..8 {
        world.publish(0, 0, 16 << 10);
    }
    world.write();
    assert_eq!(world.acks.0.lock().len(), 9);
}
