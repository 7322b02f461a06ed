//! What each right in Kafka is needed for: on a broker that allows clients nothing else.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use tidegate::metrics::Counter;

use crate::harness::uplink::{Uplink, check, drained, read, under_load};
use crate::harness::{Gateway, Kafka, Load, MemorySpool, oracle, pause, wait};

/// A broker for tests of the uplink alone, each with topics of its own.
fn shared() -> &'static Kafka {
    static SHARED: OnceLock<Kafka> = OnceLock::new();
    SHARED.get_or_init(Kafka::start_with_rights)
}

/// A topic to which clients may write, and nothing else.
fn write_only(kafka: &Kafka, topic: &str, partitions: u32) {
    kafka.create_topic(topic, partitions);
    kafka.allow(&["Write"], &["--topic", topic]);
}

/// For those who read afterwards what came of it.
fn readable(kafka: &Kafka, topic: &str) {
    kafka.allow(&["Read"], &["--topic", topic, "--group", "*"]);
}

/// DESIGN.md 2.2 rule 5, over crashes that forget few and many confirmations, of several runs too.
#[test]
fn without_read_crashes_lose_and_repeat_nothing() {
    let kafka = shared();
    write_only(kafka, "blind", 5);
    let mut spool = MemorySpool::new();
    let mut sums = [0; 3];
    let counters = [
        Counter::ResumedBlind,
        Counter::BatchesAlreadyThere,
        Counter::MaybeTwice,
    ];
    for round in 0..9 {
        let uplink = Uplink::to(kafka, &spool);
        if round < 8 {
            under_load(&spool, "blind", 5, || pause(Duration::from_millis(700)));
        } else {
            drained(&spool, 30);
        }
        for (sum, counter) in sums.iter_mut().zip(counters) {
            *sum += uplink.count(counter);
        }
        uplink.kill();
        spool = spool.after_crash([0, 1, 7, 100, 1000][round % 5]);
    }
    let [blind, there, twice] = sums;
    eprintln!("{blind} streams resumed blind, {there} records there already, {twice} maybe twice");
    assert!(blind >= 20 && there >= 1_000, "the fault did not bite");
    assert_eq!(twice, 0);
    let ids = spool
        .named()
        .into_iter()
        .map(|(_, named)| named.producer_id);
    assert_eq!(ids.clone().max(), ids.min(), "a run was taken for a twin");
    readable(kafka, "blind");
    check(kafka, &spool, "blind");
}

/// 45 without READ is not always "there already": here the broker has less than it had confirmed.
#[test]
fn without_read_what_kafka_has_lost_takes_nothing_else_along() {
    let kafka = shared();
    write_only(kafka, "behind", 1);
    let spool = MemorySpool::new();
    let uplink = Uplink::to(kafka, &spool);
    spool.add("behind", 0, (10, 100));
    drained(&spool, 20);
    uplink.kill();
    let spool = spool.after_loss("behind", (10, 5));
    let uplink = Uplink::to(kafka, &spool);
    drained(&spool, 20);
    uplink.stop();
    readable(kafka, "behind");
    assert_eq!(read(kafka, "behind")[&0].len(), 15);
}

#[test]
fn without_read_kills_of_the_gateway_lose_and_repeat_nothing() {
    const KILLS: u32 = 6;
    let kafka = Kafka::start_with_rights();
    write_only(&kafka, "mqtt", 4);
    let mut gateway = Gateway::start(&kafka.bootstrap, "");
    let load = "--clients 20 --topics 100 --rate 2000 --window 40 --drain 120";
    let load = Load::start(&gateway, "blind", load);
    let names = [
        "streams_resumed_blind_total",
        "produce_batches_already_there_total",
        "disk_written_records_total",
        "maybe_twice_total",
    ];
    let mut sums = [0.0; 4];
    for kill in 0..=KILLS {
        gateway.wait_figure("sent_total", 60, |n| n >= 500.0);
        if kill < KILLS {
            // Some of the backlog is confirmed then, and no cursor was stored for up to a second.
            kafka.cluster("pause", &["1"]);
            gateway.wait_figure("disk_written_records_total", 60, |n| n >= 2_000.0);
            let sent = gateway.metrics().of("sent_total");
            kafka.cluster("cont", &["1"]);
            gateway.wait_figure("sent_total", 60, |n| n > sent);
        }
        let at = gateway.metrics();
        eprintln!("{}", at.line(&names));
        for (sum, name) in sums.iter_mut().zip(names) {
            *sum += at.of(name);
        }
        if kill < KILLS {
            gateway.kill9();
            gateway.up();
        }
    }
    said(&gateway, "mqtt", "Kafka does not let us ask");
    assert!(sums[0] >= f64::from(KILLS), "nothing was resumed blind");
    assert!(sums[1] >= 100.0, "no cursor was stale");
    assert_eq!(sums[3].to_bits(), 0);
    let ledger = load.ledger.clone();
    let done = load.stop();
    assert_eq!(done.acked, done.sent);
    gateway.wait_drained(60);
    readable(&kafka, "mqtt");
    oracle::check(&kafka, &[&ledger], "--topic mqtt").expect_clean("kills without READ");
}

