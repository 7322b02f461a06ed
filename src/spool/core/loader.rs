//! The thread that reads the backlog back: lane by lane from the highest, frame by frame in order,
//! for as long as what was read and not sent stays below a bound.
//!
//! A frame holds records of many streams. Those that are not wanted (confirmed, still in memory, of
//! a stream that cannot be sent) are passed over; when such a stream wants them later, its lane is
//! read again from the segment where they lie ([`State::seek`]).

use std::time::Duration;

use parking_lot::MutexGuard;

use super::super::StreamId;
use super::super::log::{FramePos, ReadError, ReadFrame, Section, SectionRecords, SegmentId};
use super::super::meta::Reason;
use super::Shared;
use super::deal::older_are_drained;
use super::gaps::unfound;
use super::state::{LANES, Reading, State};
use super::stream::{Entry, Span, Stream};
use crate::metrics::Counter;

/// What is at a place.
enum Found {
    Records(ReadFrame),
    /// A frame that nobody wants anything of.
    Nothing {
        next: FramePos,
    },
    End,
}

/// What the loader found in one step.
enum Step {
    /// A frame, or the end of a segment, was passed: go on.
    Went,
    /// Nothing to read before something changes.
    Idle,
}

impl Shared {
    /// The thread's life.
    pub(super) fn load_until_stopped(&self) {
        loop {
            self.rounds.loader.answer();
            let next = {
                let mut state = self.state.lock();
                if state.stopping {
                    return;
                }
                let next = self.next_reading(&mut state);
                if next.is_none() {
                    self.wait_to_load(&mut state);
                }
                next
            };
            if let Some((lane, reading)) = next {
                self.load_step(lane, reading);
            }
        }
    }

    /// Sleeps until there may be something to read, or the replay may go on.
    fn wait_to_load(&self, state: &mut MutexGuard<'_, State>) {
        let waited = state.replay_wait_ms().is_some();
        if waited && state.replay.may_go(self.now_ms()) {
            self.changed.notify_one();
        }
        match state.replay_wait_ms() {
            None => self.loader.wait(state),
            Some(wait) => {
                self.loader.wait_for(state, Duration::from_millis(wait));
            }
        }
    }

    fn load_step(&self, lane: usize, reading: Result<Reading, Reading>) {
        match reading {
            Ok(reading) => {
                if let Step::Idle = self.step(lane, reading) {
                    self.mark_done(lane, reading);
                }
            }
            Err(end) => self.mark_done(lane, end),
        }
    }

    /// Reads all that may be read now.
    #[cfg(test)]
    pub(super) fn load_all(&self) {
        loop {
            let next = self.next_reading(&mut self.state.lock());
            let Some((lane, reading)) = next else { return };
            self.load_step(lane, reading);
        }
    }

    /// Where to read next: the highest lane that is not done, if there is room in memory; `Err`:
    /// its end.
    fn next_reading(&self, state: &mut State) -> Option<(usize, Result<Reading, Reading>)> {
        let bytes_max = self.config.memory_max_bytes / 2;
        if !state.uplink_up || (state.cold_bytes >= bytes_max && !make_way(state, bytes_max)) {
            return None;
        }
        for lane in (0..LANES).rev() {
            if state.lane_done.get(lane).copied().unwrap_or(true) {
                continue;
            }
            let now = state.reading.get(lane).copied()?;
            return Some((lane, reading_in(state, lane).ok_or(now)));
        }
        None
    }

