//! Round trips of everything that is written.

use proptest::prelude::*;

use super::super::body::{BodyWriter, decode};
use super::super::entry::encode_sections;
use super::super::files::read_index;
use super::super::frame::{HEADER, Header};
use super::super::index::{Index, IndexRead};
use super::super::segment::{Head, HeadRead};
use super::*;

fn entries() -> impl Strategy<Value = Entry> {
    let id = || any::<u32>().prop_map(StreamId);
    let run = || any::<u32>().prop_map(Run);
    let text = || "[a-z.é]{0,20}";
    prop_oneof![
        (id(), any::<i32>(), text()).prop_map(|(stream, partition, topic)| Entry::Declare {
            stream,
            to: TopicPartition {
                topic: topic.into(),
                partition
            },
        }),
        (id(), run(), any::<u64>(), proptest::option::of(0..i64::MAX)).prop_map(
            |(stream, run, next, offset)| Entry::Cursor {
                stream,
                run,
                next,
                offset
            }
        ),
        (id(), run(), 0..u64::MAX / 2, 0..u64::MAX / 2, any::<u8>()).prop_map(
            |(stream, run, from, more, reason)| {
                Entry::Drop {
                    stream,
                    run,
                    from,
                    to: from + more,
                    reason,
                }
            }
        ),
        (id(), run(), any::<u64>(), run()).prop_map(|(stream, run, from, sent_as)| Entry::Base {
            stream,
            run,
            from,
            sent_as
        }),
        (run(), any::<i64>(), any::<i16>(), text(), text()).prop_map(
            |(run, producer_id, epoch, cluster_id, device)| Entry::Identity {
                run,
                identity: crate::spool::Identity {
                    producer_id,
                    epoch,
                    cluster_id,
                    device
                },
            }
        ),
        (run(), any::<i64>()).prop_map(|(run, at_ms)| Entry::RunStart { run, at_ms }),
        (text(), any::<u32>()).prop_map(|(topic, count)| Entry::Partitions {
            topic: topic.into(),
            count
        }),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|note| Entry::Note(note.into())),
    ]
}

fn sections() -> impl Strategy<Value = Vec<Section>> {
    let one =
        (any::<u32>(), 0..4u32, any::<u32>(), 1..900u32).prop_map(|(stream, run, first, count)| {
            Section {
                stream: StreamId(stream),
                run: Run(run),
                first: u64::from(first) << 20,
                count,
            }
        });
    proptest::collection::vec(one, 0..40).prop_map(|mut all| {
        all.sort_by_key(|section| (section.run, section.stream, section.first));
        all
    })
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let field = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
    let header = (proptest::collection::vec(0..3u8, 0..4), field());
    let sound = (
        any::<i64>(),
        field(),
        field(),
        proptest::collection::vec(header, 0..4),
    )
        .prop_map(|(at, key, value, headers)| {
            let mut writer = RecordWriter::new(key.as_deref(), value.as_deref());
            for (name, value) in &headers {
                writer.header(name, value.as_deref());
            }
            writer.finish(at)
        });
    // Lengths that lie are kept as they are.
    let odd = (
        any::<i64>(),
        proptest::collection::vec(any::<u8>(), 0..60),
        any::<u8>(),
        0..9u32,
    );
    let odd = odd.prop_map(|(timestamp_ms, body, at, header_count)| Record {
        timestamp_ms,
        headers_at: u32::try_from(usize::from(at).min(body.len())).unwrap(),
        header_count,
        body: body.into(),
    });
    proptest::collection::vec(prop_oneof![4 => sound, 1 => odd], 0..30)
}

fn directory_bytes(entries: &[Entry], sections: &[Section], oldest_ms: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    entries.iter().for_each(|entry| entry.encode(&mut bytes));
    encode_sections(&mut bytes, sections, oldest_ms);
    bytes
}

proptest! {
    #[test]
    fn a_directory_survives(
        entries in proptest::collection::vec(entries(), 0..20),
        sections in sections(),
        oldest_ms: i64,
    ) {
        let bytes = directory_bytes(&entries, &sections, oldest_ms);
        let oldest_ms = if sections.is_empty() { 0 } else { oldest_ms };
        let directory = Directory { entries, sections, oldest_ms };
        prop_assert_eq!(Directory::decode(&bytes), Some(directory));
    }

    #[test]
    fn an_unknown_entry_is_skipped(entry in entries(), kind in 10..=255u8, length in 0..100u8) {
        let mut bytes = vec![kind, length];
        bytes.resize(2 + usize::from(length), 0xff);
        entry.encode(&mut bytes);
        prop_assert_eq!(Directory::decode(&bytes).unwrap().entries, vec![entry]);
    }

    #[test]
    fn records_survive(records in records(), oldest_ms: i64) {
        let mut raw = Vec::new();
        BodyWriter::default().encode(records.iter(), oldest_ms, &mut raw);
        prop_assert_eq!(decode(&raw, records.len(), oldest_ms), Some(records));
    }

    #[test]
    fn garbage_is_refused_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        count in 0..50usize,
    ) {
        let _ = decode(&bytes, count, 0);
        let _ = Directory::decode(&bytes);
        let _ = Index::read(&bytes);
        let _ = Head::read(&bytes);
        prop_assert!(!Header::verify(&bytes));
    }

    #[test]
    fn an_index_survives(
        frames in proptest::collection::vec(
            (proptest::collection::vec(entries(), 0..4), sections()),
            0..6,
        )
    ) {
        let mut index = Index::new(4096, 1);
        let mut most = index.reserve(0, 0);
        for ((entries, sections), number) in frames.into_iter().zip(1..) {
            let more = Index::entry_bytes(entries.iter());
            most = index.reserve(sections.len(), more);
            index.add(number + 9, number, &Directory { entries, sections, oldest_ms: -5 });
        }
        let bytes = index.encode(3, 77);
        prop_assert!(bytes.len() as u64 <= most);
        let IndexRead::Good(77, read) = Index::read(&bytes) else { panic!("not read") };
        prop_assert_eq!(read.spans(), index.spans());
        prop_assert_eq!(read.entries.sorted(), index.entries.sorted());
        prop_assert_eq!(read.oldest_ms, index.oldest_ms);
        prop_assert_eq!(read.last_number, index.last_number);
        prop_assert_eq!(read.last_serial, index.last_serial);
    }
}

