//! `tidegate buffer` and `tidegate status` on the real gateway, on and off: what they show is what
//! is there, and looking changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::gateway::binary;
use crate::harness::{Gateway, Kafka, Load, oracle, pause, wait};

/// Small segments, so that a backlog fills some.
pub const SMALL: &str = "[spool]\nmax_bytes = \"64MiB\"\nsegment_bytes = \"256KiB\"\n\
                         [proxy]\nmax_packet_bytes = \"16KiB\"";

/// Exit code, stdout, stderr of `tidegate WORDS --config …`.
pub fn tidegate(gateway: &Gateway, words: &str) -> (i32, String, String) {
    let output = Command::new(binary())
        .args(words.split_whitespace())
        .arg("--config")
        .arg(gateway.config_path())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

/// What a command prints, when it ends with 0.
pub fn told(gateway: &Gateway, words: &str) -> String {
    let (code, out, err) = tidegate(gateway, words);
    assert_eq!((code, err.as_str()), (0, ""), "{words}: {out}");
    out
}

pub fn json(gateway: &Gateway, words: &str) -> Value {
    serde_json::from_str(&told(gateway, words)).unwrap()
}

/// Every file below a folder, with its bytes.
fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(content(&path));
        } else {
            all.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    all
}

/// A gateway with a backlog on disk, Kafka stopped.
fn outage(name: &str, topics: &str) -> (Kafka, Gateway, u64) {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("mqtt", 2);
    let gateway = Gateway::start(&kafka.bootstrap, SMALL);
    let load = Load::start(&gateway, name, topics);
    load.wait_acked(500, 60);
    kafka.cluster("stop", &["1"]);
    gateway.wait_figure("uplink_up", 30, |up| up == 0.0);
    load.wait_acked(3_000, 60);
    let done = load.stop();
    assert_eq!(done.acked, done.sent);
    let left = gateway.metrics().of("buffered_records");
    (kafka, gateway, whole(left))
}

fn whole(figure: f64) -> u64 {
    format!("{figure:.0}").parse().unwrap()
}

/// Values of dumped records.
fn dumped(gateway: &Gateway, words: &str) -> Vec<Value> {
    let lines = told(gateway, words);
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn places(records: &[Value]) -> BTreeSet<(i64, i64, i64)> {
    let number = |record: &Value, name: &str| record[name].as_i64().unwrap();
    let place = |r: &Value| (number(r, "partition"), number(r, "run"), number(r, "seq"));
    records.iter().map(place).collect()
}

#[test]
fn what_waits_is_shown_by_a_running_and_by_a_stopped_gateway() {
    let (_kafka, mut gateway, left) = outage("waits", "--clients 5 --topics 20 --rate 1000 --json");
    assert!(left >= 3_000, "there was no backlog");
    let mut shown = Vec::new();
    for state in ["running", "stopped"] {
        if state == "stopped" {
            assert!(gateway.stop().success());
        }
        let before = (state == "stopped").then(|| content(&gateway.data_dir()));
        let streams = json(&gateway, "buffer ls --json");
        let streams = streams.as_array().unwrap();
        let records: u64 = streams.iter().map(|s| s["records"].as_u64().unwrap()).sum();
        let text = told(&gateway, "buffer ls");
        let dump = dumped(&gateway, "buffer dump");
        let one = dumped(&gateway, "buffer dump --stream mqtt/1");
        let ranges = json(&gateway, "buffer show mqtt/1 --json");
        let ranges = ranges["ranges"].as_array().unwrap().clone();
        let count = |r: &Value| r["end"].as_u64().unwrap() - r["first"].as_u64().unwrap();
        let in_ranges: u64 = ranges.iter().map(count).sum();
        let checked = json(&gateway, "buffer check --json");
        eprintln!(
            "{state}: {left} left by /metrics, {records} by ls, {} dumped; mqtt/1: {} dumped, \
             {in_ranges} in {} ranges; {checked}\n{text}",
            dump.len(),
            one.len(),
            ranges.len()
        );
        assert_eq!((records, dump.len() as u64), (left, left));
        assert_eq!(places(&dump).len(), dump.len(), "records were dumped twice");
        let in_one = dump.iter().filter(|record| record["partition"] == 1);
        assert_eq!((in_one.count(), in_ranges), (one.len(), one.len() as u64));
        assert_eq!(checked["damage"], Value::Array(Vec::new()));
        assert!(checked["records"].as_u64().unwrap() >= left);
        let record = &one[0];
        assert!(record["key"].as_str().unwrap().starts_with("waits/"));
        assert!(
            record["value"]
                .as_str()
                .unwrap()
                .contains("\"dev\":\"waits-")
        );
        assert_eq!(record["headers"][0]["name"], "mqtt.message.id");
        shown.push(places(&dump));
        if let Some(before) = before {
            assert!(
                before == content(&gateway.data_dir()),
                "looking has changed files"
            );
        }
    }
    assert!(shown[0] == shown[1]);
    let (code, out, _) = tidegate(&gateway, "status");
    assert_eq!(code, 1);
    assert_eq!(
        out.trim(),
        format!("no gateway runs; {} records wait on disk", thousands(left))
    );
}

fn thousands(number: u64) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", number / 1_000, number % 1_000),
    }
}

