//! Tests of the log. `model`: random lives on a simulated disk against a model; `faults`: bit
//! flips, failing calls, bounds; `cut`: files cut short; `codec`: round trips; `size`: figures,
//! printed with `--nocapture`.

mod codec;
mod cut;
mod faults;
mod model;
mod size;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::sim::SimStore;
use super::*;
use crate::record::RecordWriter;

/// A catalog that names every stream and has these entries as its checkpoint.
#[derive(Debug, Default)]
pub(super) struct Names(pub Vec<Entry>);

impl Catalog for Names {
    fn name(&self, stream: StreamId) -> Option<TopicPartition> {
        Some(topic(stream))
    }

    fn checkpoint(&self) -> Vec<Entry> {
        self.0.clone()
    }
}

pub(super) fn topic(stream: StreamId) -> TopicPartition {
    TopicPartition {
        topic: format!("topic-{}", stream.0 / 4).into(),
        partition: i32::try_from(stream.0 % 4).unwrap(),
    }
}

pub(super) fn config() -> LogConfig {
    LogConfig {
        segment_bytes: SEGMENT_BYTES_MIN,
        max_bytes: 64 * SEGMENT_BYTES_MIN,
        min_free_bytes: 0,
        compression_level: 1,
    }
}

/// The record that has this number: always the same.
pub(super) fn record(stream: u32, run: u32, number: u64) -> Record {
    let salt = u64::from(stream) * 7919 + u64::from(run) * 104_729 + number * 1_299_709;
    let value = format!(
        "{stream}/{run}/{number} {}",
        "x".repeat(usize::try_from(salt % 97).unwrap())
    );
    let key = (!salt.is_multiple_of(5)).then(|| format!("key-{}", salt % 13));
    let mut writer = RecordWriter::new(key.as_ref().map(String::as_bytes), Some(value.as_bytes()));
    for header in 0..salt % 3 {
        writer.header(
            format!("h{header}").as_bytes(),
            Some(salt.to_string().as_bytes()),
        );
    }
    writer.finish(1_700_000_000_000 + i64::try_from(salt % 1000).unwrap())
}

pub(super) fn section(stream: u32, run: u32, first: u64, count: u64) -> SectionDraft {
    SectionDraft {
        stream: StreamId(stream),
        run: Run(run),
        first,
        records: (first..first + count)
            .map(|number| record(stream, run, number))
            .collect(),
    }
}

pub(super) fn draft(sections: Vec<SectionDraft>) -> FrameDraft {
    FrameDraft {
        controls: Vec::new(),
        sections,
    }
}

/// Everything that a log holds: lane, stream, run, number → record; and the ranges of damaged
/// frames.
pub(super) type Contents = BTreeMap<(u8, u32, u32, u64), Record>;

pub(super) fn read_all(log: &Log) -> (Contents, Vec<(Vec<Section>, bool)>) {
    let (mut all, mut damaged) = (Contents::new(), Vec::new());
    let reader = log.reader();
    for lane in 0..LANES {
        for segment in log.segments_of(lane) {
            let mut at = reader.first(*segment);
            while let Some(here) = at {
                match reader.read_frame(here) {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        at = Some(frame.next);
                        for SectionRecords { section, records } in frame.sections {
                            assert_eq!(records.len(), section.count as usize);
                            for (number, record) in (section.first..).zip(records) {
                                all.insert((lane, section.stream.0, section.run.0, number), record);
                            }
                        }
                    }
                    Err(ReadError::Damaged {
                        ranges,
                        exact,
                        next,
                        ..
                    }) => {
                        damaged.push((ranges, exact));
                        at = next;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    (all, damaged)
}

pub(super) fn open(store: &SimStore) -> (Log, Recovered) {
    Log::open(Arc::new(store.clone()), config()).unwrap()
}

#[test]
fn what_was_appended_is_found_after_a_restart() {
    let store = SimStore::new(1);
    let (mut log, found) = open(&store);
    assert!(found.segments.is_empty());
    let names = Names(vec![Entry::RunStart {
        run: Run(1),
        at_ms: 5,
    }]);
    let mut wanted = Contents::new();
    for i in 0..1000 {
        let lane = u8::try_from(i % 3).unwrap();
        let stream = u32::try_from(i % 7).unwrap();
        let frame = draft(vec![
            section(stream, 1, i * 10, 10),
            section(stream + 100, 1, i, 1),
        ]);
        let appended = log.append(lane, &frame, &names).unwrap();
        assert_eq!(appended.sections.len(), 2);
        for drafted in &frame.sections {
            for (number, record) in (drafted.first..).zip(&drafted.records) {
                wanted.insert(
                    (lane, drafted.stream.0, drafted.run.0, number),
                    record.clone(),
                );
            }
        }
    }
    assert_eq!(read_all(&log), (wanted.clone(), vec![]));
    drop(log);
    let (log, found) = open(&store);
    assert_eq!(read_all(&log), (wanted, vec![]));
    assert!(found.damage.is_empty());
    assert_eq!((found.torn_tails, found.newest_run), (0, Some(Run(1))));
    assert!(found.entries.contains(&Entry::Declare {
        stream: StreamId(106),
        to: topic(StreamId(106))
    }));
    assert!(found.segments.iter().any(|segment| segment.sealed));
}

#[test]
fn a_real_folder_works_too() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let store = DiskStore::open(&folder.path().join("spool")).unwrap();
        Log::open(Arc::new(store), config()).unwrap()
    };
    let (mut log, _) = open();
    let names = Names::default();
    for i in 0..50 {
        let appended = log
            .append(0, &draft(vec![section(1, 1, i * 100, 100)]), &names)
            .unwrap();
        if let Some(sealed) = appended.sealed.filter(|_| i > 30) {
            log.free(sealed);
        }
    }
    let (before, _) = read_all(&log);
    drop(log);
    let (log, found) = open();
    assert!(found.damage.is_empty());
    let (after, damaged) = read_all(&log);
    assert!(damaged.is_empty());
    // What was freed and not used again may be there again.
    assert!(
        before
            .iter()
            .all(|(key, record)| after.get(key) == Some(record))
    );
    assert!(log.capacity_left() > 0 && log.used_bytes() > 0);
}
