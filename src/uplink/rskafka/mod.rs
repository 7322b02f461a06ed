//! Each record at least once, by the crate `rskafka`: for services that refuse idempotent
//! producers.
//!
//! Kafka does not recognise what it gets twice here. So whatever may have been appended and goes
//! again is counted as *maybe twice*: a batch whose answer did not come, and what an earlier run
//! left if it ever sent anything. Nothing is lost and, one batch a partition being out, nothing
//! overtakes.
//!
//! `connections` holds rskafka's clients and what is known of their traps, `convert` makes its
//! records.
//!
//! # Invariants
//! - rskafka never tries anything again by itself: each try is ours, and counted.
//! - A run whose records went out this way has an identity without a producer id, stored before the
//!   first of them: the other engine then knows that Kafka cannot be asked about it.

mod connections;
mod convert;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::error::{Cause, SendError, of_call};
use super::{Batch, Door, Engine, Guarantee, Reply, Sent, Stand, flatten};
use crate::config::checked::Kafka;
use crate::kafka::client::{Client, Road};
use crate::metrics::{Counter, Histogram, Metrics};
use crate::spool::{Identity, Leftover, Outlet, Run, StreamId, TopicPartition};
use connections::Connections;

/// Produce requests out at once: each has its own connection, and its records in memory twice.
const OUT_MAX: usize = 64;

/// The engine. `client` finds leaders: rskafka has a topic made by asking for it.
#[derive(Debug)]
pub struct AtLeastOnce {
    client: Client,
    connections: Connections,
    /// The gateway's id where records carry provenance headers.
    provenance: Option<String>,
    outlet: Arc<dyn Outlet>,
    metrics: Arc<Metrics>,
    out: Semaphore,
    /// Runs that had sent nothing when this process first reached the cluster.
    fresh: Mutex<HashSet<Run>>,
}

impl AtLeastOnce {
    /// An engine that has not done anything yet.
    #[must_use]
    pub fn new(
        client: Client,
        config: &Kafka,
        gateway_id: &str,
        outlet: Arc<dyn Outlet>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            client,
            connections: Connections::new(config),
            provenance: config.provenance.then(|| gateway_id.to_owned()),
            outlet,
            metrics,
            out: Semaphore::new(OUT_MAX),
            fresh: Mutex::default(),
        }
    }

    async fn send_one(&self, batch: &Batch) -> Result<Sent, Failure> {
        let to = &batch.taken.to;
        let records = convert::records(&batch.taken, self.provenance.as_deref()).map_err(|e| {
            Failure::of_batch(SendError::Rejected(Cause::text(e.to_string()), Vec::new()))
        })?;
        let offsets = self.connections.produce(to, records).await?;
        Ok(Sent::Appended {
            base_offset: offsets.first().copied(),
        })
    }

    fn count(&self, batch: &Batch, took: Duration) {
        let size = u64::try_from(batch.size()).unwrap_or(0);
        self.metrics.add(Counter::ProduceRequests, 1);
        self.metrics.add(Counter::Batches, 1);
        self.metrics
            .add(Counter::BatchesRepeated, u64::from(batch.tries > 1));
        self.metrics.add(Counter::ProduceBytes, size);
        self.metrics.observe(Histogram::ProduceSeconds, took, 1);
    }
}

/// Why a batch was not acknowledged.
#[derive(Debug)]
struct Failure {
    error: SendError,
    /// Whether that says something of the connection, not of the batch.
    away: bool,
}

impl Failure {
    fn of_batch(error: SendError) -> Self {
        Self { error, away: false }
    }

    fn away(error: SendError) -> Self {
        Self { error, away: true }
    }
}

/// What a run has that sends without a producer id.
fn no_producer(cluster_id: String) -> Identity {
    Identity {
        producer_id: Identity::NO_PRODUCER_ID,
        epoch: -1,
        cluster_id,
    }
}

