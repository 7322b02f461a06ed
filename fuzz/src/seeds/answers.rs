//! Answers of every API in every version that is spoken, as Kafka's schemas encode them.

use bytes::BytesMut;
use kafka_protocol::messages::ResponseHeader;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse,
};
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult,
    DescribeConfigsSynonym,
};
use kafka_protocol::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, FetchResponse, FetchableTopicResponse, PartitionData,
};
use kafka_protocol::messages::init_producer_id_response::InitProducerIdResponse;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, NodeEndpoint, PartitionProduceResponse, ProduceResponse,
    TopicProduceResponse,
};
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};
use tidegate::kafka::Compression;
use tidegate::kafka::batch::{BatchIdentity, Encoder};
use tidegate::kafka::fuzz;
use tidegate::record::RecordWriter;

use super::Input;

/// All.
pub fn kafka_answers() -> Vec<Input> {
    let mut inputs = Vec::new();
    for (place, (key, versions)) in (0u8..).zip(fuzz::apis()) {
        for (nth, version) in (0u8..).zip(versions) {
            let mut input = vec![place, nth];
            input.extend(answer(key, version));
            inputs.push((format!("{key}-{version}"), input));
        }
    }
    inputs
}

fn answer(key: i16, version: i16) -> BytesMut {
    match key {
        0 => encode(version, &produce(version)),
        1 => encode(version, &fetch()),
        2 => encode(version, &offsets()),
        3 => encode(version, &metadata()),
        18 => encode(version, &api_versions(version)),
        19 => encode(version, &created(version)),
        22 => encode(version, &InitProducerIdResponse::default()),
        23 => encode(version, &log_end()),
        32 => encode(version, &configs()),
        _ => encode(version, &producers()),
    }
}

fn encode<A: Encodable + HeaderVersion>(version: i16, answer: &A) -> BytesMut {
    let mut out = BytesMut::new();
    let header = ResponseHeader::default().with_correlation_id(1);
    header
        .encode(&mut out, A::header_version(version))
        .expect("a header");
    answer
        .encode(&mut out, version)
        .expect("an answer of this version");
    out
}

fn text() -> StrBytes {
    StrBytes::from_static_str("text")
}

fn produce(version: i16) -> ProduceResponse {
    let mut partition = PartitionProduceResponse::default().with_base_offset(5);
    if version >= 8 {
        let error = BatchIndexAndErrorMessage::default();
        let error = error.with_batch_index_error_message(Some(text()));
        partition = partition
            .with_record_errors(vec![error])
            .with_error_message(Some(text()));
    }
    let mut topic = TopicProduceResponse::default().with_partition_responses(vec![partition; 2]);
    if version < 13 {
        topic = topic.with_name(text().into());
    }
    let mut answer = ProduceResponse::default().with_responses(vec![topic]);
    if version >= 10 {
        answer = answer.with_node_endpoints(vec![NodeEndpoint::default().with_host(text())]);
    }
    answer
}

fn fetch() -> FetchResponse {
    let record = RecordWriter::new(None, Some(b"value")).finish(1);
    let identity = BatchIdentity {
        producer_id: 5,
        epoch: 2,
        base_sequence: 7,
    };
    let mut encoder = Encoder::new(Compression::None, None);
    let records = encoder
        .encode([&record].into_iter(), identity, None)
        .expect("a batch");
    let partition = PartitionData::default()
        .with_aborted_transactions(Some(vec![AbortedTransaction::default(); 2]))
        .with_records(Some(records.repeat(2).into()));
    let topic = FetchableTopicResponse::default().with_topic(text().into());
    FetchResponse::default().with_responses(vec![topic.with_partitions(vec![partition])])
}

fn offsets() -> ListOffsetsResponse {
    let topic = ListOffsetsTopicResponse::default().with_name(text().into());
    let topic = topic.with_partitions(vec![ListOffsetsPartitionResponse::default()]);
    ListOffsetsResponse::default().with_topics(vec![topic])
}

fn log_end() -> OffsetForLeaderEpochResponse {
    let topic = OffsetForLeaderTopicResult::default().with_topic(text().into());
    let topic = topic.with_partitions(vec![EpochEndOffset::default()]);
    OffsetForLeaderEpochResponse::default().with_topics(vec![topic])
}

fn metadata() -> MetadataResponse {
    let partition = MetadataResponsePartition::default()
        .with_leader_id(1.into())
        .with_replica_nodes(vec![1.into(), 2.into()])
        .with_isr_nodes(vec![1.into()]);
    let topic = MetadataResponseTopic::default()
        .with_name(Some(text().into()))
        .with_partitions(vec![partition; 2]);
    let broker = MetadataResponseBroker::default()
        .with_node_id(1.into())
        .with_host(text());
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(text()))
        .with_topics(vec![topic])
}

fn api_versions(version: i16) -> ApiVersionsResponse {
    let spoken = fuzz::apis().into_iter().map(|(key, versions)| {
        ApiVersion::default()
            .with_api_key(key)
            .with_min_version(*versions.start())
            .with_max_version(*versions.end())
    });
    let answer = ApiVersionsResponse::default().with_api_keys(spoken.collect());
    if version < 3 {
        return answer;
    }
    answer
        .with_supported_features(vec![SupportedFeatureKey::default().with_name(text())])
        .with_finalized_features_epoch(3)
        .with_finalized_features(vec![FinalizedFeatureKey::default().with_name(text())])
}

fn created(version: i16) -> CreateTopicsResponse {
    let mut topic = CreatableTopicResult::default()
        .with_name(text().into())
        .with_error_message(Some(text()));
    if version >= 5 {
        let config = CreatableTopicConfigs::default().with_name(text());
        topic = topic.with_configs(Some(vec![config]));
    }
    CreateTopicsResponse::default().with_topics(vec![topic])
}

fn configs() -> DescribeConfigsResponse {
    let synonym = DescribeConfigsSynonym::default().with_name(text());
    let config = DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str("max.message.bytes"))
        .with_value(Some(StrBytes::from_static_str("1048588")))
        .with_synonyms(vec![synonym]);
    let result = DescribeConfigsResult::default().with_resource_name(text());
    DescribeConfigsResponse::default().with_results(vec![result.with_configs(vec![config])])
}

fn producers() -> DescribeProducersResponse {
    let partition = PartitionResponse::default()
        .with_error_message(Some(text()))
        .with_active_producers(vec![ProducerState::default(); 2]);
    let topic = TopicResponse::default().with_name(text().into());
    DescribeProducersResponse::default().with_topics(vec![topic.with_partitions(vec![partition])])
}
