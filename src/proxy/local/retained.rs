//! Retained messages: of each topic the last that was published so.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use tokio::time::Instant;

use super::message::Message;
use super::queue::{Room, Search};

/// Messages that one step of a search looks at, at most.
const STEP_VISITS: usize = 1_000;

/// What one step of a search has found.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order of their topics.
    pub messages: Vec<Arc<Message>>,
    /// Where the next step goes on; `None`: there is none.
    pub until: Option<Arc<[u8]>>,
}

/// The retained messages of a proxy.
#[derive(Debug)]
pub struct Retained {
    /// In the order of topics, so that a filter visits only those that begin as it does.
    all: BTreeMap<Arc<[u8]>, Arc<Message>>,
    by_expiry: BTreeSet<(Instant, Arc<[u8]>)>,
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
            by_expiry: BTreeSet::new(),
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
        self.remove(&message.topic);
        if message.payload.is_empty() {
            return true;
        }
        let bytes = message.bytes();
        if self.all.len() >= self.messages_max || self.bytes + bytes > self.bytes_max {
            return false;
        }
        self.bytes += bytes;
        if let Some(at) = message.expires {
            self.by_expiry.insert((at, Arc::clone(&message.topic)));
        }
        let topic = Arc::clone(&message.topic);
        self.all.insert(topic, Arc::clone(message));
        true
    }

    fn remove(&mut self, topic: &[u8]) {
        if let Some(old) = self.all.remove(topic) {
            self.bytes = self.bytes.saturating_sub(old.bytes());
            if let Some(at) = old.expires {
                self.by_expiry.remove(&(at, Arc::clone(&old.topic)));
            }
        }
    }

    /// Forgets what has expired. Returns the topics.
    pub fn expire(&mut self, now: Instant) -> Vec<Arc<[u8]>> {
        let mut expired = Vec::new();
        while let Some((_, topic)) = self.by_expiry.first().filter(|(at, _)| *at <= now) {
            let topic = Arc::clone(topic);
            self.remove(&topic);
            expired.push(topic);
        }
        expired
    }

    /// The next messages that match a filter.
    #[must_use]
    pub fn find(&self, search: &Search, room: Room, now: Instant) -> Found {
        let filter = &*search.filter;
        let mut found = Found::default();
        let Some(wild) = filter.find(['+', '#']) else {
            let message = self.all.get(filter.as_bytes());
            found
                .messages
                .extend(message.filter(|had| !had.is_expired(now)).cloned());
            return found;
        };
        // `a/#` matches `a` too.
        let literal = filter.get(..wild).unwrap_or_default();
        let prefix = literal.strip_suffix('/').unwrap_or(literal).as_bytes();
        let from = if search.after.is_empty() {
            Bound::Included(prefix)
        } else {
            Bound::Excluded(&*search.after)
        };
        let mut bytes = 0;
        let mut last = None;
        let range = self.all.range::<[u8], _>((from, Bound::Unbounded));
        for (visits, (topic, message)) in range.enumerate() {
            if !topic.starts_with(prefix) {
                return found;
            }
            let matches = !message.is_expired(now) && matches(filter, topic);
            let full = found.messages.len() >= room.messages
                || (bytes > 0 && bytes + message.bytes() > room.bytes);
            if visits >= STEP_VISITS || (matches && full) {
                found.until = last;
                return found;
            }
            if matches {
                bytes += message.bytes();
                found.messages.push(Arc::clone(message));
            }
            last = Some(Arc::clone(topic));
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
