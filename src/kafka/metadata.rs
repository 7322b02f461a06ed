//! What is known of the cluster: its id, its brokers, and the topics that were asked for.
//!
//! Plain state; [`super::seek`] asks the brokers.

use std::collections::HashMap;
use std::sync::Arc;

use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use tokio::time::Instant;

use super::client::{NodeId, TopicMetadata};

/// Topics that are remembered; past it all are forgotten and asked for again.
const TOPICS_MAX: usize = 100_000;

/// Codes that say that the one asked does not lead that partition, or not of that topic:
/// `UNKNOWN_TOPIC_OR_PARTITION`, `LEADER_NOT_AVAILABLE`, `NOT_LEADER_OR_FOLLOWER`,
/// `UNKNOWN_TOPIC_ID`.
pub(super) fn is_wrong_leader(code: i16) -> bool {
    matches!(code, 3 | 5 | 6 | 100)
}

#[derive(Debug)]
struct Known {
    topic: TopicMetadata,
    /// When the answer that said so was asked for.
    asked: Instant,
}

/// What is known of the cluster.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    cluster_id: Option<Arc<str>>,
    brokers: HashMap<NodeId, Arc<str>>,
    topics: HashMap<Arc<str>, Known>,
}

impl Metadata {
    pub(super) fn cluster_id(&self) -> Option<Arc<str>> {
        self.cluster_id.clone()
    }

    /// Where a broker listens. One that the newest answer lacks leads nothing, though an older
    /// answer, about other topics, said so: else nobody would ask for its topics again.
    pub(super) fn address(&mut self, node: NodeId) -> Option<Arc<str>> {
        let address = self.brokers.get(&node).cloned();
        if address.is_none() {
            self.forget_node(node);
        }
        address
    }

    /// Where all brokers listen.
    pub(super) fn addresses(&self) -> Vec<Arc<str>> {
        self.brokers.values().cloned().collect()
    }

    pub(super) fn knows(&self, node: NodeId) -> bool {
        self.brokers.contains_key(&node)
    }

    /// A topic that was well when last heard of, or any that was heard of since `asked`.
    pub(super) fn topic(&self, name: &str, asked: Option<Instant>) -> Option<TopicMetadata> {
        let known = self.topics.get(name)?;
        let fresh = match asked {
            Some(asked) => known.asked >= asked,
            None => known.topic.code == 0,
        };
        fresh.then(|| known.topic.clone())
    }

    pub(super) fn leader(&self, topic: &str, partition: i32) -> Option<(NodeId, [u8; 16])> {
        let topic = &self.topics.get(topic)?.topic;
        let leader = *topic.leaders.get(usize::try_from(partition).ok()?)?;
        leader.map(|node| (node, topic.id))
    }

    pub(super) fn forget_leader(&mut self, topic: &str, partition: i32) {
        let Ok(index) = usize::try_from(partition) else {
            return;
        };
        if let Some(known) = self.topics.get_mut(topic)
            && let Some(leader) = known.topic.leaders.get_mut(index)
        {
            *leader = None;
        }
    }

    /// Nothing is led by a broker that cannot be reached.
    pub(super) fn forget_node(&mut self, node: NodeId) {
        let topics = self.topics.values_mut();
        for leader in topics.flat_map(|known| &mut known.topic.leaders) {
            if *leader == Some(node) {
                *leader = None;
            }
        }
    }

    pub(super) fn forget_topic(&mut self, name: &str) {
        self.topics.remove(name);
    }

    /// All brokers may have moved: only the configured addresses are asked next.
    pub(super) fn forget_brokers(&mut self) {
        self.brokers.clear();
        for known in self.topics.values_mut() {
            known.topic.leaders.fill(None);
        }
    }

    /// Takes over an answer that was asked for at `asked`.
    pub(super) fn update(&mut self, answer: &MetadataResponse, asked: Instant) {
        if let Some(id) = &answer.cluster_id {
            self.cluster_id = Some(id.as_str().into());
        }
        if !answer.brokers.is_empty() {
            let brokers = answer.brokers.iter();
            self.brokers = brokers
                .map(|broker| (NodeId(broker.node_id.0), join(&broker.host, broker.port)))
                .collect();
        }
        if self.topics.len() + answer.topics.len() > TOPICS_MAX {
            self.topics.clear();
        }
        for topic in &answer.topics {
            if let Some(topic) = read(topic) {
                self.topics
                    .insert(Arc::clone(&topic.name), Known { topic, asked });
            }
        }
    }
}

