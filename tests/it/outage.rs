//! Kafka away for a minute, and Kafka that holds its connections and says nothing: devices are
//! acknowledged all the while, and afterwards nothing is missing, twice or out of order.

use std::time::Duration;

use crate::harness::{Gateway, Kafka, Load, oracle, pause};

const CONFIG: &str = r#"
[kafka.topic_creation]
partitions = 4
replication_factor = 1
"#;
/// Longest time without any acknowledgement, of devices that send a thousand messages a second.
const SILENCE_SECONDS_MAX: f64 = 4.0;

#[test]
fn sixty_seconds_stopped_and_thirty_frozen_are_not_seen_by_devices() {
    let kafka = Kafka::start(1, &[]);
    let gateway = Gateway::start(&kafka.bootstrap, CONFIG);
    let load = Load::start(
        &gateway,
        "outage",
        "--clients 20 --topics 100 --rate 1000 --json --drain 120",
    );
    load.wait_acked(2_000, 60);

    kafka.cluster("stop", &["1"]);
    away(&gateway, "stopped", 60);
    kafka.cluster("restart", &["1"]);
    gateway.wait_figure("sent_total", 60, |n| n >= 60_000.0);
    kafka.cluster("pause", &["1"]);
    away(&gateway, "frozen", 30);
    kafka.cluster("cont", &["1"]);
    load.wait_acked(2_000, 60);

    let silence = longest_silence(&load);
    let ledger = load.ledger.clone();
    let done = load.stop();
    eprintln!(
        "longest silence {silence:.1} s; PUBACK p50 {} ms, p99 {} ms, slowest {} ms",
        done.p50_ms, done.p99_ms, done.max_ms
    );
    assert!(silence <= SILENCE_SECONDS_MAX);
    assert_eq!((done.acked, done.repeated), (done.sent, 0));
    gateway.wait_drained(120);
    oracle::check(&kafka, &[&ledger], "--topic mqtt").expect_clean("stopped and frozen");
}

/// Lets the outage last, and proves that it was one: nothing was confirmed, much was buffered.
fn away(gateway: &Gateway, how: &str, seconds: u64) {
    pause(Duration::from_secs(5));
    let before = gateway.metrics().of("sent_total");
    pause(Duration::from_secs(seconds - 5));
    let after = gateway.metrics();
    eprintln!(
        "{how} {seconds} s: {}",
        after.line(&["buffered_records", "buffered_disk_bytes"])
    );
    assert!(after.of("sent_total") <= before, "Kafka was not away");
    assert!(after.of("buffered_records") >= 500.0 * f64::from(u32::try_from(seconds).unwrap()));
}

/// Seconds between two reports in which the number of acknowledged messages differs.
fn longest_silence(load: &Load) -> f64 {
    let mut last = (0.0, 0);
    let mut longest = 0.0_f64;
    for report in load.history() {
        if report.acked > last.1 {
            longest = longest.max(report.seconds - last.0);
            last = (report.seconds, report.acked);
        }
    }
    longest
}
