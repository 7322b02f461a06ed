//! Records that Kafka rejects: kept whole, in a lane of their own, out of their stream's way.

use super::super::log::{
    self, FrameDraft, FramePos, Log, QUARANTINE, ReadError, Section, SectionDraft, SegmentId,
};
use super::super::meta::Reason;
use super::super::{Run, StreamId};
use super::Shared;
use super::state::{Rejected, State};
use super::writer::Draft;
use crate::metrics::Counter;
use crate::record::Record;

impl Shared {
    /// Writes rejected records to the quarantine, then takes them out of their streams.
    pub(super) fn quarantine_rejected(&self) {
        let rejected = std::mem::take(&mut self.state.lock().to_quarantine);
        for rejected in rejected {
            let record = find(
                &self.state.lock(),
                rejected.stream,
                rejected.run,
                rejected.number,
            );
            if record
                .as_ref()
                .is_some_and(|record| self.begin_rejected(&rejected, record))
            {
                continue;
            }
            let kept = record.is_some_and(|record| self.keep(&rejected, record));
            let number = rejected.number;
            let dropped = kept
                && self.drop_range(
                    rejected.stream,
                    rejected.run,
                    (number, number + 1),
                    Reason::Rejected,
                );
            if !dropped {
                // It is tried again with the next rejection of the same record.
                tracing::error!(
                    number,
                    "a record that Kafka rejects cannot be put into quarantine"
                );
            }
            let mut state = self.state.lock();
            if let Some(stream) = state.stream(rejected.stream) {
                stream.held = false;
            }
            state.offer(rejected.stream);
            drop(state);
            self.changed.notify_one();
        }
    }

    fn keep(&self, rejected: &Rejected, record: Record) -> bool {
        let note = log::Entry::Note(rejected.cause.clone().into());
        let bytes = record.size();
        let section = SectionDraft {
            stream: rejected.stream,
            run: rejected.run,
            first: rejected.number,
            records: vec![record],
        };
        let frame = FrameDraft {
            controls: vec![note],
            sections: vec![section],
        };
        let draft = Draft {
            lane: log::QUARANTINE,
            frame,
            bytes,
            makes_room: true,
        };
        let result = {
            let mut log = self.log.lock();
            let result = log.append(draft.lane, &draft.frame, self);
            bound(
                &mut log,
                self.config.quarantine_max_bytes,
                self.config.segment_bytes,
            );
            result
        };
        match result {
            Ok(done) => {
                self.metrics.add(Counter::DiskBytes, done.bytes_written);
                tracing::warn!(cause = %rejected.cause, "a record was put into quarantine");
                true
            }
            Err(error) => {
                tracing::error!(%error, "the quarantine cannot be written");
                false
            }
        }
    }

    /// Records in quarantine, without those that were taken out of it; the oldest first.
    pub(super) fn quarantined(&self) -> Vec<Kept> {
        let segments = self.log.lock().segments_of(QUARANTINE).to_vec();
        self.quarantined_in(&segments)
    }

    /// The same, of these segments: all that the quarantine has.
    pub(super) fn quarantined_in(&self, segments: &[SegmentId]) -> Vec<Kept> {
        let (mut kept, mut gone) = (Vec::new(), std::collections::HashSet::new());
        for segment in segments {
            let mut at = self.reader.first(*segment);
            while let Some(here) = at {
                let (directory, next) = match self.reader.read_directory(here) {
                    Ok(Some(found)) => found,
                    Ok(None) | Err(ReadError::Gone(_)) => break,
                    Err(ReadError::Damaged { next, .. }) => {
                        at = next;
                        continue;
                    }
                };
                let note = directory.entries.iter().find_map(|entry| match entry {
                    log::Entry::Note(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
                    _ => None,
                });
                let note = note.unwrap_or_default();
                match directory.sections.first() {
                    Some(section) => kept.push(Kept {
                        at: FramePos {
                            number: next.number.saturating_sub(1),
                            ..here
                        },
                        section: *section,
                        cause: note,
                    }),
                    None => gone.extend(note.split(' ').map(str::to_owned)),
                }
                at = Some(next);
            }
        }
        kept.retain(|kept| !gone.contains(&kept.id()));
        kept
    }

    pub(super) fn read_quarantined(&self, kept: &Kept) -> Option<Record> {
        let frame = self.reader.read_frame(kept.at).ok().flatten()?;
        frame
            .sections
            .into_iter()
            .next()?
            .records
            .into_iter()
            .next()
    }
}

/// Gives up the oldest of the quarantine when it is larger than it may be. The ledger has named
/// those records.
fn bound(log: &mut Log, max_bytes: u64, segment_bytes: u64) {
    let count = u64::try_from(log.segments_of(log::QUARANTINE).len()).unwrap_or(u64::MAX);
    let oldest = log.segments_of(log::QUARANTINE).first().copied();
    if count > 1
        && count.saturating_mul(segment_bytes) > max_bytes
        && let Some(oldest) = oldest
    {
        tracing::warn!(
            max_bytes,
            "the quarantine is full: its oldest records are given up"
        );
        log.free(oldest);
    }
}

fn find(state: &State, stream: StreamId, run: Run, number: u64) -> Option<Record> {
    let stream = state.streams.get(stream.0 as usize)?;
    let mut all = stream.cold.iter().chain(&stream.hot);
    all.find(|entry| entry.run == run && entry.number == number)
        .map(|entry| entry.record.clone())
}

/// A record in quarantine. The frame that takes some out again has no records, and their ids in its
/// note.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub at: FramePos,
    pub section: Section,
    pub cause: String,
}

impl Kept {
    pub fn id(&self) -> String {
        format!("{}-{}", self.at.segment.0, self.at.number)
    }
}