    /// Reads the frame at a place, if a stream wants something of it, and hands that over.
    fn step(&self, lane: usize, reading: Reading) -> Step {
        let Some(at) = reading.at.or_else(|| self.reader.first(reading.segment)) else {
            return self.end_of_segment(lane, reading);
        };
        match self.read(at) {
            Ok(Found::Records(frame)) => self.take_in(lane, reading, frame),
            Ok(Found::Nothing { next }) => {
                self.go_on(&mut self.state.lock(), lane, reading, next);
                Step::Went
            }
            Ok(Found::End) | Err(ReadError::Gone(_)) => self.end_of_segment(lane, reading),
            Err(ReadError::Damaged {
                ranges,
                next,
                what,
                at,
                ..
            }) => {
                tracing::error!(
                    segment = at.segment.0,
                    offset = at.offset,
                    what,
                    "the spool is damaged"
                );
                self.metrics.add(Counter::Damages, 1);
                for range in ranges {
                    self.lose(&range);
                }
                let Some(next) = next else {
                    return self.end_of_segment(lane, reading);
                };
                self.go_on(&mut self.state.lock(), lane, reading, next);
                Step::Went
            }
        }
    }

    fn read(&self, at: FramePos) -> Result<Found, ReadError> {
        let Some((directory, next)) = self.reader.read_directory(at)? else {
            return Ok(Found::End);
        };
        let wanted = {
            let state = self.state.lock();
            directory
                .sections
                .iter()
                .any(|section| wants(&state, section))
        };
        if !wanted {
            return Ok(Found::Nothing { next });
        }
        Ok(self
            .reader
            .read_frame(at)?
            .map_or(Found::End, Found::Records))
    }

    fn take_in(&self, lane: usize, reading: Reading, frame: ReadFrame) -> Step {
        let mut state = self.state.lock();
        let mut any = false;
        for section in frame.sections {
            any |= load(&mut state, section);
        }
        self.go_on(&mut state, lane, reading, frame.next);
        drop(state);
        if any {
            self.changed.notify_one();
            self.writer_if_dealing();
        }
        Step::Went
    }

    fn writer_if_dealing(&self) {
        let mut state = self.state.lock();
        if !state.to_deal.is_empty() {
            self.poke_writer(&mut state);
        }
    }

    fn go_on(&self, state: &mut State, lane: usize, from: Reading, next: FramePos) {
        if let Some(reading) = state.reading.get_mut(lane)
            && *reading == from
        {
            reading.at = Some(next);
        }
    }

    /// The segment has no more frames: on to the next, if it is sealed; else there is nothing until
    /// a commit.
    fn end_of_segment(&self, lane: usize, from: Reading) -> Step {
        let mut state = self.state.lock();
        if state
            .segments
            .get(&from.segment)
            .is_some_and(|segment| !segment.sealed)
        {
            return Step::Idle;
        }
        if let Some(reading) = state.reading.get_mut(lane)
            && *reading == from
        {
            *reading = Reading {
                segment: SegmentId(from.segment.0 + 1),
                at: None,
            };
        }
        Step::Went
    }

    /// Writes off records that cannot be read, but for those that are: a frame without a header is
    /// found again by whoever comes to it.
    fn lose(&self, lost: &Section) {
        let floor = {
            let state = self.state.lock();
            state
                .streams
                .get(lost.stream.0 as usize)
                .map(|stream| stream.load_next)
        };
        let Some(floor) = floor.filter(|floor| (lost.run, lost.end()) > *floor) else {
            return;
        };
        let first = if floor.0 == lost.run { floor.1 } else { 0 };
        for (from, end) in self.live_parts(lost) {
            let from = from.max(first);
            if from >= end {
                continue;
            }
            let (stream, run, first) = (lost.stream, lost.run, from);
            tracing::error!(stream = stream.0, %run, first, end, "records on disk are damaged");
            self.drop_range(stream, run, (from, end), Reason::Damaged);
            self.state.lock().offer(stream);
            self.changed.notify_one();
        }
    }
}

