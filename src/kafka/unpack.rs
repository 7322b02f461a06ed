//! Reads records out of a log: batches v2 (<https://kafka.apache.org/documentation/#recordbatch>)
//! as any client has written them. Nothing is believed: lengths are held against what is there, a
//! batch takes at most [`UNPACKED_BYTES_MAX`], and no more than one is unpacked at a time.

use std::io::{self, Read};

use bytes::{Buf, Bytes};

use super::batch::HEADER_BYTES;
use crate::record::{self, Header, Malformed, varint};

/// Most bytes of a batch's records.
pub const UNPACKED_BYTES_MAX: u64 = 64 << 20;
/// Bytes in front of what a batch's length counts.
const UNCOUNTED_BYTES: usize = 12;
/// What the checksum covers begins here.
const SUMMED_AT: usize = 21;
/// Attribute of batches that end a transaction: they hold no record of anyone's.
const CONTROL: i16 = 1 << 5;
/// First bytes of xerial's framing of snappy.
const XERIAL: &[u8] = b"\x82SNAPPY\0";
/// Bytes of its head: the above, and two versions.
const XERIAL_HEAD: usize = 16;

/// A record as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord<'a> {
    /// Its offset.
    pub offset: i64,
    /// Its key, `None` when null.
    pub key: Option<&'a [u8]>,
    /// Its value, `None` when null.
    pub value: Option<&'a [u8]>,
    /// Its headers in order.
    pub headers: Vec<Header<'a>>,
}

/// What a batch says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSpan {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Offset of its last record, as it was written.
    pub last_offset: i64,
    /// Records that are in it; fewer than offsets when compaction took some.
    pub records: u64,
}

/// Why a batch cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Not the layout of version 2, or bytes that differ from what was written.
    #[error("{0}")]
    Odd(&'static str),
    /// A record that does not hold what its lengths say.
    #[error(transparent)]
    Record(#[from] Malformed),
    /// The codec's own words.
    #[error("cannot be unpacked: {0}")]
    Codec(#[from] io::Error),
}

/// Takes the first batch off `log`, whole and unread; `None`: the rest is not a whole batch.
pub fn take_batch(log: &mut Bytes) -> Option<Bytes> {
    let mut head = log.get(8..UNCOUNTED_BYTES)?;
    let counted = usize::try_from(head.get_i32()).ok()?;
    let whole = counted.checked_add(UNCOUNTED_BYTES)?;
    (counted > 0 && whole <= log.len()).then(|| log.split_to(whole))
}

/// First and last offset that a batch claims, without a look at its records.
#[must_use]
pub fn offsets(batch: &Bytes) -> Option<(i64, i64)> {
    let (mut first, mut delta) = (batch.get(..8)?, batch.get(23..27)?);
    let first = first.get_i64();
    Some((first, first.checked_add(delta.get_i32().into())?))
}

/// Hands the records of a batch to `take`, in order.
///
/// # Errors
/// [`UnpackError`]; records before the odd one were handed over.
pub fn each_record(
    batch: &Bytes,
    mut take: impl FnMut(LogRecord<'_>),
) -> Result<BatchSpan, UnpackError> {
    let (base_offset, last_offset) = offsets(batch).ok_or(UnpackError::Odd("it is too short"))?;
    let mut head = batch.get(16..HEADER_BYTES).unwrap_or_default();
    if head.len() < HEADER_BYTES - 16 {
        return Err(UnpackError::Odd("it is too short"));
    }
    if head.get_i8() != 2 {
        return Err(UnpackError::Odd("it is of an older version than 2"));
    }
    let sum = head.get_u32();
    if crc32c::crc32c(batch.get(SUMMED_AT..).unwrap_or_default()) != sum {
        return Err(UnpackError::Odd("its checksum is wrong"));
    }
    let attributes = head.get_i16();
    head.advance(4 + 8 + 8 + 8 + 2 + 4);
    let count = u64::try_from(head.get_i32()).unwrap_or(0);
    let mut span = BatchSpan {
        base_offset,
        last_offset,
        records: 0,
    };
    if attributes & CONTROL != 0 {
        return Ok(BatchSpan {
            records: count,
            ..span
        });
    }
    let packed = batch.get(HEADER_BYTES..).unwrap_or_default();
    let unpacked;
    let mut rest = if attributes & 7 == 0 {
        packed
    } else {
        unpacked = unpack(attributes & 7, packed)?;
        &unpacked
    };
    for _ in 0..count {
        take(read_record(&mut rest, base_offset)?);
        span.records += 1;
    }
    Ok(span)
}

fn read_record<'a>(rest: &mut &'a [u8], base_offset: i64) -> Result<LogRecord<'a>, Malformed> {
    let length = varint::read_signed(rest).and_then(|length| usize::try_from(length).ok());
    let (mut record, tail) = rest
        .split_at_checked(length.ok_or(Malformed)?)
        .ok_or(Malformed)?;
    *rest = tail;
    let r = &mut record;
    let (_attributes, tail) = r.split_first().ok_or(Malformed)?;
    *r = tail;
    let _timestamp_delta = varint::read_signed(r).ok_or(Malformed)?;
    let offset_delta = varint::read_signed(r).ok_or(Malformed)?;
    let (key, value) = (record::take(r)?, record::take(r)?);
    let mut headers = Vec::new();
    for _ in 0..varint::read_signed(r).ok_or(Malformed)? {
        let name = record::take(r)?.ok_or(Malformed)?;
        headers.push((name, record::take(r)?));
    }
    Ok(LogRecord {
        offset: base_offset.saturating_add(offset_delta),
        key,
        value,
        headers,
    })
}

/// Unpacks by a batch's attributes; at most [`UNPACKED_BYTES_MAX`].
fn unpack(codec: i16, packed: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        1 => read(flate2::read::MultiGzDecoder::new(packed)),
        2 => snappy(packed),
        3 => read(lz4_flex::frame::FrameDecoder::new(packed)),
        4 => read(zstd::stream::read::Decoder::new(packed)?),
        _ => Err(io::Error::other(format!("codec {codec} is unknown"))),
    }
}

