//! The gateway as a process: its configuration, its addresses, its figures, its deaths.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::wait;

/// A gateway with a folder and ports of its own, kept over its deaths. Killed when dropped.
#[derive(Debug)]
pub struct Gateway {
    folder: tempfile::TempDir,
    child: Option<Child>,
    /// Where devices connect.
    pub mqtt: SocketAddr,
    /// Where health and metrics are.
    pub api: SocketAddr,
    ports: [Port; 2],
}

impl Gateway {
    /// Starts a gateway that sends to `bootstrap`, and waits until it is ready. `config` is TOML
    /// that goes over the harness's own: default topic `mqtt`, everything else by default.
    pub fn start(bootstrap: &str, config: &str) -> Self {
        let mut gateway = Self::new(bootstrap, config);
        gateway.up();
        gateway
    }

    /// The same, not started: for `check` and for failing starts.
    pub fn new(bootstrap: &str, config: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("tidegate-gateway-")
            .tempdir()
            .unwrap();
        let ports = [Port::take(folder.path()), Port::take(folder.path())];
        let [mqtt, api] =
            [&ports[0], &ports[1]].map(|port| SocketAddr::from(([127, 0, 0, 1], port.0)));
        let mut all = defaults(folder.path(), bootstrap, mqtt, api);
        merge(&mut all, config.parse().unwrap());
        fs::write(folder.path().join("tidegate.toml"), all.to_string()).unwrap();
        Self {
            folder,
            child: None,
            mqtt,
            api,
            ports,
        }
    }

    /// Starts the process (again) and waits until it is ready.
    pub fn up(&mut self) {
        self.launch(&mut Command::new(binary()));
        self.wait_ready();
    }

    /// Starts the process by way of `command` (the binary, or `strace … binary`), without waiting.
    pub fn launch(&mut self, command: &mut Command) {
        assert!(self.child.is_none(), "the gateway runs already");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let child = command
            .arg("run")
            .arg("--config")
            .arg(self.config_path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Waits until `/health/ready` answers 200.
    pub fn wait_ready(&mut self) {
        self.wait_ready_within(60);
    }

    /// As [`wait_ready`](Self::wait_ready), for a process that takes longer to begin.
    pub fn wait_ready_within(&mut self, seconds: u64) {
        let log = self.log_path();
        let api = self.api;
        let child = self.child.as_mut().unwrap();
        wait("the gateway is ready", seconds, || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the gateway ended, {status}:\n{}", tail(&log));
            }
            get(api, "/health/ready").filter(|(status, _)| *status == 200)
        });
    }

    /// Whether the process that was started has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        let child = self.child.as_mut().unwrap();
        child.try_wait().unwrap().is_some()
    }

    /// Whether a process was started that nobody has stopped.
    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().unwrap().try_wait().unwrap()
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&self) {
        signal(self.pid(), "TERM");
    }

    /// Forgets a process that has ended, so that it can be started again.
    pub fn bury(&mut self) {
        self.child.take().unwrap().wait().unwrap();
    }

    /// The last lines of what it printed.
    pub fn log_end(&self, lines: usize) -> String {
        let text = tail(&self.log_path());
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// SIGKILL, and waits for the end.
    pub fn kill9(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end in order.
    pub fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        signal(child.id(), "TERM");
        wait("the gateway stops", 60, || child.try_wait().unwrap())
    }

    /// The folder with `tidegate.toml`, `data/` and `log`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `data_dir`.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Where each of its listeners is, in the order of the configuration; one more than
    /// `[[proxy.listener]]` says stands first.
    pub fn doors(&self) -> Vec<SocketAddr> {
        let text = fs::read(self.data_dir().join("listening")).unwrap();
        let told: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let all = told["listeners"].as_array().unwrap().iter();
        all.map(|at| at.as_str().unwrap().parse().unwrap())
            .collect()
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("tidegate.toml")
    }

    /// What the gateway printed, over all its lives.
    pub fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// `http://host:port/metrics`, for the oracle.
    pub fn metrics_url(&self) -> String {
        format!("http://{}/metrics", self.api)
    }

    /// All figures of `/metrics` by name with labels; those of this life of the process.
    pub fn metrics(&self) -> Figures {
        let (status, text) = wait("metrics", 10, || get(self.api, "/metrics"));
        assert_eq!(status, 200, "{text}");
        Figures::parse(&text)
    }

    /// Waits until a figure of `/metrics` is as `condition` wants it.
    pub fn wait_figure(&self, name: &str, seconds: u64, condition: impl Fn(f64) -> bool) -> f64 {
        let mut last = f64::NAN;
        wait(&format!("{name} as wanted"), seconds, || {
            last = self.metrics().of(name);
            condition(last).then_some(last)
        })
    }

    /// Waits until Kafka has confirmed everything.
    pub fn wait_drained(&self, seconds: u64) {
        self.wait_figure("buffered_records", seconds, |n| n == 0.0);
    }

    /// `write_bytes` of `/proc/PID/io`: bytes that the process made go to the disk.
    pub fn write_bytes(&self) -> u64 {
        let io = fs::read_to_string(format!("/proc/{}/io", self.pid())).unwrap();
        let line = io.lines().find(|line| line.starts_with("write_bytes:"));
        line.unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            eprintln!("the gateway's log ends:\n{}", tail(&self.log_path()));
        }
        for port in &self.ports {
            port.give_back();
        }
    }
}

