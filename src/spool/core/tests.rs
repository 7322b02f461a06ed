//! The spool against a model: a broker that keeps sequences as Kafka does, a disk that loses what
//! was not synced, and an uplink that may be cut at any step. No threads: each step is made by
//! hand, from a seed.

mod damage;
mod lanes;
mod time;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::super::intake::{Incoming, Intake, Settle, Ticket, TopicOptions};
use super::super::log::QUARANTINE;
use super::super::log::sim::{Fail, Rng, SimStore, each_seed};
use super::super::meta::{MetaError, Reason};
use super::super::outlet::{Identity, Leftover, Outlet, TakeLimits, Taken, TopicFacts};
use super::super::{Run, StreamId, TopicId, TopicPartition};
use super::stream::{Entry, Stream};
use super::writer::Clock;
use super::{OpenError, Spool, recover};
use crate::clock::Clock as Time;
use crate::config::checked::{self, OnFull, SpoolMode};
use crate::metrics::{Counter, Metrics};
use crate::record::{Record, RecordWriter};

/// Of this topic's records a third are too old when they come in.
const SHORT_LIVED: u64 = 3;

const LIMITS: TakeLimits = TakeLimits {
    batch_bytes_max: 600,
    streams_max: 4,
    bytes_max: 4_000,
};

pub(super) fn config() -> checked::Spool {
    checked::Spool {
        mode: SpoolMode::Hybrid,
        spill_after: Duration::ZERO,
        sync_interval: Duration::ZERO,
        max_bytes: 4 << 20,
        min_free_bytes: 0,
        on_full: OnFull::Refuse,
        segment_bytes: 64 << 10,
        memory_max_bytes: 16 << 10,
        replay_bytes_per_second: 0,
        stalled_max_percent: 25,
        on_stalled_full: OnFull::Refuse,
        compression_level: 1,
        quarantine_max_bytes: 1 << 20,
    }
}

#[derive(Debug, Default)]
struct Acks(Mutex<HashSet<u64>>);

impl Settle for Acks {
    fn safe(&self, tokens: &[u64]) {
        for token in tokens {
            assert!(self.0.lock().insert(*token), "{token} was settled twice");
        }
    }
}

/// A partition's log and what its leader remembers of the producer.
#[derive(Debug, Default)]
struct Partition {
    log: Vec<u64>,
    last: Option<(Run, u64)>,
}

#[derive(Debug, Default)]
struct Broker(BTreeMap<(String, i32), Partition>, Vec<(String, u64)>);

impl Broker {
    fn partition(&mut self, to: &TopicPartition) -> &mut Partition {
        self.0
            .entry((to.topic.to_string(), to.partition))
            .or_default()
    }

    fn append(&mut self, taken: &Taken) {
        let partition = self.partition(&taken.to);
        match partition.last {
            Some((run, last)) if run == taken.sent_as => {
                assert_eq!(taken.sequence, last + 1, "out of order sequence: {taken:?}");
            }
            Some((run, _)) => assert!(
                taken.sent_as > run && taken.sequence == 0,
                "epoch {run} then {} with sequence {}",
                taken.sent_as,
                taken.sequence
            ),
            None => {}
        }
        let last = taken.sequence + taken.records.len() as u64 - 1;
        partition.last = Some((taken.sent_as, last));
        let ids = taken
            .records
            .iter()
            .map(|record| id_of(record.value().unwrap().unwrap()));
        let ids: Vec<u64> = ids.collect();
        partition.log.extend(&ids);
        self.1
            .extend(ids.into_iter().map(|id| (taken.to.topic.to_string(), id)));
    }
}

fn id_of(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().unwrap())
}

struct World {
    random: Rng,
    store: Arc<SimStore>,
    folder: tempfile::TempDir,
    spool: Spool,
    clock: Clock,
    config: checked::Spool,
    acks: Arc<Acks>,
    broker: Broker,
    /// Out, with whether the broker has appended it.
    out: Vec<(Taken, bool)>,
    next_id: u64,
    /// Key and topic of each message, in order.
    sent: HashMap<u64, (String, u64)>,
    metrics: Arc<Metrics>,
    epoch: i16,
    crashes: u64,
    resumed: u64,
    /// By topic.
    priorities: [u8; 4],
    /// The broker may not be asked where it stands.
    blind: bool,
    time: Arc<Time>,
}

