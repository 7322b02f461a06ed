//! Provisional streams: records of a topic whose partition count is not known, or is about to
//! change.
//!
//! They are dealt to partitions once the count is known and everything that was numbered by an
//! older count has drained. Dealing numbers them anew in their partitions' streams. What lies on
//! disk is written once more: the frame that holds the dealt records also moves the provisional
//! stream's cursor, so after a power cut a record is in one place or in the other, never in both
//! and never in neither.

use super::super::log::{self, AppendError, FrameDraft, SectionDraft};
use super::super::{Run, StreamId, TopicId};
use super::Shared;
use super::intake::partition_of;
use super::keep::Asked;
use super::state::{Due, State, Topic};
use super::stream::{Entry, Stream};
use super::writer::Draft;
use crate::record::Record;

/// Provisional records with their new numbers, as one frame.
#[derive(Debug)]
pub(super) struct Deal {
    topic: TopicId,
    provisional: StreamId,
    draft: Draft,
}

impl Deal {
    pub fn is_of(&self, provisional: StreamId) -> bool {
        self.provisional == provisional
    }
}

impl Shared {
    /// Deals what can be dealt; a topic that must still wait is looked at again when it has drained
    /// further.
    pub(super) fn deal_topics(&self) {
        let failed = self.state.lock().failed_deal.take();
        if let Some(deal) = failed
            && !self.write_deal(deal, true)
        {
            return;
        }
        let topics = std::mem::take(&mut self.state.lock().to_deal);
        let mut topics = topics.into_iter();
        for topic in topics.by_ref() {
            while self.deal_from_disk(topic) {}
            if self.state.lock().failed_deal.is_some() {
                break;
            }
            self.deal_from_memory(topic);
        }
        let mut state = self.state.lock();
        topics.for_each(|topic| state.deal_later(topic));
    }

    /// Deals provisional records that are, or may be, on disk, one frame; gives true when there was
    /// one.
    fn deal_from_disk(&self, topic: TopicId) -> bool {
        self.draft_deal(topic)
            .is_some_and(|deal| self.write_deal(deal, false))
    }

    /// Writes a deal. One that failed may be found whole by a later start, so no other records may
    /// have its numbers: it is written again as it is before anything else is dealt.
    fn write_deal(&self, deal: Deal, again: bool) -> bool {
        let (topic, provisional) = (deal.topic, deal.provisional);
        if let Err(error) = self.try_write(&deal.draft) {
            let mut state = self.state.lock();
            if again || !matches!(error, AppendError::Full { .. }) {
                state.failed_deal = Some(deal);
            } else {
                // Nothing was written, and nothing else takes numbers of these streams meanwhile.
                for section in &deal.draft.frame.sections {
                    if let Some(stream) = state.stream(section.stream) {
                        stream.next = section.first;
                    }
                }
            }
            // What was dealt needs the memory that the rest takes, to be sent and make room.
            state.evict_cold(provisional);
            if let Some(topic) = state.topic(topic) {
                topic.short = true;
            }
            state.deal_later(topic);
            drop(state);
            self.loader.notify_one();
            return false;
        }
        let mut due = Due::default();
        let mut state = self.state.lock();
        if let Some(topic) = state.topic(topic) {
            topic.short = false;
        }
        if let Some(to) = cursor_of(&deal.draft, provisional) {
            state.confirm(provisional, to, &mut due);
        }
        for section in &deal.draft.frame.sections {
            state.seek(section.stream);
            state.offer(section.stream);
        }
        drop(state);
        self.settle(due);
        self.loader.notify_one();
        self.changed.notify_one();
        true
    }

