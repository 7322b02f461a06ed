//! What each right in Kafka is needed for, on a broker that allows clients nothing else.

use std::sync::OnceLock;
use std::time::Duration;

use tidegate::metrics::Counter;

use crate::harness::uplink::{Uplink, check, drained, under_load};
use crate::harness::{Kafka, MemorySpool, pause};

/// A broker for the tests here, each with topics of its own.
fn shared() -> &'static Kafka {
    static SHARED: OnceLock<Kafka> = OnceLock::new();
    SHARED.get_or_init(Kafka::start_with_rights)
}

/// DESIGN.md 2.2 rule 5, over crashes that forget more and more confirmations.
#[test]
fn without_read_crashes_lose_and_repeat_nothing() {
    let kafka = shared();
    kafka.create_topic("blind", 5);
    kafka.allow(&["Write"], &["--topic", "blind"]);
    let mut spool = MemorySpool::new();
    for round in 0..8 {
        let uplink = Uplink::to(kafka, &spool);
        under_load(&spool, "blind", 5, || pause(Duration::from_millis(700)));
        eprintln!(
            "resumed {} already there {} maybe {} waiting {}",
            uplink.count(Counter::Resumed),
            uplink.count(Counter::BatchesAlreadyThere),
            uplink.count(Counter::MaybeTwice),
            spool.waiting(),
        );
        uplink.kill();
        spool = spool.after_crash([0, 1, 7, 100, 1000][round % 5]);
    }
    let uplink = Uplink::to(kafka, &spool);
    drained(&spool, 30);
    eprintln!(
        "resumed {} already there {} maybe {}",
        uplink.count(Counter::Resumed),
        uplink.count(Counter::BatchesAlreadyThere),
        uplink.count(Counter::MaybeTwice)
    );
    eprintln!("{:?}", spool.named());
    uplink.stop();
    kafka.allow(&["Read"], &["--topic", "blind"]);
    check(kafka, &spool, "blind");
}
