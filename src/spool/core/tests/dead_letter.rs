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

/// Every turn but what would send t0; gives what the dead letter topic was handed.
fn turns(world: &mut World, turns: usize, there: &mut Vec<u64>) {
    for _ in 0..turns {
        world.facts(1);
        world.load();
        let mut well = |_: StreamId, to: &TopicPartition| &*to.topic != "t0";
        for taken in world.spool.take(&LIMITS, &mut well) {
            let last = *taken.numbers.last().unwrap();
            for record in taken.records.iter().filter(|_| &*taken.to.topic == "dead") {
                let headers = record.headers().unwrap();
                assert_eq!(
                    headers[0],
                    (&b"__connect.errors.topic"[..], Some(&b"t0"[..]))
                );
                assert_eq!(headers[1].1, Some(&b"0"[..]));
                assert_eq!(headers[2].1, Some(&b"no such topic"[..]));
                there.push(id_of(record.value().unwrap().unwrap()));
            }
            world.spool.appended(taken.stream, taken.run, last, None);
        }
        world.write();
    }
}

#[test]
fn a_sick_topics_backlog_goes_to_the_dead_letter_topic_and_the_ledger_says_so() {
    let (mut world, id) = sick(900);
    let mut there = Vec::new();
    turns(&mut world, 20, &mut there);
    assert!(there.is_empty(), "moved though nobody gave up");
    world.spool.dead_letter(id, "no such topic");
    turns(&mut world, 200, &mut there);
    assert_eq!(there.len(), 900);
    there.sort_unstable();
    there.dedup();
    assert_eq!(there.len(), 900);
    assert_eq!(world.metrics.count(Counter::DeadLettered), 900);
    let ledger = world.spool.shared.meta.lock().ledger(1_000);
    let named = ledger.iter().filter(|l| l.reason == Reason::DeadLettered);
    assert_eq!(named.map(|l| l.end - l.first).sum::<u64>(), 900);
    // Well again, it flows as ever.
    world.spool.stalled(id, false);
    world.publish(0, 1, 10);
    world.drain();
    assert_eq!(world.broker.0[&("t0".to_owned(), 0)].log.len(), 1);
}

#[test]
fn a_power_cut_on_the_way_loses_nothing() {
    for cut in 1..12 {
        let (mut world, id) = sick(600);
        let mut there = Vec::new();
        world.spool.dead_letter(id, "no such topic");
        turns(&mut world, cut, &mut there);
        world.crash(false);
        world.resolve();
        let moved = there.len();
        turns(&mut world, 60, &mut there);
        world.drain();
        there.extend(&world.broker.0[&("t0".to_owned(), 0)].log);
        let twice = there.len();
        there.sort_unstable();
        there.dedup();
        println!(
            "cut {cut}: {moved} moved before, {} twice",
            twice - there.len()
        );
        assert_eq!(
            there.iter().filter(|id| **id != 1).count(),
            600,
            "cut {cut}"
        );
    }
}
