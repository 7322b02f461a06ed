//! Disks that are full: by the backlog of topics that nobody has seen yet, by the spool's own
//! bound, and by somebody else.

use std::time::{Duration, Instant};

use crate::harness::{Disk, Gateway, Kafka, Load, oracle, pause, wait};

/// A gateway that has never met Kafka fills its disk with records of provisional streams, is
/// refused more, and must deal and send them all when Kafka comes.
fn fills_then_meets_kafka(what: &str, data_dir: Option<&Disk>, spool: &str) {
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("mqtt", 3);
    kafka.cluster("stop", &["1"]);
    let place = data_dir.map_or_else(String::new, |disk| {
        format!("[gateway]\ndata_dir = {:?}\n", disk.path().join("data"))
    });
    let config = format!(
        "{place}[proxy]\nmax_packet_bytes = \"16KiB\"\n[spool]\nsegment_bytes = \"1MiB\"\n{spool}"
    );
    let mut gateway = Gateway::start(&kafka.bootstrap, &config);
    let arguments = "--clients 10 --topics 40 --rate 3000 --size 1000 --drain 120";
    let load = Load::start(&gateway, "unseen", arguments);
    gateway.wait_figure("spool_full", 60, |full| full == 1.0);
    pause(Duration::from_secs(2));
    let held = load.now().acked;
    pause(Duration::from_secs(2));
    let more = load.now().acked - held;
    let figures = gateway.metrics();
    let buffered = figures.of("buffered_records");
    let free = data_dir.map_or(0, Disk::free_bytes);
    eprintln!(
        "{what}: full with {buffered} records, none of them dealt; {more} acknowledged in 2 s \
         more; {free} bytes free; {}",
        figures.line(&["streams", "sent_total", "disk_errors_total"])
    );
    assert!(buffered >= 3_000.0 && figures.of("sent_total") == 0.0);
    assert!(more < 100, "it was not full: {more} acknowledged");
    gateway.kill9();
    gateway.up();
    gateway.wait_figure("buffered_records", 10, |n| n >= buffered * 0.9);
    let pid = gateway.pid();
    let begin = Instant::now();
    kafka.cluster("restart", &["1"]);
    load.wait_acked(2_000, 120);
    eprintln!(
        "{what}: takes records again {:?} after Kafka came",
        begin.elapsed()
    );
    let ledger = load.ledger.clone();
    let done = load.stop();
    assert_eq!(done.acked, done.sent);
    gateway.wait_drained(120);
    assert_eq!(gateway.pid(), pid);
    oracle::check(&kafka, &[&ledger], "--topic mqtt").expect_clean(what);
}

#[test]
fn a_disk_full_of_topics_never_seen_drains_wholly() {
    let disk = Disk::new(20 << 20);
    fills_then_meets_kafka("disk of 20 MB", Some(&disk), "min_free_bytes = 0");
}

#[test]
fn a_bound_reached_by_topics_never_seen_drains_wholly() {
    fills_then_meets_kafka("max_bytes", None, "max_bytes = \"12MiB\"");
}

#[test]
fn a_disk_filled_by_somebody_else_and_freed_takes_records_again_within_a_second() {
    let disk = Disk::new(160 << 20);
    let kafka = Kafka::start(1, &[]);
    kafka.create_topic("mqtt", 3);
    let config = format!(
        "[gateway]\ndata_dir = {:?}\n[proxy]\nmax_packet_bytes = \"16KiB\"\n\
         [spool]\nsegment_bytes = \"256KiB\"\nmin_free_bytes = 0",
        disk.path().join("data")
    );
    let gateway = Gateway::start(&kafka.bootstrap, &config);
    let arguments = "--clients 10 --topics 40 --rate 1000 --size 1000 --drain 120";
    let load = Load::start(&gateway, "filler", arguments);
    load.wait_acked(500, 60);
    kafka.cluster("stop", &["1"]);
    let cycles = std::env::var("TIDEGATE_FULL_CYCLES").map_or(20, |n| n.parse().unwrap());
    let mut times = Vec::new();
    for _ in 0..cycles {
        let before = gateway.metrics().of("safe_total");
        let filler = disk.fill();
        gateway.wait_figure("spool_full", 60, |full| full == 1.0);
        let at = gateway.metrics();
        assert!(at.of("safe_total") >= before);
        filler.free();
        let begin = Instant::now();
        let full_at = at.of("safe_total");
        wait("records are taken again", 60, || {
            (gateway.metrics().of("safe_total") > full_at).then_some(())
        });
        times.push(begin.elapsed());
        gateway.wait_figure("safe_total", 60, |n| n >= full_at + 300.0);
    }
    times.sort();
    eprintln!(
        "{cycles} times filled and freed: records taken again after {:.0?}, at most {:.0?}",
        times[cycles / 2],
        times[cycles - 1]
    );
    kafka.cluster("restart", &["1"]);
    let ledger = load.ledger.clone();
    let done = load.stop();
    assert_eq!((done.acked, done.repeated), (done.sent, 0));
    gateway.wait_drained(120);
    oracle::check(&kafka, &[&ledger], "--topic mqtt").expect_clean("filled and freed");
}
