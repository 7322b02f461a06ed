//! A load of devices: each keeps a window of QoS 1 or 2 messages in flight, closed loop.
//!
//! `load --addr 127.0.0.1:1883 --clients 100 --window 20 --size 256 --qos 1 --seconds 10 --topics
//! 500` (`--messages N` instead of `--seconds`; `--prefix bench/` before the topics). Prints one
//! line of JSON: messages acknowledged, seconds, messages a second, latency percentiles in
//! microseconds from write to PUBACK (PUBCOMP for QoS 2), and connections that failed. QoS 0 is
//! sent as fast as the socket takes it.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::panic,
    missing_docs
)]

mod measure;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use measure::{Latencies, packet, string};

#[derive(Clone, Debug)]
struct Options {
    addr: String,
    clients: usize,
    window: usize,
    size: usize,
    qos: u8,
    messages: Option<i64>,
    seconds: f64,
    topics: usize,
    prefix: String,
}

fn options() -> Options {
    let mut o = Options {
        addr: "127.0.0.1:1883".to_owned(),
        clients: 100,
        window: 20,
        size: 256,
        qos: 1,
        messages: None,
        seconds: 10.0,
        topics: 500,
        prefix: "bench/".to_owned(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args
            .next()
            .unwrap_or_else(|| panic!("{name} needs a value"));
        match name.as_str() {
            "--addr" => o.addr = value,
            "--clients" => o.clients = value.parse().unwrap(),
            "--window" => o.window = value.parse().unwrap(),
            "--size" => o.size = value.parse().unwrap(),
            "--qos" => o.qos = value.parse().unwrap(),
            "--messages" => o.messages = Some(value.parse().unwrap()),
            "--seconds" => o.seconds = value.parse().unwrap(),
            "--topics" => o.topics = value.parse().unwrap(),
            "--prefix" => o.prefix = value,
            _ => panic!("unknown option {name}"),
        }
    }
    o
}

/// What all clients share: how many messages are left, whether time is up, and what was measured.
#[derive(Debug)]
struct Run {
    left: AtomicI64,
    stop: AtomicBool,
    acked: AtomicU64,
    latencies: Latencies,
}

/// One device: its packets differ in nothing but topic and packet id.
struct Client {
    options: Options,
    run: Arc<Run>,
    packets: Vec<Vec<u8>>,
    turn: usize,
    sent_at: Vec<Instant>,
    free: Vec<u16>,
    random: u64,
}

/// Every other 16 bytes of a payload are random hex digits, so that it compresses as readings do:
/// by about two and a half.
fn vary(payload: &mut [u8], random: &mut u64) {
    for piece in payload.chunks_exact_mut(32) {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        for (at, digit) in piece[..16].iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(*random >> (4 * at)) as usize & 15];
        }
    }
}

