//! Any bytes as what an MQTT client sends on a connection, in one piece and in many.
//!
//! input: how it begins u8 (0 as it is, 1 behind a CONNECT of 3.1.1, 2 of 5) | bytes a write u8
//! | the bytes

use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use tidegate::config::{self, RouteReport, checked};
use tidegate::proxy;
use tidegate::spool::intake::Refusal;
use tidegate::spool::{Incoming, Intake, TopicId, TopicOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What one connection may take: its pipe, its packets (64 KiB at most) and what they become.
const MEMORY_BYTES_MAX: usize = 8 << 20;
const PIPE_BYTES: usize = 1 << 20;

const CONNECT_V3: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01c";
const CONNECT_V5: &[u8] = b"\x10\x13\0\x04MQTT\x05\x02\0\x3c\x05\x11\0\0\0\x0a\0\x01c";

/// Bounds that no input reaches, because what they make of it depends on how it is cut; and no
/// client id in the records, because a client without one is given another each time.
static CONFIG: LazyLock<checked::Proxy> = LazyLock::new(|| {
    let text = r#"
        [kafka]
        bootstrap_servers = ["k:9092"]
        [proxy]
        max_packet_bytes = 65536
        max_inflight_messages = 65535
        topic_alias_max = 8
        [proxy.headers]
        client_id = ""
        [[proxy.route]]
        mqtt = "plant/+line/#rest"
        topic = "{line}"
        key = "{rest}"
        headers = { line = "{line}" }
        [[proxy.route]]
        mqtt = "t"
        topic = "t"
    "#;
    let none = |_: &checked::Proxy| RouteReport::default();
    config::parse(
        ("packets.toml".as_ref(), text),
        None,
        std::iter::empty(),
        none,
    )
    .expect("a good configuration")
    .config
    .proxy
    .expect("a proxy")
});

/// A spool in which all is safe at once.
#[derive(Debug, Default)]
struct Sink(Mutex<Vec<(TopicId, Vec<u8>)>>);

impl Intake for Sink {
    fn topic(&self, name: &str, _: &TopicOptions) -> TopicId {
        TopicId(crc32c::crc32c(name.as_bytes()))
    }

    fn record_bytes_max(&self, _: TopicId) -> usize {
        4096
    }

    fn append(&self, batch: &mut Vec<Incoming>) {
        for Incoming {
            topic,
            record,
            ticket,
        } in batch.drain(..)
        {
            assert!(record.key().is_ok() && record.value().is_ok() && record.headers().is_ok());
            self.0.lock().push((topic, record.body.to_vec()));
            if let Some(ticket) = ticket {
                ticket.to.safe(&[ticket.token]);
            }
        }
    }

    fn refused(&self, _: Refusal, _: &str, _: u64) {}
}

/// The target.
pub fn run(data: &[u8]) {
    let [begin, piece, bytes @ ..] = data else {
        return;
    };
    let begin = match begin % 3 {
        0 => &[],
        1 => CONNECT_V3,
        _ => CONNECT_V5,
    };
    let stream = [begin, bytes].concat();
    LazyLock::force(&CONFIG);
    super::within(MEMORY_BYTES_MAX, || {
        let whole = connection(&stream, stream.len().max(1));
        let pieces = connection(&stream, usize::from(*piece).max(1));
        // A PUBREL that does not wait for its PUBREC may come too early, and ends the connection.
        if !stream.contains(&0x62) {
            assert_eq!(whole, pieces, "what is kept depends on the cuts");
        }
    });
}

/// The records that a connection made of `bytes`, written so many at a time.
fn connection(bytes: &[u8], at_once: usize) -> Vec<(TopicId, Vec<u8>)> {
    let sink = Arc::new(Sink::default());
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (mut near, far) = tokio::io::duplex(PIPE_BYTES);
        let intake: Arc<dyn Intake> = Arc::clone(&sink) as _;
        let served = proxy::fuzz::serve(&CONFIG, intake, far);
        let client = async move {
            for piece in bytes.chunks(at_once) {
                if near.write_all(piece).await.is_err() {
                    break; // it has closed
                }
                tokio::task::yield_now().await;
            }
            drop(near.shutdown().await);
            let mut answers = Vec::new();
            drop(near.read_to_end(&mut answers).await);
            answers
        };
        let (served, answers) = tokio::join!(served, client);
        served.expect("routes that compile");
        check(&answers);
    });
    std::mem::take(&mut *sink.0.lock())
}

/// What the proxy says are whole packets that a server may send.
fn check(mut answers: &[u8]) {
    while let [first, length, rest @ ..] = answers {
        let known = [0x20, 0x40, 0x50, 0x62, 0x70, 0x90, 0xb0, 0xd0, 0xe0];
        assert!(known.contains(first), "type {first:#x}");
        // A SUBACK alone may be longer.
        let mut length = usize::from(*length);
        let mut rest = rest;
        if length >= 0x80 {
            let (high, behind) = rest.split_first().expect("a length of two bytes");
            assert!(
                *first == 0x90 || *first == 0xb0 || *first == 0x20,
                "{first:#x} is long"
            );
            assert!(*high < 0x80, "a length of three bytes");
            length = (length & 0x7f) | usize::from(*high) << 7;
            rest = behind;
        }
        answers = rest.get(length..).expect("a whole packet");
    }
    assert!(answers.is_empty(), "half a packet");
}
