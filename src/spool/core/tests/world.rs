//! A spool whose steps are made by hand, a disk that may fail, and a broker that keeps sequences as
//! Kafka does.

use super::*;

/// Of this topic's records a third are too old when they come in.
pub(super) const SHORT_LIVED: u64 = 3;

pub(super) const LIMITS: TakeLimits = TakeLimits {
    batch_bytes_max: 600,
    streams_max: 4,
    bytes_max: 4_000,
};

pub(in super::super) fn config() -> checked::Spool {
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
        kept_max_bytes: 1 << 20,
        dead_letter_topic: None,
    }
}

#[derive(Debug, Default)]
pub(super) struct Acks(pub(super) Mutex<HashSet<u64>>);

impl Settle for Acks {
    fn safe(&self, tokens: &[u64]) {
        for token in tokens {
            assert!(self.0.lock().insert(*token), "{token} was settled twice");
        }
    }
}

/// A partition's log and what its leader remembers of the producer.
#[derive(Debug, Default)]
pub(super) struct Partition {
    pub(super) log: Vec<u64>,
    pub(super) last: Option<(Run, u64)>,
}

#[derive(Debug, Default)]
pub(super) struct Broker(
    pub(super) BTreeMap<(String, i32), Partition>,
    pub(super) Vec<(String, u64)>,
);

impl Broker {
    pub(super) fn partition(&mut self, to: &TopicPartition) -> &mut Partition {
        self.0
            .entry((to.topic.to_string(), to.partition))
            .or_default()
    }

    pub(super) fn append(&mut self, taken: &Taken) {
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

pub(super) fn id_of(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().unwrap())
}

pub(super) struct World {
    pub(super) random: Rng,
    pub(super) store: Arc<SimStore>,
    /// What is kept beside records.
    pub(super) kept: Arc<SimStore>,
    /// Every other record comes with a key that is kept, its number.
    pub(super) keeps: bool,
    pub(super) folder: tempfile::TempDir,
    pub(super) spool: Spool,
    pub(super) done: Done,
    pub(super) config: checked::Spool,
    pub(super) acks: Arc<Acks>,
    pub(super) broker: Broker,
    /// Out, with whether the broker has appended it.
    pub(super) out: Vec<(Taken, bool)>,
    pub(super) next_id: u64,
    /// Key and topic of each message, in order.
    pub(super) sent: HashMap<u64, (String, u64)>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) epoch: i16,
    pub(super) crashes: u64,
    pub(super) resumed: u64,
    /// What Kafka has rejected.
    pub(super) rejected: HashSet<u64>,
    /// By topic.
    pub(super) priorities: [u8; 4],
    /// The broker may not be asked where it stands.
    pub(super) blind: bool,
    pub(super) time: Arc<Clock>,
}

/// How many keys come with a record, if any do.
pub(super) fn kept_with(id: u64) -> u8 {
    if id.is_multiple_of(3) { 2 } else { 1 }
}

impl World {
    pub(super) fn new(seed: u64, config: checked::Spool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::over(seed, config, SimStore::new(seed), folder)
    }

    /// With segments and state that are there already.
    pub(super) fn over(
        seed: u64,
        config: checked::Spool,
        store: SimStore,
        folder: tempfile::TempDir,
    ) -> Self {
        let store = Arc::new(store);
        let metrics = Arc::new(Metrics::default());
        let time = Arc::new(Clock::trusted());
        let kept = Arc::new(SimStore::new(seed + 1));
        let spool = open(&config, (&store, &kept), folder.path(), (&metrics, &time));
        let mut world = Self {
            random: Rng::new(seed),
            store,
            kept,
            keeps: false,
            folder,
            spool,
            done: Done::default(),
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
            rejected: HashSet::new(),
            priorities: [0; 4],
            blind: false,
            time,
        };
        world.identify();
        world
    }

