//! The thread that writes: group commits, cursors, the ledger, segments given back.
//!
//! It sleeps until something is due. While Kafka confirms in time nothing ever is, and nothing is
//! written.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::log::{AppendError, Appended, FrameDraft, SectionDraft, SegmentId};
use super::super::{Run, StreamId};
use super::Shared;
use super::state::{Due, Segment, State};
use super::stream::{Entry, Span};
use super::time::Times;
use crate::config::checked::SpoolMode;
use crate::metrics::{Counter, Gauge, Histogram};

/// Most bytes of records in one frame: what a reader must hold to read one record of it.
const FRAME_BYTES_MAX: usize = 512 * 1024;
/// Records worth a commit of their own: compressed they fill so many pages that the last one's
/// padding, which company would save, is a tenth.
pub(super) const COMPANY_BYTES: usize = 128 * 1024;
/// Least time between two stores of cursors and ledger while they move.
const STORE_INTERVAL_MS: u64 = 1_000;
/// Wait after a write or sync that failed, or while the disk is full.
const RETRY_MS: u64 = 500;
/// Share of `spill_after` by which a spill may come late.
const TICKS_PER_SPILL: u64 = 4;

/// Records of one lane on their way to one frame.
#[derive(Debug)]
pub(super) struct Draft {
    pub lane: u8,
    pub frame: FrameDraft,
    /// Raw bytes of its records.
    pub bytes: usize,
    /// It frees more than it takes, and may use the segment that is kept back for that.
    pub makes_room: bool,
}

/// When the writer last did what it does in intervals.
#[derive(Default)]
pub(super) struct Done {
    committed_ms: u64,
    stored_ms: u64,
    pub failed_ms: Option<u64>,
}

impl Shared {
    /// The thread's life.
    pub(super) fn write_until_stopped(&self) {
        let mut done = Done::default();
        loop {
            self.rounds.writer.answer();
            let stopping = self.wait_for_work(&done);
            self.write_step(&mut done, stopping);
            if stopping {
                return;
            }
        }
    }

    /// Does everything that is due.
    pub(super) fn write_step(&self, done: &mut Done, stopping: bool) {
        self.give_back_segments();
        self.finish_moves();
        self.quarantine_rejected();
        self.expire_heads();
        self.do_by_hand();
        self.begin_moves();
        self.deal_topics();
        let now_ms = self.now_ms();
        if stopping || self.commit_is_due(done, now_ms) {
            done.committed_ms = now_ms;
            let ok = self.commit(stopping);
            done.failed_ms = (!ok).then_some(now_ms);
            self.finish_moves();
        }
        if stopping || now_ms >= done.stored_ms + STORE_INTERVAL_MS {
            done.stored_ms = now_ms;
            self.store();
            self.limit_stalled();
            self.copy_forward();
        }
        if !stopping {
            self.prepare_spare();
        }
    }

    /// Sleeps until the next thing is due; gives true when the spool stops.
    fn wait_for_work(&self, done: &Done) -> bool {
        let mut state = self.state.lock();
        if !state.stopping && !state.poke {
            match self.next_due_ms(&state, done) {
                None => self.writer.wait(&mut state),
                Some(due_ms) => {
                    let wait = due_ms.saturating_sub(self.now_ms()).max(1);
                    self.writer
                        .wait_for(&mut state, Duration::from_millis(wait));
                }
            }
        }
        state.poke = false;
        state.writer_hurries = self.in_a_hurry(&state);
        state.stopping
    }

    fn next_due_ms(&self, state: &State, done: &Done) -> Option<u64> {
        let store = !state.cursors_moved.is_empty()
            || !state.counts_moved.is_empty()
            || !state.refused.is_empty()
            || state.has_backlog();
        let store_at = store.then_some(done.stored_ms + STORE_INTERVAL_MS);
        let commit_at = (!state.dirty.is_empty()).then(|| self.next_commit_ms(state, done));
        let moves_at = state.look_at_moves_ms(self.now_ms());
        [store_at, commit_at, moves_at].into_iter().flatten().min()
    }

