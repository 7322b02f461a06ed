//! From what lies on disk to a running spool.
//!
//! Segments and sled say the same of most things; where they differ the further cursor and the
//! greater run hold. How numbers become sequences is sled's to say; without it a run whose
//! sequences had moved takes a new epoch. A run whose identity was never stored has sent nothing,
//! so its records need no question; without sled that cannot be known, and Kafka is asked.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::super::intake::TopicOptions;
use super::super::log::{self, Log, LogConfig, Recovered, Store};
use super::super::meta::{Meta, MetaBatch, Reason, Stored};
use super::super::{Run, StreamId, TopicId, TopicPartition, device};
use super::hot::Hot;
use super::intake::RECORD_BYTES_MAX;
use super::keep::Keep;
use super::lanes::Replay;
use super::state::{Segment, State};
use super::stream::{Span, Stream};
use super::{OpenError, Shared};
use crate::clock::Clock;
use crate::config::checked;
use crate::metrics::{Counter, Metrics};

/// Opens log and state, puts them together and begins a run.
pub(super) fn open(
    config: &checked::Spool,
    (segments, kept): (Arc<dyn Store>, Arc<dyn Store>),
    meta_folder: &Path,
    parts: (Arc<Metrics>, Arc<Clock>),
) -> Result<Shared, OpenError> {
    log::refuse_newer(kept.as_ref())?;
    let (mut shared, recovered) = prepare(config, segments, meta_folder, parts)?;
    // Before anything moves a cursor: they tell which changes have lost their records.
    shared.keep = Some(Keep::open(kept, config, &mut shared.state.lock())?);
    shared.report_damage(&recovered);
    shared.begin_run();
    shared.begin_times();
    Ok(shared)
}

/// Opens log and state and puts them together; what a newer version wrote is refused before
/// anything is touched.
pub(super) fn prepare(
    config: &checked::Spool,
    store: Arc<dyn Store>,
    meta_folder: &Path,
    (metrics, clock): (Arc<Metrics>, Arc<Clock>),
) -> Result<(Shared, Recovered), OpenError> {
    let log_config = LogConfig {
        segment_bytes: config.segment_bytes,
        max_bytes: config.max_bytes,
        min_free_bytes: config.min_free_bytes,
        compression_level: config.compression_level,
    };
    log::refuse_newer(store.as_ref())?;
    let (mut meta, fresh) = Meta::open(meta_folder)?;
    let (mut log, recovered) = Log::open(store, log_config)?;
    if fresh {
        tell(&mut meta, &recovered)?;
    }
    let stored = meta.load();
    metrics.add(Counter::TornTails, recovered.torn_tails);
    let replay = Replay::new(config.replay_bytes_per_second);
    let hot = Hot::new(config.memory_max_bytes);
    let short = hot.short();
    let mut state = assemble(&recovered, &stored, (fresh, replay, hot));
    for segment in std::mem::take(&mut state.to_free) {
        log.free(segment);
    }
    let reader = log.reader();
    let shared = Shared {
        state: Mutex::new(state),
        short,
        changed: Notify::new(),
        topics_changed: Notify::new(),
        writer: Condvar::new(),
        loader: Condvar::new(),
        log: Mutex::new(log),
        reader,
        meta: Mutex::new(meta),
        keep: None,
        device: device::name(meta_folder.parent().unwrap_or(meta_folder)),
        config: config.clone(),
        metrics,
        clock,
        samples: super::runway::Samples::default(),
        rounds: super::rounds::Rounds::default(),
        started: Instant::now(),
        threads: Mutex::new(Vec::new()),
    };
    Ok((shared, recovered))
}

/// Tells a new state what the log knows of it.
fn tell(meta: &mut Meta, recovered: &Recovered) -> std::io::Result<()> {
    let mut batch = MetaBatch::default();
    for entry in &recovered.entries {
        match entry {
            log::Entry::Identity { run, identity } => batch.identity(*run, identity),
            log::Entry::Partitions { topic, count } => batch.partitions(topic, *count),
            _ => {}
        }
    }
    meta.apply(&batch, true)
}

impl Shared {
    fn report_damage(&self, recovered: &Recovered) {
        if recovered.torn_tails > 0 {
            let records: u64 = recovered.torn.iter().map(|s| u64::from(s.count)).sum();
            tracing::warn!(
                tails = recovered.torn_tails,
                records,
                "torn tails were cut, as after a power cut"
            );
        }
        for damage in &recovered.damage {
            tracing::error!(segment = ?damage.segment, what = %damage.what, "the spool is damaged");
            self.metrics.add(Counter::Damages, 1);
            for range in &damage.ranges {
                for live in self.live_parts(range) {
                    self.drop_range(range.stream, range.run, live, Reason::Damaged);
                }
            }
        }
    }

