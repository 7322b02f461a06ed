//! Produce: batches of many partitions in one request.
//!
//! The request is encoded here, for its records are not copied: heads and batches are the pieces of
//! one vectored write. <https://kafka.apache.org/protocol#The_Messages_Produce>
//!
//! ```text
//! body: transactional id | acks i16 | timeout i32 | [ topic | [ partition i32 | records ] ]
//! ```
//! From version 9 on lengths are varints of length + 1 and every structure ends with a count of
//! tagged fields. From version 13 on a topic is its id instead of its name.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::HeaderVersion;

use super::client::{Client, Error, NodeId, ProduceAnswer, ProduceBatch, Road};
use super::connection::Connection;
use super::versions::PRODUCE;
use crate::record::varint;

/// First version with varint lengths and tagged fields.
const FLEXIBLE: i16 = 9;
/// First version that names topics by id.
const BY_ID: i16 = 13;
/// All replicas in sync have it.
const ACKS_ALL: i16 = -1;

impl Client {
    /// Appends batches, at most one a partition, with `acks=all`; answers in the order of
    /// `batches`, and how long the broker wants to be left alone (honour it after using the
    /// answers).
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::NoBroker`], [`Error::Unsupported`]: surely nothing was
    /// appended. All others: unknown.
    pub async fn produce(
        &self,
        node: NodeId,
        road: Road,
        batches: Vec<ProduceBatch>,
    ) -> Result<(Vec<ProduceAnswer>, Duration), Error> {
        if batches.is_empty() {
            return Ok((Vec::new(), Duration::ZERO));
        }
        let broker = self.inner.broker(node, road).await?;
        let connection = &broker.connection;
        let mut version = broker.versions.pick(&PRODUCE)?;
        if version >= BY_ID && batches.iter().any(|batch| batch.topic_id == [0; 16]) {
            version = BY_ID - 1;
        }
        let plan = Plan::new(&batches, version >= BY_ID)
            .ok_or_else(|| connection.unsayable(&"two batches for one partition in one request"))?;
        let timeout = i32::try_from(self.inner.config.server_timeout.as_millis());
        let id = connection.next_id();
        let pieces = encode(
            connection.frame_head(
                PRODUCE.key,
                version,
                id,
                ProduceRequest::header_version(version),
            )?,
            version,
            timeout.unwrap_or(i32::MAX),
            &plan,
        );
        let pieces =
            pieces.ok_or_else(|| connection.unsayable(&"more bytes than a request holds"))?;
        let mut frame = connection.send(id, pieces).await?;
        let answer = connection.read::<ProduceResponse>(&PRODUCE, &mut frame, version)?;
        let throttle = u64::try_from(answer.throttle_time_ms).unwrap_or(0);
        if throttle > 0 {
            connection.muted(Duration::from_millis(throttle));
        }
        let answers = plan.sort(answer, version >= BY_ID, connection)?;
        for (batch, answer) in batches.iter().zip(&answers) {
            self.inner.heed(answer.code, &batch.topic, batch.partition);
        }
        Ok((answers, Duration::from_millis(throttle)))
    }
}

/// A topic by what names it in this version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Name {
    Id([u8; 16]),
    Text(Arc<str>),
}

impl Name {
    fn of(batch: &ProduceBatch, by_id: bool) -> Self {
        if by_id {
            Self::Id(batch.topic_id)
        } else {
            Self::Text(Arc::clone(&batch.topic))
        }
    }
}

/// The batches of a request by topic, and where each one's answer belongs.
struct Plan<'a> {
    topics: Vec<(Name, Vec<&'a ProduceBatch>)>,
    places: HashMap<(Name, i32), usize>,
}

impl<'a> Plan<'a> {
    /// `None` when a partition occurs twice.
    fn new(batches: &'a [ProduceBatch], by_id: bool) -> Option<Self> {
        let mut topics: Vec<(Name, Vec<&ProduceBatch>)> = Vec::new();
        let mut at: HashMap<Name, usize> = HashMap::new();
        let mut places = HashMap::with_capacity(batches.len());
        for (place, batch) in batches.iter().enumerate() {
            let name = Name::of(batch, by_id);
            if places
                .insert((name.clone(), batch.partition), place)
                .is_some()
            {
                return None;
            }
            let index = *at.entry(name.clone()).or_insert_with(|| {
                topics.push((name, Vec::new()));
                topics.len() - 1
            });
            topics.get_mut(index)?.1.push(batch);
        }
        Some(Self { topics, places })
    }

    /// Answers in the order of the batches. One that is missing or was not asked for closes the
    /// connection.
    fn sort(
        &self,
        answer: ProduceResponse,
        by_id: bool,
        connection: &Connection,
    ) -> Result<Vec<ProduceAnswer>, Error> {
        let mut sorted = vec![None; self.places.len()];
        for topic in answer.responses {
            let name = if by_id {
                Name::Id(*topic.topic_id.as_bytes())
            } else {
                Name::Text(topic.name.as_str().into())
            };
            for partition in topic.partition_responses {
                let place = self.places.get(&(name.clone(), partition.index));
                let Some(place) = place.and_then(|place| sorted.get_mut(*place)) else {
                    return Err(connection.malformed("an answer for a partition not asked for"));
                };
                *place = Some(convert(partition));
            }
        }
        sorted
            .into_iter()
            .collect::<Option<_>>()
            .ok_or_else(|| connection.malformed("no answer for a partition"))
    }
}

fn convert(answer: PartitionProduceResponse) -> ProduceAnswer {
    let errors = answer.record_errors.into_iter();
    ProduceAnswer {
        code: answer.error_code,
        base_offset: answer.base_offset,
        record_errors: errors
            .map(|error| {
                let words = error.batch_index_error_message;
                (
                    error.batch_index,
                    words.map(|w| w.to_string()).unwrap_or_default(),
                )
            })
            .collect(),
        message: answer.error_message.map(|words| words.to_string()),
    }
}

/// The request in pieces, its length filled in; `None` when it is too long for that.
fn encode(head: BytesMut, version: i16, timeout_ms: i32, plan: &Plan<'_>) -> Option<Vec<Bytes>> {
    let flexible = version >= FLEXIBLE;
    let mut pieces = vec![Bytes::new()];
    let mut next = head;
    if flexible {
        next.put_u8(0); // no transactional id
    } else {
        next.put_i16(-1);
    }
    next.put_i16(ACKS_ALL);
    next.put_i32(timeout_ms);
    put_count(&mut next, flexible, plan.topics.len())?;
    let mut first = None;
    for (name, batches) in &plan.topics {
        match name {
            Name::Id(id) => next.put_slice(id),
            Name::Text(text) => put_text(&mut next, flexible, text)?,
        }
        put_count(&mut next, flexible, batches.len())?;
        for batch in batches {
            next.put_i32(batch.partition);
            put_count(&mut next, flexible, batch.records.len())?;
            // The very first piece waits for the length of the whole.
            if first.is_none() {
                first = Some(std::mem::take(&mut next));
            } else {
                pieces.push(next.split().freeze());
            }
            pieces.push(batch.records.clone());
            put_no_tags(&mut next, flexible);
        }
        put_no_tags(&mut next, flexible);
    }
    put_no_tags(&mut next, flexible);
    pieces.push(next.freeze());
    let mut first = first?;
    let rest: usize = pieces.iter().map(Bytes::len).sum();
    let length = i32::try_from(first.len() - 4 + rest).ok()?;
    *first.first_chunk_mut::<4>()? = length.to_be_bytes();
    *pieces.first_mut()? = first.freeze();
    Some(pieces)
}

fn put_no_tags(out: &mut BytesMut, flexible: bool) {
    if flexible {
        out.put_u8(0);
    }
}

/// The length of an array or of bytes.
fn put_count(out: &mut BytesMut, flexible: bool, count: usize) -> Option<()> {
    let count = i32::try_from(count).ok()?;
    if flexible {
        varint::write(out, u64::from(count.cast_unsigned()) + 1);
    } else {
        out.put_i32(count);
    }
    Some(())
}

fn put_text(out: &mut BytesMut, flexible: bool, text: &str) -> Option<()> {
    let length = i16::try_from(text.len()).ok()?;
    if flexible {
        varint::write(out, u64::from(length.cast_unsigned()) + 1);
    } else {
        out.put_i16(length);
    }
    out.put_slice(text.as_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::protocol::Decodable;
    use proptest::prelude::*;

    fn batch(topic: u8, partition: i32, records: Vec<u8>) -> ProduceBatch {
        ProduceBatch {
            topic: format!("topic-{topic}").into(),
            topic_id: [topic + 1; 16],
            partition,
            records: records.into(),
        }
    }

    proptest! {
        /// What is encoded here reads as the same with the codec of `kafka-protocol`, in every
        /// version.
        #[test]
        fn requests_are_what_the_schema_says(
            version in 3i16..=13,
            what in proptest::collection::btree_map(
                (0u8..5, 0i32..300), proptest::collection::vec(any::<u8>(), 1..300), 1..40),
        ) {
            let batches = what.into_iter().map(|((t, p), r)| batch(t, p, r));
            let batches: Vec<_> = batches.rev().collect();
            let plan = Plan::new(&batches, version >= BY_ID).unwrap();
            let head = BytesMut::from(&[0u8; 4][..]);
            let pieces = encode(head, version, 30_000, &plan).unwrap();
            let mut whole = BytesMut::new();
            for piece in &pieces {
                whole.put_slice(piece);
            }
            let mut whole = whole.freeze();
            let length = whole.split_to(4);
            let length = i32::from_be_bytes(*length.first_chunk().unwrap());
            prop_assert_eq!(length as usize, whole.len());
            let request = ProduceRequest::decode(&mut whole, version).unwrap();
            prop_assert!(whole.is_empty());
            prop_assert_eq!((request.acks, request.timeout_ms), (-1, 30_000));
            let mut seen = 0;
            for topic in &request.topic_data {
                for partition in &topic.partition_data {
                    let sent = batches.iter().find(|b| {
                        let named = if version >= BY_ID {
                            b.topic_id == *topic.topic_id.as_bytes()
                        } else {
                            *b.topic == **topic.name
                        };
                        named && b.partition == partition.index
                    });
                    prop_assert_eq!(Some(&sent.unwrap().records), partition.records.as_ref());
                    seen += 1;
                }
            }
            prop_assert_eq!(seen, batches.len());
        }
    }

    #[test]
    fn a_partition_twice_is_refused() {
        let twice = [
            batch(1, 1, vec![1]),
            batch(2, 1, vec![1]),
            batch(1, 1, vec![2]),
        ];
        assert!(Plan::new(&twice, true).is_none());
        assert!(Plan::new(&twice[..2], false).is_some());
    }
}
