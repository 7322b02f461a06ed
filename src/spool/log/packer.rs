//! Records become the body of a frame: sorted, encoded, compressed.

use std::io;

use zstd::bulk::Compressor;

use super::body::BodyWriter;
use super::{AppendError, RAW_BYTES_MAX, Section, SectionDraft, frame};
use crate::record::Record;

/// Buffers that are used again from frame to frame.
pub(super) struct Packer {
    compressor: Compressor<'static>,
    body: BodyWriter,
    raw: Vec<u8>,
    packed: Vec<u8>,
    /// The directory of the frame that is being made.
    pub directory: Vec<u8>,
    /// The whole frame.
    pub out: Vec<u8>,
}

/// A frame's records, packed; it has no place yet.
pub(super) struct Packed {
    pub sections: Vec<Section>,
    pub oldest_ms: i64,
    pub codec: u8,
    pub raw_bytes: u32,
    pub body_bytes: u32,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

impl Packer {
    /// `level` is zstd's.
    pub fn new(level: i32) -> io::Result<Self> {
        Ok(Self {
            compressor: Compressor::new(level)?,
            body: BodyWriter::default(),
            raw: Vec::new(),
            packed: Vec::new(),
            directory: Vec::new(),
            out: Vec::new(),
        })
    }

    /// Packs the records into `packed` (zstd) or leaves them in `raw` (plain).
    pub fn pack(&mut self, drafts: &[SectionDraft]) -> Result<Packed, AppendError> {
        let mut sorted: Vec<&SectionDraft> = drafts
            .iter()
            .filter(|draft| !draft.records.is_empty())
            .collect();
        sorted.sort_by_key(|draft| (draft.run, draft.stream, draft.first));
        let records = || sorted.iter().flat_map(|draft| draft.records.iter());
        let size: usize = records().map(Record::size).sum();
        let too_large = |bytes: usize| AppendError::TooLarge {
            bytes: bytes as u64,
            max: RAW_BYTES_MAX as u64,
        };
        if size > RAW_BYTES_MAX {
            return Err(too_large(size));
        }
        let oldest_ms = records()
            .map(|record| record.timestamp_ms)
            .min()
            .unwrap_or(0);
        self.raw.clear();
        self.body.encode(records(), oldest_ms, &mut self.raw);
        self.packed.clear();
        self.packed
            .reserve(zstd::zstd_safe::compress_bound(self.raw.len()));
        if !self.raw.is_empty() {
            self.compressor
                .compress_to_buffer(&self.raw, &mut self.packed)?;
        }
        let zstd = self.packed.len() < self.raw.len();
        let body = if zstd { &self.packed } else { &self.raw };
        Ok(Packed {
            sections: merge(&sorted),
            oldest_ms,
            codec: if zstd { frame::ZSTD } else { frame::PLAIN },
            raw_bytes: u32::try_from(self.raw.len()).map_err(|_| too_large(self.raw.len()))?,
            body_bytes: u32::try_from(body.len()).map_err(|_| too_large(body.len()))?,
        })
    }

    /// The packed records.
    pub fn body(&self, codec: u8) -> &[u8] {
        if codec == frame::ZSTD {
            &self.packed
        } else {
            &self.raw
        }
    }

    /// Packs a head's entries; nothing and 0 where that fails: the head goes without them.
    pub fn pack_head(&mut self, raw: &[u8]) -> (Vec<u8>, u32) {
        let raw_bytes = u32::try_from(raw.len()).unwrap_or(u32::MAX);
        match self.compressor.compress(raw) {
            Ok(packed) => (packed, raw_bytes),
            Err(_) => (Vec::new(), 0),
        }
    }
}

/// Sections as they go into the directory: sorted, neighbours merged.
fn merge(sorted: &[&SectionDraft]) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::with_capacity(sorted.len());
    for draft in sorted {
        let count = u32::try_from(draft.records.len()).unwrap_or(u32::MAX);
        let (stream, run, first) = (draft.stream, draft.run, draft.first);
        match sections.last_mut() {
            Some(last) if (last.stream, last.run, last.end()) == (stream, run, first) => {
                last.count = last.count.saturating_add(count);
            }
            _ => sections.push(Section {
                stream,
                run,
                first,
                count,
            }),
        }
    }
    sections
}
