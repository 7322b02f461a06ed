//! What the client offers: one function an API, each with a deadline.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `host:port` of the brokers to ask first; a name may resolve to many addresses.
    pub bootstrap_servers: Vec<String>,
    /// Sent with every request.
    pub client_id: String,
    /// Deadline for a connection, security included.
    pub connect_timeout: Duration,
    /// Deadline from a request's first byte to its answer's last; then the connection is closed.
    pub request_timeout: Duration,
    /// Longest time a broker may wait for its followers.
    pub server_timeout: Duration,
    /// Least time between two metadata requests.
    pub metadata_interval: Duration,
    /// Largest answer that is read.
    pub response_bytes_max: usize,
}

/// A broker's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub i32);

/// Which of a broker's connections: a request waits for its slowest partition, so the slow go apart.
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
    config: Arc<ClientConfig>,
}

impl Client {
    /// A client that has not connected yet: no I/O happens here.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Self {
            config: Arc::new(config),
        }
    }

    /// The cluster's id, asked once; every metadata answer renews it.
    ///
    /// # Errors
    /// [`Error::NoBroker`] when no broker answers.
    pub async fn cluster_id(&self) -> Result<String, Error> {
        Err(Error::NoBroker("not built yet".into()))
    }

    /// The cluster id of the newest metadata answer; no I/O.
    #[must_use]
    pub fn known_cluster_id(&self) -> Option<Arc<str>> {
        None
    }

    /// What is known of a topic; asks when nothing is, when it was not well, or when `refresh` says so.
    /// A topic that is not there has its code in the answer and is never created by asking.
    /// Askers share requests; a refresh may wait for `metadata_interval`.
    ///
    /// # Errors
    /// [`Error::NoBroker`] when no broker answers.
    pub async fn topic(&self, _name: &str, _refresh: bool) -> Result<TopicMetadata, Error> {
        Err(Error::NoBroker("not built yet".into()))
    }

    /// [`Client::topic`] of many topics with one request; answers in the order of `names`.
    ///
    /// # Errors
    /// [`Error::NoBroker`] when no broker answers.
    pub async fn topics(
        &self,
        _names: &[Arc<str>],
        _refresh: bool,
    ) -> Result<Vec<TopicMetadata>, Error> {
        Err(Error::NoBroker("not built yet".into()))
    }

    /// A partition's leader and the topic's id as last heard; no I/O.
    #[must_use]
    pub fn leader(&self, _topic: &str, _partition: i32) -> Option<(NodeId, [u8; 16])> {
        None
    }

    /// Forgets a leader that has turned out to be none. (Codes 3, 5, 6, 100 and refused connections do it
    /// by themselves.)
    pub fn forget_leader(&self, _topic: &str, _partition: i32) {}

    /// Appends batches, at most one a partition, with `acks=all`; answers in the order of `batches`, and how
    /// long the broker wants to be left alone (honour it after using the answers).
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::NoBroker`], [`Error::Unsupported`]: surely nothing was appended. All
    /// others: unknown.
    pub async fn produce(
        &self,
        _node: NodeId,
        _road: Road,
        _batches: Vec<ProduceBatch>,
    ) -> Result<(Vec<ProduceAnswer>, Duration), Error> {
        Err(Error::NoBroker("not built yet".into()))
    }

    /// A new producer id and its epoch. Codes 14, 15, 16 and 51 are tried again for some seconds.
    ///
    /// # Errors
    /// [`Error::Code`] when the cluster refuses.
    pub async fn init_producer_id(&self) -> Result<(i64, i16), Error> {
        Err(Error::NoBroker("not built yet".into()))
    }

    /// What the leader remembers of the producers of some partitions, in the order of `partitions`;
    /// a partition's error code (29, 6, 3 …) stands in its place.
    ///
    /// # Errors
    /// When the call fails as a whole.
    pub async fn describe_producers(
        &self,
        _node: NodeId,
        _partitions: &[(Arc<str>, i32)],
    ) -> Result<Vec<Result<Vec<ProducerState>, i16>>, Error> {
        Err(Error::NoBroker("not built yet".into()))
    }

    /// A partition's first or last offset.
    ///
    /// # Errors
    /// [`Error::Code`] when the partition's answer is one.
    pub async fn list_offsets(
        &self,
        _node: NodeId,
        _topic: &str,
        _partition: i32,
        _which: Which,
    ) -> Result<i64, Error> {
        Err(Error::NoBroker("not built yet".into()))
    }

    /// Headers of the batches from `from_offset` on (the first may begin before it), about `bytes_max` bytes
    /// of log a call, below the high watermark only; and the high watermark. Go on behind the last one's
    /// `last_offset`; no headers: the end is reached.
    ///
    /// # Errors
    /// [`Error::Code`]: 1 when `from_offset` is not in the log, and others.
    pub async fn batch_headers(
        &self,
        _node: NodeId,
        _at: (&str, i32),
        _from_offset: i64,
        _bytes_max: usize,
    ) -> Result<(Vec<BatchHeader>, i64), Error> {
        Err(Error::NoBroker("not built yet".into()))
    }

    /// Creates a topic; −1 partitions or replicas: as the cluster sees fit.
    ///
    /// # Errors
    /// [`Error::Code`] when the cluster refuses.
    pub async fn create_topic(
        &self,
        _name: &str,
        _partitions: i32,
        _replicas: i16,
        _configs: &[(String, String)],
    ) -> Result<CreateOutcome, Error> {
        Err(Error::NoBroker("not built yet".into()))
    }

    /// The configs that bear on our promises; all `None` when we may not read them.
    ///
    /// # Errors
    /// [`Error::Code`]: 3 when there is no such topic, and others.
    pub async fn topic_limits(&self, _name: &str) -> Result<TopicLimits, Error> {
        Err(Error::NoBroker("not built yet".into()))
    }

    /// Closes every connection; whoever waits for an answer gets [`Error::Lost`]. Calls after it fail.
    pub async fn close(&self) {}
}
