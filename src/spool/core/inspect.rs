//! What tools see: streams, their records, what is damaged, what lies in quarantine. Changes
//! nothing. A page reads a bounded part of the disk and holds the lock for one stream at a time.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::inspect::{
    BadPlace, CheckPage, DamageInfo, DamagedRange, LedgerPage, QuarantineInfo, QuarantinePage,
    RangeInfo, RecordsPage, StreamInfo,
};
use super::super::log::{self, FramePos, FrozenStore, LANES, ReadError, Section, SegmentId};
use super::super::ranges::Ranges;
use super::super::{Run, StreamId, TopicPartition};
use super::describe::{describe_record, describe_stream, live_part, name_of};
use super::page::Place;
use super::stream::Stream;
use super::{OpenError, Shared, Spool, recover};
use crate::clock::Clock;
use crate::config::checked;
use crate::metrics::Metrics;

/// Bytes of records after which a page ends.
const PAGE_BYTES: usize = 512 * 1024;
/// Time after which a page ends: a slow disk, or frames of which nothing is wanted.
const PAGE_TIME: Duration = Duration::from_secs(2);
/// Rejected records on one page.
const QUARANTINE_PAGE: usize = 1_000;

/// A spool that nobody uses, as the next start will find it.
#[derive(Debug)]
pub struct Look {
    /// Answers questions; it has no threads and takes no records.
    pub spool: Spool,
    /// What the start finds damaged without reading every frame.
    pub damage: Vec<DamageInfo>,
    /// Lanes whose last frame is torn, as after a power cut: it had not been acknowledged.
    pub torn_tails: u64,
}

impl Spool {
    /// Looks at the spool in `folder`, of which nobody may make use meanwhile, without changing it.
    /// `meta` is a copy of its state, which is opened, and so changed.
    ///
    /// # Errors
    /// [`OpenError`]; a damaged or half-written spool is none.
    pub fn look(config: &checked::Spool, folder: &Path, meta: &Path) -> Result<Look, OpenError> {
        let store = Arc::new(FrozenStore::new(&folder.join("segments")));
        let metrics = Arc::new(Metrics::default());
        let parts = (metrics, Arc::new(Clock::trusted()));
        let (shared, recovered) = recover::prepare(config, store, meta, parts)?;
        let damage = recovered.damage.iter().map(|damage| DamageInfo {
            segment: damage.segment.map(|segment| segment.0),
            offset: None,
            what: damage.what.clone(),
            exact: damage.exact,
            ranges: shared.damaged(&damage.ranges),
        });
        Ok(Look {
            damage: damage.collect(),
            torn_tails: recovered.torn_tails,
            spool: Self {
                shared: Arc::new(shared),
            },
        })
    }

