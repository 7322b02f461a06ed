//! Subscribers over a pipe: redelivery, will delays, and one that does not read.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_was_not_acknowledged_comes_again_with_its_identifier() {
    let b = bench(&config());
    let (mut sub, present) = b.connect(5, 0, 0, "sub").await;
    assert_eq!(present, 0);
    sub.send(b"\x82\x09\0\x01\x02\x0b\x07\0\x01t\x01").await;
    assert_eq!(sub.read(6).await, [0x90, 4, 0, 1, 0, 1]);
    let (mut publisher, _) = b.connect(4, 2, 0, "pub").await;
    publisher.send(&publish(4, 2, 1)).await;
    let mut wanted = b"\x32\x0a\0\x01t\0\x01\x02\x0b\x07hi".to_vec();
    assert_eq!(sub.read(12).await, wanted);
    assert_eq!(b.fake.records.lock().len(), 1);
    drop(sub);
    let (mut sub, present) = b.connect(5, 0, 0, "sub").await;
    assert_eq!(present, 1);
    wanted[0] = 0x3a;
    assert_eq!(sub.read(12).await, wanted);
    // A PUBREC does not fit it.
    sub.send(b"\x50\x02\0\x01").await;
    assert_eq!(sub.read(3).await, [0xe0, 1, packet::reason::PROTOCOL_ERROR]);
    sub.closed().await;
    let (mut clean, present) = b.connect(5, 2, 0, "sub").await;
    assert_eq!(present, 0);
    publisher.send(&publish(4, 2, 2)).await;
    b.fake.wait(2).await;
    clean.silent().await;
}

/// A client with a will of ten seconds' delay, and a session of 50; `clean` is CONNECT's flag.
async fn with_delayed_will(b: &Bench, clean: u8) -> Peer {
    let mut peer = b.open();
    let mut packet = b"\x10\x1f\0\x04MQTT\x05\x04\0\0\x05\x11\0\0\0\x32\0\x01c".to_vec();
    packet.extend_from_slice(b"\x05\x18\0\0\0\x0a\0\x01w\0\x01!");
    packet[9] |= clean;
    packet[1] = (packet.len() - 2) as u8;
    peer.send(&packet).await;
    let head = peer.read(2).await;
    peer.read(usize::from(head[1])).await;
    peer
}

