//! MQTT 3.1.1 and 5 packets: what a client sends, decoded; what we answer, encoded.
//!
//! The protocol layer is `mqtt-protocol-core`. What every message costs is done here by hand,
//! because the library copies each PUBLISH into a buffer of its own (85 ns against 14 ns,
//! `docs/mqtt-codec.md`): the fixed header, PUBLISH without properties or with nothing but a topic
//! alias, and acks of fixed form. All other packets go through the library; `connect` and
//! `control` add the checks that it leaves out.
//!
//! No function here panics on any bytes. Specifications:
//! <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html>,
//! <https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html>.

mod connect;
mod control;
mod encode;
mod frame;
mod publish;
#[cfg(test)]
mod tests;

pub use connect::{Connect, Password, Will, connect};
pub use control::{Filter, RetainHandling, Subscribe};
pub use encode::{
    Accepted, Telling, ack, answer, connack, connack_refused, disconnect, pingresp, put_varint,
    suback, unsuback, varint_bytes,
};
pub use frame::{Frame, frame};
pub use publish::{Properties, Publish, publish};

/// Reason codes of MQTT 5, section 2.4, as far as they are used here.
pub mod reason {
    #![allow(missing_docs, reason = "the names are the specification's")]
    pub const SUCCESS: u8 = 0x00;
    pub const DISCONNECT_WITH_WILL: u8 = 0x04;
    pub const NO_SUBSCRIPTION: u8 = 0x11;
    pub const UNSPECIFIED: u8 = 0x80;
    pub const MALFORMED: u8 = 0x81;
    pub const PROTOCOL_ERROR: u8 = 0x82;
    pub const IMPLEMENTATION: u8 = 0x83;
    pub const UNSUPPORTED_VERSION: u8 = 0x84;
    pub const CLIENT_ID: u8 = 0x85;
    pub const BAD_CREDENTIALS: u8 = 0x86;
    pub const NOT_AUTHORISED: u8 = 0x87;
    pub const SHUTTING_DOWN: u8 = 0x8b;
    pub const AUTH_METHOD: u8 = 0x8c;
    pub const KEEP_ALIVE: u8 = 0x8d;
    pub const TAKEN_OVER: u8 = 0x8e;
    pub const FILTER_INVALID: u8 = 0x8f;
    pub const TOPIC_INVALID: u8 = 0x90;
    pub const ID_NOT_FOUND: u8 = 0x92;
    pub const RECEIVE_MAXIMUM: u8 = 0x93;
    pub const ALIAS_INVALID: u8 = 0x94;
    pub const TOO_LARGE: u8 = 0x95;
    pub const QUOTA: u8 = 0x97;
    pub const ADMINISTRATIVE: u8 = 0x98;
    pub const PAYLOAD_FORMAT: u8 = 0x99;
}

/// Which protocol a connection speaks. MQTT 3.1 is handled as 3.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1 (and 3.1)
    V3,
    /// 5
    V5,
}

/// Why a packet ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} (reason 0x{reason:02x})")]
pub struct Bad {
    /// Reason code for a v5 DISCONNECT or CONNACK; 0: the connection is closed without a word.
    pub reason: u8,
    /// For the log.
    pub what: &'static str,
}

impl Bad {
    pub(crate) const fn malformed(what: &'static str) -> Self {
        Self {
            reason: reason::MALFORMED,
            what,
        }
    }

    pub(crate) const fn unsaid(what: &'static str) -> Self {
        Self {
            reason: reason::SUCCESS,
            what,
        }
    }

    pub(crate) const fn protocol(what: &'static str) -> Self {
        Self {
            reason: reason::PROTOCOL_ERROR,
            what,
        }
    }
}

/// The four acknowledgements; the number is the packet's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ack {
    /// QoS 1
    Puback = 4,
    /// QoS 2, first answer
    Pubrec = 5,
    /// QoS 2, release
    Pubrel = 6,
    /// QoS 2, end
    Pubcomp = 7,
}

/// A packet that a client may send after its CONNECT, but for PUBLISH: see [`publish()`].
#[derive(Debug)]
pub enum Packet {
    /// An acknowledgement of a packet id, and its reason code.
    Ack(Ack, u16, u8),
    /// Its filters are valid.
    Subscribe(Subscribe),
    /// Packet id and valid filters.
    Unsubscribe(u16, Vec<String>),
    /// PINGREQ
    Ping,
    /// Reason code, and the session expiry it sets, in seconds.
    Disconnect(u8, Option<u32>),
}

/// Decodes what follows the CONNECT and is no PUBLISH.
///
/// # Errors
/// [`Bad`] when the packet must end the connection.
pub fn decode(version: Version, frame: &Frame<'_>) -> Result<Packet, Bad> {
    match frame.first >> 4 {
        4 => control::ack(version, Ack::Puback, frame.body),
        5 => control::ack(version, Ack::Pubrec, frame.body),
        6 => control::ack(version, Ack::Pubrel, frame.body),
        7 => control::ack(version, Ack::Pubcomp, frame.body),
        8 => control::subscribe(version, frame.body),
        10 => control::unsubscribe(version, frame.body),
        12 => control::ping(frame.body),
        14 => control::disconnect(version, frame.body),
        1 => Err(Bad::protocol("second CONNECT")),
        15 if version == Version::V5 => Err(control::auth(frame.body)),
        _ => Err(Bad::protocol("packet type not allowed")),
    }
}
