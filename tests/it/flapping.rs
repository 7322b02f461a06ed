//! A link that is up for one second in five: what is sent for nothing stays below what arrives.

use std::time::{Duration, Instant};

use crate::harness::{Gateway, Kafka, Load, oracle, pause};

const LASTS: Duration = Duration::from_secs(120);
const UP: Duration = Duration::from_secs(1);
const DOWN: Duration = Duration::from_secs(4);

#[test]
fn a_link_that_flaps_loses_nothing_and_wastes_little() {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("mqtt", 6);
    let gateway = Gateway::start(&kafka.bootstrap, "");
    let load = Load::start(
        &gateway,
        "flapping",
        "--clients 10 --topics 60 --rate 600 --json --processes 1 --drain 120",
    );
    load.wait_acked(1_000, 60);
    let begin = Instant::now();
    let (mut flaps, mut through) = (0, 0);
    while begin.elapsed() < LASTS {
        let before = gateway.metrics().of("sent_total");
        kafka.cluster("cut", &["drop"]);
        pause(DOWN);
        kafka.cluster("heal", &[]);
        pause(UP);
        flaps += 1;
        through += u32::from(gateway.metrics().of("sent_total") > before);
    }
    let waiting = gateway.metrics().of("buffered_records");
    let ledger = load.ledger.clone();
    let done = load.stop();
    assert_eq!((done.acked, done.repeated), (done.sent, 0));
    gateway.wait_drained(120);
    let figures = gateway.metrics();
    let sent = figures.of("produce_bytes_total");
    let arrived = kafka.log_bytes("mqtt");
    eprintln!(
        "{flaps} flaps, in {through} something went through, {waiting} records waited in the end: \
         {sent} bytes of batches sent, {arrived} in Kafka's log: {:.2} times; {}",
        sent / arrived,
        figures.line(&[
            "produce_batches_total",
            "produce_batches_repeated_total",
            "produce_batches_already_there_total",
        ])
    );
    assert!(flaps >= 20, "the link did not flap");
    assert!(
        figures.of("produce_batches_repeated_total") > 0.0,
        "nothing was sent for nothing"
    );
    oracle::check(&kafka, &[&ledger], "--topic mqtt").expect_clean("a flapping link");
    assert!(sent <= 2.0 * arrived, "more was wasted than arrived");
}
