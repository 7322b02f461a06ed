//! The uplink against a real Kafka, with a spool in memory: whatever happens to brokers and to the
//! gateway, each record is in Kafka once and in order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tidegate::config::checked::{self, TopicCreation};
use tidegate::kafka::Compression;
use tidegate::metrics::Counter;
use tidegate::spool::outlet::Doubt;

use crate::harness::uplink::{Uplink, check, config, drained, read, under_load};
use crate::harness::{Kafka, MemorySpool, pause, wait};

#[test]
fn a_steady_flow_is_batched_and_each_run_has_the_next_epoch() {
    let kafka = Kafka::shared();
    kafka.create_topic("uplink-steady", 20);
    let mut spool = MemorySpool::new();
    for _ in 0..3 {
        let uplink = Uplink::to(kafka, &spool);
        under_load(&spool, "uplink-steady", 20, || {
            pause(Duration::from_secs(1))
        });
        drained(&spool, 20);
        let batches = uplink.count(Counter::Batches);
        let requests = uplink.count(Counter::ProduceRequests);
        eprintln!("{batches} batches in {requests} requests");
        assert!(batches > requests);
        assert_eq!(uplink.count(Counter::MaybeTwice), 0);
        uplink.stop();
        spool = spool.after_crash(0);
    }
    check(kafka, &spool, "uplink-steady");
    let named = spool.named();
    let ids: Vec<i64> = named
        .iter()
        .map(|(_, identity)| identity.producer_id)
        .collect();
    let epochs: Vec<i16> = named.iter().map(|(_, identity)| identity.epoch).collect();
    assert_eq!(epochs, [0, 1, 2]);
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[test]
fn crashes_with_stale_cursors_lose_and_repeat_nothing() {
    let kafka = Kafka::shared();
    kafka.create_topic("uplink-crash", 5);
    let mut spool = MemorySpool::new();
    for round in 0..8 {
        let uplink = Uplink::to(kafka, &spool);
        under_load(&spool, "uplink-crash", 5, || {
            pause(Duration::from_millis(700))
        });
        uplink.kill();
        spool = spool.after_crash([0, 1, 7, 100, 1000][round % 5]);
    }
    let uplink = Uplink::to(kafka, &spool);
    drained(&spool, 20);
    assert!(uplink.count(Counter::Resumed) > 0);
    assert_eq!(uplink.count(Counter::MaybeTwice), 0);
    uplink.stop();
    check(kafka, &spool, "uplink-crash");
    assert!(spool.events().doubts.is_empty());
}

#[test]
fn a_broker_killed_and_restarted_costs_time_only() {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("t", 8);
    let spool = MemorySpool::new();
    let uplink = Uplink::to(&kafka, &spool);
    under_load(&spool, "t", 8, || {
        pause(Duration::from_secs(2));
        let start = Instant::now();
        kafka.cluster("kill", &["1"]);
        let down = || (spool.events().uplink.last() == Some(&false)).then_some(());
        wait("the spool is told", 2, down);
        eprintln!("told that Kafka is away after {:?}", start.elapsed());
        pause(Duration::from_secs(3));
        kafka.cluster("restart", &["1"]);
    });
    drained(&spool, 60);
    assert_eq!(spool.events().uplink, [false, true, false, true]);
    assert_eq!(uplink.count(Counter::MaybeTwice), 0);
    uplink.stop();
    check(&kafka, &spool, "t");
}

#[test]
fn a_frozen_broker_costs_time_only() {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("t", 8);
    let spool = MemorySpool::new();
    let uplink = Uplink::to(&kafka, &spool);
    under_load(&spool, "t", 8, || {
        pause(Duration::from_secs(2));
        kafka.cluster("pause", &["1"]);
        pause(Duration::from_secs(15));
        assert_eq!(spool.events().uplink.last(), Some(&false));
        kafka.cluster("cont", &["1"]);
    });
    drained(&spool, 60);
    eprintln!(
        "repeated {} batches, {} were there",
        uplink.count(Counter::BatchesRepeated),
        uplink.count(Counter::BatchesAlreadyThere)
    );
    let bitten =
        uplink.count(Counter::BatchesRepeated) + uplink.count(Counter::BatchesAlreadyThere);
    assert!(bitten > 0);
    uplink.stop();
    check(&kafka, &spool, "t");
}

/// DESIGN.md 2.2 rule 1: a late request of a dead run must not be taken for a new record.
#[test]
fn a_late_request_of_a_dead_run_is_no_new_record() {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("t", 4);
    let spool = MemorySpool::new();
    let uplink = Uplink::to(&kafka, &spool);
    // On a busy machine the first answers may be slow, and then streams go apart for a while.
    wait("all in one request", 60, || {
        let apart = || uplink.count(Counter::ProduceRequestsApart);
        let before = apart();
        spool.add_to_each("t", 0..4, (10, 100));
        drained(&spool, 20);
        (apart() == before).then_some(())
    });
    kafka.cluster("pause", &["1"]);
    // Into the frozen broker's socket, and never on this gateway's disk: nobody was told that it is
    // safe. All of it in one request: two may be out.
    spool.add_to_each("t", 0..4, (10, 100));
    wait("request out", 5, || (spool.taken() == 40).then_some(()));
    pause(Duration::from_millis(300));
    uplink.kill();
    let spool = spool.after_power_cut();
    let uplink = Uplink::to(&kafka, &spool);
    spool.add_to_each("t", 0..4, (10, 100));
    kafka.cluster("cont", &["1"]);
    drained(&spool, 30);
    uplink.stop();
    let found = read(&kafka, "t");
    for (partition, wanted) in spool.values("t") {
        let found = &found[&partition];
        let ours: Vec<&String> = found
            .iter()
            .filter(|value| wanted.contains(value))
            .collect();
        eprintln!(
            "partition {partition}: {} in Kafka, {} ours",
            found.len(),
            ours.len()
        );
        assert_eq!(ours.len(), wanted.len(), "missing or twice");
        let late = found.len() - ours.len();
        assert_eq!(late, 10, "the late request was to arrive");
    }
}

#[test]
fn what_is_too_large_is_put_aside_alone() {
    let kafka = Kafka::shared();
    kafka.create_topic_with("uplink-large", 2, "max.message.bytes=3000");
    let config = checked::Kafka {
        compression: Compression::None,
        ..config(kafka)
    };
    let spool = MemorySpool::new();
    spool.wonder("uplink-large");
    for (count, size) in [(20, 100), (1, 4000), (30, 100), (1, 5000), (5, 100)] {
        spool.add("uplink-large", 0, (count, size));
    }
    spool.add("uplink-large", 1, (10, 100));
    let uplink = Uplink::start(&config, &spool);
    drained(&spool, 20);
    let sizes: Vec<usize> = spool.events().quarantined.iter().map(String::len).collect();
    assert_eq!(sizes, [4000, 5000]);
    let facts = spool.events().facts[&0];
    assert_eq!((facts.partitions, facts.message_bytes_max), (2, Some(3000)));
    uplink.stop();
    check(kafka, &spool, "uplink-large");
}

#[test]
fn a_record_with_a_refused_timestamp_is_put_aside_alone() {
    let kafka = Kafka::shared();
    kafka.create_topic_with("uplink-clock", 1, "message.timestamp.before.max.ms=3600000");
    let spool = MemorySpool::new();
    spool.add("uplink-clock", 0, (10, 100));
    spool.add_at("uplink-clock", 0, (1, 77), 1_000);
    spool.add("uplink-clock", 0, (10, 100));
    let uplink = Uplink::to(kafka, &spool);
    drained(&spool, 20);
    let sizes: Vec<usize> = spool.events().quarantined.iter().map(String::len).collect();
    assert_eq!(sizes, [77]);
    uplink.stop();
    check(kafka, &spool, "uplink-clock");
}

#[test]
fn a_deleted_topic_delays_no_other() {
    let kafka = Kafka::start(1, &["auto.create.topics.enable=false"]);
    for topic in ["gone", "well"] {
        kafka.create_topic(topic, 2);
    }
    let spool = MemorySpool::new();
    let uplink = Uplink::to(&kafka, &spool);
    spool.add("gone", 0, (10, 100));
    drained(&spool, 20);
    under_load(&spool, "well", 2, || {
        kafka.tool("topics", &["--delete", "--topic", "gone"]);
        spool.add("gone", 0, (10, 100));
        spool.add("gone", 1, (10, 100));
        pause(Duration::from_secs(8));
    });
    wait("the others", 5, || {
        (spool.waiting_in("well") == 0).then_some(())
    });
    assert_eq!(spool.waiting_in("gone"), 20);
    assert!(spool.events().stalled.iter().any(|(_, stalled)| *stalled));
    kafka.create_topic("gone", 2);
    drained(&spool, 20);
    let events = spool.events().clone();
    let still = events
        .stalled
        .iter()
        .fold(BTreeMap::new(), |mut all, (stream, stalled)| {
            all.insert(*stream, *stalled);
            all
        });
    assert!(still.values().all(|stalled| !stalled), "{still:?}");
    uplink.stop();
    check(&kafka, &spool, "well");
    let found: usize = read(&kafka, "gone").values().map(Vec::len).sum();
    assert_eq!(found, 20);
}

#[test]
fn missing_topics_are_made_when_the_config_says_how() {
    let kafka = Kafka::start(1, &["auto.create.topics.enable=false"]);
    let spool = MemorySpool::new();
    spool.wonder("made");
    let config = checked::Kafka {
        topic_creation: Some(TopicCreation {
            partitions: 3,
            replication_factor: 1,
            configs: vec![("retention.ms".into(), "-1".into())],
        }),
        ..config(&kafka)
    };
    let uplink = Uplink::start(&config, &spool);
    wait("facts", 20, || {
        spool.events().facts.get(&0).map(|facts| facts.partitions)
    });
    assert_eq!(spool.events().facts[&0].partitions, 3);
    spool.add("made", 2, (10, 100));
    drained(&spool, 20);
    uplink.stop();
    check(&kafka, &spool, "made");
}

#[test]
fn leaders_that_die_in_turn_cost_time_only() {
    let kafka = Kafka::start(3, &[]);
    kafka.create_topic("t", 12);
    let spool = MemorySpool::new();
    let uplink = Uplink::to(&kafka, &spool);
    under_load(&spool, "t", 12, || {
        pause(Duration::from_secs(2));
        for node in ["1", "2", "3"] {
            kafka.cluster("kill", &[node]);
            pause(Duration::from_secs(8));
            kafka.cluster("restart", &[node]);
            pause(Duration::from_secs(5));
        }
    });
    drained(&spool, 60);
    uplink.stop();
    check(&kafka, &spool, "t");
}

/// DESIGN.md 2.2 rule 6: the broker has forgotten the producer, the log's tail has not.
#[test]
fn an_expired_identity_is_searched_for_in_the_log() {
    let expiry = [
        "producer.id.expiration.ms=1000",
        "producer.id.expiration.check.interval.ms=200",
    ];
    let kafka = Kafka::start(1, &expiry);
    kafka.create_topic("t", 4);
    let spool = MemorySpool::new();
    let uplink = Uplink::to(&kafka, &spool);
    under_load(&spool, "t", 4, || pause(Duration::from_millis(500)));
    drained(&spool, 20);
    uplink.kill();
    pause(Duration::from_secs(4));
    let spool = spool.after_crash(50);
    let uplink = Uplink::to(&kafka, &spool);
    (0..4).for_each(|partition| spool.add("t", partition, (10, 100)));
    drained(&spool, 20);
    assert_eq!(uplink.count(Counter::Resumed), 4);
    assert_eq!(uplink.count(Counter::MaybeTwice), 0);
    uplink.stop();
    check(&kafka, &spool, "t");
}

/// The same where only the leader has the last batch: it is there, and is not sent again.
#[test]
fn what_replicas_have_not_yet_is_waited_for_when_the_identity_has_expired() {
    let kafka = Kafka::start(
        3,
        &[
            "producer.id.expiration.ms=1000",
            "producer.id.expiration.check.interval.ms=200",
            "broker.session.timeout.ms=60000",
            "replica.lag.time.max.ms=60000",
        ],
    );
    kafka.create_topic("t", 1);
    let spool = MemorySpool::new();
    let uplink = Uplink::to(&kafka, &spool);
    spool.add("t", 0, (10, 100));
    drained(&spool, 20);
    // The first broker is asked who is remembered.
    let follower = if kafka.leaders()["t 0"] == 2 {
        "3"
    } else {
        "2"
    };
    kafka.cluster("pause", &[follower]);
    let before = kafka.log_bytes("t");
    spool.add("t", 0, (10, 100));
    wait("the leader's append", 20, || {
        (kafka.log_bytes("t") > before).then_some(())
    });
    uplink.kill();
    wait("the producer is forgotten", 20, || {
        (kafka.producers("t") == 0).then_some(())
    });
    let spool = spool.after_crash(0);
    let uplink = Uplink::to(&kafka, &spool);
    pause(Duration::from_secs(3));
    assert_eq!((uplink.count(Counter::Resumed), spool.waiting()), (0, 10));
    kafka.cluster("cont", &[follower]);
    drained(&spool, 60);
    assert_eq!(uplink.count(Counter::Resumed), 1);
    assert_eq!(uplink.count(Counter::MaybeTwice), 0);
    uplink.stop();
    check(&kafka, &spool, "t");
}

/// A new leader that is short of replicas does not tell where its log ends. What it may have goes
/// again all the same: Kafka recognises it, and says what is wrong.
#[test]
fn a_new_leader_short_of_replicas_is_sent_what_it_may_have() {
    let kafka = Kafka::start(3, &[]);
    let of_first = ["--replica-assignment", "1:2:3"];
    let all_needed = ["--config", "min.insync.replicas=3"];
    let create = [&["--create", "--topic", "t"], &of_first[..], &all_needed].concat();
    kafka.tool("topics", &create);
    let spool = MemorySpool::new();
    let uplink = Uplink::to(&kafka, &spool);
    let add = || {
        let before = kafka.log_bytes("t");
        spool.add("t", 0, (10, 100));
        wait("what two replicas have", 20, || {
            let more = kafka.log_bytes("t") - before;
            (more >= 1.8 * before / 3.0 && more > 0.0).then_some(())
        });
    };
    add();
    drained(&spool, 20);
    kafka.cluster("pause", &["3"]);
    add();
    assert_eq!(spool.waiting(), 10);
    kafka.cluster("kill", &["1"]);
    kafka.cluster("cont", &["3"]);
    wait("the second broker leads", 60, || {
        (kafka.leaders()["t 0"] == 2).then_some(())
    });
    let repeated = || uplink.count(Counter::BatchesRepeated);
    let before = repeated();
    wait("sent again", 60, || {
        (repeated() >= before + 5).then_some(())
    });
    assert_eq!(spool.waiting(), 10);
    kafka.cluster("restart", &["1"]);
    drained(&spool, 60);
    assert_eq!(uplink.count(Counter::MaybeTwice), 0);
    uplink.stop();
    check(&kafka, &spool, "t");
}

/// A copy of this gateway's data in use elsewhere: the one that is fenced takes another producer
/// id.
#[test]
fn a_twin_costs_an_identity_and_no_record() {
    let kafka = Kafka::shared();
    kafka.create_topic("uplink-twin", 2);
    let add = |spool: &MemorySpool| {
        (0..2).for_each(|partition| spool.add("uplink-twin", partition, (10, 100)));
    };
    let first = MemorySpool::new();
    let one = Uplink::to(kafka, &first);
    add(&first);
    drained(&first, 20);
    let second = first.after_crash(0);
    let two = Uplink::to(kafka, &second);
    add(&second);
    drained(&second, 20);
    add(&first);
    drained(&first, 20);
    add(&second);
    add(&first);
    drained(&second, 20);
    drained(&first, 20);
    one.stop();
    two.stop();
    let ids: Vec<i64> = first
        .named()
        .iter()
        .map(|(_, identity)| identity.producer_id)
        .collect();
    assert!(ids.iter().any(|id| *id != ids[0]), "{ids:?}");
    let found = read(kafka, "uplink-twin");
    // 10 of the first before the copy, 20 after it; 20 of the second.
    assert!(found.values().all(|values| values.len() == 50), "{found:?}");
}

/// Broker 1 has lost what it had confirmed (its log was wiped): what is new flows on, the loss is
/// told.
#[test]
fn what_kafka_has_lost_is_told_and_the_rest_flows() {
    let kafka = Kafka::shared();
    kafka.create_topic("uplink-lost", 1);
    let spool = MemorySpool::new();
    let uplink = Uplink::to(kafka, &spool);
    spool.add("uplink-lost", 0, (10, 100));
    drained(&spool, 20);
    uplink.kill();
    // As if ten more had been confirmed that the broker knows nothing of; then five that it was
    // never sent.
    let spool = spool.after_loss("uplink-lost", (10, 5));
    let uplink = Uplink::to(kafka, &spool);
    drained(&spool, 20);
    let doubts = spool.events().doubts.clone();
    assert_eq!(doubts, [Doubt::LostByKafka { from: 10, to: 20 }]);
    uplink.stop();
    assert_eq!(read(kafka, "uplink-lost")[&0].len(), 15);
}
