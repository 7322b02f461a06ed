//! Strangers at the MQTT door: noise, lying lengths, half packets, and thousands that never finish
//! a sentence. The gateway lives, stays small, and no good client notices.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::gateway::get;
use crate::harness::{Gateway, Kafka, Load, oracle, pause, run, wait};

const ATTACKERS: usize = 5_000;
/// Of these: so many send a CONNECT a byte at a time, and so many hold half of a large message.
const SLOW: usize = 2_000;
const HOLDING: usize = 1_000;
const HELD_BYTES: usize = 128 << 10;
const GROWTH_BYTES_MAX: f64 = 64.0 * 1024.0 * 1024.0;
/// A length of 268,435,455, the largest there is.
const LYING: [u8; 4] = [0xff, 0xff, 0xff, 0x7f];

#[test]
fn noise_and_five_thousand_slow_attackers_disturb_no_client() {
    take_many_files();
    let kafka = Kafka::shared();
    kafka.create_topic("noise", 4);
    let config = "[proxy]\ndefault_topic = \"noise\"";
    let gateway = Gateway::start(&kafka.bootstrap, config);
    let load = "--clients 10 --topics 20 --processes 1 --prefix noise --rate";
    let load = Load::start(&gateway, "noise-a", &format!("{load} 300"));
    load.wait_acked(600, 60);
    let before = memory(&gateway);

    noise(&gateway);
    lies(&gateway);
    let held = attack(&gateway);
    let large = "--clients 3 --topics 3 --processes 1 --prefix noise --count 60 --size 60000";
    let other = Load::start(&gateway, "noise-b", large);
    let second = other.ledger.clone();
    let mut peak = memory(&gateway);
    wait("good clients among attackers", 60, || {
        peak = peak.max(memory(&gateway));
        (other.now().acked >= 60).then_some(())
    });
    let done = other.finish();
    assert_eq!((done.acked, done.connects), (60, 3));
    wait("slow CONNECTs are ended", 60, || {
        peak = peak.max(memory(&gateway));
        let open = gateway.metrics().of("connections_open");
        (open <= (ATTACKERS - SLOW + 20) as f64).then_some(())
    });
    let first = load.ledger.clone();
    let done = load.stop();
    eprintln!(
        "{} attackers still connected; RSS {:.1} MB before, {:.1} MB at most; good clients: \
         {} messages in {} connects, p99 {} ms, slowest {} ms; {}",
        gateway.metrics().of("connections_open"),
        before / 1e6,
        peak / 1e6,
        done.acked,
        done.connects,
        done.p99_ms,
        done.max_ms,
        gateway
            .metrics()
            .line(&["connections_total", "protocol_errors_total"])
    );
    drop(held);
    assert_eq!(
        (done.acked, done.repeated, done.connects),
        (done.sent, 0, 10)
    );
    assert!(peak - before <= GROWTH_BYTES_MAX, "the gateway grew");
    gateway.wait_drained(60);
    let verdict = oracle::check(kafka, &[&first, &second], "--topic noise");
    verdict.expect_clean("good clients among attackers");
    let log = std::fs::read_to_string(gateway.log_path()).unwrap();
    assert!(!log.contains("panic"), "something panicked");
}

/// Lets this process and the gateways it starts have 18,000 files open, enough for two crowds.
pub fn take_many_files() {
    let me = std::process::id().to_string();
    run(Command::new("prlimit").args(["--pid", &me, "--nofile=18000:"]));
}

/// Resident memory of the gateway, in bytes.
pub fn memory(gateway: &Gateway) -> f64 {
    let (_, text) = get(gateway.api, "/metrics").unwrap();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    value.unwrap().parse().unwrap()
}

fn open(gateway: &Gateway) -> TcpStream {
    let stream = wait("a connection", 20, || TcpStream::connect(gateway.mqtt).ok());
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    stream
}

/// CONNECT of MQTT 3.1.1 with a clean session.
fn connect(id: &str) -> Vec<u8> {
    let mut packet = vec![0x10, u8::try_from(12 + id.len()).unwrap()];
    packet.extend_from_slice(b"\0\x04MQTT\x04\x02\0\0\0");
    packet.push(u8::try_from(id.len()).unwrap());
    packet.extend_from_slice(id.as_bytes());
    packet
}

