//! Any bytes as what an MQTT client sends on a connection, in one piece and in many.
//!
//! input: how it begins u8 (0 as it is, 1 behind a CONNECT of 3.1.1, 2 of 5) | bytes a write u8
//! | the bytes

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate::config::{self, RouteReport, checked};
use tidegate::proxy;
use tidegate::spool::intake::Refusal;
use tidegate::spool::{Change, Incoming, Intake, Ticket, TopicId, TopicOptions};
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

    fn is_short(&self) -> bool {
        false
    }

    fn append(&self, batch: &mut Vec<Incoming>) {
        for Incoming {
            topic,
            record,
            ticket,
            keep: _,
        } in batch.drain(..)
        {
            assert!(record.key().is_ok() && record.value().is_ok() && record.headers().is_ok());
            self.0.lock().push((topic, record.body.to_vec()));
            if let Some(ticket) = ticket {
                ticket.to.safe(&[ticket.token]);
            }
        }
    }

    fn keep(&self, _: Vec<Change>, ticket: Option<Ticket>) {
        if let Some(ticket) = ticket {
            tokio::spawn(async move { ticket.to.safe(&[ticket.token]) });
        }
    }

    fn kept(&self) -> Vec<(Bytes, Bytes)> {
        Vec::new()
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
        // A PUBREL that does not wait for its PUBREC may come too early, and ends the connection;
        // so may a subscriber's acknowledgement of what it has not got.
        let early = |byte: &u8| [0x40, 0x50, 0x62, 0x70].contains(byte);
        if !stream.iter().any(early) {
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
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let (mut reads, mut writes) = tokio::io::split(near);
        let intake: Arc<dyn Intake> = Arc::clone(&sink) as _;
        let served = proxy::fuzz::serve(&CONFIG, intake, far);
        let client = async {
            for piece in bytes.chunks(at_once) {
                if writes.write_all(piece).await.is_err() {
                    break; // it has closed
                }
                tokio::task::yield_now().await;
            }
            drop(writes.shutdown().await);
        };
        let listener = async {
            let mut answers = Vec::new();
            while reads
                .read_buf(&mut answers)
                .await
                .is_ok_and(|read| read > 0)
            {
                check(&mut answers);
            }
            assert!(answers.is_empty(), "half a packet");
        };
        let (served, (), ()) = tokio::join!(served, client, listener);
        served.expect("routes that compile");
    });
    std::mem::take(&mut *sink.0.lock())
}

/// Takes out whole packets, which must be such as a server may send.
fn check(answers: &mut Vec<u8>) {
    let mut rest = &answers[..];
    while let Some((first, length)) = head(rest) {
        let Some(behind) = rest.get(length..) else {
            break;
        };
        let known = [0x20, 0x40, 0x50, 0x62, 0x70, 0x90, 0xb0, 0xd0, 0xe0];
        let message = first & 0xf0 == 0x30 && first & 6 != 6;
        assert!(known.contains(&first) || message, "type {first:#x}");
        let may_be_long = message || [0x20, 0x90, 0xb0].contains(&first);
        assert!(length < 130 || may_be_long, "{first:#x} is long");
        rest = behind;
    }
    let done = answers.len() - rest.len();
    answers.drain(..done);
}

/// The first byte of a packet, and how many it has in all, once these are there.
fn head(bytes: &[u8]) -> Option<(u8, usize)> {
    let mut length = 0;
    for at in 0..4 {
        let byte = usize::from(*bytes.get(at + 1)?);
        length |= (byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some((bytes[0], at + 2 + length));
        }
    }
    panic!("a length of five bytes");
}