    /// What of a range is neither confirmed nor in the ledger already: damage is found again at
    /// each start until its segment is freed.
    pub(super) fn live_parts(&self, range: &log::Section) -> Vec<(u64, u64)> {
        let mut state = self.state.lock();
        let Some(stream) = state.stream(range.stream) else {
            return Vec::new();
        };
        let floor = match stream.confirmed.0.cmp(&range.run) {
            std::cmp::Ordering::Greater => return Vec::new(),
            std::cmp::Ordering::Equal => stream.confirmed.1,
            std::cmp::Ordering::Less => 0,
        };
        let holes = stream.holes.iter().filter(|hole| hole.0 == range.run);
        let mut known: Vec<(u64, u64)> = holes.map(|hole| (hole.1, hole.2)).collect();
        known.extend(&stream.numbering(range.run).drops);
        known.sort_unstable();
        let mut live = Vec::new();
        let mut from = range.first.max(floor);
        for (first, end) in known {
            live.push((from, first.min(range.end())));
            from = from.max(end);
        }
        live.push((from, range.end()));
        live.retain(|(first, end)| first < end);
        live
    }

    /// Nothing is sent or written under a run before its number is on disk with it, so a full disk
    /// is no reason not to start.
    fn begin_run(&self) {
        let run = self.state.lock().run;
        if let Err(error) = self.meta.lock().put_run(run, super::wall_ms()) {
            tracing::warn!(%error, %run, "cannot store that a run has begun");
        }
    }
}

fn assemble(
    recovered: &Recovered,
    stored: &Stored,
    (meta_is_new, replay, hot): (bool, Replay, Hot),
) -> State {
    let newest = recovered.newest_run.max(stored.newest_run);
    let run = Run(newest.map_or(1, |run| run.0 + 1));
    let mut state = State::new(run, replay, hot);
    name_streams(&mut state, recovered, stored);
    state.anchors = Some(Arc::new(stored.anchors.iter().cloned().collect()));
    let mut identified: Vec<Run> = stored.identities.iter().map(|(run, _)| *run).collect();
    for (topic, count) in &stored.partitions {
        set_count(&mut state, topic, *count);
    }
    for entry in &recovered.entries {
        apply_entry(&mut state, entry, &mut identified);
    }
    apply_stored(&mut state, stored);
    if meta_is_new {
        doubt_sequences(&mut state, recovered);
    }
    add_segments(&mut state, recovered);
    for stream in &mut state.streams {
        stream.spans.shrink_to_fit();
        finish(stream, run, |run| meta_is_new || identified.contains(&run));
    }
    keep_lanes(&mut state);
    let ids: Vec<StreamId> = state.streams.iter().map(|stream| stream.id).collect();
    for id in ids {
        state.release_spans(id);
        state.seek(id);
    }
    release_unneeded(&mut state);
    deal_leftovers(&mut state);
    state
}

/// Makes the streams with the ids that they had.
fn name_streams(state: &mut State, recovered: &Recovered, stored: &Stored) {
    let mut names: HashMap<u32, &TopicPartition> = HashMap::new();
    for entry in &recovered.entries {
        if let log::Entry::Declare { stream, to } = entry {
            names.insert(stream.0, to);
        }
    }
    for (id, to) in &stored.streams {
        names.entry(id.0).or_insert(to);
    }
    let Some(last) = names.keys().copied().max() else {
        return;
    };
    let run = state.run;
    for id in 0..=last {
        let unnamed = TopicPartition {
            topic: "".into(),
            partition: super::super::PROVISIONAL,
        };
        let to = names.get(&id).copied().unwrap_or(&unnamed).clone();
        let topic = state.intern(&to.topic, &TopicOptions::default(), RECORD_BYTES_MAX);
        state
            .streams
            .push(Stream::new(StreamId(id), to.clone(), topic, 0, run));
        let Some(known) = state.topic(topic) else {
            continue;
        };
        // An id that nothing names any more has no topic to ask Kafka about.
        known.asked |= to.topic.is_empty();
        match usize::try_from(to.partition) {
            Err(_) => known.provisional = Some(StreamId(id)),
            Ok(at) => {
                if known.streams.len() <= at {
                    known.streams.resize(at + 1, None);
                }
                if let Some(slot) = known.streams.get_mut(at) {
                    *slot = Some(StreamId(id));
                }
            }
        }
    }
}

fn set_count(state: &mut State, topic: &str, count: u32) {
    let id = state.intern(topic, &TopicOptions::default(), RECORD_BYTES_MAX);
    if let Some(topic) = state.topic(id) {
        topic.partitions = count;
    }
}

fn apply_entry(state: &mut State, entry: &log::Entry, identified: &mut Vec<Run>) {
    match entry {
        log::Entry::Cursor {
            stream,
            run,
            next,
            offset,
        } => {
            move_cursor(state, *stream, (*run, *next), *offset);
        }
        log::Entry::Identity { run, .. } => identified.push(*run),
        log::Entry::Partitions { topic, count } => {
            let known = state
                .topic_ids
                .get(topic)
                .and_then(|id| state.topics.get(id.0 as usize));
            if known.is_none_or(|topic| topic.partitions == 0) {
                set_count(state, topic, *count);
            }
        }
        log::Entry::Declare { .. }
        | log::Entry::Drop { .. }
        | log::Entry::Base { .. }
        | log::Entry::RunStart { .. }
        | log::Entry::Note(_) => {}
    }
}

