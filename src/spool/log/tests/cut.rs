//! Segment files cut short by somebody else, on the simulated disk and on the real one.

use std::collections::BTreeSet;

use super::*;

/// A folder, and a way to cut its files.
struct Folder {
    store: Arc<dyn Store>,
    real: Option<tempfile::TempDir>,
    sim: SimStore,
}

impl Folder {
    fn both() -> [Self; 2] {
        let sim = SimStore::new(1);
        let real = tempfile::tempdir().unwrap();
        let disk = DiskStore::open(real.path()).unwrap();
        [
            Self {
                store: Arc::new(sim.clone()),
                real: None,
                sim: sim.clone(),
            },
            Self {
                store: Arc::new(disk),
                real: Some(real),
                sim,
            },
        ]
    }

    fn open(&self) -> (Log, Recovered) {
        Log::open(self.store.clone(), config()).unwrap()
    }

    fn cut(&self, name: &str, to: u64) {
        match &self.real {
            Some(folder) => {
                let path = folder.path().join(name);
                let file = std::fs::File::options().write(true).open(path);
                file.unwrap().set_len(to).unwrap();
            }
            None => self
                .sim
                .tamper(name, |bytes| bytes.truncate(usize::try_from(to).unwrap())),
        }
    }

    fn length(&self, name: &str) -> Option<u64> {
        let file = self.store.open(name).ok()?;
        Some(file.length().unwrap())
    }
}

/// What was appended: where, and which records.
struct Written {
    lane: u8,
    at: FramePos,
    sections: Vec<Section>,
}

/// Two lanes of some segments, every stream in each; files have the names of the generations, for
/// none is used again.
fn fill(folder: &Folder) -> Vec<Written> {
    let (mut log, _) = folder.open();
    let append = |i: u64| {
        let lane = u8::try_from(i % 2).unwrap();
        let stream = u32::try_from(i % 6).unwrap();
        let frame = draft(vec![
            section(stream, 1, i / 6 * 40, 40),
            section(stream + 50, 1, i / 6 * 40, 40),
        ]);
        let done = log.append(lane, &frame, &Names::default()).unwrap();
        Written {
            lane,
            at: done.at,
            sections: done.sections,
        }
    };
    (0..400).map(append).collect()
}

fn name_of(segment: SegmentId) -> String {
    format!("{:08}.seg", segment.0)
}

fn numbers<'a>(sections: impl IntoIterator<Item = &'a Section>) -> BTreeSet<(u32, u64)> {
    let all = sections.into_iter();
    all.flat_map(|s| (s.first..s.end()).map(|n| (s.stream.0, n)))
        .collect()
}

/// Cuts the file of `segment` to `to` bytes, opens the log, and gives the frames that are missing
/// and what was told.
fn cut(folder: &Folder, written: &[Written], segment: SegmentId, to: u64) -> (Vec<u64>, Recovered) {
    let name = name_of(segment);
    assert_eq!(folder.length(&name), Some(SEGMENT_BYTES_MIN));
    folder.cut(&name, to);
    let (mut log, found) = folder.open();
    let (all, damaged) = read_all(&log);
    assert!(damaged.is_empty());
    let (mut frames, mut missing) = (Vec::new(), Vec::new());
    for frame in written {
        let wanted = numbers(&frame.sections);
        let there =
            |(s, n): &(u32, u64)| all.get(&(frame.lane, *s, 1, *n)) == Some(&record(*s, 1, *n));
        if !wanted.iter().all(there) {
            assert_eq!(frame.at.segment, segment, "a frame of another segment");
            frames.push(frame.at.number);
            missing.extend(frame.sections.iter().copied());
        }
    }
    let missing = numbers(&missing);
    let told = numbers(found.damage.iter().flat_map(|damage| &damage.ranges));
    assert!(told.is_subset(&missing));
    assert_eq!((found.torn_tails, found.torn.len()), (0, 0));
    for damage in &found.damage {
        assert!(damage.what.contains(&name), "{}", damage.what);
        println!("{to:>6}: {}", damage.what);
    }
    let last = &found.damage.last().unwrap().what;
    let size = format!("cut from {SEGMENT_BYTES_MIN} to {to} bytes");
    assert!(last.contains(&size), "{last}");
    // What comes later is kept, and at the next start too.
    let frame = draft(vec![section(9, 2, 0, 10)]);
    log.append(0, &frame, &Names::default()).unwrap();
    drop(log);
    let (log, _) = folder.open();
    assert!(read_all(&log).0.contains_key(&(0, 9, 2, 9)));
    (frames, found)
}

