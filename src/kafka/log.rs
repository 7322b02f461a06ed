//! What lies in a partition's log: its ends, its batches, and their headers alone. No record is
//! decompressed.

use bytes::{Buf, Bytes};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::protocol::StrBytes;

use super::client::{BatchHeader, Client, Error, Fetched, NodeId, Road, Which};
use super::versions::{FETCH, LIST_OFFSETS, OFFSET_FOR_LEADER_EPOCH};

/// Bytes in front of a batch's records (base offset to record count).
const HEADER_BYTES: usize = 61;
/// Bytes in front of what a batch's length counts.
const LENGTH_AT: usize = 8;
/// A consumer, not a replica.
const CONSUMER: i32 = -1;

impl Client {
    /// A partition's first offset, or its high watermark.
    ///
    /// # Errors
    /// [`Error::Code`] when the partition's answer is one.
    pub async fn list_offsets(
        &self,
        node: NodeId,
        topic: &str,
        partition: i32,
        which: Which,
    ) -> Result<i64, Error> {
        let found = self.find_offset(node, (topic, partition), which).await?;
        Ok(found.offset)
    }

    /// Where a partition's log ends at its leader: at its high watermark, or behind it while
    /// replicas have not all of it.
    ///
    /// # Errors
    /// [`Error::Code`] when the partition's answer is one.
    pub async fn log_end(&self, node: NodeId, topic: &str, partition: i32) -> Result<i64, Error> {
        let at = (topic, partition);
        let latest = self.find_offset(node, at, Which::Latest).await?;
        let broker = self.inner.broker(node, Road::Slow).await?;
        let version = broker.versions.pick(&OFFSET_FOR_LEADER_EPOCH)?;
        // The end of the epoch that the leader is in is the log's (KIP-101, KIP-320).
        let wanted = OffsetForLeaderPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(-1)
            .with_leader_epoch(latest.leader_epoch);
        let wanted = OffsetForLeaderTopic::default()
            .with_topic(StrBytes::from_string(topic.to_owned()).into())
            .with_partitions(vec![wanted]);
        let request = OffsetForLeaderEpochRequest::default()
            .with_replica_id(CONSUMER.into())
            .with_topics(vec![wanted]);
        let connection = &broker.connection;
        let answer = connection.call(&OFFSET_FOR_LEADER_EPOCH, version, &request);
        let answer = answer.await?;
        let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let end = partitions
            .find(|answer| answer.partition == partition)
            .ok_or_else(|| connection.malformed("no answer for the partition"))?;
        self.check(end.error_code, "find the log's end", at)?;
        Ok(end.end_offset.max(latest.offset))
    }

    async fn find_offset(
        &self,
        node: NodeId,
        (topic, partition): (&str, i32),
        which: Which,
    ) -> Result<ListOffsetsPartitionResponse, Error> {
        let broker = self.inner.broker(node, Road::Slow).await?;
        let version = broker.versions.pick(&LIST_OFFSETS)?;
        let wanted = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_timestamp(match which {
                Which::Earliest => -2,
                Which::Latest => -1,
            });
        let wanted = ListOffsetsTopic::default()
            .with_name(StrBytes::from_string(topic.to_owned()).into())
            .with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(CONSUMER.into())
            .with_topics(vec![wanted]);
        let connection = &broker.connection;
        let answer = connection.call(&LIST_OFFSETS, version, &request).await?;
        let mut partitions = answer.topics.into_iter().flat_map(|topic| topic.partitions);
        let answer = partitions
            .find(|answer| answer.partition_index == partition)
            .ok_or_else(|| connection.malformed("no answer for the partition"))?;
        self.check(answer.error_code, "list offsets", (topic, partition))?;
        Ok(answer)
    }

    /// Headers of the batches from `from_offset` on (the first may begin before it), about
    /// `bytes_max` bytes of log a call, below the high watermark only; and the high watermark. Go
    /// on behind the last one's `last_offset`; no headers: the end is reached.
    ///
    /// # Errors
    /// [`Error::Code`]: 1 when `from_offset` is not in the log, and others.
    pub async fn batch_headers(
        &self,
        node: NodeId,
        at: (&str, i32),
        from_offset: i64,
        bytes_max: usize,
    ) -> Result<(Vec<BatchHeader>, i64), Error> {
        let fetched = self.fetch(node, at, from_offset, bytes_max).await?;
        let mut headers = parse(fetched.log);
        headers.retain(|batch| batch.last_offset < fetched.end);
        Ok((headers, fetched.end))
    }