impl Client {
    fn new(number: usize, options: &Options, run: &Arc<Run>) -> Self {
        let per_client = options.topics.div_ceil(options.clients).max(1);
        let packets = (0..per_client)
            .map(|at| {
                let topic = (number * per_client + at) % options.topics.max(1);
                let topic = string(&format!("{}{topic:05}", options.prefix));
                let id = if options.qos > 0 { &[0, 0][..] } else { &[] };
                let payload: Vec<u8> = (0..options.size).map(|i| b'a' + (i % 26) as u8).collect();
                let mut packet = packet(0x30 | options.qos << 1, &[&topic, id, &payload]);
                let id_at = (packet.len() - payload.len() - id.len()) as u16;
                packet.extend_from_slice(&id_at.to_be_bytes());
                packet
            })
            .collect();
        Self {
            packets,
            turn: number,
            sent_at: vec![Instant::now(); options.window + 1],
            free: (1..=options.window as u16).rev().collect(),
            options: options.clone(),
            run: Arc::clone(run),
            random: 0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1),
        }
    }

    /// Fills the window.
    fn fill(&mut self, out: &mut Vec<u8>) {
        let now = Instant::now();
        while !self.free.is_empty() && !self.run.stop.load(Ordering::Relaxed) {
            if self.run.left.fetch_sub(1, Ordering::Relaxed) <= 0 {
                return;
            }
            let packet = &self.packets[self.turn % self.packets.len()];
            self.turn += 1;
            let (packet, id_at) = packet.split_at(packet.len() - 2);
            let from = out.len();
            out.extend_from_slice(packet);
            let payload = out.len() - self.options.size;
            vary(&mut out[payload..], &mut self.random);
            let id = self.free.pop().unwrap();
            self.sent_at[usize::from(id)] = now;
            if self.options.qos > 0 {
                let at = from + usize::from(u16::from_be_bytes([id_at[0], id_at[1]]));
                out[at..at + 2].copy_from_slice(&id.to_be_bytes());
            } else {
                self.free.push(id);
                self.run.acked.fetch_add(1, Ordering::Relaxed);
                if out.len() > 32_768 {
                    return;
                }
            }
        }
    }

    /// Takes the acknowledgements at the front of `data`; answers PUBRECs into `out`.
    fn acks(&mut self, data: &[u8], out: &mut Vec<u8>) -> usize {
        let now = Instant::now();
        let mut at = 0;
        let mut acked = 0;
        while data.len() - at >= 4 {
            let packet = &data[at..at + 4];
            assert_eq!(packet[1], 2, "unexpected packet {packet:?}");
            let id = u16::from_be_bytes([packet[2], packet[3]]);
            match packet[0] {
                0x50 => out.extend_from_slice(&[0x62, 2, packet[2], packet[3]]),
                0x40 | 0x70 => {
                    self.run.latencies.took(now - self.sent_at[usize::from(id)]);
                    self.free.push(id);
                    acked += 1;
                }
                other => panic!("unexpected packet type {other:#x}"),
            }
            at += 4;
        }
        self.run.acked.fetch_add(acked, Ordering::Relaxed);
        at
    }

    async fn play(mut self, number: usize) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(&self.options.addr).await?;
        stream.set_nodelay(true)?;
        let id = string(&format!("load-{}-{number}", std::process::id()));
        let mut out = packet(0x10, &[b"\0\x04MQTT\x04\x02\0\0", &id]);
        stream.write_all(&out).await?;
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).await?;
        assert_eq!(connack, [0x20, 2, 0, 0], "CONNACK");
        let mut data = vec![0; 16_384];
        let mut filled = 0;
        loop {
            out.clear();
            self.fill(&mut out);
            stream.write_all(&out).await?;
            if self.options.qos == 0 {
                if out.is_empty() {
                    break;
                }
                continue;
            }
            if self.free.len() == self.options.window {
                break;
            }
            let read = stream.read(&mut data[filled..]).await?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            out.clear();
            let taken = self.acks(&data[..filled], &mut out);
            data.copy_within(taken..filled, 0);
            filled -= taken;
            if !out.is_empty() {
                stream.write_all(&out).await?;
            }
        }
        stream.write_all(&[0xe0, 0]).await
    }
}

#[tokio::main]
async fn main() {
    let options = options();
    let run = Arc::new(Run {
        left: AtomicI64::new(options.messages.unwrap_or(i64::MAX)),
        stop: AtomicBool::new(false),
        acked: AtomicU64::new(0),
        latencies: Latencies::default(),
    });
    let start = Instant::now();
    let clients: Vec<_> = (0..options.clients)
        .map(|number| tokio::spawn(Client::new(number, &options, &run).play(number)))
        .collect();
    if options.messages.is_none() {
        tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
        run.stop.store(true, Ordering::Relaxed);
    }
    let mut failed = 0;
    for client in clients {
        if !matches!(client.await, Ok(Ok(()))) {
            failed += 1;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let acked = run.acked.load(Ordering::Relaxed);
    println!(
        "{{\"clients\":{},\"window\":{},\"size\":{},\"qos\":{},\"messages\":{acked},\"seconds\":{seconds:.3},\
         \"per_second\":{:.0},\"p50_us\":{},\"p99_us\":{},\"failed\":{failed}}}",
        options.clients,
        options.window,
        options.size,
        options.qos,
        acked as f64 / seconds,
        run.latencies.percentile(0.5),
        run.latencies.percentile(0.99),
    );
}
