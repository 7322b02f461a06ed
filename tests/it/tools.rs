//! The tools of these tests: a test that cannot fail proves nothing.

use crate::harness::{Kafka, oracle};

#[test]
fn a_broker_dies_comes_back_and_is_cut_off() {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("tools", 3);
    kafka.cluster("kill", &["1"]);
    kafka.cluster("restart", &["1"]);
    assert!(kafka.tool("topics", &["--list"]).contains("tools"));
    assert!(kafka.answers());
    kafka.cluster("cut", &["drop"]);
    assert!(!kafka.answers());
    kafka.cluster("heal", &[]);
    assert!(kafka.answers());
}

#[test]
fn the_oracle_finds_what_was_planted() {
    let kafka = Kafka::shared();
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("ledger");
    for (topic, faults) in [("sound", 0), ("faulty", 17)] {
        kafka.create_topic(topic, 5);
        let place = format!("--topic {topic} --partitions 5 --faults {faults}");
        oracle::plant(kafka, &ledger, &place);
        let arguments = format!("--topic {topic} --headers --partitions-like-java");
        let verdict = oracle::check(kafka, &[&ledger], &arguments);
        eprintln!("{faults} faults of each kind: {verdict}");
        let found = (verdict.missing, verdict.unknown, verdict.altered);
        assert_eq!(found, (faults, faults, faults));
        assert_eq!((verdict.out_of_order, verdict.twice), (faults, faults));
        assert_eq!(verdict.records, 10_000 + faults);
    }
}

#[test]
fn the_oracle_subtracts_what_the_gateway_explains_and_no_more() {
    let kafka = Kafka::shared();
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("ledger");
    kafka.create_topic("explained", 2);
    oracle::plant(
        kafka,
        &ledger,
        "--topic explained --partitions 2 --faults 9",
    );
    let verdict = oracle::check(kafka, &[&ledger], "--topic explained --explained 5");
    assert_eq!((verdict.missing, verdict.explained), (4, 5));
}
