//! Whole connections over a pipe, with an intake that makes records safe on command.

mod access;
mod clients;
mod durable;
mod races;
mod statements;
mod subscribers;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::{Instant, timeout};

use super::access::Visitor;
use super::*;
use crate::config::checked::{HeaderNames, Local, OnRefused, Proxy};
use crate::metrics::Counter;
use crate::record::Record;
use crate::spool::intake::Refusal;
use crate::spool::{Change, Incoming, Ticket, TopicId, TopicOptions};

pub(super) fn config() -> Proxy {
    let name = str::to_owned;
    Proxy {
        listeners: Vec::new(),
        default_topic: Some(name("mqtt")),
        on_refused: OnRefused::Ack,
        max_connections: 10,
        max_connections_per_address: 5,
        max_publishes_per_second: None,
        max_packet_bytes: 10_000,
        connect_timeout: Duration::from_secs(10),
        max_inflight_messages: 3,
        max_inflight_bytes: 100_000,
        max_total_inflight_bytes: 1_000_000,
        topic_alias_max: 2,
        session_expiry_max: Duration::from_secs(100),
        max_sessions: 2,
        local: Local {
            max_subscriptions: 10,
            max_queued_messages: 5,
            max_queued_bytes: 10_000,
            max_total_queued_bytes: 100_000,
            max_retained_messages: 3,
            max_retained_bytes: 10_000,
        },
        headers: HeaderNames {
            message_id: name("mqtt.message.id"),
            qos: name("mqtt.qos"),
            retained: name("mqtt.retained"),
            duplicate: name("mqtt.duplicate"),
            topic: String::new(),
            client_id: name("mqtt.client.id"),
            content_type: name("mqtt.content.type"),
            response_topic: name("mqtt.response.topic"),
            correlation_data: name("mqtt.correlation.data"),
            user_property_prefix: Some(name("mqtt.user.")),
        },
        routes: Vec::new(),
    }
}

/// What is kept, and what waits to be.
#[derive(Debug, Default)]
struct Disk {
    kept: std::collections::BTreeMap<Bytes, Bytes>,
    asked: Vec<(Vec<Change>, Option<Ticket>)>,
}

/// Keeps what it gets; makes it safe when told.
#[derive(Debug, Default)]
struct Fake {
    records: Mutex<Vec<Record>>,
    tickets: Mutex<Vec<Option<Ticket>>>,
    refusals: Mutex<Vec<(Refusal, String, u64)>>,
    disk: Arc<Mutex<Disk>>,
    /// What is kept is synced when the test says so, else at once.
    by_hand: std::sync::atomic::AtomicBool,
    /// Records and all that is kept are safe as they come.
    at_once: std::sync::atomic::AtomicBool,
    short: std::sync::atomic::AtomicBool,
    came: tokio::sync::Notify,
}

impl Intake for Fake {
    fn topic(&self, _: &str, _: &TopicOptions) -> TopicId {
        TopicId(7)
    }
    fn record_bytes_max(&self, _: TopicId) -> usize {
        5_000
    }
    fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }
    fn append(&self, batch: &mut Vec<Incoming>) {
        for incoming in batch.drain(..) {
            let changes = incoming.keep.into_vec();
            if !changes.is_empty() {
                self.disk.lock().asked.push((changes, None));
            }
            self.records.lock().push(incoming.record);
            if self.at_once.load(Ordering::Relaxed) {
                sync(&self.disk);
                if let Some(ticket) = &incoming.ticket {
                    ticket.to.safe(&[ticket.token]);
                }
            }
            self.tickets.lock().push(incoming.ticket);
        }
        self.came.notify_one();
    }
    fn keep(&self, changes: Vec<Change>, ticket: Option<Ticket>) {
        self.disk.lock().asked.push((changes, ticket));
        if !self.by_hand.load(Ordering::Relaxed) {
            let disk = Arc::clone(&self.disk);
            tokio::spawn(async move { sync(&disk) });
        }
    }

    fn kept(&self) -> Vec<(Bytes, Bytes)> {
        let disk = self.disk.lock();
        let all = disk.kept.iter();
        all.map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
    fn refused(&self, why: Refusal, topic: &str, messages: u64) {
        self.refusals.lock().push((why, topic.to_owned(), messages));
    }
}

impl Fake {
    async fn wait(&self, records: usize) {
        while self.records.lock().len() < records {
            self.came.notified().await;
        }
    }
    fn safe(&self, at: usize) {
        let ticket = self.tickets.lock()[at].take().unwrap();
        ticket.to.safe(&[ticket.token]);
    }
}

