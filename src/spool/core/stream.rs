//! One stream's records between intake and confirmation. Pure state: no locks, no I/O, no clock.
//!
//! ```text
//!   confirmed │ cold (read back) │ on disk only │ hot (in memory)            │ next
//!   ──────────┼──────────────────┼──────────────┼────────────────────────────┼─────▶ (run, number)
//!             └ taken: being sent┘  load_next ┘  └ durable: on disk as well ─┘
//! ```
//! # Invariants
//! - `hot` holds an unbroken end of the current run, less what was dropped; what is not durable is
//!   in it.
//! - Records are handed out in order: `cold`, then, when nothing is left on disk only, `hot`.
//! - While records are taken they stay at the front of `cold` or `hot`.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::log::SegmentId;
use super::super::{Run, StreamId, Ticket, TopicId, TopicPartition};
use super::dead_letter::MOVE_RECORDS;
use super::keep::Hold;
use super::numbering::Numbering;
use crate::record::Record;

/// A place in a stream: runs come one after the other, numbers within them.
pub(super) type Place = (Run, u64);

/// Runs whose bases, and drops (of a run, below a number) that need not be stored any more.
pub(super) type Folded = (Vec<Run>, Vec<(Run, u64)>);

/// A record in memory.
#[derive(Debug)]
pub(super) struct Entry {
    pub run: Run,
    pub number: u64,
    pub record: Record,
    /// Who waits; taken out when the record is safe.
    pub ticket: Option<Ticket>,
    /// Milliseconds on the spool's clock at which it came in.
    pub at_ms: u64,
    /// What must be safe before Kafka may have it; nothing when it is on disk.
    pub hold: Option<Box<Hold>>,
}

impl Entry {
    /// Whether it may be written.
    pub fn is_writable(&self) -> bool {
        self.hold.as_ref().is_none_or(|hold| hold.kept)
    }

    /// Whether Kafka may have it.
    pub fn is_free(&self) -> bool {
        self.hold.is_none()
    }
}

/// Records of this stream in one segment: `first` to `last`, not all of them its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub segment: SegmentId,
    pub run: Run,
    pub first: u64,
    pub last: u64,
}

/// What is with the uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TakenRange {
    pub run: Run,
    pub last: u64,
    pub cold: bool,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub id: StreamId,
    pub to: TopicPartition,
    pub topic: TopicId,
    pub lane: u8,
    /// Number of the next record to come in.
    pub next: u64,
    /// Records of the current run below this are on disk, or confirmed.
    pub durable: u64,
    /// Records of the current run below this may be on disk: a frame with them was begun.
    pub attempted: u64,
    /// Everything before this place is confirmed or dropped.
    pub confirmed: Place,
    /// Kafka offset behind the last confirmed record, if known.
    pub offset: Option<i64>,
    pub hot: VecDeque<Entry>,
    pub cold: VecDeque<Entry>,
    pub cold_bytes: usize,
    /// What is on disk, ascending.
    pub spans: VecDeque<Span>,
    /// Everything on disk before this place has been read back, or need not be.
    pub load_next: Place,
    /// Where the loader was sent back for this stream without finding anything, and how often.
    pub sought: Option<(Place, u32)>,
    pub taken: Option<TakenRange>,
    /// Runs that still have records here, ascending; the current one last.
    pub numberings: Vec<Numbering>,
    /// Oldest run whose standing in Kafka must be asked before anything is sent.
    pub unresolved: Vec<Run>,
    /// What is missing of unresolved runs: first number, number behind the last. Whether Kafka has
    /// them is not known yet.
    pub holes: Vec<(Run, u64, u64)>,
    /// Set while its records of older runs may be in Kafka though the uplink sends them.
    pub blind: bool,
    /// Set while the uplink cannot send it though it can send others.
    pub stalled: bool,
    /// Why its records go to the dead letter topic, while they do.
    pub dead: Option<Arc<str>>,
    /// Set while it holds more of the disk than a stalled stream may.
    pub refusing: bool,
    /// Set while the writer thread has work to do on it before it may be taken: expiry, quarantine.
    pub held: bool,
    /// Listed in the ready queues.
    pub ready: bool,
    /// Listed as having records that are not durable.
    pub dirty: bool,
    /// Some that are not durable are to be written without waiting for Kafka.
    pub hasty: bool,
    /// Its cursor moved past something on disk since it was last stored.
    pub cursor_moved: bool,
    /// Records of it that are on disk, estimated bytes there.
    pub disk_bytes: u64,
}

