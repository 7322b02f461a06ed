//! Who goes first, and what a stream that cannot be sent leaves to the others.

use super::*;

/// A backlog of `records` in each of the topics t0 to t3, of priorities 0, 9, 4 and 4, and Kafka
/// back.
fn backlog(config: checked::Spool, records: u64) -> World {
    let mut world = World::new(20, config);
    world.priorities = [0, 9, 4, 4];
    for topic in [0, 1, 2, 4] {
        world.publish(topic, 0, 10);
    }
    world.facts(1);
    world.write();
    world.spool.uplink(false);
    for _ in 0..records {
        for topic in [0, 1, 2] {
            world.publish(topic, 0, 100);
        }
    }
    world.write();
    world.spool.uplink(true);
    world
}

/// The topics in the order in which their records are handed out, one for each batch.
fn order(world: &mut World, until: usize) -> Vec<String> {
    let mut order = Vec::new();
    let mut idle = 0;
    while idle < 3 && order.len() < until {
        world.load();
        let limits = TakeLimits {
            streams_max: 1,
            ..LIMITS
        };
        let taken = world.spool.take(&limits, &mut |_, _| true);
        idle = if taken.is_empty() { idle + 1 } else { 0 };
        for taken in taken {
            order.push(taken.to.topic.to_string());
            world.acknowledge(&taken, false);
        }
    }
    order
}

#[test]
fn streams_without_a_backlog_go_first_then_the_highest_priority() {
    let mut world = backlog(config(), 500);
    world.publish(4, 0, 10);
    let order = order(&mut world, usize::MAX);
    let last = |topic: &str| order.iter().rposition(|it| it == topic).unwrap();
    let first = |topic: &str| order.iter().position(|it| it == topic).unwrap();
    assert_eq!(first("t4"), 0);
    assert!(last("t1") < first("t2") && last("t2") < first("t0"));
    assert!(order.len() > 300, "{}", order.len());
    world.drain();
    world.check(20);
}

#[test]
fn a_restart_keeps_the_priorities_though_no_route_has_named_the_topics() {
    let mut world = backlog(config(), 300);
    world.crash(false);
    world.resolve();
    let order = order(&mut world, usize::MAX);
    let last = |topic: &str| order.iter().rposition(|it| it == topic).unwrap();
    let first = |topic: &str| order.iter().position(|it| it == topic).unwrap();
    assert!(last("t1") < first("t2") && last("t2") < first("t0"));
    world.drain();
    world.check(20);
}

#[test]
fn a_stream_whose_records_went_to_disk_while_it_was_listed_as_live_loses_that_place() {
    let mut world = World::new(21, config());
    world.priorities = [0, 9, 0, 0];
    world.publish(0, 0, 10);
    world.publish(1, 0, 10);
    world.facts(1);
    world.write();
    order(&mut world, usize::MAX);
    // Listed as live, then Kafka goes away and memory is given up.
    world.publish(0, 0, 10);
    world.spool.uplink(false);
    world.publish(1, 0, 10);
    world.write();
    world.spool.uplink(true);
    assert_eq!(order(&mut world, usize::MAX), ["t1", "t0"]);
}

#[test]
fn memory_full_of_a_low_priority_gives_way_to_a_high_one() {
    let mut world = backlog(config(), 0);
    order(&mut world, usize::MAX);
    world.spool.uplink(false);
    for _ in 0..300 {
        world.publish(0, 0, 100);
    }
    world.write();
    world.spool.uplink(true);
    world.load();
    assert!(world.spool.shared.state.lock().cold_bytes > 8 << 10);
    world.spool.uplink(false);
    for _ in 0..3 {
        world.publish(1, 0, 100);
    }
    world.write();
    world.spool.uplink(true);
    world.load();
    assert_eq!(order(&mut world, 1), ["t1"]);
    world.drain();
    world.check(20);
}

#[test]
fn the_cap_bounds_what_comes_from_disk_and_not_what_is_live() {
    let config = checked::Spool {
        replay_bytes_per_second: 1_000,
        ..config()
    };
    let mut world = backlog(config, 100);
    let start = std::time::Instant::now();
    let (mut replayed, mut live) = (0, 0);
    for _ in 0..100 {
        world.publish(4, 0, 500);
        world.load();
        for taken in world.spool.take(&LIMITS, &mut |_, _| true) {
            let bytes: usize = taken.records.iter().map(|record| record.size()).sum();
            let total = if &*taken.to.topic == "t4" {
                &mut live
            } else {
                &mut replayed
            };
            *total += bytes;
            world.acknowledge(&taken, false);
        }
    }
    let most = 1_000.0 * (start.elapsed().as_secs_f64() + 1.0) + 600.0;
    println!("replayed {replayed} of at most {most:.0}, live {live}");
    assert!(replayed > 0 && replayed as f64 <= most);
    assert!(live > 50_000);
    assert!(world.spool.shared.state.lock().replay_wait_ms().is_some());
}

#[test]
fn a_stream_that_cannot_be_sent_keeps_one_record_in_memory_and_is_tried_with_it() {
    let mut world = backlog(config(), 500);
    let sick = |to: &TopicPartition| &*to.topic == "t1";
    let mut stream = None;
    for round in 0..2_000 {
        world.load();
        for taken in world.spool.take(&LIMITS, &mut |_, _| true) {
            if sick(&taken.to) {
                world.spool.put_back(taken.stream);
                stream = Some(taken.stream);
            } else {
                world.acknowledge(&taken, false);
            }
        }
        if round == 3 {
            world.spool.stalled(stream.unwrap(), true);
        }
    }
    let stream = stream.unwrap();
    {
        let mut state = world.spool.shared.state.lock();
        let run = state.run;
        assert!(state.cold_bytes < 200, "{}", state.cold_bytes);
        let others = |s: &&Stream| s.id != stream;
        assert!(
            state
                .streams
                .iter()
                .filter(others)
                .all(|s| s.is_drained(run))
        );
        assert_eq!(state.stream(stream).unwrap().cold.len(), 1);
    }
    // Where one record goes the others follow, without a word from the uplink.
    world.drain();
    world.check(20);
    assert_eq!(world.acks.0.lock().len(), world.sent.len());
}
