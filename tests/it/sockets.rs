//! Doors beside TCP's: a Unix socket, and a load balancer that says for whom it speaks.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::gateway::{Port, binary};
use crate::harness::{Gateway, run, wait};

/// Address and port, or `unix`, of a client that is connected.
fn address_of(gateway: &Gateway, id: &str) -> Option<String> {
    let mut command = Command::new(binary());
    command.args(["clients", "--json", "--config"]);
    let text = run(command.arg(gateway.config_path()));
    let clients = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let mut clients = clients.filter(|client: &serde_json::Value| client["client_id"] == id);
    let client = clients.next()?;
    Some(client["connection"]["address"].as_str()?.to_owned())
}

/// A `mosquitto_sub` that ends when it has got one message.
fn subscriber(id: &str, to: &[&str]) -> Child {
    let mut command = Command::new("mosquitto_sub");
    command.args(["-i", id, "-C", "1", "-W", "60", "-t", "a"]);
    let child = command.args(to).stdout(Stdio::piped()).spawn();
    child.unwrap()
}

fn publish(to: &[&str]) -> bool {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-q", "1", "-t", "a", "-m", "x"]);
    command.args(to).output().unwrap().status.success()
}

#[test]
fn a_unix_socket_is_a_door_and_outlives_kills() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mqtt.sock");
    let path = path.to_str().unwrap();
    let config = format!("[[proxy.listener]]\nlisten = 'unix:{path}'");
    let mut gateway = Gateway::start("127.0.0.1:1", &config);
    for round in 1..=2 {
        let subscriber = subscriber("local", &["--unix", path]);
        gateway.wait_figure("subscriptions", 20, |n| n >= 1.0);
        assert_eq!(address_of(&gateway, "local").unwrap(), "unix");
        assert!(publish(&["--unix", path]));
        let output = subscriber.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"x\n", "round {round}");
        // What it leaves is taken away at its next start.
        gateway.kill9();
        assert!(Path::new(path).exists() && !publish(&["--unix", path]));
        gateway.up();
    }
    // Another gateway takes nothing away that is in use.
    let mut other = Gateway::new("127.0.0.1:1", &config);
    other.launch(&mut Command::new(binary()));
    wait("the other has ended", 20, || other.ended());
    let said = other.log_end(3);
    assert!(
        said.contains("cannot listen on proxy.listener[0].listen unix:"),
        "{said}"
    );
    assert!(publish(&["--unix", path]));
    assert!(gateway.stop().success());
    assert!(!Path::new(path).exists());
}

struct Balancer {
    child: Child,
    ports: [Port; 2],
}

impl Balancer {
    /// An HAProxy that speaks for clients in both versions.
    fn start(folder: &Path, gateway: SocketAddr) -> Self {
        let ports = [Port::take(folder), Port::take(folder)];
        let mut config = "global\nmaxconn 100\ndefaults\nmode tcp\ntimeout connect 5s\n\
                          timeout client 1m\ntimeout server 1m\n"
            .to_owned();
        for (port, word) in ports.iter().zip(["send-proxy", "send-proxy-v2"]) {
            let at = port.number();
            config += &format!("listen {word}\nbind 127.0.0.1:{at}\nserver g {gateway} {word}\n");
        }
        let path = folder.join("haproxy.cfg");
        fs::write(&path, config).unwrap();
        let mut command = Command::new("haproxy");
        let child = command.arg("-db").arg("-f").arg(&path).spawn().unwrap();
        for port in &ports {
            wait("haproxy listens", 20, || {
                TcpStream::connect(("127.0.0.1", port.number())).ok()
            });
        }
        Self { child, ports }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        for port in &self.ports {
            port.give_back();
        }
    }
}

#[test]
fn behind_a_balancer_clients_have_their_own_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[[proxy.listener]]\nlisten = '127.0.0.1:0'\nproxy_protocol = true\n\
                  allow_anonymous = true";
    let gateway = Gateway::start("127.0.0.1:1", config);
    let door = gateway.doors()[1];
    let balancer = Balancer::start(folder.path(), door);
    for (port, from) in balancer.ports.iter().zip(["127.0.0.7", "127.0.0.8"]) {
        let port = port.number().to_string();
        let child = subscriber(from, &["-p", &port, "-A", from]);
        gateway.wait_figure("subscriptions", 20, |n| n >= 1.0);
        let address = address_of(&gateway, from).unwrap();
        eprintln!("{from} is at {address}");
        assert!(address.starts_with(&format!("{from}:")), "{address}");
        assert!(publish(&["-p", &port]));
        assert_eq!(child.wait_with_output().unwrap().stdout, b"x\n");
    }
    // Who comes without a header stays out, at once.
    let failed = gateway.metrics().of("handshakes_failed_total");
    assert!(!publish(&["-p", &door.port().to_string()]));
    gateway.wait_figure("handshakes_failed_total", 20, |n| n > failed);
}
