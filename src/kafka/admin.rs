//! Topics: created, and asked for the configs that bear on our promises.

use std::str::FromStr;

use kafka_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use kafka_protocol::messages::describe_configs_request::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::protocol::StrBytes;

use super::client::{Client, CreateOutcome, Error, TopicLimits};
use super::versions::{CREATE_TOPICS, DESCRIBE_CONFIGS};

/// `TOPIC_ALREADY_EXISTS`
const EXISTS: i16 = 36;
/// `TOPIC_AUTHORIZATION_FAILED`
const DENIED: i16 = 29;
/// `ConfigResource.Type.TOPIC`
const TOPIC: i8 = 2;

impl Client {
    /// Creates a topic; −1 partitions or replicas: as the cluster sees fit.
    ///
    /// # Errors
    /// [`Error::Code`] when the cluster refuses.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        replicas: i16,
        configs: &[(String, String)],
    ) -> Result<CreateOutcome, Error> {
        let configs = configs.iter().map(|(key, value)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_string(key.clone()))
                .with_value(Some(StrBytes::from_string(value.clone())))
        });
        let topic = CreatableTopic::default()
            .with_name(StrBytes::from_string(name.to_owned()).into())
            .with_num_partitions(partitions)
            .with_replication_factor(replicas)
            .with_configs(configs.collect());
        let timeout = i32::try_from(self.inner.config.server_timeout.as_millis());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(timeout.unwrap_or(i32::MAX));
        let answer = self.inner.ask_any(&CREATE_TOPICS, &request).await?;
        let code = answer.topics.first().map_or(0, |topic| topic.error_code);
        self.inner.metadata.lock().forget_topic(name);
        match code {
            0 => Ok(CreateOutcome::Created),
            EXISTS => Ok(CreateOutcome::Exists),
            code => Err(Error::Code {
                what: "create a topic",
                code,
            }),
        }
    }

    /// The configs that bear on our promises; all `None` when we may not read them.
    ///
    /// # Errors
    /// [`Error::Code`]: 3 when there is no such topic, and others.
    pub async fn topic_limits(&self, name: &str) -> Result<TopicLimits, Error> {
        let keys = [
            "max.message.bytes",
            "min.insync.replicas",
            "retention.ms",
            "message.timestamp.before.max.ms",
            "message.timestamp.after.max.ms",
        ];
        let resource = DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(StrBytes::from_string(name.to_owned()))
            .with_configuration_keys(Some(keys.map(StrBytes::from_static_str).to_vec()));
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.inner.ask_any(&DESCRIBE_CONFIGS, &request).await?;
        let what = "describe a topic's configs";
        match answer.results.first() {
            None => Err(Error::Code { what, code: -1 }),
            Some(result) if result.error_code == 0 => Ok(read(result)),
            Some(result) if result.error_code == DENIED => Ok(TopicLimits::default()),
            Some(result) => Err(Error::Code {
                what,
                code: result.error_code,
            }),
        }
    }
}

pub(super) fn read(result: &DescribeConfigsResult) -> TopicLimits {
    fn get<T: FromStr>(result: &DescribeConfigsResult, key: &str) -> Option<T> {
        let config = result.configs.iter().find(|config| &*config.name == key)?;
        config.value.as_ref()?.parse().ok()
    }
    TopicLimits {
        message_bytes_max: get(result, "max.message.bytes"),
        min_insync_replicas: get(result, "min.insync.replicas"),
        retention_ms: get(result, "retention.ms"),
        timestamp_before_max_ms: get(result, "message.timestamp.before.max.ms"),
        timestamp_after_max_ms: get(result, "message.timestamp.after.max.ms"),
    }
}
