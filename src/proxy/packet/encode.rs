//! What the server sends. Packets of fixed form are written by hand, the rest by the library.

use mqtt_protocol_core::mqtt::packet::{
    AssignedClientIdentifier, MaximumPacketSize, Properties, Property, ReceiveMaximum,
    SessionExpiryInterval, TopicAliasMaximum, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, MqttError};

use super::{Ack, Version, reason};

/// What a CONNACK tells a client that may come in.
#[derive(Clone, Debug)]
pub struct Accepted<'a> {
    /// Whether there is state of an earlier connection.
    pub session_present: bool,
    /// v5: most unacknowledged messages.
    pub receive_maximum: u16,
    /// v5: largest packet.
    pub packet_bytes_max: u32,
    /// v5: highest topic alias.
    pub topic_alias_max: u16,
    /// v5: the id, if the client brought none.
    pub assigned_id: Option<&'a str>,
    /// v5: seconds, if they differ from what the client asked for.
    pub session_expiry: Option<u32>,
}

/// Appends PUBACK, PUBREC, PUBREL or PUBCOMP. A reason other than success is told in v5 only.
#[inline]
pub fn ack(out: &mut Vec<u8>, version: Version, kind: Ack, id: u16, reason: u8) {
    let first = match kind {
        Ack::Puback => 0x40,
        Ack::Pubrec => 0x50,
        Ack::Pubrel => 0x62,
        Ack::Pubcomp => 0x70,
    };
    let [high, low] = id.to_be_bytes();
    if version == Version::V5 && reason != reason::SUCCESS {
        out.extend_from_slice(&[first, 3, high, low, reason]);
    } else {
        out.extend_from_slice(&[first, 2, high, low]);
    }
}

/// Appends PINGRESP.
pub fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xd0, 0]);
}

/// Appends a v5 DISCONNECT; 3.1.1 has none from the server.
pub fn disconnect(out: &mut Vec<u8>, version: Version, reason: u8) {
    if version == Version::V5 {
        out.extend_from_slice(&[0xe0, 1, reason]);
    }
}

/// Appends a CONNACK that lets the client in.
///
/// # Errors
/// The library's, if a value cannot be said in MQTT.
pub fn connack(
    out: &mut Vec<u8>,
    version: Version,
    accepted: &Accepted<'_>,
) -> Result<(), MqttError> {
    if version == Version::V3 {
        out.extend_from_slice(&[0x20, 2, u8::from(accepted.session_present), 0]);
        return Ok(());
    }
    let mut properties = Properties::new();
    if let Some(seconds) = accepted.session_expiry {
        properties.push(Property::SessionExpiryInterval(SessionExpiryInterval::new(
            seconds,
        )?));
    }
    let aliases = TopicAliasMaximum::new(accepted.topic_alias_max)?;
    properties.push(Property::TopicAliasMaximum(aliases));
    let largest = MaximumPacketSize::new(accepted.packet_bytes_max)?;
    properties.push(Property::MaximumPacketSize(largest));
    let receive_maximum = ReceiveMaximum::new(accepted.receive_maximum)?;
    properties.push(Property::ReceiveMaximum(receive_maximum));
    if let Some(id) = accepted.assigned_id {
        properties.push(Property::AssignedClientIdentifier(
            AssignedClientIdentifier::new(id)?,
        ));
    }
    let packet = v5_0::Connack::builder()
        .session_present(accepted.session_present)
        .reason_code(ConnectReasonCode::Success)
        .props(properties)
        .build()?;
    out.extend_from_slice(&packet.to_continuous_buffer());
    Ok(())
}

/// Appends a CONNACK that refuses. 3.1.1 has five codes of its own; what they cannot say is only a
/// closed connection, as section 3.2.2.3 demands. A version that is neither is told in version 5's
/// words.
pub fn connack_refused(out: &mut Vec<u8>, version: Version, reason: u8) {
    if version == Version::V5 {
        out.extend_from_slice(&[0x20, 3, 0, reason, 0]);
        return;
    }
    let code = match reason {
        reason::UNSUPPORTED_VERSION => 1,
        reason::CLIENT_ID => 2,
        reason::QUOTA | reason::SHUTTING_DOWN => 3,
        reason::BAD_CREDENTIALS => 4,
        reason::NOT_AUTHORISED => 5,
        _ => return,
    };
    out.extend_from_slice(&[0x20, 2, 0, code]);
}

/// Appends a SUBACK with a reason code for each filter; 3.1.1 knows of failures only that they are.
pub fn suback(out: &mut Vec<u8>, version: Version, id: u16, codes: &[u8]) {
    let v3 = |code: &u8| {
        if *code < reason::UNSPECIFIED {
            *code
        } else {
            reason::UNSPECIFIED
        }
    };
    out.push(0x90);
    match version {
        Version::V3 => {
            put_varint(out, 2 + codes.len());
            out.extend_from_slice(&id.to_be_bytes());
            out.extend(codes.iter().map(v3));
        }
        Version::V5 => {
            put_varint(out, 3 + codes.len());
            out.extend_from_slice(&id.to_be_bytes());
            out.push(0);
            out.extend_from_slice(codes);
        }
    }
}

/// Appends an UNSUBACK; v5 has a reason code for each filter.
pub fn unsuback(out: &mut Vec<u8>, version: Version, id: u16, codes: &[u8]) {
    out.push(0xb0);
    let codes = match version {
        Version::V3 => None,
        Version::V5 => Some(codes),
    };
    put_varint(out, 2 + codes.map_or(0, |codes| 1 + codes.len()));
    out.extend_from_slice(&id.to_be_bytes());
    if let Some(codes) = codes {
        out.push(0);
        out.extend_from_slice(codes);
    }
}

/// Bytes of a variable byte integer.
#[must_use]
pub fn varint_bytes(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Appends a variable byte integer (section 1.5.5).
pub fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}
