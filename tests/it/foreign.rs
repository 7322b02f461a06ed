//! Clients that nobody here wrote, in their own languages, over every transport and in both
//! versions: each subscribes and publishes to itself at QoS 0 to 2, with 100 KB too.

mod rumqttc;

use std::process::Command;

use crate::harness::{Kafka, python, run, tests_dir, uplink};
use crate::listeners::{Bench, bench};

/// Messages that each publishes.
const MESSAGES: usize = 4;

type Client<'c> = (&'c str, &'c dyn Fn() -> Command);

/// Runs all clients in both versions. `ca` is empty where there is no TLS.
fn over(b: &Bench, clients: &[Client<'_>], (transport, port, ca): (&str, u16, &str)) -> usize {
    let mut runs = 0;
    for version in ["4", "5"] {
        for (name, client) in clients {
            let mut command = client();
            command.args([version, transport, &port.to_string()]);
            if !ca.is_empty() {
                command.arg(b.file(ca));
            }
            let said = run(&mut command);
            assert_eq!(said.trim(), "all came back", "{name} {version} {transport}");
            runs += 1;
        }
        // Its WebSocket is under a licence that we do not take.
        if !transport.starts_with('w') {
            let ca = (!ca.is_empty()).then(|| b.file(ca));
            rumqttc::run(version, transport, port, ca.as_deref());
            runs += 1;
        }
    }
    runs
}

#[test]
fn clients_of_all_languages_come_in_by_every_door() {
    let b = bench("foreign", 30_000);
    let folder = run(&mut Command::new(tests_dir("mqtt-clients/setup")));
    let folder = std::path::PathBuf::from(folder.trim());
    let script = |name: &str| tests_dir("mqtt-clients").join(name);
    let mqttjs = || {
        let mut command = Command::new("node");
        command.env("NODE_PATH", folder.join("node_modules"));
        command.arg(script("mqttjs.cjs"));
        command
    };
    let aiomqtt = || {
        let mut command = python();
        command.arg(script("aiomqtt_client.py"));
        command
    };
    let paho = || {
        let jars = folder.join("jars");
        let path = format!("{0}:{0}/*", jars.display());
        let mut command = Command::new("java");
        command.args(["-XX:TieredStopAtLevel=1", "-cp", &path, "Paho"]);
        command
    };
    let clients: [Client<'_>; 3] = [
        ("mqtt.js", &mqttjs),
        ("aiomqtt", &aiomqtt),
        ("Paho Java", &paho),
    ];
    let [tls, _, websocket, both] = b.ports;
    let mut runs = over(&b, &clients, ("tcp", b.gateway.mqtt.port(), ""));
    runs += over(&b, &clients, ("tls", tls, "ca.pem"));
    runs += over(&b, &clients, ("ws", websocket, ""));
    runs += over(&b, &clients, ("wss", both, "ca.pem"));
    b.gateway.wait_drained(30);
    let records = uplink::read(Kafka::shared(), "foreign");
    let records = records.values().map(Vec::len).sum::<usize>();
    eprintln!(
        "{runs} runs of {} clients, {records} records",
        clients.len() + 1
    );
    assert_eq!(records, runs * MESSAGES);
}
