//! The tree, the retained messages and the outbox by themselves.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::proxy::acks::Acks;
use crate::proxy::bounds::Bounds;
use crate::proxy::packet::{Ack, Properties, Version};
use crate::proxy::session::Session;
use crate::spool::intake::Refusal;
use crate::spool::{Change, Incoming, Ticket, TopicId, TopicOptions};

const BOUNDS: checked::Local = checked::Local {
    max_subscriptions: 100,
    max_queued_messages: 3,
    max_queued_bytes: 10_000,
    max_total_queued_bytes: 15_000,
    max_retained_messages: 2,
    max_retained_bytes: 1_000,
};

/// These sessions are not kept.
#[derive(Debug)]
struct Nowhere;

impl Intake for Nowhere {
    fn topic(&self, _: &str, _: &TopicOptions) -> TopicId {
        TopicId(0)
    }
    fn record_bytes_max(&self, _: TopicId) -> usize {
        0
    }
    fn is_short(&self) -> bool {
        false
    }
    fn append(&self, _: &mut Vec<Incoming>) {}
    fn keep(&self, _: Vec<Change>, _: Option<Ticket>) {}
    fn kept(&self) -> Vec<(Bytes, Bytes)> {
        Vec::new()
    }
    fn refused(&self, _: Refusal, _: &str, _: u64) {}
}

struct Bench {
    local: Local,
    metrics: Arc<Metrics>,
}

fn bench() -> Bench {
    bench_with(&BOUNDS)
}

fn bench_with(bounds: &checked::Local) -> Bench {
    let metrics = Arc::new(Metrics::default());
    let local = Local::new(bounds, Arc::new(Nowhere), Arc::clone(&metrics));
    Bench { local, metrics }
}

fn filter(text: &str, qos: u8) -> Filter {
    Filter {
        text: text.to_owned(),
        qos,
        no_local: false,
        as_published: false,
        handling: RetainHandling::Always,
    }
}

impl Bench {
    fn client(&self, id: &str) -> Arc<Outbox> {
        self.local.outbox(&id.into(), false)
    }
    fn subscribe(&self, to: &Arc<Outbox>, text: &str, qos: u8) -> u8 {
        self.local.subscribe(to, &filter(text, qos), None)
    }
    fn publish(&self, topic: &str, flags: u8, payload: &[u8]) {
        self.publish_as("publisher", topic, flags, (payload, None));
    }
    fn publish_as(&self, from: &str, topic: &str, flags: u8, what: (&[u8], Option<Properties>)) {
        let publish = Publish {
            flags,
            topic: topic.as_bytes(),
            id: 1,
            alias: None,
            properties: what.1.map(Box::new),
            payload: what.0,
        };
        self.local
            .publish(&publish, topic.as_bytes(), &from.into(), None);
    }
}

fn door(to: &Arc<Outbox>, number: u64, receive_maximum: usize) -> queue::Door {
    let session = Arc::new(Session::new(Arc::clone(to)));
    queue::Door {
        number,
        version: Version::V3,
        receive_maximum,
        rights: None,
        packet_bytes_max: 200,
        acks: Arc::new(Acks::new(Arc::new(Bounds::new(1_000)), session)),
    }
}

fn attach(to: &Arc<Outbox>, number: u64, receive_maximum: usize) {
    to.attach(door(to, number, receive_maximum));
}

impl Bench {
    /// What a connection is to write now.
    fn bytes(&self, to: &Arc<Outbox>, number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while self.local.deliver(to, number, (&mut out, 10_000)) {}
        to.written(number);
        out
    }

