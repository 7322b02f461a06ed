//! The gateway's uplink alone, against a real Kafka, with a spool in memory: it can die at once and
//! forget what it knew.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate::config::checked::{self, Delivery};
use tidegate::kafka::Compression;
use tidegate::metrics::{Counter, Metrics};
use tokio_util::sync::CancellationToken;

use super::spool::MemorySpool;
use super::{Kafka, pause, run, wait};

/// A gateway's defaults, with shorter waits.
pub fn config(kafka: &Kafka) -> checked::Kafka {
    checked::Kafka {
        bootstrap_servers: kafka.bootstrap.split(',').map(str::to_owned).collect(),
        delivery: Delivery::ExactlyOnce,
        compression: Compression::Zstd,
        client_id: "tidegate-test".into(),
        provenance: true,
        connect_timeout: Duration::from_secs(3),
        request_timeout: Duration::from_secs(6),
        server_timeout: Duration::from_secs(3),
        batch_bytes_max: 256 << 10,
        request_bytes_max: 1 << 20,
        retry_backoff: (Duration::from_millis(100), Duration::from_secs(2)),
        security: Default::default(),
        dead_letter_after: None,
        topic_creation: None,
    }
}

/// A gateway's uplink in a runtime of its own, so that it can die at once.
pub struct Uplink {
    runtime: tokio::runtime::Runtime,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    metrics: Arc<Metrics>,
}

impl Uplink {
    /// Sends what the spool has, by the defaults of [`config`].
    pub fn to(kafka: &Kafka, spool: &Arc<MemorySpool>) -> Self {
        Self::start(&config(kafka), spool)
    }

    /// The same with a config of the test's own.
    pub fn start(config: &checked::Kafka, spool: &Arc<MemorySpool>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let shutdown = CancellationToken::new();
        let metrics = Arc::new(Metrics::default());
        let guard = runtime.enter();
        let outlet: Arc<dyn tidegate::spool::Outlet> = spool.clone();
        let task = tidegate::uplink::spawn(
            config,
            "test-1",
            outlet,
            Arc::clone(&metrics),
            shutdown.clone(),
        );
        drop(guard);
        Self {
            runtime,
            shutdown,
            task,
            metrics,
        }
    }

    /// As SIGTERM does.
    pub fn stop(self) {
        self.shutdown.cancel();
        let ended = async { tokio::time::timeout(Duration::from_secs(10), self.task).await };
        self.runtime.block_on(ended).unwrap().unwrap();
    }

    /// As SIGKILL does: sockets close, nothing is said.
    pub fn kill(self) {
        self.runtime.shutdown_background();
    }

    /// A figure of this life.
    pub fn count(&self, counter: Counter) -> u64 {
        self.metrics.count(counter)
    }
}

/// What Kafka has of a topic, by partition.
pub fn read(kafka: &Kafka, topic: &str) -> BTreeMap<i32, Vec<String>> {
    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-e", "-q", "-b", &kafka.bootstrap, "-t", topic]);
    let mut all: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for line in run(kcat.args(["-f", "%p %s\n"])).lines() {
        let (partition, value) = line.split_once(' ').unwrap();
        let values = all.entry(partition.parse().unwrap()).or_default();
        values.push(value.to_owned());
    }
    all
}

/// Missing 0, twice 0, out of order 0.
pub fn check(kafka: &Kafka, spool: &MemorySpool, topic: &str) {
    let (wanted, found) = (spool.values(topic), read(kafka, topic));
    let records: usize = wanted.values().map(Vec::len).sum();
    let (mut missing, mut twice, mut disorder) = (0, 0, 0);
    for (partition, wanted) in &wanted {
        let none = Vec::new();
        let found = found.get(partition).unwrap_or(&none);
        let mut seen = HashMap::new();
        for value in found {
            *seen.entry(value).or_insert(0usize) += 1;
        }
        missing += wanted
            .iter()
            .filter(|value| !seen.contains_key(value))
            .count();
        twice += seen.values().filter(|count| **count > 1).count();
        disorder += usize::from(found != wanted);
    }
    eprintln!(
        "{topic}: {records} records: missing {missing}, twice {twice}, partitions out of order \
         {disorder}"
    );
    assert_eq!((missing, twice, disorder), (0, 0, 0));
}

/// Waits until Kafka has confirmed everything.
pub fn drained(spool: &MemorySpool, seconds: u64) {
    wait("everything in Kafka", seconds, || {
        (spool.waiting() == 0).then_some(())
    });
}

/// Adds records to `partitions` of a topic every 5 ms while `body` runs.
pub fn under_load(spool: &Arc<MemorySpool>, topic: &str, partitions: i32, body: impl FnOnce()) {
    under_loads(spool, &[topic], (partitions, 3), body);
}

/// The same to many topics; how many partitions each has, and how many records go to each at once.
pub fn under_loads(
    spool: &Arc<MemorySpool>,
    topics: &[&str],
    (partitions, records): (i32, usize),
    body: impl FnOnce(),
) {
    let stop = Arc::new(AtomicBool::new(false));
    let load = {
        let (stop, spool) = (Arc::clone(&stop), Arc::clone(spool));
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for (topic, partition) in topics
                    .iter()
                    .flat_map(|t| (0..partitions).map(move |p| (t, p)))
                {
                    spool.add(topic, partition, (records, 100));
                }
                pause(Duration::from_millis(5));
            }
        })
    };
    body();
    stop.store(true, Ordering::Relaxed);
    load.join().unwrap();
}
