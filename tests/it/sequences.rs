//! Recorded MQTT packet sequences, played by the tool that lies beside them. They are not part of
//! this repository: `../shared/mqtt-sequences` or `TIDEGATE_MQTT_SEQUENCES` has them, `../tools`
//! from there the tool.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tidegate::config::checked::Proxy;

use crate::proxy::{Gate, config};

const EXPLAINED: &str = include_str!("../../docs/conformance.md");
/// How many of the 1,087 are answered rightly at least.
const TOLERANT_MIN: usize = 1_076;
const STRICT_MIN: usize = 1_049;

fn folder() -> PathBuf {
    let shared = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/mqtt-sequences");
    std::env::var_os("TIDEGATE_MQTT_SEQUENCES").map_or_else(shared, PathBuf::from)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs ../shared/mqtt-sequences or TIDEGATE_MQTT_SEQUENCES"]
async fn recorded_sequences_are_answered_rightly() {
    let folder = folder();
    let all = std::fs::read_to_string(folder.join("sequences.jsonl")).unwrap();
    let played: Vec<String> = all
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|sequence| sequence["name"].as_str().unwrap().to_owned())
        .collect();
    // The limits of the recorded broker, which its CONNACK tells.
    let limits = Proxy {
        max_inflight_messages: 20,
        max_packet_bytes: 2_000_000,
        topic_alias_max: 10,
        ..config()
    };
    // A gate each, for sessions stay.
    let gates = [Gate::start(limits.clone()), Gate::start(limits)];
    let play = |gate: &Gate, strict: bool| {
        let port = gate.address.port().to_string();
        let mut tool = Command::new("python3");
        tool.arg(folder.join("../tools/mqtt_sequences.py"))
            .args(["--list", "2000", "--port", &port])
            .args(strict.then_some("--strict"))
            .arg(folder.join("sequences.jsonl"));
        tokio::task::spawn_blocking(move || {
            let text = String::from_utf8(tool.output().unwrap().stdout).unwrap();
            let last = text.lines().last().unwrap_or_default().to_owned();
            println!("{last}");
            let right: usize = last.split(' ').next().unwrap().parse().unwrap();
            (text, right)
        })
    };
    let (_, strict) = play(&gates[0], true).await.unwrap();
    let (text, tolerant) = play(&gates[1], false).await.unwrap();
    let unexplained: Vec<&str> = text
        .lines()
        .filter(|line| {
            played.iter().any(|name| {
                line.starts_with(&format!("{name}: ")) && !EXPLAINED.contains(&format!("`{name}`"))
            })
        })
        .collect();
    assert!(
        unexplained.is_empty(),
        "not in docs/conformance.md: {unexplained:#?}"
    );
    assert!(tolerant >= TOLERANT_MIN && strict >= STRICT_MIN);
}
