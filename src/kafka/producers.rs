//! Producer ids, and what brokers remember of producers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::describe_producers_request::{
    DescribeProducersRequest, TopicRequest,
};
use kafka_protocol::messages::describe_producers_response::DescribeProducersResponse;
use kafka_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use kafka_protocol::protocol::StrBytes;

use super::client::{Client, Error, NodeId, ProducerState, Road};
use super::connection::Connection;
use super::versions::{DESCRIBE_PRODUCERS, INIT_PRODUCER_ID};

/// How often a producer id is asked for; with the waits below about 20 s.
const INIT_TRIES: u32 = 24;
/// First wait; it doubles up to the last.
const INIT_WAIT_MIN: Duration = Duration::from_millis(100);
const INIT_WAIT_MAX: Duration = Duration::from_secs(1);

/// What one partition's leader remembers, or its error code.
type Remembered = Result<Vec<ProducerState>, i16>;

impl Client {
    /// A new producer id and its epoch. Codes 14, 15, 16 and 51 are tried again for some seconds.
    ///
    /// # Errors
    /// [`Error::Code`] when the cluster refuses.
    pub async fn init_producer_id(&self) -> Result<(i64, i16), Error> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(i32::MAX) // means nothing here; Java sends the same
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        let mut wait = INIT_WAIT_MIN;
        for tries in 1.. {
            let answer = self.inner.ask_any(&INIT_PRODUCER_ID, &request).await?;
            match answer.error_code {
                0 => return Ok((answer.producer_id.0, answer.producer_epoch)),
                // COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR,
                // CONCURRENT_TRANSACTIONS: a cluster that has just started.
                14 | 15 | 16 | 51 if tries < INIT_TRIES => {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(INIT_WAIT_MAX);
                }
                code => {
                    return Err(Error::Code {
                        what: "get a producer id, for which WRITE on any topic is enough",
                        code,
                    });
                }
            }
        }
        Err(Error::NoBroker("no producer id".into())) // never: the loop returns
    }

    /// What the leader remembers of the producers of some partitions, in the order of `partitions`;
    /// a partition's error code (29, 6, 3 …) stands in its place.
    ///
    /// # Errors
    /// When the call fails as a whole.
    pub async fn describe_producers(
        &self,
        node: NodeId,
        partitions: &[(Arc<str>, i32)],
    ) -> Result<Vec<Remembered>, Error> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let broker = self.inner.broker(node, Road::Slow).await?;
        let version = broker.versions.pick(&DESCRIBE_PRODUCERS)?;
        let mut topics: HashMap<&Arc<str>, Vec<i32>> = HashMap::new();
        for (topic, partition) in partitions {
            topics.entry(topic).or_default().push(*partition);
        }
        let topics = topics.into_iter().map(|(name, indexes)| {
            TopicRequest::default()
                .with_name(StrBytes::from_string(name.to_string()).into())
                .with_partition_indexes(indexes)
        });
        let request = DescribeProducersRequest::default().with_topics(topics.collect());
        let connection = &broker.connection;
        let answer = connection
            .call(&DESCRIBE_PRODUCERS, version, &request)
            .await?;
        let answers = sort(answer, partitions, connection)?;
        for ((topic, partition), answer) in partitions.iter().zip(&answers) {
            if let Err(code) = answer {
                self.inner.heed(*code, topic, *partition);
            }
        }
        Ok(answers)
    }
}

fn sort(
    answer: DescribeProducersResponse,
    partitions: &[(Arc<str>, i32)],
    connection: &Connection,
) -> Result<Vec<Remembered>, Error> {
    let mut found: HashMap<(StrBytes, i32), Remembered> = HashMap::new();
    for topic in answer.topics {
        for partition in topic.partitions {
            let remembered = match partition.error_code {
                0 => Ok(partition
                    .active_producers
                    .iter()
                    .map(|producer| ProducerState {
                        producer_id: producer.producer_id.0,
                        epoch: producer.producer_epoch,
                        last_sequence: producer.last_sequence,
                    })
                    .collect()),
                code => Err(code),
            };
            found.insert(
                (topic.name.0.clone(), partition.partition_index),
                remembered,
            );
        }
    }
    let sorted = partitions.iter().map(|(topic, partition)| {
        let key = (StrBytes::from_string(topic.to_string()), *partition);
        found.get(&key).cloned()
    });
    sorted
        .collect::<Option<_>>()
        .ok_or_else(|| connection.malformed("no answer for a partition"))
}
