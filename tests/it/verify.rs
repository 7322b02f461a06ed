//! `tidegate verify` on a real Kafka: what the gateway has written is clean; a gap, a repeat and a
//! swap that a foreign client plants are found; what the loss ledger explains is no alarm, and
//! without it every gap is one.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::buffer::tidegate;
use crate::harness::{Gateway, Kafka, Load, oracle, pause};

/// `tidegate verify --json`: exit code and verdict.
fn verify(gateway: &Gateway, arguments: &str) -> (i32, Value) {
    let (code, out, err) = tidegate(gateway, &format!("verify --json {arguments}"));
    let verdict = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    (code, verdict)
}

/// Sends one record by kcat, in this codec, as if the gateway `it` had numbered it.
fn plant(kafka: &Kafka, topic: &str, codec: &str, place: Option<(u64, u64)>) {
    let mut kcat = Command::new("kcat");
    kcat.args([
        "-P",
        "-b",
        &kafka.bootstrap,
        "-t",
        topic,
        "-p",
        "0",
        "-z",
        codec,
    ]);
    if let Some((run, seq)) = place {
        let (run, seq) = (format!("tidegate.run={run}"), format!("tidegate.seq={seq}"));
        kcat.args(["-H", "tidegate.id=it", "-H", &run, "-H", &seq]);
    }
    let mut child = kcat.stdin(Stdio::piped()).spawn().unwrap();
    let value = "planted ".repeat(100);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(value.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

fn stream(verdict: &Value, partition: i64) -> &Value {
    let streams = verdict["streams"].as_array().unwrap();
    let wanted = |s: &&Value| s["partition"] == partition && s["gateway"] == "it";
    streams.iter().find(wanted).unwrap()
}

/// Writes the acknowledged messages of a load for `--ledger`.
fn list(gateway: &Gateway, ledger: &Path) -> String {
    let file = gateway.folder().join("acknowledged");
    fs::write(&file, oracle::list(ledger)).unwrap();
    file.display().to_string()
}

#[test]
fn a_planted_gap_a_repeat_and_a_swap_are_found() {
    let kafka = Kafka::shared();
    kafka.create_topic("verified", 2);
    let config = "[proxy]\ndefault_topic = \"verified\"";
    let gateway = Gateway::start(&kafka.bootstrap, config);
    let load = Load::start(&gateway, "verified", "--clients 5 --topics 20 --count 3000");
    let ledger = load.ledger.clone();
    assert_eq!(load.finish().acked, 3_000);
    gateway.wait_drained(30);
    let acknowledged = list(&gateway, &ledger);
    let (code, clean) = verify(
        &gateway,
        &format!("--topic verified --ledger {acknowledged}"),
    );
    eprintln!("clean: {}", clean["acknowledged"]);
    assert_eq!(
        (code, &clean["alarms"], &clean["records"]),
        (0, &0.into(), &3_000.into())
    );
    assert_eq!(clean["acknowledged"]["in_kafka"], 3_000);
    assert_eq!(clean["cannot_know"], json!([]));

    let (run, end) = {
        let stream = stream(&clean, 0);
        (
            stream["run"].as_u64().unwrap(),
            stream["end"].as_u64().unwrap(),
        )
    };
    // A gap of two, a repeat, a swap; each codec once.
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for (codec, step) in codecs.into_iter().zip([0, 3, 3, 5, 4]) {
        plant(kafka, "verified", codec, Some((run, end + step)));
    }
    plant(kafka, "verified", "none", None);
    let mut more = fs::OpenOptions::new()
        .append(true)
        .open(&acknowledged)
        .unwrap();
    writeln!(more, r#"{{"key":"never","value":"sent"}}"#).unwrap();
    let (code, found) = verify(
        &gateway,
        &format!("--topic verified --ledger {acknowledged}"),
    );
    let (_, text, _) = tidegate(&gateway, "verify --topic verified");
    eprintln!("planted behind {run}:{end}:\n{text}");
    let planted = stream(&found, 0);
    let gap = json!([{"first": end + 1, "end": end + 3, "reason": null}]);
    assert_eq!(planted["missing"], gap);
    assert_eq!(planted["repeats"]["examples"][0][0], end + 3);
    assert_eq!(planted["late"]["examples"][0][0], end + 4);
    assert_eq!(
        (&planted["alarms"], stream(&found, 1)["alarms"].as_u64()),
        (&3.into(), Some(0))
    );
    assert_eq!((code, &found["alarms"]), (1, &4.into()));
    assert_eq!(found["acknowledged"]["missing"], 1);
    assert_eq!(
        found["acknowledged"]["examples"][0],
        r#"{"key":"never","value":"sent"}"#
    );
    assert_eq!(
        (&found["without_provenance"], &found["unreadable"]),
        (&1.into(), &json!([]))
    );
    assert!(text.contains("ALARM      verified/0 of it:"), "{text}");
    trim(kafka, &gateway);
}

/// What retention took is not judged, and said to be so.
fn trim(kafka: &Kafka, gateway: &Gateway) {
    let offsets = gateway.folder().join("offsets.json");
    let below = r#"{"version":1,"partitions":[{"topic":"verified","partition":1,"offset":100}]}"#;
    fs::write(&offsets, below).unwrap();
    let file = offsets.display().to_string();
    kafka.tool("delete-records", &["--offset-json-file", &file]);
    let (_, trimmed) = verify(gateway, "--topic verified");
    let known = trimmed["cannot_know"].to_string();
    eprintln!("trimmed: {known}");
    assert_eq!(stream(&trimmed, 1)["alarms"], 0);
    assert!(
        known.contains("the head of 1 partitions is gone"),
        "{known}"
    );
    let (code, _, err) = tidegate(gateway, "verify --topic nowhere");
    assert_eq!(
        (code, err.trim()),
        (3, "there is no topic nowhere in this cluster")
    );
}

#[test]
fn what_expired_is_explained_by_the_ledger_and_an_alarm_without_it() {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("aging", 2);
    let config = "[[proxy.route]]\nmqtt = \"aging/#rest\"\ntopic = \"aging\"\nttl_ms = 4000";
    let mut gateway = Gateway::start(&kafka.bootstrap, config);
    let load = Load::start(&gateway, "aging", "--clients 5 --topics 20 --rate 400");
    load.wait_acked(1_000, 60);
    kafka.cluster("stop", &["1"]);
    pause(Duration::from_secs(10));
    kafka.cluster("restart", &["1"]);
    gateway.wait_figure("dropped_total{reason=\"expired\"}", 60, |n| n >= 500.0);
    load.wait_acked(1_000, 60);
    let ledger = load.ledger.clone();
    load.stop();
    gateway.wait_drained(60);
    let acknowledged = list(&gateway, &ledger);
    let arguments = format!("--topic aging --ledger {acknowledged}");
    for state in ["running", "stopped"] {
        if state == "stopped" {
            assert!(gateway.stop().success());
        }
        let (code, verdict) = verify(&gateway, &arguments);
        let sum = |name: &str| -> u64 {
            let streams = verdict["streams"].as_array().unwrap();
            streams.iter().map(|s| s[name].as_u64().unwrap()).sum()
        };
        let (explained, alarming) = (sum("missing_explained"), sum("missing_alarming"));
        eprintln!(
            "{state}: {explained} explained, {alarming} not; {}",
            verdict["acknowledged"]
        );
        assert_eq!((code, alarming), (0, 0), "{verdict}");
        assert!(explained >= 500, "the fault did not bite");
        assert_eq!(verdict["acknowledged"]["missing"], explained);
    }
    // Without the gateway's folder nothing explains the gaps.
    let elsewhere = gateway.folder().join("elsewhere");
    let mut command = Command::new(crate::harness::gateway::binary());
    command.args(["verify", "--topic", "aging", "--config"]);
    command
        .arg(gateway.config_path())
        .env("TIDEGATE__GATEWAY__DATA_DIR", &elsewhere);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    eprintln!("elsewhere:\n{text}");
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("ALARM") && text.contains("what the loss ledger of it explains"));
    assert!(!elsewhere.exists(), "looking has made a folder");
}