    /// When the next group commit may start.
    fn next_commit_ms(&self, state: &State, done: &Done) -> u64 {
        // A commit waits a little for company, unless it is large enough without, so that its page
        // is worth writing.
        let interval = millis(self.config.sync_interval);
        let tick = millis(self.config.spill_after) / TICKS_PER_SPILL;
        let pause = match (self.in_a_hurry(state), state.fresh_bytes) {
            (true, COMPANY_BYTES..) => 0,
            (true, _) => interval,
            (false, _) => interval.max(tick),
        };
        let after_failure = done.failed_ms.map_or(0, |failed| failed + RETRY_MS);
        (done.committed_ms + pause).max(after_failure)
    }

    /// Whether records are written without waiting for Kafka.
    pub(super) fn in_a_hurry(&self, state: &State) -> bool {
        self.config.mode == SpoolMode::Always
            || !state.uplink_up
            || state.hurry
            || state.hot.bytes() > self.config.memory_max_bytes / 2
    }

    fn commit_is_due(&self, done: &Done, now_ms: u64) -> bool {
        let state = self.state.lock();
        !state.dirty.is_empty() && now_ms >= self.next_commit_ms(&state, done)
    }

    /// Most bytes of records in one frame: a frame of what zstd cannot compress must fit into half
    /// a segment.
    pub(super) fn frame_bytes_max(&self) -> usize {
        let quarter = usize::try_from(self.config.segment_bytes / 4).unwrap_or(usize::MAX);
        FRAME_BYTES_MAX.min(quarter)
    }

    /// Writes what is due, in as many frames as it takes; gives false when a write failed.
    fn commit(&self, all: bool) -> bool {
        let drafts = {
            let mut state = self.state.lock();
            state.fresh_bytes = 0;
            let all = all || self.in_a_hurry(&state);
            let oldest = self
                .now_ms()
                .saturating_sub(millis(self.config.spill_after));
            let mut drafts = gather(
                &mut state,
                if all { u64::MAX } else { oldest },
                self.frame_bytes_max(),
            );
            if let Some(draft) = drafts.first_mut() {
                draft.frame.controls = std::mem::take(&mut state.controls);
            }
            drafts
        };
        for (at, draft) in drafts.iter().enumerate() {
            if !self.write(draft) {
                if at == 0 {
                    self.state
                        .lock()
                        .controls
                        .extend_from_slice(&draft.frame.controls);
                }
                return false;
            }
        }
        true
    }

    /// Writes one frame and makes its records safe; what failed is told.
    pub(super) fn write(&self, draft: &Draft) -> bool {
        self.try_write(draft).is_ok()
    }

    /// As [`Shared::write`], and says why it failed.
    pub(super) fn try_write(&self, draft: &Draft) -> Result<(), AppendError> {
        let appended = self.append(draft).inspect_err(|error| self.report(error))?;
        let mut due = Due::default();
        let mut state = self.state.lock();
        state.full = false;
        self.apply(&mut state, draft, &appended, &mut due);
        drop(state);
        self.loader.notify_one();
        self.settle(due);
        Ok(())
    }

    /// Appends a frame, making room by the policy when there is none.
    fn append(&self, draft: &Draft) -> Result<Appended, AppendError> {
        loop {
            let result = {
                // One file is kept back for what makes room.
                let keep = usize::from(!draft.makes_room);
                let mut log = self.log.lock();
                log.append_keeping(keep, draft.lane, &draft.frame, self)
            };
            match result {
                Err(AppendError::Full { .. }) if self.give_way() => {}
                other => return other,
            }
        }
    }

    fn report(&self, error: &AppendError) {
        let full = matches!(error, AppendError::Full { .. });
        let mut state = self.state.lock();
        let news = full != state.full || !full;
        state.full = full;
        drop(state);
        self.metrics.set(Gauge::SpoolFull, u64::from(full));
        if !full {
            self.metrics.add(Counter::DiskErrors, 1);
        }
        if news {
            tracing::error!(
                %error,
                "the spool cannot write; nothing that needs the disk is acknowledged"
            );
        }
    }

