//! What goes first after an outage, how fast, and what a topic that cannot be sent leaves to the
//! others.

use std::process::Command;
use std::time::Duration;

use crate::harness::{Gateway, Kafka, Load, oracle, pause, run, wait};

/// Bytes a second that may come from disk in the first test.
const CAP: u64 = 96 << 10;
/// Bytes of a payload there; a record has more.
const SIZE: u64 = 1_000;

/// A route for each load: `NAME/…` goes to the topic of that name.
fn routes(priorities: &[(&str, u8)]) -> String {
    let route = |(name, priority): &(&str, u8)| {
        format!(
            "[[proxy.route]]\nmqtt = \"{name}/#rest\"\ntopic = \"{name}\"\n\
             priority = {priority}\n"
        )
    };
    priorities.iter().map(route).collect()
}

/// When Kafka appended each record of a topic, in milliseconds, ascending.
fn appended(kafka: &Kafka, topic: &str) -> Vec<u64> {
    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-e", "-q", "-b", &kafka.bootstrap, "-t", topic]);
    let text = run(kcat.args(["-f", "%T\n"]));
    let mut all: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    all.sort_unstable();
    all
}

#[test]
fn after_an_outage_live_streams_and_high_priorities_go_first_within_the_cap() {
    let kafka = Kafka::start(1, &["log.message.timestamp.type=LogAppendTime"]);
    for topic in ["high", "low", "live"] {
        kafka.create_topic(topic, 2);
    }
    let config = routes(&[("high", 7), ("low", 2), ("live", 0)])
        + &format!("[spool]\nreplay_bytes_per_second = {CAP}\n");
    let gateway = Gateway::start(&kafka.bootstrap, &config);
    let options = format!("--clients 4 --topics 20 --rate 250 --size {SIZE} --drain 60");
    let loads = ["low", "high"].map(|name| Load::start(&gateway, name, &options));
    for load in &loads {
        load.wait_acked(300, 60);
    }
    kafka.cluster("stop", &["1"]);
    gateway.wait_figure("uplink_up", 60, |up| up == 0.0);
    let before = gateway.metrics().of("sent_total");
    for load in &loads {
        load.wait_acked(1_500, 60);
    }
    let ledgers = loads.map(|load| {
        let ledger = load.ledger.clone();
        let done = load.stop();
        assert_eq!(done.acked, done.sent);
        ledger
    });
    let backlog = gateway.metrics().of("buffered_records");
    eprintln!("sent {before} before the outage, {backlog} buffered in it");
    assert!(backlog >= 3_000.0);

    kafka.cluster("restart", &["1"]);
    gateway.wait_figure("sent_total", 60, |n| n > before + 100.0);
    let live = Load::start(
        &gateway,
        "live",
        "--clients 2 --topics 4 --rate 100 --seconds 4",
    );
    let ledger = live.ledger.clone();
    let done = live.finish();
    assert_eq!(done.acked, done.sent);
    wait("all that is live in Kafka", 10, || {
        (appended(&kafka, "live").len() as u64 >= done.sent).then_some(())
    });
    let left = gateway.metrics().of("buffered_records");
    eprintln!(
        "live: {} acknowledged, p99 {} ms, {left} of the backlog left",
        done.acked, done.p99_ms
    );
    assert!(left >= 1_000.0, "the backlog was gone before the live ones");
    assert!(done.p99_ms < 1_000.0);

    gateway.wait_drained(240);
    judge_order(&kafka);
    for (name, ledger) in [
        ("low", &ledgers[0]),
        ("high", &ledgers[1]),
        ("live", &ledger),
    ] {
        oracle::check(&kafka, &[ledger], &format!("--topic {name}")).expect_clean(name);
    }
}

/// What came out of the backlog: the high priority first, and no faster than the cap.
fn judge_order(kafka: &Kafka) {
    let (high, low) = (appended(kafka, "high"), appended(kafka, "low"));
    // The outage is the longest pause.
    let gap = high
        .windows(2)
        .max_by_key(|pair| pair[1] - pair[0])
        .unwrap();
    let back = gap[1];
    let replayed = |all: &[u64]| {
        all.iter()
            .copied()
            .filter(|at| *at >= back)
            .collect::<Vec<_>>()
    };
    let (high, low) = (replayed(&high), replayed(&low));
    let last_high = *high.last().unwrap();
    let overtook = low.iter().filter(|at| **at < last_high).count();
    let end = last_high.max(*low.last().unwrap());
    let seconds = (end - back) as f64 / 1e3;
    let bytes = (high.len() + low.len()) as u64 * SIZE;
    eprintln!(
        "replayed {} of high priority, then {} of low ({overtook} before the last high); {bytes} \
         bytes in {seconds:.1} s, {:.0} a second of {CAP}",
        high.len(),
        low.len(),
        bytes as f64 / seconds
    );
    assert!(overtook * 10 <= low.len());
    // A second's burst, and the batch that leaves the bucket in debt.
    assert!(bytes as f64 <= CAP as f64 * (seconds + 2.0));
    assert!(bytes as f64 >= CAP as f64 * seconds / 4.0, "it crawls");
}