impl Stream {
    pub fn new(id: StreamId, to: TopicPartition, topic: TopicId, lane: u8, run: Run) -> Self {
        Self {
            id,
            to,
            topic,
            lane,
            next: 0,
            durable: 0,
            attempted: 0,
            confirmed: (Run(0), 0),
            offset: None,
            hot: VecDeque::new(),
            cold: VecDeque::new(),
            cold_bytes: 0,
            spans: VecDeque::new(),
            load_next: (Run(0), 0),
            sought: None,
            taken: None,
            numberings: vec![Numbering::new(run)],
            unresolved: Vec::new(),
            holes: Vec::new(),
            blind: false,
            stalled: false,
            dead: None,
            refusing: false,
            held: false,
            ready: false,
            dirty: false,
            hasty: false,
            cursor_moved: false,
            disk_bytes: 0,
        }
    }

    pub fn is_provisional(&self) -> bool {
        self.to.partition == super::super::PROVISIONAL
    }

    /// Whether records on disk must be read back before anything in `hot` may go.
    pub fn has_unloaded(&self, run: Run) -> bool {
        !self.spans.is_empty() && self.first_unloaded(run).is_some()
    }

    /// Whether a backlog on disk stands before the live records.
    pub fn has_backlog(&self, run: Run) -> bool {
        !self.cold.is_empty() || self.has_unloaded(run)
    }

    /// It cannot be sent, and has in memory what it is tried with: no more of it is read back.
    pub fn has_probe(&self) -> bool {
        self.stalled && self.cold.len() >= self.probe()
    }

    /// How many records of it are kept in memory while it cannot be sent.
    pub fn probe(&self) -> usize {
        match self.dead {
            Some(_) => MOVE_RECORDS,
            None => 1,
        }
    }

    /// Whether a record can be handed out now.
    pub fn can_be_taken(&self, run: Run) -> bool {
        !self.is_provisional() && self.can_be_moved(run)
    }

    /// Whether a record can be taken out of the stream now.
    pub fn can_be_moved(&self, run: Run) -> bool {
        self.taken.is_none()
            && !self.held
            && self.unresolved.is_empty()
            && (!self.cold.is_empty() || (self.has_free_head() && !self.has_unloaded(run)))
    }

    fn has_free_head(&self) -> bool {
        self.hot.front().is_some_and(Entry::is_free)
    }

    /// Whether Kafka may have records of a run that were not confirmed.
    pub fn is_fate_open(&self, run: Run, current: Run) -> bool {
        self.unresolved.contains(&run) || (self.blind && run < current)
    }

    /// Nothing of it is left to send.
    pub fn is_drained(&self, run: Run) -> bool {
        self.hot.is_empty()
            && self.cold.is_empty()
            && self.unresolved.is_empty()
            && !self.has_unloaded(run)
    }

    pub fn numbering(&mut self, run: Run) -> &mut Numbering {
        let at = match self.numberings.binary_search_by_key(&run, |n| n.run) {
            Ok(at) => at,
            Err(at) => {
                self.numberings.insert(at, Numbering::new(run));
                at
            }
        };
        // The index was found or made just above.
        #[expect(clippy::indexing_slicing, reason = "binary search gave the index")]
        &mut self.numberings[at]
    }

    /// What bears on sequences, apart from its records.
    pub fn numbering_copy(&self) -> Self {
        let mut copy = Self::new(
            self.id,
            self.to.clone(),
            self.topic,
            self.lane,
            self.confirmed.0,
        );
        copy.numberings.clone_from(&self.numberings);
        copy.spans.clone_from(&self.spans);
        copy
    }

    /// From `from` of `run` on, `sent_as` sends this stream: later runs too, so that epochs grow
    /// along it. Gives the bases to store: run and the number that has sequence 0.
    pub fn rebase(&mut self, run: Run, from: u64, sent_as: Run) -> Vec<(Run, i64)> {
        self.numbering(run);
        let mut before = 0u64;
        let mut bases = Vec::new();
        for numbering in self.numberings.iter_mut().filter(|n| n.run >= run) {
            let zero = if numbering.run == run {
                from.cast_signed()
            } else {
                before.cast_signed().saturating_neg()
            };
            numbering.rebase(zero, sent_as);
            bases.push((numbering.run, zero));
            let ends = self
                .spans
                .iter()
                .filter(|s| s.run == numbering.run)
                .map(|s| s.last + 1);
            before = numbering.sequence(ends.max().unwrap_or(0)).max(before);
        }
        bases
    }

    /// Takes numbers out of the count of their run, and so of later runs that go on counting behind
    /// it. Gives the bases that moved.
    pub fn drop_numbers(&mut self, run: Run, first: u64, end: u64) -> Vec<(Run, i64)> {
        let numbering = self.numbering(run);
        let dropped = numbering.drop_range(first, end);
        let sent_as = numbering.sent_as;
        let mut moved = Vec::new();
        let later = |n: &&mut Numbering| n.run > run && n.sent_as == sent_as;
        for numbering in self.numberings.iter_mut().filter(later) {
            numbering.zero = numbering.zero.saturating_add(dropped.cast_signed());
            moved.push((numbering.run, numbering.zero));
        }
        moved
    }

