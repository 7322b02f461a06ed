//! What happens where room runs short: segments, streams that stall, the quarantine.

use super::*;

#[test]
fn the_next_segments_file_is_made_while_no_commit_waits() {
    let mut world = World::new(8, config());
    world.publish(0, 1, 10);
    world.facts(1);
    world.write();
    world.spool.uplink(false);
    let segments = |world: &World| world.spool.shared.state.lock().segments.len();
    while segments(&world) < 3 {
        world.publish(0, 1, 500);
        world.write();
    }
    assert_eq!(world.store.files().len(), segments(&world) + 2);
    world.drain();
    world.check(8);
}

#[test]
fn drop_oldest_makes_room_and_the_ledger_explains_it() {
    let mut config = config();
    config.max_bytes = 512 << 10;
    config.on_full = OnFull::DropOldest;
    let mut world = World::new(3, config);
    world.publish(0, 1, 10);
    world.facts(2);
    world.write();
    world.spool.uplink(false);
    let noise: Vec<u64> = (0..6_000).map(|_| world.random.next()).collect();
    for n in noise {
        world.publish(0, n % 20, usize::try_from(n % 400).unwrap());
        if n % 16 == 0 {
            world.write();
        }
    }
    world.write();
    let dropped = world.metrics.count(Counter::DroppedFull);
    assert!(dropped > 0, "the fault did not bite");
    world.drain();
    world.check(3);
    let there: usize = world.broker.0.values().map(|p| p.log.len()).sum();
    assert_eq!(there as u64 + dropped, 6_001);
}

#[test]
fn a_disk_full_of_records_that_are_not_dealt_yet_drains_wholly() {
    for (seed, topics) in [(31, 1), (32, 3)] {
        let mut config = config();
        config.max_bytes = 512 << 10;
        let mut world = World::new(seed, config);
        world.spool.uplink(false);
        while !world.spool.shared.state.lock().full {
            let n = world.next_id;
            world.publish(n % topics, n % 20, 300);
            if n.is_multiple_of(16) {
                world.write();
            }
        }
        let written = world.acks.0.lock().len();
        assert!(written > 500, "the disk is not full: {written}");
        if seed == 32 {
            world.crash(false);
        }
        world.drain();
        world.check(seed);
    }
}

/// A topic that cannot be sent, and one that can: what the second sends is acknowledged, the first
/// waits.
fn one_of_two_stalls(config: checked::Spool, rounds: u64) -> (World, StreamId) {
    let mut world = World::new(8, config);
    world.publish(0, 0, 10);
    world.publish(1, 0, 10);
    world.facts(1);
    world.write();
    world.take();
    let stalled = world
        .out
        .iter()
        .find(|(taken, _)| &*taken.to.topic == "t0")
        .unwrap()
        .0
        .stream;
    world.spool.put_back(stalled);
    for (taken, appended) in std::mem::take(&mut world.out) {
        if taken.stream != stalled {
            world.acknowledge(&taken, appended);
        }
    }
    world.spool.stalled(stalled, true);
    for _ in 0..rounds {
        world.publish(0, 0, 300);
        for _ in 0..8 {
            world.publish(1, 0, 300);
        }
        world.write();
        loop {
            world.load();
            let taken = world.spool.take(&LIMITS, &mut |id, _| id != stalled);
            if taken.is_empty() {
                break;
            }
            for taken in taken {
                world.acknowledge(&taken, false);
            }
        }
        world.spool.shared.limit_stalled();
        world.spool.shared.copy_forward();
    }
    (world, stalled)
}

#[test]
fn a_stalled_stream_holds_its_share_of_the_disk_and_no_more() {
    let config = checked::Spool {
        stalled_max_percent: 1,
        ..config()
    };
    let share = config.max_bytes / 100;
    let (mut world, stalled) = one_of_two_stalls(config, 400);
    let held = world
        .spool
        .shared
        .state
        .lock()
        .stream(stalled)
        .unwrap()
        .disk_bytes;
    assert!(held > share && held < share * 2, "{held} of {share}");
    let waiting = world.sent.len() - world.acks.0.lock().len();
    assert!(waiting > 100, "its senders wait: {waiting}");
    world.spool.stalled(stalled, false);
    world.drain();
    world.check(8);
    assert_eq!(world.acks.0.lock().len(), world.sent.len());
}

#[test]
fn what_a_stalled_stream_left_in_many_segments_is_copied_into_few() {
    let config = checked::Spool {
        max_bytes: 1 << 20,
        stalled_max_percent: 100,
        mode: SpoolMode::Always,
        ..config()
    };
    let (mut world, stalled) = one_of_two_stalls(config, 600);
    let first = world
        .spool
        .shared
        .state
        .lock()
        .stream(stalled)
        .unwrap()
        .spans[0]
        .segment;
    assert!(first.0 > 2, "nothing was copied forward: {first:?}");
    world.crash(false);
    world.drain();
    world.check(8);
    assert_eq!(world.acks.0.lock().len(), world.sent.len());
}

#[test]
fn the_quarantine_keeps_its_bound() {
    let config = checked::Spool {
        memory_max_bytes: 1 << 20,
        quarantine_max_bytes: 128 << 10,
        ..config()
    };
    let mut world = World::new(10, config);
    world.publish(0, 0, 10);
    world.facts(1);
    world.write();
    for _ in 0..40 {
        world.publish(0, 0, 8_000);
    }
    for _ in 0..41 {
        world.take();
        let (taken, _) = world.out.pop().unwrap();
        world
            .spool
            .quarantine(taken.stream, taken.run, taken.first, "rejected");
        world.write();
    }
    let kept = world.spool.shared.log.lock().segments_of(QUARANTINE).len();
    assert!((1..=2).contains(&kept), "{kept} segments of 64 KiB");
    assert_eq!(world.metrics.count(Counter::Quarantined), 41);
    assert_eq!(world.acks.0.lock().len(), 41);
}
