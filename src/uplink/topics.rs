//! What the spool must know of topics: partition counts and size limits; missing topics are made or
//! reported, and promises weaker than an owner would think are warned of, once a topic.
//!
//! A task of its own, so that a slow answer about one topic delays no record. Facts go to the spool
//! as soon as the metadata is there; the configs, which may be denied to us, follow.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::{Backoff, Random};
use crate::config::checked::{Kafka, TopicCreation};
use crate::kafka::client::{Client, CreateOutcome, Error, TopicLimits, TopicMetadata};
use crate::spool::outlet::TopicFacts;
use crate::spool::{Outlet, TopicId};

use super::error::{Cause, TOPIC_AUTHORIZATION_FAILED, is_denied};

/// How often the partition counts of known topics are asked again: they may grow.
const REFRESH_EVERY: Duration = Duration::from_mins(5);
/// Topics in one request.
const ASK_MAX: usize = 500;
/// Least time between two reports of a topic that is not there.
const REPORT_EVERY: Duration = Duration::from_mins(10);
/// Longest wait for a turn: unknown topics are looked for at least as often.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// A topic that forgets faster than this is warned of.
const RETENTION_LEAST_MS: i64 = 3_600_000;
/// Timestamps that are refused although they are younger than this, or less ahead, are warned of.
/// Kafka's own defaults are for ever and an hour.
const TIMESTAMP_BEFORE_LEAST_MS: i64 = 86_400_000;
const TIMESTAMP_AFTER_LEAST_MS: i64 = 3_600_000;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

#[derive(Debug)]
struct Known {
    id: TopicId,
    partitions: u32,
    limits: Option<TopicLimits>,
}

#[derive(Debug, Default)]
struct Missing {
    failures: u32,
    due: Option<Instant>,
    /// Since when Kafka answers, and says so.
    since: Option<Instant>,
    /// When, and for which cause.
    reported: Option<(Instant, Cause)>,
}

/// The watcher of topics.
pub(super) struct Topics {
    client: Client,
    outlet: Arc<dyn Outlet>,
    creation: Option<TopicCreation>,
    /// When records of a topic that is not there go to the dead letter topic.
    dead_letter_after: Option<Duration>,
    backoff: Backoff,
    random: Random,
    known: HashMap<Arc<str>, Known>,
    missing: HashMap<Arc<str>, Missing>,
    refresh_due: Instant,
    /// No broker answered: failures in a row, and when to ask again.
    away: (u32, Option<Instant>),
}

impl Topics {
    pub(super) fn new(
        client: Client,
        outlet: Arc<dyn Outlet>,
        config: &Kafka,
        backoff: Backoff,
    ) -> Self {
        Self {
            client,
            outlet,
            creation: config.topic_creation.clone(),
            dead_letter_after: config.dead_letter_after,
            backoff,
            random: Random::new(),
            known: HashMap::new(),
            missing: HashMap::new(),
            refresh_due: Instant::now() + REFRESH_EVERY,
            away: (0, None),
        }
    }