#[test]
fn check_names_exactly_what_a_flipped_bit_has_cost() {
    let (_kafka, mut gateway, left) = outage("flip", "--clients 5 --topics 20 --rate 1000");
    assert!(gateway.stop().success());
    assert_eq!(tidegate(&gateway, "buffer check").0, 0);
    let whole = dumped(&gateway, "buffer dump");
    // A byte in the body of some frame: behind the frame's start by more than header and directory.
    let segment = gateway.data_dir().join("spool/segments/00000002.seg");
    let bytes = fs::read(&segment).unwrap();
    let frames = (0..bytes.len() - 4).filter(|at| bytes[*at..].starts_with(b"TGFG"));
    let at = frames.skip(3).find(|at| at % 8 == 0).unwrap() + 1_500;
    let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&[bytes[at] ^ 4], at as u64).unwrap();
    let (code, text, _) = tidegate(&gateway, "buffer check");
    let (_, checked, _) = tidegate(&gateway, "buffer check --json");
    let checked: Value = serde_json::from_str(&checked).unwrap();
    eprintln!("of {left} records:\n{text}");
    assert_eq!((code, checked["damage"].as_array().unwrap().len()), (1, 1));
    assert_eq!(checked["damage"][0]["exact"], true);
    let lost = checked["lost"].as_u64().unwrap();
    let still = places(&dumped(&gateway, "buffer dump"));
    let gone: BTreeSet<_> = places(&whole).difference(&still).copied().collect();
    assert!(
        lost > 0 && gone.len() as u64 == lost,
        "{} are gone",
        gone.len()
    );
    let named = checked["damage"][0]["ranges"].as_array().unwrap();
    for (partition, run, seq) in gone {
        let holds = |r: &&Value| {
            let mut parts = r["lost"].as_array().unwrap().iter();
            r["partition"] == partition
                && r["run"] == run
                && parts.any(|part| {
                    (part[0].as_i64().unwrap()..part[1].as_i64().unwrap()).contains(&seq)
                })
        };
        assert_eq!(named.iter().filter(holds).count(), 1, "{run}:{seq}");
    }
}

