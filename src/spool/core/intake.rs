//! The face that sources see.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::super::intake::{Change, Incoming, Intake, Refusal, Ticket, TopicId, TopicOptions};
use super::super::{PROVISIONAL, StreamId};
use super::keep::{self, Asked, Hold};
use super::state::State;
use super::stream::Entry;
use super::writer::COMPANY_BYTES;
use super::{Shared, Spool};
use crate::kafka::partitioner;
use crate::metrics::Counter;
use crate::record::Record;

/// Until Kafka has told: its default `max.message.bytes`, less the batch's own header and room for
/// ours.
pub(super) const RECORD_BYTES_MAX: usize = 1_048_588 - 1024;
/// Bytes after which a record without a key goes to the next partition: Java's `batch.size`.
const STICKY_BYTES: usize = 16 * 1024;
/// Different refused MQTT topics that are told apart until the next store of the ledger.
const REFUSED_TOPICS_MAX: usize = 1_000;

impl Intake for Spool {
    fn topic(&self, name: &str, options: &TopicOptions) -> TopicId {
        let mut state = self.shared.state.lock();
        let id = state.intern(name, options, RECORD_BYTES_MAX);
        state.name_options(id, options);
        if state.topic(id).is_some_and(|topic| !topic.asked) {
            self.shared.topics_changed.notify_one();
        }
        id
    }

    fn record_bytes_max(&self, topic: TopicId) -> usize {
        self.shared
            .state
            .lock()
            .topic(topic)
            .map_or(RECORD_BYTES_MAX, |t| t.record_bytes_max)
    }

    fn is_short(&self) -> bool {
        self.shared.short.load(Ordering::Relaxed)
    }

    fn append(&self, batch: &mut Vec<Incoming>) {
        self.shared.mark(batch);
        self.shared.append_as_they_are(batch);
    }

    fn keep(&self, changes: Vec<Change>, ticket: Option<Ticket>) {
        let changes = changes.into_iter().map(keep::plain).collect();
        self.shared.ask_to_keep([Asked {
            changes,
            ticket,
            record: None,
        }]);
    }

    fn kept(&self) -> Vec<(Bytes, Bytes)> {
        let keep = self.shared.keep.as_ref();
        keep.map_or_else(Vec::new, keep::Keep::take_found)
    }

    fn refused(&self, why: Refusal, mqtt_topic: &str, messages: u64) {
        let mut state = self.shared.state.lock();
        let short = state.refused.len() >= REFUSED_TOPICS_MAX;
        let name = if short { "(others)" } else { mqtt_topic };
        *state.refused.entry((why, name.to_owned())).or_default() += messages;
        self.shared.poke_writer(&mut state);
    }
}

impl Shared {
    /// Appends records whose times are judged already.
    pub(super) fn append_as_they_are(&self, batch: &mut Vec<Incoming>) {
        let now_ms = self.now_ms();
        let (mut dropped, mut was_clean, mut was_idle) = (0, false, false);
        let mut held = Vec::new();
        {
            let mut state = self.state.lock();
            was_clean |= state.dirty.is_empty();
            was_idle |= state.ready_live.is_empty();
            let was_little = state.fresh_bytes < COMPANY_BYTES;
            for incoming in batch.drain(..) {
                let qos0 = incoming.ticket.is_none();
                let short = state.hot.is_short();
                if !push(&mut state, (incoming, now_ms), qos0 && short, &mut held) {
                    dropped += 1;
                }
            }
            was_idle &= !state.ready_live.is_empty();
            // The writer sees to what is dirty by its own clock, but must hear when that clock is
            // too slow.
            let much = was_little && state.fresh_bytes >= COMPANY_BYTES;
            let news = much || !state.writer_hurries;
            if was_clean || (news && self.in_a_hurry(&state)) {
                self.poke_writer(&mut state);
            }
        }
        if !held.is_empty() {
            self.ask_to_keep(held);
        }
        if was_idle {
            self.changed.notify_one();
        }
        if dropped > 0 {
            self.metrics.add(Counter::DroppedQos0, dropped);
        }
    }
}

/// Puts a record behind its stream; gives false when it was QoS 0 and there was no room for it.
fn push(
    state: &mut State,
    (incoming, now_ms): (Incoming, u64),
    short: bool,
    held: &mut Vec<Asked>,
) -> bool {
    let Some(id) = stream_for(state, incoming.topic, &incoming.record) else {
        return false;
    };
    let run = state.run;
    let size = incoming.record.size();
    let Some(stream) = state.streams.get_mut(id.0 as usize) else {
        return false;
    };
    if short || (stream.refusing && incoming.ticket.is_none()) {
        return false;
    }
    let number = stream.next;
    stream.next += 1;
    let hold = (!incoming.keep.is_empty()).then(|| {
        let changes = incoming.keep;
        held.push(Asked::with_record(&changes, stream, (run, number)));
        Box::new(Hold {
            changes,
            kept: false,
        })
    });
    stream.hot.push_back(Entry {
        run,
        number,
        record: incoming.record,
        ticket: incoming.ticket,
        at_ms: now_ms,
        hold,
    });
    if !stream.dirty {
        stream.dirty = true;
        state.dirty.push(id);
    }
    let listed = stream.ready;
    state.hot.add(size);
    state.fresh_bytes += size;
    state.came_in = (state.came_in.0 + 1, state.came_in.1 + size as u64);
    if !listed {
        state.offer(id);
    }
    true
}

/// The stream of a record: its partition as Java would choose it, or its topic's provisional
/// stream.
pub(super) fn stream_for(state: &mut State, id: TopicId, record: &Record) -> Option<StreamId> {
    let topic = state.topics.get(id.0 as usize)?;
    if topic.is_provisional() {
        return state.stream_of(id, PROVISIONAL);
    }
    partition_of(state, id, record)
}

/// The stream of a record in a topic whose partition count is known.
pub(super) fn partition_of(state: &mut State, id: TopicId, record: &Record) -> Option<StreamId> {
    let topic = state.topics.get_mut(id.0 as usize)?;
    let partition = match record.key().ok().flatten() {
        Some(key) => partitioner::partition(key, topic.partitions),
        None => sticky(&mut topic.sticky, record.size(), topic.partitions),
    };
    if let Some(Some(stream)) = topic.streams.get(partition as usize) {
        return Some(*stream);
    }
    state.stream_of(id, i32::try_from(partition).ok()?)
}

/// Java keeps records without a key on one partition for a batch's worth of bytes (KIP-794).
fn sticky(now: &mut (u32, usize), size: usize, partitions: u32) -> u32 {
    now.1 += size;
    if now.1 > STICKY_BYTES {
        *now = (now.0.wrapping_add(1), size);
    }
    now.0 % partitions.max(1)
}
