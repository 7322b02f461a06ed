//! Packets as the specifications write them, byte by byte.

use proptest::prelude::*;

use super::*;

fn whole(bytes: &[u8]) -> Frame<'_> {
    frame(bytes, 1 << 20).unwrap().unwrap()
}

fn refused(version: Version, bytes: &[u8]) -> u8 {
    match frame(bytes, 1 << 20) {
        Err(bad) => bad.reason,
        Ok(None) => panic!("not whole: {bytes:02x?}"),
        Ok(Some(frame)) if frame.is_publish() => publish(version, &frame).unwrap_err().reason,
        Ok(Some(frame)) => decode(version, &frame).unwrap_err().reason,
    }
}

#[test]
fn a_frame_is_judged_as_soon_as_it_can_be() {
    assert!(frame(&[], 10).unwrap().is_none());
    assert!(frame(&[0x30], 10).unwrap().is_none());
    assert!(frame(&[0x30, 0x80], 10).unwrap().is_none());
    // Types that only a server sends, reserved flags, lengths that lie: before any of the body is
    // there.
    for first in [0x00, 0x20, 0x90, 0xb0, 0xd0] {
        assert_eq!(
            frame(&[first], 10).unwrap_err().reason,
            reason::PROTOCOL_ERROR
        );
    }
    for first in [0x60, 0x80, 0xa0, 0xc1, 0xe8, 0xf1, 0x91, 0xd2] {
        assert_eq!(frame(&[first], 10).unwrap_err().reason, reason::MALFORMED);
    }
    assert!(frame(&[0x11], 10).unwrap().is_none());
    let old = b"\x14\x08\0\x06MQIsdp";
    assert_eq!(frame(old, 10).unwrap().unwrap().first, 0x14);
    let new = b"\x14\x06\0\x04MQTT";
    assert_eq!(frame(new, 10).unwrap_err().reason, reason::MALFORMED);
    let huge = [0x30, 0xff, 0xff, 0xff, 0x7f];
    assert_eq!(frame(&huge, 1000).unwrap_err().reason, reason::TOO_LARGE);
    let endless = [0x30, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(frame(&endless, 1000).unwrap_err().reason, reason::MALFORMED);
    let two = frame(&[0xc0, 0, 0xe0, 0], 10).unwrap().unwrap();
    assert_eq!((two.first, two.body, two.length), (0xc0, &[][..], 2));
}

#[test]
fn publish_is_borrowed_in_both_versions() {
    let bytes = b"\x3d\x09\0\x03a/b\0\x0ahi";
    let p = publish(Version::V3, &whole(bytes)).unwrap();
    assert_eq!((p.topic, p.id, p.payload), (&b"a/b"[..], 10, &b"hi"[..]));
    assert_eq!((p.qos(), p.dup(), p.flags & 1), (2, true, 1));
    let bytes = b"\x32\x0d\0\x03a/b\0\x0a\x03\x23\0\x05hi";
    let p = publish(Version::V5, &whole(bytes)).unwrap();
    assert_eq!((p.alias, p.payload), (Some(5), &b"hi"[..]));
    assert!(p.properties.is_none());
}

#[test]
fn publish_properties_become_fields() {
    let mut properties = b"\x01\x01\x03\0\x01c\x08\0\x01r\x09\0\x02\0\xff\x23\0\x07".to_vec();
    properties.extend_from_slice(b"\x26\0\x01k\0\x01v\x26\0\x01k\0\x01w\x02\0\0\0\x3c");
    let mut body = b"\0\x01t".to_vec();
    body.push(properties.len() as u8);
    body.extend_from_slice(&properties);
    body.extend_from_slice(b"payload");
    let mut bytes = vec![0x30, body.len() as u8];
    bytes.extend_from_slice(&body);
    let p = publish(Version::V5, &whole(&bytes)).unwrap();
    let wanted = Properties {
        content_type: Some("c".into()),
        response_topic: Some("r".into()),
        correlation_data: Some(vec![0, 0xff]),
        user: vec![("k".into(), "v".into()), ("k".into(), "w".into())],
        payload_format: Some(1),
        expiry_s: Some(60),
    };
    assert_eq!(p.properties.as_deref(), Some(&wanted));
    assert_eq!((p.alias, p.payload), (Some(7), &b"payload"[..]));
}

#[test]
fn publish_that_breaks_the_rules_is_refused() {
    let v3 = |bytes: &[u8]| refused(Version::V3, bytes);
    let v5 = |bytes: &[u8]| refused(Version::V5, bytes);
    assert_eq!(v3(b"\x36\x05\0\x01t\0\x01"), reason::MALFORMED); // QoS 3
    assert_eq!(v3(b"\x38\x03\0\x01t"), reason::MALFORMED); // DUP at QoS 0
    assert_eq!(v3(b"\x32\x05\0\x01t\0\0"), reason::PROTOCOL_ERROR); // packet id 0
    assert_eq!(v3(b"\x32\x03\0\x01t"), reason::MALFORMED); // no packet id
    assert_eq!(v3(b"\x30\x03\0\x09t"), reason::MALFORMED); // topic beyond the end
    assert_eq!(v5(b"\x30\x03\0\0\0"), reason::PROTOCOL_ERROR); // neither topic nor alias
    assert_eq!(v5(b"\x30\x07\0\x01t\x03\x23\0\0"), reason::PROTOCOL_ERROR); // alias 0
    assert_eq!(v5(b"\x30\x06\0\x01t\x02\x0b\x01"), reason::PROTOCOL_ERROR); // subscription id
    assert_eq!(
        v5(b"\x30\x08\0\x01t\x04\x01\x00\x01\x00"),
        reason::PROTOCOL_ERROR
    ); // twice
    assert_eq!(v5(b"\x30\x04\0\x01t\x7f"), reason::MALFORMED); // properties beyond the end
}

#[test]
fn connect_is_read_in_all_versions() {
    let v3 = connect(b"\0\x04MQTT\x04\x02\0\x3c\0\x02id").unwrap();
    assert_eq!(
        (v3.version, v3.clean, v3.keep_alive),
        (Version::V3, true, 60)
    );
    assert_eq!((v3.client_id.as_str(), v3.session_expiry), ("id", 0));
    assert_eq!(
        connect(b"\0\x06MQIsdp\x03\0\0\0\0\x01p")
            .unwrap()
            .session_expiry,
        u32::MAX
    );
    let v5 = connect(b"\0\x04MQTT\x05\0\0\0\x05\x11\0\0\0\x0a\0\x02id").unwrap();
    assert_eq!(
        (v5.version, v5.clean, v5.session_expiry),
        (Version::V5, false, 10)
    );
    // A password without a user name: allowed in 5 alone.
    assert!(connect(b"\0\x04MQTT\x05\x42\0\0\0\0\x02id\0\x01p").is_ok());
    assert!(connect(b"\0\x04MQTT\x04\x42\0\0\0\x02id\0\x01p").is_err());
    let will = connect(b"\0\x04MQTT\x04\x2e\0\0\0\x02id\0\x01w\0\x02hi")
        .unwrap()
        .will
        .unwrap();
    assert_eq!(
        (will.topic.as_str(), will.payload, will.qos, will.retain),
        ("w", b"hi".to_vec(), 1, true)
    );
}

#[test]
fn connect_that_breaks_the_rules_is_refused() {
    let code = |body: &[u8]| connect(body).unwrap_err().reason;
    assert_eq!(
        code(b"\0\x04MQTT\x06\x02\0\0\0\x01c"),
        reason::UNSUPPORTED_VERSION
    );
    assert_eq!(
        code(b"\0\x06MQIsdp\x04\x02\0\0\0\x01c"),
        reason::UNSUPPORTED_VERSION
    );
    // Nothing is said of flags and credentials that cannot be: a reserved flag, a will's QoS
    // without a will, QoS 3, no keep-alive, no user name, U+0001 in one, no password.
    for unsaid in [
        &b"\0\x04MQTT\x04\x03\0\0\0\x01c"[..],
        b"\0\x04MQTT\x04\x0a\0\0\0\x01c",
        b"\0\x04MQTT\x05\x1e\0\0\0\0\x01c\0\0\x01w\0\0",
        b"\0\x04MQTT\x05\x02",
        b"\0\x04MQTT\x05\x82\0\0\0\0\x01c",
        b"\0\x04MQTT\x05\x82\0\0\0\0\x01c\0\x01\x01",
        b"\0\x04MQTT\x05\xc2\0\0\0\0\x01c\0\x01u",
    ] {
        assert_eq!(code(unsaid), reason::SUCCESS, "{unsaid:?}");
    }
    assert_eq!(code(b"\0\x04MQTT\x04\x02\0\0\0\x01\0"), reason::MALFORMED); // U+0000
    assert_eq!(code(b"\0\x04MQTT\x04\x02\0\0\0\x01cx"), reason::MALFORMED); // more behind
    assert_eq!(
        code(b"\0\x04MQTT\x04\x06\0\0\0\x01c\0\x01+\0\0"),
        reason::TOPIC_INVALID
    );
    assert_eq!(
        code(b"\0\x04MQTT\x05\x02\0\0\x03\x16\0\0\0\x01c"),
        reason::PROTOCOL_ERROR
    );
}

fn wants(filter: &str, qos: u8) -> Filter {
    Filter {
        text: filter.to_owned(),
        qos,
        no_local: false,
        as_published: false,
        handling: RetainHandling::Always,
    }
}

#[test]
fn lengths_are_as_short_as_they_can_be() {
    for (value, bytes) in [
        (0, &[0][..]),
        (0x7f, &[0x7f]),
        (0x80, &[0x80, 1]),
        (0x3fff, &[0xff, 0x7f]),
        (0x4000, &[0x80, 0x80, 1]),
        (0x1f_ffff, &[0xff, 0xff, 0x7f]),
        (0x20_0000, &[0x80, 0x80, 0x80, 1]),
        (0x0fff_ffff, &[0xff, 0xff, 0xff, 0x7f]),
    ] {
        let mut out = Vec::new();
        put_varint(&mut out, value);
        assert_eq!((&out[..], varint_bytes(value)), (bytes, bytes.len()));
    }
}

#[test]
fn the_rest_is_read_and_written() {
    let v5 = |bytes: &[u8]| format!("{:?}", decode(Version::V5, &whole(bytes)).unwrap());
    assert_eq!(v5(b"\x62\x02\0\x07"), "Ack(Pubrel, 7, 0)");
    assert_eq!(v5(b"\x40\x04\0\x07\x10\0"), "Ack(Puback, 7, 16)");
    assert_eq!(
        v5(b"\x82\x0b\0\x01\0\0\x01a\0\0\x01b\x02"),
        format!(
            "Subscribe({:?})",
            Subscribe {
                id: 1,
                identifier: None,
                filters: vec![wants("a", 0), wants("b", 2)]
            }
        )
    );
    assert_eq!(v5(b"\xa2\x06\0\x01\0\0\x01a"), "Unsubscribe(1, [\"a\"])");
    assert_eq!(
        v5(b"\xe0\x07\x04\x05\x11\0\0\0\x09"),
        "Disconnect(4, Some(9))"
    );
    assert_eq!(refused(Version::V5, b"\xf0\x00"), reason::PROTOCOL_ERROR);
    assert_eq!(refused(Version::V3, b"\xe0\x01\0"), reason::MALFORMED);
    assert_eq!(
        refused(Version::V5, b"\x82\x07\0\x01\0\0\x01#\x03"),
        reason::MALFORMED
    );
    let twice = b"\x82\x0b\0\x01\x04\x0b\x01\x0b\x02\0\x01a\0";
    assert_eq!(refused(Version::V5, twice), reason::PROTOCOL_ERROR);
    let other = b"\x82\x09\0\x01\x02\x01\x01\0\x01a\0";
    assert_eq!(refused(Version::V5, other), reason::MALFORMED);
    let zero = b"\x82\x09\0\x01\x02\x0b\0\0\x01a\0";
    assert_eq!(refused(Version::V5, zero), reason::PROTOCOL_ERROR);
    let no_local = b"\x82\x10\0\x01\0\0\x0a$share/g/a\x04";
    assert_eq!(refused(Version::V5, no_local), reason::PROTOCOL_ERROR);
    let id_0 = b"\x82\x07\0\0\0\0\x01a\0";
    assert_eq!(refused(Version::V5, id_0), reason::MALFORMED);
    assert_eq!(
        refused(Version::V5, b"\x40\x02\0\0"),
        reason::PROTOCOL_ERROR
    );
    assert_eq!(
        refused(Version::V5, b"\x82\x03\0\x01\0"),
        reason::PROTOCOL_ERROR
    );
    assert_eq!(
        refused(Version::V3, b"\x82\x06\0\x01\0\x01a\x04"),
        reason::MALFORMED
    );
    let mut out = Vec::new();
    ack(
        &mut out,
        Version::V5,
        Ack::Puback,
        258,
        reason::NOT_AUTHORISED,
    );
    ack(&mut out, Version::V3, Ack::Pubrel, 1, reason::ID_NOT_FOUND);
    suback(&mut out, Version::V3, 5, &[2, reason::QUOTA]);
    unsuback(&mut out, Version::V5, 5, &[reason::NO_SUBSCRIPTION]);
    assert_eq!(
        out,
        b"\x40\x03\x01\x02\x87\x62\x02\0\x01\x90\x04\0\x05\x02\x80\xb0\x04\0\x05\0\x11"
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, v5: bool) {
        let version = if v5 { Version::V5 } else { Version::V3 };
        if let Ok(Some(frame)) = frame(&bytes, 1 << 16) {
            prop_assert!(frame.length <= bytes.len());
            drop(publish(version, &frame));
            drop(decode(version, &frame));
        }
        drop(connect(&bytes));
    }

    #[test]
    fn every_publish_comes_back(topic in "[a-z/é]{1,40}", id in 1u16.., payload: Vec<u8>) {
        let mut body = (topic.len() as u16).to_be_bytes().to_vec();
        body.extend_from_slice(topic.as_bytes());
        body.extend_from_slice(&id.to_be_bytes());
        body.push(0);
        body.extend_from_slice(&payload);
        let frame = Frame { first: 0x32, body: &body, length: body.len() + 2 };
        let p = publish(Version::V5, &frame).unwrap();
        prop_assert_eq!((p.topic, p.id, p.payload), (topic.as_bytes(), id, &payload[..]));
    }
}