    fn draft_deal(&self, id: TopicId) -> Option<Deal> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let provisional = ready_to_deal(state, id)?;
        let count = state.topic(id)?.growing?;
        let run = state.run;
        let stream = state.stream(provisional)?;
        let lane = stream.lane;
        let (entries, bytes) = oldest_of(stream, run, self.frame_bytes_max());
        let last = entries.last().map(|e| (e.0, e.1))?;
        let topic = state.topic(id)?;
        topic.dealing = true;
        let before = std::mem::replace(&mut topic.partitions, count);
        let mut sections: Vec<SectionDraft> = Vec::new();
        for (run, _, record) in entries {
            let record = state.redated(&self.clock, run, &record);
            let Some(to) = partition_of(state, id, &record) else {
                continue;
            };
            let run = state.run;
            let stream = state.stream(to)?;
            // Numbered and durable at once, so that the loader, not memory, brings them to the
            // uplink.
            let number = stream.next;
            stream.next += 1;
            match sections.iter_mut().find(|s| s.stream == to) {
                Some(section) => section.records.push(record),
                None => sections.push(SectionDraft {
                    stream: to,
                    run,
                    first: number,
                    records: vec![record],
                }),
            }
        }
        state.topic(id)?.partitions = before;
        let next = (last.0, last.1 + 1);
        let cursor = log::Entry::Cursor {
            stream: provisional,
            run: next.0,
            next: next.1,
            offset: None,
        };
        let frame = FrameDraft {
            controls: vec![cursor],
            sections,
        };
        let draft = Draft {
            lane,
            frame,
            bytes,
            makes_room: true,
        };
        Some(Deal {
            topic: id,
            provisional,
            draft,
        })
    }

    /// Deals the provisional records that were never written, with those who wait for them; then
    /// the topic is dealt at the door.
    fn deal_from_memory(&self, id: TopicId) {
        let mut due = Due::default();
        let mut held_anew = Vec::new();
        let mut state = self.state.lock();
        let Some(topic) = state.topic(id) else { return };
        let Some(count) = topic.growing else { return };
        if let Some(provisional) = topic.provisional {
            if ready_to_deal(&mut state, id).is_none() {
                state.deal_later(id);
                return;
            }
            let run = state.run;
            let Some(stream) = state.stream(provisional) else {
                return;
            };
            if !stream.cold.is_empty() || stream.has_unloaded(run) {
                // The loader comes first; it wakes the writer when it has brought something.
                state.seek(provisional);
                state.deal_later(id);
                drop(state);
                self.loader.notify_one();
                return;
            }
            if stream
                .hot
                .front()
                .is_some_and(|entry| entry.number < stream.attempted)
            {
                // A frame failed to be written, and may be found whole later: they must take the
                // way over the disk.
                state.deal_later(id);
                return;
            }
            // Until those that are held are known by their new places the old ones must not count
            // as passed.
            let held = stream.hot.iter().find(|entry| !entry.is_free());
            let end = (run, held.map_or(stream.next, |entry| entry.number));
            let entries = std::mem::take(&mut stream.hot);
            if let Some(topic) = state.topic(id) {
                topic.partitions = count;
                topic.growing = None;
                topic.dealing = false;
            }
            held_anew = move_entries(&mut state, id, entries);
            state.confirm(provisional, end, &mut due);
        } else if !older_are_drained(&state, id) {
            state.deal_later(id);
            return;
        }
        if let Some(topic) = state.topic(id) {
            topic.partitions = count;
            topic.growing = None;
            topic.dealing = false;
            topic.asked = true;
        }
        state.counts_moved.push(id);
        drop(state);
        self.ask_to_keep(held_anew);
        self.settle(due);
        self.changed.notify_one();
    }
}

/// Gives what is to be kept with their new places.
fn move_entries(
    state: &mut State,
    id: TopicId,
    entries: std::collections::VecDeque<Entry>,
) -> Vec<Asked> {
    let mut held = Vec::new();
    for mut entry in entries {
        let Some(to) = partition_of(state, id, &entry.record) else {
            continue;
        };
        let Some(stream) = state.streams.get_mut(to.0 as usize) else {
            continue;
        };
        let number = stream.next;
        stream.next += 1;
        let run = entry.run;
        if let Some(hold) = &mut entry.hold {
            hold.kept = false;
            held.push(Asked::with_record(&hold.changes, stream, (run, number)));
        }
        stream.hot.push_back(Entry { number, ..entry });
        if !stream.dirty {
            stream.dirty = true;
            state.dirty.push(to);
        }
        state.offer(to);
    }
    held
}

fn cursor_of(draft: &Draft, provisional: StreamId) -> Option<(Run, u64)> {
    draft
        .frame
        .controls
        .iter()
        .find_map(|control| match control {
            log::Entry::Cursor {
                stream, run, next, ..
            } if *stream == provisional => Some((*run, *next)),
            _ => None,
        })
}

/// The first records of a stream that may be rewritten, and their bytes: one at least, then as many
/// as fit.
fn oldest_of(stream: &Stream, run: Run, bytes_max: usize) -> (Vec<(Run, u64, Record)>, usize) {
    let in_memory = stream.cold.is_empty() && !stream.has_unloaded(run);
    let hot = stream
        .hot
        .iter()
        .take_while(|e| in_memory && e.number < stream.attempted);
    let mut bytes = 0;
    let entries = stream
        .cold
        .iter()
        .chain(hot)
        .take_while(|e| {
            bytes += e.record.size();
            bytes <= bytes_max || bytes == e.record.size()
        })
        .map(|e| (e.run, e.number, e.record.clone()))
        .collect();
    (entries, bytes)
}

/// The provisional stream of a topic, when its records may be dealt.
fn ready_to_deal(state: &mut State, id: TopicId) -> Option<StreamId> {
    if !older_are_drained(state, id) {
        return None;
    }
    let provisional = state.topic(id)?.provisional?;
    // Some may be on their way to the dead letter topic.
    let held = state.stream(provisional)?.held;
    (!held).then_some(provisional)
}

/// Whether all that was numbered by an older partition count is in Kafka. What was dealt since
/// counts as new, unless it takes the room that the rest needs.
pub(super) fn older_are_drained(state: &State, id: TopicId) -> bool {
    let Some(topic) = state.topics.get(id.0 as usize) else {
        return false;
    };
    (topic.dealing && !topic.short) || are_partitions_drained(state, topic)
}

/// Whether nothing is left to send of what was dealt.
pub(super) fn are_partitions_drained(state: &State, topic: &Topic) -> bool {
    let drained = |id: &StreamId| {
        state
            .streams
            .get(id.0 as usize)
            .is_some_and(|stream| stream.is_drained(state.run))
    };
    topic.streams.iter().flatten().all(drained)
}