impl World {
    fn new(seed: u64, config: checked::Spool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::over(seed, config, SimStore::new(seed), folder)
    }

    /// With segments and state that are there already.
    fn over(seed: u64, config: checked::Spool, store: SimStore, folder: tempfile::TempDir) -> Self {
        let store = Arc::new(store);
        let metrics = Arc::new(Metrics::default());
        let time = Arc::new(Time::trusted());
        let spool = open(&config, &store, folder.path(), (&metrics, &time));
        let mut world = Self {
            random: Rng::new(seed),
            store,
            folder,
            spool,
            clock: Clock::default(),
            config,
            acks: Arc::default(),
            broker: Broker::default(),
            out: Vec::new(),
            next_id: 0,
            sent: HashMap::new(),
            metrics,
            epoch: 0,
            crashes: 0,
            resumed: 0,
            priorities: [0; 4],
            blind: false,
            time,
        };
        world.identify();
        world
    }

    fn identify(&mut self) {
        self.epoch += 1;
        let identity = Identity {
            producer_id: 1,
            epoch: self.epoch,
            cluster_id: "c".into(),
            device: String::new(),
        };
        self.spool
            .identify(self.spool.current_run(), identity)
            .unwrap();
    }

    /// Hands in a record whose value begins with `next_id`.
    fn append(&mut self, topic: TopicId, name_and_key: (String, u64), record: Record) {
        let ticket = Some(Ticket {
            to: self.acks.clone(),
            token: self.next_id,
        });
        self.sent.insert(self.next_id, name_and_key);
        self.next_id += 1;
        self.spool.append(&mut vec![Incoming {
            topic,
            record,
            ticket,
        }]);
    }

    fn publish(&mut self, topic: u64, key: u64, size: usize) {
        let name = format!("t{topic}");
        let short_lived = topic == SHORT_LIVED;
        let ttl = short_lived.then_some(Duration::from_secs(60));
        let priority = usize::try_from(topic)
            .ok()
            .and_then(|t| self.priorities.get(t));
        let priority = priority.copied().unwrap_or(0);
        let id = self.spool.topic(&name, &TopicOptions { priority, ttl });
        let mut value = self.next_id.to_le_bytes().to_vec();
        value.extend((0..size).map(|_| self.random.next() as u8));
        let age = if short_lived && self.random.one_in(3) {
            3_600_000
        } else {
            0
        };
        let record = RecordWriter::new(64, Some(&key.to_le_bytes()), Some(&value))
            .finish(super::wall_ms() - age);
        self.append(id, (name, key), record);
    }

    fn facts(&mut self, partitions: u32) {
        for (topic, _) in self.spool.unknown_topics() {
            self.spool.topic_facts(
                topic,
                TopicFacts {
                    partitions,
                    message_bytes_max: None,
                    timestamp_before_max_ms: None,
                },
            );
        }
    }

    fn write(&mut self) {
        self.spool.shared.write_step(&mut self.clock, false);
        self.clock.failed_ms = None;
    }

    fn load(&self) {
        self.spool.shared.load_all();
    }

    fn take(&mut self) {
        let taken = self.spool.take(&LIMITS, &mut |_, _| true);
        self.out
            .extend(taken.into_iter().map(|taken| (taken, false)));
    }

    /// One request that is out: it arrives, or is answered, or never was.
    fn answer(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let at = usize::try_from(self.random.below(self.out.len() as u64)).unwrap();
        let (taken, appended) = self.out.swap_remove(at);
        match (appended, self.random.below(4)) {
            (false, 0) if !self.blind && self.random.one_in(3) => {
                let at = self.random.below(taken.numbers.len() as u64);
                let number = taken.numbers[usize::try_from(at).unwrap()];
                self.spool
                    .quarantine(taken.stream, taken.run, number, "rejected");
            }
            (false, 0) => self.spool.put_back(taken.stream),
            (false, 1) => {
                self.arrive(&taken);
                self.out.push((taken, true));
            }
            (appended, _) => self.acknowledge(&taken, appended),
        }
    }

