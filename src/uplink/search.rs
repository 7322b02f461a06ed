//! Partitions without a leader: one request at a time asks about all topics that are due.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::Engine;
use super::error::SendError;
use super::pump::{Event, Pump, STALLED_AFTER};
use crate::spool::{StreamId, TopicPartition};

/// A topic some partition of which has no leader.
#[derive(Debug)]
struct Search {
    failures: u32,
    due: Instant,
    since: Instant,
    /// Since when the cluster answers, and knows of no leader.
    refused_since: Option<Instant>,
    /// Partition of each stream that waits for it.
    streams: HashMap<StreamId, i32>,
}

/// What is looked for.
#[derive(Debug, Default)]
pub(super) struct Searches {
    topics: HashMap<Arc<str>, Search>,
    /// A request is out.
    out: bool,
}

impl Searches {
    /// When somebody is to be asked again.
    pub(super) fn next_change(&self) -> Option<Instant> {
        let due = self.topics.values().map(|search| search.due);
        due.min().filter(|_| !self.out)
    }
}

impl<E: Engine> Pump<E> {
    /// Notes that a partition's leader must be looked for.
    pub(super) fn search(&mut self, to: &TopicPartition, stream: StreamId, now: Instant) {
        let search = self
            .searches
            .topics
            .entry(Arc::clone(&to.topic))
            .or_insert_with(|| Search {
                failures: 0,
                due: now,
                since: now,
                refused_since: None,
                streams: HashMap::new(),
            });
        search.streams.insert(stream, to.partition);
    }

    /// Looks for leaders, one request for all topics that are due.
    pub(super) fn find(&mut self, now: Instant) {
        if self.searches.out || self.searches.topics.is_empty() {
            return;
        }
        let due = self
            .searches
            .topics
            .iter()
            .filter(|(_, search)| search.due <= now);
        let topics: Vec<Arc<str>> = due.map(|(topic, _)| Arc::clone(topic)).collect();
        if topics.is_empty() {
            return;
        }
        self.searches.out = true;
        let engine = Arc::clone(&self.engine);
        self.tasks.spawn(async move {
            let result = engine.find(topics.clone()).await;
            Event::Found(topics, result)
        });
    }

    /// Some of them are known now, or not.
    pub(super) fn found(&mut self, topics: Vec<Arc<str>>, result: &Result<(), SendError>) {
        self.searches.out = false;
        let now = Instant::now();
        if let Err(error) = result {
            self.report
                .failed("cannot look for leaders", &error.cause());
        }
        let mut refused = Vec::new();
        for topic in topics {
            let Some(search) = self.searches.topics.get_mut(&topic) else {
                continue;
            };
            if result.is_ok() {
                search.refused_since.get_or_insert(now);
            } else {
                search.refused_since = None;
            }
            let long = now.duration_since(search.since) > STALLED_AFTER;
            search.streams.retain(|stream, partition| {
                let to = TopicPartition {
                    topic: Arc::clone(&topic),
                    partition: *partition,
                };
                let lost = self.engine.door(&to).is_none();
                if long && (!lost || result.is_ok()) {
                    self.outlet.stalled(*stream, lost);
                    if let Some(trouble) = self.troubles.get_mut(*stream) {
                        trouble.stalled = lost;
                    }
                }
                lost
            });
            let streams = search.streams.keys().copied();
            refused.extend(streams.map(|stream| (stream, search.refused_since)));
            search.failures = search.failures.saturating_add(1);
            search.due = now
                + self
                    .limits
                    .backoff
                    .wait(search.failures, self.random.draw());
            if search.streams.is_empty() {
                self.searches.topics.remove(&topic);
            }
        }
        for (stream, since) in refused {
            if self.gives_up(since) {
                let cause = "the topic does not exist, or its partition has no leader";
                self.outlet.dead_letter(stream, cause);
            }
        }
    }
}