/// Memory is full, and the lane that is to be read has something for a stream: what was read back
/// of lower lanes gives way. Whether there is room now.
fn make_way(state: &mut State, bytes_max: usize) -> bool {
    let open = |lane: &usize| !state.lane_done.get(*lane).copied().unwrap_or(true);
    let Some(lane) = (0..LANES).rev().find(open) else {
        return false;
    };
    // Eviction sends the loader back to where the records lie: never in the lane that it reads.
    let below = |stream: &&Stream| {
        let lies = stream.cold.front().and_then(|first| {
            let holds =
                |s: &&Span| s.run == first.run && (s.first..=s.last).contains(&first.number);
            let span = stream.spans.iter().find(holds)?;
            state
                .segments
                .get(&span.segment)
                .map(|s| usize::from(s.lane))
        });
        lies.is_some_and(|lies| lies < lane)
    };
    let mut below: Vec<(u8, StreamId)> = state
        .streams
        .iter()
        .filter(below)
        .map(|s| (s.lane, s.id))
        .collect();
    if below.is_empty() || unfound(state, lane).is_empty() {
        return false;
    }
    below.sort_unstable();
    for (_, id) in below {
        if state.cold_bytes <= bytes_max / 2 {
            break;
        }
        state.evict_cold(id);
        state.seek(id);
    }
    state.cold_bytes < bytes_max
}

/// The place in a lane where reading goes on: in the segment where it stood, or in the next that is
/// needed.
fn reading_in(state: &mut State, lane: usize) -> Option<Reading> {
    let now = *state.reading.get(lane)?;
    let needed = state
        .segments
        .iter()
        .filter(|(_, s)| usize::from(s.lane) == lane && s.spans > 0);
    let segment = needed
        .map(|(id, _)| *id)
        .filter(|id| *id >= now.segment)
        .min()?;
    let reading = if segment == now.segment {
        now
    } else {
        Reading { segment, at: None }
    };
    *state.reading.get_mut(lane)? = reading;
    Some(reading)
}

/// Whether a stream's records should be in memory. What cannot be sent or dealt yet waits for
/// others, and must not take the memory that they need.
pub(super) fn may_load(state: &State, stream: &Stream) -> bool {
    !stream.has_probe()
        && stream.unresolved.is_empty()
        && (!stream.is_provisional() || older_are_drained(state, stream.topic))
}

/// Whether a section on disk is what its stream wants next.
fn wants(state: &State, section: &Section) -> bool {
    let Some(stream) = state.streams.get(section.stream.0 as usize) else {
        return false;
    };
    if section.count == 0 || !may_load(state, stream) {
        return false;
    }
    let Some((place, _)) = stream.first_unloaded(state.run) else {
        return false;
    };
    place.0 == section.run && section.first <= place.1 && place.1 < section.end()
}

/// Puts a section's wanted records behind what its stream has read back; gives true when there were
/// some.
fn load(state: &mut State, section: SectionRecords) -> bool {
    let (info, records) = (section.section, section.records);
    if !wants(state, &info) {
        return false;
    }
    let current = state.run;
    let id = info.stream;
    let Some(stream) = state.streams.get_mut(id.0 as usize) else {
        return false;
    };
    let Some((place, _)) = stream.first_unloaded(current) else {
        return false;
    };
    let hot_from = stream
        .hot
        .front()
        .map_or((current, stream.next), |e| (e.run, e.number));
    let drops = stream.numbering(info.run).drops.clone();
    let mut loaded = 0;
    for (number, record) in (info.first..).zip(records) {
        let at = (info.run, number);
        let dropped = drops
            .iter()
            .any(|(first, end)| (*first..*end).contains(&number));
        if at < place || at >= hot_from || dropped {
            continue;
        }
        if stream.has_probe() {
            break;
        }
        loaded += record.size();
        stream.cold.push_back(Entry {
            run: info.run,
            number,
            record,
            ticket: None,
            at_ms: 0,
            hold: None,
        });
        stream.load_next = (info.run, number + 1);
    }
    stream.cold_bytes += loaded;
    stream.sought = None;
    state.cold_bytes += loaded;
    state.offer(id);
    true
}
