//! A frame's header: how it is written and verified. The layout is in `log/mod.rs`.

use bytes::BufMut;

use super::COUNT_MAX;

/// Bytes of a header.
pub(super) const HEADER: usize = 48;
/// Bytes of the body's checksum.
pub(super) const TRAILER: usize = 4;
/// First bytes of a frame.
pub(super) const MAGIC: u32 = 0x4746_4754;
/// The body as it is.
pub(super) const PLAIN: u8 = 0;
/// The body in zstd.
pub(super) const ZSTD: u8 = 1;
/// Most bytes of a directory.
pub(super) const DIRECTORY_MAX: u32 = 16 << 20;

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub lane: u8,
    pub codec: u8,
    pub generation: u64,
    pub serial: u64,
    pub number: u64,
    pub directory_bytes: u32,
    pub body_bytes: u32,
    pub raw_bytes: u32,
}

impl Header {
    /// Bytes of the whole frame.
    pub fn frame_bytes(&self) -> u64 {
        (HEADER + TRAILER) as u64 + u64::from(self.directory_bytes) + u64::from(self.body_bytes)
    }

    /// Bytes of header and directory.
    pub fn front_bytes(&self) -> u64 {
        HEADER as u64 + u64::from(self.directory_bytes)
    }

    /// Appends header, directory and body, with their checksums.
    pub fn encode(&self, directory: &[u8], body: &[u8], out: &mut Vec<u8>) {
        let from = out.len();
        out.put_u32_le(MAGIC);
        out.put_u8(self.lane);
        out.put_u8(self.codec);
        out.put_u16_le(0);
        out.put_u64_le(self.generation);
        out.put_u64_le(self.serial);
        out.put_u64_le(self.number);
        out.put_u32_le(self.directory_bytes);
        out.put_u32_le(self.body_bytes);
        out.put_u32_le(self.raw_bytes);
        let sum = crc32c::crc32c(out.get(from..).unwrap_or_default());
        out.put_u32_le(crc32c::crc32c_append(sum, directory));
        out.extend_from_slice(directory);
        out.extend_from_slice(body);
        out.put_u32_le(crc32c::crc32c(body));
    }

    /// Reads a header that is not verified yet; `None` if the bytes cannot be one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (magic, header) = Self::fields(bytes)?;
        let counts = [header.generation, header.serial, header.number];
        let counted = counts.into_iter().all(|count| count <= COUNT_MAX);
        (magic == MAGIC && header.directory_bytes <= DIRECTORY_MAX && counted).then_some(header)
    }

    /// The magic number and the fields, whatever they are.
    pub fn fields(bytes: &[u8]) -> Option<(u32, Self)> {
        let mut r = Fields(bytes.get(..HEADER)?);
        let magic = r.u32()?;
        let (lane, codec) = (r.u8()?, r.u8()?);
        r.skip(2)?;
        let header = Self {
            lane,
            codec,
            generation: r.u64()?,
            serial: r.u64()?,
            number: r.u64()?,
            directory_bytes: r.u32()?,
            body_bytes: r.u32()?,
            raw_bytes: r.u32()?,
        };
        Some((magic, header))
    }

    /// Whether `front`, the header and directory as read, is what was written.
    pub fn verify(front: &[u8]) -> bool {
        let Some((head, rest)) = front.split_at_checked(HEADER - 4) else {
            return false;
        };
        let Some((sum, directory)) = rest.split_first_chunk::<4>() else {
            return false;
        };
        crc32c::crc32c_append(crc32c::crc32c(head), directory) == u32::from_le_bytes(*sum)
    }

    /// The body of a frame, if its checksum is right; `bytes` are what follows the directory.
    pub fn body<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let length = usize::try_from(self.body_bytes).ok()?;
        let (body, rest) = bytes.split_at_checked(length)?;
        let sum = rest.first_chunk::<4>()?;
        (crc32c::crc32c(body) == u32::from_le_bytes(*sum)).then_some(body)
    }
}

/// Reads little-endian fields one by one.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }
}
