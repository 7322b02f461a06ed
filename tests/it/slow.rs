//! A partition whose replicas do not keep up waits alone, on a broker's second connection: the
//! others go on.

use std::fs;
use std::time::{Duration, Instant};

use tidegate::metrics::Counter;

use crate::harness::uplink::{Uplink, check, drained, under_loads};
use crate::harness::{Gateway, Kafka, Load, MemorySpool, oracle, pause, wait};

/// Topic, its replicas by partition, how many of them must be in sync. What they need of broker 3:
/// `all` always, `two` until it counts as dead, `none` never.
const TOPICS: [(&str, &str, &str); 3] = [
    ("all", "1:2:3,2:1:3,1:2:3,2:1:3", "min.insync.replicas=3"),
    ("two", "1:2:3,2:1:3,1:3:2,3:1:2", "min.insync.replicas=2"),
    ("none", "1:2,2:1,1:2,2:1", "min.insync.replicas=2"),
];

fn start() -> Kafka {
    let kafka = Kafka::start(3, &[]);
    std::thread::scope(|scope| {
        for (topic, replicas, config) in TOPICS {
            let options = ["--replica-assignment", replicas, "--config", config];
            let kafka = &kafka;
            scope.spawn(move || kafka.create(topic, &options));
        }
    });
    kafka
}

/// How many of a topic's records were confirmed from then on, and 99 % of them after how long.
fn confirmed(spool: &MemorySpool, when: &str, topic: &str, from: Instant) -> (usize, Duration) {
    let events = spool.events();
    let mut times: Vec<Duration> = events
        .confirmed
        .iter()
        .filter(|(of, at, _)| **of == *topic && *at >= from)
        .map(|(_, _, time)| *time)
        .collect();
    times.sort_unstable();
    let of_100 = |n: usize| {
        times
            .get(times.len() * n / 100)
            .copied()
            .unwrap_or_default()
    };
    eprintln!(
        "{when}: {topic}: {} confirmed after p50 {:.0?}, p99 {:.0?}",
        times.len(),
        of_100(50),
        of_100(99)
    );
    (times.len(), of_100(99))
}

/// Of three looks, each of some seconds, at how a topic does: all that was confirmed, and the
/// middle one of what 99 % took. A machine that stands still for a moment spoils one look.
fn looked_at(spool: &MemorySpool, when: &str) -> [(usize, Duration); 3] {
    let looks: Vec<_> = (0..3)
        .map(|_| {
            let start = Instant::now();
            pause(Duration::from_secs(3));
            TOPICS.map(|(topic, ..)| confirmed(spool, when, topic, start))
        })
        .collect();
    [0, 1, 2].map(|topic| {
        let mut times: Vec<Duration> = looks.iter().map(|look| look[topic].1).collect();
        times.sort_unstable();
        (looks.iter().map(|look| look[topic].0).sum(), times[1])
    })
}

#[test]
fn a_frozen_replica_holds_up_those_that_need_it_and_no_others() {
    let kafka = start();
    let spool = MemorySpool::new();
    let uplink = Uplink::to(&kafka, &spool);
    let apart = || uplink.count(Counter::ProduceRequestsApart);
    let topics = TOPICS.map(|(topic, _, _)| topic);
    under_loads(&spool, &topics, (4, 1), || {
        pause(Duration::from_secs(2));
        let before = looked_at(&spool, "before");
        let sent_apart = apart();

        let start = Instant::now();
        kafka.cluster("pause", &["3"]);
        let flows = |topic| spool.waiting_in(topic) < 200;
        wait("the sick apart, the well flowing", 40, || {
            (apart() > sent_apart && spool.waiting_in("all") > 500 && flows("none")).then_some(())
        });
        eprintln!("`none` flows {:.1?} after the freeze", start.elapsed());
        wait("broker 3 counts as dead", 40, || flows("two").then_some(()));
        eprintln!("`two` flows {:.1?} after the freeze", start.elapsed());
        let sent_apart = apart();
        // Who waits for the frozen one waits for ten seconds, until it counts as dead. Two cores
        // under other tests may stand still for a whole look: then it is looked again.
        let as_before = (0..5).any(|_| {
            let during = looked_at(&spool, "frozen");
            assert_eq!(during[0].0, 0, "the fault did not bite");
            [1, 2].into_iter().all(|well| {
                let ((_, before), (count, now)) = (before[well], during[well]);
                assert!(count > 500, "the well waited too");
                now <= (2 * before).max(Duration::from_millis(50))
            })
        });
        eprintln!("{} requests apart", apart() - sent_apart);
        assert!(as_before, "the well were held up, as printed above");
        assert!(apart() > sent_apart, "the sick were not sent apart");
        kafka.cluster("cont", &["3"]);
        wait("all of it flows", 60, || flows("all").then_some(()));
    });
    drained(&spool, 60);
    assert_eq!(uplink.count(Counter::MaybeTwice), 0);
    uplink.stop();
    for topic in topics {
        check(&kafka, &spool, topic);
    }
}

const CONFIG: &str = r#"
[[proxy.route]]
mqtt = "slow/g0/#rest"
topic = "all"
[[proxy.route]]
mqtt = "slow/#rest"
topic = "two"
"#;

#[test]
fn a_dead_replica_stalls_the_topic_that_must_have_it_and_no_other() {
    let kafka = start();
    let gateway = Gateway::start(&kafka.bootstrap, CONFIG);
    let load = "--clients 10 --topics 20 --groups 2 --rate 500 --drain 60";
    let load = Load::start(&gateway, "slow", load);
    load.wait_acked(1_000, 60);
    kafka.cluster("kill", &["3"]);
    gateway.wait_figure("streams_stalled", 60, |n| n >= 4.0);
    wait("why", 30, || {
        let log = fs::read_to_string(gateway.log_path()).unwrap();
        let line = log.lines().find(|line| {
            line.contains("held up") && line.contains("all") && line.contains("NOT_ENOUGH_REPLICAS")
        })?;
        eprintln!("{line}");
        Some(())
    });
    let before = gateway.metrics();
    gateway.wait_figure("sent_total", 60, |n| n >= before.of("sent_total") + 1_000.0);
    let figures = [
        "sent_total",
        "produce_requests_apart_total",
        "buffered_records",
    ];
    eprintln!("before {}", before.line(&figures));
    eprintln!("later  {}", gateway.metrics().line(&figures));
    let apart = "produce_requests_apart_total";
    gateway.wait_figure(apart, 30, |n| n > before.of(apart));
    kafka.cluster("restart", &["3"]);
    gateway.wait_figure("streams_stalled", 60, |n| n == 0.0);
    let ledger = load.ledger.clone();
    let done = load.stop();
    assert_eq!((done.acked, done.repeated), (done.sent, 0));
    gateway.wait_drained(60);
    oracle::check(&kafka, &[&ledger], "--pattern all|two").expect_clean("a dead replica");
}