    fn acknowledge(&mut self, taken: &Taken, appended: bool) {
        if !appended {
            self.arrive(taken);
        }
        self.spool.appended(
            taken.stream,
            taken.run,
            *taken.numbers.last().unwrap(),
            None,
        );
    }

    /// What the broker does with a batch; where it may not be asked, older runs' records come one
    /// by one, and those that are there are refused.
    fn arrive(&mut self, taken: &Taken) {
        if !self.blind || taken.run == self.spool.current_run() {
            return self.broker.append(taken);
        }
        for (sequence, record) in (taken.sequence..).zip(&taken.records) {
            let there = match self.broker.partition(&taken.to).last {
                Some((run, last)) if run == taken.sent_as => sequence <= last,
                last => last.is_some_and(|(run, _)| run > taken.sent_as),
            };
            let records = vec![record.clone()];
            let one = Taken {
                sequence,
                records,
                ..taken.clone()
            };
            if !there {
                self.broker.append(&one);
            }
        }
    }

    fn crash(&mut self, lose_meta: bool) {
        self.crashes += 1;
        self.out.clear();
        self.store.no_failure();
        let placeholder = SimStore::new(0);
        let empty = tempfile::tempdir().unwrap();
        // The old spool must let go of its folder before the new one opens it.
        self.spool = open(
            &self.config,
            &Arc::new(placeholder),
            empty.path(),
            (&self.metrics, &self.time),
        );
        self.store.crash();
        if lose_meta {
            std::fs::remove_dir_all(self.folder.path()).unwrap();
        }
        let parts = (&self.metrics, &self.time);
        self.spool = open(&self.config, &self.store, self.folder.path(), parts);
        self.clock = Clock::default();
        self.identify();
    }

    fn resolve(&mut self) {
        for left in self.spool.unresolved(100) {
            let state = self.broker.partition(&left.to).last;
            self.spool.blind(left.stream, self.blind);
            let next = match state {
                _ if self.blind => left.sequence,
                Some((run, last)) if run == left.sent_as => left.sequence.max(last + 1),
                Some((run, _)) if run > left.sent_as => left.last_sequence + 1,
                _ => left.sequence,
            };
            self.resumed += 1;
            let proven = !self.blind && self.random.one_in(2);
            self.spool
                .resolved(left.stream, left.run, next, None, proven);
        }
    }

    /// Any stream stalls, or does no more.
    fn stall(&mut self) {
        let streams = self.spool.shared.state.lock().streams.len() as u64;
        if streams > 0 {
            let id = u32::try_from(self.random.below(streams)).unwrap();
            let stalled = self.random.one_in(2);
            self.spool.stalled(StreamId(id), stalled);
        }
    }

    fn drain(&mut self) {
        self.store.no_failure();
        self.spool.uplink(true);
        for (taken, appended) in std::mem::take(&mut self.out) {
            self.acknowledge(&taken, appended);
        }
        for _ in 0..20_000 {
            self.facts(3);
            self.resolve();
            self.write();
            self.load();
            self.take();
            if self.out.is_empty() && self.is_drained() {
                return;
            }
            for (taken, appended) in std::mem::take(&mut self.out) {
                self.acknowledge(&taken, appended);
            }
        }
        self.report(|stream, run| !stream.is_drained(run));
        panic!("not drained");
    }

    /// What the failing spool knows of some of its streams, for the test's output.
    fn report(&self, wanted: impl Fn(&Stream, Run) -> bool) {
        let numbers = |entries: &VecDeque<Entry>| -> Vec<_> {
            entries
                .iter()
                .map(|entry| (entry.run.0, entry.number))
                .collect()
        };
        let state = self.spool.shared.state.lock();
        for s in state.streams.iter().filter(|s| wanted(s, state.run)) {
            println!(
                "{:?} {}-{} next {} durable {} confirmed {:?} load {:?}\n  spans {:?}\n  \
                 unresolved {:?} taken {:?}\n  hot {:?} cold {:?}",
                s.id,
                s.to.topic,
                s.to.partition,
                s.next,
                s.durable,
                s.confirmed,
                s.load_next,
                s.spans,
                s.unresolved,
                s.taken,
                numbers(&s.hot),
                numbers(&s.cold),
            );
        }
    }

