//! A real mosquitto, to compare with.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command};

use super::gateway::Port;
use super::wait;

/// A mosquitto with a folder and a port of its own. Killed when dropped.
#[derive(Debug)]
pub struct Mosquitto {
    folder: tempfile::TempDir,
    child: Child,
    port: Port,
}

impl Mosquitto {
    /// With one listener on loopback, and what else its configuration is to say.
    pub fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = Port::take(folder.path());
        let path = folder.path().join("mosquitto.conf");
        let listener = format!("user root\nlistener {} 127.0.0.1", port.number());
        fs::write(&path, format!("{listener}\n{config}\n")).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("mosquitto");
        let child = command.arg("-c").arg(&path).stderr(log).spawn().unwrap();
        wait("mosquitto listens", 20, || {
            TcpStream::connect(("127.0.0.1", port.number())).ok()
        });
        Self {
            folder,
            child,
            port,
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its mosquitto.conf.
    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("mosquitto.conf")
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        self.port.give_back();
    }
}
