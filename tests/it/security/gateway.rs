//! Whole gateways behind TLS and SASL, under a quota, and with brokers that move.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{connections, port};
use crate::harness::{Gateway, Kafka, Load, oracle, pause};

const TOPICS: &str = "[kafka.topic_creation]\npartitions = 4\nreplication_factor = -1\n";

/// `[kafka.tls]`, and SCRAM with the password in a file.
fn secured(kafka: &Kafka, password: &Path) -> String {
    let ca = kafka.file("tls/ca.pem");
    format!(
        "{TOPICS}[kafka.tls]\nca_file = {ca:?}\n[kafka.sasl]\nmechanism = \"SCRAM-SHA-512\"\n\
         username = \"carol\"\npassword = {{ file = {password:?} }}\n"
    )
}

/// The topic of the records, made before the gateway is there: batches that are sent while one that
/// has just been made has no leader yet are repeated, too.
fn with_topic(kafka: Kafka) -> Kafka {
    kafka.create_topic("mqtt", 4);
    kafka
}

#[test]
fn a_gateway_sends_over_tls_and_sasl_while_its_sessions_end() {
    let kafka = with_topic(Kafka::start_secure(1, &[]));
    let password = kafka.file("password");
    fs::write(&password, "carol-secret\n").unwrap();
    let gateway = Gateway::start(&kafka.listener("BRIEF"), &secured(&kafka, &password));
    let load = Load::start(
        &gateway,
        "secured",
        "--clients 20 --topics 100 --seconds 25 --rate 2000 --json --drain 60",
    );
    let ledger = load.ledger.clone();
    let done = load.finish();
    gateway.wait_drained(60);
    let figures = gateway.metrics();
    eprintln!(
        "{:.1} s over SASL_SSL, sessions of 10 s: PUBACK p50 {} ms, p99 {} ms, slowest {} ms; {}",
        done.seconds,
        done.p50_ms,
        done.p99_ms,
        done.max_ms,
        figures.line(&[
            "sent_total",
            "produce_requests_total",
            "produce_batches_repeated_total"
        ])
    );
    oracle::check(&kafka, &[&ledger], "--topic mqtt --headers").expect_clean("over TLS and SASL");
    assert_eq!(
        figures.of("produce_batches_repeated_total"),
        0.0,
        "an answer was lost"
    );
    assert_eq!(done.acked, done.sent);
}

#[test]
fn the_other_engine_sends_over_tls_and_sasl_too() {
    let kafka = Kafka::start_secure(1, &[]);
    let password = kafka.file("password");
    fs::write(&password, "carol-secret\n").unwrap();
    let config = secured(&kafka, &password);
    let config = format!("[kafka]\ndelivery = \"at_least_once\"\n{config}");
    let gateway = Gateway::start(&kafka.listener("SASL_SSL"), &config);
    let arguments = "--clients 10 --topics 40 --count 5000 --json --drain 60";
    let load = Load::start(&gateway, "other", arguments);
    let ledger = load.ledger.clone();
    assert_eq!(load.finish().acked, 5_000);
    gateway.wait_drained(60);
    let verdict = oracle::check(&kafka, &[&ledger], "--topic mqtt --headers");
    verdict.expect_clean("at least once, over TLS and SASL");
}

#[test]
fn a_wrong_password_holds_everything_until_it_is_right() {
    let kafka = Kafka::start_secure(1, &[]);
    let password = kafka.file("password");
    fs::write(&password, "hunter2").unwrap();
    let config = secured(&kafka, &password);
    let mut gateway = Gateway::start(&kafka.listener("SASL_SSL"), &config);
    let arguments = "--clients 5 --topics 20 --seconds 20 --rate 200 --json --drain 60";
    let load = Load::start(&gateway, "locked", arguments);
    let end = Instant::now() + Duration::from_secs(15);
    let mut tries = HashSet::new();
    while Instant::now() < end {
        tries.extend(connections(port(&kafka.listener("SASL_SSL"))));
        pause(Duration::from_millis(20));
    }
    let tries = tries.len();
    let log = fs::read_to_string(gateway.log_path()).unwrap();
    let told = log
        .lines()
        .filter(|line| line.contains("SASL SCRAM-SHA-512: "))
        .count();
    let figures = gateway.metrics();
    eprintln!(
        "15 s with a wrong password: {}, told {told} times, {tries} connections",
        figures.line(&[
            "sent_total",
            "acknowledged_total",
            "buffered_records",
            "uplink_up"
        ])
    );
    assert_eq!(
        (figures.of("sent_total"), figures.of("uplink_up")),
        (0.0, 0.0)
    );
    assert!(
        figures.of("acknowledged_total") >= 2_000.0,
        "devices are not served"
    );
    assert!((1..=3).contains(&told), "{log}");
    assert!((3..=60).contains(&tries), "{tries} tries");
    assert!(!log.contains("hunter2"));

    fs::write(&password, "carol-secret").unwrap();
    let ledger = load.ledger.clone();
    load.finish();
    gateway.wait_drained(60);
    oracle::check(&kafka, &[&ledger], "--topic mqtt").expect_clean("a password made right");
    assert!(gateway.stop().success());
}