    /// The log from the batch with `from_offset` on, about `bytes_max` bytes of it, as it lies
    /// there: the last batch may be cut, or be behind the high watermark.
    ///
    /// # Errors
    /// As [`Client::batch_headers`].
    pub async fn fetch(
        &self,
        node: NodeId,
        at: (&str, i32),
        from_offset: i64,
        bytes_max: usize,
    ) -> Result<Fetched, Error> {
        let (topic, partition) = at;
        let broker = self.inner.broker(node, Road::Slow).await?;
        let version = broker.versions.pick(&FETCH)?;
        let bytes_max = i32::try_from(bytes_max).unwrap_or(i32::MAX);
        let wanted = FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(from_offset)
            .with_partition_max_bytes(bytes_max);
        let wanted = FetchTopic::default()
            .with_topic(StrBytes::from_string(topic.to_owned()).into())
            .with_partitions(vec![wanted]);
        let request = FetchRequest::default()
            .with_replica_id(CONSUMER.into())
            .with_max_wait_ms(0)
            .with_min_bytes(0)
            .with_max_bytes(bytes_max)
            .with_topics(vec![wanted]);
        let connection = &broker.connection;
        let answer = connection.call(&FETCH, version, &request).await?;
        self.check(answer.error_code, "fetch", at)?;
        let mut partitions = answer
            .responses
            .into_iter()
            .flat_map(|topic| topic.partitions);
        let answer = partitions
            .find(|answer| answer.partition_index == partition)
            .ok_or_else(|| connection.malformed("no answer for the partition"))?;
        self.check(answer.error_code, "fetch", at)?;
        Ok(Fetched {
            log: answer.records.unwrap_or_default(),
            end: answer.high_watermark,
        })
    }

    fn check(&self, code: i16, what: &'static str, at: (&str, i32)) -> Result<(), Error> {
        if code == 0 {
            return Ok(());
        }
        self.inner.heed(code, at.0, at.1);
        Err(Error::Code { what, code })
    }
}

/// The headers of whole batches and of the one that is cut behind its header.
pub(super) fn parse(mut log: Bytes) -> Vec<BatchHeader> {
    let mut headers = Vec::new();
    while log.len() >= HEADER_BYTES {
        let mut head = log.slice(..HEADER_BYTES);
        let base_offset = head.get_i64();
        let length = head.get_i32();
        let _leader_epoch = head.get_i32();
        let magic = head.get_i8();
        if magic == 2 {
            headers.push(parse_v2(base_offset, head));
        }
        let whole = usize::try_from(length).unwrap_or(0) + LENGTH_AT + 4;
        if whole < HEADER_BYTES || whole > log.len() {
            break;
        }
        log.advance(whole);
    }
    headers
}

/// The rest of a header of version 2, from its checksum on.
fn parse_v2(base_offset: i64, mut head: Bytes) -> BatchHeader {
    head.advance(4 + 2); // checksum, attributes
    let last_delta = head.get_i32();
    head.advance(8 + 8); // timestamps
    let producer_id = head.get_i64();
    let epoch = head.get_i16();
    let base_sequence = head.get_i32();
    BatchHeader {
        base_offset,
        last_offset: base_offset.saturating_add(last_delta.into()),
        producer_id,
        epoch,
        base_sequence,
        last_sequence: if base_sequence < 0 {
            base_sequence
        } else {
            base_sequence.wrapping_add(last_delta) & i32::MAX
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Compression;
    use crate::kafka::batch::{BatchIdentity, Encoder};
    use crate::record::{Record, RecordWriter};
    use bytes::BytesMut;

    fn log() -> Bytes {
        let mut encoder = Encoder::new(Compression::None, None);
        let mut log = BytesMut::new();
        for (offset, base_sequence) in [(100i64, 7), (103, i32::MAX - 1)] {
            let records: Vec<Record> = (0..3)
                .map(|n| RecordWriter::new(None, Some(b"value")).finish(n))
                .collect();
            let id = BatchIdentity {
                producer_id: 5,
                epoch: 2,
                base_sequence,
            };
            let batch = encoder.encode(records.iter(), id, None).unwrap();
            log.extend_from_slice(&offset.to_be_bytes());
            log.extend_from_slice(&batch[8..]);
        }
        log.freeze()
    }

    #[test]
    fn headers_are_found_and_sequences_wrap() {
        let headers = parse(log());
        let seen: Vec<_> = headers
            .iter()
            .map(|h| {
                (
                    h.base_offset,
                    h.last_offset,
                    h.base_sequence,
                    h.last_sequence,
                )
            })
            .collect();
        assert_eq!(seen, [(100, 102, 7, 9), (103, 105, i32::MAX - 1, 0)]);
        assert_eq!((headers[0].producer_id, headers[0].epoch), (5, 2));
    }

    #[test]
    fn a_cut_log_gives_the_headers_that_are_whole() {
        let log = log();
        let first = log.len() / 2;
        for cut in 0..log.len() {
            let wanted =
                usize::from(cut >= HEADER_BYTES) + usize::from(cut >= first + HEADER_BYTES);
            assert_eq!(parse(log.slice(..cut)).len(), wanted, "cut at {cut}");
        }
    }

    #[test]
    fn a_length_that_lies_ends_the_search() {
        for length in [i32::MIN, -1, 0, 3, i32::MAX] {
            let mut log = BytesMut::from(&log()[..]);
            log[8..12].copy_from_slice(&length.to_be_bytes());
            assert_eq!(parse(log.freeze()).len(), 1);
        }
    }
}
