//! All streams, topics and segments of one spool: what the one lock guards.
//!
//! Nothing here blocks or does I/O. Whoever holds the lock changes state and leaves; threads that
//! write and read the disk copy what they need, let go, and come back with the outcome.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::super::intake::{Refusal, Settle, Ticket, TopicOptions};
use super::super::log::{self, FramePos, SegmentId};
use super::super::{PROVISIONAL, Run, StreamId, TopicId, TopicPartition};
use super::by_hand::Job;
use super::dead_letter::Move;
use super::deal::Deal;
use super::hot::Hot;
use super::lanes::Replay;
use super::stream::{Entry, Folded, Span, Stream};
use super::time::Anchors;

/// Lanes for records: one a priority.
pub(super) const LANES: usize = 10;
/// Entries that wait for the next frame.
const CONTROLS_MAX: usize = 1_000;

/// A Kafka topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub name: Arc<str>,
    pub options: TopicOptions,
    /// Whether a route has named it since the start.
    pub named: bool,
    /// Partition count by which records are dealt; 0: unknown.
    pub partitions: u32,
    /// A new count that waits until what was numbered by the old one has drained.
    pub growing: Option<u32>,
    /// Set once dealing by that count has begun.
    pub dealing: bool,
    /// There was no room on disk to go on dealing: what was dealt must drain first.
    pub short: bool,
    /// Whether Kafka was asked in this run.
    pub asked: bool,
    pub record_bytes_max: usize,
    /// How old a record may be for Kafka, if that is known.
    pub timestamp_before_max_ms: Option<i64>,
    /// By partition; made when first needed.
    pub streams: Vec<Option<StreamId>>,
    pub provisional: Option<StreamId>,
    /// Where records without a key go, and how many bytes went there.
    pub sticky: (u32, usize),
}

impl Topic {
    /// Whether records go to the provisional stream.
    pub fn is_provisional(&self) -> bool {
        self.partitions == 0 || self.growing.is_some()
    }
}

/// A segment file, as far as the streams go.
#[derive(Debug)]
pub(super) struct Segment {
    pub lane: u8,
    /// Spans that point here.
    pub spans: usize,
    pub sealed: bool,
    pub oldest_ms: i64,
    /// Runs of its records, ascending.
    pub runs: BTreeSet<Run>,
    pub bytes: u64,
    /// Records written to it.
    pub records: u64,
}

/// Where the loader stands in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// The segment, and where in it; `None`: at its start.
    pub segment: SegmentId,
    pub at: Option<FramePos>,
}

/// A record that Kafka rejects, on its way to quarantine.
#[derive(Debug)]
pub(super) struct Rejected {
    pub stream: StreamId,
    pub run: Run,
    pub number: u64,
    pub cause: String,
}

/// Tickets that became due, grouped by who waits, to be settled without the lock.
#[derive(Debug, Default)]
pub(super) struct Due {
    tokens: Vec<u64>,
    /// Who waits, and where his tokens end.
    groups: Vec<(Arc<dyn Settle>, usize)>,
    pub count: u64,
}

impl Due {
    pub fn add(&mut self, ticket: Ticket) {
        self.count += 1;
        let same = |to: &Arc<dyn Settle>| Arc::ptr_eq(to, &ticket.to);
        self.tokens.push(ticket.token);
        let end = self.tokens.len();
        match self.groups.last_mut() {
            Some((to, ends)) if same(to) => *ends = end,
            _ => self.groups.push((ticket.to, end)),
        }
    }

    pub fn settle(self) {
        let mut from = 0;
        for (to, end) in self.groups {
            to.safe(self.tokens.get(from..end).unwrap_or_default());
            from = end;
        }
    }
}