    /// All streams, drained ones too.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamInfo> {
        let state = self.shared.state.lock();
        let times = self.shared.times(&state);
        let named = state.streams.iter().filter(|s| !s.to.topic.is_empty());
        named
            .map(|stream| describe_stream(&state, stream, times.as_ref()))
            .collect()
    }

    /// The id of a topic's partition, if it is known here.
    #[must_use]
    pub fn stream_id(&self, topic: &str, partition: i32) -> Option<StreamId> {
        let state = self.shared.state.lock();
        let is_it = |s: &&Stream| &*s.to.topic == topic && s.to.partition == partition;
        state.streams.iter().find(is_it).map(|stream| stream.id)
    }

    /// What is left of a stream, number by number; reads the directories of its segments.
    #[must_use]
    pub fn ranges(&self, id: StreamId) -> Vec<RangeInfo> {
        let shared = &self.shared;
        let segments = shared.wanted_segments(Some(id));
        let mut runs: std::collections::BTreeMap<Run, Ranges> = std::collections::BTreeMap::new();
        for segment in segments {
            let mut at = shared.reader.first(segment);
            while let Some(here) = at {
                let (sections, next) = match shared.reader.read_directory(here) {
                    Ok(Some((directory, next))) => (directory.sections, Some(next)),
                    Ok(None) | Err(ReadError::Gone(_)) => break,
                    Err(ReadError::Damaged { next, .. }) => (Vec::new(), next),
                };
                at = next;
                let state = shared.state.lock();
                for section in sections.iter().filter(|s| s.stream == id) {
                    let ranges = runs.entry(section.run).or_default();
                    for (first, end) in live_part(&state, section, segment).iter() {
                        ranges.add(first, end);
                    }
                }
            }
        }
        let info = |run: Run, (first, end), on_disk| RangeInfo {
            run: run.0,
            first,
            end,
            on_disk,
        };
        let mut all: Vec<RangeInfo> = Vec::new();
        for (run, ranges) in &runs {
            all.extend(ranges.iter().map(|range| info(*run, range, true)));
        }
        let state = shared.state.lock();
        let mut memory = Ranges::default();
        if let Some(stream) = state.streams.get(id.0 as usize) {
            let volatile = stream.hot.range(stream.first_volatile()..);
            for entry in volatile {
                memory.insert(entry.number);
            }
        }
        all.extend(memory.iter().map(|range| info(state.run, range, false)));
        all
    }

    /// Records that are left, of one stream or of all: those in memory alone, then those on disk as
    /// they lie there. A record may come twice, when it is written between two pages or lies on
    /// disk twice.
    ///
    /// # Errors
    /// `after` is no place.
    pub fn records(
        &self,
        only: Option<StreamId>,
        after: Option<&str>,
    ) -> Result<RecordsPage, BadPlace> {
        let place = after.map_or(Ok(Place::Memory(StreamId(0), 0)), Place::from_str)?;
        Ok(match place {
            Place::Memory(stream, number) => self.shared.memory_page(only, stream, number),
            Place::Disk(segment, at) => self.shared.disk_page(only, segment, at),
        })
    }

    /// Reads every frame, the quarantine's too, and tells which cannot be read.
    ///
    /// # Errors
    /// `after` is no place.
    pub fn check(&self, after: Option<&str>) -> Result<CheckPage, BadPlace> {
        let place = after.map_or(Ok(Place::Disk(SegmentId(0), None)), Place::from_str)?;
        let Place::Disk(segment, at) = place else {
            return Err(BadPlace(place.to_string()));
        };
        Ok(self.shared.check_page(segment, at))
    }

    /// Records that Kafka rejected, and that nobody has dropped or tried again since.
    ///
    /// # Errors
    /// `after` is no place.
    pub fn quarantine_page(&self, after: Option<&str>) -> Result<QuarantinePage, BadPlace> {
        let from = after.map_or(Ok(0), |text| {
            text.parse().map_err(|_| BadPlace(text.to_owned()))
        })?;
        let kept = self.shared.quarantined();
        let infos = kept.iter().skip(from).take(QUARANTINE_PAGE);
        let infos = infos.map(|kept| {
            let to = self.shared.name_of(kept.section.stream);
            QuarantineInfo {
                id: kept.id(),
                cause: kept.cause.clone(),
                topic: to.topic.to_string(),
                partition: to.partition,
                run: kept.section.run.0,
                seq: kept.section.first,
            }
        });
        Ok(QuarantinePage {
            records: infos.collect(),
            next: (kept.len() > from + QUARANTINE_PAGE)
                .then(|| (from + QUARANTINE_PAGE).to_string()),
        })
    }

    /// How many records lie in quarantine; reads its directories.
    #[must_use]
    pub fn quarantine_count(&self) -> u64 {
        self.shared.quarantined().len() as u64
    }

    /// A record in quarantine, whole.
    #[must_use]
    pub fn quarantined_record(&self, id: &str) -> Option<Value> {
        let kept = self.shared.quarantined();
        let kept = kept.iter().find(|kept| kept.id() == id)?;
        let record = self.shared.read_quarantined(kept)?;
        let to = self.shared.name_of(kept.section.stream);
        let (run, number) = (kept.section.run, kept.section.first);
        let mut value = describe_record(&to, run, number, &record);
        if let Some(fields) = value.as_object_mut() {
            fields.insert("id".to_owned(), kept.id().into());
            fields.insert("cause".to_owned(), kept.cause.clone().into());
        }
        Some(value)
    }

    /// Lines of the loss ledger.
    ///
    /// # Errors
    /// `after` is no place.
    pub fn ledger(&self, topic: Option<&str>, after: Option<&str>) -> Result<LedgerPage, BadPlace> {
        self.shared.meta.lock().ledger_page(topic, after)
    }
}

