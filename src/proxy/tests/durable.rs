//! What outlives the gateway: restarts over what was synced, at the points where they would hurt.

use super::*;
use crate::proxy::keep::{Keep, wall_ms};

/// A gateway whose disk syncs when the test says so.
fn slow() -> Bench {
    let b = bench(&config());
    b.fake.by_hand.store(true, Ordering::Relaxed);
    b
}

impl Bench {
    async fn sync(&self) {
        sync(&self.fake.disk);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// The power goes: what was synced is there.
    fn restart(&self) -> Self {
        let kept = self.fake.disk.lock().kept.clone();
        let fake = Fake::default();
        fake.disk.lock().kept = kept;
        fake.by_hand.store(true, Ordering::Relaxed);
        let roomy = Proxy {
            max_sessions: 100,
            ..config()
        };
        bench_over(&roomy, fake)
    }

    async fn subscriber(&self, qos: u8) -> Peer {
        let (mut sub, _) = self.connect(4, 0, 0, "sub").await;
        sub.send(&[0x82, 6, 0, 1, 0, 1, b't', qos]).await;
        sub.silent().await;
        self.sync().await;
        assert_eq!(sub.read(5).await, [0x90, 3, 0, 1, qos]);
        sub
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_its_subscriptions_and_its_messages_survive() {
    let b = slow();
    drop(b.subscriber(1).await);
    let (mut publisher, _) = b.connect(4, 2, 0, "pub").await;
    publisher.send(&publish(4, 2, 1)).await;
    b.fake.wait(1).await;
    b.fake.safe(0);
    // In Kafka, and not on the subscriber's disk.
    publisher.silent().await;
    b.sync().await;
    assert_eq!(publisher.read(4).await, [0x40, 2, 0, 1]);

    let b = b.restart();
    let (mut sub, present) = b.connect(4, 0, 0, "sub").await;
    assert_eq!(present, 1);
    assert_eq!(sub.read(9).await, b"\x32\x07\0\x01t\0\x01hi");
    sub.send(&[0x40, 2, 0, 1]).await;
    sub.silent().await;
    b.sync().await;
    let b = b.restart();
    let (mut sub, present) = b.connect(4, 0, 0, "sub").await;
    assert_eq!(present, 1);
    sub.silent().await;
    // A clean start ends it for good.
    let (clean, present) = b.connect(4, 2, 0, "sub").await;
    assert_eq!(present, 0);
    b.sync().await;
    drop(clean);
    assert!(b.fake.disk.lock().kept.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_qos_2_message_from_a_device_is_one_record_across_restarts() {
    let b = slow();
    let (mut device, _) = b.connect(4, 0, 0, "device").await;
    device.send(&publish(4, 4, 1)).await;
    b.fake.wait(1).await;
    b.sync().await;
    b.fake.safe(0);
    assert_eq!(device.read(4).await, [0x50, 2, 0, 1]);

    // PUBREC was lost.
    let b = b.restart();
    let (mut device, present) = b.connect(4, 0, 0, "device").await;
    assert_eq!(present, 1);
    device.send(&publish(4, 12, 1)).await;
    assert_eq!(device.read(4).await, [0x50, 2, 0, 1]);
    assert_eq!(b.fake.records.lock().len(), 0);
    device.send(&[0x62, 2, 0, 1]).await;
    // Were it forgotten in memory only, the next message under the id would be none after a start.
    device.silent().await;
    b.sync().await;
    assert_eq!(device.read(4).await, [0x70, 2, 0, 1]);

    let b = b.restart();
    let (mut device, _) = b.connect(4, 0, 0, "device").await;
    device.send(&publish(4, 4, 1)).await;
    b.fake.wait(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_qos_2_message_to_a_subscriber_comes_once_across_restarts() {
    let b = slow();
    let mut sub = b.subscriber(2).await;
    let (mut publisher, _) = b.connect(4, 2, 0, "pub").await;
    publisher.send(&publish(4, 4, 1)).await;
    b.fake.wait(1).await;
    // Its packet id is not on disk.
    sub.silent().await;
    b.sync().await;
    let mut wanted = b"\x34\x07\0\x01t\0\x01hi".to_vec();
    assert_eq!(sub.read(9).await, wanted);

    let b = b.restart();
    let (mut sub, _) = b.connect(4, 0, 0, "sub").await;
    wanted[0] = 0x3c;
    assert_eq!(sub.read(9).await, wanted);
    sub.send(&[0x50, 2, 0, 1]).await;
    // After PUBREL it may take the id for a new message.
    sub.silent().await;
    b.sync().await;
    assert_eq!(sub.read(4).await, [0x62, 2, 0, 1]);

    let b = b.restart();
    let (mut sub, _) = b.connect(4, 0, 0, "sub").await;
    assert_eq!(sub.read(4).await, [0x62, 2, 0, 1]);
    sub.send(&[0x70, 2, 0, 1]).await;
    sub.silent().await;
    b.sync().await;
    let b = b.restart();
    let (mut sub, present) = b.connect(4, 0, 0, "sub").await;
    assert_eq!(present, 1);
    sub.silent().await;
}

/// Its publisher sends it again if its record is not there after a power cut.
#[tokio::test(start_paused = true)]
async fn a_qos_2_message_between_kept_sessions_goes_when_its_record_is_safe() {
    let b = slow();
    let mut sub = b.subscriber(2).await;
    let (mut device, _) = b.connect(4, 0, 0, "device").await;
    b.sync().await;
    device.send(&publish(4, 4, 1)).await;
    b.fake.wait(1).await;
    // The id and the copy are one matter of the spool's, with the record.
    let with_record = |(changes, _): &(Vec<Change>, _)| changes.len() == 2;
    assert!(b.fake.disk.lock().asked.iter().any(with_record));
    b.sync().await;
    sub.silent().await;
    b.fake.safe(0);
    assert_eq!(sub.read(9).await, b"\x34\x07\0\x01t\0\x01hi");
    assert_eq!(device.read(4).await, [0x50, 2, 0, 1]);

    let b = b.restart();
    let (mut sub, _) = b.connect(4, 0, 0, "sub").await;
    assert_eq!(sub.read(9).await, b"\x3c\x07\0\x01t\0\x01hi");
}

#[tokio::test(start_paused = true)]
async fn a_pubrec_that_is_being_synced_survives_its_connection() {
    let b = slow();
    let mut sub = b.subscriber(2).await;
    let (mut publisher, _) = b.connect(4, 2, 0, "pub").await;
    publisher.send(&publish(4, 4, 1)).await;
    b.fake.wait(1).await;
    b.sync().await;
    sub.read(9).await;
    sub.send(&[0x50, 2, 0, 1]).await;
    sub.silent().await;
    drop(sub);
    let (mut sub, present) = b.connect(4, 0, 0, "sub").await;
    assert_eq!(present, 1);
    sub.silent().await;
    b.sync().await;
    assert_eq!(sub.read(4).await, [0x62, 2, 0, 1]);
    sub.silent().await;
}

#[tokio::test(start_paused = true)]
async fn retained_messages_survive_until_they_are_cleared() {
    let b = slow();
    let (mut publisher, _) = b.connect(4, 2, 0, "pub").await;
    publisher.send(&publish(4, 3, 1)).await;
    b.fake.wait(1).await;
    b.fake.safe(0);
    publisher.silent().await;
    b.sync().await;
    assert_eq!(publisher.read(4).await, [0x40, 2, 0, 1]);

    let b = b.restart();
    let mut sub = b.subscriber(1).await;
    assert_eq!(sub.read(9).await, b"\x33\x07\0\x01t\0\x01hi");
    let (mut publisher, _) = b.connect(4, 2, 0, "pub").await;
    publisher.send(b"\x31\x03\0\x01t").await;
    b.fake.wait(1).await;
    b.sync().await;
    let retained = |b: &Bench| b.fake.disk.lock().kept.keys().any(|key| key[0] == b'r');
    assert!(!retained(&b));
}

#[tokio::test(start_paused = true)]
async fn who_keeps_nothing_costs_no_write() {
    let b = slow();
    let (mut client, _) = b.connect(4, 2, 0, "c").await;
    client.send(&[0x82, 6, 0, 1, 0, 1, b't', 2]).await;
    assert_eq!(client.read(5).await, [0x90, 3, 0, 1, 2]);
    client.send(&publish(4, 4, 7)).await;
    assert_eq!(client.read(9).await, b"\x34\x07\0\x01t\0\x01hi");
    b.fake.safe(0);
    assert_eq!(client.read(4).await, [0x50, 2, 0, 7]);
    assert!(b.fake.disk.lock().asked.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_session_expires_while_the_gateway_is_away() {
    let b = slow();
    let keep = |id: &str| Keep::new(Arc::clone(&b.fake) as _, id.into(), 7);
    keep("gone").session(Duration::from_secs(50), Some(wall_ms() - 60_000));
    keep("young").session(Duration::from_secs(50), Some(wall_ms() - 10_000));
    keep("was here").session(Duration::from_secs(50), None);
    // The clock was ahead when it left.
    keep("future").session(Duration::from_secs(50), Some(wall_ms() + 1_000_000));
    b.sync().await;
    let b = b.restart();
    for (id, wanted) in [("gone", 0), ("young", 1), ("was here", 1), ("future", 1)] {
        assert_eq!(b.connect(4, 0, 0, id).await.1, wanted, "{id}");
    }
    let b = b.restart();
    tokio::time::sleep(Duration::from_secs(41)).await;
    assert_eq!(b.connect(4, 0, 0, "young").await.1, 0);
    assert_eq!(b.connect(4, 0, 0, "was here").await.1, 1);
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_dropped_and_the_rest_is_there() {
    let b = slow();
    drop(b.subscriber(2).await);
    let (mut publisher, _) = b.connect(5, 2, 0, "pub").await;
    // QoS 2, retained, expiry 1 hour, a user property.
    publisher
        .send(b"\x35\x15\0\x01t\0\x01\x0c\x02\0\0\x0e\x10\x26\0\x01a\0\x01bhi!")
        .await;
    b.fake.wait(1).await;
    b.sync().await;
    let whole = b.fake.disk.lock().kept.clone();
    assert_eq!(whole.len(), 6, "{whole:?}");
    for (key, value) in &whole {
        for cut in 0..value.len() {
            let b = b.restart();
            // Cut, and with a byte changed.
            let cut_off = value.slice(..cut);
            let mut changed = value.to_vec();
            changed[cut] ^= 0x55;
            for bad in [cut_off, changed.into()] {
                b.fake.disk.lock().kept.insert(key.clone(), bad);
                drop(b.restart());
            }
        }
    }
    for key in [
        &b"q"[..],
        b"",
        b"qsub\0",
        b"fsub\0\0\0\0\0\0\0\0\x01\xff",
        b"x\0",
    ] {
        b.fake
            .disk
            .lock()
            .kept
            .insert(Bytes::copy_from_slice(key), Bytes::from_static(&[1, 0]));
    }
    let b = b.restart();
    let (mut sub, present) = b.connect(5, 0, 0, "sub").await;
    assert_eq!(present, 1);
    let message = sub.read(23).await;
    assert_eq!(message[..8], *b"\x3c\x15\0\x01t\0\x01\x0c");
    assert_eq!(message[13..], b"\x26\0\x01a\0\x01bhi!"[..]);
    b.sync().await;
    let left: Vec<u8> = b.fake.disk.lock().kept.keys().map(|key| key[0]).collect();
    assert_eq!(left, b"fiqrss");
}