/// What the lock guards.
#[derive(Debug)]
pub(super) struct State {
    /// Run that numbers new records.
    pub run: Run,
    /// Greatest run given out, rebased streams' included.
    pub newest_run: Run,
    /// By what times can be put right; `None`: no record is marked.
    pub anchors: Option<Arc<Anchors>>,
    pub topics: Vec<Topic>,
    pub topic_ids: HashMap<Arc<str>, TopicId>,
    pub streams: Vec<Stream>,
    /// Streams that may be taken: live ones, then by lane.
    pub ready_live: VecDeque<StreamId>,
    pub ready_backlog: [VecDeque<StreamId>; LANES],
    /// What may go of what was read back from disk.
    pub replay: Replay,
    /// Streams with records that are not durable.
    pub dirty: Vec<StreamId>,
    pub segments: HashMap<SegmentId, Segment>,
    pub reading: [Reading; LANES],
    /// Lanes where the loader has found nothing more.
    pub lane_done: [bool; LANES],
    /// Entries for the next frame, so that they are known without sled.
    pub controls: Vec<log::Entry>,
    pub to_free: Vec<SegmentId>,
    /// A segment was sealed since a file was last made ahead of need.
    pub sealed: bool,
    /// Streams whose head has outlived its time.
    pub to_expire: Vec<StreamId>,
    pub to_quarantine: Vec<Rejected>,
    /// What a person wants dropped.
    pub by_hand: Vec<Job>,
    /// Streams whose records go to the dead letter topic; some may be well again.
    pub dead: Vec<StreamId>,
    /// What is on its way there.
    pub moves: Vec<Move>,
    /// Topics whose provisional stream may be dealt.
    pub to_deal: Vec<TopicId>,
    /// A deal that the disk failed.
    pub failed_deal: Option<Deal>,
    /// Refusals not yet in the ledger.
    pub refused: HashMap<(Refusal, String), u64>,
    pub cursors_moved: Vec<StreamId>,
    /// Bases and drops that are folded into others, until sled has forgotten them.
    pub folded: Vec<(StreamId, Folded)>,
    /// Topics whose partition count is to be stored.
    pub counts_moved: Vec<TopicId>,
    pub uplink_up: bool,
    pub full: bool,
    /// Everything is written at once.
    pub hurry: bool,
    pub stopping: bool,
    pub hot: Hot,
    pub cold_bytes: usize,
    /// Records that came in since the start, and their bytes.
    pub came_in: (u64, u64),
    /// Bytes that came in since the last group commit began.
    pub fresh_bytes: usize,
    /// Whether the writer, when it last looked, had to write without waiting for Kafka.
    pub writer_hurries: bool,
    /// Wakes the writer even if nothing is due by its clock.
    pub poke: bool,
}

impl State {
    pub fn new(run: Run, replay: Replay, hot: Hot) -> Self {
        Self {
            run,
            newest_run: run,
            anchors: None,
            topics: Vec::new(),
            topic_ids: HashMap::new(),
            streams: Vec::new(),
            ready_live: VecDeque::new(),
            ready_backlog: Default::default(),
            replay,
            dirty: Vec::new(),
            segments: HashMap::new(),
            reading: [Reading {
                segment: SegmentId(0),
                at: None,
            }; LANES],
            lane_done: [false; LANES],
            controls: Vec::new(),
            to_free: Vec::new(),
            sealed: false,
            to_expire: Vec::new(),
            to_quarantine: Vec::new(),
            by_hand: Vec::new(),
            dead: Vec::new(),
            moves: Vec::new(),
            to_deal: Vec::new(),
            failed_deal: None,
            refused: HashMap::new(),
            cursors_moved: Vec::new(),
            folded: Vec::new(),
            counts_moved: Vec::new(),
            uplink_up: true,
            full: false,
            hurry: false,
            stopping: false,
            hot,
            cold_bytes: 0,
            came_in: (0, 0),
            fresh_bytes: 0,
            writer_hurries: false,
            poke: false,
        }
    }

    pub fn stream(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(id.0 as usize)
    }

    pub fn topic(&mut self, id: TopicId) -> Option<&mut Topic> {
        self.topics.get_mut(id.0 as usize)
    }

    /// The id of a topic, made at first sight.
    pub fn intern(
        &mut self,
        name: &str,
        options: &TopicOptions,
        record_bytes_max: usize,
    ) -> TopicId {
        if let Some(id) = self.topic_ids.get(name).copied() {
            return id;
        }
        let id = TopicId(u32::try_from(self.topics.len()).unwrap_or(u32::MAX));
        let name: Arc<str> = name.into();
        self.topic_ids.insert(name.clone(), id);
        self.topics.push(Topic {
            name,
            options: *options,
            named: false,
            partitions: 0,
            growing: None,
            dealing: false,
            short: false,
            asked: false,
            record_bytes_max,
            timestamp_before_max_ms: None,
            streams: Vec::new(),
            provisional: None,
            sticky: (0, 0),
        });
        id
    }

