//! Crash images of a disk, block by block: a gateway's life on a disk that logs its writes and
//! flushes; then, of moments of that log, what was flushed and a part of what was not. Each image
//! is mounted, looked at and started, one in ten drained into Kafka; and held against what had
//! been acknowledged when the power went.
//!
//! `TIDEGATE_CRASH_IMAGES=200` makes more images than four a file system. Needs root: FUSE, loop;
//! and `qemu-storage-daemon` (Debian 12: `qemu-system-common`).

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::buffer::tidegate;
use crate::harness::blocks::{BlockLog, Choice, Cut, EXT4, Kind, LoggedDisk, Mark, XFS};
use crate::harness::oracle::Verdict;
use crate::harness::{Gateway, Kafka, Load, oracle, pause, run};

/// One in this many images is drained into Kafka.
const DRAINED_EACH: usize = 10;

#[test]
#[ignore = "needs FUSE: by command, see docs/testing.md"]
fn crash_images_of_ext4_hold_what_was_acknowledged() {
    images(EXT4);
}

#[test]
#[ignore = "needs FUSE: by command, see docs/testing.md"]
fn crash_images_of_xfs_hold_what_was_acknowledged() {
    images(XFS);
}

fn config(data: &Path) -> String {
    format!(
        "[gateway]\ndata_dir = {data:?}\n\
         [spool]\nmax_bytes = \"8MiB\"\nmin_free_bytes = \"8MiB\"\nsegment_bytes = \"64KiB\"\n\
         sync_interval_ms = 150\n\
         [proxy]\nmax_packet_bytes = \"16KiB\"\n\
         [kafka.topic_creation]\npartitions = 4\nreplication_factor = 1\n"
    )
}

fn now_ms() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// A life, and all that is known of it.
struct Life {
    kafka: Kafka,
    ledger: PathBuf,
    /// Grows with each acknowledgement.
    acks: PathBuf,
    /// Before this Kafka had never been met; it is as in the folder `never`.
    met_ms: u64,
    /// Since then it is away; it is as in the folder `met`.
    gone_ms: u64,
    /// What Kafka had in the end: when each record came, and the record as `buffer dump` has it.
    in_kafka: Vec<(u64, Value)>,
    log: BlockLog,
    segments: Segments,
    /// Keeps the folders.
    _recorded: (LoggedDisk, Gateway),
}

impl Life {
    fn record(kind: Kind) -> Self {
        let kafka = Kafka::start(1, &["log.message.timestamp.type=LogAppendTime"]);
        kafka.cluster("stop", &["1"]);
        keep(&kafka, "never");
        let mut disk = LoggedDisk::new(kind);
        let data = disk.mount_point().join("data");
        let mut gateway = Gateway::start(&kafka.bootstrap, &config(&data));
        let acks = gateway.folder().join("acks");
        let marker = Marker::start(&disk, &acks);
        let load = Load::start(
            &gateway,
            kind.name,
            &format!(
                "--clients 10 --topics 40 --rate 600 --json --processes 1 --drain 120 --acks {}",
                acks.display()
            ),
        );
        let lives = |gateway: &mut Gateway| {
            load.wait_acked(1_500, 60);
            gateway.kill9();
            gateway.up();
            load.wait_acked(1_000, 60);
            assert!(gateway.stop().success());
            gateway.up();
            load.wait_acked(500, 60);
        };
        lives(&mut gateway);
        let met_ms = now_ms();
        kafka.cluster("restart", &["1"]);
        gateway.wait_figure("sent_total", 60, |sent| sent > 1_000.0);
        gateway.kill9();
        gateway.up();
        gateway.wait_figure("buffered_records", 60, |left| left < 300.0);
        kafka.cluster("kill", &["1"]);
        let gone_ms = now_ms();
        keep(&kafka, "met");
        lives(&mut gateway);
        let ledger = load.ledger.clone();
        let done = load.stop();
        assert_eq!(done.acked, done.sent);
        assert!(gateway.stop().success());
        marker.stop();
        let segments = Segments::of(&data);
        assert!(
            segments.recycled > 0,
            "no segment was recycled: {segments:?}"
        );
        Self {
            segments,
            met_ms,
            gone_ms,
            in_kafka: all_of(&kafka),
            kafka,
            ledger,
            acks,
            log: disk.end(),
            _recorded: (disk, gateway),
        }
    }

