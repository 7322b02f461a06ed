//! The engine that repeats: nothing is lost or overtakes, and what is twice was counted.

use std::time::Duration;

use crate::harness::{Gateway, Kafka, Load, oracle, pause, wait};

const CONFIG: &str = r#"
[kafka]
delivery = "at_least_once"
[kafka.topic_creation]
partitions = 4
replication_factor = 1
[[proxy.route]]
mqtt = "least/+group/#rest"
topic = "least-{group}"
"#;
/// Records that wait for Kafka's answer when the gateway is killed.
const ON_THEIR_WAY: f64 = 10.0;

/// Some figures, summed over the lives of a gateway.
#[derive(Debug, Default)]
struct Sums {
    buffered: f64,
    repeated: f64,
    maybe_twice: f64,
}

impl Sums {
    fn add(&mut self, gateway: &Gateway) {
        let at = gateway.metrics();
        self.buffered += at.of("buffered_records");
        self.repeated += at.of("produce_batches_repeated_total");
        self.maybe_twice += at.of("maybe_twice_total");
    }
}

#[test]
fn the_other_engine_takes_the_same_road() {
    let kafka = Kafka::shared();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let prefix = format!("codec-{codec}");
        let config = CONFIG
            .replace("least/", &format!("{prefix}/"))
            .replace("least-", &format!("{prefix}-"))
            .replace("[kafka]", &format!("[kafka]\ncompression = \"{codec}\""));
        let gateway = Gateway::start(&kafka.bootstrap, &config);
        let load = format!("--clients 10 --topics 40 --groups 3 --count 2000 --prefix {prefix}");
        let load = Load::start(&gateway, codec, &load);
        let ledger = load.ledger.clone();
        assert_eq!(load.finish().acked, 2_000);
        gateway.wait_drained(60);
        let arguments = format!("--pattern {prefix}-.* --headers --partitions-like-java");
        let verdict = oracle::check(kafka, &[&ledger], &arguments);
        verdict.expect_clean(codec);
        assert_eq!(verdict.records, 2_000);
    }
}

#[test]
fn kills_a_dead_and_a_frozen_kafka_lose_and_reorder_nothing() {
    let kafka = Kafka::start(1, &[]);
    let mut gateway = Gateway::start(&kafka.bootstrap, CONFIG);
    let load = Load::start(
        &gateway,
        "least",
        "--clients 20 --topics 100 --groups 3 --rate 3000 --window 40 --size 150 --drain 120",
    );
    load.wait_acked(1_000, 60);
    let mut sums = Sums::default();
    // In the flow, and with Kafka frozen: what a fast one leaves on its way is little.
    for round in 0..5 {
        gateway.wait_figure("sent_total", 60, |n| n >= 200.0);
        let frozen = round % 2 == 1;
        if frozen {
            kafka.cluster("pause", &["1"]);
        }
        let waiting = if frozen { 200.0 } else { ON_THEIR_WAY };
        gateway.wait_figure("buffered_records", 60, |n| n >= waiting);
        sums.add(&gateway);
        gateway.kill9();
        if frozen {
            kafka.cluster("cont", &["1"]);
        }
        gateway.up();
    }
    for _ in 0..3 {
        gateway.wait_figure("sent_total", 60, |n| n >= 200.0);
        kafka.cluster("kill", &["1"]);
        load.wait_acked(3_000, 60);
        kafka.cluster("restart", &["1"]);
    }
    gateway.wait_figure("sent_total", 60, |n| n >= 2_000.0);
    // Longer than the engine's deadline: what was out goes again, and Kafka has both.
    kafka.cluster("pause", &["1"]);
    pause(Duration::from_secs(40));
    let frozen = gateway.metrics().of("maybe_twice_total");
    kafka.cluster("cont", &["1"]);
    load.wait_acked(1_000, 60);

    let ledger = load.ledger.clone();
    let done = load.stop();
    assert_eq!(done.acked, done.sent);
    gateway.wait_drained(120);
    sums.add(&gateway);
    let verdict = oracle::check(&kafka, &[&ledger], "--pattern least-.*");
    eprintln!("{sums:.0?}");
    assert!(
        sums.buffered >= 400.0 && frozen > 0.0,
        "the fault did not bite"
    );
    verdict.expect_counted("at least once", sums.maybe_twice);
}

#[test]
fn delivery_is_switched_both_ways_with_a_backlog() {
    let kafka = Kafka::start(1, &[]);
    let mut gateway = Gateway::start(&kafka.bootstrap, CONFIG);
    let load = Load::start(
        &gateway,
        "least",
        "--clients 10 --topics 50 --groups 2 --rate 1000 --drain 120",
    );
    let mut sums = Sums::default();
    for (from, to) in [
        ("at_least_once", "exactly_once"),
        ("exactly_once", "at_least_once"),
        ("at_least_once", "exactly_once"),
    ] {
        gateway.wait_figure("sent_total", 60, |n| n >= 1_000.0);
        kafka.cluster("kill", &["1"]);
        load.wait_acked(2_000, 60);
        wait("a backlog on disk", 30, || {
            (gateway.metrics().of("buffered_disk_bytes") > 0.0).then_some(())
        });
        sums.add(&gateway);
        gateway.kill9();
        let config = std::fs::read_to_string(gateway.config_path()).unwrap();
        assert!(config.contains(from));
        std::fs::write(gateway.config_path(), config.replace(from, to)).unwrap();
        gateway.up();
        kafka.cluster("restart", &["1"]);
    }
    let ledger = load.ledger.clone();
    let done = load.stop();
    assert_eq!(done.acked, done.sent);
    gateway.wait_drained(120);
    sums.add(&gateway);
    let verdict = oracle::check(&kafka, &[&ledger], "--pattern least-.*");
    eprintln!("{sums:.0?}");
    assert!(sums.buffered >= 3_000.0, "the fault did not bite");
    verdict.expect_counted("switched three times", sums.maybe_twice);
}
