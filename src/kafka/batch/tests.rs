//! Batches are read back by a small reader of the format, and by `kafka-protocol`'s where it can.

use super::*;
use crate::kafka::compression::tests::decompress;
use crate::record::RecordWriter;
use crate::record::put;
use bytes::Buf;
use kafka_protocol::records::RecordBatchDecoder;
use proptest::prelude::*;

const ID: BatchIdentity = BatchIdentity {
    producer_id: 77,
    epoch: 3,
    base_sequence: i32::MAX,
};

type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;
type Plain = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Headers);

fn record((time, key, value, headers): &Plain) -> Record {
    let mut writer = RecordWriter::new(key.as_deref(), value.as_deref());
    for (name, value) in headers {
        writer.header(name, value.as_deref());
    }
    writer.finish(*time)
}

fn take(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(varint::read_signed(rest).unwrap()).ok()?;
    let (head, tail) = rest.split_at(length);
    *rest = tail;
    Some(head.to_vec())
}

/// Reads a batch back and checks everything of its header that does not vary.
fn read(batch: &Bytes, id: BatchIdentity) -> Vec<Plain> {
    let mut head = batch.clone();
    assert_eq!(head.get_i64(), 0);
    assert_eq!(head.get_i32() as usize, head.remaining());
    assert_eq!((head.get_i32(), head.get_i8()), (-1, 2));
    assert_eq!(head.get_u32(), crc32c::crc32c(&head));
    let attributes = head.get_i16();
    let last_delta = head.get_i32();
    let (base, max) = (head.get_i64(), head.get_i64());
    assert_eq!(head.get_i64(), id.producer_id);
    assert_eq!(
        (head.get_i16(), head.get_i32()),
        (id.epoch, id.base_sequence)
    );
    let count = head.get_i32();
    assert_eq!(last_delta, count - 1);
    let plain = decompress(attributes, &head);
    let mut rest = &plain[..];
    let mut records = Vec::new();
    for index in 0..count {
        let length = varint::read_signed(&mut rest).unwrap() as usize;
        let (mut one, tail) = rest.split_at(length);
        rest = tail;
        assert_eq!(one.get_i8(), 0);
        let time = base.wrapping_add(varint::read_signed(&mut one).unwrap());
        assert_eq!(varint::read_signed(&mut one), Some(index.into()));
        let (key, value) = (take(&mut one), take(&mut one));
        let headers = varint::read_signed(&mut one).unwrap();
        let headers = (0..headers).map(|_| (take(&mut one).unwrap(), take(&mut one)));
        records.push((time, key, value, headers.collect()));
        assert!(one.is_empty());
    }
    assert!(rest.is_empty());
    assert_eq!(records.iter().map(|record| record.0).max(), Some(max));
    records
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..200)
}

fn plain() -> impl Strategy<Value = Plain> {
    let field = || proptest::option::of(bytes());
    let headers = proptest::collection::vec((bytes(), field()), 0..4);
    (any::<i64>(), field(), field(), headers)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn records_come_back(
        records in proptest::collection::vec(plain(), 1..60),
        codec in 0usize..5,
        more in any::<bool>(),
    ) {
        let compression = [
            Compression::None,
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ][codec];
        let mut encoder = Encoder::new(compression, None);
        let made: Vec<Record> = records.iter().map(record).collect();
        let extra = |index: usize, out: &mut BytesMut| {
            put(out, Some(b"seq"));
            put(out, Some(index.to_string().as_bytes()));
            1
        };
        for _ in 0..2 {
            let extra: Option<Extra<'_>> = if more { Some(&extra) } else { None };
            let batch = encoder.encode(made.iter(), ID, extra).unwrap();
            let mut wanted = records.clone();
            for (index, record) in wanted.iter_mut().enumerate().filter(|_| more) {
                record.3.push((b"seq".to_vec(), Some(index.to_string().into_bytes())));
            }
            prop_assert!(read(&batch, ID) == wanted);
        }
    }
}

#[test]
fn another_reader_agrees() {
    let headers = vec![(b"a".to_vec(), Some(b"1".to_vec())), (b"b".to_vec(), None)];
    let plains: Vec<Plain> = vec![
        (
            1_700_000_000_000,
            Some(b"key".to_vec()),
            Some(b"value".to_vec()),
            headers,
        ),
        (1_699_999_999_999, None, None, Vec::new()),
    ];
    let made: Vec<Record> = plains.iter().map(record).collect();
    let id = BatchIdentity {
        base_sequence: 5,
        ..ID
    };
    let mut encoder = Encoder::new(Compression::None, None);
    let mut batch = encoder.encode(made.iter(), id, None).unwrap();
    let set = RecordBatchDecoder::decode(&mut batch).unwrap();
    assert_eq!(set.records.len(), 2);
    let first = &set.records[0];
    assert_eq!(
        (first.key.as_deref(), first.value.as_deref()),
        (Some(&b"key"[..]), Some(&b"value"[..]))
    );
    assert_eq!(
        (first.producer_id, first.producer_epoch, first.sequence),
        (77, 3, 5)
    );
    assert_eq!((first.headers.len(), first.timestamp), (2, plains[0].0));
    let second = &set.records[1];
    assert_eq!(
        (second.key.as_deref(), second.value.as_deref()),
        (None, None)
    );
    assert_eq!(second.timestamp, plains[1].0);
}

#[test]
fn no_records_make_no_batch() {
    let none: [Record; 0] = [];
    let mut encoder = Encoder::new(Compression::Zstd, None);
    assert!(matches!(
        encoder.encode(none.iter(), ID, None),
        Err(EncodeError::Size(0, 0))
    ));
}

#[test]
fn a_record_that_lies_is_refused_and_the_encoder_lives() {
    let good = record(&(0, None, Some(b"v".to_vec()), Vec::new()));
    let bad = Record {
        headers_at: 99,
        ..good.clone()
    };
    let mut encoder = Encoder::new(Compression::Lz4, None);
    assert!(matches!(
        encoder.encode([&bad].into_iter(), ID, None),
        Err(EncodeError::Malformed(_))
    ));
    let batch = encoder.encode([&good].into_iter(), ID, None).unwrap();
    assert_eq!(read(&batch, ID).len(), 1);
}

#[test]
fn sequences_wrap_at_two_to_the_31() {
    assert_eq!(sequence(0x7fff_ffff), i32::MAX);
    assert_eq!(sequence(0x8000_0000), 0);
    assert_eq!(sequence(0x8000_0005), 5);
}
