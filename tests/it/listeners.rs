//! Doors beside the plain one: TLS, certificates of clients, WebSocket, with clients that nobody
//! here wrote.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::harness::{Gateway, Kafka, python, run, uplink, wait};

/// Of each kind of slow stranger, at each listener.
const STRANGERS: usize = 100;

/// Subscribes, publishes to itself at QoS 0 to 2, and says what came.
const PAHO: &str = r#"
import sys, threading, paho.mqtt.client as m
port, version, ca, transport = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
c = m.Client(m.CallbackAPIVersion.VERSION2, transport=transport, protocol=version)
if ca: c.tls_set(ca_certs=ca)
ready, done, got = threading.Event(), threading.Event(), []
big = transport + "-" + "x" * 100_000
c.on_connect = lambda *_: c.subscribe("w/#", 2)
c.on_subscribe = lambda *_: ready.set()
def on_message(c, u, msg):
    got.append((msg.topic, msg.payload.decode()))
    if len(got) == 4: done.set()
c.on_message = on_message
c.connect("localhost", port)
c.loop_start()
assert ready.wait(20), "no SUBACK"
for qos, payload in [(0, "zero"), (1, "one"), (2, "two"), (2, big)]:
    c.publish(f"w/{qos}", payload, qos).wait_for_publish(20)
assert done.wait(20), got
assert sorted(got) == sorted([("w/0", "zero"), ("w/1", "one"), ("w/2", "two"), ("w/2", big)])
c.disconnect(); c.loop_stop()
print("all came back")
"#;

/// A gateway with a door of each kind.
pub struct Bench {
    pub gateway: Gateway,
    files: tempfile::TempDir,
    /// TLS, TLS with client certificates, WebSocket, both.
    pub ports: [u16; 4],
}

/// Its records go to `topic`; handshakes may take so long.
pub fn bench(topic: &str, connect_timeout_ms: u32) -> Bench {
    let kafka = Kafka::shared();
    kafka.create_topic(topic, 1);
    let files = tempfile::tempdir().unwrap();
    authority(files.path(), "ca");
    certificate(files.path(), "server", "ca");
    certificate(files.path(), "device", "ca");
    let path = |name: &str| files.path().join(name).display().to_string();
    let tls = format!(
        "cert_file = '{}'\nkey_file = '{}'",
        path("server.pem"),
        path("server.key")
    );
    let ca = path("ca.pem");
    let config = format!(
        "[proxy]\ndefault_topic = '{topic}'\nconnect_timeout_ms = {connect_timeout_ms}\n\
         [[proxy.listener]]\nlisten = '127.0.0.1:0'\n{tls}\n\
         [[proxy.listener]]\nlisten = '127.0.0.1:0'\n{tls}\nclient_ca_file = '{ca}'\n\
         [[proxy.listener]]\nlisten = '127.0.0.1:0'\ntransport = 'websocket'\n\
         [[proxy.listener]]\nlisten = '127.0.0.1:0'\ntransport = 'websocket'\n{tls}\n"
    );
    let gateway = Gateway::start(&kafka.bootstrap, &config);
    let all: Vec<u16> = gateway.doors().iter().map(SocketAddr::port).collect();
    assert_eq!(all[0], gateway.mqtt.port());
    let ports = all[1..].try_into().unwrap();
    Bench {
        gateway,
        files,
        ports,
    }
}

fn authority(folder: &Path, name: &str) {
    run(openssl(folder, name).args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"]));
}

/// A certificate of this machine and its key.
fn certificate(folder: &Path, name: &str, authority: &str) {
    let (ca, key) = (format!("{authority}.pem"), format!("{authority}.key"));
    let mut command = openssl(folder, name);
    command.args(["-CA", &ca, "-CAkey", &key]);
    for extension in [
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "basicConstraints=critical,CA:FALSE",
    ] {
        command.args(["-addext", extension]);
    }
    run(&mut command);
}

fn openssl(folder: &Path, name: &str) -> Command {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "60",
        "-subj",
        &format!("/CN={name}"),
        "-keyout",
        &format!("{name}.key"),
        "-out",
        &format!("{name}.pem"),
    ]);
    command
}

