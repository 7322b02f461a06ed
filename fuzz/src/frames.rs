//! Any bytes as the spool's segment files: a start, all that can be read, more written, a start
//! again. What the first start found is there after the second; so is what was written.
//!
//! input: see [`crate::disk`].

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate::record::RecordWriter;
use tidegate::spool::log::{
    AppendError, Catalog, Entry, FrameDraft, LANES, Log, LogConfig, ReadError, Recovered,
    SEGMENT_BYTES_MIN, Section, SectionDraft,
};
use tidegate::spool::{Run, StreamId, TopicPartition};

use crate::disk::Folder;

/// Above what four files hold: a frame may say that it unpacks to 64 MiB, and then takes that.
const MEMORY_BYTES_MAX: usize = 256 << 20;
/// More frames than four files hold.
const FRAMES_MAX: usize = 4 * SEGMENT_BYTES_MIN as usize / 52;
/// A stream of our own.
const STREAM: StreamId = StreamId(u32::MAX);

struct Names;

impl Catalog for Names {
    fn name(&self, stream: StreamId) -> Option<TopicPartition> {
        Some(TopicPartition {
            topic: format!("topic-{}", stream.0).into(),
            partition: 0,
        })
    }

    fn checkpoint(&self) -> Vec<Entry> {
        vec![Entry::RunStart {
            run: Run(1),
            at_ms: 5,
        }]
    }
}

/// The target.
pub fn run(data: &[u8]) {
    let folder = Folder::read(data);
    super::within(MEMORY_BYTES_MAX, || {
        let (log, _) = open(&folder);
        let before = contents(&log);
        drop(log);
        let (mut log, _) = open(&folder);
        let ours = append(&mut log, u64::from(data.first().copied().unwrap_or(0)));
        drop(log);
        let (log, found) = open(&folder);
        let after = contents(&log);
        for (key, count) in &before {
            assert_eq!(after.get(key), Some(count), "{key:?} is gone");
        }
        for section in &ours {
            let key = (section.stream, section.run, section.first);
            assert!(after.contains_key(&key), "{section:?} is gone: {found:?}");
        }
    });
}

/// The log of a folder. No bytes keep it from opening.
pub fn open(folder: &Folder) -> (Log, Recovered) {
    let config = LogConfig {
        segment_bytes: SEGMENT_BYTES_MIN,
        max_bytes: 16 * SEGMENT_BYTES_MIN,
        min_free_bytes: 0,
        compression_level: 1,
    };
    Log::open(Arc::new(folder.clone()), config).expect("a log that opens")
}

/// Where sections begin, and how many records each has. Reading comes to an end.
fn contents(log: &Log) -> BTreeMap<(StreamId, Run, u64), u32> {
    let mut all = BTreeMap::new();
    let reader = log.reader();
    for segment in (0..LANES).flat_map(|lane| log.segments_of(lane)) {
        let mut at = reader.first(*segment);
        let mut frames = 0;
        while let Some(here) = at {
            frames += 1;
            assert!(frames <= FRAMES_MAX, "reading has no end");
            match reader.read_frame(here) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    at = Some(frame.next);
                    for read in frame.sections {
                        let Section {
                            stream,
                            run,
                            first,
                            count,
                        } = read.section;
                        assert_eq!(read.records.len(), count as usize);
                        all.insert((stream, run, first), count);
                    }
                }
                Err(ReadError::Damaged { next, .. }) => at = next,
                Err(error) => panic!("{error}"),
            }
        }
    }
    all
}

/// Appends to lanes 0 and 1, so much that a segment is filled.
fn append(log: &mut Log, first: u64) -> Vec<Section> {
    let mut written = Vec::new();
    for number in first..first + 4 {
        let noise = crc32c::crc32c(&number.to_le_bytes()).to_string().repeat(64);
        let record = RecordWriter::new(None, Some(noise.as_bytes())).finish(5);
        let sections = vec![SectionDraft {
            stream: STREAM,
            run: Run(u32::MAX),
            first: number * 10,
            records: vec![record; 10],
        }];
        let draft = FrameDraft {
            controls: Vec::new(),
            sections,
        };
        let lane = u8::try_from(number % 2).unwrap_or(0);
        match log.append(lane, &draft, &Names) {
            Ok(appended) => written.extend(appended.sections),
            Err(AppendError::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    written
}
