//! A partition whose replicas do not keep up goes alone on a broker's second connection, and the
//! others go on.

use std::time::{Duration, Instant};

use tidegate::metrics::Counter;

use crate::harness::uplink::{Uplink, check, drained};
use crate::harness::{Kafka, MemorySpool, pause};

/// Topics by what they need of broker 3: `all` three replicas, `two` of three, `none`.
const TOPICS: [(&str, &str, &str); 3] = [
    ("all", "1:2:3,2:1:3,1:2:3,2:1:3", "min.insync.replicas=3"),
    ("two", "1:2:3,2:1:3,1:2:3,3:1:2", "min.insync.replicas=2"),
    ("none", "1:2,2:1,1:2,2:1", "min.insync.replicas=2"),
];

fn times(spool: &MemorySpool, topic: &str, from: Instant) -> String {
    let events = spool.events();
    let of_topic = events
        .confirmed
        .iter()
        .filter(|(of, at, _)| **of == *topic && *at >= from);
    let mut times: Vec<Duration> = of_topic.map(|(_, _, time)| *time).collect();
    times.sort_unstable();
    let at = |percent: usize| {
        times
            .get(times.len() * percent / 100)
            .copied()
            .unwrap_or_default()
    };
    format!(
        "{topic}: {} confirmed, p50 {:.0?}, p99 {:.0?}, slowest {:.1?}",
        times.len(),
        at(50),
        at(99),
        times.last().copied().unwrap_or_default()
    )
}

#[test]
fn a_frozen_replica() {
    let kafka = Kafka::start(3, &[]);
    for (topic, replicas, config) in TOPICS {
        kafka.create(
            topic,
            &["--replica-assignment", replicas, "--config", config],
        );
    }
    let spool = MemorySpool::new();
    let uplink = Uplink::to(&kafka, &spool);
    let load = || {
        for (topic, _, _) in TOPICS {
            for partition in 0..4 {
                spool.add(topic, partition, (1, 100));
            }
        }
        pause(Duration::from_millis(5));
    };
    let run = |what: &str, seconds: u64| {
        for _ in 0..seconds {
            let from = Instant::now();
            while from.elapsed() < Duration::from_secs(1) {
                load();
            }
            eprintln!(
                "{what}: apart {}, repeated {}; {:?}",
                uplink.count(Counter::ProduceRequestsApart),
                uplink.count(Counter::BatchesRepeated),
                spool.events().stalled.len()
            );
            for (topic, _, _) in TOPICS {
                eprintln!(
                    "    {} waiting {}",
                    times(&spool, topic, from),
                    spool.waiting_in(topic)
                );
            }
        }
    };
    run("before", 4);
    kafka.cluster("pause", &["3"]);
    run("frozen", 20);
    kafka.cluster("cont", &["3"]);
    run("thawed", 10);
    drained(&spool, 60);
    uplink.stop();
    for (topic, _, _) in TOPICS {
        check(&kafka, &spool, topic);
    }
}
