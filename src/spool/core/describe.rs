//! Streams and records in words and numbers, for tools.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use super::super::inspect::StreamInfo;
use super::super::log::{Section, SegmentId};
use super::super::ranges::Ranges;
use super::super::{Run, StreamId, TopicPartition};
use super::state::State;
use super::stream::{Span, Stream};
use super::time::Times;
use crate::record::{Malformed, Record};

/// What a stream is; without a topic when nobody knows.
pub(super) fn name_of(state: &State, id: StreamId) -> TopicPartition {
    let stream = state.streams.get(id.0 as usize);
    stream.map_or_else(
        || TopicPartition {
            topic: "".into(),
            partition: super::super::PROVISIONAL,
        },
        |stream| stream.to.clone(),
    )
}

/// A stream as tools see it.
pub(super) fn describe_stream(
    state: &State,
    stream: &Stream,
    times: Option<&Times<'_>>,
) -> StreamInfo {
    let entries = || stream.cold.iter().chain(&stream.hot);
    let memory: usize = entries().map(|entry| entry.record.size()).sum();
    let (mut disk_bytes, mut on_disk_ms) = (0, None);
    for span in &stream.spans {
        let Some(segment) = state.segments.get(&span.segment) else {
            continue;
        };
        let average = segment.bytes / segment.records.max(1);
        let first = floor_of(stream, span.run).max(span.first);
        disk_bytes += (span.last + 1).saturating_sub(first) * average;
        let oldest = times.map_or(Some(segment.oldest_ms), |times| times.oldest_of(segment));
        on_disk_ms = on_disk_ms.into_iter().chain(oldest).min();
    }
    let head = stream.cold.front().or(stream.hot.front());
    let in_memory_ms = head.and_then(|entry| match times {
        None => Some(entry.record.timestamp_ms),
        Some(times) => times.came_in(entry),
    });
    let left = left(stream);
    // While the next record is in memory it is the oldest; else nobody knows but its segment.
    let oldest_ms = in_memory_ms
        .filter(|_| !stream.has_unloaded(state.run) || !stream.cold.is_empty())
        .or(on_disk_ms)
        .filter(|_| left > 0);
    StreamInfo {
        topic: stream.to.topic.to_string(),
        partition: stream.to.partition,
        priority: stream.lane,
        run: stream.confirmed.0.0,
        next: stream.confirmed.1,
        records: left,
        memory_bytes: memory as u64,
        disk_bytes,
        oldest_ms,
        held: held(state, stream).filter(|_| left > 0).map(str::to_owned),
    }
}

fn held(state: &State, stream: &Stream) -> Option<&'static str> {
    if stream.dead.is_some() {
        Some("given up on: its records go to the dead letter topic")
    } else if stream.is_provisional() {
        Some("the topic's partitions are not known yet")
    } else if stream.stalled {
        Some("stalled: Kafka takes others, but not this")
    } else if !stream.unresolved.is_empty() {
        Some("Kafka must be asked where an earlier run stands")
    } else if !state.uplink_up {
        Some("Kafka is away")
    } else if stream.held {
        Some("records are being dropped or put into quarantine")
    } else {
        None
    }
}

/// The first number of a run that is not confirmed; the number behind all when the whole run is.
fn floor_of(stream: &Stream, run: Run) -> u64 {
    match stream.confirmed.0.cmp(&run) {
        std::cmp::Ordering::Greater => u64::MAX,
        std::cmp::Ordering::Equal => stream.confirmed.1,
        std::cmp::Ordering::Less => 0,
    }
}

/// What of a section on disk is left to send.
pub(super) fn live_part(state: &State, section: &Section, segment: SegmentId) -> Ranges {
    let mut live = Ranges::default();
    let Some(stream) = state.streams.get(section.stream.0 as usize) else {
        return live;
    };
    let floor = floor_of(stream, section.run);
    let here = |s: &&Span| s.segment == segment && s.run == section.run;
    for span in stream.spans.iter().filter(here) {
        let first = section.first.max(span.first).max(floor);
        live.add(first, section.end().min(span.last + 1));
    }
    without_dropped(stream, section.run, &live)
}

/// What of these numbers was not dropped.
fn without_dropped(stream: &Stream, run: Run, numbers: &Ranges) -> Ranges {
    let mut dropped = Ranges::default();
    let numbering = stream.numberings.iter().find(|n| n.run == run);
    for (first, end) in numbering.iter().flat_map(|n| &n.drops) {
        dropped.add(*first, *end);
    }
    for (_, first, end) in stream.holes.iter().filter(|hole| hole.0 == run) {
        dropped.add(*first, *end);
    }
    let mut left = Ranges::default();
    for (first, end) in numbers.iter() {
        for (first, end) in dropped.missing(first, end).iter() {
            left.add(first, end);
        }
    }
    left
}

/// Records that are left, by the spans of the segments: wider than what they stand for after a
/// restart.
fn left(stream: &Stream) -> u64 {
    let mut runs: BTreeMap<Run, Ranges> = BTreeMap::new();
    for span in &stream.spans {
        let first = floor_of(stream, span.run).max(span.first);
        runs.entry(span.run).or_default().add(first, span.last + 1);
    }
    let on_disk = runs
        .iter()
        .map(|(run, all)| without_dropped(stream, *run, all).count());
    let volatile = stream.hot.len() - stream.first_volatile();
    on_disk.sum::<u64>() + volatile as u64
}

/// A record as one JSON object; bytes that are no UTF-8 are in `…_base64`.
pub(super) fn describe_record(
    to: &TopicPartition,
    run: Run,
    number: u64,
    record: &Record,
) -> Value {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| {
        fields.insert(name.to_owned(), value);
    };
    put("topic", json!(&*to.topic));
    put("partition", json!(to.partition));
    put("run", json!(run.0));
    put("seq", json!(number));
    put("timestamp_ms", json!(record.timestamp_ms));
    for (name, bytes) in [("key", record.key()), ("value", record.value())] {
        put_bytes(&mut fields, name, bytes);
    }
    let headers = record.headers().unwrap_or_default();
    let headers = headers.into_iter().map(|(name, value)| {
        let mut header = Map::new();
        put_bytes(&mut header, "name", Ok(Some(name)));
        put_bytes(&mut header, "value", Ok(value));
        Value::Object(header)
    });
    fields.insert("headers".to_owned(), headers.collect());
    Value::Object(fields)
}

fn put_bytes(fields: &mut Map<String, Value>, name: &str, bytes: Result<Option<&[u8]>, Malformed>) {
    let (name, value) = match bytes {
        Err(error) => (format!("{name}_error"), error.to_string().into()),
        Ok(None) => (name.to_owned(), Value::Null),
        Ok(Some(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => (name.to_owned(), text.into()),
            Err(_) => (format!("{name}_base64"), BASE64.encode(bytes).into()),
        },
    };
    fields.insert(name, value);
}
