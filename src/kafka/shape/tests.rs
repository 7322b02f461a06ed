//! The tables against `kafka-protocol`'s own schemas: what it encodes fits to the last byte, in
//! every version that this client speaks, and no count that lies does.

use crate::kafka::versions::{self, Api};
use bytes::BytesMut;
use kafka_protocol::messages::{
    ApiVersionsResponse, CreateTopicsResponse, DescribeConfigsResponse, DescribeProducersResponse,
    FetchResponse, InitProducerIdResponse, ListOffsetsResponse, MetadataResponse,
    OffsetForLeaderEpochResponse, ProduceResponse, SaslAuthenticateResponse, SaslHandshakeResponse,
    api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey},
    create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
    describe_configs_response::{
        DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
    },
    describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
    fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData},
    list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
    produce_response::{
        BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
        TopicProduceResponse,
    },
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

fn check<A: Encodable + Decodable + Clone>(api: &Api, make: impl Fn(i16) -> A) {
    for version in api.min..=api.max {
        let mut answer = BytesMut::new();
        make(version).encode(&mut answer, version).unwrap();
        let fits = |bytes: &[u8]| api.answer.fits(bytes, version);
        assert!(fits(&answer), "{} {version}", api.what);
        for cut in 0..answer.len() {
            assert!(!fits(&answer[..cut]), "{} {version} cut at {cut}", api.what);
        }
        // Whatever fits can be decoded or is refused, without running out of memory.
        for at in 0..answer.len() {
            for value in [0, 0x7f, 0x80, 0xff] {
                let mut bad = answer.to_vec();
                let end = bad.len().min(at + 4);
                bad[at..end].fill(value);
                if fits(&bad) {
                    drop(A::decode(&mut bytes::Bytes::from(bad), version));
                }
            }
        }
    }
}

fn text() -> StrBytes {
    StrBytes::from_static_str("text")
}

#[test]
fn metadata_fits() {
    let partition = MetadataResponsePartition::default()
        .with_replica_nodes(vec![1.into(), 2.into()])
        .with_isr_nodes(vec![1.into()]);
    let topic = MetadataResponseTopic::default()
        .with_name(Some(text().into()))
        .with_partitions(vec![partition; 3]);
    let answer = MetadataResponse::default()
        .with_brokers(vec![MetadataResponseBroker::default().with_host(text()); 3])
        .with_cluster_id(Some(text()))
        .with_topics(vec![topic; 2]);
    check(&versions::METADATA, |_| answer.clone());
}

#[test]
fn sasl_fits() {
    check(&versions::SASL_HANDSHAKE, |_| {
        SaslHandshakeResponse::default().with_mechanisms(vec![text(); 3])
    });
    check(&versions::SASL_AUTHENTICATE, |_| {
        SaslAuthenticateResponse::default()
            .with_error_message(Some(text()))
            .with_auth_bytes(bytes::Bytes::from_static(b"v=abc"))
    });
}

#[test]
fn produce_fits() {
    check(&versions::PRODUCE, |version| {
        let mut partition = PartitionProduceResponse::default();
        if version >= 8 {
            let error =
                BatchIndexAndErrorMessage::default().with_batch_index_error_message(Some(text()));
            partition = partition
                .with_record_errors(vec![error; 2])
                .with_error_message(Some(text()));
        }
        let mut answer = ProduceResponse::default();
        if version >= 10 {
            let leader = LeaderIdAndEpoch::default().with_leader_id(1.into());
            partition = partition.with_current_leader(leader);
            answer = answer.with_node_endpoints(vec![NodeEndpoint::default().with_host(text())]);
        }
        let mut topic =
            TopicProduceResponse::default().with_partition_responses(vec![partition; 2]);
        if version < 13 {
            topic = topic.with_name(text().into());
        }
        answer.with_responses(vec![topic; 2])
    });
}

#[test]
fn fetch_fits() {
    let partition = PartitionData::default()
        .with_aborted_transactions(Some(vec![AbortedTransaction::default(); 2]))
        .with_records(Some(bytes::Bytes::from_static(b"records")));
    let topic = FetchableTopicResponse::default()
        .with_topic(text().into())
        .with_partitions(vec![partition; 2]);
    let answer = FetchResponse::default().with_responses(vec![topic; 2]);
    check(&versions::FETCH, |_| answer.clone());
}

