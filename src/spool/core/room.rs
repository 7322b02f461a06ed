//! Keeps room on disk: what a stream that cannot be sent may hold, and segments of which little is
//! left.

use super::super::log::{ReadError, SegmentId};
use super::super::meta::Reason;
use super::super::{Run, StreamId};
use super::Shared;
use super::state::{LANES, State};
use super::stream::Entry;
use super::writer::{Draft, add_sections};
use crate::config::checked::OnFull;

/// Part of `max_bytes`, in percent, from which on segments with little left are copied forward.
const COPY_FROM_PERCENT: u64 = 75;
/// Part of a segment's records, in percent, that may be left in it to be worth copying.
const COPY_LEFT_PERCENT: u64 = 50;

impl Shared {
    /// Holds streams that cannot be sent while others can to their share of the disk.
    pub(super) fn limit_stalled(&self) {
        let share = self.config.max_bytes / 100 * u64::from(self.config.stalled_max_percent);
        let refuse = self.config.on_stalled_full == OnFull::Refuse;
        let over = {
            let mut state = self.state.lock();
            let mut over = Vec::new();
            for stream in &mut state.streams {
                let is_over = stream.stalled && stream.disk_bytes > share;
                stream.refusing = is_over && refuse;
                if is_over && !refuse {
                    let beyond = stream
                        .taken
                        .map_or((Run(0), 0), |taken| (taken.run, taken.last + 1));
                    let oldest = stream.spans.iter().find(|s| (s.run, s.first) >= beyond);
                    let range = oldest.map(|s| (s.run, (s.first, s.last + 1)));
                    over.push((stream.id, range));
                }
            }
            over
        };
        for (id, range) in over {
            let Some((run, range)) = range else { continue };
            if self.drop_range(id, run, range, Reason::Full)
                && let Some(stream) = self.state.lock().stream(id)
            {
                let spans = stream.spans.len() as u64;
                stream.disk_bytes = stream.disk_bytes / (spans + 1) * spans;
            }
        }
    }

    /// When the disk fills, writes what is left of the emptiest sealed segment once more and gives
    /// it back: a topic that cannot be sent must not hold the segments that it shares with others.
    pub(super) fn copy_forward(&self) {
        let used = self.log.lock().used_bytes();
        if used < self.config.max_bytes / 100 * COPY_FROM_PERCENT {
            return;
        }
        let Some((segment, lane)) = emptiest(&self.state.lock()) else {
            return;
        };
        let Some(mut drafts) = self.left_of(segment, lane) else {
            return;
        };
        for draft in &mut drafts {
            draft.makes_room = true;
        }
        for draft in &drafts {
            if !self.write(draft) {
                return;
            }
        }
        let mut state = self.state.lock();
        let ids: Vec<StreamId> = state.streams.iter().map(|stream| stream.id).collect();
        for id in ids {
            let Some(stream) = state.stream(id) else {
                continue;
            };
            let before = stream.spans.len();
            stream.spans.retain(|span| span.segment != segment);
            let moved = before - stream.spans.len();
            for _ in 0..moved {
                state.unpin(segment);
            }
            if moved > 0 {
                state.seek(id);
            }
        }
        drop(state);
        self.loader.notify_one();
        tracing::info!(
            segment = segment.0,
            "copied forward what was left of a segment"
        );
    }

    /// The live records of a segment, as drafts; `None` when it cannot be read whole.
    fn left_of(&self, segment: SegmentId, lane: u8) -> Option<Vec<Draft>> {
        let mut drafts = Vec::new();
        let mut at = self.reader.first(segment)?;
        loop {
            let frame = match self.reader.read_frame(at) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Some(drafts),
                Err(ReadError::Gone(_) | ReadError::Damaged { .. }) => return None,
            };
            at = frame.next;
            for section in frame.sections {
                let (info, records) = (section.section, section.records);
                let numbered = (info.first..).zip(records);
                let run = info.run;
                let state = self.state.lock();
                let entries: Vec<Entry> = numbered
                    .filter(|(number, _)| is_live(&state, info.stream, (run, *number), segment))
                    .map(|(number, record)| Entry {
                        run,
                        number,
                        record,
                        ticket: None,
                        at_ms: 0,
                        hold: None,
                    })
                    .collect();
                drop(state);
                add_sections(
                    &mut drafts,
                    (info.stream, lane),
                    self.frame_bytes_max(),
                    entries.iter(),
                );
            }
        }
    }
}

fn is_live(state: &State, stream: StreamId, place: (Run, u64), segment: SegmentId) -> bool {
    state.streams.get(stream.0 as usize).is_some_and(|stream| {
        let holds = |s: &super::stream::Span| {
            s.segment == segment && s.run == place.0 && (s.first..=s.last).contains(&place.1)
        };
        place >= stream.confirmed && stream.spans.iter().any(holds)
    })
}

/// The sealed segment of which the smallest part is left, if that is little.
fn emptiest(state: &State) -> Option<(SegmentId, u8)> {
    let mut left: std::collections::HashMap<SegmentId, u64> = std::collections::HashMap::new();
    for stream in &state.streams {
        for span in &stream.spans {
            let floor = if stream.confirmed.0 == span.run {
                stream.confirmed.1
            } else {
                0
            };
            let live = (span.last + 1).saturating_sub(span.first.max(floor));
            *left.entry(span.segment).or_default() += live;
        }
    }
    let part =
        |id: &SegmentId, records: u64| left.get(id).copied().unwrap_or(0) * 100 / records.max(1);
    let fits = state
        .segments
        .iter()
        .filter(|(_, s)| s.sealed && usize::from(s.lane) < LANES);
    fits.map(|(id, s)| (part(id, s.records), *id, s.lane))
        .filter(|(part, ..)| *part <= COPY_LEFT_PERCENT)
        .min()
        .map(|(_, id, lane)| (id, lane))
}