impl Bench {
    /// A certificate or key.
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn mosquitto(&self, tool: &str, port: u16, ca: &str) -> Command {
        let mut command = Command::new(tool);
        let port = port.to_string();
        command.args(["-h", "localhost", "-p", &port, "-q", "1", "--cafile"]);
        command.arg(self.file(ca));
        command
    }

    fn publish(&self, port: u16, ca: &str, more: &[&str]) -> Output {
        let mut command = self.mosquitto("mosquitto_pub", port, ca);
        command.current_dir(self.files.path());
        command
            .args(["-t", "tls", "-m", "a"])
            .args(more)
            .output()
            .unwrap()
    }

    fn paho(&self, port: u16, version: &str, ca: &str, transport: &str) {
        let ca = Path::new(ca)
            .file_name()
            .map(|name| self.file(name.to_str().unwrap()));
        let ca = ca.unwrap_or_default();
        let port = port.to_string();
        let mut command = python();
        command
            .args(["-c", PAHO, &port, version])
            .arg(ca)
            .arg(transport);
        assert_eq!(run(&mut command).trim(), "all came back");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.gateway.log_path()).unwrap()
    }
}

#[test]
fn foreign_clients_come_in_by_tls_by_certificate_and_by_websocket() {
    let b = bench("doors", 10_000);
    let [tls, mtls, websocket, both] = b.ports;
    let mut good = 0;
    for version in ["tlsv1.2", "tlsv1.3"] {
        for protocol in ["mqttv311", "mqttv5"] {
            let more = ["--tls-version", version, "-V", protocol];
            let output = b.publish(tls, "ca.pem", &more);
            assert!(output.status.success(), "{version} {protocol}: {output:?}");
            let shown = ["--cert", "device.pem", "--key", "device.key"];
            let output = b.publish(mtls, "ca.pem", &[&more[..], &shown].concat());
            assert!(output.status.success(), "{version} {protocol}: {output:?}");
            good += 2;
        }
    }
    // No certificate, and one of somebody else's authority.
    authority(b.files.path(), "other");
    certificate(b.files.path(), "stranger", "other");
    let shown = ["--cert", "stranger.pem", "--key", "stranger.key"];
    for more in [&[][..], &shown] {
        let output = b.publish(mtls, "ca.pem", more);
        assert!(!output.status.success(), "a stranger came in: {more:?}");
    }
    for version in ["4", "5"] {
        b.paho(tls, version, "ca.pem", "tcp");
        b.paho(websocket, version, "", "websockets");
        b.paho(both, version, "ca.pem", "websockets");
        good += 12;
    }
    b.gateway.wait_drained(30);
    let records = uplink::read(Kafka::shared(), "doors");
    assert_eq!(records.values().map(Vec::len).sum::<usize>(), good);
    let failed = b.gateway.metrics().of("handshakes_failed_total");
    assert!(failed >= 2.0, "{failed} failed");
}

#[test]
fn a_certificate_says_who_its_client_is() {
    let kafka = Kafka::shared();
    kafka.create_topic("certified", 1);
    let files = tempfile::tempdir().unwrap();
    authority(files.path(), "ca");
    for name in ["server", "device"] {
        certificate(files.path(), name, "ca");
    }
    let path = |name: &str| files.path().join(name).display().to_string();
    std::fs::write(path("acl"), "pattern write devices/%u/up").unwrap();
    let listener = |named_in: &str| {
        format!(
            "[[proxy.listener]]\nlisten = '127.0.0.1:0'\ncert_file = '{}'\nkey_file = '{}'\n\
             client_ca_file = '{}'\nacl_file = '{}'\ncertificate_user = '{named_in}'\n",
            path("server.pem"),
            path("server.key"),
            path("ca.pem"),
            path("acl")
        )
    };
    let (common, alternative) = (listener("common_name"), listener("alternative_name"));
    let config = format!("[proxy]\ndefault_topic = 'certified'\n{common}{alternative}");
    let gateway = Gateway::start(&kafka.bootstrap, &config);
    let doors = gateway.doors();
    let port = |at: usize| doors[at].port().to_string();
    // A user name that it says itself counts for nothing.
    let common =
        "--cafile ca.pem --cert device.pem --key device.key -V mqttv311 -q 1 -u localhost -m x";
    for at in [1, 2] {
        for user in ["device", "localhost", "server"] {
            let mut command = Command::new("mosquitto_pub");
            command.current_dir(files.path()).args(common.split(' '));
            let topic = format!("devices/{user}/up");
            command.args(["-h", "localhost", "-p", &port(at), "-t", &topic]);
            run(&mut command);
        }
    }
    gateway.wait_drained(30);
    assert_eq!(
        gateway.metrics().of("dropped_total{reason=\"denied\"}"),
        4.0
    );
    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-e", "-q", "-b", &kafka.bootstrap]);
    let text = run(kcat.args(["-t", "certified", "-f", "%k\n"]));
    let keys: Vec<&str> = text.lines().collect();
    assert_eq!(keys, ["devices/device/up", "devices/localhost/up"]);
}

