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

/// Every topic but t0 is there.
fn all_but_t0_are_there(world: &World) {
    for (topic, name) in world.spool.unknown_topics() {
        if &*name != "t0" {
            world.spool.topic_facts(
                topic,
                TopicFacts {
                    partitions: 1,
                    message_bytes_max: None,
                    timestamp_before_max_ms: None,
                },
            );
        }
    }
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
fn records_of_a_topic_that_never_was_go_there_once_the_dead_letter_topic_is_there() {
    let mut world = World::new(32, config_with());
    for at in 0..700 {
        world.publish(0, 1, 100);
        if at % 50 == 0 {
            world.write();
        }
    }
    let unknown = world.spool.unknown_topics();
    let (id, _) = unknown.iter().find(|(_, name)| &**name == "t0").unwrap();
    world.spool.dead_letter_unknown(*id, "no such topic");
    let step = |world: &mut World| {
        world.load();
        let taken = world.spool.take(&LIMITS, &mut |_, _| true);
        taken
            .iter()
            .for_each(|taken| world.acknowledge(taken, false));
        world.write();
    };
    (0..20).for_each(|_| step(&mut world));
    assert_eq!(
        world.metrics.count(Counter::DeadLettered),
        0,
        "nowhere to go"
    );
    all_but_t0_are_there(&world);
    for _ in 0..20 {
        step(&mut world);
    }
    let moved = there(&world, "dead").len();
    assert!((1..=700).contains(&moved), "{moved}");
    // It is made after all, while some are on their way: each is in one of the two places.
    world.facts(3);
    world.publish(0, 1, 10);
    world.drain();
    let mut all = there(&world, "dead");
    let dead = all.len();
    all.extend(there(&world, "t0"));
    println!(
        "{moved} had moved, {dead} in all, {} dealt",
        all.len() - dead
    );
    all.sort_unstable();
    let twice = all.windows(2).filter(|two| two[0] == two[1]).count();
    assert_eq!((all.len(), twice), (701, 0));
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

/// Any stream, or any topic that is not known, is given up on.
fn give_up(world: &mut World) {
    let streams = world.spool.shared.state.lock().streams.len() as u64;
    let unknown = world.spool.unknown_topics();
    if world.random.one_in(4) && !unknown.is_empty() {
        let at = usize::try_from(world.random.below(unknown.len() as u64)).unwrap();
        world.spool.dead_letter_unknown(unknown[at].0, "unknown");
    } else if streams > 0 {
        let id = StreamId(u32::try_from(world.random.below(streams)).unwrap());
        world.spool.stalled(id, true);
        world.spool.dead_letter(id, "sick");
    }
}

/// What was acknowledged is on its topic or on the other, in its key's order on each, but for what
/// was rejected alone; only a power cut puts a record on both, or on the other twice.
fn check(world: &World, seed: u64) -> u64 {
    let mut of: HashMap<u64, Vec<&str>> = HashMap::new();
    let mut last: HashMap<(&str, &str, u64), u64> = HashMap::new();
    for (topic, id) in &world.broker.1 {
        let (sent_to, key) = &world.sent[id];
        assert!(
            topic == sent_to || topic == "dead",
            "seed {seed}: {id} went astray"
        );
        of.entry(*id).or_default().push(topic);
        if world.rejected.contains(id) {
            continue;
        }
        let before = last.insert((topic, sent_to, *key), *id);
        let in_order = before < Some(*id) || (topic == "dead" && world.crashes > 0);
        assert!(in_order, "seed {seed}: {id} behind {before:?} on {topic}");
    }
    let twice = |(_, on): &(&u64, &Vec<&str>)| on.len() > 1;
    for (id, on) in of.iter().filter(twice) {
        let dead = on.iter().filter(|topic| **topic == "dead").count();
        assert!(
            world.crashes > 0 && dead + 1 >= on.len(),
            "seed {seed}: {id} on {on:?}"
        );
    }
    let dropped = [
        Counter::DroppedFull,
        Counter::DroppedExpired,
        Counter::Quarantined,
        Counter::LostDamaged,
    ];
    let explained: u64 = dropped.iter().map(|c| world.metrics.count(*c)).sum();
    let acks = world.acks.0.lock();
    let missing: Vec<_> = acks.iter().filter(|id| !of.contains_key(id)).collect();
    if missing.len() as u64 > explained {
        let named: Vec<_> = missing.iter().map(|id| (*id, &world.sent[*id])).collect();
        world.report(|_, _| true);
        println!("ledger {:#?}", world.spool.shared.meta.lock().ledger(100));
        println!("missing {named:?}");
    }
    assert!(
        missing.len() as u64 <= explained,
        "seed {seed}: missing {missing:?}, explained {explained}"
    );
    of.iter().filter(twice).count() as u64
}

#[test]
fn seeded_lives_with_dead_letters_lose_nothing() {
    let (seeds, counts) = each_seed(
        "TIDEGATE_DEAD_LETTER_SEEDS",
        500,
        |seed, counts: &mut [u64; 3]| {
            let mut world = World::new(seed, config_with());
            for _ in 0..400 {
                if world.random.one_in(15) {
                    give_up(&mut world);
                } else {
                    step(&mut world);
                }
            }
            world.drain();
            let twice = check(&world, seed);
            let moved = world.metrics.count(Counter::DeadLettered);
            for (sum, more) in counts.iter_mut().zip([world.crashes, moved, twice]) {
                *sum += more;
            }
        },
    );
    let sum = |i: usize| counts.iter().map(|core| core[i]).sum::<u64>();
    let (crashes, moved, twice) = (sum(0), sum(1), sum(2));
    println!("seeds {seeds:?}: {crashes} power cuts, {moved} dead-lettered, {twice} of them twice");
    assert!(crashes > 0 && moved > 0, "the faults did not bite");
}
