//! Makes record batches v2 (<https://kafka.apache.org/documentation/#recordbatch>) by copying
//! record bodies.
//!
//! ```text
//! base offset i64 | length of the rest i32 | leader epoch i32 | 2 i8 | crc32c of the rest u32 |
//! attributes i16 | last offset delta i32 | base timestamp i64 | max timestamp i64 |
//! producer id i64 | epoch i16 | base sequence i32 | count i32 | records, perhaps compressed as one
//!
//! record: length of the rest varint | attributes i8 | timestamp delta varint
//!         | offset delta varint | key and value | header count varint | headers
//! ```
//! Key, value and headers are what [`Record::body`] holds, as it is.

use bytes::{BufMut, Bytes, BytesMut};

use super::Compression;
use super::compression::Codec;
use crate::record::{Malformed, Record, varint};

/// Bytes of a batch in front of its records.
pub const HEADER_BYTES: usize = 61;
/// Of them those that its length does not count.
const UNCOUNTED_BYTES: usize = 12;
/// Where the checksum stands; it covers what is behind it.
const CRC_AT: usize = 17;
/// Buffers that grew beyond this are given back after the batch.
const KEEP_BYTES: usize = 4 << 20;

/// Under which name a batch is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchIdentity {
    /// Producer id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of the first record; those behind it count on and wrap to 0 behind 2^31 − 1.
    pub base_sequence: i32,
}

/// Kafka's sequence of the record that is number `count` of its producer and epoch.
#[must_use]
pub fn sequence(count: u64) -> i32 {
    i32::try_from(count & 0x7fff_ffff).unwrap_or(0)
}

/// Appends headers (encoded with [`crate::record::put`], name and value) to the record of that
/// index in the batch and says how many.
pub type Extra<'a> = &'a dyn Fn(usize, &mut BytesMut) -> u32;

/// A batch that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// No records, or more bytes than a batch can hold (2^31).
    #[error("{0} records of {1} bytes do not make a batch")]
    Size(usize, usize),
    /// A record whose `headers_at` is outside its body.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A compressor failed.
    #[error("cannot compress: {0}")]
    Compress(#[from] std::io::Error),
}

/// Buffers and compressors that are used again and again: one for each task that makes batches.
#[derive(Debug)]
pub struct Encoder {
    compression: Compression,
    level: Option<i32>,
    codec: Option<Codec>,
    plain: BytesMut,
    packed: Vec<u8>,
    extra: BytesMut,
}

impl Encoder {
    /// An encoder; `level` is the codec's own (zstd −7…22, gzip 0…9), `None` its default here.
    #[must_use]
    pub fn new(compression: Compression, level: Option<i32>) -> Self {
        Self {
            compression,
            level,
            codec: None,
            plain: BytesMut::new(),
            packed: Vec::new(),
            extra: BytesMut::new(),
        }
    }

    /// Makes one batch. The result has no spare capacity.
    ///
    /// # Errors
    /// [`EncodeError`]; the encoder can be used again.
    pub fn encode<'a>(
        &mut self,
        records: impl ExactSizeIterator<Item = &'a Record>,
        id: BatchIdentity,
        extra: Option<Extra<'_>>,
    ) -> Result<Bytes, EncodeError> {
        let count = records.len();
        self.plain.clear();
        self.packed.clear();
        let times = self.write_records(records, extra)?;
        let codec = match &mut self.codec {
            Some(codec) => codec,
            none => none.insert(Codec::new(self.compression, self.level)?),
        };
        let body = if let Codec::None = codec {
            &self.plain[..]
        } else {
            codec.compress(&self.plain, &mut self.packed)?;
            &self.packed[..]
        };
        let size = || EncodeError::Size(count, body.len());
        let length = i32::try_from(HEADER_BYTES - UNCOUNTED_BYTES + body.len());
        let length = length.map_err(|_| size())?;
        let count = i32::try_from(count)
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(size)?;

        let mut batch = BytesMut::with_capacity(HEADER_BYTES + body.len());
        batch.put_i64(0); // base offset: the broker's to say
        batch.put_i32(length);
        batch.put_i32(-1); // leader epoch: as Java's producer
        batch.put_i8(2); // magic
        batch.put_u32(0); // checksum: below
        batch.put_i16(codec.attributes());
        batch.put_i32(count - 1);
        batch.put_i64(times.base);
        batch.put_i64(times.max);
        batch.put_i64(id.producer_id);
        batch.put_i16(id.epoch);
        batch.put_i32(id.base_sequence);
        batch.put_i32(count);
        batch.put_slice(body);
        if let Some((_, rest)) = batch.split_at_mut_checked(CRC_AT)
            && let Some((crc, rest)) = rest.split_first_chunk_mut::<4>()
        {
            *crc = crc32c::crc32c(rest).to_be_bytes();
        }
        self.give_back();
        Ok(batch.freeze())
    }

    fn write_records<'a>(
        &mut self,
        records: impl Iterator<Item = &'a Record>,
        extra: Option<Extra<'_>>,
    ) -> Result<Times, EncodeError> {
        let mut times: Option<Times> = None;
        for (index, record) in records.enumerate() {
            let base = times
                .as_ref()
                .map_or(record.timestamp_ms, |times| times.base);
            let max = times.map_or(base, |times| times.max.max(record.timestamp_ms));
            times = Some(Times { base, max });
            self.extra.clear();
            let more = extra.map_or(0, |extra| extra(index, &mut self.extra));
            let place = Place {
                timestamp_delta: record.timestamp_ms.wrapping_sub(base),
                offset_delta: i64::try_from(index).unwrap_or(i64::MAX),
                header_count: i64::from(record.header_count) + i64::from(more),
            };
            write_record(&mut self.plain, record, &place, &self.extra)?;
        }
        times.ok_or(EncodeError::Size(0, 0))
    }

    fn give_back(&mut self) {
        if self.plain.capacity() > KEEP_BYTES {
            self.plain = BytesMut::new();
        }
        if self.packed.capacity() > KEEP_BYTES {
            self.packed = Vec::new();
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Times {
    base: i64,
    max: i64,
}

/// What a record says in its batch besides its body.
struct Place {
    timestamp_delta: i64,
    offset_delta: i64,
    header_count: i64,
}

#[inline]
fn write_record(
    out: &mut BytesMut,
    record: &Record,
    place: &Place,
    extra: &[u8],
) -> Result<(), EncodeError> {
    let headers_at = usize::try_from(record.headers_at).map_err(|_| Malformed)?;
    let (fields, headers) = record.body.split_at_checked(headers_at).ok_or(Malformed)?;
    let length = 1
        + varint::len_signed(place.timestamp_delta)
        + varint::len_signed(place.offset_delta)
        + varint::len_signed(place.header_count)
        + record.body.len()
        + extra.len();
    out.reserve(length + 5);
    varint::write_signed(out, i64::try_from(length).unwrap_or(i64::MAX));
    out.put_i8(0); // attributes: none are defined
    varint::write_signed(out, place.timestamp_delta);
    varint::write_signed(out, place.offset_delta);
    out.put_slice(fields);
    varint::write_signed(out, place.header_count);
    out.put_slice(headers);
    out.put_slice(extra);
    Ok(())
}

#[cfg(test)]
mod tests;
