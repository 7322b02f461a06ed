//! PUBLISH, borrowed from the read buffer.

use std::sync::Arc;

use mqtt_protocol_core::mqtt::packet::{Property, v5_0};

use super::control::bad;
use super::{Bad, Frame, Version};
use crate::mqtt_topic as topic;

/// A message as it stands in the buffer. Topic and properties are as sent: an empty topic means an
/// alias.
#[derive(Debug)]
pub struct Publish<'a> {
    /// The packet's first byte: DUP 8, QoS 6, RETAIN 1.
    pub flags: u8,
    /// Not checked, see [`crate::mqtt_topic`].
    pub topic: &'a [u8],
    /// Packet id; 0 for QoS 0.
    pub id: u16,
    /// v5 topic alias.
    pub alias: Option<u16>,
    /// v5 properties, if there are more than a topic alias.
    pub properties: Option<Box<Properties>>,
    /// The message.
    pub payload: &'a [u8],
}

/// The properties of a message: the first four become headers, all go to subscribers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// MIME type or the like.
    pub content_type: Option<String>,
    /// Topic for an answer.
    pub response_topic: Option<String>,
    /// What the answer must carry.
    pub correlation_data: Option<Vec<u8>>,
    /// In order, names may repeat.
    pub user: Vec<(String, String)>,
    /// 1: the payload is said to be UTF-8.
    pub payload_format: Option<u8>,
    /// Seconds after which the message is worth nothing to subscribers.
    pub expiry_s: Option<u32>,
}

impl Publish<'_> {
    /// 0, 1 or 2.
    #[inline]
    #[must_use]
    pub fn qos(&self) -> u8 {
        (self.flags >> 1) & 3
    }

    /// Whether the client marks it as sent before.
    #[inline]
    #[must_use]
    pub fn dup(&self) -> bool {
        self.flags & 8 != 0
    }
}

/// Decodes a PUBLISH. Inlined and without a borrow of what it makes, so that a message costs no
/// copies of the struct.
///
/// # Errors
/// [`Bad`] when the packet must end the connection.
#[inline]
pub fn publish<'a>(version: Version, frame: &Frame<'a>) -> Result<Publish<'a>, Bad> {
    let flags = frame.first & 0x0f;
    let qos = (flags >> 1) & 3;
    if qos == 3 || (qos == 0 && flags & 8 != 0) {
        return Err(Bad::malformed("PUBLISH flags"));
    }
    let cut = Bad::malformed("PUBLISH cut short");
    let (length, rest) = frame.body.split_first_chunk::<2>().ok_or(cut)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (topic, mut rest) = rest.split_at_checked(length).ok_or(cut)?;
    let mut id = 0;
    if qos > 0 {
        let (bytes, tail) = rest.split_first_chunk::<2>().ok_or(cut)?;
        id = u16::from_be_bytes(*bytes);
        rest = tail;
        if id == 0 {
            return Err(Bad::protocol("packet id 0"));
        }
    }
    let (alias, properties, payload) = match (version, rest) {
        (Version::V3, payload) | (Version::V5, [0, payload @ ..]) => (None, None, payload),
        (Version::V5, [3, 0x23, high, low, payload @ ..]) => {
            (Some(u16::from_be_bytes([*high, *low])), None, payload)
        }
        (Version::V5, _) => properties(frame, rest)?,
    };
    if version == Version::V5 && (alias == Some(0) || (topic.is_empty() && alias.is_none())) {
        return Err(Bad::protocol("neither topic nor alias"));
    }
    Ok(Publish {
        flags,
        topic,
        id,
        alias,
        properties,
        payload,
    })
}

/// Topic alias, other properties, and the payload.
type Parts<'a> = (Option<u16>, Option<Box<Properties>>, &'a [u8]);

/// Lets the library read the head of the packet: all but the payload, which need not be copied.
fn properties<'a>(frame: &Frame<'a>, rest: &[u8]) -> Result<Parts<'a>, Bad> {
    let cut = Bad::malformed("PUBLISH properties");
    let (length, bytes) = varint(rest).ok_or(cut)?;
    let end = bytes.checked_add(length).ok_or(cut)?;
    let payload_bytes = rest.len().checked_sub(end).ok_or(cut)?;
    let head = frame.body.len().checked_sub(payload_bytes).ok_or(cut)?;
    let (head, payload) = frame.body.split_at_checked(head).ok_or(cut)?;
    let (parsed, _) = v5_0::Publish::parse(frame.first & 0x0f, Arc::from(head)).map_err(bad)?;
    let mut alias = None;
    let mut properties = Properties::default();
    for property in parsed.props() {
        match property {
            Property::TopicAlias(it) => alias = Some(it.val()),
            Property::SubscriptionIdentifier(_) => {
                return Err(Bad::protocol("subscription identifier from a client"));
            }
            other => properties.take(other)?,
        }
    }
    Ok((alias, Some(Box::new(properties)), payload))
}

/// A variable byte integer and its bytes.
fn varint(data: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0usize;
    for at in 0..4usize {
        let byte = *data.get(at)?;
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some((value, at + 1));
        }
    }
    None
}

impl Properties {
    /// Memory they take, in bytes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let user: usize = self.user.iter().map(|(a, b)| 48 + a.len() + b.len()).sum();
        let data = self.correlation_data.as_ref().map_or(0, Vec::len);
        size_of::<Self>() + text(&self.content_type) + text(&self.response_topic) + data + user
    }

    /// Takes a property of a PUBLISH or a will; those that mean nothing here are passed over.
    pub(super) fn take(&mut self, property: &Property) -> Result<(), Bad> {
        match property {
            Property::ContentType(p) => self.content_type = Some(text(p.val())?),
            Property::ResponseTopic(p) => {
                if topic::name(p.val().as_bytes()).is_err() {
                    return Err(Bad::protocol("response topic"));
                }
                self.response_topic = Some(p.val().to_owned());
            }
            Property::CorrelationData(p) => self.correlation_data = Some(p.val().to_vec()),
            Property::UserProperty(p) => self.user.push((text(p.key())?, text(p.val())?)),
            Property::PayloadFormatIndicator(p) => {
                self.payload_format = Some(p.val());
            }
            Property::MessageExpiryInterval(p) => self.expiry_s = Some(p.val()),
            _ => {}
        }
        Ok(())
    }
}

/// A string, which in MQTT never holds U+0000.
fn text(text: &str) -> Result<String, Bad> {
    if topic::is_text(text) {
        Ok(text.to_owned())
    } else {
        Err(Bad::malformed("character not allowed in a string"))
    }
}