#[tokio::test(start_paused = true)]
async fn a_will_waits_for_its_delay_and_is_taken_back_by_who_returns() {
    let b = bench(&config());
    let wills = || b.fake.records.lock().len();
    let leaves = async |peer: Peer| {
        drop(peer);
        // The connection notices.
        tokio::time::sleep(Duration::from_millis(1)).await;
        b.shared.publish_due();
    };
    leaves(with_delayed_will(&b, 0).await).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    b.shared.publish_due();
    let back = with_delayed_will(&b, 0).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    b.shared.publish_due();
    assert_eq!(wills(), 0);
    leaves(back).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    b.shared.publish_due();
    assert_eq!(wills(), 1);
    let again = with_delayed_will(&b, 0).await;
    leaves(again).await;
    assert_eq!(wills(), 1);
    // Who begins anew ends the session, and so its delay.
    let mut anew = with_delayed_will(&b, 2).await;
    assert_eq!(wills(), 2);
    anew.send(b"\xe0\0").await;
    anew.closed().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    b.shared.publish_due();
    assert_eq!(wills(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_slows_nobody() {
    let b = bench(&config());
    let (mut slow, _) = b.connect(4, 2, 0, "slow").await;
    slow.send(b"\x82\x06\0\x01\0\x01t\0").await;
    assert_eq!(slow.read(5).await, [0x90, 3, 0, 1, 0]);
    let (mut publisher, _) = b.connect(4, 2, 0, "pub").await;
    let mut packet = vec![0x30, 0xeb, 0x07, 0, 1, b't'];
    packet.resize(3 + 1003, b'x');
    for n in 1..=300 {
        publisher.send(&packet).await;
        b.fake.wait(n).await;
    }
    let dropped = b.metrics.count(Counter::UndeliveredQos0);
    assert!((50..250).contains(&dropped), "{dropped} of 300");
    for _ in 0..(300 - dropped) {
        assert_eq!(slow.read(packet.len()).await, packet);
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_route_takes_is_delivered_to_nobody_and_not_retained() {
    let mut config = config();
    config.default_topic = None;
    let b = bench(&config);
    let (mut sub, _) = b.connect(4, 2, 0, "sub").await;
    sub.send(b"\x82\x06\0\x01\0\x01#\x01").await;
    assert_eq!(sub.read(5).await, [0x90, 3, 0, 1, 1]);
    let (mut publisher, _) = b.connect(5, 2, 0, "pub").await;
    publisher.send(b"\x33\x08\0\x01t\0\x01\0hi").await;
    let refused = [0x40, 3, 0, 1, packet::reason::NOT_AUTHORISED];
    assert_eq!(publisher.read(5).await, refused);
    sub.send(b"\x82\x06\0\x02\0\x01t\x01\xc0\0").await;
    assert_eq!(sub.read(7).await, [0x90, 3, 0, 2, 1, 0xd0, 0]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_larger_than_the_client_takes_is_not_sent() {
    let b = bench(&config());
    let mut peer = b.open();
    peer.send(b"\x10\x13\0\x04MQTT\x05\x02\0\0\x05\x27\0\0\0\x28\0\x01c")
        .await;
    let head = peer.read(2).await;
    peer.read(usize::from(head[1])).await;
    let mut packet = b"\x82\x7b\0\x01\0".to_vec();
    packet.resize(5 + 120, 0);
    for filter in packet[5..].chunks_mut(4) {
        filter.copy_from_slice(b"\0\x01t\0");
    }
    peer.send(&packet).await;
    let answer = peer.read(35).await;
    assert_eq!(answer[..2], [0x90, 33]);
    assert_eq!(answer.iter().filter(|code| **code == 0x97).count(), 20);
    let mut packet = b"\xa2\x7b\0\x02\0".to_vec();
    packet.resize(5 + 120, 0);
    for filter in packet[5..].chunks_mut(3) {
        filter.copy_from_slice(b"\0\x01t");
    }
    peer.send(&packet).await;
    assert_eq!(peer.read(3).await, [0xe0, 1, packet::reason::TOO_LARGE]);
    peer.closed().await;
}

#[tokio::test(start_paused = true)]
async fn wills_have_a_bound_together() {
    let b = bench(&config());
    let all = bounds::WillPart::take(&b.shared.wills, 32 << 20).unwrap();
    let mut peer = b.open();
    let packet = b"\x10\x14\0\x04MQTT\x04\x06\0\0\0\x01c\0\x01w\0\x01!";
    let mut packet = packet.to_vec();
    packet[1] = (packet.len() - 2) as u8;
    peer.send(&packet).await;
    assert_eq!(peer.read(4).await, [0x20, 2, 0, 3]);
    peer.closed().await;
    drop(all);
    let mut peer = b.open();
    peer.send(&packet).await;
    assert_eq!(peer.read(4).await, [0x20, 2, 0, 0]);
    peer.send(b"\xe0\0").await;
    peer.closed().await;
    let all = bounds::WillPart::take(&b.shared.wills, 32 << 20);
    assert!(all.is_some(), "a will that is gone makes room");
}

#[tokio::test(start_paused = true)]
async fn reasons_are_told_to_who_wants_them() {
    let mut config = config();
    config.default_topic = None;
    let b = bench(&config);
    let connect = async |properties: &[u8]| {
        let mut peer = b.open();
        let length = [properties.len() as u8];
        let body = [
            b"\0\x04MQTT\x05\x02\0\0",
            &length[..],
            properties,
            b"\0\x01c",
        ]
        .concat();
        peer.send(&[&[0x10, body.len() as u8], &body[..]].concat())
            .await;
        let head = peer.read(2).await;
        peer.read(usize::from(head[1])).await;
        peer
    };
    let string = |text: &str| {
        let length = text.len() as u8;
        [&[length + 3, 0x1f, 0, length], text.as_bytes()].concat()
    };
    // Asked for; not asked for, in two ways; and no room for it.
    for (properties, told) in [
        (&b"\x17\x01"[..], true),
        (b"", false),
        (b"\x17\0", false),
        (b"\x17\x01\x27\0\0\0\x10", false),
    ] {
        let mut peer = connect(properties).await;
        peer.send(&publish(5, 2, 1)).await;
        let why = string("no right to publish to this topic, or no route for it");
        let mut wanted = vec![0x40, 3, 0, 1, packet::reason::NOT_AUTHORISED];
        if told {
            wanted[1] += why.len() as u8;
            wanted.extend(why);
        }
        assert_eq!(peer.read(wanted.len()).await, wanted);
        peer.send(&[0xc1, 0]).await;
        let why = string("reserved flags");
        let mut wanted = vec![0xe0, 1, packet::reason::MALFORMED];
        if told {
            wanted[1] += why.len() as u8;
            wanted.extend(why);
        }
        assert_eq!(peer.read(wanted.len()).await, wanted);
        peer.closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn mqtt_3_1_is_not_told_of_its_session() {
    let b = bench(&config());
    for _ in 0..2 {
        let mut peer = b.open();
        peer.send(b"\x10\x0f\0\x06MQIsdp\x03\0\0\x0a\0\x01p").await;
        assert_eq!(peer.read(4).await, [0x20, 2, 0, 0]);
        peer.send(b"\xe0\0").await;
        peer.closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_memory_qos_0_goes_to_subscribers_and_no_further() {
    let b = bench(&config());
    let (mut sub, _) = b.connect(4, 2, 0, "sub").await;
    sub.send(b"\x82\x06\0\x01\0\x01t\0").await;
    assert_eq!(sub.read(5).await, [0x90, 3, 0, 1, 0]);
    let (mut publisher, _) = b.connect(4, 2, 0, "pub").await;
    b.fake.short.store(true, Ordering::Relaxed);
    let fleeting = b"\x30\x05\0\x01thi";
    publisher.send(fleeting).await;
    assert_eq!(sub.read(7).await, fleeting);
    publisher.send(&publish(4, 2, 1)).await;
    b.fake.wait(1).await;
    assert_eq!(b.metrics.count(Counter::DroppedQos0), 1);
    b.fake.short.store(false, Ordering::Relaxed);
    publisher.send(fleeting).await;
    b.fake.wait(2).await;
    assert_eq!(b.metrics.count(Counter::DroppedQos0), 1);
}