fn too_large() -> io::Error {
    io::Error::other(format!("it is larger than {UNPACKED_BYTES_MAX} bytes"))
}

fn read(from: impl Read) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    from.take(UNPACKED_BYTES_MAX + 1).read_to_end(&mut all)?;
    if all.len() as u64 > UNPACKED_BYTES_MAX {
        return Err(too_large());
    }
    Ok(all)
}

/// Blocks in xerial's framing, or one bare block.
fn snappy(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    if !packed.starts_with(XERIAL) {
        block(packed, &mut all)?;
        return Ok(all);
    }
    let mut rest = packed.get(XERIAL_HEAD..).unwrap_or_default();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(io::Error::other)?;
        let (packed, tail) = tail
            .split_at_checked(length)
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        block(packed, &mut all)?;
        rest = tail;
    }
    Ok(all)
}

fn block(packed: &[u8], all: &mut Vec<u8>) -> io::Result<()> {
    let length = snap::raw::decompress_len(packed).map_err(io::Error::other)?;
    if (all.len() + length) as u64 > UNPACKED_BYTES_MAX {
        return Err(too_large());
    }
    let from = all.len();
    all.resize(from + length, 0);
    let to = all.get_mut(from..).unwrap_or_default();
    let written = snap::raw::Decoder::new().decompress(packed, to);
    all.truncate(from + written.map_err(io::Error::other)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::kafka::Compression;
    use crate::kafka::batch::{BatchIdentity, Encoder};
    use crate::record::RecordWriter;

    fn batch(compression: Compression, records: i64) -> Bytes {
        let records: Vec<_> = (0..records)
            .map(|n| {
                let value = format!("value {n} ").repeat(40);
                let mut record = RecordWriter::new(None, Some(value.as_bytes()));
                record.header(b"seq", Some(n.to_string().as_bytes()));
                record.header(b"none", None);
                record.finish(n)
            })
            .collect();
        let id = BatchIdentity {
            producer_id: 1,
            epoch: 0,
            base_sequence: 0,
        };
        let mut encoder = Encoder::new(compression, None);
        encoder.encode(records.iter(), id, None).unwrap()
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        for compression in Compression::ALL {
            let mut log = BytesMut::new();
            for _ in 0..2 {
                log.extend_from_slice(&batch(compression, 300));
            }
            log.extend_from_slice(&[0; 30]);
            let mut log = log.freeze();
            let mut batches = 0;
            while let Some(batch) = take_batch(&mut log) {
                batches += 1;
                let mut seen = 0;
                let span = each_record(&batch, |record| {
                    assert_eq!((record.offset, record.key), (seen, None));
                    let value = format!("value {seen} ").repeat(40);
                    assert_eq!(record.value, Some(value.as_bytes()));
                    let seq = seen.to_string();
                    let headers: Vec<Header<'_>> =
                        vec![(b"seq", Some(seq.as_bytes())), (b"none", None)];
                    assert_eq!(record.headers, headers);
                    seen += 1;
                });
                let span = span.unwrap();
                assert_eq!((span.last_offset, span.records, seen), (299, 300, 300));
            }
            assert_eq!((batches, log.len()), (2, 30), "{compression:?}");
        }
    }

    #[test]
    fn lies_are_errors_and_cost_nothing() {
        for compression in Compression::ALL {
            let whole = batch(compression, 50);
            for at in (0..whole.len()).step_by(3) {
                let mut flipped = BytesMut::from(&whole[..]);
                flipped[at] ^= 0x55;
                let sum = crc32c::crc32c(&flipped[SUMMED_AT..]);
                if at >= SUMMED_AT {
                    // As a client would write it that lies: the checksum is right.
                    flipped[17..21].copy_from_slice(&sum.to_be_bytes());
                }
                let flipped = flipped.freeze();
                let _odd_or_not = each_record(&flipped, |_| ());
            }
            let cut = whole.slice(..whole.len() - 1);
            assert!(each_record(&cut, |_| ()).is_err());
            assert!(take_batch(&mut cut.clone()).is_none());
        }
        // 200 MiB of zeros in a few bytes.
        let bomb = zstd::encode_all(io::repeat(0).take(200 << 20), 1).unwrap();
        let error = unpack(4, &bomb).unwrap_err();
        assert!(error.to_string().contains("larger than"), "{error}");
    }
}
