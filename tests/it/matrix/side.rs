//! One gateway of the matrix, its load, and what it says of a step.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use crate::harness::{Figures, Gateway, Kafka, Load, oracle};

/// Deadlines short enough for outages of ten seconds; every failure in the log.
const CONFIG: &str = r#"
[gateway]
id = "NAME"
log_filter = "tidegate::uplink=debug,info"
[kafka]
delivery = "DELIVERY"
connect_timeout_ms = 2000
request_timeout_ms = 6000
server_timeout_ms = 3000
retry_backoff_max_ms = 2000
[[proxy.route]]
mqtt = "+kind/+group/#rest"
topic = "{kind}-{group}"
"#;
/// A second's messages: less waits even when all is well.
const LEFT_MAX: f64 = 300.0;

/// A gateway under load.
pub struct Side {
    name: &'static str,
    pub gateway: Gateway,
    pub load: Load,
    /// Where it stood when the step began.
    at: Figures,
    log_at: u64,
    /// Counted in lives before this one.
    maybe_twice: f64,
}

impl Side {
    /// `name` begins its MQTT and Kafka topics; of these there are `groups`.
    pub fn start(
        kafka: &Kafka,
        (name, delivery): (&'static str, &str),
        groups: usize,
        rate: u32,
    ) -> Self {
        let config = CONFIG.replace("NAME", name).replace("DELIVERY", delivery);
        let gateway = Gateway::start(&kafka.bootstrap, &config);
        let load = format!(
            "--clients 10 --topics 30 --groups {groups} --rate {rate} --processes 1 --drain 240"
        );
        let load = Load::start(&gateway, name, &load);
        let at = gateway.metrics();
        Self {
            name,
            gateway,
            load,
            at,
            log_at: 0,
            maybe_twice: 0.0,
        }
    }

    /// A step begins.
    pub fn mark(&mut self) {
        self.at = self.gateway.metrics();
        self.log_at = self.gateway.log_path().metadata().unwrap().len();
    }

    /// What it has logged in this step.
    pub fn log(&self) -> String {
        let mut log = File::open(self.gateway.log_path()).unwrap();
        log.seek(SeekFrom::Start(self.log_at)).unwrap();
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How much a figure grew in this step.
    pub fn more(&self, figure: &str) -> f64 {
        self.gateway.metrics().of(figure) - self.at.of(figure)
    }

    /// Failures in this step whose cause has these words.
    pub fn said(&self, words: &str) -> usize {
        let log = self.log();
        let causes = log.lines().filter_map(|line| line.split_once("cause="));
        causes.filter(|(_, cause)| cause.contains(words)).count()
    }

    /// Failures in this step by cause.
    fn causes(&self) -> BTreeMap<String, usize> {
        let mut causes = BTreeMap::new();
        for line in self.log().lines() {
            if let Some((_, cause)) = line.split_once("cause=") {
                *causes.entry(kind(cause)).or_insert(0) += 1;
            }
        }
        causes
    }

    /// Nothing waits but what has just come, and nothing is held up.
    pub fn wait_well(&self, seconds: u64) {
        self.gateway
            .wait_figure("streams_stalled", seconds, |n| n == 0.0);
        self.gateway
            .wait_figure("buffered_records", seconds, |n| n < LEFT_MAX);
    }

    pub fn print(&self, step: &str) {
        let now = self.gateway.metrics();
        let more = |name: &str| now.of(name) - self.at.of(name);
        eprintln!(
            "{step}: {}: received {}, confirmed {}, {} waiting; batches {}, repeated {}, already \
             there {}; maybe twice {}; failures {:?}",
            self.name,
            more("received_total"),
            more("sent_total"),
            now.of("buffered_records"),
            more("produce_batches_total"),
            more("produce_batches_repeated_total"),
            more("produce_batches_already_there_total"),
            more("maybe_twice_total"),
            self.causes(),
        );
    }

    pub fn kill_and_start(&mut self) {
        self.maybe_twice += self.gateway.metrics().of("maybe_twice_total");
        self.gateway.kill9();
        self.gateway.up();
        self.at = self.gateway.metrics();
    }

    /// What came of it, and how many records the gateway says may be there twice. `recreated`
    /// matches the MQTT topics, without the name in front, whose Kafka topics were deleted.
    pub fn judge(self, kafka: &Kafka, recreated: &str) -> (oracle::Verdict, f64) {
        let (name, ledger) = (self.name, self.load.ledger.clone());
        let done = self.load.stop();
        assert_eq!(done.acked, done.sent, "{name}");
        self.gateway.wait_drained(240);
        let figures = self.gateway.metrics();
        assert_eq!(figures.of("quarantined_total"), 0.0, "{name}");
        let arguments = format!(
            "--pattern {name}-.* --recreated {name}/{recreated}/.* --headers --partitions-like-java"
        );
        let verdict = oracle::check(kafka, &[&ledger], &arguments);
        assert!(verdict.gone > 0, "{name}: nothing went with its topic");
        (verdict, self.maybe_twice + figures.of("maybe_twice_total"))
    }
}

/// Kafka's name for a failure; of others what the system said, or that no answer came.
fn kind(cause: &str) -> String {
    let mut words = cause.split(|c: char| !c.is_ascii_uppercase() && c != '_');
    if let Some(code) = words.find(|word| word.contains('_') && word.len() > 4) {
        return code.to_owned();
    }
    let known = [
        "refused",
        "reset",
        "timed out",
        "no answer",
        "eof",
        "closed",
        "leader",
        "in time",
    ];
    let found = known.into_iter().find(|known| cause.contains(known));
    found.unwrap_or(cause).to_owned()
}
