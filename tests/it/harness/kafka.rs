//! A real Kafka, through `tests/kafka/cluster`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tidegate::kafka::client::{Client, ClientConfig, CreateOutcome};

use super::{run, tests_dir};

/// Who brokers are among themselves, and who may do everything, where clients need rights.
const ADMIN: &str = "org.apache.kafka.common.security.plain.PlainLoginModule required \
    username=\"admin\" password=\"it\"";

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
        Self::start_at("127.0.0.1", nodes, properties)
    }

    /// The same, where clients find them at another address of this machine.
    pub fn start_at(host: &str, nodes: usize, properties: &[&str]) -> Self {
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
            .env("CLUSTER_OWNER", std::process::id().to_string())
            .env("CLUSTER_HOST", host);
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

    /// Starts a broker that allows clients nothing but what [`Self::allow`] says. They are
    /// `User:ANONYMOUS`; brokers and [`Self::tool`] are someone else, by SASL.
    pub fn start_with_rights() -> Self {
        let jaas = format!("plain.sasl.jaas.config={ADMIN} user_admin=\"it\";");
        let protocols = "CLIENT:PLAINTEXT,BROKER:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT";
        let properties = [
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:admin",
            &format!("listener.security.protocol.map={protocols}"),
            "sasl.enabled.mechanisms=PLAIN",
            "sasl.mechanism.inter.broker.protocol=PLAIN",
            "sasl.mechanism.controller.protocol=PLAIN",
            &format!("listener.name.broker.{jaas}"),
            &format!("listener.name.controller.{jaas}"),
        ];
        let kafka = Self::start(1, &properties);
        let admin = format!(
            "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config={ADMIN};\n"
        );
        std::fs::write(kafka.dir.join("admin.properties"), admin).unwrap();
        kafka
    }

    /// Allows clients operations (`Write`, `Describe` …) on a resource: `--topic t`, `--cluster`.
    pub fn allow(&self, operations: &[&str], resource: &[&str]) {
        let mut arguments = vec!["--add", "--allow-principal", "User:ANONYMOUS"];
        let operations = operations.iter();
        arguments.extend(operations.flat_map(|operation| ["--operation", operation]));
        self.tool("acls", &[&arguments, resource].concat());
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

    /// The same for one that may fail; `None` when it does.
    pub fn try_tool(&self, name: &str, arguments: &[&str]) -> Option<()> {
        let mut command = Command::new(tests_dir("kafka/tool"));
        command.arg(&self.dir).arg(name).args(arguments);
        command.output().unwrap().status.success().then_some(())
    }

    /// Whether a foreign client gets metadata within two seconds.
    pub fn answers(&self) -> bool {
        let mut kcat = Command::new("kcat");
        kcat.args(["-L", "-m", "2", "-b", &self.bootstrap]);
        kcat.output().unwrap().status.success()
    }

    /// [`Kafka::cluster`] for several nodes at once: `each("restart", &[1, 2, 3])`.
    pub fn each(&self, verb: &str, nodes: &[usize]) {
        std::thread::scope(|scope| {
            for node in nodes {
                scope.spawn(move || self.cluster(verb, &[&node.to_string()]));
            }
        });
    }

    /// Bytes of batches in a topic's log, over all replicas.
    pub fn log_bytes(&self, topic: &str) -> f64 {
        let entries = |path: &Path| {
            let entries = std::fs::read_dir(path).into_iter().flatten();
            entries
                .map(|entry| entry.unwrap().path())
                .collect::<Vec<_>>()
        };
        let named = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.rsplit_once('-').is_some_and(|(name, _)| name == topic)
        };
        let nodes = entries(&self.dir).into_iter().map(|node| node.join("log"));
        let partitions = nodes.flat_map(|log| entries(&log)).filter(named);
        let files = partitions.flat_map(|partition| entries(&partition));
        let logs = files.filter(|file| file.extension().is_some_and(|name| name == "log"));
        let bytes: u64 = logs.map(|log| log.metadata().unwrap().len()).sum();
        f64::from(u32::try_from(bytes).unwrap())
    }

    /// The leader of each partition, as a foreign client is told: "topic partition" → node.
    pub fn leaders(&self) -> BTreeMap<String, i64> {
        let mut kcat = Command::new("kcat");
        let text = run(kcat.args(["-L", "-J", "-m", "10", "-b", &self.bootstrap]));
        let told: serde_json::Value = serde_json::from_str(&text).unwrap();
        let topics = told["topics"].as_array().unwrap();
        let partitions = topics.iter().flat_map(|topic| {
            let name = topic["topic"].as_str().unwrap();
            let all = topic["partitions"].as_array().unwrap();
            all.iter().map(move |one| {
                let leader = one["leader"].as_i64().unwrap();
                (format!("{name} {}", one["partition"]), leader)
            })
        });
        partitions.collect()
    }

    /// How many producers the leaders of a topic remember, asked at the door between brokers, which
    /// is open while clients are cut off.
    pub fn producers(&self, topic: &str) -> usize {
        let ports = std::fs::read_to_string(self.file("1/ports")).unwrap();
        let port = ports.split_whitespace().nth(1).unwrap();
        let client = client(&format!("127.0.0.1:{port}"));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let partitions = client.topic(topic, true).await.unwrap().leaders.len();
            let mut producers = 0;
            for partition in 0..i32::try_from(partitions).unwrap() {
                let (leader, _) = client.leader(topic, partition).unwrap();
                let asked = [(topic.into(), partition)];
                let told = client.describe_producers(leader, &asked);
                producers += told.await.unwrap().remove(0).unwrap().len();
            }
            producers
        })
    }

    /// Makes topics, each with as many replicas as the cluster takes by default.
    pub fn create_topics<'a>(&self, topics: impl IntoIterator<Item = &'a str>, partitions: i32) {
        let client = client(&self.bootstrap);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        for topic in topics {
            let made = client.create_topic(topic, partitions, -1, &[]);
            let made = runtime.block_on(made).unwrap();
            assert_eq!(made, CreateOutcome::Created, "{topic}");
        }
    }

    /// Makes a topic.
    pub fn create_topic(&self, topic: &str, partitions: u32) {
        let partitions = partitions.to_string();
        self.create(topic, &["--partitions", &partitions]);
    }

    /// The same with one config of its own.
    pub fn create_topic_with(&self, topic: &str, partitions: u32, config: &str) {
        let partitions = partitions.to_string();
        self.create(topic, &["--partitions", &partitions, "--config", config]);
    }

    /// Makes a topic with these options of `kafka-topics.sh`.
    pub fn create(&self, topic: &str, options: &[&str]) {
        self.tool(
            "topics",
            &[&["--create", "--topic", topic], options].concat(),
        );
    }
}

fn client(bootstrap: &str) -> Client {
    Client::new(ClientConfig {
        security: Default::default(),
        bootstrap_servers: bootstrap.split(',').map(str::to_owned).collect(),
        client_id: "tests".into(),
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(20),
        server_timeout: Duration::from_secs(3),
        metadata_interval: Duration::from_millis(100),
        response_bytes_max: 8 << 20,
    })
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.cluster("down", &[]);
        drop(std::fs::remove_dir_all(&self.dir));
    }
}
