//! A long outage's backlog, made in seconds: the gateway's own spool writes it, in this process.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use tidegate::config::{self, RouteReport};
use tidegate::metrics::Metrics;
use tidegate::record::RecordWriter;
use tidegate::spool::core::Spool;
use tidegate::spool::outlet::TopicFacts;
use tidegate::spool::{Incoming, Intake as _, Outlet as _, Settle, Ticket, TopicOptions};

use super::Gateway;

/// Records that are handed in at once.
const BATCH: u64 = 500;
/// Records that may wait for their frame: what devices' windows bound in a gateway.
const WAITING_MAX: u64 = 40_000;

/// What was made.
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    /// Records, all acknowledged.
    pub records: u64,
    /// Bytes of their payloads.
    pub payload: u64,
    /// Bytes of the segment files that hold them.
    pub files: u64,
}

/// Writes `bytes` of payload into the data folder of a gateway that does not run, by its config,
/// to `topics` of `partitions` each, which Kafka need not have met.
pub fn make(gateway: &Gateway, bytes: u64, (topics, partitions): (&[String], u32)) -> Backlog {
    let no_routes = |_: &_| RouteReport::default();
    let loaded = config::load(&gateway.config_path(), None, std::iter::empty(), no_routes).unwrap();
    let _lock = tidegate::app::lock(&gateway.data_dir()).unwrap();
    let folder = gateway.data_dir().join("spool");
    let spool = Spool::open(&loaded.config.spool, &folder, Arc::new(Metrics::default())).unwrap();
    spool.uplink(false);
    let facts = TopicFacts {
        partitions,
        message_bytes_max: None,
        timestamp_before_max_ms: None,
    };
    let ids = topics.iter().map(|topic| {
        let id = spool.topic(topic, &TopicOptions::default());
        spool.topic_facts(id, facts);
        id
    });
    let ids: Vec<_> = ids.collect();
    let acks = Arc::new(Acks::default());
    let (mut records, mut payload, mut text) = (0, 0, String::new());
    let mut batch = Vec::new();
    while payload < bytes {
        for topic in ids.iter().cycle().take(usize::try_from(BATCH).unwrap()) {
            let device = reading(&mut text, records);
            let body = RecordWriter::new(Some(device.as_bytes()), Some(text.as_bytes()));
            batch.push(Incoming {
                topic: *topic,
                record: body.finish(1_767_225_600_000 + i64::try_from(records / 500).unwrap()),
                ticket: Some(Ticket {
                    to: acks.clone(),
                    token: records,
                }),
                keep: Box::default(),
            });
            payload += text.len() as u64;
            records += 1;
        }
        spool.append(&mut batch);
        acks.wait(records - records.min(WAITING_MAX));
    }
    acks.wait(records);
    spool.stop();
    Backlog {
        records,
        payload,
        files: size(&folder.join("segments")),
    }
}

#[derive(Debug, Default)]
struct Acks {
    safe: AtomicU64,
    told: Mutex<()>,
    more: Condvar,
}

impl Acks {
    /// Waits until so many records are safe.
    fn wait(&self, records: u64) {
        let mut told = self.told.lock().unwrap();
        while self.safe.load(Ordering::Acquire) < records {
            told = self.more.wait(told).unwrap();
        }
    }
}

impl Settle for Acks {
    fn safe(&self, tokens: &[u64]) {
        let _told = self.told.lock().unwrap();
        self.safe.fetch_add(tokens.len() as u64, Ordering::Release);
        self.more.notify_one();
    }
}

/// A reading as a device sends it, about 250 bytes of JSON; gives the device's name.
fn reading(out: &mut String, number: u64) -> String {
    use std::fmt::Write as _;
    let mut random = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    random ^= random >> 29;
    random = random.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    random ^= random >> 32;
    let (device, noise) = (number % 5_003, |bits: u32| (random >> bits) & 1_023);
    let name = format!("line-{}/device-{device:05}", device % 40);
    out.clear();
    write!(
        out,
        "{{\"device\":\"{name}\",\"message\":\"{random:016x}\",\"counter\":{number},\
         \"time\":{},\"temperature\":{}.{:02},\"humidity\":{}.{:02},\"pressure\":{}.{},\
         \"vibration\":{{\"x\":0.{:03},\"y\":0.{:03},\"z\":0.{:03}}},\"battery\":{},\
         \"state\":\"running\",\"alarms\":[]}}",
        1_767_225_600_000 + number / 5,
        18 + noise(0) / 256,
        noise(2) % 100,
        40 + noise(10) / 100,
        noise(12) % 100,
        1_009 + noise(20) / 200,
        noise(22) % 10,
        noise(30) % 1_000,
        noise(40) % 1_000,
        noise(50) % 1_000,
        3_200 + noise(5) / 10,
    )
    .unwrap();
    name
}

/// Bytes of the files in a folder.
fn size(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap();
    files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum()
}
