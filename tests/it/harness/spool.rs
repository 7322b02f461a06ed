//! A spool in memory: what the uplink sees of the real one, with a crash that can forget
//! confirmations.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tidegate::record::{Record, RecordWriter};
use tidegate::spool::outlet::{Doubt, TopicFacts, Wanted};
use tidegate::spool::{
    Identity, Leftover, Outlet, Run, StreamId, TakeLimits, Taken, TopicId, TopicPartition,
};
use tokio::sync::Notify;

#[derive(Clone, Debug)]
struct Entry {
    run: Run,
    sent_as: Run,
    number: u64,
    sequence: u64,
    record: Record,
    added: Instant,
}

#[derive(Clone, Debug)]
struct Stream {
    to: TopicPartition,
    entries: Vec<Entry>,
    /// Entries known to be in Kafka.
    confirmed: usize,
    taken: usize,
    resolved: Option<Run>,
    sent_as: Option<Run>,
    number: u64,
    sequence: u64,
    offset: Option<i64>,
}

#[derive(Clone, Debug, Default)]
struct State {
    streams: Vec<Stream>,
    identities: BTreeMap<Run, Option<Identity>>,
    current: u32,
    unknown: Vec<(TopicId, Arc<str>)>,
}

/// What happened, for a test to look at.
#[derive(Clone, Debug, Default)]
pub struct Events {
    pub quarantined: Vec<String>,
    pub doubts: Vec<Doubt>,
    pub uplink: Vec<bool>,
    pub stalled: Vec<(u32, bool)>,
    pub blind: Vec<(u32, bool)>,
    pub facts: HashMap<u32, TopicFacts>,
    /// Topic, when it was confirmed, and how long after it was added, of each record.
    pub confirmed: Vec<(Arc<str>, Instant, Duration)>,
}

#[derive(Debug, Default)]
pub struct MemorySpool {
    state: Mutex<State>,
    events: Mutex<Events>,
    changed: Notify,
    topics_changed: Notify,
}

impl MemorySpool {
    /// An empty spool in its first run.
    pub fn new() -> Arc<Self> {
        let spool = Self::default();
        spool.state().new_run();
        Arc::new(spool)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap()
    }

    /// What a crash leaves: all records, with the last `forget` confirmations of each stream
    /// forgotten.
    pub fn after_crash(&self, forget: usize) -> Arc<Self> {
        let mut state = self.state().clone();
        for stream in &mut state.streams {
            stream.confirmed = stream.confirmed.saturating_sub(forget);
            if forget > 0 {
                stream.offset = None;
            }
            (stream.taken, stream.resolved, stream.sent_as) = (0, None, None);
            (stream.number, stream.sequence) = (0, 0);
        }
        state.new_run();
        Arc::new(Self {
            state: Mutex::new(state),
            ..Self::default()
        })
    }

    /// What a power cut leaves when nothing of what is not confirmed was on the disk.
    pub fn after_power_cut(&self) -> Arc<Self> {
        let spool = self.after_crash(0);
        for stream in &mut spool.state().streams {
            stream.entries.truncate(stream.confirmed);
        }
        spool
    }

    /// A crash after which `lost` more records count as confirmed, and `left` wait on the disk, all
    /// of the run before.
    pub fn after_loss(&self, topic: &str, (lost, left): (usize, usize)) -> Arc<Self> {
        self.add(topic, 0, (lost + left, 100));
        let spool = self.after_crash(0);
        let mut state = spool.state();
        state.streams[0].confirmed += lost;
        let offset = &mut state.streams[0].offset;
        *offset = offset.map(|offset| offset + i64::try_from(lost).unwrap());
        drop(state);
        spool
    }

    /// Records that the uplink has in hand.
    pub fn taken(&self) -> usize {
        self.state().streams.iter().map(|stream| stream.taken).sum()
    }

    /// Wants to know about a topic.
    pub fn wonder(&self, topic: &str) {
        let mut state = self.state();
        let id = TopicId(u32::try_from(state.unknown.len()).unwrap());
        state.unknown.push((id, topic.into()));
        self.topics_changed.notify_one();
    }

    /// Appends `count` records of `size` bytes; their values say who they are.
    pub fn add(&self, topic: &str, partition: i32, records: (usize, usize)) {
        self.add_at(topic, partition, records, now_ms());
    }

