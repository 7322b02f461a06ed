//! What decoding a PUBLISH and encoding a PUBACK cost, in each library and by hand.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use bytes::BytesMut;
use mqtt_protocol_core::mqtt::packet::{v3_1_1 as v3, v5_0 as v5};
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{Packet, Protocol as _, PubAck, PubAckReason};

use crate::codecs::{Version, frame};
use crate::sequences::variable;

/// Packets of one round.
const COUNT: u32 = 6_400;
/// Rounds of which the quickest counts: others share the machine.
const ROUNDS: u32 = 1_000;
/// PUBLISH packets that one read brings to rumqttd's codec, which takes them from a stream.
const TOGETHER: u32 = 64;
const TOPIC: &[u8] = b"plant/line7/machine12/temperature";
const PAYLOAD_BYTES: usize = 256;
/// An output buffer is emptied when it holds so much.
const OUT_BYTES: usize = 4000;

/// Prints nanoseconds a packet, of the quickest round.
pub fn run() -> anyhow::Result<()> {
    for version in [Version::V3, Version::V5] {
        let packet = publish(version)?;
        report(version, "PUBLISH, mqtt-protocol-core", || {
            core_publish(version, &packet)
        })?;
        report(version, "PUBLISH, rumqttd", || {
            rumqttd_publish(version, &packet)
        })?;
        report(version, "PUBLISH, by hand, borrowed", || {
            own_publish(version, &packet)
        })?;
        report(version, "PUBACK, mqtt-protocol-core", || {
            each_id(|id, out| core_puback(version, id, out))
        })?;
        report(version, "PUBACK, rumqttd", || {
            each_id(|id, out| rumqttd_puback(version, id, out))
        })?;
        report(version, "PUBACK, by hand", || each_id(own_puback))?;
    }
    Ok(())
}

fn report(
    version: Version,
    what: &str,
    work: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut quickest = f64::INFINITY;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        work()?;
        quickest = quickest.min(begun.elapsed().as_secs_f64());
    }
    let nanoseconds = quickest * 1e9 / f64::from(COUNT);
    println!("{version:?} {what:28} {nanoseconds:6.1} ns");
    Ok(())
}

/// A PUBLISH at QoS 1, without properties.
fn publish(version: Version) -> anyhow::Result<Vec<u8>> {
    let mut body = u16::try_from(TOPIC.len())?.to_be_bytes().to_vec();
    body.extend_from_slice(TOPIC);
    body.extend_from_slice(&7u16.to_be_bytes());
    if version == Version::V5 {
        body.push(0);
    }
    body.extend_from_slice(&[b'x'; PAYLOAD_BYTES]);
    let mut packet = vec![0x32];
    variable(&mut packet, body.len() as u64);
    packet.extend_from_slice(&body);
    Ok(packet)
}

fn core_publish(version: Version, packet: &[u8]) -> anyhow::Result<()> {
    let bad = |error| anyhow!("not a PUBLISH: {error:?}");
    for _ in 0..COUNT {
        let frame = frame(black_box(packet)).context("no frame")?;
        let body: Arc<[u8]> = Arc::from(frame.body);
        match version {
            Version::V3 => drop(black_box(
                v3::Publish::parse(frame.first & 0x0f, body).map_err(bad)?,
            )),
            Version::V5 => drop(black_box(
                v5::Publish::parse(frame.first & 0x0f, body).map_err(bad)?,
            )),
        }
    }
    Ok(())
}

fn rumqttd_publish(version: Version, packet: &[u8]) -> anyhow::Result<()> {
    let together = packet.repeat(TOGETHER as usize);
    for _ in 0..COUNT / TOGETHER {
        let mut stream = BytesMut::with_capacity(together.len());
        stream.extend_from_slice(black_box(&together));
        for _ in 0..TOGETHER {
            let read = match version {
                Version::V3 => V4.read_mut(&mut stream, 1 << 20),
                Version::V5 => V5.read_mut(&mut stream, 1 << 20),
            };
            drop(black_box(read.map_err(|error| anyhow!("{error}"))?));
        }
    }
    Ok(())
}

fn own_publish(version: Version, packet: &[u8]) -> anyhow::Result<()> {
    for _ in 0..COUNT {
        let frame = frame(black_box(packet)).context("no frame")?;
        let (length, rest) = frame.body.split_first_chunk::<2>().context("no topic")?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (topic, rest) = rest.split_at_checked(length).context("topic cut")?;
        let (id, rest) = rest.split_first_chunk::<2>().context("no packet id")?;
        let payload = match version {
            Version::V3 => rest,
            Version::V5 => rest.get(1..).context("no properties")?,
        };
        black_box(std::str::from_utf8(topic)?);
        black_box(payload);
        black_box((frame.first, u16::from_be_bytes(*id)));
    }
    Ok(())
}

/// Encodes an acknowledgement of each packet id in turn.
fn each_id(put: impl Fn(u16, &mut BytesMut) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut out = BytesMut::with_capacity(OUT_BYTES * 2);
    let mut id = 0u16;
    for _ in 0..COUNT {
        if out.len() > OUT_BYTES {
            out.clear();
        }
        id = id.checked_add(1).unwrap_or(1);
        put(id, &mut out)?;
        black_box(&out);
    }
    Ok(())
}

fn core_puback(version: Version, id: u16, out: &mut BytesMut) -> anyhow::Result<()> {
    let bad = |error| anyhow!("no PUBACK: {error:?}");
    let bytes = match version {
        Version::V3 => {
            let ack = v3::Puback::builder().packet_id(id).build().map_err(bad)?;
            ack.to_continuous_buffer()
        }
        Version::V5 => {
            let ack = v5::Puback::builder().packet_id(id).build().map_err(bad)?;
            ack.to_continuous_buffer()
        }
    };
    out.extend_from_slice(&bytes);
    Ok(())
}

fn rumqttd_puback(version: Version, id: u16, out: &mut BytesMut) -> anyhow::Result<()> {
    let ack = PubAck {
        pkid: id,
        reason: PubAckReason::Success,
    };
    let packet = Packet::PubAck(ack, None);
    let written = match version {
        Version::V3 => V4.write(packet, out),
        Version::V5 => V5.write(packet, out),
    };
    written.map_err(|error| anyhow!("no PUBACK: {error}"))?;
    Ok(())
}

fn own_puback(id: u16, out: &mut BytesMut) -> anyhow::Result<()> {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[0x40, 2, high, low]);
    Ok(())
}
