//! What the client offers: one function an API, each with a deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::metadata::{Metadata, is_wrong_leader};
use super::pool::{Broker, Dialer, Pool};
use super::security::Security;
use super::seek::Seek;

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `host:port` of the brokers to ask first; a name may resolve to many addresses.
    pub bootstrap_servers: Vec<String>,
    /// Sent with every request.
    pub client_id: String,
    /// Deadline for a connection, security included.
    pub connect_timeout: Duration,
    /// Deadline for an answer, from the request's first byte or from the answer before it on the
    /// connection; then the connection is closed.
    pub request_timeout: Duration,
    /// Longest time a broker may wait for its followers.
    pub server_timeout: Duration,
    /// Least time between two metadata requests.
    pub metadata_interval: Duration,
    /// Largest answer that is read.
    pub response_bytes_max: usize,
    /// What the listeners ask for.
    pub security: Security,
}

/// A broker's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub i32);

/// Which of a broker's connections: a request waits for its slowest partition, so the slow go
/// apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Road {
    /// Well partitions.
    Main,
    /// Partitions that are slow or short of replicas.
    Slow,
}

/// Why a call failed as a whole. What a broker says of one partition is in the answer, not here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be made: nothing was sent.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke or timed out after the request was, perhaps, sent: its fate is unknown.
    #[error("no answer from {address}: {source}")]
    Lost {
        /// From whom.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// No broker is known by that id, or none answers.
    #[error("no broker answers: {0}")]
    NoBroker(String),
    /// The broker lacks an API or version that is needed.
    #[error("{address} does not support {what}")]
    Unsupported {
        /// Who.
        address: String,
        /// What.
        what: &'static str,
    },
    /// The answer does not parse, or is larger than allowed.
    #[error("malformed answer from {address}: {what}")]
    Malformed {
        /// From whom.
        address: String,
        /// What of it.
        what: String,
    },
    /// The broker refused the whole call with this error code.
    #[error("{what}: error {code}")]
    Code {
        /// The call.
        what: &'static str,
        /// <https://kafka.apache.org/protocol#protocol_error_codes>
        code: i16,
    },
}

/// A topic as metadata tells it.
#[derive(Clone, Debug)]
pub struct TopicMetadata {
    /// Its name.
    pub name: Arc<str>,
    /// Its id: another id under the same name is another log.
    pub id: [u8; 16],
    /// 0, or why the topic is unknown (3, 29 …).
    pub code: i16,
    /// By partition number: the leader, if there is one.
    pub leaders: Vec<Option<NodeId>>,
}

/// One batch for one partition; the records are a whole record batch v2.
#[derive(Clone, Debug)]
pub struct ProduceBatch {
    /// Kafka topic.
    pub topic: Arc<str>,
    /// Its id, as the metadata said when the batch was first sent.
    pub topic_id: [u8; 16],
    /// Partition.
    pub partition: i32,
    /// What [`super::batch`] has made.
    pub records: Bytes,
}

/// What the broker said of one batch; in the order of the request.
#[derive(Clone, Debug)]
pub struct ProduceAnswer {
    /// 0 or why it was not appended.
    pub code: i16,
    /// Offset of the first record, or −1.
    pub base_offset: i64,
    /// Indexes of the records that made the broker reject the batch, with its words.
    pub record_errors: Vec<(i32, String)>,
    /// The broker's words.
    pub message: Option<String>,
}

/// What a broker remembers of a producer in one partition (`DescribeProducers`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// Producer id.
    pub producer_id: i64,
    /// Its newest epoch there.
    pub epoch: i32,
    /// Its last sequence there.
    pub last_sequence: i32,
}

/// A record batch's header, as found in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Offset of its last record.
    pub last_offset: i64,
    /// Producer id, −1 if none.
    pub producer_id: i64,
    /// Producer epoch.
    pub epoch: i16,
    /// Sequence of the first record.
    pub base_sequence: i32,
    /// Sequence of the last record.
    pub last_sequence: i32,
}

/// A piece of a partition's log.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Batches, the last perhaps cut; [`super::unpack`] reads them.
    pub log: Bytes,
    /// The high watermark: what is before it is replicated.
    pub end: i64,
}

/// What of a topic's configs bears on our promises; what we may not read is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicLimits {
    /// `max.message.bytes`
    pub message_bytes_max: Option<usize>,
    /// `min.insync.replicas`
    pub min_insync_replicas: Option<u32>,
    /// `retention.ms`, −1: for ever.
    pub retention_ms: Option<i64>,
    /// `message.timestamp.before.max.ms`
    pub timestamp_before_max_ms: Option<i64>,
    /// `message.timestamp.after.max.ms`
    pub timestamp_after_max_ms: Option<i64>,
}