impl Shared {
    /// Segments that hold what is left of a stream, or of any, in the order of their age.
    fn wanted_segments(&self, only: Option<StreamId>) -> Vec<SegmentId> {
        let state = self.state.lock();
        let mut wanted: Vec<SegmentId> = match only {
            None => {
                let used = state.segments.iter().filter(|(_, s)| s.spans > 0);
                used.map(|(id, _)| *id).collect()
            }
            Some(id) => {
                let stream = state.streams.get(id.0 as usize);
                let spans = stream.iter().flat_map(|stream| &stream.spans);
                spans.map(|span| span.segment).collect()
            }
        };
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    fn memory_page(&self, only: Option<StreamId>, stream: StreamId, number: u64) -> RecordsPage {
        let (mut page, mut bytes) = (RecordsPage::default(), 0);
        let mut id = only.map_or(stream, |only| only.max(stream));
        let mut from = number;
        loop {
            let state = self.state.lock();
            let Some(stream) = state.streams.get(id.0 as usize) else {
                break;
            };
            if only.is_some_and(|only| only != id) {
                break;
            }
            let volatile = stream.hot.range(stream.first_volatile()..);
            for entry in volatile.filter(|entry| entry.number >= from) {
                if bytes >= PAGE_BYTES {
                    page.next = Some(Place::Memory(id, entry.number).to_string());
                    return page;
                }
                bytes += entry.record.size();
                let one = describe_record(&stream.to, entry.run, entry.number, &entry.record);
                page.records.push(one);
            }
            (id, from) = (StreamId(id.0.saturating_add(1)), 0);
        }
        page.next = Some(Place::Disk(SegmentId(0), None).to_string());
        page
    }

    fn disk_page(
        &self,
        only: Option<StreamId>,
        segment: SegmentId,
        at: Option<FramePos>,
    ) -> RecordsPage {
        let (mut page, mut bytes) = (RecordsPage::default(), 0);
        let segments = self.wanted_segments(only);
        page.next = self.walk((segment, at), &segments, |here| {
            let (directory, next) = match self.reader.read_directory(here)? {
                Some(found) => found,
                None => return Ok(None),
            };
            let wanted = |section: &Section| only.is_none_or(|only| only == section.stream);
            if directory.sections.iter().any(wanted)
                && let Some(frame) = self.reader.read_frame(here)?
            {
                for section in frame.sections.iter().filter(|s| wanted(&s.section)) {
                    let info = section.section;
                    let (live, to) = {
                        let state = self.state.lock();
                        (
                            live_part(&state, &info, here.segment),
                            name_of(&state, info.stream),
                        )
                    };
                    let numbered = (info.first..).zip(&section.records);
                    for (number, record) in numbered.filter(|(n, _)| live.contains(*n)) {
                        bytes += record.size();
                        page.records
                            .push(describe_record(&to, info.run, number, record));
                    }
                }
            }
            Ok(Some((next, bytes < PAGE_BYTES)))
        });
        page
    }

    fn check_page(&self, segment: SegmentId, at: Option<FramePos>) -> CheckPage {
        let mut page = CheckPage::default();
        let mut segments: Vec<SegmentId> = {
            let log = self.log.lock();
            let lanes = (0..LANES).map(|lane| log.segments_of(lane).to_vec());
            lanes.flatten().collect()
        };
        segments.sort_unstable();
        let mut damage = Vec::new();
        page.next = self.walk((segment, at), &segments, |here| {
            match self.reader.read_frame(here) {
                Ok(None) => Ok(None),
                Ok(Some(frame)) => {
                    page.frames += 1;
                    page.bytes += frame.bytes;
                    let counts = frame.sections.iter().map(|s| s.records.len() as u64);
                    page.records += counts.sum::<u64>();
                    Ok(Some((frame.next, true)))
                }
                Err(ReadError::Damaged {
                    at,
                    ranges,
                    exact,
                    what,
                    next,
                }) => {
                    damage.push(DamageInfo {
                        segment: Some(at.segment.0),
                        offset: Some(at.offset),
                        what: what.to_owned(),
                        exact,
                        ranges: self.damaged(&ranges),
                    });
                    Ok(next.map(|next| (next, true)))
                }
                Err(gone @ ReadError::Gone(_)) => Err(gone),
            }
        });
        page.damage = damage;
        page
    }

    /// Goes from frame to frame of `segments` until `visit` has had enough (`false` beside the next
    /// place) or the time of a page is over; gives the place to go on from. Damage is passed over.
    fn walk(
        &self,
        (segment, at): (SegmentId, Option<FramePos>),
        segments: &[SegmentId],
        mut visit: impl FnMut(FramePos) -> Result<Option<(FramePos, bool)>, ReadError>,
    ) -> Option<String> {
        let begun = Instant::now();
        let left = segments.iter().copied().filter(|id| *id >= segment);
        for id in left {
            let start = at.filter(|_| id == segment);
            let mut next = start.or_else(|| self.reader.first(id));
            while let Some(here) = next {
                let more;
                (next, more) = match visit(here) {
                    Ok(Some((next, more))) => (Some(next), more),
                    Ok(None) | Err(ReadError::Gone(_)) => break,
                    Err(ReadError::Damaged { next, .. }) => (next, true),
                };
                if !more || begun.elapsed() > PAGE_TIME {
                    let place = next.map_or(Place::Disk(SegmentId(id.0 + 1), None), |next| {
                        Place::Disk(id, Some(next))
                    });
                    return Some(place.to_string());
                }
            }
        }
        None
    }

    /// Damaged ranges with their names, and what of them is lost.
    fn damaged(&self, ranges: &[log::Section]) -> Vec<DamagedRange> {
        let one = |range: &log::Section| {
            let to = self.name_of(range.stream);
            DamagedRange {
                topic: to.topic.to_string(),
                partition: to.partition,
                run: range.run.0,
                first: range.first,
                end: range.end(),
                lost: self.live_parts(range),
            }
        };
        ranges.iter().map(one).collect()
    }

    pub(super) fn name_of(&self, id: StreamId) -> TopicPartition {
        name_of(&self.state.lock(), id)
    }
}
