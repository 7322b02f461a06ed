//! A gateway that starts with a wrong clock, as a board without a battery does.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::buffer::tidegate;
use crate::harness::gateway::binary;
use crate::harness::{Gateway, Kafka, Load, oracle, pause, run, wait};

/// How wrong it is.
const SLOW_MS: i64 = 10 * 86_400_000;
/// Longest wait for anything, seconds: CI has slow cores, and others on them.
const LONG: u64 = 240;

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// A gateway whose wall clock is wrong until it is put right.
struct Board {
    gateway: Gateway,
    /// What libfaketime adds.
    shift: PathBuf,
    /// There once the clock is synchronised.
    sign: PathBuf,
    /// When it was made.
    from_ms: i64,
}

impl Board {
    fn new(kafka: &Kafka, config: &str) -> Self {
        let gateway = Gateway::new(&kafka.bootstrap, config);
        let [shift, sign] = ["shift", "sign"].map(|name| gateway.folder().join(name));
        let text = fs::read_to_string(gateway.config_path()).unwrap();
        let mut config: toml::Table = text.parse().unwrap();
        let file = toml::Value::String(sign.display().to_string());
        let keys = config["gateway"].as_table_mut().unwrap();
        keys.insert("clock_file".into(), file);
        fs::write(gateway.config_path(), config.to_string()).unwrap();
        fs::write(&shift, format!("-{}\n", SLOW_MS / 1_000)).unwrap();
        let from_ms = now_ms();
        let mut board = Self {
            gateway,
            shift,
            sign,
            from_ms,
        };
        board.up();
        board
    }

    /// libfaketime shifts the wall clock and leaves the one that counts from boot alone.
    fn up(&mut self) {
        let library = run(Command::new("dpkg").args(["-L", "libfaketime"]));
        let mut paths = library.lines();
        let library = paths
            .find(|path| path.ends_with("/libfaketime.so.1"))
            .unwrap();
        let mut command = Command::new(binary());
        command
            .env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.shift)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        self.gateway.launch(&mut command);
        self.gateway.wait_ready();
        assert_eq!(self.gateway.metrics().of("clock_synchronised"), 0.0);
    }

    fn put_right(&self) {
        // In one piece: it is read at any time.
        let new = self.shift.with_extension("new");
        fs::write(&new, "+0\n").unwrap();
        fs::rename(&new, &self.shift).unwrap();
        fs::write(&self.sign, "").unwrap();
        let synchronised = |n| n == 1.0;
        self.gateway
            .wait_figure("clock_synchronised", LONG, synchronised);
    }

    /// Every record of a topic has the right time, or is marked; how many of each kind there are:
    /// `tidegate.clock`, and whether `tidegate.timestamp` is there.
    fn judge(&self, kafka: &Kafka, topic: &str) -> BTreeMap<(String, bool), u64> {
        pause(Duration::from_millis(10));
        let (from, until) = (self.from_ms, now_ms());
        let mut kinds: BTreeMap<(String, bool), u64> = BTreeMap::new();
        for (at, clock, own) in records(kafka, topic) {
            *kinds.entry((clock.clone(), own.is_some())).or_default() += 1;
            // Sent before the clock was right: by the wrong one, as nobody knew better.
            let wrong = clock == "unsynchronised";
            let wrong = if wrong { SLOW_MS } else { 0 };
            let within = from - wrong - 2_000..=until - wrong + 2_000;
            assert!(within.contains(&at), "{clock}: {at} is not in {within:?}");
            assert!(own.is_none_or(|own| within.contains(&own)));
        }
        eprintln!("{topic}: records by tidegate.clock, with tidegate.timestamp or not: {kinds:?}");
        kinds
    }

    fn verify(&self, topic: &str) {
        let (code, out, err) = tidegate(&self.gateway, &format!("verify --topic {topic}"));
        assert_eq!(code, 0, "{out}{err}");
    }
}

