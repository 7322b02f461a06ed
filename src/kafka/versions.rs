//! Which version of each API is spoken: the highest that the broker (asked with `ApiVersions`
//! before anything else) and this client both know.

use std::collections::HashMap;
use std::sync::Arc;

use kafka_protocol::messages::ApiVersionsResponse;

use super::client::Error;
use super::shape::{self, Shape};

/// An API, the versions of it that this client speaks, and how an operator knows it.
#[derive(Debug)]
pub(super) struct Api {
    pub key: i16,
    pub min: i16,
    pub max: i16,
    pub what: &'static str,
    /// What its answers are made of.
    pub answer: Shape,
}

macro_rules! apis {
    ($($name:ident = $key:literal, $min:literal..=$max:literal, $what:literal;)*) => {
        $(pub(super) const $name: Api = Api {
            key: $key,
            min: $min,
            max: $max,
            what: $what,
            answer: shape::$name,
        };)*
    };
}

apis! {
    // From 13 on topics are named by id: a topic deleted and made again is noticed.
    PRODUCE = 0, 3..=13, "Produce v3 (Kafka 0.11 or newer)";
    // From 13 on topics are named by id, which the names asked for here would have to be turned
    // into.
    FETCH = 1, 4..=12, "Fetch v4 to v12 (Kafka 0.11 or newer)";
    LIST_OFFSETS = 2, 1..=7, "ListOffsets v1 to v7 (Kafka 0.10.1 or newer)";
    // From 4 on a topic is not created by asking.
    METADATA = 3, 4..=13, "Metadata v4 (Kafka 0.11 or newer)";
    SASL_HANDSHAKE = 17, 1..=1, "SaslHandshake v1 (Kafka 1.0 or newer)";
    API_VERSIONS = 18, 0..=3, "ApiVersions v0 (Kafka 0.10 or newer)";
    CREATE_TOPICS = 19, 2..=7, "CreateTopics v2 (Kafka 0.11 or newer)";
    INIT_PRODUCER_ID = 22, 0..=5, "InitProducerId v0 (Kafka 0.11 or newer)";
    OFFSET_FOR_LEADER_EPOCH = 23, 2..=4, "OffsetForLeaderEpoch v2 (Kafka 2.1 or newer)";
    DESCRIBE_CONFIGS = 32, 1..=4, "DescribeConfigs v1 (Kafka 1.1 or newer)";
    // From 1 on the answer tells how long the session lasts.
    SASL_AUTHENTICATE = 36, 0..=2, "SaslAuthenticate v0 (Kafka 1.0 or newer)";
    DESCRIBE_PRODUCERS = 61, 0..=0, "DescribeProducers v0 (Kafka 2.8 or newer)";
}

/// What one broker speaks.
#[derive(Debug)]
pub(super) struct Versions {
    address: Arc<str>,
    ranges: HashMap<i16, (i16, i16)>,
}

impl Versions {
    pub(super) fn new(address: Arc<str>, answer: &ApiVersionsResponse) -> Self {
        let ranges = answer
            .api_keys
            .iter()
            .map(|api| (api.api_key, (api.min_version, api.max_version)))
            .collect();
        Self { address, ranges }
    }

    /// The highest version of `api` that both sides speak.
    pub(super) fn pick(&self, api: &Api) -> Result<i16, Error> {
        let (min, max) = self.ranges.get(&api.key).copied().unwrap_or((0, -1));
        let version = max.min(api.max);
        if version < min.max(api.min) {
            return Err(Error::Unsupported {
                address: self.address.to_string(),
                what: api.what,
            });
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::api_versions_response::ApiVersion;

    fn broker(key: i16, min: i16, max: i16) -> Versions {
        let api = ApiVersion::default()
            .with_api_key(key)
            .with_min_version(min)
            .with_max_version(max);
        let answer = ApiVersionsResponse::default().with_api_keys(vec![api]);
        Versions::new("broker:1".into(), &answer)
    }

    #[test]
    fn the_highest_common_version_is_picked() {
        assert_eq!(broker(0, 3, 11).pick(&PRODUCE).unwrap(), 11);
        assert_eq!(broker(0, 0, 99).pick(&PRODUCE).unwrap(), 13);
    }

    #[test]
    fn what_is_missing_is_named() {
        for versions in [broker(0, 14, 20), broker(0, 0, 2), broker(1, 0, 9)] {
            let text = versions.pick(&PRODUCE).unwrap_err().to_string();
            assert_eq!(
                text,
                "broker:1 does not support Produce v3 (Kafka 0.11 or newer)"
            );
        }
    }
}