    fn is_drained(&self) -> bool {
        let state = self.spool.shared.state.lock();
        state.streams.iter().all(|s| s.is_drained(state.run))
    }

    /// Nothing acknowledged is missing, nothing is there twice, each key is in order.
    fn check(&self, seed: u64) {
        let mut seen = HashSet::new();
        let mut last: HashMap<(String, u64), u64> = HashMap::new();
        for (topic, id) in &self.broker.1 {
            assert!(seen.insert(*id), "seed {seed}: {id} is there twice");
            let (sent_to, key) = &self.sent[id];
            assert_eq!(sent_to, topic, "seed {seed}: {id} went astray");
            let before = last.insert((topic.clone(), *key), *id);
            assert!(before < Some(*id), "seed {seed}: {id} behind {before:?}");
        }
        let dropped = self.metrics.count(Counter::DroppedFull)
            + self.metrics.count(Counter::DroppedExpired)
            + self.metrics.count(Counter::Quarantined)
            + self.metrics.count(Counter::LostDamaged);
        let missing: Vec<_> = self
            .acks
            .0
            .lock()
            .iter()
            .filter(|id| !seen.contains(id))
            .copied()
            .collect();
        if missing.len() as u64 > dropped {
            self.report(|_, _| true);
            let mut named: Vec<_> = missing.iter().map(|id| (&self.sent[id], id)).collect();
            named.sort();
            println!("ledger {:#?}", self.spool.shared.meta.lock().ledger(100));
            println!("missing {named:?}\nthere {:?}", self.broker.0);
        }
        assert!(
            missing.len() as u64 <= dropped,
            "seed {seed}: acknowledged and missing {missing:?}, explained {dropped}"
        );
    }
}

fn open(
    config: &checked::Spool,
    store: &Arc<SimStore>,
    folder: &Path,
    (metrics, clock): (&Arc<Metrics>, &Arc<Time>),
) -> Spool {
    // A thread of the sled that was dropped may hold its lock for a moment.
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let parts = (metrics.clone(), clock.clone());
        match recover::open(config, store.clone(), &folder.join("meta"), parts) {
            Err(OpenError::Meta(MetaError::Locked { .. })) if Instant::now() < end => {
                std::thread::yield_now();
            }
            opened => {
                let shared = Arc::new(opened.unwrap());
                return Spool { shared };
            }
        }
    }
}

fn live(seed: u64, steps: u64, blind: bool) -> World {
    let mut world = World::new(seed, config());
    world.priorities = [0, 9, 4, 4];
    world.blind = blind;
    for _ in 0..steps {
        match world.random.below(21) {
            0..=5 => {
                let (topic, key) = (world.random.below(4), world.random.below(6));
                let size = usize::try_from(world.random.below(200)).unwrap();
                world.publish(topic, key, size);
            }
            6..=8 => {
                world.write();
                if world.random.one_in(4) {
                    world.spool.shared.store();
                }
            }
            9 => world.load(),
            10..=11 => world.take(),
            12..=15 => world.answer(),
            16 => {
                let up = world.random.one_in(2);
                world.spool.uplink(up);
            }
            17 => world.facts(3),
            18 => world.resolve(),
            19 => world.stall(),
            _ if world.random.one_in(4) => world.crash(false),
            _ if world.random.one_in(3) => {
                let at = world.random.below(6);
                let how = if world.random.one_in(2) {
                    Fail::Eio
                } else {
                    Fail::NoSpace
                };
                world.store.fail_in(at, how);
            }
            _ => {}
        }
    }
    world
}

