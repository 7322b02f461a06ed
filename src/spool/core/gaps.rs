//! What the loader does at the end of a lane where streams still miss records: it looks again, and
//! goes on behind numbers that were never written.

use super::super::StreamId;
use super::super::log::{ReadError, Section, SegmentId};
use super::Shared;
use super::loader::may_load;
use super::state::{Reading, State};
use super::stream::{Place, Span, Stream};

/// Whole passes over a lane before the loader gives up on a place: that would be a fault of ours.
const PASSES_MAX: u32 = 3;

impl Shared {
    /// The end of a lane. Streams that still miss records there are looked for again from the first
    /// segment that may hold them; if that brings nothing they miss what was never written.
    pub(super) fn mark_done(&self, lane: usize, reading: Reading) {
        let mut gaps = Vec::new();
        {
            let mut state = self.state.lock();
            if state.reading.get(lane) != Some(&reading) {
                return;
            }
            if let Some(done) = state.lane_done.get_mut(lane) {
                *done = true;
            }
            for (id, place) in unfound(&state, lane) {
                let Some(stream) = state.stream(id) else {
                    continue;
                };
                let passes = stream.sought.filter(|s| s.0 == place).map_or(0, |s| s.1);
                stream.sought = Some((place, passes + 1));
                match passes {
                    0 => state.seek(id),
                    1..PASSES_MAX => gaps.push((id, place)),
                    _ => tracing::error!(stream = id.0, ?place, "a stream cannot be read back"),
                }
            }
        }
        for (id, place) in gaps {
            self.skip_gap(id, place);
        }
    }

    /// A restart knows of a segment only the first and the last number of a stream. What is not
    /// between them was confirmed by Kafka before it had to be written, or dropped: the loader goes
    /// on behind it.
    fn skip_gap(&self, id: StreamId, place: Place) {
        let mut segments: Vec<SegmentId> = {
            let state = self.state.lock();
            let spans = state.streams.get(id.0 as usize).map(|stream| &stream.spans);
            let may_hold = |s: &&Span| s.run == place.0 && s.last >= place.1;
            spans
                .into_iter()
                .flatten()
                .filter(may_hold)
                .map(|span| span.segment)
                .collect()
        };
        segments.dedup();
        let next = segments
            .into_iter()
            .filter_map(|s| self.next_in(s, id, place))
            .min();
        let mut state = self.state.lock();
        let run = state.run;
        let Some(stream) = state.stream(id) else {
            return;
        };
        if stream
            .first_unloaded(run)
            .is_none_or(|(now, _)| now != place)
        {
            return;
        }
        let last = stream
            .spans
            .iter()
            .filter(|s| s.run == place.0)
            .map(|s| s.last)
            .max();
        let next = next.or(last.map(|last| last + 1)).unwrap_or(place.1);
        if next > place.1 {
            let (run, from) = (place.0.0, place.1);
            tracing::info!(
                stream = id.0,
                run,
                from,
                to = next,
                "nothing was written here"
            );
            stream.load_next = (place.0, next);
        }
        state.seek(id);
        state.offer(id);
        drop(state);
        self.changed.notify_one();
    }

    /// The first number at or behind a place that a segment holds of a stream's run.
    fn next_in(&self, segment: SegmentId, id: StreamId, place: Place) -> Option<u64> {
        let mut at = self.reader.first(segment);
        let mut first: Option<u64> = None;
        while let Some(here) = at {
            at = match self.reader.read_directory(here) {
                Ok(Some((directory, next))) => {
                    let of = |s: &&Section| s.stream == id && s.run == place.0 && s.end() > place.1;
                    let numbers = directory
                        .sections
                        .iter()
                        .filter(of)
                        .map(|s| s.first.max(place.1));
                    first = numbers.chain(first).min();
                    Some(next)
                }
                Err(ReadError::Damaged { next, .. }) => next,
                Ok(None) | Err(ReadError::Gone(_)) => None,
            };
        }
        first
    }
}

/// Streams that may be read back and miss records in a lane, and from which place on.
pub(super) fn unfound(state: &State, lane: usize) -> Vec<(StreamId, Place)> {
    let in_lane = |id: &SegmentId| {
        state
            .segments
            .get(id)
            .is_some_and(|s| usize::from(s.lane) == lane)
    };
    let missing = |stream: &Stream| {
        let (place, segment) = stream.first_unloaded(state.run)?;
        (may_load(state, stream) && in_lane(&segment)).then_some((stream.id, place))
    };
    state.streams.iter().filter_map(missing).collect()
}
