//! Loads for a broker's door, in MQTT 3.1.1: messages from publishers to subscribers in a closed
//! loop, connections that do nothing, connects over TLS. Prints one line of JSON.
//!
//! `door spread --addr A --shape in|out|pairs --publishers 50 --subscribers 50 --qos 1 --size 64
//! --window 10 --seconds 5`: a publisher sends its next message when all subscribers have got one,
//! so that nobody is ahead of anybody. `door idle --addr A --clients 10000` holds them until its
//! standard input ends. `door connect --addr A --ca FILE --clients 20 --seconds 5`: handshake,
//! CONNECT, CONNACK, DISCONNECT, again.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::panic,
    missing_docs
)]

mod measure;

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use measure::{Latencies, packet, string};

/// Publisher, number, microseconds since the start: what a payload begins with.
const HEAD_BYTES: usize = 16;

struct Options(HashMap<String, String>);

impl Options {
    fn text(&self, name: &str) -> &str {
        let found = self.0.get(name);
        found.unwrap_or_else(|| panic!("--{name} is missing"))
    }

    fn number(&self, name: &str) -> usize {
        self.text(name).parse().unwrap()
    }

    fn seconds(&self) -> Duration {
        Duration::from_secs_f64(self.text("seconds").parse().unwrap())
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mode = args.next().unwrap_or_default();
    let mut options = HashMap::new();
    while let (Some(name), Some(value)) = (args.next(), args.next()) {
        options.insert(name.trim_start_matches("--").to_owned(), value);
    }
    let options = Options(options);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let line = runtime.block_on(async {
        match mode.as_str() {
            "spread" => spread(&options).await,
            "idle" => idle(&options).await,
            "connect" => connects(&options).await,
            _ => panic!("door spread|idle|connect"),
        }
    });
    println!("{line}");
}

async fn enter<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, id: &str) {
    let connect = packet(0x10, &[b"\0\x04MQTT\x04\x02\0\0", &string(id)]);
    stream.write_all(&connect).await.unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).await.unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0], "not let in");
}

async fn open(address: &str, id: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    enter(&mut stream, id).await;
    stream
}

/// What all have in common.
struct Run {
    begun: Instant,
    stop: AtomicBool,
    /// Counted from when it is warm.
    counts: AtomicBool,
    delivered: AtomicU64,
    latencies: Latencies,
    /// Of each publisher, messages it may send.
    windows: Vec<Semaphore>,
    /// Of each publisher, copies that came.
    copies: Vec<AtomicU64>,
    copies_each: u64,
}

impl Run {
    fn came(&self, payload: &[u8]) {
        let publisher = u32::from_be_bytes(payload[..4].try_into().unwrap()) as usize;
        let sent = u64::from_be_bytes(payload[8..HEAD_BYTES].try_into().unwrap());
        if self.counts.load(Ordering::Relaxed) {
            let sent = Duration::from_micros(sent);
            self.latencies
                .took(self.begun.elapsed().saturating_sub(sent));
            self.delivered.fetch_add(1, Ordering::Relaxed);
        }
        let copies = self.copies[publisher].fetch_add(1, Ordering::Relaxed) + 1;
        if copies.is_multiple_of(self.copies_each) {
            self.windows[publisher].add_permits(1);
        }
    }
}

