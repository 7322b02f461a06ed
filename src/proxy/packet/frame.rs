//! The fixed header: type and flags, then the length of the rest in one to four bytes.

use super::{Bad, reason};

/// A whole packet in a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Type in the upper four bits, flags in the lower.
    pub first: u8,
    /// What follows the fixed header.
    pub body: &'a [u8],
    /// Bytes of the whole packet.
    pub length: usize,
}

impl Frame<'_> {
    /// Whether it is a PUBLISH.
    #[inline]
    #[must_use]
    pub fn is_publish(&self) -> bool {
        self.first >> 4 == 3
    }
}

/// The packet at the beginning of `data`; `None` while it is not all there. Type, flags and length
/// are judged as soon as they have arrived, but the flags of a CONNECT with its protocol's name.
///
/// # Errors
/// [`Bad`] when no client may send this, or the packet is larger than `max` bytes.
#[inline]
pub fn frame(data: &[u8], max: usize) -> Result<Option<Frame<'_>>, Bad> {
    let Some((&first, rest)) = data.split_first() else {
        return Ok(None);
    };
    if !matches!(first >> 4, 1 | 3) {
        flags(first)?;
    }
    let mut length = 0usize;
    for at in 0..4usize {
        let Some(&byte) = rest.get(at) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            let whole = 2 + at + length;
            if whole > max {
                return Err(Bad {
                    reason: reason::TOO_LARGE,
                    what: "packet too large",
                });
            }
            let Some(body) = data.get(2 + at..whole) else {
                return Ok(None);
            };
            // MQTT 3.1 does not say what the flags of a CONNECT are.
            if first >> 4 == 1 && !body.starts_with(b"\0\x06MQIsdp") {
                flags(first)?;
            }
            return Ok(Some(Frame {
                first,
                body,
                length: whole,
            }));
        }
    }
    Err(Bad::malformed("remaining length of more than four bytes"))
}

/// Flags of a type are fixed, but for PUBLISH; some types only a server sends.
fn flags(first: u8) -> Result<(), Bad> {
    let wanted = match first >> 4 {
        6 | 8 | 10 => 2,
        _ => 0,
    };
    match first >> 4 {
        0 => Err(Bad::protocol("packet type 0")),
        _ if first & 0x0f != wanted => Err(Bad::malformed("reserved flags")),
        2 | 9 | 11 | 13 => Err(Bad::protocol("packet type not allowed")),
        _ => Ok(()),
    }
}
