//! Flash is spared: what reaches the disk while Kafka answers, and what an outage costs. These run
//! alone: a broker starved of CPU answers late, and then spilling is right.

mod backlog;

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Gateway, Kafka, Load, pause, run, tests_dir};

const TOPICS: &str = r#"
[kafka.topic_creation]
partitions = 1
replication_factor = 1
[[proxy.route]]
mqtt = "q/+group/+name"
topic = "q-{name}"
"#;

#[test]
fn steady_traffic_writes_nothing() {
    let kafka = Kafka::start(1, &[]);
    for rate in [100_u32, 1_000] {
        let config = format!(
            "[proxy]\ndefault_topic = \"steady-{rate}\"\n\
             [kafka.topic_creation]\npartitions = 4\nreplication_factor = 1"
        );
        let gateway = Gateway::start(&kafka.bootstrap, &config);
        let load = Load::start(
            &gateway,
            "steady",
            &format!("--clients 20 --topics 100 --rate {rate} --json"),
        );
        load.wait_acked(u64::from(rate) * 3, 60);
        let quiet = (0..3).any(|_| a_quiet_minute(&gateway, rate));
        assert!(quiet, "written in each of three minutes");
        let done = load.stop();
        assert_eq!(done.acked, done.sent);
    }
}

/// Whether next to nothing was written in a minute of load. What was written is excused, for
/// another minute to show it, only where Kafka answered late or the machine stood still.
fn a_quiet_minute(gateway: &Gateway, rate: u32) -> bool {
    const LATE: Duration = Duration::from_millis(200);
    let (bytes, before) = (gateway.write_bytes(), gateway.metrics());
    let begin = Instant::now();
    let mut stalls = 0;
    while begin.elapsed() < Duration::from_secs(60) {
        let step = Instant::now();
        pause(Duration::from_millis(50));
        stalls += u32::from(step.elapsed() > LATE);
    }
    let (written, after) = (gateway.write_bytes() - bytes, gateway.metrics());
    let more = |figure: &str| after.of(figure) - before.of(figure);
    let sent = more("sent_total");
    let in_time = more("produce_seconds_bucket{le=\"0.2048\"}");
    let late = more("produce_seconds_count") - in_time;
    eprintln!(
        "{rate} messages/s for 60 s: {sent} in Kafka, {written} bytes written to disk; {late} \
         answers of Kafka after 0.2 s, the machine stood still {stalls} times"
    );
    assert!(sent >= f64::from(rate) * 50.0, "there was no load");
    let quiet = written <= 64 * 1024;
    assert!(quiet || late > 0.0 || stalls > 0, "written without need");
    quiet
}

#[test]
fn an_outage_costs_less_than_half_a_byte_for_a_byte() {
    let kafka = Kafka::start(1, &[]);
    let gateway = Gateway::start(&kafka.bootstrap, TOPICS);
    let load = Load::start(&gateway, "q", "--clients 50 --topics 500 --rate 500 --json");
    // All topics are there: what is left waits for a broker's answer, not for its topic.
    gateway.wait_figure("sent_total", 120, |n| n >= 5_000.0);
    gateway.wait_figure("buffered_records", 60, |n| n <= 20.0);
    kafka.cluster("stop", &["1"]);
    // The first segment is made, full of zeros, which is once; the outage's own cost is measured.
    gateway.wait_figure("disk_written_records_total", 60, |n| n >= 500.0);

    let (bytes, before) = (gateway.write_bytes(), gateway.metrics());
    pause(Duration::from_secs(50));
    let (written, after) = (gateway.write_bytes() - bytes, gateway.metrics());
    let payload = after.of("received_bytes_total") - before.of("received_bytes_total");
    let segments = after.of("disk_written_bytes_total") - before.of("disk_written_bytes_total");
    let ratio = f64::from(u32::try_from(written).unwrap()) / payload;
    let bare = zstd_of_bare_payloads();
    eprintln!(
        "payload {payload} bytes in 50 s; to disk {written}, {ratio:.3} a byte; into segment files \
         {:.3}; zstd -1 of the bare payloads in one piece {bare:.3}; {}",
        segments / payload,
        after.line(&["disk_commits_total", "buffered_records", "streams"])
    );

    let single = Load::start(
        &gateway,
        "single",
        "--clients 1 --topics 1 --window 1 --seconds 10",
    );
    let done = single.finish();
    eprintln!(
        "one client, window 1, meanwhile: {:.1} messages/s, PUBACK p50 {} ms",
        f64::from(u32::try_from(done.acked).unwrap()) / 10.0,
        done.p50_ms
    );
    let done = load.stop();
    assert_eq!((done.acked, done.repeated), (done.sent, 0));
    assert!(payload >= 2_000_000.0 && written > 0, "there was no outage");
    assert!(ratio <= 0.45);
}

/// Compressed size for a byte of what the same generator makes, with nothing of the gateway in it.
fn zstd_of_bare_payloads() -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("payloads");
    let status = Command::new(tests_dir("oracle/oracle"))
        .args(["sample", "--count", "25000"])
        .stdout(File::create(&path).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    run(Command::new("zstd")
        .args(["-q", "-1"])
        .arg(&path)
        .stdin(Stdio::null()));
    let size =
        |path: &std::path::Path| f64::from(u32::try_from(path.metadata().unwrap().len()).unwrap());
    size(&path.with_extension("zst")) / size(&path)
}