/// What sled knew of moved sequences is gone: runs for which the log names a drop or a base go
/// under no identity, so that the uplink gives them a new one.
fn doubt_sequences(state: &mut State, recovered: &Recovered) {
    state.newest_run = Run(state.newest_run.0 + 1);
    let nobody = state.newest_run;
    for entry in &recovered.entries {
        if let log::Entry::Drop { stream, run, .. } | log::Entry::Base { stream, run, .. } = entry
            && let Some(stream) = state.stream(*stream)
        {
            stream.numbering(*run).sent_as = nobody;
        }
    }
}

fn apply_stored(state: &mut State, stored: &Stored) {
    for (stream, cursor) in &stored.cursors {
        move_cursor(state, *stream, (cursor.run, cursor.next), cursor.offset);
    }
    for base in &stored.bases {
        rebase(state, base.stream, base.run, base.zero, base.sent_as);
    }
    for drop in &stored.drops {
        let Some(stream) = state.stream(drop.stream) else {
            continue;
        };
        if drop.fate_known {
            stream.numbering(drop.run).drop_range(drop.first, drop.end);
        } else {
            stream.holes.push((drop.run, drop.first, drop.end));
        }
    }
    if let Some(newest) = stored.newest_run {
        state.newest_run = state.newest_run.max(newest);
    }
}

fn move_cursor(state: &mut State, id: StreamId, to: (Run, u64), offset: Option<i64>) {
    if let Some(stream) = state.stream(id)
        && to >= stream.confirmed
    {
        stream.confirmed = to;
        stream.load_next = to;
        stream.offset = offset.or(stream.offset);
    }
}

fn rebase(state: &mut State, id: StreamId, run: Run, zero: i64, sent_as: Run) {
    if let Some(stream) = state.stream(id) {
        let numbering = stream.numbering(run);
        if sent_as >= numbering.sent_as {
            numbering.rebase(zero, sent_as);
        }
    }
}

fn add_segments(state: &mut State, recovered: &Recovered) {
    for info in &recovered.segments {
        if usize::from(info.lane) >= super::state::LANES {
            continue;
        }
        let oldest_ms = info.oldest_ms.unwrap_or_else(super::wall_ms);
        let segment = Segment {
            lane: info.lane,
            spans: 0,
            sealed: info.sealed,
            oldest_ms,
            runs: info.spans.iter().map(|s| s.run).collect(),
            bytes: info.bytes,
            records: info.spans.iter().map(|s| s.last + 1 - s.first).sum(),
        };
        state.segments.insert(info.id, segment);
        for s in &info.spans {
            let span = Span {
                segment: info.id,
                run: s.run,
                first: s.first,
                last: s.last,
            };
            state.add_span(s.stream, span);
        }
    }
}

/// A stream's priority is that of what it wrote last, until a route names its topic.
fn keep_lanes(state: &mut State) {
    for stream in &mut state.streams {
        let last = stream.spans.back().map(|span| span.segment);
        if let Some(segment) = last.and_then(|id| state.segments.get(&id)) {
            stream.lane = segment.lane;
        }
    }
}

/// What follows from a stream's spans: which runs it has, and which of them Kafka must be asked
/// about.
fn finish(stream: &mut Stream, current: Run, was_sent: impl Fn(Run) -> bool) {
    let mut runs: Vec<Run> = stream.spans.iter().map(|span| span.run).collect();
    runs.sort_unstable();
    runs.dedup();
    stream
        .numberings
        .retain(|n| runs.contains(&n.run) || n.run == current);
    for run in runs {
        let sent_as = stream.numbering(run).sent_as;
        if !stream.is_provisional() && (was_sent(sent_as) || was_sent(run)) {
            stream.unresolved.push(run);
        }
    }
    let unresolved = stream.unresolved.clone();
    let holes = std::mem::take(&mut stream.holes);
    for (run, first, end) in holes {
        if unresolved.contains(&run) {
            stream.holes.push((run, first, end));
        } else {
            stream.numbering(run).drop_range(first, end);
        }
    }
}

/// Provisional records may be left though their topic's count is known: those of a frame that
/// failed to sync and was whole all the same. They are dealt like those of a topic that grows, and
/// newer ones wait behind them.
fn deal_leftovers(state: &mut State) {
    let run = state.run;
    let State {
        topics,
        streams,
        to_deal,
        ..
    } = state;
    for (id, topic) in (0u32..).zip(topics.iter_mut()) {
        let left = topic
            .provisional
            .and_then(|stream| streams.get(stream.0 as usize));
        if topic.partitions > 0 && left.is_some_and(|stream| !stream.is_drained(run)) {
            topic.growing = Some(topic.partitions);
            to_deal.push(TopicId(id));
        }
    }
}

fn release_unneeded(state: &mut State) {
    let unneeded = state
        .segments
        .iter()
        .filter(|(_, s)| s.spans == 0 && s.sealed);
    let unneeded: Vec<_> = unneeded.map(|(id, _)| *id).collect();
    for id in unneeded {
        state.segments.remove(&id);
        if !state.to_free.contains(&id) {
            state.to_free.push(id);
        }
    }
}
