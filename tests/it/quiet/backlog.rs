//! What a long outage's backlog costs at a start, in memory, and while it drains. Measures, so it
//! runs alone. `TIDEGATE_BACKLOG_BYTES` says how much payload.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{Gateway, Kafka, Load, backlog, gateway, pause, run};

const TOPICS: usize = 20;
const PARTITIONS: u32 = 100;
const STARTS: usize = 3;
const RSS_MAX: u64 = 64_000_000;
/// While Kafka takes it there are batches on their way, too.
const DRAINING_RSS_MAX: u64 = 96_000_000;

const CONFIG: &str = "[proxy]\ndefault_topic = \"backlog-0\"\n[spool]\nmax_bytes = \"1TiB\"";

#[test]
fn a_backlog_costs_neither_memory_nor_a_slow_start() {
    let bytes: u64 = std::env::var("TIDEGATE_BACKLOG_BYTES")
        .map_or(5_000_000_000, |bytes| bytes.parse().unwrap());
    // The log cleaner's own buffer of 128 MB, beside 2,000 partitions, is too much for its heap.
    let kafka = Kafka::start(1, &["log.cleaner.dedupe.buffer.size=4194304"]);
    let topics: Vec<String> = (0..TOPICS).map(|n| format!("backlog-{n}")).collect();
    let partitions = i32::try_from(PARTITIONS).unwrap();
    kafka.create_topics(topics.iter().map(String::as_str), partitions);
    kafka.cluster("stop", &["1"]);

    let mut gateway = Gateway::new(&kafka.bootstrap, CONFIG);
    let begin = Instant::now();
    let made = backlog::make(&gateway, bytes, (&topics, PARTITIONS));
    eprintln!(
        "{} records, {} bytes of payload in {} bytes of segment files ({:.3} a byte), made in \
         {:.0?}",
        made.records,
        made.payload,
        made.files,
        ratio(made.files, made.payload),
        begin.elapsed()
    );
    let best = (0..STARTS).map(|_| start(&mut gateway)).min().unwrap();
    let figures = gateway.metrics();
    eprintln!("{}", figures.line(&["buffered_records", "streams"]));
    assert!(figures.of("buffered_records") >= 0.99 * real(made.records));
    assert!(figures.of("streams") >= 2_000.0);

    let load = Load::start(
        &gateway,
        "more",
        "--clients 10 --topics 100 --count 1000 --drain 60",
    );
    let done = load.finish();
    assert_eq!(done.acked, 1_000);
    let waiting = memory(&gateway, "VmHWM");
    eprintln!("with 1,000 messages more: RSS {waiting} bytes at most");

    kafka.cluster("restart", &["1"]);
    gateway.wait_figure("sent_total", 60, |sent| sent > 0.0);
    pause(Duration::from_secs(10));
    let draining = memory(&gateway, "VmHWM");
    let sent = gateway.metrics().of("sent_total");
    eprintln!("draining for 10 s: {sent} records sent, RSS {draining} bytes at most");
    assert!(sent >= 1_000.0, "nothing was drained");
    assert!(
        best <= Duration::from_secs(1),
        "the best start took {best:?}"
    );
    assert!(waiting <= RSS_MAX && draining <= DRAINING_RSS_MAX);
}

/// Starts the gateway with nothing of its segments in the page cache, and gives the time from exec
/// to the first CONNACK.
fn start(gateway: &mut Gateway) -> Duration {
    if gateway.is_up() {
        gateway.kill9();
    }
    for segment in std::fs::read_dir(gateway.data_dir().join("spool/segments")).unwrap() {
        let input = format!("if={}", segment.unwrap().path().display());
        run(Command::new("dd").args([&input, "iflag=nocache", "count=0", "status=none"]));
    }
    let begin = Instant::now();
    gateway.launch(&mut Command::new(gateway::binary()));
    while !is_accepted(gateway) {
        assert!(begin.elapsed() < Duration::from_secs(60) && !gateway.has_ended());
        pause(Duration::from_millis(2));
    }
    let took = begin.elapsed();
    let rss = memory(gateway, "VmHWM");
    eprintln!("start to CONNACK {took:.0?}, RSS {rss} bytes at most");
    gateway.wait_ready();
    took
}

fn is_accepted(gateway: &Gateway) -> bool {
    let Ok(mut stream) = TcpStream::connect(gateway.mqtt) else {
        return false;
    };
    stream
        .write_all(b"\x10\x10\0\x04MQTT\x04\x02\0\0\0\x04knot")
        .unwrap();
    let mut connack = [0; 4];
    stream
        .read_exact(&mut connack)
        .is_ok_and(|()| connack == [0x20, 2, 0, 0])
}

/// A figure of `/proc/PID/status`, in bytes.
fn memory(gateway: &Gateway, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

fn ratio(part: u64, whole: u64) -> f64 {
    real(part) / real(whole)
}

#[expect(clippy::cast_precision_loss, reason = "a figure to print")]
fn real(n: u64) -> f64 {
    n as f64
}
