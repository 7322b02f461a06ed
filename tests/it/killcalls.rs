//! Every call by which the gateway changes its files, one life each: killed there (a write is half
//! done), or failed with EIO or ENOSPC. What was acknowledged is on disk, and the next start works.
//!
//! Two scripts: a *first* life in an empty folder, and a *second* one over what a gateway with
//! other segment sizes has left, which therefore recovers, removes and recycles. Kafka is away.
//! `tests/storage/shim.c` counts the calls over all threads; strace counts each thread for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidegate::spool::log::{DiskStore, LANES, Log, LogConfig};

use crate::harness::gateway::{binary, get};
use crate::harness::{Gateway, run, tests_dir, wait};

const MESSAGES: u64 = 48;
/// Of noise, so that a dozen messages fill a segment.
const MESSAGE_BYTES: usize = 5_000;
/// Lives at the same time: they wait more than they compute.
const AT_ONCE: usize = 4;

fn config(segment_kib: u64) -> String {
    format!(
        "[proxy]\nmax_packet_bytes = \"16KiB\"\n[spool]\nsegment_bytes = \"{segment_kib}KiB\"\n\
         max_bytes = \"4MiB\"\nmin_free_bytes = 0\nsync_interval_ms = 0"
    )
}

/// What hits a life, and where.
#[derive(Clone, Copy)]
struct Fate<'a> {
    shim: &'a Path,
    what: &'a str,
    at: u64,
}

/// What became of a life.
#[derive(Debug)]
struct Life {
    acknowledged: BTreeSet<u64>,
    /// The call that was hit: its name and file; `None` when the life ended before.
    hit: Option<(String, String)>,
    /// It ended before it was ready.
    failed_start: bool,
    /// How it ended: killed, with an error, or in order when it was stopped.
    status: ExitStatus,
}

/// A connection of a device that sends one message after the other.
struct Device(TcpStream);

impl Device {
    fn connect(gateway: &Gateway) -> Option<Self> {
        let mut stream = TcpStream::connect(gateway.mqtt).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .ok()?;
        stream
            .write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01k")
            .ok()?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).ok()?;
        Some(Self(stream))
    }

    /// Gives true when the message was acknowledged, false when the gateway is gone; fails when
    /// there is no answer.
    fn publish(&mut self, message: u64) -> bool {
        let mut body = vec![0, 3, b'a', b'/', b'b', 0, 1];
        body.extend(message.to_le_bytes());
        let mut noise = message + 1;
        body.extend((0..MESSAGE_BYTES).map(|_| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise.to_le_bytes()[3]
        }));
        // Two bytes of remaining length take up to 16,383.
        let [low, high] = [body.len() % 128, body.len() / 128].map(|n| u8::try_from(n).unwrap());
        let mut packet = vec![0x32, low | 128, high];
        packet.extend(body);
        let mut answer = [0; 4];
        let sent = self.0.write_all(&packet);
        match sent.and_then(|()| self.0.read_exact(&mut answer)) {
            Ok(()) => answer == [0x40, 2, 0, 1],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("message {message} was neither acknowledged nor was the connection closed")
            }
            Err(_) => false,
        }
    }
}

fn build_shim(folder: &Path) -> PathBuf {
    let shim = folder.join("shim.so");
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&shim);
    run(cc.arg(tests_dir("storage/shim.c")).arg("-ldl"));
    shim
}

/// Starts the gateway under the shim, has it acknowledge what it will from `first` on, and stops
/// it.
fn live(gateway: &mut Gateway, fate: Fate<'_>, first: u64) -> Life {
    let calls = gateway.folder().join("calls");
    gateway.launch(
        Command::new(binary())
            .env("LD_PRELOAD", fate.shim)
            .env("SHIM_DIR", gateway.data_dir())
            .env("SHIM_LOG", &calls)
            .env("SHIM_AT", fate.at.to_string())
            .env("SHIM_DO", fate.what),
    );
    let api = gateway.api;
    let ready = wait("the gateway is ready, or gone", 60, || {
        if gateway.ended().is_some() {
            return Some(false);
        }
        get(api, "/health/ready").and_then(|(status, _)| (status == 200).then_some(true))
    });
    let mut acknowledged = BTreeSet::new();
    if ready && let Some(mut device) = Device::connect(gateway) {
        for message in first..first + MESSAGES {
            if !device.publish(message) {
                break;
            }
            acknowledged.insert(message);
        }
    }
    if ready && acknowledged.len() as u64 == MESSAGES {
        gateway.terminate();
    }
    // A connection that was closed before is the end of the process too, or the life has failed.
    let status = wait("the gateway stops", 60, || gateway.ended());
    gateway.bury();
    let text = fs::read_to_string(&calls).unwrap_or_default();
    let parts = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut lines = text.lines().map(parts);
    let hit = lines.rfind(|parts| parts[0].parse() == Ok(fate.at));
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    Life {
        acknowledged,
        hit: hit.map(|parts| (parts[1].clone(), name(&parts[2]))),
        failed_start: !ready,
        status,
    }
}

/// The messages that lie in a spool's segments.
fn on_disk(data_dir: &Path) -> BTreeSet<u64> {
    let store = DiskStore::open(&data_dir.join("spool/segments")).unwrap();
    let config = LogConfig {
        segment_bytes: 64 << 10,
        max_bytes: 4 << 20,
        min_free_bytes: 0,
        compression_level: 1,
    };
    let (log, found) = Log::open(Arc::new(store), config).unwrap();
    assert!(found.damage.is_empty(), "{:?}", found.damage);
    let reader = log.reader();
    let mut all = BTreeSet::new();
    for segment in (0..LANES).flat_map(|lane| log.segments_of(lane)) {
        let mut at = reader.first(*segment).unwrap();
        while let Some(frame) = reader.read_frame(at).unwrap() {
            at = frame.next;
            for record in frame.sections.iter().flat_map(|section| &section.records) {
                let value = record.value().unwrap().unwrap();
                all.insert(u64::from_le_bytes(value[..8].try_into().unwrap()));
            }
        }
    }
    all
}

