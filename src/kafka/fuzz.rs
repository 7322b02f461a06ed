//! A door for `fuzz/`: a broker's answers, read as the client reads them.

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiVersionsResponse, CreateTopicsResponse, DescribeConfigsResponse, DescribeProducersResponse,
    FetchResponse, InitProducerIdResponse, ListOffsetsResponse, MetadataResponse,
    OffsetForLeaderEpochResponse, ProduceResponse,
};
use kafka_protocol::protocol::{Decodable, HeaderVersion};
use tokio::time::Instant;

use super::call;
use super::metadata::Metadata;
use super::versions::{self, Api, Versions};
use super::{admin, log};

/// APIs that [`answer`] knows, by their keys, and the versions that are spoken of each.
#[must_use]
pub fn apis() -> Vec<(i16, std::ops::RangeInclusive<i16>)> {
    let spoken = |api: &Api| (api.key, api.min..=api.max);
    ALL.iter().map(spoken).collect()
}

const ALL: [Api; 10] = [
    versions::PRODUCE,
    versions::FETCH,
    versions::LIST_OFFSETS,
    versions::METADATA,
    versions::API_VERSIONS,
    versions::CREATE_TOPICS,
    versions::INIT_PRODUCER_ID,
    versions::DESCRIBE_CONFIGS,
    versions::DESCRIBE_PRODUCERS,
    versions::OFFSET_FOR_LEADER_EPOCH,
];

/// Reads the answer to a request of the API with key `key` and makes of it what its caller does.
/// Whether it was believed.
#[must_use]
pub fn answer(key: i16, version: i16, frame: Bytes) -> bool {
    match key {
        0 => read::<ProduceResponse>(&versions::PRODUCE, frame, version).is_some(),
        1 => fetched(frame, version).is_some(),
        2 => read::<ListOffsetsResponse>(&versions::LIST_OFFSETS, frame, version).is_some(),
        3 => described(frame, version).is_some(),
        18 => spoken(frame, version).is_some(),
        19 => read::<CreateTopicsResponse>(&versions::CREATE_TOPICS, frame, version).is_some(),
        22 => read::<InitProducerIdResponse>(&versions::INIT_PRODUCER_ID, frame, version).is_some(),
        23 => {
            let api = &versions::OFFSET_FOR_LEADER_EPOCH;
            read::<OffsetForLeaderEpochResponse>(api, frame, version).is_some()
        }
        32 => configured(frame, version).is_some(),
        61 => {
            let api = &versions::DESCRIBE_PRODUCERS;
            read::<DescribeProducersResponse>(api, frame, version).is_some()
        }
        _ => false,
    }
}

fn read<A: Decodable + HeaderVersion>(api: &Api, mut frame: Bytes, version: i16) -> Option<A> {
    call::decode(api, &mut frame, version).ok()
}

fn fetched(frame: Bytes, version: i16) -> Option<()> {
    let answer: FetchResponse = read(&versions::FETCH, frame, version)?;
    for partition in answer
        .responses
        .into_iter()
        .flat_map(|topic| topic.partitions)
    {
        drop(log::parse(partition.records.unwrap_or_default()));
    }
    Some(())
}

fn described(frame: Bytes, version: i16) -> Option<()> {
    let answer: MetadataResponse = read(&versions::METADATA, frame, version)?;
    let mut metadata = Metadata::default();
    metadata.update(&answer, Instant::now());
    for name in answer.topics.iter().filter_map(|topic| topic.name.as_ref()) {
        let leaders = metadata
            .topic(name, None)
            .map_or(0, |topic| topic.leaders.len());
        for partition in 0..i32::try_from(leaders).unwrap_or(0) {
            let leader = metadata.leader(name, partition);
            metadata.forget_leader(name, partition);
            drop(leader.map(|(node, _)| metadata.address(node)));
        }
    }
    Some(())
}

fn spoken(frame: Bytes, version: i16) -> Option<()> {
    let answer: ApiVersionsResponse = read(&versions::API_VERSIONS, frame, version)?;
    let versions = Versions::new("broker:1".into(), &answer);
    for api in &ALL {
        if let Ok(picked) = versions.pick(api) {
            assert!((api.min..=api.max).contains(&picked), "{api:?} {picked}");
        }
    }
    Some(())
}

fn configured(frame: Bytes, version: i16) -> Option<()> {
    let answer: DescribeConfigsResponse = read(&versions::DESCRIBE_CONFIGS, frame, version)?;
    for result in &answer.results {
        std::hint::black_box(admin::read(result));
    }
    Some(())
}
