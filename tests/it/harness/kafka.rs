//! A real Kafka, through `tests/kafka/cluster`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::{run, tests_dir};

/// A cluster of this test alone, or the one that tests share which do not break it. It goes down
/// with this value, or with the test process, whichever ends first.
#[derive(Debug)]
pub struct Kafka {
    dir: PathBuf,
    /// `host:port,…` of all nodes.
    pub bootstrap: String,
}

impl Kafka {
    /// Starts `nodes` brokers with these lines added to their properties.
    pub fn start(nodes: usize, properties: &[&str]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("tidegate-kafka-")
            .tempdir()
            .unwrap()
            .keep();
        let mut command = Command::new(tests_dir("kafka/cluster"));
        command
            .arg("start")
            .arg(&dir)
            .arg(nodes.to_string())
            .args(properties)
            .env("CLUSTER_OWNER", std::process::id().to_string());
        let printed = run(&mut command);
        let bootstrap = printed.trim().trim_start_matches("bootstrap=").to_owned();
        Self { dir, bootstrap }
    }

    /// A cluster that also has the listeners of `tests/kafka/secure.sh`.
    pub fn start_secure(nodes: usize, properties: &[&str]) -> Self {
        Self::start(nodes, &[&["--secure"], properties].concat())
    }

    /// One broker with those listeners, as [`Kafka::shared`].
    pub fn shared_secure() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(|| Self::start_secure(1, &[]))
    }

    /// `host:port,…` of all nodes' listeners of that name.
    pub fn listener(&self, name: &str) -> String {
        let all = std::fs::read_to_string(self.file("secure")).unwrap();
        let mut lines = all.lines().filter_map(|line| line.split_once(' '));
        let found = lines.find(|(listener, _)| *listener == name);
        found
            .unwrap_or_else(|| panic!("no {name} in {all}"))
            .1
            .to_owned()
    }

    /// A file of the cluster's folder: `tls/ca.pem`, `1/kafka.log`.
    pub fn file(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    /// One broker for all tests of this process that leave it as it is. Use topics of your own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(1, &[]))
    }

    /// `cluster VERB DIR ARGUMENTS…`: kill, stop, restart, pause, cont, cut, heal.
    pub fn cluster(&self, verb: &str, arguments: &[&str]) {
        let mut command = Command::new(tests_dir("kafka/cluster"));
        run(command.arg(verb).arg(&self.dir).args(arguments));
    }

    /// One of Kafka's own tools: `tool("topics", &["--list"])`.
    pub fn tool(&self, name: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(tests_dir("kafka/tool"));
        run(command.arg(&self.dir).arg(name).args(arguments))
    }

    /// Whether a foreign client gets metadata within two seconds.
    pub fn answers(&self) -> bool {
        let mut kcat = Command::new("kcat");
        kcat.args(["-L", "-m", "2", "-b", &self.bootstrap]);
        kcat.output().unwrap().status.success()
    }

    /// Makes a topic.
    pub fn create_topic(&self, topic: &str, partitions: u32) {
        let partitions = partitions.to_string();
        let arguments = ["--create", "--topic", topic, "--partitions", &partitions];
        self.tool("topics", &arguments);
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.cluster("down", &[]);
        drop(std::fs::remove_dir_all(&self.dir));
    }
}
