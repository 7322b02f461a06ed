//! A real Kafka, through `tests/kafka/cluster`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

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

    /// Whether a foreign client gets metadata within two seconds.
    pub fn answers(&self) -> bool {
        let mut kcat = Command::new("kcat");
        kcat.args(["-L", "-m", "2", "-b", &self.bootstrap]);
        kcat.output().unwrap().status.success()
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

impl Drop for Kafka {
    fn drop(&mut self) {
        self.cluster("down", &[]);
        drop(std::fs::remove_dir_all(&self.dir));
    }
}