    /// What a route says of a topic: the first word holds. Streams from before this start take it
    /// over.
    pub fn name_options(&mut self, id: TopicId, options: &TopicOptions) {
        let Some(topic) = self.topics.get_mut(id.0 as usize).filter(|t| !t.named) else {
            return;
        };
        topic.named = true;
        topic.options = *options;
        for id in topic.streams.iter().flatten().chain(&topic.provisional) {
            if let Some(stream) = self.streams.get_mut(id.0 as usize) {
                stream.lane = options.priority.min(9);
            }
        }
    }

    /// The stream of a partition, made at first need.
    pub fn stream_of(&mut self, topic: TopicId, partition: i32) -> Option<StreamId> {
        let next = StreamId(u32::try_from(self.streams.len()).ok()?);
        let run = self.run;
        let known = self.topics.get_mut(topic.0 as usize)?;
        let slot = match usize::try_from(partition) {
            Err(_) => &mut known.provisional,
            Ok(at) => {
                if known.streams.len() <= at {
                    known.streams.resize(at + 1, None);
                }
                known.streams.get_mut(at)?
            }
        };
        if let Some(id) = slot {
            return Some(*id);
        }
        *slot = Some(next);
        let to = TopicPartition {
            topic: known.name.clone(),
            partition: partition.max(PROVISIONAL),
        };
        let lane = known.options.priority.min(9);
        self.streams.push(Stream::new(next, to, topic, lane, run));
        Some(next)
    }

    /// Adds what a synced frame holds.
    pub fn add_span(&mut self, id: StreamId, span: Span) {
        let Some(stream) = self.streams.get_mut(id.0 as usize) else {
            return;
        };
        if (span.run, span.last) < stream.confirmed {
            return;
        }
        if stream.add_span(span)
            && let Some(segment) = self.segments.get_mut(&span.segment)
        {
            segment.spans += 1;
        }
    }

    /// Drops spans behind a stream's cursor and lists segments that nobody needs any more.
    pub fn release_spans(&mut self, id: StreamId) {
        let mut released = Vec::new();
        if let Some(stream) = self.streams.get_mut(id.0 as usize) {
            stream.release_spans(&mut released);
        }
        for segment in released {
            self.unpin(segment);
        }
    }

    /// Has the writer look at a topic's provisional stream when it next wakes.
    pub fn deal_later(&mut self, id: TopicId) {
        if !self.to_deal.contains(&id) {
            self.to_deal.push(id);
        }
    }

    /// Has the next frame say this too; bounded, for sled has it already.
    pub fn tell(&mut self, entry: log::Entry) {
        if self.controls.len() < CONTROLS_MAX {
            self.controls.push(entry);
        }
    }

    /// One span less in a segment.
    pub fn unpin(&mut self, id: SegmentId) {
        if let Some(segment) = self.segments.get_mut(&id) {
            segment.spans = segment.spans.saturating_sub(1);
            if segment.spans == 0 && segment.sealed {
                self.segments.remove(&id);
                self.to_free.push(id);
                self.poke = true;
            }
        }
    }

    /// Has the loader go back to where a stream's next record lies, if it is past it.
    pub fn seek(&mut self, id: StreamId) {
        let run = self.run;
        let Some(stream) = self.streams.get(id.0 as usize) else {
            return;
        };
        if stream.has_probe() {
            return;
        }
        let Some((_, segment)) = stream.first_unloaded(run) else {
            return;
        };
        let Some(lane) = self.segments.get(&segment).map(|s| usize::from(s.lane)) else {
            return;
        };
        if let Some(reading) = self.reading.get_mut(lane)
            && reading.segment >= segment
        {
            *reading = Reading { segment, at: None };
        }
        if let Some(done) = self.lane_done.get_mut(lane) {
            *done = false;
        }
    }

