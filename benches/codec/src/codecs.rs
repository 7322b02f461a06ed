//! The candidates behind one question: is this the packet of a client?

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::BytesMut;
use mqtt_protocol_core::mqtt::packet::{v3_1_1 as v3, v5_0 as v5};
use rumqttd::protocol::Protocol as _;
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::v5::V5;

/// Largest packet that MQTT has.
const PACKET_BYTES_MAX: usize = 1 << 28;

/// Which version a packet is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1
    V3,
    /// 5
    V5,
}

/// A candidate.
#[derive(Clone, Copy, Debug)]
pub enum Codec {
    /// `mqtt-protocol-core`.
    Core,
    /// rumqttd's, behind the guards that it needs: the fixed header is judged before it sees any of
    /// the packet, and types that only a server sends are refused.
    Rumqttd,
    /// rumqttd's as it is.
    RumqttdBare,
}

impl Codec {
    /// All, in the order of the report.
    pub const ALL: [Self; 3] = [Self::Core, Self::Rumqttd, Self::RumqttdBare];

    /// How the report calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Core => "mqtt-protocol-core",
            Self::Rumqttd => "rumqttd, guarded",
            Self::RumqttdBare => "rumqttd, bare",
        }
    }

    /// Whether `bytes` begin with a packet that a client may send; `None` when it panicked.
    pub fn accepts(self, version: Version, bytes: &[u8]) -> Option<bool> {
        let ask = || match self {
            Self::RumqttdBare => rumqttd(version, bytes),
            _ => frame(bytes).is_some_and(|frame| match self {
                Self::Core => core(version, &frame),
                _ => !matches!(frame.first >> 4, 11 | 13 | 15) && rumqttd(version, frame.whole),
            }),
        };
        catch_unwind(AssertUnwindSafe(ask)).ok()
    }
}

/// A packet behind its fixed header, whose flags are right.
pub struct Frame<'a> {
    /// Type and flags.
    pub first: u8,
    /// What follows the fixed header.
    pub body: &'a [u8],
    /// Both.
    pub whole: &'a [u8],
}

/// The packet at the beginning of `bytes`, if it is all there.
#[inline]
pub fn frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let first = *bytes.first()?;
    let wanted = match first >> 4 {
        0 | 2 | 9 => return None,
        3 => first & 0x0f,
        6 | 8 | 10 => 2,
        _ => 0,
    };
    let mut length = 0;
    for at in 0..4 {
        let byte = *bytes.get(1 + at)?;
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            let whole = bytes.get(..2 + at + length)?;
            let body = whole.get(2 + at..)?;
            return (first & 0x0f == wanted).then_some(Frame { first, body, whole });
        }
    }
    None
}

/// `mqtt-protocol-core` has a parser for each type, which tells how far it read.
fn core(version: Version, frame: &Frame<'_>) -> bool {
    let Frame { first, body, .. } = *frame;
    macro_rules! all_read {
        ($parsed:expr) => {
            $parsed.is_ok_and(|(_, read)| read == body.len())
        };
    }
    match (version, first >> 4) {
        (Version::V5, 1) => all_read!(v5::Connect::parse(body)),
        (Version::V5, 3) => all_read!(v5::Publish::parse(first & 0x0f, Arc::from(body))),
        (Version::V5, 4) => all_read!(v5::Puback::parse(body)),
        (Version::V5, 5) => all_read!(v5::Pubrec::parse(body)),
        (Version::V5, 6) => all_read!(v5::Pubrel::parse(body)),
        (Version::V5, 7) => all_read!(v5::Pubcomp::parse(body)),
        (Version::V5, 8) => all_read!(v5::Subscribe::parse(body)),
        (Version::V5, 10) => all_read!(v5::Unsubscribe::parse(body)),
        (Version::V5, 12) => all_read!(v5::Pingreq::parse(body)),
        (Version::V5, 14) => all_read!(v5::Disconnect::parse(body)),
        (Version::V5, 15) => all_read!(v5::Auth::parse(body)),
        (Version::V3, 1) => all_read!(v3::Connect::parse(body)),
        (Version::V3, 3) => all_read!(v3::Publish::parse(first & 0x0f, Arc::from(body))),
        (Version::V3, 4) => all_read!(v3::Puback::parse(body)),
        (Version::V3, 5) => all_read!(v3::Pubrec::parse(body)),
        (Version::V3, 6) => all_read!(v3::Pubrel::parse(body)),
        (Version::V3, 7) => all_read!(v3::Pubcomp::parse(body)),
        (Version::V3, 8) => all_read!(v3::Subscribe::parse(body)),
        (Version::V3, 10) => all_read!(v3::Unsubscribe::parse(body)),
        (Version::V3, 12) => all_read!(v3::Pingreq::parse(body)),
        (Version::V3, 14) => all_read!(v3::Disconnect::parse(body)),
        _ => false,
    }
}

fn rumqttd(version: Version, bytes: &[u8]) -> bool {
    let mut stream = BytesMut::from(bytes);
    match version {
        Version::V3 => V4.read_mut(&mut stream, PACKET_BYTES_MAX).is_ok(),
        Version::V5 => V5.read_mut(&mut stream, PACKET_BYTES_MAX).is_ok(),
    }
}