async fn spread(options: &Options) -> String {
    let (publishers, subscribers) = (options.number("publishers"), options.number("subscribers"));
    let shape = options.text("shape");
    let filter = |n: usize| match shape {
        "pairs" => format!("door/{n}"),
        _ => "door/#".to_owned(),
    };
    let run = Arc::new(Run {
        begun: Instant::now(),
        stop: AtomicBool::new(false),
        counts: AtomicBool::new(false),
        delivered: AtomicU64::new(0),
        latencies: Latencies::default(),
        windows: (0..publishers)
            .map(|_| Semaphore::new(options.number("window")))
            .collect(),
        copies: (0..publishers).map(|_| AtomicU64::new(0)).collect(),
        copies_each: if shape == "out" {
            subscribers as u64
        } else {
            1
        },
    });
    let (qos, size) = (
        options.number("qos") as u8,
        options.number("size").max(HEAD_BYTES),
    );
    let mut tasks = JoinSet::new();
    for n in 0..subscribers {
        let mut stream = open(options.text("addr"), &format!("sub-{n}")).await;
        let subscribe = packet(0x82, &[&[0, 1], &string(&filter(n)), &[qos]]);
        stream.write_all(&subscribe).await.unwrap();
        let mut suback = [0; 5];
        stream.read_exact(&mut suback).await.unwrap();
        assert_eq!(suback[4], qos, "not subscribed");
        tasks.spawn(subscriber(stream, Arc::clone(&run)));
    }
    for n in 0..publishers {
        let stream = open(options.text("addr"), &format!("pub-{n}")).await;
        tasks.spawn(publisher(stream, Arc::clone(&run), n, (qos, size)));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    run.counts.store(true, Ordering::Relaxed);
    println!("warm");
    let begun = Instant::now();
    tokio::time::sleep(options.seconds()).await;
    run.counts.store(false, Ordering::Relaxed);
    let seconds = begun.elapsed().as_secs_f64();
    println!("over");
    run.stop.store(true, Ordering::Relaxed);
    run.windows.iter().for_each(Semaphore::close);
    tasks.shutdown().await;
    let delivered = run.delivered.load(Ordering::Relaxed);
    let rate = delivered as f64 / seconds;
    let (p50, p99) = (
        run.latencies.percentile(0.5),
        run.latencies.percentile(0.99),
    );
    format!(
        "{{\"delivered\":{delivered},\"seconds\":{seconds:.3},\"per_second\":{rate:.0},\
         \"p50_us\":{p50},\"p99_us\":{p99}}}"
    )
}

async fn publisher(stream: TcpStream, run: Arc<Run>, number: usize, (qos, size): (u8, usize)) {
    let (mut read, mut write) = stream.into_split();
    // Acknowledgements are read and not looked at: the loop is closed by the subscribers.
    tokio::spawn(async move {
        let mut acks = [0; 4096];
        while read.read(&mut acks).await.is_ok_and(|read| read > 0) {}
    });
    let topic = string(&format!("door/{number}"));
    let (mut id, mut payload) = (0_u16, vec![b'.'; size]);
    payload[..4].copy_from_slice(&(number as u32).to_be_bytes());
    while let Ok(permit) = run.windows[number].acquire().await {
        permit.forget();
        let mut out = Vec::new();
        // What else may go goes in the same write.
        for _ in 0..=run.windows[number].forget_permits(64) {
            id = id.checked_add(1).unwrap_or(1);
            let now = run.begun.elapsed().as_micros() as u64;
            payload[8..HEAD_BYTES].copy_from_slice(&now.to_be_bytes());
            let id = if qos > 0 { &id.to_be_bytes()[..] } else { &[] };
            out.extend(packet(0x30 | qos << 1, &[&topic, id, &payload]));
        }
        if write.write_all(&out).await.is_err() || run.stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

async fn subscriber(mut stream: TcpStream, run: Arc<Run>) {
    let mut data = Vec::with_capacity(64 * 1024);
    loop {
        match stream.read_buf(&mut data).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        let (mut at, mut acks) = (0, Vec::new());
        while let Some((first, from, end)) = frame(&data[at..]) {
            let body = &data[at + from..at + end];
            at += end;
            if first >> 4 != 3 {
                continue;
            }
            let topic = usize::from(u16::from_be_bytes([body[0], body[1]])) + 2;
            let id = if first & 6 == 0 { 0 } else { 2 };
            if id > 0 {
                acks.extend_from_slice(&[0x40, 2, body[topic], body[topic + 1]]);
            }
            run.came(&body[topic + id..]);
        }
        data.drain(..at);
        if !acks.is_empty() && stream.write_all(&acks).await.is_err() {
            return;
        }
    }
}

/// First byte, where its body begins, and where it ends.
fn frame(data: &[u8]) -> Option<(u8, usize, usize)> {
    let (mut length, mut shift) = (0, 0);
    for (at, byte) in data.iter().enumerate().skip(1) {
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            let end = at + 1 + length;
            return (data.len() >= end).then_some((data[0], at + 1, end));
        }
    }
    None
}

async fn idle(options: &Options) -> String {
    let (clients, address) = (options.number("clients"), options.text("addr"));
    let mut open_ones = Vec::with_capacity(clients);
    for first in (0..clients).step_by(100) {
        let mut some = JoinSet::new();
        for n in first..clients.min(first + 100) {
            let address = address.to_owned();
            some.spawn(async move { open(&address, &format!("idle-{n}")).await });
        }
        open_ones.extend(some.join_all().await);
    }
    println!("open");
    let wait = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    wait.await.unwrap().unwrap();
    format!("{{\"clients\":{}}}", open_ones.len())
}

async fn connects(options: &Options) -> String {
    let pem = std::fs::read(options.text("ca")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&pem).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A whole handshake each time, as of devices that come for the first time.
    config.resumption = rustls::client::Resumption::disabled();
    let connector = TlsConnector::from(Arc::new(config));
    let done = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let end = begun + options.seconds();
    let mut tasks = JoinSet::new();
    println!("warm");
    for n in 0..options.number("clients") {
        let (connector, done) = (connector.clone(), Arc::clone(&done));
        let address = options.text("addr").to_owned();
        tasks.spawn(async move {
            while Instant::now() < end {
                let stream = TcpStream::connect(&address).await.unwrap();
                let name = ServerName::try_from("localhost").unwrap();
                let mut stream = connector.connect(name, stream).await.unwrap();
                enter(&mut stream, &format!("tls-{n}")).await;
                stream.write_all(&[0xe0, 0]).await.unwrap();
                // Both sides may close.
                drop(stream.shutdown().await);
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tasks.join_all().await;
    println!("over");
    let (done, seconds) = (done.load(Ordering::Relaxed), begun.elapsed().as_secs_f64());
    format!(
        "{{\"connects\":{done},\"seconds\":{seconds:.3},\"per_second\":{:.0}}}",
        done as f64 / seconds
    )
}
