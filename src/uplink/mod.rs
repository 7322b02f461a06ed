//! From the spool to Kafka.
//!
//! * `pump` is the one task: it takes records from the spool, hands them to an engine, and acts on
//!   each answer. What it knows of streams that are not well is in `trouble`, of brokers in
//!   `doors`.
//! * `search` looks for leaders that are not known.
//! * `topics` finds out about topics, makes missing ones if it may, and warns of weak promises.
//! * An [`Engine`] sends: [`exactly_once`] is ours, `rskafka` (a cargo feature) sends at least
//!   once.
//!
//! # Invariants
//! - One batch of a stream is out at a time; a batch of unknown fate keeps its bytes until its fate
//!   is known.
//! - Nothing waits for a broker but the requests to that broker, and each of those has a deadline.
//! - What is held is bounded: a few requests a broker, and the batches of unknown fate that these
//!   leave.

pub mod error;
pub mod exactly_once;

mod doors;
mod pump;
mod reply;
mod resume;
#[cfg(feature = "rskafka")]
mod rskafka;
mod search;
mod topics;
mod trouble;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[cfg(feature = "rskafka")]
use crate::config::checked::Delivery;
use crate::config::checked::Kafka;
use crate::kafka::client::{Client, ClientConfig, Road};
use crate::metrics::Metrics;
use crate::spool::{Leftover, Outlet, Run, StreamId, Taken, TopicPartition};
use error::{Cause, SendError};
use exactly_once::ExactlyOnce;

/// What an engine can promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// Each record is there, some perhaps twice.
    AtLeastOnce,
    /// Each record is there once.
    ExactlyOnce,
}

/// Where an engine's batches queue up: a broker's id, or whatever else can be away by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Door(pub i64);

/// Records of one stream that are sent as one Kafka batch.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The records, all or a piece of what the spool handed out.
    pub taken: Taken,
    /// What was made of them, kept from the first try on: unknown fate means the same bytes again.
    pub encoded: Option<Bytes>,
    /// Whether an earlier try may have been appended.
    pub doubtful: bool,
    /// Tries so far.
    pub tries: u32,
    /// Kafka offset behind the last record of the stream that was acknowledged; a search starts
    /// there.
    pub offset: Option<i64>,
}

impl Batch {
    /// A batch that was never tried.
    #[must_use]
    pub fn new(taken: Taken, offset: Option<i64>) -> Self {
        Self {
            taken,
            encoded: None,
            doubtful: false,
            tries: 0,
            offset,
        }
    }

    /// Bytes of its records, as every bound counts them.
    #[must_use]
    pub fn size(&self) -> usize {
        size(&self.taken)
    }
}

/// Bytes of taken records.
fn size(taken: &Taken) -> usize {
    taken.records.iter().map(crate::record::Record::size).sum()
}

/// A batch is in Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Appended, by this try or (for all the answer says) an earlier one.
    Appended {
        /// Offset of its first record, if it was told.
        base_offset: Option<i64>,
    },
    /// An earlier try had appended it (46).
    AlreadyThere,
}

/// Where the records of a batch or a leftover stand in Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// This many from the first on are in the log, and no more.
    There {
        /// How many.
        records: u64,
        /// Whether they were read below the high watermark: no leader can lose them any more.
        proven: bool,
        /// Offset behind the last of them, if it is known.
        offset: Option<i64>,
    },
    /// The broker has forgotten us and the log could not be searched to its end: all may be there
    /// or none.
    Unknown,
    /// The log has lost records before the first that it had confirmed.
    Behind {
        /// How many.
        lost: u64,
    },
    /// The identity cannot be used: there is none, or it is another cluster's. Nothing is in this
    /// cluster.
    NoIdentity,
    /// Sent without a producer id, or to be from now on: all may be there or none, and the stream
    /// goes on under another identity.
    Unidentified,
    /// Someone else writes under our identity with a higher epoch; the batch itself is not there,
    /// as far as can be known.
    Fenced,
    /// We may not ask: one record a batch tells (DESIGN.md 2.2 rule 5).
    Blind,
}

/// What came back for one [`Engine::send`].
#[derive(Debug)]
pub struct Reply {
    /// Each batch and what became of it.
    pub answers: Vec<(Batch, Result<Sent, SendError>)>,
    /// How long the broker wants to be left alone.
    pub throttle: Duration,
    /// From the request's first byte to here.
    pub took: Duration,
    /// Why the broker as a whole did not answer.
    pub away: Option<Cause>,
}

