//! Retained messages: of each topic the last that was published so. In memory only for now.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::message::Message;

/// The retained messages of a proxy.
#[derive(Debug)]
pub struct Retained {
    /// In the order of topics, so that a filter visits only those that begin as it does.
    all: BTreeMap<Box<[u8]>, Arc<Message>>,
    bytes: usize,
    messages_max: usize,
    bytes_max: usize,
}

impl Retained {
    /// None, and bounds.
    #[must_use]
    pub fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self {
            all: BTreeMap::new(),
            bytes: 0,
            messages_max,
            bytes_max,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Sets, or with an empty payload clears, the message of its topic. `false`: no room, and the
    /// one before is gone.
    pub fn set(&mut self, message: &Arc<Message>) -> bool {
        if let Some(old) = self.all.remove(&message.topic) {
            self.bytes = self.bytes.saturating_sub(old.bytes());
        }
        if message.payload.is_empty() {
            return true;
        }
        let bytes = message.bytes();
        if self.all.len() >= self.messages_max || self.bytes + bytes > self.bytes_max {
            return false;
        }
        self.bytes += bytes;
        self.all.insert(message.topic.clone(), Arc::clone(message));
        true
    }

    /// The messages that match a filter. Forgets what has expired among them.
    pub fn matching(&mut self, filter: &str, now: Instant) -> Vec<Arc<Message>> {
        let literal = filter
            .find(['+', '#'])
            .map_or(filter, |at| filter.get(..at).unwrap_or_default());
        // `a/#` matches `a` too.
        let prefix = literal.strip_suffix('/').unwrap_or(literal).as_bytes();
        let mut found = Vec::new();
        let mut expired = Vec::new();
        let from = (
            std::ops::Bound::Included(prefix),
            std::ops::Bound::Unbounded,
        );
        for (topic, message) in self.all.range::<[u8], _>(from) {
            if !topic.starts_with(prefix) {
                break;
            }
            if !matches(filter, topic) {
                continue;
            }
            if message.is_expired(now) {
                expired.push(Arc::clone(message));
            } else {
                found.push(Arc::clone(message));
            }
        }
        for message in expired {
            self.all.remove(&message.topic);
            self.bytes = self.bytes.saturating_sub(message.bytes());
        }
        found
    }
}

/// Whether a filter matches a topic (section 4.7).
#[must_use]
pub fn matches(filter: &str, topic: &[u8]) -> bool {
    if topic.first() == Some(&b'$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split(|byte| *byte == b'/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted.as_bytes() == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}
