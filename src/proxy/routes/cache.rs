//! MQTT topics seen before, and where they go.
//!
//! # Bounds
//! [`ENTRIES_MAX`] topics of [`TOPIC_CACHED_MAX`] bytes at most; when full it is emptied, for a
//! gateway that sees more topics than that has no steady set of them. Kafka topics are never
//! forgotten by the spool, so captured names may make at most [`KAFKA_TOPICS_MAX`] of them;
//! messages for more are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use bytes::BytesMut;
use hashbrown::{HashMap, HashSet};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::Routes;
use crate::record;
use crate::spool::{Intake, TopicId};

/// Most MQTT topics remembered.
pub const ENTRIES_MAX: usize = 16_384;
/// Longest MQTT topic remembered, in bytes.
pub const TOPIC_CACHED_MAX: usize = 512;
/// Most Kafka topics that the routes of one proxy may name.
pub const KAFKA_TOPICS_MAX: usize = 16_384;

/// Where the messages of one MQTT topic go.
#[derive(Debug)]
pub enum Target {
    /// To a Kafka topic.
    Topic {
        /// The spool's name for it.
        id: TopicId,
        /// `None`: the MQTT topic.
        key: Option<Box<[u8]>>,
        /// The route's headers, encoded.
        headers: Box<[u8]>,
        /// Their number.
        header_count: u32,
        /// Largest record.
        limit: Limit,
    },
    /// Nowhere: no route takes them.
    NoRoute,
    /// Nowhere: there are `KAFKA_TOPICS_MAX` Kafka topics already.
    TooManyTopics,
}

/// The largest record of a Kafka topic, asked of the spool once a second at most.
#[derive(Debug, Default)]
pub struct Limit {
    bytes: AtomicUsize,
    second: AtomicI64,
}

impl Limit {
    /// The limit in bytes, at a time in milliseconds.
    #[inline]
    pub fn bytes(&self, intake: &dyn Intake, topic: TopicId, now_ms: i64) -> usize {
        let second = now_ms / 1000;
        if self.second.load(Ordering::Relaxed) != second {
            self.bytes
                .store(intake.record_bytes_max(topic), Ordering::Relaxed);
            self.second.store(second, Ordering::Relaxed);
        }
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The memory that [`Router::seen`] gives to look into.
pub type Seen = HashMap<Box<[u8]>, Arc<Target>>;

/// Routes, and what they have led to so far.
#[derive(Debug)]
pub struct Router {
    routes: Routes,
    intake: Arc<dyn Intake>,
    seen: RwLock<Seen>,
    kafka_topics: Mutex<HashSet<String>>,
}

impl Router {
    /// A router that has seen nothing.
    #[must_use]
    pub fn new(routes: Routes, intake: Arc<dyn Intake>) -> Self {
        Self {
            routes,
            intake,
            seen: RwLock::default(),
            kafka_topics: Mutex::default(),
        }
    }

    /// The topics seen before; hold it for a batch, not longer.
    pub fn seen(&self) -> RwLockReadGuard<'_, Seen> {
        self.seen.read()
    }

    /// Routes a valid topic that is not among those seen, and remembers it. The caller must not
    /// hold what [`Router::seen`] gave.
    #[must_use]
    pub fn learn(&self, topic: &str) -> Arc<Target> {
        let target = Arc::new(self.resolve(topic));
        if topic.len() <= TOPIC_CACHED_MAX {
            let mut seen = self.seen.write();
            if seen.len() >= ENTRIES_MAX {
                seen.clear();
            }
            seen.insert(topic.as_bytes().into(), Arc::clone(&target));
        }
        target
    }

    fn resolve(&self, topic: &str) -> Target {
        let Some(to) = self.routes.destination(topic) else {
            return Target::NoRoute;
        };
        {
            let mut known = self.kafka_topics.lock();
            if !known.contains(&to.topic) {
                if known.len() >= KAFKA_TOPICS_MAX {
                    return Target::TooManyTopics;
                }
                known.insert(to.topic.clone());
            }
        }
        let mut headers = BytesMut::new();
        let mut header_count = 0;
        for (name, value) in &to.headers {
            record::put(&mut headers, Some(name.as_bytes()));
            record::put(&mut headers, Some(value.as_bytes()));
            header_count += 1;
        }
        Target::Topic {
            id: self.intake.topic(&to.topic, &to.options),
            key: to.key.map(|key| key.into_bytes().into_boxed_slice()),
            headers: headers.as_ref().into(),
            header_count,
            limit: Limit::default(),
        }
    }
}
