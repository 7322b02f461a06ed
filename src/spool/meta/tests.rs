//! Tests of the meta store, on a real folder.

use super::*;
use crate::spool::Identity;

fn loss(stream: u32, from: u64, to: u64, reason: Reason) -> Loss {
    Loss {
        subject: Subject::Stream(StreamId(stream)),
        run: Run(1),
        from,
        to,
        reason,
        at_ms: 7,
    }
}

fn refused(topic: &str, count: u64) -> Loss {
    Loss {
        subject: Subject::Mqtt(topic.into()),
        ..loss(0, 0, count, Reason::Refused)
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
#[expect(clippy::too_many_lines, reason = "one look at every kind of value")]
fn everything_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta");
    let identity = Identity {
        producer_id: 7,
        epoch: 3,
        cluster_id: "c".to_owned(),
    };
    let cursor = Cursor {
        run: Run(2),
        next: 1 << 40,
        offset: Some(0),
    };
    let facts = RunFacts {
        started_ms: -5,
        identity: Some(identity),
    };
    let plain = RunFacts {
        started_ms: 5,
        identity: None,
    };
    let to = TopicPartition {
        topic: "t.é".into(),
        partition: -1,
    };
    let memory = TopicMemory {
        partitions: 4,
        message_bytes_max: Some(0),
        topic_id: Some([9; 16]),
    };
    let base = Base {
        stream: StreamId(1),
        run: Run(2),
        from: 3,
        sent_as: Run(4),
    };
    let dropped = Dropped {
        stream: StreamId(1),
        run: Run(2),
        from: 3,
        to: 9,
        reason: Reason::Full,
    };
    {
        let (meta, damaged) = Meta::open(&path).unwrap();
        assert!(!damaged);
        let mut batch = MetaBatch::default();
        batch.cursor(StreamId(5), cursor);
        batch.run(Run(1), &facts);
        batch.run(Run(300), &plain);
        batch.stream(StreamId(6), &to);
        batch.topic("t", &memory);
        batch.base(&base);
        batch.dropped(&dropped);
        batch.loss(refused("a/b", 3));
        batch.put("clean", b"1");
        meta.apply(batch, true).unwrap();
        assert!(matches!(Meta::open(&path), Err(MetaError::Locked(_))));
    }
    let (meta, damaged) = Meta::open(&path).unwrap();
    assert!(!damaged);
    assert_eq!(meta.cursors().unwrap(), [(StreamId(5), cursor)]);
    assert_eq!(meta.runs().unwrap(), [(Run(1), facts), (Run(300), plain)]);
    assert_eq!(meta.streams().unwrap(), [(StreamId(6), to)]);
    assert_eq!(meta.topics().unwrap(), [("t".to_owned(), memory)]);
    assert_eq!(meta.bases().unwrap(), [base]);
    assert_eq!(meta.dropped().unwrap(), [dropped]);
    assert_eq!(
        meta.ledger().next().unwrap().unwrap(),
        (0, refused("a/b", 3))
    );
    assert_eq!(meta.get("clean").unwrap().as_deref(), Some(&b"1"[..]));
    let mut batch = MetaBatch::default();
    batch.forget_base(&base);
    batch.forget_dropped(&dropped);
    batch.forget_run(Run(1));
    batch.forget("clean");
    meta.apply(batch, false).unwrap();
    assert_eq!(
        (meta.bases().unwrap().len(), meta.dropped().unwrap().len()),
        (0, 0)
    );
    assert_eq!(
        (meta.runs().unwrap().len(), meta.get("clean").unwrap()),
        (1, None)
    );
}

#[test]
fn losses_that_touch_are_joined() {
    let folder = tempfile::tempdir().unwrap();
    let (meta, _) = Meta::open(&folder.path().join("meta")).unwrap();
    let mut batch = MetaBatch::default();
    batch.loss(loss(1, 0, 5, Reason::Full));
    batch.loss(loss(2, 0, 5, Reason::Full));
    batch.loss(loss(1, 5, 9, Reason::Full));
    batch.loss(loss(1, 9, 10, Reason::Expired));
    meta.apply(batch, false).unwrap();
    let mut batch = MetaBatch::default();
    batch.loss(loss(1, 9, 12, Reason::Full));
    batch.loss(loss(1, 13, 14, Reason::Full));
    batch.loss(refused("x", 3));
    batch.loss(refused("x", 4));
    meta.apply(batch, false).unwrap();
    let all: Vec<Loss> = meta.ledger().map(|item| item.unwrap().1).collect();
    let wanted = [
        refused("x", 7),
        loss(1, 13, 14, Reason::Full),
        loss(1, 9, 10, Reason::Expired),
        loss(2, 0, 5, Reason::Full),
        loss(1, 0, 12, Reason::Full),
    ];
    assert_eq!(all, wanted);
}

#[test]
fn the_ledger_is_bounded() {
    let mut ledger = Ledger::default();
    let mut batch = sled::Batch::default();
    for i in 0..LEDGER_MAX + 50 {
        ledger.add(loss(1, 2 * i, 2 * i + 1, Reason::Full), &mut batch);
    }
    assert_eq!((ledger.oldest, ledger.next), (50, LEDGER_MAX + 50));
    for reason in 0..=255 {
        assert!(Reason::from_code(reason).is_none_or(|found| found.code() == reason));
    }
}

#[test]
fn a_value_that_is_too_large_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (meta, _) = Meta::open(&folder.path().join("meta")).unwrap();
    let mut batch = MetaBatch::default();
    batch.put("x", &vec![0; VALUE_BYTES_MAX]);
    assert!(meta.apply(batch, false).is_err());
    assert_eq!(meta.get("x").unwrap(), None);
}

#[test]
fn a_damaged_folder_is_put_aside_and_two_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta");
    for round in 1..=4 {
        {
            let (meta, damaged) = Meta::open(&path).unwrap();
            assert_eq!(damaged, round > 1);
            let mut batch = MetaBatch::default();
            for i in 0..2000 {
                batch.put(&format!("{i}"), &[7; 100]);
            }
            meta.apply(batch, true).unwrap();
        }
        // Garbage over sled's own settings and the middle of its data.
        std::fs::write(path.join("conf"), b"garbage").unwrap();
        let mut data = std::fs::read(path.join("db")).unwrap();
        data.iter_mut().for_each(|byte| *byte ^= 0x55);
        std::fs::write(path.join("db"), data).unwrap();
    }
    let (_, damaged) = Meta::open(&path).unwrap();
    assert!(damaged);
    assert_eq!(
        names(folder.path()),
        ["meta", "meta.damaged-3", "meta.damaged-4"]
    );
}