#[test]
fn seeded_lives_lose_nothing_and_send_each_record_once() {
    let (seeds, counts) = each_seed(
        "TIDEGATE_SPOOL_SEEDS",
        1_000,
        |seed, counts: &mut [u64; 3]| {
            // Every third without the right to ask.
            let mut world = live(seed, 400, seed % 3 == 0);
            world.drain();
            world.check(seed);
            let acked = u64::try_from(world.acks.0.lock().len()).unwrap();
            for (sum, more) in counts.iter_mut().zip([world.crashes, acked, world.resumed]) {
                *sum += more;
            }
        },
    );
    let sum = |i: usize| counts.iter().map(|core| core[i]).sum::<u64>();
    let (crashes, acked, resumed) = (sum(0), sum(1), sum(2));
    println!(
        "seeds {seeds:?}: {crashes} power cuts, {acked} acknowledged, {resumed} streams resumed"
    );
    assert!(crashes > 0 && resumed > 0, "the faults did not bite");
}

#[test]
fn what_kafka_confirms_in_time_is_never_written() {
    let mut config = config();
    config.spill_after = Duration::from_secs(3600);
    let mut world = World::new(1, config);
    world.facts(3);
    for n in 0..200 {
        world.publish(0, n % 7, 50);
        world.facts(3);
        world.write();
        world.take();
        for (taken, appended) in std::mem::take(&mut world.out) {
            world.acknowledge(&taken, appended);
        }
    }
    world.drain();
    world.check(1);
    assert_eq!(world.acks.0.lock().len(), 200);
    assert_eq!(world.metrics.count(Counter::DiskBytes), 0);
}

#[test]
fn with_kafka_away_records_are_safe_on_disk_and_leave_memory() {
    let mut world = World::new(2, config());
    world.publish(0, 1, 10);
    world.facts(3);
    world.write();
    world.spool.uplink(false);
    for n in 0..2_000 {
        world.publish(0, n % 50, 100);
        if n % 100 == 0 {
            world.write();
        }
    }
    world.write();
    assert_eq!(world.acks.0.lock().len(), 2_001);
    assert!(world.spool.shared.state.lock().hot_bytes < 1_000);
    world.crash(true);
    world.drain();
    world.check(2);
}

#[test]
fn a_batch_of_unknown_fate_keeps_itself_in_memory_and_nothing_else() {
    let mut world = World::new(11, config());
    world.publish(0, 1, 10);
    world.facts(1);
    world.write();
    for _ in 0..5 {
        world.publish(0, 1, 100);
    }
    world.take();
    assert_eq!(world.out.len(), 1);
    world.spool.uplink(false);
    for n in 0..2_000 {
        world.publish(0, 1, 100);
        if n % 100 == 0 {
            world.write();
        }
    }
    world.write();
    assert_eq!(world.acks.0.lock().len(), 2_006);
    {
        let state = world.spool.shared.state.lock();
        assert!(state.hot_bytes < 1_000 && state.cold_bytes < 1_000);
    }
    // It turns out to have been appended.
    world.drain();
    world.check(11);
    let log = &world.broker.0[&("t0".to_owned(), 0)].log;
    assert_eq!(log.len(), 2_006);
}

#[test]
fn the_next_segments_file_is_made_while_no_commit_waits() {
    let mut world = World::new(8, config());
    world.publish(0, 1, 10);
    world.facts(1);
    world.write();
    world.spool.uplink(false);
    let segments = |world: &World| world.spool.shared.state.lock().segments.len();
    while segments(&world) < 3 {
        world.publish(0, 1, 500);
        world.write();
    }
    assert_eq!(world.store.files().len(), segments(&world) + 2);
    world.drain();
    world.check(8);
}

