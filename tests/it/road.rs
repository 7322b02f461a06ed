//! The main road: many foreign clients, many topics, a healthy Kafka.

use crate::harness::{Gateway, Kafka, Load, oracle};

const ROUTES: &str = r#"
[kafka.topic_creation]
partitions = 6
replication_factor = 1
[[proxy.route]]
mqtt = "road/+group/#rest"
topic = "road-{group}"
"#;

#[test]
fn a_hundred_thousand_messages_of_fifty_clients_arrive_as_they_were_sent() {
    let kafka = Kafka::shared();
    let mut gateway = Gateway::start(&kafka.bootstrap, ROUTES);
    let load = Load::start(
        &gateway,
        "road",
        "--clients 50 --topics 500 --groups 4 --count 100000 --size 200 --window 20",
    );
    let ledger = load.ledger.clone();
    let done = load.finish();
    eprintln!(
        "100,000 messages in {:.1} s, PUBACK p50 {} ms, p99 {} ms",
        done.seconds, done.p50_ms, done.p99_ms
    );
    assert_eq!(done.acked, 100_000);
    gateway.wait_drained(60);
    let figures = gateway.metrics();
    eprintln!(
        "{}",
        figures.line(&["received_total", "sent_total", "maybe_twice_total"])
    );
    let arguments = "--pattern road-.* --headers --partitions-like-java";
    let verdict = oracle::check(kafka, &[&ledger], arguments);
    verdict.expect_clean("the road");
    assert_eq!(verdict.records, 100_000);
    assert!(gateway.stop().success());
}

#[test]
fn qos_2_and_qos_0_take_the_same_road() {
    let kafka = Kafka::shared();
    let gateway = Gateway::start(&kafka.bootstrap, &ROUTES.replace("road", "both"));
    let exactly = "--qos 2 --clients 10 --topics 40 --groups 2 --count 5000 --json --prefix both";
    let exactly = Load::start(&gateway, "exactly", exactly);
    let careless =
        "--qos 0 --clients 1 --topics 40 --groups 2 --count 500 --rate 500 --prefix both";
    let exactly_ledger = exactly.ledger.clone();
    assert_eq!(exactly.finish().acked, 5_000);
    let careless = Load::start(&gateway, "careless", careless);
    let careless_ledger = careless.ledger.clone();
    careless.finish();
    gateway.wait_figure("received_total", 20, |n| n >= 5_500.0);
    gateway.wait_drained(60);
    let ledgers = [&*exactly_ledger, &careless_ledger];
    let verdict = oracle::check(kafka, &ledgers, "--pattern both-.* --headers");
    verdict.expect_clean("QoS 2 and QoS 0");
    assert_eq!(verdict.records, 5_500);
}