    /// What is in Kafka and what an image has, as one list: a record that is in both may be sent
    /// again, for nobody has told the image's gateway.
    fn joined(&self, dump: &[Value], by_ms: u64) -> String {
        let there = self.in_kafka.iter().filter(|(ms, _)| *ms <= by_ms);
        let there: Vec<&Value> = there.map(|(_, record)| record).collect();
        let known: BTreeSet<&str> = there.iter().map(|record| text(record, "value")).collect();
        let mut left: Vec<&Value> = dump.iter().collect();
        left.retain(|record| !known.contains(text(record, "value")));
        // Records whose partition is not known come behind those of which it is.
        left.sort_by_key(|record| {
            let number = |name: &str| record[name].as_i64();
            let partition = number("partition").filter(|number| *number >= 0);
            (partition.is_none(), partition, number("run"), number("seq"))
        });
        let all = there.into_iter().chain(left);
        all.map(|record| format!("{record}\n")).collect()
    }

    /// Judges an image's records, with those that were in Kafka by then.
    fn judge(&self, gateway: &Gateway, dump: &[Value], cut: Cut) -> Verdict {
        let path = gateway.folder().join("records");
        fs::write(&path, self.joined(dump, cut.after.ms)).unwrap();
        let arguments = format!("--acked {}", acked_path(gateway).display());
        oracle::check_dump(&path, &self.ledger, &arguments)
    }

    /// The kept folder of Kafka as it was when an image's power went, if that is known.
    fn kafka_at(&self, cut: &Cut) -> Option<&'static str> {
        match cut {
            _ if cut.after.ms < self.met_ms => Some("never"),
            _ if cut.before.ms > self.gone_ms => Some("met"),
            _ => None,
        }
    }

    /// Puts Kafka's disk back to what it was, and starts it.
    fn kafka_as(&self, kept: &str) {
        drop(fs::remove_dir_all(self.kafka.file("1/log")));
        copy(&self.kafka.file(kept), &self.kafka.file("1/log"));
        self.kafka.cluster("restart", &["1"]);
    }
}

/// Segment files at the end of a life.
#[derive(Debug, Default)]
struct Segments {
    files: usize,
    /// That were begun, over all the life.
    begun: u64,
    /// Files that held an earlier segment before.
    recycled: usize,
}

impl Segments {
    fn of(data: &Path) -> Self {
        let mut all = Self::default();
        for entry in fs::read_dir(data.join("spool/segments")).unwrap() {
            let path = entry.unwrap().path();
            let head = fs::read(&path).unwrap();
            let generation = u64::from_le_bytes(head[16..24].try_into().unwrap());
            let first = path.file_stem().unwrap().to_str().unwrap().parse();
            all.files += 1;
            all.begun = all.begun.max(generation);
            all.recycled += usize::from(first.is_ok_and(|first: u64| generation > first));
        }
        all
    }
}

fn text<'a>(record: &'a Value, name: &str) -> &'a str {
    record[name].as_str().unwrap()
}

