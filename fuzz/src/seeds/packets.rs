//! What clients send: each packet of both versions behind a CONNECT, and CONNECTs by themselves.

use super::Input;

/// How the input begins, bytes a write, what the client sends.
#[rustfmt::skip]
const SEEDS: &[(&str, u8, u8, &[&[u8]])] = &[
    ("connect_v31", 0, 3, &[
        b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x3c\0\x01p\xc0\0",
    ]),
    ("connect_v3_will", 0, 5, &[
        b"\x10\x18\0\x04MQTT\x04\xee\0\x3c\0\x01c",
        b"\0\x01w\0\x02hi\0\x01u\0\x01p",
    ]),
    ("connect_v5", 0, 7, &[
        b"\x10\x45\0\x04MQTT\x05\x36\0\x3c",
        b"\x16\x11\0\0\0\x0a\x21\0\x05\x27\0\0\x10\0\x22\0\x02\x19\x01\x17\0",
        b"\x26\0\0\0\0\0\x01c",
        b"\x1b\x01\x01\x02\0\0\0\x09\x03\0\x01c\x08\0\x01r",
        b"\x09\0\x01d\x18\0\0\0\x05\0",
        b"\0\x01w\0\x02hi\xe0\0",
    ]),
    ("connect_v5_auth", 0, 9, &[
        b"\x10\x17\0\x04MQTT\x05\x02\0\0",
        b"\x0a\x15\0\x01m\x16\0\x04data\0\x01c",
    ]),
    ("qos0", 1, 2, &[
        b"\x30\x05\0\x01thi",
        b"\x31\x0c\0\x08plant/l/a\xff",
    ]),
    ("qos1", 1, 4, &[
        b"\x32\x07\0\x01t\0\x01hi",
        b"\x3a\x07\0\x01t\0\x01hi",
        b"\x32\x05\0\x01t\0\x02",
    ]),
    ("qos2", 1, 1, &[
        b"\x34\x07\0\x01t\0\x01hi",
        b"\x3c\x07\0\x01t\0\x01hi",
        b"\x62\x02\0\x01",
        b"\x62\x02\0\x01",
    ]),
    ("routed", 1, 30, &[
        b"\x32\x1b\0\x17plant/line7/a/b/c/d/e/f\0\x09",
        b"\x32\x08\0\x04$SYS\0\x03",
    ]),
    ("acks", 1, 6, &[
        b"\x40\x02\0\x01",
        b"\x50\x02\0\x01",
        b"\x70\x02\0\x01",
        b"\xc0\0\xe0\0",
    ]),
    ("subscribe", 1, 8, &[
        b"\x82\x0b\0\x01\0\x01a\0\0\0\x02+/\x01",
        b"\xa2\x05\0\x02\0\x01a",
    ]),
    ("v5_qos1", 2, 2, &[
        b"\x32\x08\0\x01t\0\x01\0hi",
        b"\x32\x0b\0\x01t\0\x02\x03\x23\0\x01hi",
        b"\x32\x0a\0\0\0\x03\x03\x23\0\x01hi",
    ]),
    ("v5_qos2", 2, 1, &[
        b"\x34\x08\0\x01t\0\x01\0hi",
        b"\x62\x04\0\x01\0\0",
        b"\x62\x03\0\x01\x92",
    ]),
    ("v5_properties", 2, 11, &[
        b"\x32\x2f\0\x01t\0\x01\x28\x01\x01\x02\0\0\0\x3c\x03\0\x01c",
        b"\x08\0\x01r\x09\0\x02\0\xff",
        b"\x23\0\x07\x26\0\x01k\0\x01v\x26\0\x01k\0\x01whi",
    ]),
    ("v5_acks", 2, 3, &[
        b"\x40\x04\0\x07\x10\0",
        b"\x50\x09\0\x01\x80\x05\x1f\0\x02no",
        b"\xc0\0",
    ]),
    ("v5_subscribe", 2, 5, &[
        b"\x82\x0d\0\x01\x02\x0b\x01\0\x01a\x2e\0\x01b\x01",
        b"\xa2\x06\0\x02\0\0\x01a",
    ]),
    ("delivery", 1, 9, &[
        b"\x82\x06\0\x01\0\x01#\x02\x82\x0f\0\x02\0\x0a$share/g/+\x01",
        b"\x32\x07\0\x01t\0\x01hi\x34\x07\0\x01t\0\x02ho\x33\x07\0\x01t\0\x03re",
        b"\x40\x02\0\x01\x50\x02\0\x02\x70\x02\0\x02",
        b"\x82\x06\0\x03\0\x01t\0\xa2\x05\0\x04\0\x01#\x30\x03\0\x01t",
    ]),
    ("v5_delivery", 2, 7, &[
        b"\x82\x0c\0\x01\x03\x0b\xac\x02\0\x03t/#\x1e",
        b"\x82\x08\0\x02\x02\x0b\x07\0\x01+\x29",
        b"\x31\x15\0\x01t\x0f\x02\0\0\0\x05\x26\0\x01k\0\x01v\x23\0\x01hi",
        b"\x82\x07\0\x03\0\0\x01t\x12\x34\x0a\0\0\0\x05\x03\x23\0\x01ho",
    ]),
    ("v5_goodbye", 2, 4, &[
        b"\xe0\x07\x04\x05\x11\0\0\0\x09",
    ]),
    ("v5_auth", 2, 4, &[
        b"\xf0\x06\x18\x04\x15\0\x01m",
    ]),
];

/// All.
pub fn packets() -> Vec<Input> {
    let input = |(name, begin, piece, sends): &(&str, u8, u8, &[&[u8]])| {
        let mut input = vec![*begin, *piece];
        input.extend(sends.concat());
        ((*name).to_owned(), input)
    };
    SEEDS.iter().map(input).collect()
}
