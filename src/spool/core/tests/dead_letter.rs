//! What goes to the dead letter topic: once, or twice if the power is cut between, never lost.

use super::*;

fn config_with() -> checked::Spool {
    checked::Spool {
        dead_letter_topic: Some("dead".into()),
        ..config()
    }
}

/// `records` of t0, of which nothing can be sent, and t1.
fn sick(records: u64) -> (World, StreamId) {
    let mut world = World::new(31, config_with());
    world.publish(0, 1, 10);
    world.publish(1, 1, 10);
    world.facts(1);
    world.write();
    for _ in 1..records {
        world.publish(0, 1, 100);
    }
    world.write();
    let state = world.spool.shared.state.lock();
    let sick = |s: &&Stream| &*s.to.topic == "t0" && !s.is_provisional();
    let id = state.streams.iter().find(sick).unwrap().id;
    drop(state);
    world.spool.stalled(id, true);
    (world, id)
}

/// Every turn but what would send t0.
fn turn(world: &mut World) {
    world.facts(1);
    world.load();
    let mut well = |_: StreamId, to: &TopicPartition| &*to.topic != "t0";
    for taken in world.spool.take(&LIMITS, &mut well) {
        for record in taken.records.iter().filter(|_| &*taken.to.topic == "dead") {
            let headers = record.headers().unwrap();
            assert_eq!(
                headers[0],
                (&b"__connect.errors.topic"[..], Some(&b"t0"[..]))
            );
            assert_eq!(headers[1].1, Some(&b"0"[..]));
            assert_eq!(headers[2].1, Some(&b"no such topic"[..]));
        }
        world.acknowledge(&taken, false);
    }
    world.write();
}

/// What Kafka has of a topic.
fn there(world: &World, topic: &str) -> Vec<u64> {
    let of = world.broker.1.iter().filter(|(name, _)| name == topic);
    of.map(|(_, id)| *id).collect()
}

#[test]
fn a_sick_topics_backlog_goes_to_the_dead_letter_topic_and_the_ledger_says_so() {
    let (mut world, id) = sick(900);
    for _ in 0..20 {
        turn(&mut world);
    }
    assert!(there(&world, "dead").is_empty(), "nobody gave up");
    world.spool.dead_letter(id, "no such topic");
    let mut turns = 0;
    while there(&world, "dead").len() < 900 && turns < 5_000 {
        turn(&mut world);
        turns += 1;
    }
    let mut moved = there(&world, "dead");
    let in_order = moved.is_sorted();
    moved.sort_unstable();
    moved.dedup();
    assert!(in_order && moved.len() == 900, "{} moved", moved.len());
    assert_eq!(world.metrics.count(Counter::DeadLettered), 900);
    let ledger = world.spool.shared.meta.lock().ledger(1_000);
    let named = ledger.iter().filter(|l| l.reason == Reason::DeadLettered);
    assert_eq!(named.map(|l| l.end - l.first).sum::<u64>(), 900);
    // Well again, it flows as ever.
    world.spool.stalled(id, false);
    world.publish(0, 1, 10);
    world.drain();
    assert_eq!(there(&world, "t0").len(), 1);
}

#[test]
fn a_power_cut_on_the_way_loses_nothing() {
    for cut in [1, 2, 3, 5, 8, 20, 50, 100, 200] {
        let (mut world, id) = sick(600);
        world.spool.dead_letter(id, "no such topic");
        for _ in 0..cut {
            turn(&mut world);
        }
        let moved = there(&world, "dead").len();
        world.crash(false);
        world.drain();
        let mut all = there(&world, "dead");
        all.extend(there(&world, "t0"));
        let twice = all.len();
        all.sort_unstable();
        all.dedup();
        let twice = twice - all.len();
        println!("cut {cut}: {moved} had moved, {twice} twice");
        all.extend(there(&world, "t1"));
        let acked = world.acks.0.lock().clone();
        let lost: Vec<_> = acked.iter().filter(|id| !all.contains(id)).collect();
        assert!(lost.is_empty(), "cut {cut}: {lost:?}");
        assert!(acked.len() > 400, "{} acknowledged", acked.len());
    }
}