/// What a folder of a gateway holds before the second life.
struct Before {
    folder: tempfile::TempDir,
    acknowledged: BTreeSet<u64>,
}

impl Before {
    fn make(shim: &Path) -> Self {
        let mut gateway = Gateway::new("127.0.0.1:9", &config(128));
        let nothing = Fate {
            shim,
            what: "none",
            at: 0,
        };
        let life = live(&mut gateway, nothing, 0);
        assert_eq!(life.acknowledged.len() as u64, MESSAGES);
        let folder = tempfile::tempdir().unwrap();
        copy(&gateway.data_dir(), &folder.path().join("data"));
        fs::write(
            folder.path().join("data/spool/segments/00000090.new"),
            [0; 99],
        )
        .unwrap();
        Self {
            folder,
            acknowledged: life.acknowledged,
        }
    }
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// One life with a fate, a start after it, and the count. Gives what was hit.
fn try_one(fate: Fate<'_>, before: Option<&Before>, totals: &Totals) -> Option<(String, String)> {
    let mut gateway = Gateway::new("127.0.0.1:9", &config(64));
    if let Some(before) = before {
        copy(&before.folder.path().join("data"), &gateway.data_dir());
    }
    let life = live(&mut gateway, fate, 1_000);
    let hit = life.hit.clone()?;
    let place = format!("{} at call {}, {hit:?}", fate.what, fate.at);
    let (all, end) = (life.acknowledged.len() as u64, life.status);
    let fits = match (fate.what, life.failed_start) {
        ("kill", _) => end.signal() == Some(9),
        (_, true) => end.code().is_some_and(|code| code > 0),
        _ => all == MESSAGES && end.success(),
    };
    if !fits {
        let log = gateway.log_end(8);
        totals.problem(format!("{place}: {all} acknowledged, {end}:\n{log}"));
    } else if fate.what != "kill" && life.failed_start {
        let log = gateway.log_end(1);
        totals
            .refusals
            .lock()
            .unwrap()
            .push(format!("{place}: {log}"));
    }
    let begin = Instant::now();
    gateway.up();
    let start = u64::try_from(begin.elapsed().as_millis()).unwrap();
    totals.slowest_start_ms.fetch_max(start, Ordering::Relaxed);
    gateway.kill9();
    let there = on_disk(&gateway.data_dir());
    let old = before.map(|before| &before.acknowledged);
    let wanted = life.acknowledged.iter().chain(old.into_iter().flatten());
    let missing: Vec<_> = wanted.filter(|message| !there.contains(message)).collect();
    if !missing.is_empty() {
        totals.problem(format!("{place}: lost {missing:?}"));
    }
    let acknowledged = life.acknowledged.len() as u64;
    totals
        .acknowledged
        .fetch_add(acknowledged, Ordering::Relaxed);
    Some(hit)
}

#[derive(Debug, Default)]
struct Totals {
    acknowledged: AtomicU64,
    slowest_start_ms: AtomicU64,
    /// Starts that ended with an error, for the call that failed was needed.
    refusals: Mutex<Vec<String>>,
    problems: Mutex<Vec<String>>,
}

impl Totals {
    fn problem(&self, what: String) {
        eprintln!("{what}");
        self.problems.lock().unwrap().push(what);
    }
}

/// Lives hit at call 1, 2, 3 … until one ends without being hit.
fn try_all(what: &str, script: &str, before: Option<&Before>, shim: &Path) {
    let (totals, next, end) = (
        Totals::default(),
        AtomicU64::new(1),
        AtomicU64::new(u64::MAX),
    );
    let kinds = Mutex::new(BTreeMap::<String, u64>::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    match try_one(Fate { shim, what, at }, before, &totals) {
                        Some((call, _)) => *kinds.lock().unwrap().entry(call).or_default() += 1,
                        None => {
                            end.fetch_min(at, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let kinds = kinds.into_inner().unwrap();
    let points: u64 = kinds.values().sum();
    let refusals = totals.refusals.lock().unwrap().clone();
    eprintln!(
        "{what}, {script} life: {points} points {kinds:?}; {} acknowledged; slowest start after it \
         {} ms; {} ended at their start:\n  {}",
        totals.acknowledged.load(Ordering::Relaxed),
        totals.slowest_start_ms.load(Ordering::Relaxed),
        refusals.len(),
        refusals.join("\n  ")
    );
    let problems = totals.problems.lock().unwrap();
    assert!(problems.is_empty(), "{} problems", problems.len());
    assert!(points > 60, "the faults did not bite");
    for call in ["pwrite", "fdatasync", "rename"] {
        assert!(kinds.contains_key(call), "no {call} was hit");
    }
    assert_eq!(kinds.contains_key("unlink"), before.is_some());
}

fn both_lives(what: &str) {
    let folder = tempfile::tempdir().unwrap();
    let shim = build_shim(folder.path());
    let before = Before::make(&shim);
    try_all(what, "first", None, &shim);
    try_all(what, "second", Some(&before), &shim);
}

#[test]
fn killed_at_each_storage_call_it_loses_nothing_and_starts_again() {
    both_lives("kill");
}

#[test]
fn eio_of_each_storage_call_acknowledges_nothing_and_it_goes_on() {
    both_lives("EIO");
}

#[test]
fn enospc_of_each_storage_call_acknowledges_nothing_and_it_goes_on() {
    both_lives("ENOSPC");
}