    /// Frees memory of records that are on disk, but for what is taken; the loader brings them
    /// back.
    pub fn evict_hot(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id.0 as usize) else {
            return;
        };
        let durable = stream.first_volatile();
        if durable == 0 || stream.held {
            return;
        }
        // What is with the uplink stays, as if it had been read back; all of it must be on disk.
        let taken = stream.taken.filter(|taken| !taken.cold);
        if taken.is_some_and(|taken| taken.last >= stream.durable) {
            return;
        }
        for entry in stream.hot.drain(..durable) {
            let size = entry.record.size();
            self.hot.sub(size);
            if taken.is_some_and(|taken| entry.number <= taken.last) {
                stream.load_next = stream.load_next.max((entry.run, entry.number + 1));
                stream.cold.push_back(entry);
                stream.cold_bytes += size;
                self.cold_bytes += size;
            }
        }
        if let Some(taken) = &mut stream.taken {
            taken.cold = true;
        }
        if stream.hot.capacity() > 64 && stream.hot.len() < stream.hot.capacity() / 4 {
            stream.hot.shrink_to_fit();
        }
        self.seek(id);
    }

    /// Frees memory of records that were read back, but for what is taken.
    pub fn evict_cold(&mut self, id: StreamId) {
        self.keep_cold(id, 0);
    }

    /// Frees memory of a stream that cannot be sent, but for what is taken, or one record to try it
    /// with: others need the memory. The loader brings the rest back when it can be sent.
    pub fn keep_probe(&mut self, id: StreamId) {
        let few = self.stream(id).map_or(1, |stream| stream.probe());
        self.keep_cold(id, few);
        self.evict_hot(id);
    }

    /// Keeps what is taken, or else the first `few`, of what was read back.
    fn keep_cold(&mut self, id: StreamId, few: usize) {
        let held = |s: &&mut Stream| !s.held;
        let Some(stream) = self.streams.get_mut(id.0 as usize).filter(held) else {
            return;
        };
        let kept = match stream.taken {
            Some(taken) if taken.cold => {
                let is_taken = |e: &Entry| (e.run, e.number) <= (taken.run, taken.last);
                stream.cold.partition_point(is_taken)
            }
            _ => few,
        };
        if let Some(first) = stream.cold.get(kept) {
            stream.load_next = (first.run, first.number);
            let freed: usize = stream.cold.drain(kept..).map(|e| e.record.size()).sum();
            stream.cold.shrink_to_fit();
            stream.cold_bytes = stream.cold_bytes.saturating_sub(freed);
            self.cold_bytes = self.cold_bytes.saturating_sub(freed);
        }
    }

    /// Takes a stream's records before `to` out of memory; their tickets are due.
    pub fn pop_before(&mut self, id: StreamId, to: (Run, u64), due: &mut Due) -> u64 {
        let Some(stream) = self.streams.get_mut(id.0 as usize) else {
            return 0;
        };
        let mut popped = 0;
        while let Some(entry) = pop_if_before(&mut stream.cold, to) {
            stream.cold_bytes = stream.cold_bytes.saturating_sub(entry.record.size());
            self.cold_bytes = self.cold_bytes.saturating_sub(entry.record.size());
            popped += 1;
            due_of(entry, due);
        }
        if stream.cold.is_empty() {
            // Room for what was read back at most would stay, of thousands of streams.
            stream.cold = VecDeque::new();
        }
        while let Some(entry) = pop_if_before(&mut stream.hot, to) {
            self.hot.sub(entry.record.size());
            popped += 1;
            due_of(entry, due);
        }
        stream.durable = stream.durable.max(if to.0 == self.run { to.1 } else { 0 });
        popped
    }

    /// Moves a stream's cursor and gives back what it held; gives the number of records that left
    /// memory.
    pub fn confirm(&mut self, id: StreamId, to: (Run, u64), due: &mut Due) -> u64 {
        let popped = self.pop_before(id, to, due);
        let Some(stream) = self.stream(id) else {
            return popped;
        };
        let had_moved = stream.cursor_moved;
        if stream.confirm(to) {
            if !had_moved {
                self.cursors_moved.push(id);
            }
            self.release_spans(id);
        }
        popped
    }

    /// Whether anything on disk is still needed.
    pub fn has_backlog(&self) -> bool {
        self.segments.values().any(|segment| segment.spans > 0)
    }
}

fn pop_if_before(queue: &mut VecDeque<Entry>, to: (Run, u64)) -> Option<Entry> {
    let first = queue.front()?;
    if (first.run, first.number) < to {
        queue.pop_front()
    } else {
        None
    }
}

fn due_of(entry: Entry, due: &mut Due) {
    if let Some(ticket) = entry.ticket {
        due.add(ticket);
    }
}
