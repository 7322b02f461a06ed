//! Clients that are looked at and sent away, and what the gateway says of itself.

use super::*;
use crate::proxy::clients::Clients;
use crate::proxy::sys::Sys;

#[tokio::test(start_paused = true)]
async fn clients_are_listed_in_order_and_sent_away() {
    let b = bench(&config());
    let clients = Clients(Arc::clone(&b.shared.sessions));
    let (mut there, _) = b.connect(5, 2, 0, "there").await;
    there.send(b"\x82\x07\0\x01\0\0\x01#\x01").await;
    there.read(6).await;
    let (mut away, _) = b.connect(5, 2, 0, "away").await;
    away.send(&[0xe0, 0]).await;
    away.closed().await;
    tokio::time::advance(Duration::from_secs(10)).await;
    let page = clients.page("");
    assert_eq!(page.next, None);
    let [first, second] = &page.clients[..] else {
        panic!("{page:?}")
    };
    assert_eq!(first.client_id, "away");
    assert_eq!(first.connection, None);
    assert_eq!(first.expires_in_seconds, Some(40));
    let connection = second.connection.as_ref().unwrap();
    assert_eq!(connection.address, "127.0.0.1:1");
    assert_eq!((&*connection.mqtt, connection.seconds), ("5", 10));
    assert_eq!((second.subscriptions, second.queued_messages), (1, 0));
    assert_eq!(clients.page("away").clients.len(), 1);
    assert!(clients.page("there").clients.is_empty());

    assert!(clients.kick("there", false) && !clients.kick("nobody", true));
    let code = packet::reason::ADMINISTRATIVE;
    assert_eq!(there.read(3).await, [0xe0, 1, code]);
    there.closed().await;
    assert_eq!(clients.page("").clients.len(), 2, "its session stays");
    assert!(clients.kick("there", true) && clients.kick("away", true));
    assert!(clients.page("").clients.is_empty());
    let (mut there, _) = b.connect(4, 0, 0, "there").await;
    assert!(clients.kick("there", true));
    there.closed().await;
    assert!(clients.page("").clients.is_empty());
    assert_eq!(b.metrics.level(Gauge::Subscriptions), 0);
}

#[tokio::test(start_paused = true)]
async fn the_gateway_speaks_of_itself_below_sys() {
    let b = bench(&config());
    let mut sys = Sys::begin();
    let (mut early, _) = b.connect(4, 2, 0, "early").await;
    let topic = b"$SYS/broker/clients/connected";
    let mut subscribe = b"\x82\x22\0\x01\0\x1d".to_vec();
    subscribe.extend_from_slice(topic);
    subscribe.push(2);
    early.send(&subscribe).await;
    assert_eq!(early.read(5).await, [0x90, 3, 0, 1, 2]);
    early.silent().await;
    let told = |first: u8, value: u8| {
        let mut packet = vec![first, 32, 0, 29];
        packet.extend_from_slice(topic);
        packet.push(value);
        packet
    };
    sys.tell(&b.shared);
    assert_eq!(early.read(34).await, told(0x30, b'1'));
    // To one who subscribes later as what is retained, and again when it changes.
    let (mut late, _) = b.connect(4, 2, 0, "late").await;
    late.send(&subscribe).await;
    late.read(5).await;
    assert_eq!(late.read(34).await, told(0x31, b'1'));
    tokio::time::advance(Duration::from_secs(9)).await;
    sys.tell(&b.shared);
    early.silent().await;
    tokio::time::advance(Duration::from_secs(1)).await;
    sys.tell(&b.shared);
    assert_eq!(early.read(34).await, told(0x30, b'2'));
    assert_eq!(late.read(34).await, told(0x30, b'2'));
    tokio::time::advance(Duration::from_secs(10)).await;
    sys.tell(&b.shared);
    early.silent().await;
    // It is in no bound, on no disk, in no topic of Kafka; and nobody else speaks there.
    assert_eq!(b.metrics.level(Gauge::Retained), 0);
    assert!(b.fake.disk.lock().asked.is_empty());
    let mut forged = told(0x31, b'9');
    forged[0] = 0x31;
    late.send(&forged).await;
    late.send(&[0xc0, 0]).await;
    assert_eq!(late.read(2).await, [0xd0, 0]);
    early.silent().await;
    assert!(b.fake.records.lock().is_empty());
    assert_eq!(b.metrics.count(Counter::Denied), 1);
}

#[tokio::test(start_paused = true)]
async fn bridges_of_mosquitto_tell_their_state_below_sys() {
    let b = bench(&config());
    let topic = b"$SYS/broker/connection/a/state";
    for (topic, is) in [
        (&topic[..], true),
        (b"$SYS/broker/connection//state", false),
        (b"$SYS/broker/connection/a/b/state", false),
        (b"$SYS/broker/connection/state", false),
    ] {
        assert_eq!(local::is_bridge_state(topic), is);
    }
    let (mut bridge, _) = b.connect(4, 2, 0, "bridge").await;
    let packet = [&b"\x31\x21\0\x1e"[..], topic, b"1"].concat();
    bridge.send(&packet).await;
    bridge.send(&[0xc0, 0]).await;
    assert_eq!(bridge.read(2).await, [0xd0, 0]);
    assert_eq!(b.fake.records.lock().len(), 1, "it goes to Kafka, too");
    let (mut late, _) = b.connect(4, 2, 0, "late").await;
    late.send(b"\x82\x0b\0\x01\0\x06$SYS/#\0").await;
    assert_eq!(late.read(5).await, [0x90, 3, 0, 1, 0]);
    assert_eq!(late.read(packet.len()).await, packet);
    assert_eq!(b.metrics.level(Gauge::Retained), 0);
}