#[test]
fn a_topic_deleted_and_made_again_waits_while_others_flow() {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("sick", 3);
    kafka.create_topic("well", 3);
    let config = routes(&[("sick", 5), ("well", 5)])
        + "[[proxy.route]]\nmqtt = \"pre/#rest\"\ntopic = \"sick\"\npriority = 5\n\
           [spool]\nmemory_max_bytes = \"2MiB\"\n\
           [proxy]\nmax_inflight_bytes = \"32KiB\"\nmax_total_inflight_bytes = \"512KiB\"\n\
           max_packet_bytes = \"16KiB\"";
    let gateway = Gateway::start(&kafka.bootstrap, &config);
    // The topic's count is known before it goes.
    let pre = Load::start(
        &gateway,
        "pre",
        "--clients 1 --topics 9 --rate 100 --count 200",
    );
    pre.finish();
    gateway.wait_drained(30);
    kafka.tool("topics", &["--delete", "--topic", "sick"]);

    let options = "--clients 4 --topics 20 --rate 250 --size 1000 --drain 60";
    let sick = Load::start(&gateway, "sick", options);
    let well = Load::start(&gateway, "well", options);
    gateway.wait_figure("streams_stalled", 60, |n| n >= 1.0);
    kafka.cluster("stop", &["1"]);
    well.wait_acked(3_000, 60);
    kafka.cluster("restart", &["1"]);
    let other = || count(&kafka, "well");
    let goal = well.now().sent;
    wait("the other topic's backlog in Kafka", 60, || {
        (other() >= goal).then_some(())
    });
    let held = gateway.metrics();
    eprintln!(
        "well has {} in Kafka; {}",
        other(),
        held.line(&["buffered_records", "streams_stalled"])
    );
    assert!(
        held.of("buffered_records") >= 3_000.0,
        "the sick topic held nothing"
    );
    assert!(held.of("streams_stalled") >= 1.0);
    pause(Duration::from_secs(5));
    assert!(other() > goal, "the other topic stands still");

    kafka.create_topic("sick", 3);
    sick.wait_acked(500, 60);
    let ledgers = [("sick", sick), ("well", well)].map(|(name, load)| {
        let ledger = load.ledger.clone();
        let done = load.stop();
        assert_eq!(done.acked, done.sent, "{name}");
        (name, ledger)
    });
    gateway.wait_drained(120);
    for (name, ledger) in &ledgers {
        oracle::check(&kafka, &[ledger], &format!("--topic {name}")).expect_clean(name);
    }
    assert_eq!(gateway.metrics().of("streams_stalled"), 0.0);
}

/// Records in a topic. A broker that has just come back does not know its partitions yet.
fn count(kafka: &Kafka, topic: &str) -> u64 {
    let mut kcat = Command::new("kcat");
    kcat.args(["-Q", "-b", &kafka.bootstrap]);
    for partition in 0..3 {
        kcat.arg("-t").arg(format!("{topic}:{partition}:-1"));
    }
    let text = wait("Kafka tells how many there are", 30, || {
        let output = kcat.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then_some(text)
    });
    let offset = |line: &str| {
        line.rsplit_once(' ')
            .and_then(|(_, n)| n.parse::<u64>().ok())
    };
    text.lines().filter_map(offset).sum()
}

#[test]
fn what_is_too_large_goes_aside_and_the_rest_of_its_stream_flows() {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("mqtt", 2);
    let gateway = Gateway::start(&kafka.bootstrap, "");
    let small = "--clients 3 --topics 10 --rate 200 --size 200 --drain 60";
    let small = Load::start(&gateway, "small", small);
    small.wait_acked(300, 60);
    // The gateway knows the larger bound, so only Kafka can say no.
    let lower =
        "--alter --entity-type topics --entity-name mqtt --add-config max.message.bytes=2000";
    kafka.tool("configs", &lower.split(' ').collect::<Vec<_>>());
    let large = "--clients 1 --topics 4 --rate 5 --size 9000 --count 20 --drain 60";
    let large = Load::start(&gateway, "large", large);
    let aside = large.ledger.clone();
    let done = large.finish();
    assert_eq!((done.acked, done.sent), (20, 20));
    gateway.wait_figure("quarantined_total", 60, |n| n == 20.0);
    small.wait_acked(300, 60);
    let ledger = small.ledger.clone();
    small.stop();
    gateway.wait_drained(60);
    let arguments = format!("--topic mqtt --metrics {}", gateway.metrics_url());
    let verdict = oracle::check(&kafka, &[&ledger, &aside], &arguments);
    verdict.expect_clean("too large");
    assert_eq!((verdict.explained, verdict.ledger), (20, 20));
}