    /// Notes what a synced frame holds and whose tickets are due.
    pub(super) fn apply(&self, state: &mut State, draft: &Draft, done: &Appended, due: &mut Due) {
        self.metrics.add(Counter::Commits, 1);
        self.metrics.add(Counter::DiskBytes, done.bytes_written);
        self.metrics.set(Gauge::SpoolFull, 0);
        self.metrics.observe(Histogram::SyncSeconds, done.sync, 1);
        note_segment(state, draft, done);
        let evict = !state.uplink_up || state.hot.bytes() > self.config.memory_max_bytes / 2;
        let raw = draft.bytes.max(1) as u64;
        for section in &draft.frame.sections {
            let count = section.records.len() as u64;
            self.metrics.add(Counter::DiskRecords, count);
            let last = (section.first + count).saturating_sub(1);
            let size: usize = section
                .records
                .iter()
                .map(crate::record::Record::size)
                .sum();
            if make_durable(state, section, last, due) {
                state.offer(section.stream);
                self.changed.notify_one();
            }
            if let Some(stream) = state.stream(section.stream) {
                stream.disk_bytes += size as u64 * done.bytes_written / raw;
            }
            let span = Span {
                segment: done.at.segment,
                run: section.run,
                first: section.first,
                last,
            };
            state.add_span(section.stream, span);
            let stalled = state.stream(section.stream).is_some_and(|s| s.stalled);
            if evict || stalled {
                state.evict_hot(section.stream);
            }
        }
        if let Some(sealed) = done.sealed {
            seal(state, sealed);
        }
        if let Some(done) = state.lane_done.get_mut(usize::from(draft.lane)) {
            *done = false;
        }
    }

    /// Gives back segments that nobody needs. They may be found again after a power cut, so the
    /// cursors that passed them are stored first: a provisional stream has no Kafka to ask where it
    /// stands.
    fn give_back_segments(&self) {
        let freed = std::mem::take(&mut self.state.lock().to_free);
        if freed.is_empty() {
            return;
        }
        if !self.store() {
            self.state.lock().to_free.extend(freed);
            return;
        }
        let mut log = self.log.lock();
        for segment in freed {
            log.free(segment);
        }
    }

    /// After a segment was sealed: makes the file that will follow the open one now, when this
    /// round's records are safe, so that no commit waits for zeroing. Nothing to do if a file is
    /// about to come back.
    fn prepare_spare(&self) {
        let mut state = self.state.lock();
        let sealed = std::mem::take(&mut state.sealed);
        if !sealed || !state.to_free.is_empty() {
            return;
        }
        drop(state);
        if let Err(error) = self.log.lock().prepare_spares() {
            tracing::warn!(%error, "no segment file could be made ahead of need");
        }
    }