#[test]
fn a_quota_slows_and_loses_nothing() {
    let kafka = with_topic(Kafka::start(1, &[]));
    let gateway = Gateway::start(&kafka.bootstrap, TOPICS);
    let quota = ["--alter", "--add-config", "producer_byte_rate=40000"];
    let whose = ["--entity-type", "clients", "--entity-name", "tidegate-it"];
    kafka.tool("configs", &[&quota[..], &whose[..]].concat());
    let load = Load::start(
        &gateway,
        "quota",
        "--clients 10 --topics 50 --seconds 30 --rate 300 --size 600 --drain 120",
    );
    let ledger = load.ledger.clone();
    let done = load.finish();
    let before = gateway.metrics();
    eprintln!(
        "30 s under a quota of 40 kB/s: {} bytes, {}",
        before.of("produce_bytes_total"),
        before.line(&[
            "sent_total",
            "produce_requests_total",
            "buffered_records",
            "produce_throttled_total"
        ])
    );
    // Brokers ask for seconds at a time; what was taken at first counts for eleven of them.
    assert!(
        before.of("produce_throttled_total") >= 3.0 && before.of("buffered_records") >= 3_000.0,
        "the quota did not bite"
    );
    let remove = ["--alter", "--delete-config", "producer_byte_rate"];
    kafka.tool("configs", &[&remove[..], &whose[..]].concat());
    gateway.wait_drained(60);
    let repeated = gateway.metrics().of("produce_batches_repeated_total");
    eprintln!(
        "acknowledged {} of {}, batches repeated {repeated}",
        done.acked, done.sent
    );
    oracle::check(&kafka, &[&ledger], "--topic mqtt").expect_clean("under a quota");
    assert_eq!(repeated, 0.0, "what was throttled is not sent again");
}

/// Each broker goes to another port, one after the other, until none is where the configuration
/// says.
#[test]
fn brokers_that_move_are_followed() {
    let mut kafka = Kafka::start(3, &[]);
    let gateway = Gateway::start(&kafka.bootstrap, TOPICS);
    let load = Load::start(
        &gateway,
        "moving",
        "--clients 10 --topics 50 --rate 500 --json --drain 120",
    );
    load.wait_acked(1_000, 60);
    for node in ["1", "2", "3"] {
        kafka.cluster("move", &[node]);
        let sent = gateway.metrics().of("sent_total");
        gateway.wait_figure("sent_total", 60, |n| n >= sent + 1_000.0);
    }
    let now = fs::read_to_string(kafka.file("bootstrap")).unwrap();
    eprintln!("brokers were at {}, are at {}", kafka.bootstrap, now.trim());
    assert!(kafka.bootstrap.split(',').all(|old| !now.contains(old)));
    let ledger = load.ledger.clone();
    let done = load.stop();
    gateway.wait_drained(60);
    eprintln!("PUBACK p99 {} ms, slowest {} ms", done.p99_ms, done.max_ms);
    kafka.bootstrap = now.trim().to_owned();
    oracle::check(&kafka, &[&ledger], "--topic mqtt").expect_clean("moved");
}

#[test]
fn check_tells_files_that_are_missing_or_no_pem() {
    let folder = tempfile::tempdir().unwrap();
    let no_pem = folder.path().join("no.pem");
    fs::write(&no_pem, "hello").unwrap();
    let config = format!(
        "[kafka.tls]\nca_file = {no_pem:?}\n[kafka.sasl]\nmechanism = \"PLAIN\"\n\
         username = \"a\"\npassword = {{ file = \"/nowhere/password\" }}\n"
    );
    let gateway = Gateway::new("127.0.0.1:9092", &config);
    let check = std::process::Command::new(crate::harness::gateway::binary())
        .args(["check", "--config"])
        .arg(gateway.config_path())
        .output()
        .unwrap();
    let told = String::from_utf8(check.stderr).unwrap();
    eprintln!("{told}");
    assert_eq!(check.status.code(), Some(1));
    assert!(
        told.contains("kafka.tls.ca_file: ")
            && told.contains("no.pem holds no PEM of certificates"),
        "{told}"
    );
    assert!(
        told.contains("kafka.sasl.password: cannot read /nowhere/password"),
        "{told}"
    );
}
