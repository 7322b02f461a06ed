//! The four codecs of record batches, each with buffers and tables that are used again for every
//! batch, and each in the framing that Java's clients read:
//!
//! - gzip: one member (RFC 1952) without name and time.
//! - snappy: xerial's framing, as `org.xerial.snappy.SnappyInputStream` reads it:
//!   `82 "SNAPPY" 00 | version i32 1 | compatible i32 1 | { length i32 | raw snappy block }*`,
//!   big-endian.
//! - lz4: the standard frame, blocks of 64 KiB, independent, without checksums of the content, as
//!   `org.apache.kafka.common.compress.Lz4BlockOutputStream` writes it.
//! - zstd: one frame that says its size.

use std::io;

use flate2::{Compress, Crc, FlushCompress, Status};
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use super::Compression;

/// Java's default for snappy.
const SNAPPY_BLOCK_BYTES: usize = 32 * 1024;
const SNAPPY_HEAD: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// What descriptor byte 0x40 says.
const LZ4_BLOCK_BYTES: usize = 64 * 1024;
/// Magic; version 1, independent blocks; blocks of 64 KiB; second byte of the descriptor's
/// xxhash32.
const LZ4_HEAD: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
/// Set in a block's length when the block is not compressed.
const LZ4_PLAIN: u32 = 1 << 31;
/// Magic, deflate, no flags, no time, no extra flags, system unknown.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// Below what Java's consumer allocates for a zstd window by default.
const ZSTD_LEVEL: i32 = 1;

/// A codec with its state.
pub(super) enum Codec {
    None,
    Gzip(Compress),
    Snappy(Box<snap::raw::Encoder>),
    Lz4(Box<CompressTable>),
    Zstd(Box<zstd::bulk::Compressor<'static>>),
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Gzip(_) => "Gzip",
            Self::Snappy(_) => "Snappy",
            Self::Lz4(_) => "Lz4",
            Self::Zstd(_) => "Zstd",
        })
    }
}

impl Codec {
    /// `level` is the codec's own; snappy and lz4 have none.
    pub(super) fn new(compression: Compression, level: Option<i32>) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::None,
            Compression::Gzip => {
                let level = level.and_then(|level| u32::try_from(level).ok());
                let level = level.map_or_else(flate2::Compression::default, |level| {
                    flate2::Compression::new(level.min(9))
                });
                Self::Gzip(Compress::new(level, false))
            }
            Compression::Snappy => Self::Snappy(Box::new(snap::raw::Encoder::new())),
            Compression::Lz4 => Self::Lz4(Box::new(CompressTable::large())),
            Compression::Zstd => {
                let level = level.unwrap_or(ZSTD_LEVEL);
                Self::Zstd(Box::new(zstd::bulk::Compressor::new(level)?))
            }
        })
    }

    /// Bits 0 to 2 of a batch's attributes.
    pub(super) fn attributes(&self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip(_) => 1,
            Self::Snappy(_) => 2,
            Self::Lz4(_) => 3,
            Self::Zstd(_) => 4,
        }
    }

    /// Appends `plain`, compressed, to `out`.
    pub(super) fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::None => out.extend_from_slice(plain),
            Self::Gzip(deflate) => gzip(deflate, plain, out)?,
            Self::Snappy(encoder) => snappy(encoder, plain, out)?,
            Self::Lz4(table) => lz4(table, plain, out)?,
            Self::Zstd(compressor) => {
                // Into spare capacity: it need not be filled with zeros first.
                out.reserve(zstd::zstd_safe::compress_bound(plain.len()));
                let mut rest = io::Cursor::new(std::mem::take(out));
                rest.set_position(rest.get_ref().len() as u64);
                let result = compressor.compress_to_buffer(plain, &mut rest);
                *out = rest.into_inner();
                result?;
            }
        }
        Ok(())
    }
}