#[test]
fn versions_fit() {
    check(&versions::API_VERSIONS, |version| {
        let answer = ApiVersionsResponse::default().with_api_keys(vec![ApiVersion::default(); 3]);
        if version < 3 {
            return answer;
        }
        answer
            .with_supported_features(vec![SupportedFeatureKey::default().with_name(text()); 2])
            .with_finalized_features_epoch(3)
            .with_finalized_features(vec![FinalizedFeatureKey::default().with_name(text())])
    });
}

#[test]
fn offsets_and_producers_fit() {
    let topic = ListOffsetsTopicResponse::default()
        .with_name(text().into())
        .with_partitions(vec![ListOffsetsPartitionResponse::default(); 2]);
    let answer = ListOffsetsResponse::default().with_topics(vec![topic; 2]);
    check(&versions::LIST_OFFSETS, |_| answer.clone());

    check(&versions::INIT_PRODUCER_ID, |_| {
        InitProducerIdResponse::default()
    });

    let topic = OffsetForLeaderTopicResult::default()
        .with_topic(text().into())
        .with_partitions(vec![EpochEndOffset::default(); 2]);
    let answer = OffsetForLeaderEpochResponse::default().with_topics(vec![topic; 2]);
    check(&versions::OFFSET_FOR_LEADER_EPOCH, |_| answer.clone());

    let partition = PartitionResponse::default()
        .with_error_message(Some(text()))
        .with_active_producers(vec![ProducerState::default(); 3]);
    let topic = TopicResponse::default()
        .with_name(text().into())
        .with_partitions(vec![partition; 2]);
    let answer = DescribeProducersResponse::default().with_topics(vec![topic; 2]);
    check(&versions::DESCRIBE_PRODUCERS, |_| answer.clone());
}

#[test]
fn topics_and_configs_fit() {
    check(&versions::CREATE_TOPICS, |version| {
        let mut topic = CreatableTopicResult::default()
            .with_name(text().into())
            .with_error_message(Some(text()));
        if version >= 5 {
            let config = CreatableTopicConfigs::default().with_name(text());
            topic = topic
                .with_configs(Some(vec![config; 2]))
                .with_topic_config_error_code(29);
        }
        CreateTopicsResponse::default().with_topics(vec![topic; 2])
    });

    let synonym = DescribeConfigsSynonym::default().with_name(text());
    let config = DescribeConfigsResourceResult::default()
        .with_name(text())
        .with_value(Some(text()))
        .with_synonyms(vec![synonym; 2]);
    let result = DescribeConfigsResult::default()
        .with_resource_name(text())
        .with_configs(vec![config; 2]);
    let answer = DescribeConfigsResponse::default().with_results(vec![result; 2]);
    check(&versions::DESCRIBE_CONFIGS, |_| answer.clone());
}

/// Found by `fuzz/`: the codec reads eight bytes of this field whatever its tag says, and then took
/// what came next for the count of a list.
#[test]
fn a_known_tag_with_a_length_that_lies_does_not_fit() {
    let answer = ApiVersionsResponse::default().with_finalized_features_epoch(3);
    let mut bytes = BytesMut::new();
    answer.encode(&mut bytes, 3).unwrap();
    let tag = [1, 1, 8, 0, 0, 0, 0, 0, 0, 0, 3];
    let at = bytes.len() - tag.len();
    assert_eq!(bytes[at..], tag);
    let fits = |bytes: &[u8]| versions::API_VERSIONS.answer.fits(bytes, 3);
    assert!(fits(&bytes));
    for length in [0, 7, 9] {
        bytes[at + 2] = length;
        bytes.extend_from_slice(&[0; 9]);
        assert!(!fits(&bytes), "{length}");
    }
}

/// A varint of six bytes is a number to us, and five bytes and something else to the codec.
#[test]
fn a_number_that_the_codec_reads_otherwise_does_not_fit() {
    let fits = |bytes: &[u8]| versions::INIT_PRODUCER_ID.answer.fits(bytes, 2);
    let mut answer = vec![0; 4 + 2 + 8 + 2];
    answer.push(0);
    assert!(fits(&answer));
    answer.pop();
    answer.extend_from_slice(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]);
    assert!(!fits(&answer));
}
