//! The harness itself.

use crate::harness::Kafka;

#[test]
fn a_broker_starts_dies_and_comes_back() {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("smoke", 3);
    kafka.cluster("kill", &["1"]);
    kafka.cluster("restart", &["1"]);
    assert!(kafka.tool("topics", &["--list"]).contains("smoke"));
}