fn gzip(deflate: &mut Compress, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&GZIP_HEAD);
    deflate.reset();
    out.reserve(plain.len() / 2 + 64);
    loop {
        let taken = usize::try_from(deflate.total_in()).unwrap_or(usize::MAX);
        let rest = plain.get(taken..).unwrap_or_default();
        match deflate.compress_vec(rest, out, FlushCompress::Finish)? {
            Status::StreamEnd => break,
            Status::Ok | Status::BufError => out.reserve(plain.len() / 4 + 64),
        }
    }
    let mut crc = Crc::new();
    crc.update(plain);
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&crc.amount().to_le_bytes());
    Ok(())
}

fn snappy(encoder: &mut snap::raw::Encoder, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&SNAPPY_HEAD);
    for block in plain.chunks(SNAPPY_BLOCK_BYTES) {
        let start = out.len();
        out.resize(start + 4 + snap::raw::max_compress_len(block.len()), 0);
        let free = out.get_mut(start + 4..).unwrap_or_default();
        let length = encoder.compress(block, free).map_err(io::Error::other)?;
        put_length(out, start, length, u32::to_be_bytes)?;
    }
    Ok(())
}

fn lz4(table: &mut CompressTable, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&LZ4_HEAD);
    for block in plain.chunks(LZ4_BLOCK_BYTES) {
        let start = out.len();
        out.resize(start + 4 + get_maximum_output_size(block.len()), 0);
        let free = out.get_mut(start + 4..).unwrap_or_default();
        let length = compress_into_with_table(block, free, table).map_err(io::Error::other)?;
        if length < block.len() {
            put_length(out, start, length, u32::to_le_bytes)?;
        } else {
            put_length(out, start, 0, |_| [0; 4])?;
            out.extend_from_slice(block);
            let plain = u32::try_from(block.len()).map_err(io::Error::other)? | LZ4_PLAIN;
            set(out, start, plain.to_le_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]); // end mark
    Ok(())
}

/// Cuts `out` behind a block of `length` bytes whose length stands at `start`.
fn put_length(
    out: &mut Vec<u8>,
    start: usize,
    length: usize,
    bytes: fn(u32) -> [u8; 4],
) -> io::Result<()> {
    out.truncate(start + 4 + length);
    set(
        out,
        start,
        bytes(u32::try_from(length).map_err(io::Error::other)?),
    );
    Ok(())
}

fn set(out: &mut [u8], at: usize, bytes: [u8; 4]) {
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&bytes);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    /// What other implementations than the ones above make of it.
    pub(in crate::kafka) fn decompress(attributes: i16, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match attributes & 7 {
            0 => out.extend_from_slice(bytes),
            1 => drop(
                flate2::read::GzDecoder::new(bytes)
                    .read_to_end(&mut out)
                    .unwrap(),
            ),
            2 => {
                let mut rest = bytes.strip_prefix(&SNAPPY_HEAD).unwrap();
                while let Some((length, tail)) = rest.split_first_chunk::<4>() {
                    let (block, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
                    out.extend(snap::raw::Decoder::new().decompress_vec(block).unwrap());
                    rest = tail;
                }
            }
            3 => drop(
                lz4_flex::frame::FrameDecoder::new(bytes)
                    .read_to_end(&mut out)
                    .unwrap(),
            ),
            _ => out = zstd::decode_all(bytes).unwrap(),
        }
        out
    }

    fn round_trip(compression: Compression, plains: &[Vec<u8>]) {
        let mut codec = Codec::new(compression, None).unwrap();
        for plain in plains {
            let mut out = vec![9, 9];
            codec.compress(plain, &mut out).unwrap();
            assert_eq!(&out[..2], [9, 9]);
            assert!(
                decompress(codec.attributes(), &out[2..]) == *plain,
                "{compression:?}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_compressed_comes_back(
            noise in proptest::collection::vec(any::<u8>(), 0..2000), times in 0usize..200,
        ) {
            for compression in Compression::ALL {
                round_trip(compression, &[noise.clone(), noise.repeat(times), Vec::new()]);
            }
        }
    }

    #[test]
    fn noise_longer_than_a_block_comes_back() {
        let mut state = 1u64;
        let mut noise = Vec::new();
        while noise.len() < 200_001 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            noise.push((state >> 32) as u8);
        }
        for compression in Compression::ALL {
            round_trip(compression, &[noise.clone(), noise[..65_536].to_vec()]);
        }
    }
}