fn segments_of(written: &[Written], lane: u8) -> Vec<SegmentId> {
    let mut all: Vec<_> = written.iter().filter(|frame| frame.lane == lane).collect();
    all.dedup_by_key(|frame| frame.at.segment);
    all.into_iter().map(|frame| frame.at.segment).collect()
}

#[test]
fn a_lanes_newest_file_cut_short_is_damage_from_a_frame_on() {
    // To nothing, within the head, to the head, within a frame's directory, within its body.
    for to in [0, 50, 4_096, 12_300, 15_000] {
        for folder in Folder::both() {
            let written = fill(&folder);
            let newest = *segments_of(&written, 0).last().unwrap();
            let (frames, found) = cut(&folder, &written, newest, to);
            let first = *frames.first().expect("the fault did not bite");
            let whole = found.damage.iter().filter(|damage| damage.exact);
            let named = u64::try_from(whole.count()).unwrap();
            assert_eq!(named, u64::from(to == 15_000), "its directory is there");
            let told = format!("frames from {} on", first + named);
            let last = &found.damage.last().unwrap().what;
            assert!(last.contains(&told), "{last}: {told}");
        }
    }
}

#[test]
fn an_older_file_cut_short_is_told_exactly() {
    for to in [0, 4_096, 30_000] {
        for folder in Folder::both() {
            let written = fill(&folder);
            let segment = segments_of(&written, 1)[1];
            let (frames, found) = cut(&folder, &written, segment, to);
            let lost = written
                .iter()
                .filter(|frame| frame.at.segment == segment && frames.contains(&frame.at.number));
            let lost = numbers(lost.flat_map(|frame| &frame.sections));
            let told = numbers(found.damage.iter().flat_map(|damage| &damage.ranges));
            assert!(!lost.is_empty(), "the fault did not bite");
            assert!(told == lost, "told {}, lost {}", told.len(), lost.len());
            let named = found.damage.iter().filter(|damage| damage.exact).count();
            let range = format!("frames from {} to", frames[named]);
            let range = if to == 0 {
                range
            } else {
                range.replace(" from", "")
            };
            let last = &found.damage.last().unwrap().what;
            assert!(last.contains(&range), "{last}: {range}");
        }
    }
}

#[test]
fn a_file_that_a_power_cut_left_unfinished_is_no_damage() {
    for folder in Folder::both() {
        fill(&folder);
        let file = folder.store.create("00000099.new").unwrap();
        file.write_at(0, &[0; 5000]).unwrap();
        let (mut log, found) = folder.open();
        assert!(found.damage.is_empty());
        assert_eq!(folder.length("00000099.new"), None);
        for i in 0..20 {
            let frame = draft(vec![section(9, 2, i * 200, 200)]);
            log.append(0, &frame, &Names::default()).unwrap();
        }
        assert!(folder.length("00000100.seg").is_some());
    }
}

#[test]
fn a_head_that_says_more_than_any_file_has_is_not_believed() {
    let folder = Folder::both().into_iter().next().unwrap();
    let written = fill(&folder);
    let newest = *segments_of(&written, 0).last().unwrap();
    folder.sim.tamper(&name_of(newest), |bytes| {
        // The layout is at the top of `log`: length, then bytes of names, then the checksum.
        bytes[64..72].copy_from_slice(&(1_u64 << 60).to_le_bytes());
        let packed = u32::from_le_bytes(*bytes[72..].first_chunk().unwrap());
        let names = &bytes[84..84 + usize::try_from(packed).unwrap()];
        let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..80]), names);
        bytes[80..84].copy_from_slice(&sum.to_le_bytes());
    });
    let (_, found) = folder.open();
    let told = &found.damage.first().expect("the fault did not bite").what;
    assert!(told.contains("was cut from 1152921504606846976"), "{told}");
}
