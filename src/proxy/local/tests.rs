//! The tree, the retained messages and the outbox by themselves.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::proxy::acks::Acks;
use crate::proxy::bounds::Bounds;
use crate::proxy::packet::{Ack, Properties, Version};
use crate::proxy::session::Session;

const BOUNDS: checked::Local = checked::Local {
    max_subscriptions: 100,
    max_queued_messages: 3,
    max_queued_bytes: 10_000,
    max_total_queued_bytes: 15_000,
    max_retained_messages: 2,
    max_retained_bytes: 1_000,
};

struct Bench {
    local: Local,
    metrics: Arc<Metrics>,
}

fn bench() -> Bench {
    let metrics = Arc::new(Metrics::default());
    let local = Local::new(&BOUNDS, Arc::clone(&metrics));
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
        self.local.outbox(&id.into())
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
        self.local.publish(&publish, topic.as_bytes(), &from.into());
    }
}

/// Attaches a connection and returns what it gets.
fn attach(to: &Arc<Outbox>, number: u64, receive_maximum: usize) {
    let session = Arc::new(Session::new(Arc::clone(to)));
    to.attach(queue::Door {
        number,
        version: Version::V3,
        receive_maximum,
        packet_bytes_max: 200,
        acks: Arc::new(Acks::new(Arc::new(Bounds::new(1_000)), session)),
    });
}

/// First bytes, packet ids and payloads of packets to the topic `t`.
fn got(to: &Outbox, number: u64) -> Vec<(u8, u16, String)> {
    let mut out = Vec::new();
    to.take(number, &mut out, 10_000);
    let mut all = Vec::new();
    let mut rest = &out[..];
    while let [first, length, tail @ ..] = rest {
        let (body, next) = tail.split_at(usize::from(*length));
        rest = next;
        let qos = first >> 1 & 3;
        let at = match (first >> 4, qos) {
            (3, 0) => (3, 0),
            (3, _) => (3, 2),
            _ => (0, 2),
        };
        let id = body.get(at.0..at.0 + at.1).filter(|id| !id.is_empty());
        let id = id.map_or(0, |id| u16::from_be_bytes([id[0], id[1]]));
        let text = String::from_utf8_lossy(&body[at.0 + at.1..]).into_owned();
        all.push((*first, id, text));
    }
    all
}

fn texts(to: &Outbox, number: u64) -> Vec<String> {
    got(to, number)
        .into_iter()
        .map(|(_, _, text)| text)
        .collect()
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
    assert_eq!(got(&a, 1), [(0x32, 1, "x".to_owned())]);
    assert_eq!(got(&c, 2), [(0x32, 1, "x".to_owned())]);
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
    assert_eq!((got(&a, 1).len(), got(&c, 2).len()), (2, 2));
    a.detach(1);
    b.publish("t", 2, b"y");
    b.publish("t", 2, b"z");
    assert_eq!(texts(&c, 2), ["y", "z"]);
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
    assert_eq!(texts(&a, 1), ["other"]);
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
    assert_eq!(got(&a, 1), [(0x33, 1, "new".to_owned())]);
    let mut again = filter("t", 0);
    again.handling = RetainHandling::New;
    b.local.subscribe(&a, &again, None);
    again.handling = RetainHandling::Never;
    b.local.subscribe(&a, &again, None);
    b.subscribe(&a, "$share/g/t", 0);
    assert!(got(&a, 1).is_empty());
    b.publish("t", 1, b"");
    assert_eq!(texts(&a, 1), ["", ""]);
    b.local.unsubscribe(&a, "$share/g/t");
    b.subscribe(&a, "t", 0);
    assert!(got(&a, 1).is_empty());
    let short = Properties {
        expiry_s: Some(5),
        ..Properties::default()
    };
    b.publish_as("p", "t", 1, (b"short", Some(short)));
    assert_eq!(texts(&a, 1), ["short"]);
    tokio::time::advance(Duration::from_secs(6)).await;
    b.subscribe(&a, "t/#", 0);
    assert_eq!(got(&a, 1).len(), 1);
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
    assert_eq!(got(&a, 1), [id("2", 1, 0x32), id("3", 2, 0x32)]);
    b.publish("t", 0, b"passes");
    assert_eq!(texts(&a, 1), ["passes"]);
    assert_eq!(a.acknowledge(Ack::Puback, 1, 0), Ok(false));
    assert_eq!(got(&a, 1), [id("4", 3, 0x32)]);
    assert_eq!(a.acknowledge(Ack::Pubrec, 2, 0), Err(queue::Unexpected));
    assert_eq!(a.acknowledge(Ack::Puback, 77, 0), Ok(false));
    a.detach(1);
    attach(&a, 2, 1);
    assert_eq!(a.acknowledge(Ack::Puback, 2, 0), Ok(false), "not sent yet");
    assert_eq!(got(&a, 2), [id("3", 2, 0x3a)]);
    a.acknowledge(Ack::Puback, 2, 0).unwrap();
    assert_eq!(got(&a, 2), [id("4", 3, 0x3a)]);
    a.acknowledge(Ack::Puback, 3, 0).unwrap();
    b.publish("t", 4, b"two");
    assert_eq!(got(&a, 2), [id("two", 4, 0x34)]);
    assert_eq!(a.acknowledge(Ack::Pubcomp, 4, 0), Err(queue::Unexpected));
    assert_eq!(a.acknowledge(Ack::Pubrec, 4, 0), Ok(true));
    a.detach(2);
    attach(&a, 3, 1);
    assert_eq!(got(&a, 3), [id("", 4, 0x62)]);
    assert_eq!(a.acknowledge(Ack::Pubcomp, 4, 0), Ok(false));
    b.publish("t", 2, &[b'x'; 300]);
    b.publish("t", 2, b"small");
    assert_eq!(texts(&a, 3), ["small"]);
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
    assert!(got(&c, 1).is_empty() && got(&a, 2).is_empty());
    assert_eq!(b.metrics.count(Counter::UndeliveredExpired), 2);
    assert_eq!(b.local.limits.total.load(Ordering::Relaxed), 0);
}

proptest! {
    /// The tree finds what comparing with each filter finds, and forgets all that is removed.
    #[test]
    fn the_tree_matches_as_the_filters_do(
        filters in prop::collection::btree_set("(\\+|[ab$]?)(/(\\+|[ab]?)){0,3}(/#)?", 1..20),
        topics in prop::collection::vec("[ab$]{0,1}(/[ab]?){0,4}", 1..20),
    ) {
        let metrics = Arc::new(Metrics::default());
        let b = Local::new(&BOUNDS, metrics);
        let outboxes: Vec<_> = filters.iter().map(|_| b.outbox(&"c".into())).collect();
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
