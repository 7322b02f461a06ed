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
        let ca = (!ca.is_empty()).then(|| b.file(ca));
        rumqttc::run(version, transport, port, ca.as_deref());
        runs += 1;
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
    let in_python = |name: &str| {
        let mut command = python();
        command.arg(script(name));
        command
    };
    let aiomqtt = || in_python("aiomqtt_client.py");
    let paho_mqtt = || in_python("paho_client.py");
    let mosquitto = || in_python("mosquitto_client.py");
    let paho = || {
        let jars = folder.join("jars");
        let path = format!("{0}:{0}/*", jars.display());
        let mut command = Command::new("java");
        command.args(["-XX:TieredStopAtLevel=1", "-cp", &path, "Paho"]);
        command
    };
    let all: [Client<'_>; 5] = [
        ("mosquitto_pub and mosquitto_sub", &mosquitto),
        ("mqtt.js", &mqttjs),
        ("aiomqtt", &aiomqtt),
        ("paho-mqtt", &paho_mqtt),
        ("Paho Java", &paho),
    ];
    // The first speaks no WebSocket.
    let of_the_web = &all[1..];
    let [tls, _, websocket, both] = b.ports;
    let mut runs = over(&b, &all, ("tcp", b.gateway.mqtt.port(), ""));
    runs += over(&b, &all, ("tls", tls, "ca.pem"));
    runs += over(&b, of_the_web, ("ws", websocket, ""));
    runs += over(&b, of_the_web, ("wss", both, "ca.pem"));
    b.gateway.wait_drained(30);
    let records = uplink::read(Kafka::shared(), "foreign");
    let records = records.values().flatten();
    let records = records.filter(|text| *text != "ready").count();
    eprintln!(
        "{runs} runs of {} clients, {records} records",
        all.len() + 1
    );
    assert_eq!(records, runs * MESSAGES);
}