/// Timestamp and the two headers of each record.
fn records(kafka: &Kafka, topic: &str) -> Vec<(i64, String, Option<i64>)> {
    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-e", "-q", "-b", &kafka.bootstrap, "-t", topic]);
    let text = run(kcat.args(["-f", "%T %h\n"]));
    let record = |line: &str| {
        let (at, headers) = line.split_once(' ').unwrap();
        let of = |name: &str| {
            let mut headers = headers.split(',');
            let header = headers.find_map(|header| header.strip_prefix(name)?.strip_prefix('='));
            header.map(str::to_owned)
        };
        let clock = of("tidegate.clock").unwrap_or_else(|| "none".to_owned());
        let own = of("tidegate.timestamp").map(|own| own.parse().unwrap());
        (at.parse().unwrap(), clock, own)
    };
    text.lines().map(record).collect()
}

fn count(kinds: &BTreeMap<(String, bool), u64>, clock: &str, own: bool) -> u64 {
    kinds.get(&(clock.to_owned(), own)).copied().unwrap_or(0)
}

#[test]
fn what_came_in_by_a_wrong_clock_is_marked_and_put_right() {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("mqtt", 2);
    let mut board = Board::new(&kafka, "");
    let options = format!("--clients 3 --topics 10 --rate 200 --drain {LONG}");
    let load = Load::start(&board.gateway, "clock", &options);
    load.wait_acked(400, LONG);
    kafka.cluster("stop", &["1"]);
    board.gateway.wait_figure("uplink_up", LONG, |up| up == 0.0);
    load.wait_acked(600, LONG);
    // Some of it is left by a dead process of the same boot.
    board.gateway.kill9();
    board.up();
    load.wait_acked(600, LONG);
    let age = board.gateway.metrics().of("buffered_age_seconds");
    board.put_right();
    load.wait_acked(400, LONG);
    // Ten days in one step, and nothing is older for it.
    let later = board.gateway.metrics().of("buffered_age_seconds");
    eprintln!("oldest {age} s, and {later} s by the right clock");
    assert!(age > 0.0 && age <= later && later < 86_400.0);
    kafka.cluster("restart", &["1"]);
    let ledger = load.ledger.clone();
    load.stop();
    board.gateway.wait_drained(LONG);
    oracle::check(&kafka, &[&ledger], "--topic mqtt").expect_clean("wrong clock");
    let kinds = board.judge(&kafka, "mqtt");
    assert!(count(&kinds, "unsynchronised", true) >= 300);
    assert!(count(&kinds, "corrected", false) >= 1_000);
    assert!(count(&kinds, "none", false) >= 300);
    assert_eq!(kinds.len(), 3);
    board.verify("mqtt");
}

#[test]
fn what_kafka_rejects_for_a_wrong_time_waits_for_the_right_one() {
    let kafka = Kafka::start(1, &[]);
    for delivery in ["exactly_once", "at_least_once"] {
        let topic = delivery.replace('_', "-");
        kafka.create_topic_with(&topic, 2, "message.timestamp.before.max.ms=3600000");
        let config =
            format!("[kafka]\ndelivery = \"{delivery}\"\n[proxy]\ndefault_topic = \"{topic}\"\n");
        let board = Board::new(&kafka, &config);
        let options = format!("--clients 3 --topics 10 --rate 100 --drain {LONG}");
        let load = Load::start(&board.gateway, &topic, &options);
        load.wait_acked(300, LONG);
        // The fault has bitten: Kafka was asked, and has taken nothing.
        wait("Kafka rejects", LONG, || {
            let log = fs::read_to_string(board.gateway.log_path()).unwrap();
            log.contains("INVALID_TIMESTAMP").then_some(())
        });
        assert_eq!(board.gateway.metrics().of("sent_total"), 0.0);
        board.put_right();
        load.wait_acked(100, LONG);
        let ledger = load.ledger.clone();
        load.stop();
        board.gateway.wait_drained(LONG);
        assert_eq!(board.gateway.metrics().of("quarantined_total"), 0.0);
        oracle::check(&kafka, &[&ledger], &format!("--topic {topic}")).expect_clean(delivery);
        let kinds = board.judge(&kafka, &topic);
        assert!(count(&kinds, "corrected", false) >= 300);
        assert_eq!(count(&kinds, "unsynchronised", true), 0);
        board.verify(&topic);
    }
}