/// Everything that was to be kept is synced.
fn sync(disk: &Mutex<Disk>) {
    let asked = {
        let mut disk = disk.lock();
        let asked = std::mem::take(&mut disk.asked);
        for change in asked.iter().flat_map(|(changes, _)| changes) {
            match change.value.clone() {
                Some(value) => disk.kept.insert(change.key.clone(), value),
                None => disk.kept.remove(&change.key),
            };
        }
        asked
    };
    for ticket in asked.into_iter().filter_map(|(_, ticket)| ticket) {
        ticket.to.safe(&[ticket.token]);
    }
}

struct Bench {
    shared: Arc<Shared>,
    fake: Arc<Fake>,
    metrics: Arc<Metrics>,
}

fn bench(config: &Proxy) -> Bench {
    bench_over(config, Fake::default())
}

fn bench_over(config: &Proxy, fake: Fake) -> Bench {
    let fake = Arc::new(fake);
    let metrics = Arc::new(Metrics::default());
    let intake: Arc<dyn Intake> = Arc::clone(&fake) as _;
    let shared = Shared::new(
        config,
        intake,
        Arc::clone(&metrics),
        CancellationToken::new(),
    );
    Bench {
        shared: Arc::new(shared.unwrap()),
        fake,
        metrics,
    }
}

struct Peer(DuplexStream);

impl Bench {
    fn open(&self) -> Peer {
        let (near, far) = tokio::io::duplex(100_000);
        let peer = socket::Peer::Net(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        let visitor = Visitor {
            peer,
            deadline: Instant::now() + self.shared.config.connect_timeout,
            certified: None,
            access: Arc::default(),
        };
        tokio::spawn(connection::serve(far, visitor, Arc::clone(&self.shared)));
        Peer(near)
    }
    /// Connects with version, flags, keep-alive and client id; returns the CONNACK's flags.
    async fn connect(&self, version: u8, flags: u8, keep_alive: u8, id: &str) -> (Peer, u8) {
        let mut peer = self.open();
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', version, flags, 0, keep_alive];
        if version == 5 {
            body.extend_from_slice(&[5, 0x11, 0, 0, 0, 50]);
        }
        body.extend_from_slice(&[0, id.len() as u8]);
        body.extend_from_slice(id.as_bytes());
        let mut packet = vec![0x10, body.len() as u8];
        packet.extend_from_slice(&body);
        peer.send(&packet).await;
        let head = peer.read(2).await;
        let rest = peer.read(usize::from(head[1])).await;
        assert_eq!((head[0], rest[1]), (0x20, 0));
        (peer, rest[0])
    }
}

impl Peer {
    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }
    async fn read(&mut self, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        timeout(Duration::from_secs(600), self.0.read_exact(&mut data))
            .await
            .unwrap()
            .unwrap();
        data
    }
    async fn silent(&mut self) {
        let mut byte = [0];
        let read = timeout(Duration::from_millis(20), self.0.read(&mut byte)).await;
        assert!(read.is_err(), "{read:?} {byte:?}");
    }
    async fn closed(&mut self) {
        let mut rest = Vec::new();
        let read = timeout(Duration::from_secs(600), self.0.read_to_end(&mut rest)).await;
        assert_eq!((read.unwrap().unwrap(), rest), (0, vec![]));
    }
}

