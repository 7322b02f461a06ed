//! What was stored is there after a restart, and damage does not stop one.

use super::*;

fn identity(epoch: i16) -> Identity {
    Identity {
        producer_id: 7,
        epoch,
        cluster_id: "c".into(),
        device: "d".into(),
    }
}

#[test]
fn what_was_applied_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta");
    let (mut meta, fresh) = Meta::open(&path).unwrap();
    assert!(fresh);
    let to = TopicPartition {
        topic: "a/b".into(),
        partition: 3,
    };
    let cursor = Cursor {
        run: Run(2),
        next: 9,
        offset: Some(40),
    };
    let loss = Loss {
        topic: "t".into(),
        partition: 0,
        run: Run(2),
        first: 1,
        end: 4,
        reason: Reason::Expired,
        at_ms: 5,
    };
    let mut batch = MetaBatch::default();
    batch.cursor(StreamId(1), &to, cursor);
    batch.partitions(&"a/b".into(), 6);
    batch.identity(Run(3), &identity(4));
    batch.base(StreamId(1), Run(2), -5, Run(3));
    batch.drop_range(StreamId(1), Run(2), (10, 20), false);
    batch.drop_settled(StreamId(1), Run(2), (10, 20), 15);
    batch.loss(loss.clone());
    meta.apply(&batch, true).unwrap();
    drop(meta);
    let (meta, fresh) = Meta::open(&path).unwrap();
    assert!(!fresh);
    let stored = meta.load();
    assert_eq!(stored.newest_run, Some(Run(3)));
    assert_eq!(stored.cursors, [(StreamId(1), cursor)]);
    assert_eq!(stored.streams, [(StreamId(1), to)]);
    assert_eq!(stored.partitions, [("a/b".into(), 6)]);
    let base = Base {
        stream: StreamId(1),
        run: Run(2),
        zero: -5,
        sent_as: Run(3),
    };
    assert_eq!(stored.bases, [base]);
    let drop = Drop {
        stream: StreamId(1),
        run: Run(2),
        first: 15,
        end: 20,
        fate_known: true,
    };
    assert_eq!(stored.drops, [drop]);
    assert_eq!(meta.identities(), [(Run(3), identity(4))]);
    assert_eq!(meta.ledger(10), [loss]);
}

#[test]
fn a_damaged_folder_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta");
    drop(Meta::open(&path).unwrap());
    std::fs::write(path.join("conf"), b"garbage").unwrap();
    std::fs::write(path.join("db"), vec![0x5a; 100_000]).unwrap();
    let (meta, fresh) = Meta::open(&path).unwrap();
    assert!(fresh && meta.load().newest_run.is_none());
    assert!(folder.path().join("meta.damaged-1").exists());
}

#[test]
fn what_a_newer_version_wrote_is_refused_and_not_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta");
    let (meta, _) = Meta::open(&path).unwrap();
    let db = meta.db.as_ref().unwrap();
    db.insert("mark/format", "2").unwrap();
    db.flush().unwrap();
    drop(meta);
    for _ in 0..2 {
        let error = Meta::open(&path).unwrap_err().to_string();
        assert!(error.contains("format 2"), "{error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
