//! Variable-length integers as Kafka (and Protocol Buffers) write them: 7 bits a byte, least first.
//! Signed ones are zigzag encoded.

use bytes::BufMut;

/// Appends an unsigned integer, 1 to 10 bytes.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low seven bits are what is written"
)]
pub fn write(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Appends a signed integer, zigzag encoded.
#[inline]
pub fn write_signed(out: &mut impl BufMut, value: i64) {
    write(out, zigzag(value));
}

/// Reads an unsigned integer and moves `rest` behind it; `None` when it is cut or longer than 10
/// bytes.
#[inline]
pub fn read(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Reads a zigzag encoded integer.
#[inline]
pub fn read_signed(rest: &mut &[u8]) -> Option<i64> {
    let value = read(rest)?;
    Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
}

/// Bytes that [`write()`] takes for `value`.
#[inline]
#[must_use]
pub fn len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Bytes that [`write_signed`] takes for `value`.
#[inline]
#[must_use]
pub fn len_signed(value: i64) -> usize {
    len(zigzag(value))
}

#[inline]
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_integer_survives(value: i64, other: u64) {
            let mut out = Vec::new();
            write_signed(&mut out, value);
            prop_assert_eq!(out.len(), len_signed(value));
            write(&mut out, other);
            let mut rest = &out[..];
            prop_assert_eq!(read_signed(&mut rest), Some(value));
            prop_assert_eq!(read(&mut rest), Some(other));
            prop_assert!(rest.is_empty());
        }
    }
}