    pub(super) fn identify(&mut self) {
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
    pub(super) fn append(&mut self, topic: TopicId, name_and_key: (String, u64), record: Record) {
        let ticket = Some(Ticket {
            to: self.acks.clone(),
            token: self.next_id,
        });
        let key = self.next_id.to_le_bytes();
        let keeps = self.keeps && self.random.one_in(2);
        let copies = if !keeps { 0 } else { kept_with(self.next_id) };
        let keep = (0..copies).map(|copy| {
            let value = Some(Bytes::copy_from_slice(&key));
            let key = [&key[..], &[copy]].concat().into();
            Change { key, value }
        });
        let keep = keep.collect();
        self.sent.insert(self.next_id, name_and_key);
        self.next_id += 1;
        self.spool.append(&mut vec![Incoming {
            topic,
            record,
            ticket,
            keep,
        }]);
    }

    pub(super) fn publish(&mut self, topic: u64, key: u64, size: usize) {
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
        let record = RecordWriter::new(Some(&key.to_le_bytes()), Some(&value))
            .finish(super::super::wall_ms() - age);
        self.append(id, (name, key), record);
    }

    pub(super) fn facts(&mut self, partitions: u32) {
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

    pub(super) fn write(&mut self) {
        self.spool.shared.write_step(&mut self.done, false);
        self.done.failed_ms = None;
    }

    pub(super) fn load(&self) {
        self.spool.shared.load_all();
    }

    pub(super) fn take(&mut self) {
        let taken = self.spool.take(&LIMITS, &mut |_, _| true);
        self.out
            .extend(taken.into_iter().map(|taken| (taken, false)));
    }

    /// One request that is out: it arrives, or is answered, or never was.
    pub(super) fn answer(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let at = usize::try_from(self.random.below(self.out.len() as u64)).unwrap();
        let (taken, appended) = self.out.swap_remove(at);
        match (appended, self.random.below(4)) {
            (false, 0) if !self.blind && self.random.one_in(3) => {
                let at = self.random.below(taken.numbers.len() as u64);
                let at = usize::try_from(at).unwrap();
                let number = taken.numbers[at];
                let value = taken.records[at].value().unwrap().unwrap();
                self.rejected.insert(id_of(value));
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

    pub(super) fn acknowledge(&mut self, taken: &Taken, appended: bool) {
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
    pub(super) fn arrive(&mut self, taken: &Taken) {
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

    pub(super) fn crash(&mut self, lose_meta: bool) {
        self.crashes += 1;
        self.out.clear();
        self.store.no_failure();
        let placeholder = SimStore::new(0);
        let empty = tempfile::tempdir().unwrap();
        // The old spool must let go of its folder before the new one opens it.
        self.spool = open(
            &self.config,
            (&Arc::new(placeholder.clone()), &Arc::new(placeholder)),
            empty.path(),
            (&self.metrics, &self.time),
        );
        self.store.crash();
        self.kept.crash();
        if lose_meta {
            std::fs::remove_dir_all(self.folder.path()).unwrap();
        }
        let parts = (&self.metrics, &self.time);
        let stores = (&self.store, &self.kept);
        self.spool = open(&self.config, stores, self.folder.path(), parts);
        self.done = Done::default();
        self.identify();
    }

    pub(super) fn resolve(&mut self) {
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
    pub(super) fn stall(&mut self) {
        let streams = self.spool.shared.state.lock().streams.len() as u64;
        if streams > 0 {
            let id = u32::try_from(self.random.below(streams)).unwrap();
            let stalled = self.random.one_in(2);
            self.spool.stalled(StreamId(id), stalled);
        }
    }

    pub(super) fn drain(&mut self) {
        self.store.no_failure();
        self.spool.uplink(true);
        for (taken, appended) in std::mem::take(&mut self.out) {
            self.acknowledge(&taken, appended);
        }
        for _ in 0..20_000 {
            self.facts(3);
            self.resolve();
            self.spool.shared.keep_step();
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
    pub(super) fn report(&self, wanted: impl Fn(&Stream, Run) -> bool) {
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

    pub(super) fn is_drained(&self) -> bool {
        let state = self.spool.shared.state.lock();
        state.streams.iter().all(|s| s.is_drained(state.run))
    }

    /// Nothing acknowledged is missing, nothing is there twice, each key is in order.
    pub(super) fn check(&self, seed: u64) {
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

pub(super) fn open(
    config: &checked::Spool,
    (store, kept): (&Arc<SimStore>, &Arc<SimStore>),
    folder: &Path,
    (metrics, clock): (&Arc<Metrics>, &Arc<Clock>),
) -> Spool {
    // A thread of the sled that was dropped may hold its lock for a moment.
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let parts = (metrics.clone(), clock.clone());
        let stores = (store.clone() as _, kept.clone() as _);
        match recover::open(config, stores, &folder.join("meta"), parts) {
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