/// A topic's offset to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The first record that is still there.
    Earliest,
    /// Behind the last record that is replicated (high watermark).
    Latest,
}

/// What became of [`Client::create_topic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateOutcome {
    /// It is new.
    Created,
    /// It was there before; nothing of it was changed.
    Exists,
}

/// A Kafka cluster. Clones share the connections and what is known of the cluster.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) inner: Arc<Inner>,
}

/// What clones of a [`Client`] share.
#[derive(Debug)]
pub(super) struct Inner {
    pub config: Arc<ClientConfig>,
    pub dialer: Arc<Dialer>,
    pub pool: Pool,
    pub seek: Seek,
    pub metadata: Mutex<Metadata>,
    closed: AtomicBool,
}

impl Client {
    /// A client that has not connected yet: no I/O happens here.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        let config = Arc::new(config);
        let inner = Inner {
            dialer: Arc::new(Dialer::new(Arc::clone(&config))),
            config,
            pool: Pool::default(),
            seek: Seek::default(),
            metadata: Mutex::default(),
            closed: AtomicBool::new(false),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The cluster's id, asked anew: shows that some broker answers now.
    ///
    /// # Errors
    /// [`Error::NoBroker`] when no broker answers.
    pub async fn cluster_id(&self) -> Result<String, Error> {
        self.inner.topics(&[], true).await?;
        let id = self.known_cluster_id().map(|id| id.to_string());
        id.ok_or_else(|| Error::NoBroker("the cluster does not tell its id".into()))
    }

    /// The cluster id of the newest metadata answer; no I/O.
    #[must_use]
    pub fn known_cluster_id(&self) -> Option<Arc<str>> {
        self.inner.metadata.lock().cluster_id()
    }

    /// What is known of a topic; asks when nothing is, when it was not well, or when `refresh` says
    /// so. A topic that is not there has its code in the answer and is never created by asking.
    /// Askers share requests; asking may wait for `metadata_interval`.
    ///
    /// # Errors
    /// [`Error::NoBroker`] when no broker answers.
    pub async fn topic(&self, name: &str, refresh: bool) -> Result<TopicMetadata, Error> {
        let mut answers = self.inner.topics(&[name.into()], refresh).await?;
        answers
            .pop()
            .ok_or_else(|| Error::NoBroker("the answer lacks the topic".into()))
    }

    /// [`Client::topic`] of many topics with one request; answers in the order of `names`.
    ///
    /// # Errors
    /// [`Error::NoBroker`] when no broker answers.
    pub async fn topics(
        &self,
        names: &[Arc<str>],
        refresh: bool,
    ) -> Result<Vec<TopicMetadata>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        self.inner.topics(names, refresh).await
    }

    /// A partition's leader and the topic's id as last heard; no I/O.
    #[must_use]
    pub fn leader(&self, topic: &str, partition: i32) -> Option<(NodeId, [u8; 16])> {
        self.inner.metadata.lock().leader(topic, partition)
    }

    /// Forgets a leader that has turned out to be none. (Codes 3, 5, 6, 100 and refused connections
    /// do it by themselves.)
    pub fn forget_leader(&self, topic: &str, partition: i32) {
        self.inner.metadata.lock().forget_leader(topic, partition);
    }

    /// Whether any connection is open: a broker that dies closes its own, a network that breaks
    /// does not. No I/O.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.inner.pool.any_open() || self.inner.admin_is_open()
    }

    /// Closes every connection; whoever waits for an answer gets [`Error::Lost`]. Calls after it
    /// fail.
    pub async fn close(&self) {
        self.inner.closed.store(true, Ordering::Release);
        self.inner.pool.close().await;
        self.inner.close_admin().await;
    }
}

impl Inner {
    pub(super) fn check_open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::NoBroker("the client is closed".into()));
        }
        Ok(())
    }

    /// The connection to a broker. One that cannot be reached leads nothing any more, as far as is
    /// known.
    pub(super) async fn broker(&self, node: NodeId, road: Road) -> Result<Arc<Broker>, Error> {
        let address = self.metadata.lock().address(node);
        let address =
            address.ok_or_else(|| Error::NoBroker(format!("broker {} is not known", node.0)))?;
        self.check_open()?;
        let result = self.pool.get(&self.dialer, (node, road), &address).await;
        if matches!(result, Err(Error::Connect { .. })) {
            self.metadata.lock().forget_node(node);
        }
        let broker = result?;
        if let Err(closed) = self.check_open() {
            broker.connection.close("the client is closed");
            return Err(closed);
        }
        Ok(broker)
    }

    /// Forgets the leader if that is what the code of its answer asks for.
    pub(super) fn heed(&self, code: i16, topic: &str, partition: i32) {
        if is_wrong_leader(code) {
            self.metadata.lock().forget_leader(topic, partition);
        }
    }
}