    /// The same to each of these partitions: the uplink sees all of it at once.
    pub fn add_to_each(&self, topic: &str, partitions: Range<i32>, records: (usize, usize)) {
        let mut state = self.state();
        for partition in partitions {
            state.append(topic, partition, records, now_ms());
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The same with a timestamp.
    pub fn add_at(&self, topic: &str, partition: i32, records: (usize, usize), at_ms: i64) {
        self.state().append(topic, partition, records, at_ms);
        self.changed.notify_one();
    }

    /// Records that are not known to be in Kafka.
    pub fn waiting(&self) -> usize {
        let state = self.state();
        state
            .streams
            .iter()
            .map(|s| s.entries.len() - s.confirmed)
            .sum()
    }

    /// The same of one topic.
    pub fn waiting_in(&self, topic: &str) -> usize {
        let state = self.state();
        let of_topic = state.streams.iter().filter(|s| *s.to.topic == *topic);
        of_topic.map(|s| s.entries.len() - s.confirmed).sum()
    }

    /// Values of a partition in the order in which they must be in Kafka.
    pub fn values(&self, topic: &str) -> BTreeMap<i32, Vec<String>> {
        let state = self.state();
        let of_topic = state.streams.iter().filter(|s| *s.to.topic == *topic);
        of_topic
            .map(|s| {
                let values = s.entries.iter().map(|entry| text(&entry.record)).collect();
                (s.to.partition, values)
            })
            .collect()
    }

    /// Identity of each run that has one.
    pub fn named(&self) -> Vec<(Run, Identity)> {
        let state = self.state();
        let all = state.identities.iter();
        all.filter_map(|(run, identity)| Some((*run, identity.clone()?)))
            .collect()
    }
}

fn text(record: &Record) -> String {
    String::from_utf8(record.value().unwrap().unwrap().to_vec()).unwrap()
}

pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_millis()).unwrap()
}

impl Stream {
    fn new(topic: &str, partition: i32) -> Self {
        Self {
            to: TopicPartition {
                topic: topic.into(),
                partition,
            },
            entries: Vec::new(),
            confirmed: 0,
            taken: 0,
            resolved: None,
            sent_as: None,
            number: 0,
            sequence: 0,
            offset: None,
        }
    }

    /// The next records that have one run and identity.
    fn front(&self) -> &[Entry] {
        let rest = &self.entries[self.confirmed..];
        let same = rest
            .iter()
            .take_while(|e| (e.run, e.sent_as) == (rest[0].run, rest[0].sent_as))
            .count();
        &rest[..same]
    }

    fn is_unresolved(&self, current: Run) -> bool {
        self.front()
            .first()
            .is_some_and(|e| e.run < current && self.resolved != Some(e.run))
    }
}

impl State {
    fn append(&mut self, topic: &str, partition: i32, (count, size): (usize, usize), at_ms: i64) {
        let current = Run(self.current);
        let found = self
            .streams
            .iter()
            .position(|s| *s.to.topic == *topic && s.to.partition == partition);
        let index = found.unwrap_or_else(|| {
            self.streams.push(Stream::new(topic, partition));
            self.streams.len() - 1
        });
        let stream = &mut self.streams[index];
        for _ in 0..count {
            let sent_as = stream.sent_as.unwrap_or(current);
            let value = format!("{:-<size$}", format!("{current}/{}", stream.number));
            let record = RecordWriter::new(None, Some(value.as_bytes())).finish(at_ms);
            stream.entries.push(Entry {
                run: current,
                sent_as,
                number: stream.number,
                sequence: stream.sequence,
                record,
                added: Instant::now(),
            });
            stream.number += 1;
            stream.sequence += 1;
        }
    }

    fn new_run(&mut self) {
        let last = self.identities.keys().next_back().map_or(0, |run| run.0);
        self.current = last + 1;
        self.identities.insert(Run(self.current), None);
    }

    fn stream(&mut self, stream: StreamId) -> &mut Stream {
        &mut self.streams[stream.0 as usize]
    }
}

impl Outlet for MemorySpool {
    fn changed(&self) -> &Notify {
        &self.changed
    }

    fn topics_changed(&self) -> &Notify {
        &self.topics_changed
    }

    fn take(&self, limits: &TakeLimits, wanted: Wanted<'_>) -> Vec<Taken> {
        let mut state = self.state();
        let current = Run(state.current);
        let mut all = Vec::new();
        let mut bytes = 0;
        for (index, stream) in state.streams.iter_mut().enumerate() {
            if all.len() >= limits.streams_max || bytes >= limits.bytes_max {
                break;
            }
            let id = StreamId(u32::try_from(index).unwrap());
            let ready = stream.taken == 0
                && !stream.is_unresolved(current)
                && !stream.front().is_empty()
                && wanted(id, &stream.to);
            if !ready {
                continue;
            }
            let mut size = 0;
            let entries: Vec<Entry> = stream
                .front()
                .iter()
                .take_while(|entry| {
                    size += entry.record.size();
                    size <= limits.batch_bytes_max || size == entry.record.size()
                })
                .cloned()
                .collect();
            bytes += size;
            stream.taken = entries.len();
            all.push(Taken {
                stream: id,
                to: stream.to.clone(),
                run: entries[0].run,
                sent_as: entries[0].sent_as,
                first: entries[0].number,
                numbers: entries.iter().map(|entry| entry.number).collect(),
                sequence: entries[0].sequence,
                records: entries.into_iter().map(|entry| entry.record).collect(),
                guessed: false,
            });
        }
        all
    }