#[test]
fn drop_oldest_makes_room_and_the_ledger_explains_it() {
    let mut config = config();
    config.max_bytes = 512 << 10;
    config.on_full = OnFull::DropOldest;
    let mut world = World::new(3, config);
    world.publish(0, 1, 10);
    world.facts(2);
    world.write();
    world.spool.uplink(false);
    let noise: Vec<u64> = (0..6_000).map(|_| world.random.next()).collect();
    for n in noise {
        world.publish(0, n % 20, usize::try_from(n % 400).unwrap());
        if n % 16 == 0 {
            world.write();
        }
    }
    world.write();
    let dropped = world.metrics.count(Counter::DroppedFull);
    assert!(dropped > 0, "the fault did not bite");
    world.drain();
    world.check(3);
    let there: usize = world.broker.0.values().map(|p| p.log.len()).sum();
    assert_eq!(there as u64 + dropped, 6_001);
}

#[test]
fn a_disk_full_of_records_that_are_not_dealt_yet_drains_wholly() {
    for (seed, topics) in [(31, 1), (32, 3)] {
        let mut config = config();
        config.max_bytes = 512 << 10;
        let mut world = World::new(seed, config);
        world.spool.uplink(false);
        while !world.spool.shared.state.lock().full {
            let n = world.next_id;
            world.publish(n % topics, n % 20, 300);
            if n.is_multiple_of(16) {
                world.write();
            }
        }
        let written = world.acks.0.lock().len();
        assert!(written > 500, "the disk is not full: {written}");
        if seed == 32 {
            world.crash(false);
        }
        world.drain();
        world.check(seed);
    }
}

#[test]
fn a_rejected_record_goes_to_quarantine_and_the_rest_flows() {
    let mut world = World::new(4, config());
    world.publish(0, 1, 10);
    world.facts(1);
    world.write();
    for _ in 0..9 {
        world.publish(0, 1, 10);
    }
    world.take();
    let (taken, _) = world.out.pop().unwrap();
    world
        .spool
        .quarantine(taken.stream, taken.run, taken.numbers[2], "too large");
    world.write();
    world.drain();
    let log = &world.broker.0[&("t0".to_owned(), 0)].log;
    assert_eq!(log.len(), 9);
    assert!(!log.contains(&2));
    assert_eq!(world.acks.0.lock().len(), 10);
    assert_eq!(world.metrics.count(Counter::Quarantined), 1);
}

#[test]
fn expired_records_leave_the_middle_of_a_stream() {
    let mut world = World::new(5, config());
    let options = TopicOptions {
        priority: 3,
        ttl: Some(Duration::from_secs(60)),
    };
    let id = world.spool.topic("old", &options);
    world.facts(1);
    world.write();
    for n in 0..10u64 {
        let age = if (3..6).contains(&n) { 3_600_000 } else { 0 };
        let value = world.next_id.to_le_bytes();
        let record = RecordWriter::new(64, Some(b"k"), Some(&value)).finish(super::wall_ms() - age);
        world.append(id, ("old".into(), 0), record);
    }
    world.drain();
    world.check(5);
    assert_eq!(
        world.broker.0[&("old".to_owned(), 0)].log,
        [0, 1, 2, 6, 7, 8, 9]
    );
    assert_eq!(world.metrics.count(Counter::DroppedExpired), 3);
}

#[test]
fn a_topic_that_grows_keeps_the_order_of_its_keys() {
    let mut world = World::new(6, config());
    world.publish(0, 0, 10);
    world.facts(2);
    world.write();
    for n in 0..200 {
        world.publish(0, n % 10, 20);
        if n == 100 {
            let id = world.spool.topic("t0", &TopicOptions::default());
            world.spool.topic_facts(
                id,
                TopicFacts {
                    partitions: 5,
                    message_bytes_max: None,
                    timestamp_before_max_ms: None,
                },
            );
            world.spool.uplink(false);
        }
        if n % 9 == 0 {
            world.write();
        }
    }
    world.crash(false);
    world.spool.uplink(true);
    let id = world.spool.topic("t0", &TopicOptions::default());
    world.spool.topic_facts(
        id,
        TopicFacts {
            partitions: 5,
            message_bytes_max: None,
            timestamp_before_max_ms: None,
        },
    );
    world.drain();
    world.check(6);
    assert!(world.broker.0.keys().any(|(_, partition)| *partition > 1));
}

