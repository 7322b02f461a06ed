//! What its own topic cannot take goes to the dead letter topic: the records of a topic that is
//! gone or never was, and what is too large.

use std::process::Command;

use crate::harness::{Gateway, Kafka, Load, oracle, run, wait};

const CONFIG: &str = r##"
[kafka]
dead_letter_topic = "dead"
dead_letter_after_ms = 3000
[[proxy.route]]
mqtt = "well/#rest"
topic = "well"
[[proxy.route]]
mqtt = "never/#rest"
topic = "never"
[[proxy.route]]
mqtt = "#rest"
topic = "sick"
"##;
const LOAD: &str = "--clients 4 --topics 20 --rate 250 --size 200 --drain 60";

fn start() -> (Kafka, Gateway) {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topics(["sick", "well", "dead"], 3);
    let gateway = Gateway::start(&kafka.bootstrap, CONFIG);
    (kafka, gateway)
}

#[test]
fn records_of_a_topic_that_is_gone_go_to_the_dead_letter_topic() {
    let (kafka, gateway) = start();
    // The topic's count is known before it goes.
    let before = "--clients 1 --topics 9 --rate 100 --count 200";
    Load::start(&gateway, "before", before).finish();
    gateway.wait_drained(30);
    kafka.tool("topics", &["--delete", "--topic", "sick"]);

    let sick = Load::start(&gateway, "sick", LOAD);
    let never = Load::start(&gateway, "never", LOAD);
    let well = Load::start(&gateway, "well", LOAD);
    gateway.wait_figure("streams_stalled", 60, |n| n >= 1.0);
    let moved = gateway.wait_figure("dead_lettered_total", 60, |n| n >= 1_000.0);
    let [sick, never, well] = [sick, never, well].map(|load| {
        let ledger = load.ledger.clone();
        let done = load.stop();
        assert_eq!(done.acked, done.sent);
        ledger
    });
    gateway.wait_drained(60);
    let figures = gateway.metrics();
    let names = ["dead_lettered_total", "quarantined_total", "sent_total"];
    eprintln!("{moved} while they flowed; {}", figures.line(&names));
    assert_eq!(figures.of("quarantined_total"), 0.0);
    oracle::check(&kafka, &[&sick, &never], "--topic dead").expect_clean("dead");
    oracle::check(&kafka, &[&well], "--topic well").expect_clean("well");
    let headers = printed(&kafka, "dead", "%h\n");
    for topic in [
        "sick,__connect.errors.partition=",
        "never,__connect.errors.exception",
    ] {
        let wanted = format!("__connect.errors.topic={topic}");
        assert!(headers.contains(&wanted), "no {wanted}");
    }
    assert!(headers.contains("UNKNOWN_TOPIC_OR_PARTITION (3)"));

    // It is there again, and takes its records itself.
    kafka.create_topic("sick", 3);
    let again = Load::start(&gateway, "again", LOAD);
    again.wait_acked(500, 60);
    // No stream is stalled between two that were emptied either: each partition has got some.
    wait("records in all partitions", 60, || {
        let numbers = printed(&kafka, "sick", "%p\n");
        (0..3)
            .all(|number| numbers.lines().any(|line| line == number.to_string()))
            .then_some(())
    });
    gateway.wait_figure("streams_stalled", 60, |n| n == 0.0);
    let moved = gateway.metrics().of("dead_lettered_total");
    let ledger = again.ledger.clone();
    again.wait_acked(500, 60);
    again.stop();
    gateway.wait_drained(60);
    assert_eq!(gateway.metrics().of("dead_lettered_total"), moved);
    // What came before it was found again may be on the other topic.
    let all = [sick.as_path(), &never, &ledger];
    let verdict = oracle::check(&kafka, &all, "--pattern sick|dead");
    eprintln!("again: {verdict}");
    assert_eq!((verdict.missing, verdict.unknown, verdict.twice), (0, 0, 0));
}

#[test]
fn what_is_too_large_goes_to_the_dead_letter_topic() {
    let (kafka, gateway) = start();
    let small = Load::start(&gateway, "small", LOAD);
    small.wait_acked(300, 60);
    // The gateway knows the larger bound, so only Kafka can say no.
    let lower =
        "--alter --entity-type topics --entity-name sick --add-config max.message.bytes=2000";
    kafka.tool("configs", &lower.split(' ').collect::<Vec<_>>());
    let large = "--clients 1 --topics 4 --rate 5 --size 9000 --count 20 --drain 60";
    let large = Load::start(&gateway, "large", large);
    let aside = large.ledger.clone();
    let done = large.finish();
    assert_eq!((done.acked, done.sent), (20, 20));
    gateway.wait_figure("dead_lettered_total", 60, |n| n == 20.0);
    small.wait_acked(300, 60);
    let ledger = small.ledger.clone();
    small.stop();
    gateway.wait_drained(60);
    assert_eq!(gateway.metrics().of("quarantined_total"), 0.0);
    oracle::check(&kafka, &[&aside], "--topic dead").expect_clean("too large");
    oracle::check(&kafka, &[&ledger], "--topic sick").expect_clean("small");
}

/// What kcat prints of a topic's records.
fn printed(kafka: &Kafka, topic: &str, format: &str) -> String {
    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-e", "-q", "-b", &kafka.bootstrap]);
    run(kcat.args(["-t", topic, "-f", format]))
}