/// Figures of one look at `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Figures(HashMap<String, f64>);

impl Figures {
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.rsplit_once(' '));
        Self(
            pairs
                .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
                .collect(),
        )
    }

    /// One figure by name without the `tidegate_` in front (labels as they are printed); fails
    /// when there is none of that name.
    pub fn of(&self, name: &str) -> f64 {
        let full = format!("tidegate_{name}");
        *self
            .0
            .get(&full)
            .unwrap_or_else(|| panic!("no figure {full}"))
    }

    /// The named figures in one line, for a test's printout.
    pub fn line(&self, names: &[&str]) -> String {
        let mut line = String::new();
        for name in names {
            write!(line, "{name} {} ", self.of(name)).unwrap();
        }
        line
    }
}

/// The gateway's program: the one built with these tests, or `TIDEGATE_BIN`.
pub fn binary() -> PathBuf {
    std::env::var_os("TIDEGATE_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_tidegate").into(), PathBuf::from)
}

/// Sends a signal by name to one process.
pub fn signal(pid: u32, name: &str) {
    super::run(
        Command::new("kill")
            .arg(format!("-{name}"))
            .arg(pid.to_string()),
    );
}

/// `GET path`: status and body; `None` when nobody answers.
pub fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

fn defaults(folder: &Path, bootstrap: &str, mqtt: SocketAddr, api: SocketAddr) -> toml::Table {
    let servers: Vec<&str> = bootstrap.split(',').collect();
    let text = format!(
        "[gateway]\nid = \"it\"\nclock = \"trusted\"\ndata_dir = {:?}\n\
         [kafka]\nbootstrap_servers = {servers:?}\n\
         [proxy]\nlisten = \"{mqtt}\"\ndefault_topic = \"mqtt\"\n[api]\nlisten = \"{api}\"\n\
         [spool]\nmin_free_bytes = \"64MiB\"\n",
        folder.join("data"),
    );
    text.parse().unwrap()
}

/// Puts `over` onto `table`: tables are merged, everything else is replaced.
fn merge(table: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// A loopback port below the range that the kernel gives to clients, so that nobody takes it while
/// the gateway is dead (a client that tries a port of that range again and again may even meet
/// itself). Reserved in the folder that `tests/kafka/cluster` uses too.
#[derive(Debug)]
pub struct Port(u16);

impl Port {
    /// One that nobody has; `owner` is a folder that is there for as long as it is used.
    pub fn take(owner: &Path) -> Self {
        let folder = std::env::temp_dir().join("tidegate-ports");
        fs::create_dir_all(&folder).unwrap();
        for step in 0..20_000 {
            let at = u64::from(std::process::id()) * 31 + step * 7;
            let port = u16::try_from(10_000 + at % 20_000).unwrap();
            let file = folder.join(port.to_string());
            // An empty one has been made just now, by somebody who has not written it yet.
            let is_left = |owner: &str| !owner.is_empty() && !Path::new(owner).exists();
            if fs::read_to_string(&file).is_ok_and(|owner| is_left(owner.trim())) {
                drop(fs::remove_file(&file));
            }
            let reserved = File::create_new(&file);
            if reserved.is_ok_and(|mut file| write!(file, "{}", owner.display()).is_ok())
                && TcpListener::bind(("127.0.0.1", port)).is_ok()
            {
                return Self(port);
            }
        }
        panic!("no free port");
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.0
    }

    /// Others may take it.
    pub fn give_back(&self) {
        let folder = std::env::temp_dir().join("tidegate-ports");
        drop(fs::remove_file(folder.join(self.0.to_string())));
    }
}