#[test]
fn stream_ids_are_dense() {
    let world = World::new(7, config());
    assert!(
        world
            .spool
            .shared
            .state
            .lock()
            .stream(StreamId(0))
            .is_none()
    );
}

#[test]
fn a_commit_waits_for_company_but_for_no_more_than_it_needs() {
    let patient = checked::Spool {
        sync_interval: Duration::from_secs(3600),
        segment_bytes: 1 << 20,
        memory_max_bytes: 16 << 20,
        ..config()
    };
    let mut world = World::new(1, patient);
    world.spool.uplink(false);
    world.publish(0, 0, 10);
    world.write();
    assert_eq!(world.acks.0.lock().len(), 0);
    for _ in 0..8 {
        world.publish(0, 0, 16 << 10);
    }
    world.write();
    assert_eq!(world.acks.0.lock().len(), 9);
}

/// A topic that cannot be sent, and one that can: what the second sends is acknowledged, the first
/// waits.
fn one_of_two_stalls(config: checked::Spool, rounds: u64) -> (World, StreamId) {
    let mut world = World::new(8, config);
    world.publish(0, 0, 10);
    world.publish(1, 0, 10);
    world.facts(1);
    world.write();
    world.take();
    let stalled = world
        .out
        .iter()
        .find(|(taken, _)| &*taken.to.topic == "t0")
        .unwrap()
        .0
        .stream;
    world.spool.put_back(stalled);
    for (taken, appended) in std::mem::take(&mut world.out) {
        if taken.stream != stalled {
            world.acknowledge(&taken, appended);
        }
    }
    world.spool.stalled(stalled, true);
    for _ in 0..rounds {
        world.publish(0, 0, 300);
        for _ in 0..8 {
            world.publish(1, 0, 300);
        }
        world.write();
        loop {
            world.load();
            let taken = world.spool.take(&LIMITS, &mut |id, _| id != stalled);
            if taken.is_empty() {
                break;
            }
            for taken in taken {
                world.acknowledge(&taken, false);
            }
        }
        world.spool.shared.limit_stalled();
        world.spool.shared.copy_forward();
    }
    (world, stalled)
}

#[test]
fn a_stalled_stream_holds_its_share_of_the_disk_and_no_more() {
    let config = checked::Spool {
        stalled_max_percent: 1,
        ..config()
    };
    let share = config.max_bytes / 100;
    let (mut world, stalled) = one_of_two_stalls(config, 400);
    let held = world
        .spool
        .shared
        .state
        .lock()
        .stream(stalled)
        .unwrap()
        .disk_bytes;
    assert!(held > share && held < share * 2, "{held} of {share}");
    let waiting = world.sent.len() - world.acks.0.lock().len();
    assert!(waiting > 100, "its senders wait: {waiting}");
    world.spool.stalled(stalled, false);
    world.drain();
    world.check(8);
    assert_eq!(world.acks.0.lock().len(), world.sent.len());
}

#[test]
fn what_a_stalled_stream_left_in_many_segments_is_copied_into_few() {
    let config = checked::Spool {
        max_bytes: 1 << 20,
        stalled_max_percent: 100,
        mode: SpoolMode::Always,
        ..config()
    };
    let (mut world, stalled) = one_of_two_stalls(config, 600);
    let first = world
        .spool
        .shared
        .state
        .lock()
        .stream(stalled)
        .unwrap()
        .spans[0]
        .segment;
    assert!(first.0 > 2, "nothing was copied forward: {first:?}");
    world.crash(false);
    world.drain();
    world.check(8);
    assert_eq!(world.acks.0.lock().len(), world.sent.len());
}