fn keep(kafka: &Kafka, name: &str) {
    copy(&kafka.file("1/log"), &kafka.file(name));
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// Reads a Kafka that was killed, and kills it again.
fn all_of(kafka: &Kafka) -> Vec<(u64, Value)> {
    kafka.cluster("restart", &["1"]);
    let mut kcat = Command::new("kcat");
    kcat.args([
        "-C",
        "-e",
        "-q",
        "-J",
        "-t",
        "mqtt",
        "-o",
        "beginning",
        "-b",
    ]);
    let printed = run(kcat.arg(&kafka.bootstrap));
    kafka.cluster("kill", &["1"]);
    let lines = printed.lines().map(|line| {
        let got: Value = serde_json::from_str(line).unwrap();
        let record = json!({
            "topic": got["topic"], "partition": got["partition"], "seq": got["offset"],
            "key": got["key"], "value": got["payload"], "headers": [],
        });
        (got["ts"].as_u64().unwrap(), record)
    });
    lines.collect()
}

/// A thread that writes marks while there is something to mark.
struct Marker {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Marker {
    fn start(disk: &LoggedDisk, acks: &Path) -> Self {
        let (marks, acks) = (disk.marks(), acks.to_owned());
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                marks.write(Mark {
                    acked_bytes: fs::metadata(&acks).map_or(0, |file| file.len()),
                    ms: now_ms(),
                });
                pause(Duration::from_millis(3));
            }
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// What there was to lose, over all images.
#[derive(Debug, Default)]
struct Bite {
    images: usize,
    with_unflushed: usize,
    with_left_out: usize,
    with_torn_writes: usize,
    with_torn_frames: usize,
    in_outage: usize,
    drained: usize,
    acknowledged: u64,
    records: u64,
    slowest_start_ms: u128,
}

impl Bite {
    fn cut(&mut self, cut: &Cut) {
        self.images += 1;
        self.with_unflushed += usize::from(cut.unflushed > 0);
        self.with_left_out += usize::from(cut.left_out > 0);
        self.with_torn_writes += usize::from(cut.torn > 0);
    }

    fn is_drain_due(&self) -> bool {
        self.drained * DRAINED_EACH <= self.images
    }
}

/// One of these flushes, in half of all cases one that many writes waited for.
fn pick(flushes: &[(Range<usize>, usize)], choice: &mut Choice) -> Range<usize> {
    let least = if choice.below(2) == 0 { 2 } else { 1 };
    let wanted = |flush: &&(Range<usize>, usize)| flush.1 >= least;
    let mut some: Vec<_> = flushes.iter().filter(wanted).collect();
    if some.is_empty() {
        some = flushes.iter().collect();
    }
    let at = choice.below(u64::try_from(some.len()).unwrap());
    some[usize::try_from(at).unwrap()].0.clone()
}

fn images(kind: Kind) {
    let images = std::env::var("TIDEGATE_CRASH_IMAGES");
    let images: usize = images.map_or(4, |text| text.parse().unwrap());
    let mut life = Life::record(kind);
    let flushes = life.log.flushes();
    let seed = now_ms();
    let (entries, marks) = life.log.len();
    eprintln!(
        "{}: {entries} entries of the log, {marks} of them marks, {} flushes that had to write, \
         {} of them more than one write; {} records in Kafka; {:?}; seed {seed}",
        kind.name,
        flushes.len(),
        flushes.iter().filter(|flush| flush.1 > 1).count(),
        life.in_kafka.len(),
        life.segments
    );
    let data = life.log.mount_point().join("data");
    let mut gateway = Gateway::new(&life.kafka.bootstrap, &config(&data));
    let mut choice = Choice(seed);
    let (mut bite, mut problems) = (Bite::default(), Vec::new());
    for image in 0..images {
        let part = image * flushes.len() / images..(image + 1) * flushes.len() / images;
        let window = pick(&flushes[part], &mut choice);
        let cut = life.log.crash(window, &mut choice);
        bite.cut(&cut);
        let found = look(&life, &mut gateway, cut, &mut bite);
        eprintln!("image {image}: {found}");
        life.log.unmount();
        if found.contains("BAD") {
            problems.push(format!("image {image}: {found}"));
        }
    }
    eprintln!("{}: {bite:?}", kind.name);
    assert!(problems.is_empty(), "{problems:#?}");
    let bitten = bite.with_left_out + bite.with_torn_writes;
    assert!(4 * bitten >= images, "the cuts did not bite");
    // One image in five or so has a torn frame.
    assert!(
        images < 50 || bite.with_torn_frames > 0,
        "the cuts did not bite"
    );
    assert!(bite.drained > 0, "no image was drained");
}

/// Holds one image, mounted, against what had been acknowledged, before a gateway was started on
/// it and after. What is wrong is told after `BAD`.
fn look(life: &Life, gateway: &mut Gateway, cut: Cut, bite: &mut Bite) -> String {
    let acks = fs::read(&life.acks).unwrap();
    let acks = &acks[..usize::try_from(cut.before.acked_bytes).unwrap()];
    let acked = acks.iter().filter(|byte| **byte == b'\n').count() as u64;
    fs::write(acked_path(gateway), acks).unwrap();
    let mut found = format!(
        "entry {}, {} writes not flushed, {} left out, {} torn; acknowledged {acked}",
        cut.entries, cut.unflushed, cut.left_out, cut.torn
    );
    // Before the first message there may be no spool yet.
    let cold = match dumped(gateway) {
        Err(told) if acked > 0 => return format!("{found} BAD dump: {told}"),
        dumped => dumped.unwrap_or_default(),
    };
    found += &format!(", dumped {}", cold.len());
    found += &five(&life.judge(gateway, &cold, cut));
    let kept = life
        .kafka_at(&cut)
        .filter(|_| acked > 0 && bite.is_drain_due());
    if let Some(kept) = kept {
        life.kafka_as(kept);
    }
    let begin = Instant::now();
    gateway.up();
    bite.slowest_start_ms = bite.slowest_start_ms.max(begin.elapsed().as_millis());
    if kept.is_some() {
        gateway.wait_drained(120);
    }
    let figures = gateway.metrics();
    gateway.kill9();
    found += &match kept {
        Some(kept) => {
            bite.drained += 1;
            let arguments = format!("--topic mqtt --acked {}", acked_path(gateway).display());
            let verdict = oracle::check(&life.kafka, &[&life.ledger], &arguments);
            life.kafka.cluster("kill", &["1"]);
            let resumed = figures.of("streams_resumed_total");
            format!(
                "; {kept}: {} in Kafka, {resumed} resumed{}",
                verdict.records,
                five(&verdict)
            )
        }
        None => match dumped(gateway) {
            Ok(warm) if warm == cold => "; started: the same".to_owned(),
            Ok(warm) => {
                let verdict = five(&life.judge(gateway, &warm, cut));
                format!("; started: {}{verdict}", warm.len())
            }
            Err(told) => format!(" BAD dump after the start: {told}"),
        },
    };
    let [torn, damaged] = ["disk_torn_tails_total", "disk_damages_total"].map(|n| figures.of(n));
    if damaged > 0.0 {
        found += &format!(" BAD damages: {damaged}");
    }
    if torn > 0.0 {
        found += &format!("; {torn} torn tails");
    }
    bite.with_torn_frames += usize::from(torn > 0.0);
    bite.in_outage += usize::from(life.kafka_at(&cut).is_some() && acked > 0);
    bite.acknowledged += acked;
    bite.records += cold.len() as u64;
    found
}

fn acked_path(gateway: &Gateway) -> PathBuf {
    gateway.folder().join("acked")
}

/// The five numbers, or only that they are zeros.
fn five(verdict: &Verdict) -> String {
    match verdict.five() {
        [0, 0, 0, 0, 0] => ": five zeros".to_owned(),
        _ => format!(": BAD {verdict} {:?}", verdict.examples),
    }
}

/// The records that a stopped gateway's folder holds, none of it damaged; else what was said.
fn dumped(gateway: &Gateway) -> Result<Vec<Value>, String> {
    let mut printed = String::new();
    for words in ["buffer check", "buffer dump"] {
        let (code, out, err) = tidegate(gateway, words);
        if code != 0 {
            return Err(format!("{words} ended with {code}: {out}{err}"));
        }
        printed = out;
    }
    let lines = printed.lines();
    Ok(lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect())
}
