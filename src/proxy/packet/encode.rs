//! What the server sends. Packets of fixed form are written by hand, the rest by the library.

use mqtt_protocol_core::mqtt::packet::{
    AssignedClientIdentifier, MaximumPacketSize, Properties, Property, ReceiveMaximum,
    SessionExpiryInterval, TopicAliasMaximum, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, MqttError};

use super::{Ack, Bad, Version, reason};

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

/// How much a client is told: in MQTT 5 a reason code, and to who asks for it by a request problem
/// information of 1 also a reason string, if that makes no packet larger than it takes. (By default
/// the property is 1; but few clients show such strings to anybody, and small ones pay for them.)
#[derive(Clone, Copy, Debug)]
pub struct Telling {
    /// What the client speaks.
    pub version: Version,
    /// Whether it asks for strings.
    pub strings: bool,
    /// Largest packet it takes, in bytes.
    pub packet_bytes_max: usize,
}

impl Telling {
    /// Of a client of which nothing else is known.
    #[must_use]
    pub fn codes(version: Version) -> Self {
        Self {
            version,
            strings: false,
            packet_bytes_max: usize::MAX,
        }
    }

    /// Appends a v5 packet that ends with a reason code: `first`, its length, `head`, the code, and
    /// properties where `always` or where there is a string.
    fn packet(
        self,
        out: &mut Vec<u8>,
        (first, head): (u8, &[u8]),
        (reason, why): (u8, &str),
        always: bool,
    ) {
        /// Of a property's id and of its length.
        const STRING_HEAD: usize = 3;
        let room = self.packet_bytes_max.saturating_sub(head.len() + 10);
        let length = u16::try_from(why.len()).ok().filter(|_| self.strings);
        out.push(first);
        match length.filter(|length| *length > 0 && usize::from(*length) <= room) {
            Some(length) => {
                let properties = STRING_HEAD + why.len();
                let before = varint_bytes(properties);
                put_varint(out, head.len() + 1 + before + properties);
                out.extend_from_slice(head);
                out.push(reason);
                put_varint(out, properties);
                out.push(0x1f);
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(why.as_bytes());
            }
            None => {
                put_varint(out, head.len() + 1 + usize::from(always));
                out.extend_from_slice(head);
                out.push(reason);
                out.extend_from_slice(if always { &[0] } else { &[] });
            }
        }
    }
}

/// What a refused PUBLISH is told beside its reason code.
fn why_refused(reason: u8) -> &'static str {
    match reason {
        reason::NOT_AUTHORISED => "no right to publish to this topic, or no route for it",
        reason::TOO_LARGE => "larger than Kafka takes",
        reason::QUOTA => "too many topics",
        _ => "",
    }
}

/// Appends the PUBACK or PUBREC of a client's message, with what a refusal has to say.
pub fn answer(out: &mut Vec<u8>, telling: Telling, kind: Ack, id: u16, reason: u8) {
    if telling.version == Version::V5 && reason >= reason::UNSPECIFIED {
        let first = if kind == Ack::Puback { 0x40 } else { 0x50 };
        let why = (reason, why_refused(reason));
        telling.packet(out, (first, &id.to_be_bytes()), why, false);
    } else {
        ack(out, telling.version, kind, id, reason);
    }
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
pub fn disconnect(out: &mut Vec<u8>, telling: Telling, (reason, why): (u8, &str)) {
    if telling.version == Version::V5 {
        telling.packet(out, (0xe0, &[]), (reason, why), false);
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
pub fn connack_refused(out: &mut Vec<u8>, telling: Telling, bad: Bad) {
    if bad.reason == reason::SUCCESS {
        return;
    }
    if telling.version == Version::V5 {
        telling.packet(out, (0x20, &[0]), (bad.reason, bad.what), true);
        return;
    }
    let code = match bad.reason {
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