    /// Runs until `shutdown`.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let outlet = Arc::clone(&self.outlet);
        loop {
            let now = Instant::now();
            let turn = shutdown.run_until_cancelled(self.turn(now)).await;
            if turn.is_none() {
                return;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = outlet.topics_changed().notified() => {}
                () = tokio::time::sleep_until(self.wake_at(now)) => {}
            }
        }
    }

    /// When the next turn begins, after one that began at `then`.
    fn wake_at(&self, then: Instant) -> Instant {
        let missing = self.missing.values().filter_map(|missing| missing.due);
        let due = missing.chain(self.away.1).filter(|due| *due > then).min();
        let latest = Instant::now() + SLEEP_MAX;
        due.map_or(latest, |due| due.min(latest))
    }

    async fn turn(&mut self, now: Instant) {
        if self.away.1.is_some_and(|due| due > now) {
            return;
        }
        let mut wanted: Vec<(TopicId, Arc<str>)> = self.outlet.unknown_topics();
        wanted.retain(|(_, name)| {
            let missing = self.missing.get(name).and_then(|missing| missing.due);
            missing.is_none_or(|due| due <= now)
        });
        if self.refresh_due <= now {
            self.refresh_due = now + REFRESH_EVERY;
            let known = self.known.iter();
            wanted.extend(known.map(|(name, known)| (known.id, Arc::clone(name))));
        }
        for chunk in wanted.chunks(ASK_MAX) {
            let names: Vec<Arc<str>> = chunk.iter().map(|(_, name)| Arc::clone(name)).collect();
            match self.client.topics(&names, true).await {
                Ok(answers) => {
                    self.away = (0, None);
                    self.answers(chunk, answers).await;
                }
                Err(_) => {
                    // The pump reports that Kafka is away.
                    let failures = self.away.0.saturating_add(1);
                    let wait = self.backoff.wait(failures, self.random.draw());
                    self.away = (failures, Some(Instant::now() + wait));
                    for missing in self.missing.values_mut() {
                        missing.since = None;
                    }
                    return;
                }
            }
        }
        self.read_limits().await;
    }

    async fn answers(&mut self, asked: &[(TopicId, Arc<str>)], answers: Vec<TopicMetadata>) {
        for ((id, name), metadata) in asked.iter().zip(answers) {
            if metadata.code == 0 && !metadata.leaders.is_empty() {
                self.learn(*id, name, metadata.leaders.len());
            } else {
                self.absent(*id, name, metadata.code).await;
            }
        }
    }

    fn learn(&mut self, id: TopicId, name: &Arc<str>, partitions: usize) {
        self.missing.remove(name);
        let partitions = u32::try_from(partitions).unwrap_or(u32::MAX);
        let known = self.known.entry(Arc::clone(name)).or_insert(Known {
            id,
            partitions,
            limits: None,
        });
        known.id = id;
        known.partitions = partitions;
        let message_bytes_max = known.limits.and_then(|limits| limits.message_bytes_max);
        let facts = TopicFacts {
            partitions,
            message_bytes_max,
            timestamp_before_max_ms: known.limits.and_then(|it| it.timestamp_before_max_ms),
        };
        self.outlet.topic_facts(id, facts);
    }

    /// Makes the topic if that is wanted; else reports it, seldom.
    async fn absent(&mut self, id: TopicId, name: &Arc<str>, code: i16) {
        // Who may not describe a topic is not told whether it is there.
        let denied = code == TOPIC_AUTHORIZATION_FAILED;
        let words = denied.then_some("no right to DESCRIBE it, which WRITE brings along");
        let mut cause = Cause::code(code, words);
        if code == UNKNOWN_TOPIC_OR_PARTITION
            && let Some(creation) = &self.creation
        {
            let made = self.client.create_topic(
                name,
                creation.partitions,
                creation.replication_factor,
                &creation.configs,
            );
            match made.await {
                Ok(outcome) => {
                    if outcome == CreateOutcome::Created {
                        tracing::info!(topic = %name, "topic created");
                    }
                    // Its leaders show up in the metadata a moment later.
                    cause = Cause::text("just created");
                }
                Err(Error::Code { code, .. }) if is_denied(code) => {
                    cause = Cause::code(code, Some("no right to CREATE it"));
                }
                Err(error) => cause = Cause::text(format!("cannot be created: {error}")),
            }
        }
        let missing = self.missing.entry(Arc::clone(name)).or_default();
        missing.failures = missing.failures.saturating_add(1);
        let now = Instant::now();
        missing.due = Some(now + self.backoff.wait(missing.failures, self.random.draw()));
        let since = *missing.since.get_or_insert(now);
        if self
            .dead_letter_after
            .is_some_and(|after| now - since >= after)
        {
            self.outlet.dead_letter_unknown(id, &cause.to_string());
        }
        let reported = missing.reported.as_ref();
        let said = reported.is_some_and(|(at, of)| *of == cause && now - *at < REPORT_EVERY);
        if cause.text != "just created" && !said {
            missing.reported = Some((now, cause.clone()));
            let what = if denied {
                "topic may not be used"
            } else {
                "topic is not there"
            };
            tracing::warn!(topic = %name, %cause, "{what}; its records wait in the spool");
        }
    }

    /// Reads the configs of topics that are new to us.
    async fn read_limits(&mut self) {
        let fresh = self
            .known
            .iter()
            .filter(|(_, known)| known.limits.is_none());
        let names: Vec<Arc<str>> = fresh.map(|(name, _)| Arc::clone(name)).collect();
        let mut weak: BTreeMap<String, (usize, Arc<str>)> = BTreeMap::new();
        for name in names {
            // A failure is as good as "not allowed": it is not tried again in this process.
            let limits = self.client.topic_limits(&name).await.unwrap_or_default();
            for weakness in weaknesses(&limits) {
                weak.entry(weakness)
                    .or_insert_with(|| (0, Arc::clone(&name)))
                    .0 += 1;
            }
            if let Some(known) = self.known.get_mut(&name) {
                known.limits = Some(limits);
                if limits.message_bytes_max.is_some() || limits.timestamp_before_max_ms.is_some() {
                    let facts = TopicFacts {
                        partitions: known.partitions,
                        message_bytes_max: limits.message_bytes_max,
                        timestamp_before_max_ms: limits.timestamp_before_max_ms,
                    };
                    self.outlet.topic_facts(known.id, facts);
                }
            }
        }
        for (weakness, (topics, example)) in weak {
            tracing::warn!(topics, %example, "{weakness}");
        }
    }
}

/// Where a topic's configs make a promise weaker than its owner would think.
fn weaknesses(limits: &TopicLimits) -> Vec<String> {
    let mut found = Vec::new();
    if limits
        .min_insync_replicas
        .is_some_and(|replicas| replicas < 2)
    {
        found.push(
            "min.insync.replicas is 1: a record may be confirmed by one broker alone and lost \
             with it"
                .to_owned(),
        );
    }
    if let Some(ms) = limits.retention_ms
        && (0..RETENTION_LEAST_MS).contains(&ms)
    {
        found.push(format!(
            "retention.ms is {ms}: records may be deleted before anyone reads them"
        ));
    }
    if let Some(ms) = limits.timestamp_before_max_ms
        && (0..TIMESTAMP_BEFORE_LEAST_MS).contains(&ms)
    {
        found.push(format!(
            "message.timestamp.before.max.ms is {ms}: records that wait longer are rejected"
        ));
    }
    if let Some(ms) = limits.timestamp_after_max_ms
        && (0..TIMESTAMP_AFTER_LEAST_MS).contains(&ms)
    {
        found.push(format!(
            "message.timestamp.after.max.ms is {ms}: records of a clock that is ahead are rejected"
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_promises_are_named_and_strong_or_unknown_ones_are_not() {
        assert!(weaknesses(&TopicLimits::default()).is_empty());
        let strong = TopicLimits {
            message_bytes_max: Some(1 << 20),
            min_insync_replicas: Some(2),
            retention_ms: Some(-1),
            timestamp_before_max_ms: Some(i64::MAX),
            timestamp_after_max_ms: Some(i64::MAX),
        };
        assert!(weaknesses(&strong).is_empty());
        let weak = TopicLimits {
            min_insync_replicas: Some(1),
            retention_ms: Some(60_000),
            timestamp_before_max_ms: Some(3_600_000),
            timestamp_after_max_ms: Some(60_000),
            ..strong
        };
        assert_eq!(weaknesses(&weak).len(), 4);
    }
}
