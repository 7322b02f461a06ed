//! A message on its way to subscribers: one copy, shared by all of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::proxy::packet::{Properties, Publish};

/// Memory that a message takes beside its topic and payload, in bytes, about.
const OVERHEAD: usize = 256;

/// What was published.
#[derive(Debug)]
pub struct Message {
    /// Its whole topic.
    pub topic: Arc<[u8]>,
    /// What it says.
    pub payload: Box<[u8]>,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether it is to be retained.
    pub retain: bool,
    /// v5 properties.
    pub properties: Option<Box<Properties>>,
    /// When it is worth nothing any more.
    pub expires: Option<Instant>,
    /// Client id of its publisher.
    pub from: Arc<str>,
}

impl Message {
    /// A copy of a PUBLISH to the topic `name`.
    #[must_use]
    pub fn new(publish: &Publish<'_>, name: &[u8], from: &Arc<str>, now: Instant) -> Self {
        let properties = publish.properties.as_deref();
        let expiry = properties.and_then(|properties| properties.expiry_s);
        Self {
            topic: name.into(),
            payload: publish.payload.into(),
            qos: publish.qos(),
            retain: publish.flags & 1 != 0,
            expires: expiry.and_then(|s| now.checked_add(Duration::from_secs(s.into()))),
            properties: publish.properties.clone(),
            from: Arc::clone(from),
        }
    }

    /// Memory it takes, in bytes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let properties = self.properties.as_deref().map_or(0, Properties::bytes);
        OVERHEAD + self.topic.len() + self.payload.len() + properties
    }

    /// Whether its time has passed.
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// Seconds it has left, if it expires.
    #[must_use]
    pub fn expiry_s(&self, now: Instant) -> Option<u32> {
        let left = self.expires?.saturating_duration_since(now);
        // A second that has begun counts, so that a copy sent at once has all its time.
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        Some(u32::try_from(seconds).unwrap_or(u32::MAX))
    }
}
