//! A segment's head. The layout is in `log/mod.rs`.

use bytes::BufMut;

use super::frame::Fields;
use super::{COUNT_MAX, Directory, Entry, VERSION};

/// Bytes of a head before its checkpoint.
pub(super) const HEAD: usize = 84;
const MAGIC: u64 = u64::from_le_bytes(*b"TGSEGMNT");
/// Most bytes of an unpacked checkpoint that a reader takes.
const CHECKPOINT_MAX: usize = 64 << 20;

/// What a head says, the checkpoint aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub lane: u8,
    pub generation: u64,
    pub serial: u64,
    pub first_number: u64,
    pub generation_before: u64,
    pub last_before: u64,
    pub created_ms: i64,
    pub length: u64,
}

/// What the first bytes of a file are.
#[derive(Debug)]
pub(super) enum HeadRead {
    /// A head that verifies, its bytes in the file, and its checkpoint.
    Good(Head, u64, Vec<Entry>),
    /// More bytes are needed: this many.
    Short(usize),
    /// A head that needs a reader of this version.
    Newer(u16),
    /// No head.
    Bad,
}

impl Head {
    /// The head's bytes with its packed checkpoint.
    pub fn encode(&self, packed: &[u8], raw_bytes: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + packed.len());
        out.put_u64_le(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(1);
        out.put_u8(self.lane);
        out.put_slice(&[0; 3]);
        out.put_u64_le(self.generation);
        out.put_u64_le(self.serial);
        out.put_u64_le(self.first_number);
        out.put_u64_le(self.generation_before);
        out.put_u64_le(self.last_before);
        out.put_i64_le(self.created_ms);
        out.put_u64_le(self.length);
        out.put_u32_le(u32::try_from(packed.len()).unwrap_or(u32::MAX));
        out.put_u32_le(raw_bytes);
        let sum = crc32c::crc32c_append(crc32c::crc32c(&out), packed);
        out.put_u32_le(sum);
        out.put_slice(packed);
        out
    }

    /// Reads a head from a file's first bytes.
    pub fn read(bytes: &[u8]) -> HeadRead {
        Self::parse(bytes).unwrap_or(HeadRead::Bad)
    }

    /// The file's length as the bytes of a head say that need not verify.
    pub fn length(bytes: &[u8]) -> Option<u64> {
        let mut r = Fields(bytes);
        let is_head = r.u64()? == MAGIC;
        r.skip(HEAD - 8 - 8 - 12)?;
        r.u64().filter(|_| is_head)
    }

    fn parse(bytes: &[u8]) -> Option<HeadRead> {
        let mut r = Fields(bytes);
        if r.u64()? != MAGIC {
            return None;
        }
        r.skip(2)?;
        let oldest_reader = r.u16()?;
        let lane = r.u8()?;
        r.skip(3)?;
        let head = Self {
            lane,
            generation: r.u64()?,
            serial: r.u64()?,
            first_number: r.u64()?,
            generation_before: r.u64()?,
            last_before: r.u64()?,
            created_ms: r.i64()?,
            length: r.u64()?,
        };
        let packed_bytes = usize::try_from(r.u32()?).ok()?;
        let raw_bytes = usize::try_from(r.u32()?).ok()?;
        let sum = r.u32()?;
        if packed_bytes > CHECKPOINT_MAX || raw_bytes > CHECKPOINT_MAX {
            return None;
        }
        let Some(packed) = r.0.get(..packed_bytes) else {
            return Some(HeadRead::Short(HEAD + packed_bytes));
        };
        let found = crc32c::crc32c_append(crc32c::crc32c(bytes.get(..HEAD - 4)?), packed);
        if found != sum {
            return None;
        }
        if oldest_reader > VERSION {
            return Some(HeadRead::Newer(oldest_reader));
        }
        let counts = [
            head.generation,
            head.serial,
            head.first_number,
            head.last_before,
        ];
        if counts.into_iter().any(|count| count > COUNT_MAX) {
            return None;
        }
        // The head is what was written; a checkpoint that does not unpack is our own mistake, not a
        // reason to lose the segment.
        let entries = zstd::bulk::decompress(packed, raw_bytes)
            .ok()
            .and_then(|raw| Directory::decode(&raw))
            .map_or_else(Vec::new, |directory| directory.entries);
        Some(HeadRead::Good(head, (HEAD + packed_bytes) as u64, entries))
    }
}