    /// Sets the gauges.
    pub(super) fn show_figures(&self) {
        let state = self.state.lock();
        let m = &self.metrics;
        let on_disk: u64 = state
            .segments
            .values()
            .filter(|s| s.spans > 0)
            .map(|s| s.bytes)
            .sum();
        let records = state.streams.iter().map(|s| s.left(state.run)).sum();
        m.set(Gauge::BufferedRecords, records);
        m.set(
            Gauge::BufferedMemoryBytes,
            (state.hot.bytes() + state.cold_bytes) as u64,
        );
        m.set(Gauge::BufferedDiskBytes, on_disk);
        m.set(Gauge::Streams, state.streams.len() as u64);
        m.set(
            Gauge::StreamsStalled,
            state.streams.iter().filter(|s| s.stalled).count() as u64,
        );
        let times = self.times(&state);
        let oldest = state
            .streams
            .iter()
            .filter_map(|s| s.cold.front().or(s.hot.front()));
        let oldest = oldest.filter_map(|entry| match &times {
            None => Some(entry.record.timestamp_ms),
            Some(times) => times.came_in(entry),
        });
        let segments =
            state
                .segments
                .values()
                .filter(|s| s.spans > 0)
                .filter_map(|s| match &times {
                    None => Some(s.oldest_ms),
                    Some(times) => times.oldest_of(s),
                });
        let now_ms = times.as_ref().map_or_else(super::wall_ms, Times::now_ms);
        let age = oldest
            .chain(segments)
            .min()
            .map_or(0, |oldest| now_ms.saturating_sub(oldest));
        m.set(Gauge::BufferedAgeMs, u64::try_from(age).unwrap_or(0));
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Copies what is to be written: of each stream the unbroken beginning of what is not durable. A
/// stream takes part when its oldest such record came in at or before `came_in_ms`.
fn gather(state: &mut State, came_in_ms: u64, bytes_max: usize) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    let mut still_dirty = Vec::new();
    for id in std::mem::take(&mut state.dirty) {
        let Some(stream) = state.streams.get_mut(id.0 as usize) else {
            continue;
        };
        let from = stream.first_volatile();
        let Some(oldest) = stream.hot.get(from) else {
            stream.dirty = false;
            continue;
        };
        if !oldest.is_writable() {
            // It is listed again when its change is synced.
            stream.dirty = false;
            continue;
        }
        still_dirty.push(id);
        if (oldest.at_ms <= came_in_ms || stream.hasty) && !stream.refusing {
            stream.hasty = false;
            let volatile = stream.hot.range(from..);
            let count = volatile.take_while(|entry| entry.is_writable()).count();
            let entries = stream.hot.range(from..from + count);
            stream.attempted = stream
                .hot
                .get(from + count)
                .map_or(stream.next, |e| e.number);
            add_sections(&mut drafts, (id, stream.lane), bytes_max, entries);
        }
    }
    state.dirty = still_dirty;
    drafts
}

/// Adds entries of a stream to the drafts of its lane, a section for each stretch without a gap. A
/// draft holds at most `bytes_max`, or one record.
pub(super) fn add_sections<'a>(
    drafts: &mut Vec<Draft>,
    (stream, lane): (StreamId, u8),
    bytes_max: usize,
    entries: impl Iterator<Item = &'a Entry>,
) {
    for entry in entries {
        let size = entry.record.size();
        let open = drafts.iter().rposition(|d| d.lane == lane);
        let has_room = |at: &usize| drafts.get(*at).is_some_and(|d| d.bytes + size <= bytes_max);
        let at = open.filter(has_room).unwrap_or_else(|| {
            drafts.push(Draft {
                lane,
                frame: FrameDraft::default(),
                bytes: 0,
                makes_room: false,
            });
            drafts.len() - 1
        });
        let Some(draft) = drafts.get_mut(at) else {
            continue;
        };
        draft.bytes += size;
        let follows = |s: &SectionDraft| {
            s.stream == stream
                && s.run == entry.run
                && s.first + s.records.len() as u64 == entry.number
        };
        match draft.frame.sections.last_mut() {
            Some(section) if follows(section) => section.records.push(entry.record.clone()),
            _ => draft.frame.sections.push(SectionDraft {
                stream,
                run: entry.run,
                first: entry.number,
                records: vec![entry.record.clone()],
            }),
        }
    }
}

/// The records of a synced section are safe: their tickets are due. Gives true when some were held.
fn make_durable(state: &mut State, section: &SectionDraft, last: u64, due: &mut Due) -> bool {
    let run: Run = state.run;
    let Some(stream) = state.stream(section.stream) else {
        return false;
    };
    if section.run != run {
        return false;
    }
    let mut freed = false;
    stream.durable = stream.durable.max(last + 1);
    let from = stream
        .hot
        .partition_point(|entry| entry.number < section.first);
    for entry in stream.hot.range_mut(from..) {
        if entry.number > last {
            break;
        }
        freed |= entry.hold.take().is_some();
        if let Some(ticket) = entry.ticket.take() {
            due.add(ticket);
        }
    }
    freed
}

fn note_segment(state: &mut State, draft: &Draft, done: &Appended) {
    let oldest = draft.frame.sections.iter().flat_map(|s| s.records.first());
    let oldest = oldest
        .map(|record| record.timestamp_ms)
        .min()
        .unwrap_or_else(super::wall_ms);
    let segment = state
        .segments
        .entry(done.at.segment)
        .or_insert_with(|| Segment {
            lane: draft.lane,
            spans: 0,
            sealed: false,
            oldest_ms: oldest,
            runs: BTreeSet::new(),
            bytes: 0,
            records: 0,
        });
    segment.bytes += done.bytes_written;
    segment.records += draft
        .frame
        .sections
        .iter()
        .map(|s| s.records.len() as u64)
        .sum::<u64>();
    segment.oldest_ms = segment.oldest_ms.min(oldest);
    let runs = draft.frame.sections.iter().map(|s| s.run);
    segment.runs.extend(runs);
}

/// A segment takes no more frames: if nobody needs it, it goes back at once.
fn seal(state: &mut State, id: SegmentId) {
    state.sealed = true;
    let Some(segment) = state.segments.get_mut(&id) else {
        return;
    };
    segment.sealed = true;
    if segment.spans == 0 {
        state.segments.remove(&id);
        state.to_free.push(id);
    }
}