/// A TLS subscriber that ends when it has got one message.
fn subscriber(b: &Bench, ca: &str) -> Child {
    let mut command = b.mosquitto("mosquitto_sub", b.ports[0], ca);
    let child = command
        .args(["-t", "tls", "-C", "1"])
        .stdout(Stdio::piped());
    let child = child.spawn().unwrap();
    b.gateway.wait_figure("subscriptions", 20, |n| n >= 1.0);
    child
}

#[test]
fn certificates_are_exchanged_under_open_connections() {
    let b = bench("exchanged", 10_000);
    let ends = b
        .gateway
        .metrics()
        .of("listener_certificate_not_after_seconds");
    let mut old = subscriber(&b, "ca.pem");
    authority(b.files.path(), "next");
    certificate(b.files.path(), "fresh", "next");
    for kind in ["key", "pem"] {
        let (from, to) = (format!("fresh.{kind}"), format!("server.{kind}"));
        std::fs::rename(b.file(&from), b.file(&to)).unwrap();
    }
    wait("the new certificate", 20, || {
        b.publish(b.ports[0], "next.pem", &[])
            .status
            .success()
            .then_some(())
    });
    assert!(!b.publish(b.ports[0], "ca.pem", &[]).status.success());
    // The connection of before the exchange has got the message.
    assert!(old.wait().unwrap().success());
    let fresh = b
        .gateway
        .metrics()
        .of("listener_certificate_not_after_seconds");
    assert!(fresh >= ends && ends > 1e9, "{ends}, then {fresh}");

    std::fs::write(b.file("server.pem"), "no certificate").unwrap();
    wait("it is told", 20, || {
        b.log()
            .contains("changed TLS files are not used")
            .then_some(())
    });
    assert!(b.publish(b.ports[0], "next.pem", &[]).status.success());
}

#[test]
fn slow_and_garbled_handshakes_keep_nobody_out() {
    let b = bench("slow-doors", 2_000);
    // A ClientHello that says it is longer than what comes of it.
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 40]].concat();
    let http = b"GET /mqtt HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: ";
    let mut strangers = Vec::new();
    for port in b.ports {
        for words in [
            &b""[..],
            &hello,
            http,
            b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0",
        ] {
            for _ in 0..STRANGERS {
                let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
                socket.write_all(words).unwrap();
                strangers.push(socket);
            }
        }
    }
    // All are in, and each that is slow still may be.
    let [tls, _, websocket, _] = b.ports;
    assert!(b.publish(tls, "ca.pem", &[]).status.success());
    b.paho(websocket, "5", "", "websockets");
    let open = b.gateway.metrics().of("connections_open");
    b.gateway.wait_figure("connections_open", 30, |n| n == 0.0);
    let failed = b.gateway.metrics().of("handshakes_failed_total");
    eprintln!("{open} were open beside good clients, {failed} handshakes failed in the end");
    assert!((failed - strangers.len() as f64).abs() < 0.5, "{failed}");
    for mut socket in strangers {
        let mut rest = Vec::new();
        // Closed or reset, not left open.
        drop(socket.read_to_end(&mut rest));
    }
    assert!(!b.log().contains("panic"));
}
