//! What an earlier run left, and Kafka must be asked about.

use super::*;

#[test]
fn what_kafka_confirmed_before_it_was_written_is_no_hole_after_a_restart() {
    let mut world = World::new(9, config());
    world.publish(0, 0, 10);
    world.facts(1);
    world.write();
    world.publish(0, 0, 10);
    world.write();
    for _ in 0..3 {
        world.publish(0, 0, 10);
    }
    world.take();
    for (taken, appended) in std::mem::take(&mut world.out) {
        world.acknowledge(&taken, appended);
    }
    world.publish(0, 0, 10);
    world.write();
    world.crash(false);
    // Kafka has forgotten the producer: all of the run is offered again.
    let left = world.spool.unresolved(1).pop().unwrap();
    world
        .spool
        .resolved(left.stream, left.run, left.sequence, None, false);
    let mut numbers = Vec::new();
    for _ in 0..10 {
        world.load();
        for taken in world.spool.take(&LIMITS, &mut |_, _| true) {
            numbers.extend(&taken.numbers);
            let unbroken: Vec<u64> = (taken.sequence..).take(taken.records.len()).collect();
            assert_eq!(taken.numbers, unbroken, "a batch over the gap");
            let last = *taken.numbers.last().unwrap();
            world.spool.appended(taken.stream, taken.run, last, None);
        }
    }
    assert_eq!(
        (left.first, left.last, numbers.last()),
        (numbers[0], 5, Some(&5))
    );
    assert!(numbers.len() < 6, "the test has no gap: {numbers:?}");
    assert_eq!(world.metrics.count(Counter::LostDamaged), 0);
}

/// A world with six records on disk of which an earlier run does not know whether Kafka has them.
fn left_over(seed: u64) -> (World, Leftover) {
    let mut world = World::new(seed, config());
    world.publish(0, 0, 10);
    world.facts(1);
    world.write();
    for _ in 0..5 {
        world.publish(0, 0, 10);
    }
    world.write();
    world.crash(false);
    let left = world.spool.unresolved(1).pop().unwrap();
    assert_eq!((left.last - left.first, left.holes), (5, false));
    (world, left)
}

#[test]
fn what_is_dropped_while_blind_is_asked_about_again() {
    let (mut world, left) = left_over(11);
    let (stream, run) = (left.stream, left.run);
    world.spool.blind(stream, true);
    world
        .spool
        .resolved(stream, run, left.sequence, None, false);
    world.load();
    let middle = (left.first + 1, left.first + 3);
    let shared = Arc::clone(&world.spool.shared);
    assert!(shared.drop_range(stream, run, middle, Reason::Damaged));
    world.take();
    assert!(
        world.out.is_empty(),
        "sent under sequences that nobody knows"
    );
    let again = world.spool.unresolved(1).pop().unwrap();
    assert_eq!(
        (again.first, again.last, again.holes),
        (left.first, left.last, true)
    );
    let identity = Identity {
        producer_id: 1,
        epoch: 100,
        cluster_id: "c".into(),
        device: String::new(),
    };
    world
        .spool
        .rebase(stream, run, left.first, identity)
        .unwrap();
    world.drain();
    assert_eq!(world.broker.1.len(), 4);
    assert_eq!(world.metrics.count(Counter::LostDamaged), 2);
}

#[test]
fn a_leftover_that_is_dropped_whole_holds_nothing_up() {
    let (mut world, left) = left_over(12);
    let shared = Arc::clone(&world.spool.shared);
    assert!(shared.drop_range(
        left.stream,
        left.run,
        (left.first, left.last + 1),
        Reason::Full
    ));
    world.publish(0, 0, 10);
    world.drain();
    assert_eq!(world.broker.1.len(), 1);
}