#[test]
fn a_head_and_a_header_survive() {
    let head = Head {
        lane: 3,
        generation: 9,
        serial: 8,
        first_number: 7,
        created_ms: -1,
        ..Head::default()
    };
    let entry = Entry::RunStart {
        run: Run(3),
        at_ms: 4,
    };
    let raw = directory_bytes(std::slice::from_ref(&entry), &[], 0);
    let packed = zstd::bulk::compress(&raw, 1).unwrap();
    let bytes = head.encode(&packed, u32::try_from(raw.len()).unwrap());
    let HeadRead::Good(read, length, entries) = Head::read(&bytes) else {
        panic!("not read")
    };
    assert_eq!(
        (read, length, entries),
        (head, bytes.len() as u64, vec![entry])
    );
    let header = Header {
        lane: 1,
        codec: 1,
        generation: 2,
        serial: 3,
        number: 4,
        directory_bytes: 5,
        body_bytes: 6,
        raw_bytes: 7,
    };
    let mut bytes = Vec::new();
    header.encode(b"direc", b"bodies", &mut bytes);
    assert_eq!(Header::parse(&bytes), Some(header));
    assert!(Header::verify(&bytes[..HEADER + 5]));
    assert_eq!(header.body(&bytes[HEADER + 5..]), Some(&b"bodies"[..]));
}

#[test]
fn a_hundred_single_sections_take_little() {
    let sections: Vec<Section> = (0..100)
        .map(|i| Section {
            stream: StreamId(i * 5),
            run: Run(7),
            first: 40_000 + u64::from(i * i % 997),
            count: 1,
        })
        .collect();
    let bytes = directory_bytes(&[], &sections, 1_763_000_000_000).len();
    println!("directory of 100 single-record sections: {bytes} B");
    assert!(bytes < 600);
}

#[test]
fn a_frame_goes_where_it_touches_fewest_pages() {
    assert_eq!(place(4096, 100), 4096);
    assert_eq!(place(4100, 100), 4104);
    assert_eq!(place(4100, 4096), 8192);
    assert_eq!(place(5000, 4000), 8192);
    assert_eq!(place(5000, 7000), 5000);
}

/// Found by `fuzz/`: counts that cannot be counted on from, and an index of frames far behind the
/// file's end, which a search would have gone through for ever. Their checksums are right.
#[test]
fn what_was_never_counted_is_damage() {
    for (generation, serial, first_number) in [(u64::MAX, 1, 1), (1, u64::MAX, 1), (1, 1, u64::MAX)]
    {
        let head = Head {
            generation,
            serial,
            first_number,
            ..Head::default()
        };
        assert!(matches!(Head::read(&head.encode(&[], 0)), HeadRead::Bad));
        let header = Header {
            lane: 0,
            codec: 0,
            generation,
            serial,
            number: first_number,
            directory_bytes: 0,
            body_bytes: 0,
            raw_bytes: 0,
        };
        let mut frame = Vec::new();
        header.encode(&[], &[], &mut frame);
        assert!(Header::verify(&frame[..HEADER]) && Header::parse(&frame).is_none());
    }
    let mut index = Index::new(4096, 1);
    index.last_serial = u64::MAX;
    assert!(matches!(Index::read(&index.encode(0, 1)), IndexRead::Bad));
    let store = SimStore::new(1);
    let file = store.create("00000001.seg").unwrap();
    for (end, good) in [
        (8192, true),
        (8193, false),
        (u64::MAX, false),
        (4095, false),
    ] {
        let mut index = Index::new(4096, 1);
        index.frames_end = end;
        let bytes = index.encode(0, 1);
        file.write_at(8192 - bytes.len() as u64, &bytes).unwrap();
        let read = read_index(file.as_ref(), 8192);
        assert_eq!(matches!(read, IndexRead::Good(1, _)), good, "{end}");
    }
}