/// A PUBLISH to `t`: QoS with its flags, packet id.
fn publish(version: u8, flags: u8, id: u8) -> Vec<u8> {
    let mut body = vec![0, 1, b't', 0, id];
    if version == 5 {
        body.push(0);
    }
    body.extend_from_slice(b"hi");
    let mut packet = vec![0x30 | flags, body.len() as u8];
    packet.extend_from_slice(&body);
    packet
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_leave_in_order_and_only_when_safe() {
    let b = bench(&config());
    let (mut peer, _) = b.connect(4, 2, 0, "c").await;
    let batch = [publish(4, 2, 1), publish(4, 4, 2), publish(4, 2, 3)].concat();
    peer.send(&batch).await;
    b.fake.wait(3).await;
    b.fake.safe(2);
    b.fake.safe(1);
    peer.silent().await;
    b.fake.safe(0);
    assert_eq!(
        peer.read(12).await,
        [0x40, 2, 0, 1, 0x50, 2, 0, 2, 0x40, 2, 0, 3]
    );
    assert_eq!(b.metrics.count(Counter::Acknowledged), 3);
    let record = b.fake.records.lock()[1].clone();
    assert_eq!(record.key(), Ok(Some(&b"t"[..])));
    assert_eq!(record.value(), Ok(Some(&b"hi"[..])));
    let headers = record.headers().unwrap();
    let texts: Vec<_> = headers
        .iter()
        .map(|(name, value)| {
            format!(
                "{}={}",
                String::from_utf8_lossy(name),
                String::from_utf8_lossy(value.unwrap())
            )
        })
        .collect();
    assert_eq!(
        texts,
        [
            "mqtt.message.id=2",
            "mqtt.qos=2",
            "mqtt.retained=false",
            "mqtt.duplicate=false",
            "mqtt.client.id=c"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn qos_2_repeats_are_no_new_records() {
    let b = bench(&config());
    let (mut peer, _) = b.connect(4, 0, 0, "c").await;
    peer.send(&publish(4, 4, 1)).await;
    b.fake.wait(1).await;
    for _ in 0..1000 {
        peer.send(&publish(4, 12, 1)).await;
    }
    peer.silent().await;
    b.fake.safe(0);
    assert_eq!(peer.read(4).await, [0x50, 2, 0, 1]);
    peer.send(&publish(4, 12, 1)).await;
    assert_eq!(peer.read(4).await, [0x50, 2, 0, 1]);
    // The session keeps the id over a reconnect; PUBREL ends it.
    drop(peer);
    let (mut peer, present) = b.connect(4, 0, 0, "c").await;
    assert_eq!(present, 1);
    peer.send(&publish(4, 12, 1)).await;
    assert_eq!(peer.read(4).await, [0x50, 2, 0, 1]);
    peer.send(&[0x62, 2, 0, 1]).await;
    assert_eq!(peer.read(4).await, [0x70, 2, 0, 1]);
    assert_eq!(b.fake.records.lock().len(), 1);
    peer.send(&publish(4, 4, 1)).await;
    b.fake.wait(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_repeat_on_a_later_connection_waits_for_the_first_record() {
    let b = bench(&config());
    let (mut peer, _) = b.connect(5, 0, 0, "c").await;
    peer.send(&publish(5, 4, 1)).await;
    b.fake.wait(1).await;
    drop(peer);
    let (mut peer, _) = b.connect(5, 0, 0, "c").await;
    peer.send(&publish(5, 12, 1)).await;
    peer.silent().await;
    b.fake.safe(0);
    assert_eq!(peer.read(4).await, [0x50, 2, 0, 1]);
    assert_eq!(b.fake.records.lock().len(), 1);
    assert!(!b.shared.bounds.full());
}

#[tokio::test(start_paused = true)]
async fn a_client_id_has_one_connection() {
    let b = bench(&config());
    let (mut old, present) = b.connect(5, 2, 0, "c").await;
    assert_eq!(present, 0);
    let (_new, present) = b.connect(5, 0, 0, "c").await;
    assert_eq!(present, 1);
    assert_eq!(old.read(3).await, [0xe0, 1, reason_taken_over()]);
    old.closed().await;
}

fn reason_taken_over() -> u8 {
    packet::reason::TAKEN_OVER
}

#[tokio::test(start_paused = true)]
async fn sessions_are_bounded_in_number_and_time() {
    let b = bench(&config());
    for id in ["a", "b", "c"] {
        let (mut peer, _) = b.connect(5, 2, 0, id).await;
        peer.send(&[0xe0, 0]).await;
        peer.closed().await;
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    // Two are kept; the one that would expire first had to go.
    assert_eq!(b.connect(5, 0, 0, "a").await.1, 0);
    assert_eq!(b.connect(5, 0, 0, "c").await.1, 1);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(b.connect(5, 0, 0, "b").await.1, 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_window_holds_3_1_1_and_ends_5() {
    let b = bench(&config());
    let (mut peer, _) = b.connect(4, 2, 1, "c").await;
    let batch: Vec<u8> = (1..=4).flat_map(|id| publish(4, 2, id)).collect();
    peer.send(&batch).await;
    b.fake.wait(3).await;
    // Held far beyond its keep-alive of one second, and not timed out for it.
    peer.send(&[0xc0, 0]).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    peer.silent().await;
    assert_eq!(b.fake.records.lock().len(), 3);
    b.fake.safe(0);
    assert_eq!(peer.read(6).await, [0x40, 2, 0, 1, 0xd0, 0]);
    b.fake.wait(4).await;
    // Not held any more, so its silence counts again.
    peer.closed().await;

    let (mut peer, _) = b.connect(5, 2, 0, "d").await;
    let batch: Vec<u8> = (1..=4).flat_map(|id| publish(5, 2, id)).collect();
    peer.send(&batch).await;
    assert_eq!(
        peer.read(3).await,
        [0xe0, 1, packet::reason::RECEIVE_MAXIMUM]
    );
    peer.closed().await;
}

#[tokio::test(start_paused = true)]
async fn bytes_in_flight_are_bounded_for_all_together() {
    let mut c = config();
    c.max_total_inflight_bytes = 1;
    let b = bench(&c);
    let (mut one, _) = b.connect(4, 2, 0, "one").await;
    let (mut two, _) = b.connect(4, 2, 0, "two").await;
    one.send(&publish(4, 2, 1)).await;
    b.fake.wait(1).await;
    two.send(&publish(4, 2, 1)).await;
    two.silent().await;
    assert_eq!(b.fake.records.lock().len(), 1);
    b.fake.safe(0);
    b.fake.wait(2).await;
    assert_eq!(one.read(4).await, [0x40, 2, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn topic_aliases_stand_for_topics() {
    let b = bench(&config());
    let (mut peer, _) = b.connect(5, 2, 0, "c").await;
    peer.send(b"\x30\x08\0\x01t\x03\x23\0\x02x").await;
    peer.send(b"\x30\x07\0\0\x03\x23\0\x02y").await;
    b.fake.wait(2).await;
    assert_eq!(b.fake.records.lock()[1].key(), Ok(Some(&b"t"[..])));
    peer.send(b"\x30\x07\0\0\x03\x23\0\x03z").await;
    assert_eq!(peer.read(3).await, [0xe0, 1, packet::reason::ALIAS_INVALID]);
}

#[tokio::test(start_paused = true)]
async fn refused_messages_are_told_or_written_down() {
    let mut c = config();
    c.default_topic = None;
    let b = bench(&c);
    let (mut five, _) = b.connect(5, 2, 0, "five").await;
    five.send(&publish(5, 2, 1)).await;
    assert_eq!(
        five.read(5).await,
        [0x40, 3, 0, 1, packet::reason::NOT_AUTHORISED]
    );
    assert!(b.fake.refusals.lock().is_empty());
    let (mut three, _) = b.connect(4, 2, 0, "three").await;
    three.send(&publish(4, 4, 1)).await;
    assert_eq!(three.read(4).await, [0x50, 2, 0, 1]);
    assert_eq!(
        *b.fake.refusals.lock(),
        [(Refusal::NoRoute, "t".to_owned(), 1)]
    );
    c.on_refused = OnRefused::Disconnect;
    let (mut three, _) = bench(&c).connect(4, 2, 0, "three").await;
    three.send(&publish(4, 2, 1)).await;
    three.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_too_large_for_kafka_is_refused() {
    let b = bench(&config());
    let (mut peer, _) = b.connect(5, 2, 0, "c").await;
    let mut packet = vec![0x32, 0xf6, 0x2e, 0, 1, b't', 0, 9, 0];
    packet.resize(3 + 6006, b'x');
    peer.send(&packet).await;
    assert_eq!(
        peer.read(5).await,
        [0x40, 3, 0, 9, packet::reason::TOO_LARGE]
    );
    assert!(b.fake.records.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_does_not_connect_is_closed() {
    let b = bench(&config());
    let mut late = b.open();
    late.send(&[0x10]).await;
    late.closed().await;
    let mut wrong = b.open();
    wrong.send(&[0xc0, 0]).await;
    wrong.closed().await;
    let mut huge = b.open();
    huge.send(&[0x10, 0xff, 0xff, 0xff, 0x7f]).await;
    huge.closed().await;
    assert_eq!(b.metrics.count(Counter::ProtocolErrors), 2);
}

#[tokio::test(start_paused = true)]
async fn a_will_is_published_unless_the_client_says_goodbye() {
    let b = bench(&config());
    for (last, wills) in [(&[0xe0, 0][..], 0), (&[0xff, 0][..], 1)] {
        let mut peer = b.open();
        peer.send(b"\x10\x13\0\x04MQTT\x04\x06\0\0\0\x01c\0\x01w\0\x01!")
            .await;
        peer.read(4).await;
        peer.send(last).await;
        peer.closed().await;
        assert_eq!(b.fake.records.lock().len(), wills);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopping_proxy_waits_for_what_is_in_flight() {
    let b = bench(&config());
    let (mut peer, _) = b.connect(5, 2, 0, "c").await;
    peer.send(&publish(5, 2, 1)).await;
    b.fake.wait(1).await;
    b.shared.shutdown.cancel();
    peer.silent().await;
    b.fake.safe(0);
    assert_eq!(
        peer.read(7).await,
        [0x40, 2, 0, 1, 0xe0, 1, packet::reason::SHUTTING_DOWN]
    );
    peer.closed().await;
}