#[test]
fn what_kafka_confirmed_before_it_was_written_is_no_hole_after_a_restart() {
    let mut world = World::new(9, config());
    world.publish(0, 0, 10);
    world.facts(1);
    world.write();
    world.publish(0, 0, 10);
    world.write();
    for _ in 0..3 {
        world.publish(0, 0, 10);
    }
    world.take();
    for (taken, appended) in std::mem::take(&mut world.out) {
        world.acknowledge(&taken, appended);
    }
    world.publish(0, 0, 10);
    world.write();
    world.crash(false);
    // Kafka has forgotten the producer: all of the run is offered again.
    let left = world.spool.unresolved(1).pop().unwrap();
    world
        .spool
        .resolved(left.stream, left.run, left.sequence, None, false);
    let mut numbers = Vec::new();
    for _ in 0..10 {
        world.load();
        for taken in world.spool.take(&LIMITS, &mut |_, _| true) {
            numbers.extend(&taken.numbers);
            let unbroken: Vec<u64> = (taken.sequence..).take(taken.records.len()).collect();
            assert_eq!(taken.numbers, unbroken, "a batch over the gap");
            let last = *taken.numbers.last().unwrap();
            world.spool.appended(taken.stream, taken.run, last, None);
        }
    }
    assert_eq!(
        (left.first, left.last, numbers.last()),
        (numbers[0], 5, Some(&5))
    );
    assert!(numbers.len() < 6, "the test has no gap: {numbers:?}");
    assert_eq!(world.metrics.count(Counter::LostDamaged), 0);
}

/// A world with six records on disk of which an earlier run does not know whether Kafka has them.
fn left_over(seed: u64) -> (World, Leftover) {
    let mut world = World::new(seed, config());
    world.publish(0, 0, 10);
    world.facts(1);
    world.write();
    for _ in 0..5 {
        world.publish(0, 0, 10);
    }
    world.write();
    world.crash(false);
    let left = world.spool.unresolved(1).pop().unwrap();
    assert_eq!((left.last - left.first, left.holes), (5, false));
    (world, left)
}

#[test]
fn what_is_dropped_while_blind_is_asked_about_again() {
    let (mut world, left) = left_over(11);
    let (stream, run) = (left.stream, left.run);
    world.spool.blind(stream, true);
    world
        .spool
        .resolved(stream, run, left.sequence, None, false);
    world.load();
    let middle = (left.first + 1, left.first + 3);
    let shared = Arc::clone(&world.spool.shared);
    assert!(shared.drop_range(stream, run, middle, Reason::Damaged));
    world.take();
    assert!(
        world.out.is_empty(),
        "sent under sequences that nobody knows"
    );
    let again = world.spool.unresolved(1).pop().unwrap();
    assert_eq!(
        (again.first, again.last, again.holes),
        (left.first, left.last, true)
    );
    let identity = Identity {
        producer_id: 1,
        epoch: 100,
        cluster_id: "c".into(),
        device: String::new(),
    };
    world
        .spool
        .rebase(stream, run, left.first, identity)
        .unwrap();
    world.drain();
    assert_eq!(world.broker.1.len(), 4);
    assert_eq!(world.metrics.count(Counter::LostDamaged), 2);
}

#[test]
fn a_leftover_that_is_dropped_whole_holds_nothing_up() {
    let (mut world, left) = left_over(12);
    let shared = Arc::clone(&world.spool.shared);
    assert!(shared.drop_range(
        left.stream,
        left.run,
        (left.first, left.last + 1),
        Reason::Full
    ));
    world.publish(0, 0, 10);
    world.drain();
    assert_eq!(world.broker.1.len(), 1);
}

#[test]
fn the_quarantine_keeps_its_bound() {
    let config = checked::Spool {
        memory_max_bytes: 1 << 20,
        quarantine_max_bytes: 128 << 10,
        ..config()
    };
    let mut world = World::new(10, config);
    world.publish(0, 0, 10);
    world.facts(1);
    world.write();
    for _ in 0..40 {
        world.publish(0, 0, 8_000);
    }
    for _ in 0..41 {
        world.take();
        let (taken, _) = world.out.pop().unwrap();
        world
            .spool
            .quarantine(taken.stream, taken.run, taken.first, "rejected");
        world.write();
    }
    let kept = world.spool.shared.log.lock().segments_of(QUARANTINE).len();
    assert!((1..=2).contains(&kept), "{kept} segments of 64 KiB");
    assert_eq!(world.metrics.count(Counter::Quarantined), 41);
    assert_eq!(world.acks.0.lock().len(), 41);
}
