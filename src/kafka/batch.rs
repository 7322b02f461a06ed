//! Makes record batches v2 (<https://kafka.apache.org/documentation/#recordbatch>) by copying record bodies.

use bytes::{Bytes, BytesMut};

use super::Compression;
use crate::record::Record;

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

/// Appends headers (encoded with [`crate::record::put`], name and value) to the record of that index in the
/// batch and says how many.
pub type Extra<'a> = &'a dyn Fn(usize, &mut BytesMut) -> u32;

/// A batch that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// No records, or more bytes than a batch can hold (2^31).
    #[error("{0} records of {1} bytes do not make a batch")]
    Size(usize, usize),
    /// A record whose `headers_at` is outside its body.
    #[error(transparent)]
    Malformed(#[from] crate::record::Malformed),
    /// A compressor failed.
    #[error("cannot compress: {0}")]
    Compress(String),
}

/// Buffers and compressors that are used again and again: one for each task that makes batches.
#[derive(Debug)]
pub struct Encoder {
    compression: Compression,
}

impl Encoder {
    /// An encoder; `level` is the codec's own (zstd −7…22, gzip 0…9), `None` its default here.
    #[must_use]
    pub fn new(compression: Compression, _level: Option<i32>) -> Self {
        Self { compression }
    }

    /// Makes one batch. The result has no spare capacity.
    ///
    /// # Errors
    /// [`EncodeError`]; the encoder can be used again.
    pub fn encode<'a>(
        &mut self,
        records: impl ExactSizeIterator<Item = &'a Record>,
        _id: BatchIdentity,
        _extra: Option<Extra<'_>>,
    ) -> Result<Bytes, EncodeError> {
        let _ = self.compression;
        Err(EncodeError::Size(records.len(), 0))
    }
}