#[test]
fn the_runway_and_the_drain_are_foretold_and_a_silent_death_of_kafka_is_seen() {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("mqtt", 2);
    let gateway = Gateway::start(&kafka.bootstrap, SMALL);
    gateway.wait_figure("uplink_up", 30, |up| up == 1.0);
    let status = json(&gateway, "status --json");
    assert_eq!(
        (&status["uplink_up"], &status["buffered_records"]),
        (&true.into(), &0.into())
    );
    // Nothing is sent while Kafka dies.
    kafka.cluster("kill", &["1"]);
    gateway.wait_figure("uplink_up", 20, |up| up == 0.0);
    let load = Load::start(
        &gateway,
        "runway",
        "--clients 5 --topics 20 --rate 1000 --size 300",
    );
    load.wait_acked(20_000, 60);
    gateway.wait_figure("runway_seconds", 30, |s| s.is_finite() && s > 0.0);
    let text = told(&gateway, "status");
    eprintln!("{text}");
    assert!(text.contains("kafka       does not answer"));
    assert!(text.contains("without Kafka, at this rate ("), "{text}");
    let foretold = json(&gateway, "status --json")["runway"].clone();
    let of = |name: &str| foretold[name].as_f64().unwrap();
    let lasts = of("room_bytes") / of("inflow_disk_bytes_per_second");
    assert!(
        (lasts / of("runway_seconds") - 1.0).abs() < 0.01,
        "{foretold}"
    );
    let each = of("inflow_disk_bytes_per_second") / of("inflow_records_per_second");
    let (room, at) = (gateway.metrics().of("room_bytes"), load.now().acked);
    pause(Duration::from_secs(8));
    let (less, later) = (gateway.metrics().of("room_bytes"), load.now().acked);
    let found = (room - less) / f64::from(u32::try_from(later - at).unwrap());
    eprintln!("{each:.0} bytes a record foretold, {found:.0} taken: lasts {lasts:.0} s");
    assert!((0.6..1.6).contains(&(each / found)));
    assert_eq!(gateway.metrics().of("drain_seconds"), f64::INFINITY);
    kafka.cluster("restart", &["1"]);
    load.stop();
    let drained = wait("the backlog has drained", 120, || {
        let status = json(&gateway, "status --json");
        let seconds = &status["runway"]["drain_seconds"];
        (status["buffered_records"] == 0 && seconds == 0.0).then_some(status)
    });
    assert_eq!(drained["uplink_up"], true);
}

/// A range in the middle of what waits of a stream: its name and how many records it has.
fn middle(gateway: &Gateway, stream: &str) -> (String, u64) {
    let shown = json(gateway, &format!("buffer show {stream} --json"));
    let ranges = shown["ranges"].as_array().unwrap();
    let length = |r: &Value| r["end"].as_u64().unwrap() - r["first"].as_u64().unwrap();
    let longest = ranges.iter().max_by_key(|range| length(range)).unwrap();
    let (run, first) = (&longest["run"], longest["first"].as_u64().unwrap());
    let (from, count) = (first + length(longest) / 3, length(longest) / 3);
    (format!("{run}:{from}-{}", from + count - 1), count)
}

#[test]
fn what_is_dropped_by_hand_is_exactly_what_is_missing() {
    let (kafka, mut gateway, _) = outage("byhand", "--clients 5 --topics 20 --rate 1000 --json");
    let (range, running) = middle(&gateway, "mqtt/0");
    let words = format!("buffer drop --stream mqtt/0 --range {range}");
    eprintln!("running, {range}: {}", told(&gateway, &words).trim());
    assert!(gateway.stop().success());
    let (range, stopped) = middle(&gateway, "mqtt/1");
    let words = format!("buffer drop --stream mqtt/1 --range {range}");
    eprintln!("stopped, {range}: {}", told(&gateway, &words).trim());
    let left: u64 = {
        let streams = json(&gateway, "buffer ls --json");
        let streams = streams.as_array().unwrap();
        streams.iter().map(|s| s["records"].as_u64().unwrap()).sum()
    };
    let dump = dumped(&gateway, "buffer dump").len() as u64;
    eprintln!("{running} and {stopped} dropped; {left} left by ls, {dump} dumped");
    assert_eq!(left, dump);
    let (code, _, err) = tidegate(&gateway, "buffer drop --stream mqtt/7 --all");
    assert_eq!((code, err.trim()), (3, "no stream mqtt/7 is known"));
    assert_eq!(tidegate(&gateway, "buffer drop --stream mqtt/1").0, 2);

    kafka.cluster("restart", &["1"]);
    gateway.up();
    gateway.wait_drained(60);
    let file = gateway.folder().join("acknowledged");
    let ledger = gateway.folder().join("ledger-byhand");
    fs::write(&file, oracle::list(&ledger)).unwrap();
    let words = format!("verify --json --topic mqtt --ledger {}", file.display());
    let verdict = json(&gateway, &words);
    let missing = verdict["streams"].as_array().unwrap().iter();
    let missing: Vec<Value> = missing.map(|s| s["missing"].clone()).collect();
    eprintln!("in Kafka: {missing:?}");
    assert_eq!(verdict["acknowledged"]["missing"], running + stopped);
    assert!(
        missing
            .iter()
            .flat_map(|m| m.as_array().unwrap())
            .all(|m| m["reason"] == "by_hand")
    );
    let explained = running + stopped;
    let arguments = format!("--topic mqtt --explained {explained}");
    let verdict = oracle::check(&kafka, &[&ledger], &arguments);
    verdict.expect_clean("dropped by hand");
    assert_eq!(verdict.explained, explained);
}