/// A client that was let in.
pub fn entered(gateway: &Gateway, id: &str) -> TcpStream {
    let mut stream = open(gateway);
    stream.write_all(&connect(id)).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    stream
}

/// How long it takes until the gateway closes.
fn closed_after(mut stream: TcpStream) -> Duration {
    let begin = Instant::now();
    let mut rest = [0; 1024];
    while stream.read(&mut rest).is_ok_and(|bytes| bytes > 0) {}
    begin.elapsed()
}

/// Random bytes, before and after a CONNECT, and all packets cut anywhere.
fn noise(gateway: &Gateway) {
    let mut state = 0x5eed_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let errors = gateway.metrics().of("protocol_errors_total");
    for at in 0..400 {
        let mut stream = match at % 2 {
            0 => open(gateway),
            _ => entered(gateway, &format!("noise{at}")),
        };
        let bytes: Vec<u8> = (0..random() % 3_000)
            .map(|_| random().to_le_bytes()[3])
            .collect();
        // The gateway may have closed before all of it is written.
        drop(stream.write_all(&bytes));
    }
    let whole = connect("half");
    for length in 0..whole.len() {
        open(gateway).write_all(&whole[..length]).unwrap();
    }
    let errors = gateway.metrics().of("protocol_errors_total") - errors;
    eprintln!("noise: 400 connections, {errors} protocol errors");
    assert!(errors >= 200.0);
}

/// First packets that are no CONNECT, and lengths that nobody can mean: closed within a second.
fn lies(gateway: &Gateway) {
    let mut slowest = Duration::ZERO;
    let first = [0x30, 0xc0, 0x82, 0xe0, 0x20, 0x40, 0xd0, 0x00, 0xff].map(|kind| vec![kind, 0]);
    let mut lies: Vec<Vec<u8>> = first.into();
    for kind in [0x10, 0x30, 0x32, 0x82] {
        lies.push([&[kind], &LYING[..]].concat());
        lies.push(vec![kind, 0xff, 0xff, 0xff, 0xff, 0x01]);
    }
    for lie in &lies {
        let mut stream = open(gateway);
        stream.write_all(lie).unwrap();
        slowest = slowest.max(closed_after(stream));
        let mut stream = entered(gateway, "liar");
        stream.write_all(lie).unwrap();
        // What is no lie after a CONNECT: PINGREQ, which is answered, and DISCONNECT.
        if !matches!(lie[..], [0xc0 | 0xe0, 0]) {
            slowest = slowest.max(closed_after(stream));
        }
    }
    eprintln!("{} lies, closed after {slowest:?} at most", 2 * lies.len());
    assert!(slowest <= Duration::from_secs(1));
}

/// Five thousand that stay: some never finish their CONNECT, some hold half of a large message,
/// some have only said how long one is, some say nothing.
fn attack(gateway: &Gateway) -> Vec<TcpStream> {
    let before = gateway.metrics();
    let length = [0x32, 0x80, 0x80, 0x3c];
    let half = [&length[..], b"\0\x05noise\0\x01", &vec![b'x'; HELD_BYTES]].concat();
    let one = |at: usize| {
        let mut stream = entered(gateway, &format!("attacker{at}"));
        stream.set_nonblocking(true).unwrap();
        // As much as goes in without waiting.
        drop(match at % 3 {
            0 if at / 3 < HOLDING => stream.write_all(&half),
            1 => stream.write_all(&half[..20]),
            _ => Ok(()),
        });
        stream
    };
    let mut all: Vec<TcpStream> = (0..ATTACKERS - SLOW).map(one).collect();
    let connect = connect("slow");
    let slow = (0..SLOW).map(|_| open(gateway));
    all.extend(slow);
    let after = gateway.wait_figure("connections_total", 20, |n| {
        n >= before.of("connections_total") + ATTACKERS as f64
    });
    let open = gateway.metrics().of("connections_open");
    eprintln!(
        "{ATTACKERS} attackers: {} accepted, {open} connections open",
        after - before.of("connections_total")
    );
    for byte in &connect[..8] {
        for stream in &mut all[ATTACKERS - SLOW..] {
            // Those that were ended in the meantime are written to in vain.
            drop(stream.write_all(&[*byte]));
        }
        pause(Duration::from_millis(100));
    }
    all
}