    /// Folds drops that the cursor has passed into where the count begins, and forgets runs that
    /// have drained. Gives what must not be stored any more.
    pub fn fold(&mut self) -> Folded {
        let (run, next) = self.confirmed;
        let (mut bases, mut drops) = (Vec::new(), Vec::new());
        self.numberings.retain(|numbering| {
            let over = numbering.run < run;
            if over {
                bases.push(numbering.run);
                drops.push((numbering.run, u64::MAX));
            }
            !over
        });
        if let Some(numbering) = self.numberings.iter_mut().find(|n| n.run == run) {
            let passed = numbering
                .drops
                .iter()
                .take_while(|(_, end)| *end <= next)
                .count();
            for (first, end) in numbering.drops.drain(..passed) {
                drops.push((run, end));
                numbering.zero = numbering.zero.saturating_add((end - first).cast_signed());
            }
        }
        (bases, drops)
    }

    /// Records that are not durable yet: their index in `hot`.
    pub fn first_volatile(&self) -> usize {
        self.hot
            .partition_point(|entry| entry.number < self.durable)
    }

    /// The first place that is still here, in memory or on disk.
    pub fn first_left(&self) -> Option<Place> {
        let confirmed = self.confirmed;
        let live = self
            .spans
            .iter()
            .find(|span| (span.run, span.last) >= confirmed);
        let on_disk = live.map(|span| (span.run, span.first).max(confirmed));
        let in_memory = self
            .cold
            .front()
            .or(self.hot.front())
            .map(|e| (e.run, e.number));
        on_disk.into_iter().chain(in_memory).min()
    }

    /// Records that are left to send.
    pub fn left(&self, run: Run) -> u64 {
        let upto = self
            .hot
            .front()
            .map_or((run, self.next), |entry| (entry.run, entry.number));
        let unread = |span: &Span| {
            let first = (span.run, span.first).max(self.load_next);
            let end = (span.run, span.last + 1).min(upto);
            if first.0 == end.0 {
                end.1.saturating_sub(first.1)
            } else {
                0
            }
        };
        let in_memory = (self.cold.len() + self.hot.len()) as u64;
        in_memory + self.spans.iter().map(unread).sum::<u64>()
    }

    /// Forgets spans that lie before the cursor; gives the segments that lost one.
    pub fn release_spans(&mut self, freed: &mut Vec<SegmentId>) {
        let confirmed = self.confirmed;
        self.spans.retain(|span| {
            let live = (span.run, span.last) >= confirmed;
            if !live {
                freed.push(span.segment);
            }
            live
        });
        if self.spans.is_empty() {
            self.disk_bytes = 0;
        }
    }

    /// Adds what a synced frame holds; spans stay sorted by place. Gives true when it is a new
    /// span, false when it went on where another of its segment ended.
    pub fn add_span(&mut self, span: Span) -> bool {
        let joins =
            |s: &Span| s.segment == span.segment && s.run == span.run && s.last + 1 == span.first;
        if let Some(old) = self.spans.iter_mut().rev().find(|s| joins(s)) {
            old.last = span.last;
            return false;
        }
        let at = self
            .spans
            .partition_point(|s| (s.run, s.first) <= (span.run, span.first));
        self.spans.insert(at, span);
        true
    }

    /// The first place on disk that is not in memory and not confirmed, and the first segment that
    /// may hold it.
    pub fn first_unloaded(&self, run: Run) -> Option<(Place, SegmentId)> {
        let upto = self
            .hot
            .front()
            .map_or((run, self.next), |entry| (entry.run, entry.number));
        for span in self
            .spans
            .iter()
            .filter(|span| (span.run, span.last) >= self.load_next)
        {
            let mut place = (span.run, span.first).max(self.load_next);
            for (first, end) in self.drops_of(span.run) {
                if (*first..*end).contains(&place.1) {
                    place.1 = *end;
                }
            }
            if place.1 <= span.last {
                return (place < upto).then(|| (place, self.first_segment(place, span.segment)));
            }
        }
        None
    }

    /// The oldest segment that may hold a place: spans of a restart are wider than what they stand
    /// for.
    fn first_segment(&self, place: Place, known: SegmentId) -> SegmentId {
        let may_hold = |s: &&Span| s.run == place.0 && s.first <= place.1 && place.1 <= s.last;
        self.spans
            .iter()
            .filter(may_hold)
            .map(|s| s.segment)
            .fold(known, SegmentId::min)
    }

    pub fn drops_of(&self, run: Run) -> &[(u64, u64)] {
        self.numberings
            .iter()
            .find(|n| n.run == run)
            .map_or(&[], |n| &n.drops)
    }

    /// Moves the cursor to `to`; gives true when it passed something on disk.
    pub fn confirm(&mut self, to: Place) -> bool {
        if to <= self.confirmed {
            return false;
        }
        self.confirmed = to;
        self.load_next = self.load_next.max(to);
        let passed = self
            .spans
            .front()
            .is_some_and(|span| (span.run, span.first) < to);
        self.cursor_moved |= passed;
        passed
    }
}
