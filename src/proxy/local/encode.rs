//! PUBLISH from the server, written by hand as its counterpart is read.

use tokio::time::Instant;

use super::message::Message;
use super::queue::Grant;
use crate::proxy::packet::{Properties, Version, put_varint, varint_bytes};

/// One subscriber's copy of a message.
#[derive(Debug)]
pub struct Delivery<'a> {
    /// What was published.
    pub message: &'a Message,
    /// What the subscription makes of it.
    pub grant: &'a Grant,
    /// Packet id; of no meaning at QoS 0.
    pub id: u16,
    /// Whether it was sent before.
    pub again: bool,
}

/// Appends a PUBLISH; `false`, and nothing is appended, when it has more than `bytes_max` bytes.
pub fn publish(
    out: &mut Vec<u8>,
    version: Version,
    copy: &Delivery<'_>,
    (bytes_max, now): (usize, Instant),
) -> bool {
    let (message, grant) = (copy.message, copy.grant);
    let mut properties = Vec::new();
    let mut length = 2 + message.topic.len() + message.payload.len();
    if grant.qos > 0 {
        length += 2;
    }
    if version == Version::V5 {
        put_properties(&mut properties, copy, now);
        length += varint_bytes(properties.len()) + properties.len();
    }
    if 1 + varint_bytes(length) + length > bytes_max.min(PACKET_BYTES_MAX) {
        return false;
    }
    let flags = grant.qos << 1 | u8::from(grant.retain) | if copy.again { 8 } else { 0 };
    out.push(0x30 | flags);
    put_varint(out, length);
    put_data(out, &message.topic);
    if grant.qos > 0 {
        out.extend_from_slice(&copy.id.to_be_bytes());
    }
    if version == Version::V5 {
        put_varint(out, properties.len());
        out.extend_from_slice(&properties);
    }
    out.extend_from_slice(&message.payload);
    true
}

/// The largest packet that MQTT can say (section 2.1.4).
const PACKET_BYTES_MAX: usize = 268_435_455 + 5;

fn put_properties(out: &mut Vec<u8>, copy: &Delivery<'_>, now: Instant) {
    let message = copy.message;
    let none = Properties::default();
    let properties = message.properties.as_deref().unwrap_or(&none);
    if let Some(format) = properties.payload_format {
        out.extend_from_slice(&[0x01, format]);
    }
    if let Some(seconds) = message.expiry_s(now) {
        out.push(0x02);
        out.extend_from_slice(&seconds.to_be_bytes());
    }
    let fields = [
        (0x03, properties.content_type.as_deref().map(str::as_bytes)),
        (
            0x08,
            properties.response_topic.as_deref().map(str::as_bytes),
        ),
        (0x09, properties.correlation_data.as_deref()),
    ];
    for (kind, value) in fields {
        if let Some(value) = value {
            out.push(kind);
            put_data(out, value);
        }
    }
    for (name, value) in &properties.user {
        out.push(0x26);
        put_data(out, name.as_bytes());
        put_data(out, value.as_bytes());
    }
    for identifier in &copy.grant.identifiers {
        out.push(0x0b);
        put_varint(out, usize::try_from(*identifier).unwrap_or_default());
    }
}

/// A string or binary data; none that came in a packet is longer than two bytes can say.
fn put_data(out: &mut Vec<u8>, data: &[u8]) {
    let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(data.get(..usize::from(length)).unwrap_or_default());
}
