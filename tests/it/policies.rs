//! What the gateway gives up on purpose, and the folder it can do without: the loss ledger explains
//! exactly what is missing, and the rest is in order.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::{Gateway, Kafka, Load, oracle, pause};

#[test]
fn what_expired_in_the_middle_of_a_stream_is_exactly_what_is_missing() {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("aging", 2);
    let config = "[[proxy.route]]\nmqtt = \"aging/#rest\"\ntopic = \"aging\"\nttl_ms = 4000";
    let gateway = Gateway::start(&kafka.bootstrap, config);
    let load = Load::start(&gateway, "aging", "--clients 5 --topics 20 --rate 400");
    load.wait_acked(1_000, 60);
    kafka.cluster("stop", &["1"]);
    // The stream's middle grows old while its beginning is in Kafka and its end is still young.
    // What has expired is dropped when its turn comes to be sent.
    pause(Duration::from_secs(12));
    kafka.cluster("restart", &["1"]);
    gateway.wait_figure("dropped_total{reason=\"expired\"}", 60, |n| n >= 1_000.0);
    load.wait_acked(1_000, 60);
    settle(&kafka, &gateway, load, "--topic aging", "expired");
}

#[test]
fn what_a_full_disk_drops_is_exactly_what_is_missing() {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("mqtt", 2);
    let config = "[spool]\non_full = \"drop_oldest\"\nmax_bytes = \"8MiB\"\n\
                  segment_bytes = \"1MiB\"\n[proxy]\nmax_packet_bytes = \"16KiB\"";
    let gateway = Gateway::start(&kafka.bootstrap, config);
    let load = Load::start(
        &gateway,
        "full",
        "--clients 5 --topics 20 --rate 1500 --size 1000",
    );
    load.wait_acked(1_000, 60);
    kafka.cluster("stop", &["1"]);
    gateway.wait_figure("dropped_total{reason=\"full\"}", 60, |n| n >= 5_000.0);
    kafka.cluster("restart", &["1"]);
    load.wait_acked(1_000, 60);
    settle(&kafka, &gateway, load, "--topic mqtt", "full");
}

/// Ends the load and compares what is missing with what the ledger says, both ways.
fn settle(kafka: &Kafka, gateway: &Gateway, load: Load, topics: &str, reason: &str) {
    let ledger = load.ledger.clone();
    let done = load.stop();
    assert_eq!((done.acked, done.repeated), (done.sent, 0));
    gateway.wait_drained(60);
    let arguments = format!("{topics} --metrics {}", gateway.metrics_url());
    let verdict = oracle::check(kafka, &[&ledger], &arguments);
    verdict.expect_clean(reason);
    assert!(verdict.explained >= 1_000, "the fault did not bite");
    assert_eq!(
        verdict.ledger, verdict.explained,
        "in the ledger, but not missing"
    );
}

#[test]
fn a_full_disk_refuses_and_nothing_is_lost() {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("mqtt", 2);
    let config = "[spool]\nmax_bytes = \"8MiB\"\nsegment_bytes = \"1MiB\"\n\
                  [proxy]\nmax_packet_bytes = \"16KiB\"";
    let gateway = Gateway::start(&kafka.bootstrap, config);
    let load = Load::start(
        &gateway,
        "refuse",
        "--clients 5 --topics 20 --rate 2000 --size 1000",
    );
    load.wait_acked(1_000, 60);
    kafka.cluster("stop", &["1"]);
    gateway.wait_figure("spool_full", 60, |full| full == 1.0);
    let held = load.now().acked;
    pause(Duration::from_secs(3));
    let after = load.now().acked;
    eprintln!("full: {} messages more acknowledged in 3 s", after - held);
    kafka.cluster("restart", &["1"]);
    load.wait_acked(2_000, 60);
    let ledger = load.ledger.clone();
    let done = load.stop();
    assert_eq!((done.acked, done.repeated), (done.sent, 0));
    gateway.wait_drained(60);
    oracle::check(&kafka, &[&ledger], "--topic mqtt").expect_clean("full and refused");
}

#[test]
fn without_its_index_the_gateway_finds_everything_in_the_segments() {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("mqtt", 3);
    let mut gateway = Gateway::start(&kafka.bootstrap, "");
    let load = Load::start(
        &gateway,
        "index",
        "--clients 10 --topics 30 --rate 1000 --json",
    );
    load.wait_acked(1_000, 60);
    kafka.cluster("stop", &["1"]);
    gateway.wait_figure("buffered_records", 60, |n| n >= 5_000.0);
    let ledger = load.ledger.clone();
    let done = load.stop();
    assert_eq!(done.acked, done.sent);
    gateway.kill9();
    let index = sled_folder(&gateway.data_dir()).unwrap();
    fs::remove_dir_all(&index).unwrap();
    gateway.up();
    let found = gateway.metrics().of("buffered_records");
    eprintln!(
        "{} deleted, {found} records found in segments",
        index.display()
    );
    assert!(found >= 5_000.0, "there was no backlog");
    kafka.cluster("restart", &["1"]);
    gateway.wait_drained(60);
    let maybe_twice = gateway.metrics().of("maybe_twice_total");
    let verdict = oracle::check(&kafka, &[&ledger], "--topic mqtt");
    verdict.expect_counted("index deleted", maybe_twice);
}

/// The folder in which sled keeps its files.
fn sled_folder(folder: &Path) -> Option<PathBuf> {
    if folder.join("db").is_file() && folder.join("conf").is_file() {
        return Some(folder.to_owned());
    }
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.is_dir())
        .find_map(|path| sled_folder(&path))
}
