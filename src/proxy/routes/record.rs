//! A message as a record: key, payload, and the headers that carry MQTT's own fields.
//!
//! Names and values that cannot change are encoded once: per proxy (QoS, retained and duplicate
//! have 16 forms together) and per connection (client id).

use bytes::BytesMut;

use crate::config::checked::HeaderNames;
use crate::proxy::packet::{Properties, Publish};
use crate::record::{self, Digits, Record, RecordWriter};

/// The header of a connection's client id, encoded; empty if it is left out.
#[derive(Clone, Debug, Default)]
pub struct ClientHeader(Box<[u8]>);

/// The proxy's header names, encoded as far as possible.
#[derive(Debug)]
pub struct HeaderTable {
    names: HeaderNames,
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
        let mut writer = RecordWriter::new(Some(key), Some(publish.payload));
        if !self.names.message_id.is_empty() {
            writer.header(self.names.message_id.as_bytes(), Some(id.text()));
        }
        writer.encoded_headers(self.flag_count, flags);
        if !self.names.topic.is_empty() {
            writer.header(self.names.topic.as_bytes(), Some(place.topic));
        }
        writer.encoded_headers(u32::from(!place.client.0.is_empty()), &place.client.0);
        writer.encoded_headers(place.headers.1, place.headers.0);
        if let Some(properties) = &publish.properties {
            self.properties(properties, &mut writer);
        }
        writer.finish(place.now_ms)
    }

    /// The headers that the v5 properties make.
    fn properties(&self, properties: &Properties, writer: &mut RecordWriter) {
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
                writer.header(name.as_bytes(), Some(value));
            }
        }
        if let Some(prefix) = &names.user_property_prefix {
            for (name, value) in &properties.user {
                let name = format!("{prefix}{name}");
                writer.header(name.as_bytes(), Some(value.as_bytes()));
            }
        }
    }
}
