//! Each record once, without transactions (DESIGN.md 2.2).
//!
//! The broker remembers, per partition, a producer's epoch and last sequence. A record's sequence
//! follows from its number in the stream, so what is in Kafka can be asked after any crash, and
//! what is sent twice is recognised. `place` holds the decision, `identity` the names that runs
//! send under, `send` the way out, `resume` the questions.

mod identity;
pub mod place;
mod resume;
mod send;

use std::sync::Arc;

use parking_lot::Mutex;

use super::error::{Cause, SendError, of_call};
use super::{Batch, Door, Engine, Guarantee, Reply, Stand, flatten};
use crate::config::checked::Kafka;
use crate::kafka::Compression;
use crate::kafka::batch::Encoder;
use crate::kafka::client::{Client, NodeId, Road};
use crate::metrics::Metrics;
use crate::spool::{Identity, Leftover, Outlet, Run, StreamId, TopicPartition};
use identity::{Identities, Next};

/// What the engine takes from the config.
#[derive(Clone, Debug)]
pub struct Settings {
    compression: Compression,
    /// The gateway's id where records carry provenance headers.
    provenance: Option<String>,
}

impl Settings {
    /// From `[kafka]` and `gateway.id`.
    #[must_use]
    pub fn new(config: &Kafka, gateway_id: &str) -> Self {
        Self {
            compression: config.compression,
            provenance: config.provenance.then(|| gateway_id.to_owned()),
        }
    }
}

/// The engine.
#[derive(Debug)]
pub struct ExactlyOnce {
    client: Client,
    settings: Settings,
    outlet: Arc<dyn Outlet>,
    metrics: Arc<Metrics>,
    identities: Mutex<Identities>,
    /// One caller at a time asks for a producer id.
    asking: tokio::sync::Mutex<()>,
    /// Encoders that are not in use; as many as there were requests encoded at once.
    encoders: Mutex<Vec<Encoder>>,
}

impl ExactlyOnce {
    /// An engine that has not done anything yet.
    #[must_use]
    pub fn new(
        client: Client,
        settings: Settings,
        outlet: Arc<dyn Outlet>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            client,
            settings,
            outlet,
            metrics,
            identities: Mutex::new(Identities::default()),
            asking: tokio::sync::Mutex::new(()),
            encoders: Mutex::new(Vec::new()),
        }
    }

    /// The next identity, with a new producer id if there must be one.
    async fn next_identity(
        &self,
        choose: impl Fn(&mut Identities) -> Next,
    ) -> Result<Identity, SendError> {
        let _one = self.asking.lock().await;
        for _ in 0..2 {
            let next = choose(&mut self.identities.lock());
            if let Next::Use(identity) = next {
                return Ok(identity);
            }
            let (id, epoch) = self
                .client
                .init_producer_id()
                .await
                .map_err(|e| of_call(&e))?;
            self.identities.lock().new_id(id, epoch);
            tracing::info!(producer_id = id, epoch, "new producer id");
        }
        Err(SendError::Retry(Cause::text("no producer id to be had")))
    }

    /// Stores a run's identity; blocks on the disk, elsewhere.
    async fn identify(&self, run: Run, identity: Identity) -> Result<(), SendError> {
        let outlet = Arc::clone(&self.outlet);
        let stored = identity.clone();
        let result = tokio::task::spawn_blocking(move || outlet.identify(run, stored)).await;
        flatten(result)?;
        tracing::info!(
            %run,
            producer_id = identity.producer_id,
            epoch = identity.epoch,
            "run has its identity"
        );
        self.identities.lock().stored(run, identity);
        Ok(())
    }
}

/// A broker's door.
fn node(door: Door) -> NodeId {
    NodeId(i32::try_from(door.0).unwrap_or(-1))
}

impl Engine for ExactlyOnce {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn start(&self) -> Result<(), SendError> {
        let cluster_id = self.client.cluster_id().await.map_err(|e| of_call(&e))?;
        let known = self.outlet.identities();
        let current = self.outlet.current_run();
        let needing = self.identities.lock().learn(&cluster_id, &known, current);
        for run in needing {
            let identity = self.next_identity(Identities::next).await?;
            self.identify(run, identity).await?;
        }
        Ok(())
    }

    fn door(&self, to: &TopicPartition) -> Option<Door> {
        self.client
            .leader(&to.topic, to.partition)
            .map(|(node, _)| Door(i64::from(node.0)))
    }

    async fn find(&self, topics: Vec<Arc<str>>) -> Result<(), SendError> {
        let found = self.client.topics(&topics, true).await;
        found.map(|_| ()).map_err(|e| of_call(&e))
    }

    async fn send(&self, door: Door, road: Road, batches: Vec<Batch>) -> Reply {
        self.send_to(node(door), road, batches).await
    }

    async fn ask(&self, door: Door, batches: Vec<Batch>) -> Vec<(Batch, Result<Stand, SendError>)> {
        self.where_batches(node(door), batches).await
    }

    async fn resume(
        &self,
        door: Door,
        leftovers: Vec<Leftover>,
    ) -> Vec<(Leftover, Result<Stand, SendError>)> {
        self.where_leftovers(node(door), leftovers).await
    }

    async fn rebase(
        &self,
        stream: StreamId,
        at: (Run, u64),
        fenced: Option<Run>,
    ) -> Result<(), SendError> {
        let (run, from) = at;
        if let Some(sent_as) = fenced {
            let mut identities = self.identities.lock();
            if let Some(id) = identities.of(sent_as).map(|identity| identity.producer_id) {
                identities.fence(id);
            }
        }
        let identity = self.next_identity(|all| all.next_for(stream)).await?;
        let outlet = Arc::clone(&self.outlet);
        let stored = identity.clone();
        let result =
            tokio::task::spawn_blocking(move || outlet.rebase(stream, run, from, stored)).await;
        let new_run = flatten(result)?;
        self.identities.lock().stored(new_run, identity);
        Ok(())
    }

    async fn close(&self) {
        self.client.close().await;
    }
}
