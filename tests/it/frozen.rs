//! The late request of a dead run (DESIGN.md 2.2, rule 1): Kafka is frozen with a request in its
//! socket, the gateway is killed and started anew, the same devices send batches of the same size,
//! Kafka thaws and takes the late request first.
//!
//! With the same producer epoch, sequence and count the broker would answer "duplicate, success"
//! for the new batch, and an acknowledged record would be nowhere.

use std::time::Duration;

use crate::harness::{Gateway, Kafka, Load, oracle, pause};

const ROUNDS: usize = 6;

#[test]
fn a_late_request_of_a_dead_run_is_never_taken_for_a_new_record() {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("late", 1);
    // Even rounds kill before the records are spilled, so that nothing but the socket holds them.
    let config = "[spool]\nspill_after_ms = 3000\n[proxy]\ndefault_topic = \"late\"";
    let mut gateway = Gateway::start(&kafka.bootstrap, config);
    // Window 1 and ten clients: every batch while Kafka stands still has the same ten messages.
    let load = Load::start(
        &gateway,
        "late",
        "--clients 10 --topics 10 --window 1 --size 100",
    );
    load.wait_acked(100, 60);
    for round in 0..ROUNDS {
        gateway.wait_figure("sent_total", 60, |n| n >= 50.0);
        // What the outage before has left on disk is drained: what is written from now on is new.
        gateway.wait_figure("buffered_disk_bytes", 60, |n| n == 0.0);
        let written = gateway.metrics().of("disk_written_records_total");
        kafka.cluster("pause", &["1"]);
        if round % 2 == 0 {
            pause(Duration::from_millis(500));
        } else {
            gateway.wait_figure("disk_written_records_total", 60, |n| n >= written + 10.0);
        }
        let figures = gateway.metrics();
        eprintln!(
            "{}",
            figures.line(&["buffered_records", "disk_written_records_total"])
        );
        assert!(
            figures.of("buffered_records") >= 1.0,
            "nothing was in flight"
        );
        gateway.kill9();
        gateway.up();
        gateway.wait_figure("received_total", 60, |n| n >= 10.0);
        pause(Duration::from_millis(500));
        kafka.cluster("cont", &["1"]);
    }
    let ledger = load.ledger.clone();
    let done = load.stop();
    assert_eq!(done.acked, done.sent);
    gateway.wait_drained(60);
    let verdict = oracle::check(&kafka, &[&ledger], "--topic late");
    verdict.expect_clean("late requests");
    // A repeat by the sender and its first attempt, both in Kafka: the late request did arrive.
    assert!(verdict.repeats >= 1, "no late request was taken");
}
