//! `kill -9` of the gateway in the middle of load, a third each with Kafka up, with Kafka down, and
//! while a backlog drains.

use std::time::Duration;

use crate::harness::{Figures, Gateway, Kafka, Load, oracle, pause, wait};

const CONFIG: &str = r#"
[kafka.topic_creation]
partitions = 4
replication_factor = 1
[[proxy.route]]
mqtt = "kill/+group/#rest"
topic = "kill-{group}"
"#;
/// Kills of a kind in a row; a hundred in all make a round.
const KILLS_EACH: u32 = 34;
/// Records that wait for Kafka's answer when the gateway is killed in mid-load.
const ON_THEIR_WAY: f64 = 10.0;
/// Records that must wait for Kafka before a drain is let begin.
const BACKLOG: f64 = 4_000.0;

/// What was there to lose, summed over the kills.
#[derive(Debug, Default)]
struct Bite {
    kills: u32,
    buffered: f64,
    on_disk: f64,
    resumed: f64,
    already_there: f64,
    maybe_twice: f64,
}

impl Bite {
    fn kill(&mut self, gateway: &mut Gateway, at: &Figures) {
        gateway.kill9();
        self.kills += 1;
        self.buffered += at.of("buffered_records");
        self.on_disk += at.of("disk_written_records_total");
        self.resumed += at.of("streams_resumed_total");
        self.already_there += at.of("produce_batches_already_there_total");
        self.maybe_twice += at.of("maybe_twice_total");
    }
}

#[test]
fn a_hundred_kills_under_load_lose_repeat_and_reorder_nothing() {
    let wanted = std::env::var("TIDEGATE_KILLS").map_or(100, |kills| kills.parse().unwrap());
    let rounds = u32::div_ceil(wanted, 3 * KILLS_EACH);
    let kafka = Kafka::start(1, &[]);
    let mut gateway = Gateway::start(&kafka.bootstrap, CONFIG);
    let load = Load::start(
        &gateway,
        "kill",
        "--clients 20 --topics 100 --groups 3 --rate 4000 --window 40 --size 150 --drain 120",
    );
    load.wait_acked(1_000, 60);
    for _ in 0..rounds {
        round(&kafka, &mut gateway);
    }

    let ledger = load.ledger.clone();
    let done = load.stop();
    eprintln!(
        "{} kills; {} repeated by the senders in {} connects",
        rounds * 3 * KILLS_EACH,
        done.repeated,
        done.connects
    );
    assert!(done.connects >= u64::from(rounds * 3 * KILLS_EACH));
    assert_eq!(done.acked, done.sent);
    gateway.wait_drained(120);
    oracle::check(&kafka, &[&ledger], "--pattern kill-.*").expect_clean("a hundred kills");
}

fn round(kafka: &Kafka, gateway: &mut Gateway) {
    let up = kill_in_mid_load(gateway, "sent_total");
    eprintln!("Kafka up: {up:.0?}");
    assert!(up.buffered >= 200.0, "the fault did not bite");
    kafka.cluster("kill", &["1"]);
    let down = kill_in_mid_load(gateway, "acknowledged_total");
    eprintln!("Kafka down: {down:.0?}");
    assert!(down.on_disk >= 1_000.0, "the fault did not bite");
    kafka.cluster("restart", &["1"]);
    let draining = kill_while_draining(gateway, kafka);
    eprintln!("a backlog draining: {draining:.0?}");
    assert!(draining.resumed >= 20.0, "the fault did not bite");
}

/// Kills when at least 200 messages of this life are as `figure` counts, and a little later each
/// time.
fn kill_in_mid_load(gateway: &mut Gateway, figure: &str) -> Bite {
    let mut bite = Bite::default();
    for round in 0..KILLS_EACH {
        gateway.wait_figure(figure, 60, |n| n >= 200.0);
        pause(Duration::from_millis(u64::from(round) * 13));
        let at = wait("records on their way", 60, || {
            let at = gateway.metrics();
            (at.of("buffered_records") >= ON_THEIR_WAY).then_some(at)
        });
        bite.kill(gateway, &at);
        gateway.up();
    }
    bite
}

/// Kills when some records of this life's backlog are confirmed and others still wait.
fn kill_while_draining(gateway: &mut Gateway, kafka: &Kafka) -> Bite {
    let mut bite = Bite::default();
    for _ in 0..3 * KILLS_EACH {
        kafka.cluster("pause", &["1"]);
        gateway.wait_figure("buffered_records", 60, |n| n >= BACKLOG);
        let before = gateway.metrics().of("sent_total");
        kafka.cluster("cont", &["1"]);
        let at = wait("the drain begins", 60, || {
            let at = gateway.metrics();
            (at.of("sent_total") > before).then_some(at)
        });
        if at.of("buffered_records") > 0.0 {
            bite.kill(gateway, &at);
            gateway.up();
        }
        if bite.kills == KILLS_EACH {
            return bite;
        }
    }
    panic!("the backlog was gone before the kill: {bite:?}");
}