    /// First bytes, packet ids and payloads of short packets of 3.1.1.
    fn got(&self, to: &Arc<Outbox>, number: u64) -> Vec<(u8, u16, String)> {
        let out = self.bytes(to, number);
        let mut all = Vec::new();
        let mut rest = &out[..];
        while let [first, length, tail @ ..] = rest {
            let (body, next) = tail.split_at(usize::from(*length));
            rest = next;
            let topic = 2 + usize::from(body[1]);
            let (id, text) = match (first >> 4, first >> 1 & 3) {
                (3, 0) => (0, topic),
                (3, _) => (topic, topic + 2),
                _ => (0, 2),
            };
            let id = body.get(id..text).filter(|id| id.len() == 2);
            let id = id.map_or(0, |id| u16::from_be_bytes([id[0], id[1]]));
            all.push((
                *first,
                id,
                String::from_utf8_lossy(&body[text..]).into_owned(),
            ));
        }
        all
    }

    fn texts(&self, to: &Arc<Outbox>, number: u64) -> Vec<String> {
        let all = self.got(to, number).into_iter();
        all.map(|(_, _, text)| text).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn each_client_gets_a_message_once_at_the_highest_qos() {
    let b = bench();
    let (a, c) = (b.client("a"), b.client("c"));
    assert!(!b.local.wants(0) && b.local.wants(1));
    assert_eq!(b.subscribe(&a, "#", 0), 0);
    assert_eq!(b.subscribe(&a, "+", 2), 2);
    assert_eq!(b.subscribe(&c, "t/#", 1), 1);
    assert!(b.local.wants(0));
    attach(&a, 1, 10);
    attach(&c, 2, 10);
    b.publish("t", 2, b"x");
    b.publish("$SYS", 2, b"hidden");
    assert_eq!(b.got(&a, 1), [(0x32, 1, "x".to_owned())]);
    assert_eq!(b.got(&c, 2), [(0x32, 1, "x".to_owned())]);
    assert_eq!(b.local.unsubscribe(&c, "t/#"), reason::SUCCESS);
    assert_eq!(b.local.unsubscribe(&c, "t/#"), reason::NO_SUBSCRIPTION);
    b.local.end(&a);
    assert!(!b.local.wants(0));
    assert_eq!(b.subscribe(&a, "late", 0), reason::UNSPECIFIED);
    let deep = vec!["x"; LEVELS_MAX + 1].join("/");
    assert_eq!(b.subscribe(&c, &deep, 0), reason::FILTER_INVALID);
}

#[tokio::test(start_paused = true)]
async fn a_group_shares_and_prefers_who_is_there() {
    let b = bench();
    let (a, c) = (b.client("a"), b.client("c"));
    b.subscribe(&a, "$share/g/t", 1);
    b.subscribe(&c, "$share/g/t", 1);
    attach(&a, 1, 10);
    attach(&c, 2, 10);
    for _ in 0..4 {
        b.publish("t", 2, b"x");
    }
    assert_eq!((b.got(&a, 1).len(), b.got(&c, 2).len()), (2, 2));
    a.detach(1);
    b.publish("t", 2, b"y");
    b.publish("t", 2, b"z");
    assert_eq!(b.texts(&c, 2), ["y", "z"]);
}

#[tokio::test(start_paused = true)]
async fn no_local_is_the_publishers_client_id() {
    let b = bench();
    let a = b.client("a");
    let mut own = filter("t", 0);
    own.no_local = true;
    b.local.subscribe(&a, &own, None);
    attach(&a, 1, 10);
    b.publish_as("a", "t", 0, (b"own", None));
    b.publish_as("b", "t", 0, (b"other", None));
    assert_eq!(b.texts(&a, 1), ["other"]);
}

#[tokio::test(start_paused = true)]
async fn retained_messages_are_set_cleared_bounded_and_expire() {
    let b = bench();
    b.publish("t", 3, b"old");
    b.publish("t", 3, b"new");
    b.publish("t/u", 1, b"second");
    b.publish("v", 1, b"no room");
    assert_eq!(b.metrics.count(Counter::UnretainedFull), 1);
    let a = b.client("a");
    attach(&a, 1, 10);
    b.subscribe(&a, "t", 2);
    assert_eq!(b.got(&a, 1), [(0x33, 1, "new".to_owned())]);
    let mut again = filter("t", 0);
    again.handling = RetainHandling::New;
    b.local.subscribe(&a, &again, None);
    again.handling = RetainHandling::Never;
    b.local.subscribe(&a, &again, None);
    b.subscribe(&a, "$share/g/t", 0);
    assert!(b.got(&a, 1).is_empty());
    b.publish("t", 1, b"");
    assert_eq!(b.texts(&a, 1), ["", ""]);
    b.local.unsubscribe(&a, "$share/g/t");
    b.subscribe(&a, "t", 0);
    assert!(b.got(&a, 1).is_empty());
    let short = Properties {
        expiry_s: Some(5),
        ..Properties::default()
    };
    b.publish_as("p", "t", 1, (b"short", Some(short)));
    assert_eq!(b.texts(&a, 1), ["short"]);
    tokio::time::advance(Duration::from_secs(6)).await;
    b.subscribe(&a, "t/#", 0);
    assert_eq!(b.got(&a, 1).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_bounded_and_what_was_sent_is_sent_again() {
    let b = bench();
    let a = b.client("a");
    b.subscribe(&a, "t", 2);
    for text in ["1", "2", "3", "4"] {
        b.publish("t", 2, text.as_bytes());
    }
    b.publish("t", 0, b"nobody is there");
    assert_eq!(b.metrics.count(Counter::UndeliveredFull), 1);
    attach(&a, 1, 2);
    let id = |text: &str, id, first| (first, id, text.to_owned());
    assert_eq!(b.got(&a, 1), [id("2", 1, 0x32), id("3", 2, 0x32)]);
    b.publish("t", 0, b"passes");
    assert_eq!(b.texts(&a, 1), ["passes"]);
    assert_eq!(a.acknowledge(Ack::Puback, 1, 0), Ok(false));
    assert_eq!(b.got(&a, 1), [id("4", 3, 0x32)]);
    assert_eq!(a.acknowledge(Ack::Pubrec, 2, 0), Err(queue::Unexpected));
    assert_eq!(a.acknowledge(Ack::Puback, 77, 0), Ok(false));
    a.detach(1);
    attach(&a, 2, 1);
    assert_eq!(a.acknowledge(Ack::Puback, 2, 0), Ok(false), "not sent yet");
    assert_eq!(b.got(&a, 2), [id("3", 2, 0x3a)]);
    a.acknowledge(Ack::Puback, 2, 0).unwrap();
    assert_eq!(b.got(&a, 2), [id("4", 3, 0x3a)]);
    a.acknowledge(Ack::Puback, 3, 0).unwrap();
    b.publish("t", 4, b"two");
    assert_eq!(b.got(&a, 2), [id("two", 4, 0x34)]);
    assert_eq!(a.acknowledge(Ack::Pubcomp, 4, 0), Err(queue::Unexpected));
    assert_eq!(a.acknowledge(Ack::Pubrec, 4, 0), Ok(true));
    a.detach(2);
    attach(&a, 3, 1);
    assert_eq!(b.got(&a, 3), [id("", 4, 0x62)]);
    assert_eq!(a.acknowledge(Ack::Pubcomp, 4, 0), Ok(false));
    b.publish("t", 2, &[b'x'; 300]);
    b.publish("t", 2, b"small");
    assert_eq!(b.texts(&a, 3), ["small"]);
    assert_eq!(b.metrics.count(Counter::UndeliveredTooLarge), 1);
    b.publish("t", 2, &[b'x'; 20_000]);
    assert_eq!(b.metrics.count(Counter::UndeliveredFull), 2);
    b.local.end(&a);
    let total = b.local.limits.total.load(Ordering::Relaxed);
    assert_eq!(total, 0, "bytes are counted out as they were in");
}

#[tokio::test(start_paused = true)]
async fn what_waits_expires_and_all_queues_together_are_bounded() {
    let b = bench();
    let (a, c) = (b.client("a"), b.client("c"));
    b.subscribe(&a, "t", 1);
    b.subscribe(&c, "t", 1);
    b.publish("t", 2, &[b'x'; 9_000]);
    assert_eq!(b.metrics.count(Counter::UndeliveredFull), 1);
    let short = Properties {
        expiry_s: Some(5),
        ..Properties::default()
    };
    b.publish_as("p", "t", 2, (b"short", Some(short)));
    tokio::time::advance(Duration::from_secs(6)).await;
    attach(&c, 1, 10);
    attach(&a, 2, 10);
    assert!(b.got(&c, 1).is_empty() && b.got(&a, 2).is_empty());
    assert_eq!(b.metrics.count(Counter::UndeliveredExpired), 2);
    assert_eq!(b.local.limits.total.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn the_lower_qos_counts_and_the_retain_flag_stays_where_it_is_wanted() {
    let b = bench();
    for (granted, published) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
        let a = b.client("a");
        attach(&a, 1, 10);
        let mut wanted = filter("t", granted);
        wanted.as_published = true;
        b.local.subscribe(&a, &wanted, None);
        b.publish("t", published << 1, b"x");
        b.publish("t", published << 1 | 1, b"y");
        let qos = granted.min(published);
        let firsts: Vec<u8> = b.got(&a, 1).iter().map(|got| got.0).collect();
        assert_eq!(firsts, [0x30 | qos << 1, 0x31 | qos << 1]);
        b.publish("t", 1, b"");
        b.local.end(&a);
    }
}

#[tokio::test(start_paused = true)]
async fn a_v5_copy_has_all_identifiers_and_the_seconds_that_are_left() {
    let b = bench();
    let a = b.client("a");
    b.local.subscribe(&a, &filter("t", 1), Some(7));
    b.local.subscribe(&a, &filter("#", 0), Some(300));
    let what = Properties {
        expiry_s: Some(10),
        user: vec![("k".to_owned(), "v".to_owned())],
        ..Properties::default()
    };
    b.publish_as("p", "t", 2, (b"x", Some(what)));
    tokio::time::advance(Duration::from_millis(3_500)).await;
    a.attach(queue::Door {
        version: Version::V5,
        ..door(&a, 1, 10)
    });
    let head = b"\x32\x18\0\x01t\0\x01\x11\x02\0\0\0\x07\x26\0\x01k\0\x01v".to_vec();
    let (mut one, mut other) = (head.clone(), head);
    one.extend_from_slice(b"\x0b\x07\x0b\xac\x02x");
    other.extend_from_slice(b"\x0b\xac\x02\x0b\x07x");
    let got = b.bytes(&a, 1);
    assert!(got == one || got == other, "{got:x?}");
}

#[tokio::test(start_paused = true)]
async fn all_that_is_retained_comes_however_short_the_queue() {
    let b = bench_with(&checked::Local {
        max_retained_messages: 10_000,
        max_retained_bytes: 10_000_000,
        ..BOUNDS
    });
    let count: usize = 3_000;
    for n in 0..count {
        b.publish(&format!("r/{n:04}/x"), 3, n.to_string().as_bytes());
        b.publish(&format!("r/{n:04}/y"), 3, b"not asked for");
    }
    let a = b.client("a");
    attach(&a, 1, 2);
    b.subscribe(&a, "r/+/x", 1);
    let mut texts = Vec::new();
    let mut connection = 1;
    while texts.len() < count {
        let now = b.got(&a, connection);
        assert!(
            (1..=2).contains(&now.len()),
            "after {} of {count}",
            texts.len()
        );
        for (first, id, text) in now {
            assert_eq!(first, 0x33);
            assert_eq!(a.acknowledge(Ack::Puback, id, 0), Ok(false));
            texts.push(text);
        }
        if texts.len() == 1_000 {
            // The search outlives the connection.
            a.detach(connection);
            connection += 1;
            attach(&a, connection, 2);
        }
    }
    assert!(b.got(&a, connection).is_empty());
    assert!(
        texts
            .iter()
            .enumerate()
            .all(|(n, text)| *text == n.to_string())
    );
    assert_eq!(b.metrics.count(Counter::UndeliveredFull), 0);
    // Again, and taken back on the way.
    b.subscribe(&a, "r/+/x", 1);
    let mut last = b.got(&a, connection);
    b.local.unsubscribe(&a, "r/+/x");
    while !last.is_empty() {
        for (_, id, _) in last {
            a.acknowledge(Ack::Puback, id, 0).unwrap();
        }
        last = b.got(&a, connection);
    }
    assert!(b.metrics.count(Counter::Delivered) < 3_010);
    assert_eq!(b.local.limits.total.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_retained_and_expired_makes_room() {
    let b = bench();
    let short = |s| Properties {
        expiry_s: Some(s),
        ..Properties::default()
    };
    b.publish_as("p", "a", 1, (b"1", Some(short(5))));
    b.publish_as("p", "b", 1, (b"2", Some(short(50))));
    b.publish_as("p", "a", 1, (b"3", Some(short(6))));
    tokio::time::advance(Duration::from_millis(5_500)).await;
    b.local.expire();
    assert_eq!(b.local.retained.lock().count(), 2);
    tokio::time::advance(Duration::from_secs(1)).await;
    b.local.expire();
    assert_eq!(b.local.retained.lock().count(), 1);
    b.publish("c", 1, b"4");
    assert_eq!(b.metrics.count(Counter::UnretainedFull), 0);
}

#[tokio::test(start_paused = true)]
async fn who_has_little_keeps_it_when_others_fill_the_total() {
    let b = bench();
    let (a, c) = (b.client("a"), b.client("c"));
    b.subscribe(&a, "small", 1);
    b.subscribe(&c, "large", 1);
    b.publish("small", 2, b"1");
    for _ in 0..3 {
        b.publish("large", 2, &[b'x'; 4_000]);
    }
    let d = b.client("d");
    b.subscribe(&d, "large", 1);
    b.publish("large", 2, &[b'x'; 5_500]);
    b.publish("small", 2, &[b'x'; 9_000]);
    attach(&a, 1, 10);
    assert_eq!(b.texts(&a, 1), ["1"]);
    assert!(b.local.limits.total.load(Ordering::Relaxed) <= BOUNDS.max_total_queued_bytes);
}

#[tokio::test(start_paused = true)]
async fn what_is_being_written_counts_until_it_is() {
    let b = bench();
    let a = b.client("a");
    b.subscribe(&a, "t", 0);
    attach(&a, 1, 10);
    let total = || b.local.limits.total.load(Ordering::Relaxed);
    b.publish("t", 0, b"x");
    let mut out = Vec::new();
    b.local.deliver(&a, 1, (&mut out, 10_000));
    assert!(!out.is_empty() && total() > 0);
    a.written(2);
    assert!(total() > 0);
    a.written(1);
    assert_eq!(total(), 0);
    b.publish("t", 0, b"x");
    b.local.deliver(&a, 1, (&mut out, 10_000));
    a.detach(1);
    assert_eq!(total(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_packet_id_in_use_is_not_given_again() {
    let b = bench();
    let a = b.client("a");
    b.subscribe(&a, "t", 2);
    attach(&a, 1, 2);
    b.publish("t", 4, b"first");
    assert_eq!(b.got(&a, 1), [(0x34, 1, "first".to_owned())]);
    assert_eq!(a.acknowledge(Ack::Pubrec, 1, 0), Ok(true));
    for n in 0..70_000 {
        b.publish("t", 2, b"x");
        b.publish("t", 2, b"waits, for two are on the way");
        let [(0x32, id, _)] = b.got(&a, 1)[..] else {
            panic!("round {n}");
        };
        assert!(id > 1, "round {n}");
        a.acknowledge(Ack::Puback, id, 0).unwrap();
        let (_, id, _) = b.got(&a, 1)[0];
        a.acknowledge(Ack::Puback, id, 0).unwrap();
    }
    assert_eq!(a.acknowledge(Ack::Pubcomp, 1, 0), Ok(false));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_taken_over_takes_nothing() {
    let b = bench();
    let a = b.client("a");
    b.subscribe(&a, "t", 1);
    attach(&a, 1, 10);
    attach(&a, 2, 10);
    b.publish("t", 2, b"x");
    assert!(b.got(&a, 1).is_empty());
    a.detach(1);
    assert_eq!(b.texts(&a, 2), ["x"]);
}

#[tokio::test(start_paused = true)]
async fn subscriptions_are_bounded_by_client_packet_and_memory() {
    let b = bench();
    let a = b.client("a");
    let filters = (0..150).map(|n| filter(&format!("f/{}", n / 2), 0));
    let subscribe = Subscribe {
        id: 1,
        identifier: None,
        filters: filters.collect(),
    };
    let codes = b.local.subscribe_all(&a, &subscribe);
    let quota = |code: &&u8| **code == reason::QUOTA;
    assert_eq!((codes.len(), codes.iter().filter(quota).count()), (150, 50));
    b.local.end(&a);
    // Many clients with the same long filter, and with groups of long names.
    for shared in [false, true] {
        let level = "x".repeat(60_000);
        let mut clients = Vec::new();
        let refused = (0..2_000).find(|n| {
            let client = b.client("c");
            let text = if shared {
                format!("$share/{n:060000}/t")
            } else {
                level.clone()
            };
            let code = b.subscribe(&client, &text, 0);
            clients.push(client);
            code == reason::QUOTA
        });
        assert!(refused.is_some_and(|n| n > 100), "{refused:?}");
        assert!(b.local.tree.read().bytes() < tree::BYTES_MAX + 200_000);
        for client in &clients {
            b.local.end(client);
        }
        assert_eq!(b.local.tree.read().bytes(), 0);
    }
}

proptest! {
    /// The tree finds what comparing with each filter finds, and forgets all that is removed.
    #[test]
    fn the_tree_matches_as_the_filters_do(
        filters in prop::collection::btree_set("(\\+|[ab$]?)(/(\\+|[ab]?)){0,3}(/#)?", 1..20),
        topics in prop::collection::vec("[ab$]{0,1}(/[ab]?){0,4}", 1..20),
    ) {
        let metrics = Arc::new(Metrics::default());
        let b = Local::new(&BOUNDS, Arc::new(Nowhere), metrics);
        let outboxes: Vec<_> = filters.iter().map(|_| b.outbox(&"c".into(), false)).collect();
        let valid = |text: &&String| topic::split_share(text).is_some();
        let pairs: Vec<_> = filters.iter().filter(valid).zip(&outboxes).collect();
        for (text, outbox) in &pairs {
            b.subscribe(outbox, &filter(text, 0), None);
        }
        for topic in topics {
            let tree = b.tree.read();
            let mut found: Vec<u64> = tree
                .matching(topic.as_bytes())
                .iter()
                .flat_map(|here| here.direct.keys().copied())
                .collect();
            found.sort_unstable();
            let wanted: Vec<u64> = pairs
                .iter()
                .filter(|(text, _)| retained::matches(text, topic.as_bytes()))
                .map(|(_, outbox)| outbox.number)
                .collect();
            prop_assert_eq!(found, wanted, "{}", topic);
        }
        for outbox in &outboxes {
            b.end(outbox);
        }
        prop_assert_eq!(b.tree.read().bytes(), 0);
        prop_assert!(!b.wants(0));
    }
}