impl Engine for AtLeastOnce {
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn start(&self) -> Result<(), SendError> {
        let cluster_id = self.client.cluster_id().await.map_err(|e| of_call(&e))?;
        let current = self.outlet.current_run();
        for (run, identity) in self.outlet.identities() {
            if identity.is_some() || run > current {
                continue;
            }
            let (outlet, identity) = (Arc::clone(&self.outlet), no_producer(cluster_id.clone()));
            let stored = tokio::task::spawn_blocking(move || outlet.identify(run, identity));
            flatten(stored.await)?;
            self.fresh.lock().insert(run);
        }
        Ok(())
    }

    /// Each partition has its own: a connection of rskafka's serves one partition.
    fn door(&self, to: &TopicPartition) -> Option<Door> {
        self.client.leader(&to.topic, to.partition)?;
        let mut hasher = DefaultHasher::new();
        to.hash(&mut hasher);
        Some(Door(hasher.finish().cast_signed()))
    }

    async fn find(&self, topics: Vec<Arc<str>>) -> Result<(), SendError> {
        let found = self.client.topics(&topics, true).await;
        found.map(|_| ()).map_err(|e| of_call(&e))
    }

    async fn send(&self, _: Door, _: Road, batches: Vec<Batch>) -> Reply {
        let mut reply = Reply {
            answers: Vec::with_capacity(batches.len()),
            throttle: Duration::ZERO,
            took: Duration::ZERO,
            away: None,
        };
        for mut batch in batches {
            // What an earlier try may have left in Kafka is counted by now.
            batch.doubtful = false;
            batch.tries = batch.tries.saturating_add(1);
            let permit = self.out.acquire().await;
            let start = Instant::now();
            let result = self.send_one(&batch).await;
            drop(permit);
            reply.took = reply.took.max(start.elapsed());
            self.count(&batch, start.elapsed());
            let result = result.map_err(|failure| {
                let to = &batch.taken.to;
                self.client.forget_leader(&to.topic, to.partition);
                if failure.away {
                    reply.away = Some(failure.error.cause());
                }
                failure.error
            });
            reply.answers.push((batch, result));
        }
        reply
    }

    async fn ask(&self, _: Door, batches: Vec<Batch>) -> Vec<(Batch, Result<Stand, SendError>)> {
        let unknown = |batch| (batch, Ok(Stand::Unknown));
        batches.into_iter().map(unknown).collect()
    }

    async fn resume(
        &self,
        _: Door,
        leftovers: Vec<Leftover>,
    ) -> Vec<(Leftover, Result<Stand, SendError>)> {
        let known: Vec<_> = self.outlet.identities();
        let producer = |run| {
            let of_run = known.iter().find(|(known, _)| *known == run);
            of_run.and_then(|(_, identity)| Some(identity.as_ref()?.producer_id))
        };
        let answers = leftovers.into_iter().map(|leftover| {
            let stand = if self.fresh.lock().contains(&leftover.sent_as) {
                Stand::There {
                    records: 0,
                    proven: false,
                    offset: None,
                }
            } else if producer(leftover.sent_as) == Some(Identity::NO_PRODUCER_ID) {
                Stand::Unknown
            } else {
                Stand::Unidentified
            };
            (leftover, Ok(stand))
        });
        answers.collect()
    }

    async fn rebase(
        &self,
        stream: StreamId,
        (run, from): (Run, u64),
        _: Option<Run>,
    ) -> Result<(), SendError> {
        let cluster_id = self.client.known_cluster_id();
        let identity = no_producer(cluster_id.map(|id| id.to_string()).unwrap_or_default());
        let outlet = Arc::clone(&self.outlet);
        let stored =
            tokio::task::spawn_blocking(move || outlet.rebase(stream, run, from, identity));
        flatten(stored.await).map(|_| ())
    }

    async fn close(&self) {
        self.client.close().await;
    }
}