fn join(host: &str, port: i32) -> Arc<str> {
    if host.contains(':') {
        format!("[{host}]:{port}").into()
    } else {
        format!("{host}:{port}").into()
    }
}

fn read(topic: &MetadataResponseTopic) -> Option<TopicMetadata> {
    let mut leaders = vec![None; topic.partitions.len()];
    for partition in &topic.partitions {
        let index = usize::try_from(partition.partition_index).ok();
        // A partition's own code does not matter: 9 (a replica is down) still names a leader, and 5
        // names −1.
        if let Some(place) = index.and_then(|index| leaders.get_mut(index))
            && partition.leader_id.0 >= 0
        {
            *place = Some(NodeId(partition.leader_id.0));
        }
    }
    Some(TopicMetadata {
        name: topic.name.as_ref()?.as_str().into(),
        id: *topic.topic_id.as_bytes(),
        code: topic.error_code,
        leaders,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition,
    };
    use kafka_protocol::protocol::StrBytes;

    fn answer(leaders: &[i32], code: i16) -> MetadataResponse {
        let partitions = leaders.iter().enumerate().map(|(index, leader)| {
            MetadataResponsePartition::default()
                .with_partition_index(index as i32)
                .with_leader_id((*leader).into())
        });
        let topic = MetadataResponseTopic::default()
            .with_name(Some(StrBytes::from_static_str("t").into()))
            .with_error_code(code)
            .with_partitions(partitions.collect());
        let broker = MetadataResponseBroker::default()
            .with_node_id(1.into())
            .with_host(StrBytes::from_static_str("::1"))
            .with_port(9092);
        MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_topics(vec![topic])
    }

    #[test]
    fn leaders_are_known_until_forgotten() {
        let mut metadata = Metadata::default();
        metadata.update(&answer(&[1, -1, 2, 1], 0), Instant::now());
        let leader = |m: &Metadata, p| m.leader("t", p).map(|(node, _)| node.0);
        assert_eq!(leader(&metadata, 0), Some(1));
        assert_eq!(leader(&metadata, 1), None);
        assert_eq!(leader(&metadata, 4), None);
        assert_eq!(leader(&metadata, -1), None);
        metadata.forget_leader("t", 0);
        assert_eq!(leader(&metadata, 0), None);
        metadata.forget_node(NodeId(1));
        assert_eq!(leader(&metadata, 3), None);
        assert_eq!(leader(&metadata, 2), Some(2));
        metadata.forget_brokers();
        assert_eq!(leader(&metadata, 2), None);
        assert!(metadata.addresses().is_empty());
    }

    #[test]
    fn a_broker_that_is_gone_from_the_newest_answer_leads_nothing() {
        let mut metadata = Metadata::default();
        // Broker 2 led when this was asked; broker 1 is the only one there now.
        metadata.update(&answer(&[1, 2], 0), Instant::now());
        assert!(metadata.leader("t", 1).is_some());
        assert_eq!(metadata.address(NodeId(2)), None);
        assert_eq!(metadata.leader("t", 1), None);
        assert!(metadata.leader("t", 0).is_some());
    }

    #[test]
    fn an_address_of_colons_is_put_in_brackets() {
        let mut metadata = Metadata::default();
        metadata.update(&answer(&[1], 0), Instant::now());
        assert_eq!(metadata.address(NodeId(1)).as_deref(), Some("[::1]:9092"));
    }

    #[test]
    fn a_topic_that_is_not_well_must_be_asked_for_again() {
        let mut metadata = Metadata::default();
        let asked = Instant::now();
        metadata.update(&answer(&[], 3), asked);
        assert!(metadata.topic("t", None).is_none());
        assert_eq!(metadata.topic("t", Some(asked)).unwrap().code, 3);
        metadata.update(&answer(&[1], 0), asked);
        assert_eq!(metadata.topic("t", None).unwrap().leaders.len(), 1);
    }
}