/// A way to send. All calls return within a deadline of their own.
pub trait Engine: Send + Sync + 'static {
    /// What it promises.
    fn guarantee(&self) -> Guarantee;

    /// Reaches the cluster and makes sure that every run has an identity; may be called again.
    fn start(&self) -> impl Future<Output = Result<(), SendError>> + Send;

    /// Whether a connection to the cluster is open; no I/O.
    fn connected(&self) -> bool;

    /// Where batches for a partition go, as last heard; no I/O.
    fn door(&self, to: &TopicPartition) -> Option<Door>;

    /// Finds out about the leaders of topics: afterwards [`Engine::door`] may know more.
    fn find(&self, topics: Vec<Arc<str>>) -> impl Future<Output = Result<(), SendError>> + Send;

    /// Sends batches of different streams and answers each by itself.
    fn send(
        &self,
        door: Door,
        road: Road,
        batches: Vec<Batch>,
    ) -> impl Future<Output = Reply> + Send;

    /// Where batches of unknown fate stand.
    fn ask(
        &self,
        door: Door,
        batches: Vec<Batch>,
    ) -> impl Future<Output = Vec<(Batch, Result<Stand, SendError>)>> + Send;

    /// Where the records of older runs stand.
    fn resume(
        &self,
        door: Door,
        leftovers: Vec<Leftover>,
    ) -> impl Future<Output = Vec<(Leftover, Result<Stand, SendError>)>> + Send;

    /// Gives a stream a new identity from a record (run and number) on, stored in the spool.
    /// `fenced`: a new producer id too, for another holds the one of that run.
    fn rebase(
        &self,
        stream: StreamId,
        at: (Run, u64),
        fenced: Option<Run>,
    ) -> impl Future<Output = Result<(), SendError>> + Send;

    /// Closes connections.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// Starts the uplink. It never waits for Kafka; it ends when `shutdown` is cancelled and what was
/// out has been answered, or `request_timeout` has passed.
pub fn spawn(
    config: &Kafka,
    gateway_id: &str,
    outlet: Arc<dyn Outlet>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> JoinHandle<()> {
    let client = client(config);
    let limits = pump::Limits::new(config);
    let (to, told) = (Arc::clone(&outlet), Arc::clone(&metrics));
    let topics = topics::Topics::new(client.clone(), Arc::clone(&outlet), config, limits.backoff)
        .run(shutdown.clone());
    match config.delivery {
        #[cfg(feature = "rskafka")]
        Delivery::AtLeastOnce => {
            let engine = rskafka::AtLeastOnce::new(client, config, gateway_id, to, told);
            let pump = pump::Pump::new(Arc::new(engine), outlet, metrics, limits);
            run(pump, topics, shutdown)
        }
        // Without the feature the config is refused.
        _ => {
            let settings = exactly_once::Settings::new(config, gateway_id);
            let engine = ExactlyOnce::new(client, settings, to, told);
            let pump = pump::Pump::new(Arc::new(engine), outlet, metrics, limits);
            run(pump, topics, shutdown)
        }
    }
}

fn run<E: Engine>(
    pump: pump::Pump<E>,
    topics: impl Future<Output = ()> + Send + 'static,
    shutdown: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let topics = tokio::spawn(topics);
        pump.run(shutdown).await;
        if let Err(error) = topics.await {
            tracing::error!(%error, "topic watcher ended badly");
        }
    })
}

/// A client of the configured cluster, for a tool that reads from it; no I/O.
#[must_use]
pub fn client(config: &Kafka) -> Client {
    Client::new(client_config(config))
}

fn client_config(config: &Kafka) -> ClientConfig {
    ClientConfig {
        bootstrap_servers: config.bootstrap_servers.clone(),
        client_id: config.client_id.clone(),
        connect_timeout: config.connect_timeout,
        request_timeout: config.request_timeout,
        server_timeout: config.server_timeout,
        metadata_interval: config.retry_backoff.0,
        response_bytes_max: RESPONSE_BYTES_MAX,
        security: config.security.clone(),
    }
}

/// What a task made of a call of the spool's that waits for the disk.
fn flatten<T>(result: Result<std::io::Result<T>, tokio::task::JoinError>) -> Result<T, SendError> {
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(SendError::Retry(Cause::text(format!("spool: {error}")))),
        Err(error) => Err(SendError::Retry(Cause::text(error.to_string()))),
    }
}

/// Largest answer that is read: metadata of some ten thousand partitions.
const RESPONSE_BYTES_MAX: usize = 8 << 20;