    fn appended(&self, stream: StreamId, run: Run, last: u64, offset: Option<i64>) {
        let mut state = self.state();
        let stream = state.stream(stream);
        assert!(stream.taken > 0, "appended without a taking");
        let done = stream
            .front()
            .iter()
            .take_while(|e| e.run == run && e.number <= last)
            .count();
        assert!(done <= stream.taken, "more appended than taken");
        let now = Instant::now();
        let confirmed = stream.front()[..done].iter();
        let times = confirmed.map(|e| (Arc::clone(&stream.to.topic), now, now - e.added));
        self.events().confirmed.extend(times);
        stream.taken -= done;
        stream.confirmed += done;
        stream.offset = offset.or(stream.offset);
        drop(state);
        self.changed.notify_one();
    }

    fn put_back(&self, stream: StreamId) {
        let mut state = self.state();
        assert!(state.stream(stream).taken > 0, "put back without a taking");
        state.stream(stream).taken = 0;
        self.changed.notify_one();
    }

    fn quarantine(&self, stream: StreamId, run: Run, number: u64, _cause: &str) {
        let mut state = self.state();
        let stream = state.stream(stream);
        let at = stream
            .entries
            .iter()
            .position(|e| e.run == run && e.number == number);
        let bad = stream.entries.remove(at.unwrap());
        for entry in &mut stream.entries[at.unwrap()..] {
            if entry.sent_as == bad.sent_as {
                entry.sequence -= 1;
            }
        }
        stream.sequence -= 1;
        stream.taken = 0;
        self.events().quarantined.push(text(&bad.record));
        self.changed.notify_one();
    }

    fn unresolved(&self, at_most: usize) -> Vec<Leftover> {
        let state = self.state();
        let current = Run(state.current);
        let mut all = Vec::new();
        for (index, stream) in state.streams.iter().enumerate() {
            let front = stream.front();
            if all.len() < at_most && stream.is_unresolved(current) {
                let (first, last) = (&front[0], &front[front.len() - 1]);
                all.push(Leftover {
                    stream: StreamId(u32::try_from(index).unwrap()),
                    to: stream.to.clone(),
                    run: first.run,
                    sent_as: first.sent_as,
                    first: first.number,
                    sequence: first.sequence,
                    last: last.number,
                    last_sequence: last.sequence,
                    offset: stream.offset,
                    holes: false,
                });
            }
        }
        all
    }

    fn resolved(&self, stream: StreamId, run: Run, next: u64, offset: Option<i64>, _proven: bool) {
        let mut state = self.state();
        let current = Run(state.current);
        let stream = state.stream(stream);
        assert!(stream.is_unresolved(current), "resolved twice");
        let done = stream
            .front()
            .iter()
            .take_while(|e| e.run == run && e.sequence < next)
            .count();
        stream.confirmed += done;
        stream.resolved = Some(run);
        stream.offset = offset.or(stream.offset);
        self.changed.notify_one();
    }

    fn blind(&self, stream: StreamId, blind: bool) {
        self.events().blind.push((stream.0, blind));
    }

    fn doubt(&self, _stream: StreamId, _run: Run, doubt: Doubt) {
        self.events().doubts.push(doubt);
    }

    fn rebase(
        &self,
        stream: StreamId,
        run: Run,
        from: u64,
        identity: Identity,
    ) -> std::io::Result<Run> {
        let mut state = self.state();
        let new = Run(state.identities.keys().next_back().unwrap().0 + 1);
        state.identities.insert(new, Some(identity));
        let stream = state.stream(stream);
        let at = stream
            .entries
            .iter()
            .position(|e| e.run == run && e.number == from);
        let mut sequence = 0;
        for entry in &mut stream.entries[at.unwrap()..] {
            (entry.sent_as, entry.sequence) = (new, sequence);
            sequence += 1;
        }
        (stream.sent_as, stream.sequence) = (Some(new), sequence);
        (stream.taken, stream.resolved) = (0, Some(run));
        self.changed.notify_one();
        Ok(new)
    }

    fn identities(&self) -> Vec<(Run, Option<Identity>)> {
        let state = self.state();
        let all = state.identities.iter();
        all.map(|(run, identity)| (*run, identity.clone()))
            .collect()
    }

    fn current_run(&self) -> Run {
        Run(self.state().current)
    }

    fn identify(&self, run: Run, identity: Identity) -> std::io::Result<()> {
        self.state().identities.insert(run, Some(identity));
        Ok(())
    }

    fn unknown_topics(&self) -> Vec<(TopicId, Arc<str>)> {
        self.state().unknown.clone()
    }

    fn topic_facts(&self, topic: TopicId, facts: TopicFacts) {
        self.state().unknown.retain(|(id, _)| *id != topic);
        self.events().facts.insert(topic.0, facts);
    }

    fn uplink(&self, up: bool) {
        self.events().uplink.push(up);
    }

    fn stalled(&self, stream: StreamId, stalled: bool) {
        self.events().stalled.push((stream.0, stalled));
    }
}