/// The ids of what is in quarantine.
fn quarantined(gateway: &Gateway) -> Vec<String> {
    let kept = json(gateway, "buffer quarantine ls --json");
    let ids = kept.as_array().unwrap().iter();
    ids.map(|kept| kept["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Records that have waited longer than this are rejected.
fn reject_after(kafka: &Kafka, milliseconds: &str) {
    let config = format!("message.timestamp.before.max.ms={milliseconds}");
    let topic = [
        "--alter",
        "--entity-type",
        "topics",
        "--entity-name",
        "mqtt",
    ];
    kafka.tool(
        "configs",
        &[&topic[..], &["--add-config", &config]].concat(),
    );
}

/// A gateway with forty records in quarantine, and the ledger of who sent them.
fn forty_rejected() -> (Kafka, Gateway, PathBuf) {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("mqtt", 2);
    let gateway = Gateway::start(&kafka.bootstrap, SMALL);
    gateway.wait_figure("uplink_up", 30, |up| up == 1.0);
    reject_after(&kafka, "1000");
    kafka.cluster("stop", &["1"]);
    let load = Load::start(
        &gateway,
        "rejected",
        "--clients 2 --topics 8 --count 40 --json",
    );
    let ledger = load.ledger.clone();
    assert_eq!(load.finish().acked, 40);
    pause(Duration::from_secs(2));
    kafka.cluster("restart", &["1"]);
    gateway.wait_drained(60);
    (kafka, gateway, ledger)
}

#[test]
fn what_kafka_rejected_is_shown_tried_again_and_dropped() {
    let (kafka, mut gateway, ledger) = forty_rejected();
    let ids = quarantined(&gateway);
    let listed = told(&gateway, "buffer quarantine ls");
    eprintln!("{}", listed.lines().next_back().unwrap());
    assert_eq!(ids.len(), 40, "the fault did not bite");
    assert_eq!(json(&gateway, "status --json")["quarantined"], 40);
    let one = json(&gateway, &format!("buffer quarantine show {}", ids[0]));
    assert!(
        one["cause"].as_str().unwrap().contains("TIMESTAMP"),
        "{one}"
    );
    assert!(
        one["value"]
            .as_str()
            .unwrap()
            .contains("\"dev\":\"rejected-")
    );

    reject_after(&kafka, "9223372036854775807");
    let do_it = |gateway: &Gateway, what: &str, ids: &[String]| {
        let done = told(
            gateway,
            &format!("buffer quarantine {what} {}", ids.join(" ")),
        );
        eprintln!("{what}: {}", done.trim());
    };
    do_it(&gateway, "retry", &ids[..10]);
    do_it(&gateway, "drop", &ids[10..12]);
    assert_eq!(quarantined(&gateway), ids[12..]);
    let (code, _, err) = tidegate(&gateway, &format!("buffer quarantine drop {}", ids[3]));
    assert_eq!(code, 3, "{err}");
    assert!(gateway.stop().success());
    assert_eq!(quarantined(&gateway), ids[12..]);
    do_it(&gateway, "retry", &ids[12..20]);
    do_it(&gateway, "drop", &ids[20..21]);
    gateway.up();
    assert_eq!(quarantined(&gateway), ids[21..]);
    do_it(&gateway, "retry --all", &[]);
    assert_eq!(
        told(&gateway, "buffer quarantine ls").trim(),
        "nothing is in quarantine"
    );
    gateway.wait_drained(60);
    gateway.kill9();
    gateway.up();
    assert!(quarantined(&gateway).is_empty(), "they came back");
    gateway.wait_drained(60);
    let file = gateway.folder().join("acknowledged");
    fs::write(&file, oracle::list(&ledger)).unwrap();
    let words = format!("verify --json --topic mqtt --ledger {}", file.display());
    let judged = json(&gateway, &words)["acknowledged"].clone();
    eprintln!("{judged}");
    assert_eq!(
        (&judged["in_kafka"], &judged["missing"]),
        (&37.into(), &3.into())
    );
}
