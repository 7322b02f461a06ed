//! rskafka's clients: one for the cluster, one with a connection of its own for each partition.
//!
//! rskafka 0.6 has no timeout of its own, keeps a dead connection, and by default tries again for
//! ever. So every call has a deadline here, its backoff is set to give up at the first error, and a
//! client that failed is dropped together with the connections behind it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::{Compression as Codec, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;
use rskafka::{BackoffConfig, BackoffError};
use tokio::time::timeout;

use super::Failure;
use crate::config::checked::Kafka;
use crate::kafka::Compression;
use crate::spool::TopicPartition;
use crate::uplink::error::{Cause, SendError, of_code};

/// Connections kept; the one that was not used for longest makes room.
const CONNECTIONS_MAX: usize = 256;
/// rskafka tells the broker to wait up to 30 s for its followers; an answer takes a little longer.
const PRODUCE_TIMEOUT: Duration = Duration::from_secs(35);
/// Largest answer that is read: metadata of all topics.
const RESPONSE_BYTES_MAX: usize = 8 << 20;

/// All of them.
#[derive(Debug)]
pub(super) struct Connections {
    bootstrap: Vec<String>,
    client_id: Arc<str>,
    connect_timeout: Duration,
    codec: Codec,
    /// One caller at a time makes a new one.
    client: tokio::sync::Mutex<Option<Arc<Client>>>,
    partitions: Mutex<Partitions>,
}

#[derive(Debug, Default)]
struct Partitions {
    /// A connection, the client it came from, and when it was used last.
    by_name: HashMap<TopicPartition, (Arc<PartitionClient>, Arc<Client>, u64)>,
    uses: u64,
}

impl Connections {
    pub(super) fn new(config: &Kafka) -> Self {
        Self {
            bootstrap: config.bootstrap_servers.clone(),
            client_id: config.client_id.as_str().into(),
            connect_timeout: config.connect_timeout,
            codec: match config.compression {
                Compression::None => Codec::NoCompression,
                Compression::Gzip => Codec::Gzip,
                Compression::Snappy => Codec::Snappy,
                Compression::Lz4 => Codec::Lz4,
                Compression::Zstd => Codec::Zstd,
            },
            client: tokio::sync::Mutex::default(),
            partitions: Mutex::default(),
        }
    }

    /// Sends one batch once; offsets of its records.
    pub(super) async fn produce(
        &self,
        to: &TopicPartition,
        records: Vec<Record>,
    ) -> Result<Vec<i64>, Failure> {
        let (partition, client) = self.partition(to).await?;
        let error = match timeout(PRODUCE_TIMEOUT, partition.produce(records, self.codec)).await {
            Ok(Ok(offsets)) => return Ok(offsets),
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        self.partitions.lock().by_name.remove(to);
        let code = error.as_ref().and_then(code_of);
        // A code tells of the partition; anything else may be the fault of what all share.
        if code.is_none() {
            self.forget(&client).await;
        }
        Err(match (code, error) {
            (Some((code, words)), _) => Failure::of_batch(of_code(code, words.as_deref())),
            (None, Some(error)) => {
                Failure::away(SendError::Unknown(Cause::text(error.to_string())))
            }
            (None, None) => Failure::away(SendError::Unknown(Cause::text("no answer in time"))),
        })
    }

    /// The connection of a partition, made if need be. Where that fails nothing was sent.
    async fn partition(
        &self,
        to: &TopicPartition,
    ) -> Result<(Arc<PartitionClient>, Arc<Client>), Failure> {
        if let Some(found) = self.partitions.lock().find(to) {
            return Ok(found);
        }
        let client = self.client().await?;
        let name = to.topic.to_string();
        let made = client.partition_client(name, to.partition, UnknownTopicHandling::Error);
        let error = match timeout(self.connect_timeout, made).await {
            Ok(Ok(partition)) => {
                let partition = Arc::new(partition);
                let found = (Arc::clone(&partition), Arc::clone(&client));
                self.partitions.lock().insert(to.clone(), found.clone());
                return Ok(found);
            }
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        self.forget(&client).await;
        Err(match error.as_ref().and_then(code_of) {
            Some((code, words)) => match of_code(code, words.as_deref()) {
                SendError::Unknown(cause) => Failure::of_batch(SendError::Retry(cause)),
                error => Failure::of_batch(error),
            },
            None => Failure::away(unreached(error.as_ref())),
        })
    }

    async fn client(&self) -> Result<Arc<Client>, Failure> {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return Ok(Arc::clone(client));
        }
        let made = ClientBuilder::new(self.bootstrap.clone())
            .client_id(Arc::clone(&self.client_id))
            .max_message_size(RESPONSE_BYTES_MAX)
            .backoff_config(at_once())
            .build();
        match timeout(self.connect_timeout, made).await {
            Ok(Ok(made)) => Ok(Arc::clone(client.insert(Arc::new(made)))),
            Ok(Err(error)) => Err(Failure::away(unreached(Some(&error)))),
            Err(_) => Err(Failure::away(unreached(None))),
        }
    }

    /// Drops a client whose connection may be dead, unless another has taken its place.
    async fn forget(&self, dead: &Arc<Client>) {
        let mut client = self.client.lock().await;
        if client.as_ref().is_some_and(|it| Arc::ptr_eq(it, dead)) {
            *client = None;
        }
    }
}

impl Partitions {
    fn find(&mut self, to: &TopicPartition) -> Option<(Arc<PartitionClient>, Arc<Client>)> {
        self.uses += 1;
        let (partition, client, used) = self.by_name.get_mut(to)?;
        *used = self.uses;
        Some((Arc::clone(partition), Arc::clone(client)))
    }

    fn insert(
        &mut self,
        to: TopicPartition,
        (partition, client): (Arc<PartitionClient>, Arc<Client>),
    ) {
        while self.by_name.len() >= CONNECTIONS_MAX {
            let oldest = self.by_name.iter().min_by_key(|(_, (_, _, used))| *used);
            let Some(oldest) = oldest.map(|(to, _)| to.clone()) else {
                break;
            };
            self.by_name.remove(&oldest);
        }
        self.uses += 1;
        self.by_name.insert(to, (partition, client, self.uses));
    }
}

fn unreached(error: Option<&Error>) -> SendError {
    let text = error.map_or_else(|| "no connection in time".to_owned(), ToString::to_string);
    SendError::Retry(Cause::text(text))
}

/// No second try inside rskafka: it would not be counted.
fn at_once() -> BackoffConfig {
    BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_millis(100),
        base: 2.0,
        deadline: Some(Duration::ZERO),
    }
}

/// The broker's code and words, if it is the broker that refused.
fn code_of(error: &Error) -> Option<(i16, Option<String>)> {
    match error {
        Error::ServerError {
            protocol_error,
            error_message,
            ..
        } => Some((number(*protocol_error)?, error_message.clone())),
        Error::RetryFailed(BackoffError::DeadlineExceded { source, .. }) => {
            code_of(source.downcast_ref()?)
        }
        _ => None,
    }
}

/// rskafka names codes but does not give their numbers.
fn number(error: ProtocolError) -> Option<i16> {
    (-1..=CODES_MAX).find(|code| ProtocolError::new(*code) == Some(error))
}

/// Codes of Kafka 4.3 end below.
const CODES_MAX: i16 = 200;
