//! Recorded MQTT packet sequences, played by the tool that lies beside them. They are not part of
//! this repository: `../shared/mqtt-sequences` or `TIDEGATE_MQTT_SEQUENCES` has them, `../tools`
//! from there the tool.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::proxy::{Gate, config};

fn folder() -> PathBuf {
    let shared = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/mqtt-sequences");
    std::env::var_os("TIDEGATE_MQTT_SEQUENCES").map_or_else(shared, PathBuf::from)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs ../shared/mqtt-sequences or TIDEGATE_MQTT_SEQUENCES"]
async fn recorded_sequences_are_answered_rightly() {
    let folder = folder();
    let all = std::fs::read_to_string(folder.join("sequences.jsonl")).unwrap();
    let played: Vec<&str> = all.lines().collect();
    let gate = Gate::start(config());
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("played.jsonl");
    std::fs::write(&file, played.join("\n")).unwrap();
    let mut tool = Command::new("python3");
    tool.arg(folder.join("../tools/mqtt_sequences.py"))
        .args(["--list", "2000", "--port", &gate.address.port().to_string()])
        .arg(&file);
    let output = tokio::task::spawn_blocking(move || tool.output())
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    println!("{}", text.lines().last().unwrap_or_default());
    let explained = include_str!("../../docs/conformance.md");
    let mut unexplained = Vec::new();
    for line in text.lines() {
        let name = played.iter().find_map(|sequence| {
            let sequence: Value = serde_json::from_str(sequence).unwrap();
            let name = sequence["name"].as_str().unwrap().to_owned();
            line.starts_with(&format!("{name}: ")).then_some(name)
        });
        if name.is_some_and(|name| !explained.contains(&format!("`{name}`"))) {
            unexplained.push(line);
        }
    }
    assert!(
        unexplained.is_empty(),
        "not in docs/conformance.md: {unexplained:#?}"
    );
}