const CONFIG: &str = r#"
[kafka.topic_creation]
partitions = 2
replication_factor = 1
[[proxy.route]]
mqtt = "r/g0/#rest"
topic = "writable"
[[proxy.route]]
mqtt = "r/g1/#rest"
topic = "readable"
[[proxy.route]]
mqtt = "r/g2/#rest"
topic = "hidden"
[[proxy.route]]
mqtt = "r/g3/#rest"
topic = "absent"
"#;

/// Waits until the gateway has said `what` of `topic`, and prints it.
fn said(gateway: &Gateway, topic: &str, what: &str) {
    wait(&format!("{what:?} of {topic:?} in the log"), 30, || {
        let log = fs::read_to_string(gateway.log_path()).unwrap();
        let mut lines = log.lines();
        let line = lines.find(|line| line.contains(topic) && line.contains(what))?;
        eprintln!("{line}");
        Some(())
    });
}

#[test]
fn a_right_that_is_missing_holds_up_what_needs_it_and_is_named() {
    let kafka = Kafka::start_with_rights();
    std::thread::scope(|scope| {
        for topic in ["writable", "readable", "hidden"] {
            let kafka = &kafka;
            scope.spawn(move || kafka.create_topic_with(topic, 2, "max.message.bytes=20000"));
        }
    });
    let mut gateway = Gateway::start(&kafka.bootstrap, CONFIG);
    // Ten to each topic.
    let publish = |gateway: &Gateway, name: &str| {
        let options = "--clients 1 --topics 4 --groups 4 --prefix r --count 40";
        let load = Load::start(gateway, name, options);
        let ledger = load.ledger.clone();
        assert_eq!(load.finish().acked, 40);
        ledger
    };

    let first = publish(&gateway, "nothing");
    said(&gateway, "producer id", "(31 CLUSTER_AUTHORIZATION_FAILED)");
    assert_eq!(gateway.metrics().of("sent_total").to_bits(), 0);

    // One right to WRITE anywhere is enough for a producer id.
    kafka.allow(&["Write"], &["--topic", "writable", "--topic", "absent"]);
    kafka.allow(&["Read"], &["--topic", "readable"]);
    gateway.wait_figure("sent_total", 30, |n| n == 10.0);
    let second = publish(&gateway, "some");
    gateway.wait_figure("sent_total", 30, |n| n == 20.0);
    said(&gateway, "readable", "no right to WRITE to this topic (29");
    said(&gateway, "hidden", "no right to DESCRIBE it");
    said(&gateway, "absent", "no right to CREATE it");
    let figures = ["sent_total", "buffered_records", "streams_stalled"];
    eprintln!(
        "with WRITE on one topic: {}",
        gateway.metrics().line(&figures)
    );
    gateway.wait_figure("buffered_records", 10, |n| n == 60.0);

    // No restart: what waited goes on when it may.
    kafka.allow(&["Write"], &["--topic", "readable", "--topic", "hidden"]);
    kafka.allow(&["Create"], &["--topic", "absent"]);
    gateway.wait_drained(60);
    eprintln!(
        "with WRITE and CREATE: {}",
        gateway.metrics().line(&figures)
    );

    readable(&kafka, "*");
    let pattern = "--pattern writable|readable|hidden|absent";
    let verdict = oracle::check(&kafka, &[&first, &second], pattern);
    verdict.expect_clean("rights that came late");
    too_large_at_the_door(&kafka, &mut gateway);
}

/// Without `DESCRIBE_CONFIGS` a record that is too large goes to quarantine; with it it is refused.
fn too_large_at_the_door(kafka: &Kafka, gateway: &mut Gateway) {
    let send = |gateway: &Gateway| {
        let port = gateway.mqtt.port().to_string();
        let file = gateway.folder().join("large");
        let mut random = fs::File::open("/dev/urandom").unwrap();
        let mut large = vec![0; 30_000];
        std::io::Read::read_exact(&mut random, &mut large).unwrap();
        fs::write(&file, large).unwrap();
        let mut publish = std::process::Command::new("mosquitto_pub");
        publish.args(["-V", "5", "-q", "1", "-p", &port, "-t", "r/g0/large", "-f"]);
        let output = publish.arg(file).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let answer = send(gateway);
    gateway.wait_figure("quarantined_total", 20, |n| n == 1.0);
    eprintln!("without DESCRIBE_CONFIGS: quarantined; the sender was told {answer:?}");
    kafka.allow(&["DescribeConfigs"], &["--topic", "writable"]);
    gateway.stop();
    gateway.up();
    let answer = wait("refused at the door", 20, || {
        Some(send(gateway)).filter(|answer| !answer.is_empty())
    });
    eprintln!("with DESCRIBE_CONFIGS: {answer:?}");
}
