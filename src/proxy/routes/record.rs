//! A message as a record: key, payload, and the headers that carry MQTT's own fields.
//!
//! Names and values that cannot change are encoded once: per proxy (QoS, retained and duplicate
//! have 16 forms together) and per connection (client id). A record's size is computed first, so
//! that its body is allocated once and exactly.

use bytes::BytesMut;

use crate::config::checked::HeaderNames;
use crate::proxy::packet::{Properties, Publish};
use crate::record::{self, Digits, Record, RecordWriter, varint};

/// The header of a connection's client id, encoded; empty if it is left out.
#[derive(Clone, Debug, Default)]
pub struct ClientHeader(Box<[u8]>);

/// The proxy's header names, encoded as far as possible.
#[derive(Debug)]
pub struct HeaderTable {
    names: HeaderNames,
    /// Name of the message id's header.
    message_id: Option<Box<[u8]>>,
    /// Name of the topic's header.
    topic: Option<Box<[u8]>>,
    /// QoS, retained and duplicate for each value of PUBLISH's flags.
    flags: [Box<[u8]>; 16],
    flag_count: u32,
}

/// What makes a record, besides the message.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The MQTT topic, valid.
    pub topic: &'a [u8],
    /// `None`: the MQTT topic.
    pub key: Option<&'a [u8]>,
    /// The route's headers, encoded, and their number.
    pub headers: (&'a [u8], u32),
    /// Who sent it.
    pub client: &'a ClientHeader,
    /// When, milliseconds since 1970.
    pub now_ms: i64,
}

fn encoded(name: &str) -> Option<Box<[u8]>> {
    (!name.is_empty()).then(|| {
        let mut out = BytesMut::new();
        record::put(&mut out, Some(name.as_bytes()));
        out.as_ref().into()
    })
}

/// Bytes that `bytes` take with their length before them.
fn size(bytes: &[u8]) -> usize {
    varint::len_signed(i64::try_from(bytes.len()).unwrap_or(i64::MAX)) + bytes.len()
}

impl HeaderTable {
    /// Encodes what can be.
    #[must_use]
    pub fn new(names: &HeaderNames) -> Self {
        let texts = |name: &str, value: &str, out: &mut BytesMut, count: &mut u32| {
            if !name.is_empty() {
                record::put(out, Some(name.as_bytes()));
                record::put(out, Some(value.as_bytes()));
                *count += 1;
            }
        };
        let mut flag_count = 0;
        let flags = std::array::from_fn(|flags| {
            let mut out = BytesMut::new();
            flag_count = 0;
            let qos = ["0", "1", "2", "3"]
                .get(flags >> 1 & 3)
                .copied()
                .unwrap_or("0");
            let yes = |bit: usize| if flags & bit == 0 { "false" } else { "true" };
            texts(&names.qos, qos, &mut out, &mut flag_count);
            texts(&names.retained, yes(1), &mut out, &mut flag_count);
            texts(&names.duplicate, yes(8), &mut out, &mut flag_count);
            out.as_ref().into()
        });
        Self {
            message_id: encoded(&names.message_id),
            topic: encoded(&names.topic),
            flags,
            flag_count,
            names: names.clone(),
        }
    }

    /// The header of one client's id.
    #[must_use]
    pub fn client(&self, client_id: &str) -> ClientHeader {
        if self.names.client_id.is_empty() {
            return ClientHeader::default();
        }
        let mut out = BytesMut::new();
        record::put(&mut out, Some(self.names.client_id.as_bytes()));
        record::put(&mut out, Some(client_id.as_bytes()));
        ClientHeader(out.as_ref().into())
    }

    /// The record of a message.
    #[must_use]
    pub fn record(&self, publish: &Publish<'_>, place: &Place<'_>) -> Record {
        let key = place.key.unwrap_or(place.topic);
        let id = Digits::new(publish.id.into());
        let flags = self
            .flags
            .get(usize::from(publish.flags & 0x0f))
            .map_or(&[][..], |flags| flags);
        let mut capacity = size(key)
            + size(publish.payload)
            + flags.len()
            + place.headers.0.len()
            + place.client.0.len();
        if let Some(name) = &self.message_id {
            capacity += name.len() + size(id.text());
        }
        if let Some(name) = &self.topic {
            capacity += name.len() + size(place.topic);
        }
        if let Some(properties) = &publish.properties {
            self.each(properties, |name, value| {
                capacity += size(name) + size(value)
            });
        }
        let mut writer = RecordWriter::new(capacity, Some(key), Some(publish.payload));
        if !self.names.message_id.is_empty() {
            writer.header(self.names.message_id.as_bytes(), Some(id.text()));
        }
        writer.encoded_headers(self.flag_count, flags);
        if self.topic.is_some() {
            writer.header(self.names.topic.as_bytes(), Some(place.topic));
        }
        writer.encoded_headers(u32::from(!place.client.0.is_empty()), &place.client.0);
        writer.encoded_headers(place.headers.1, place.headers.0);
        if let Some(properties) = &publish.properties {
            self.each(properties, |name, value| writer.header(name, Some(value)));
        }
        writer.finish(place.now_ms)
    }

    /// Calls `put` for each header that the v5 properties make.
    fn each(&self, properties: &Properties, mut put: impl FnMut(&[u8], &[u8])) {
        let names = &self.names;
        let fields = [
            (
                &names.content_type,
                properties.content_type.as_deref().map(str::as_bytes),
            ),
            (
                &names.response_topic,
                properties.response_topic.as_deref().map(str::as_bytes),
            ),
            (
                &names.correlation_data,
                properties.correlation_data.as_deref(),
            ),
        ];
        for (name, value) in fields {
            if let (false, Some(value)) = (name.is_empty(), value) {
                put(name.as_bytes(), value);
            }
        }
        if let Some(prefix) = &names.user_property_prefix {
            for (name, value) in &properties.user {
                put(format!("{prefix}{name}").as_bytes(), value.as_bytes());
            }
        }
    }
}
