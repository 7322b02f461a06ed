//! Every packet but CONNECT and PUBLISH, read by the library; with what it leaves out of the
//! specification: reserved bits, U+0000 in strings, bytes behind the end, filters, packet id 0.

use mqtt_protocol_core::mqtt::packet::{self, Property, Qos, SubEntry, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::MqttError;

use super::connect::UNSUPPORTED;
use super::{Ack, Bad, Packet, Version, reason};
use crate::mqtt_topic as topic;

/// The library's error as a reason code.
pub(super) fn bad(error: MqttError) -> Bad {
    match error {
        MqttError::ProtocolError => Bad::protocol("protocol error"),
        MqttError::ClientIdentifierNotValid => Bad {
            reason: reason::CLIENT_ID,
            what: "client id",
        },
        MqttError::UnsupportedProtocolVersion => UNSUPPORTED,
        _ => Bad::malformed("malformed packet"),
    }
}

pub(super) fn strings(all: &[&str]) -> Result<(), Bad> {
    if all.iter().all(|text| topic::is_text(text)) {
        Ok(())
    } else {
        Err(Bad::malformed("character not allowed in a string"))
    }
}

pub(super) fn ends(consumed: usize, body: &[u8]) -> Result<(), Bad> {
    if consumed == body.len() {
        Ok(())
    } else {
        Err(Bad::malformed("bytes behind the packet's end"))
    }
}

pub(super) fn qos(qos: Qos) -> u8 {
    match qos {
        Qos::AtMostOnce => 0,
        Qos::AtLeastOnce => 1,
        Qos::ExactlyOnce => 2,
    }
}

pub(super) fn ack(version: Version, kind: Ack, body: &[u8]) -> Result<Packet, Bad> {
    let (id, rest) = body
        .split_first_chunk::<2>()
        .ok_or(Bad::malformed("acknowledgement cut short"))?;
    let id = u16::from_be_bytes(*id);
    if id == 0 {
        return Err(Bad::protocol("packet id 0"));
    }
    if !rest.is_empty() {
        if version == Version::V3 {
            return Err(Bad::malformed("bytes behind the packet's end"));
        }
        let consumed = match kind {
            Ack::Puback => v5_0::Puback::parse(body).map_err(bad)?.1,
            Ack::Pubrec => v5_0::Pubrec::parse(body).map_err(bad)?.1,
            Ack::Pubrel => v5_0::Pubrel::parse(body).map_err(bad)?.1,
            Ack::Pubcomp => v5_0::Pubcomp::parse(body).map_err(bad)?.1,
        };
        ends(consumed, body)?;
    }
    let reason = rest.first().copied().unwrap_or(reason::SUCCESS);
    Ok(Packet::Ack(kind, id, reason))
}

fn packet_id(body: &[u8]) -> Result<u16, Bad> {
    match body.first_chunk::<2>().map(|id| u16::from_be_bytes(*id)) {
        None => Err(Bad::malformed("packet cut short")),
        Some(0) => Err(Bad::malformed("packet id 0")),
        Some(id) => Ok(id),
    }
}

/// What one filter of a SUBSCRIBE asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Valid, with its `$share/GROUP/`.
    pub text: String,
    /// Highest QoS.
    pub qos: u8,
    /// v5: not the client's own messages.
    pub no_local: bool,
    /// v5: with the retain flag as it was published.
    pub as_published: bool,
    /// v5: whether retained messages are wanted.
    pub handling: RetainHandling,
}

/// When a SUBSCRIBE wants the retained messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainHandling {
    /// In any case.
    Always,
    /// If the subscription is new.
    New,
    /// Not.
    Never,
}

/// A SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Packet id.
    pub id: u16,
    /// v5: what its messages are marked with.
    pub identifier: Option<u32>,
    /// In order.
    pub filters: Vec<Filter>,
}

fn valid(filter: &str) -> Result<String, Bad> {
    match topic::split_share(filter) {
        Some(_) => Ok(filter.to_owned()),
        // 0x8f is for filters that are well formed.
        None => Err(Bad::malformed("topic filter")),
    }
}

/// What is wrong with a SUBSCRIBE or UNSUBSCRIBE of v5. A property that does not belong there makes
/// it malformed (section 2.2.2.2), which the library takes for a protocol error; no filter is one,
/// and identifier 0 (section 3.8.2.1.2).
fn bad_filters(body: &[u8], error: MqttError) -> Bad {
    match error {
        MqttError::ProtocolError if matches!(body, [_, _, _, 0x0b, 0, ..]) => {
            Bad::protocol("subscription identifier 0")
        }
        MqttError::ProtocolError if !matches!(body, [_, _, 0]) => Bad::malformed("properties"),
        error => bad(error),
    }
}

fn filter(entry: &SubEntry) -> Result<Filter, Bad> {
    let options = entry.sub_opts();
    Ok(Filter {
        text: valid(entry.topic_filter())?,
        qos: qos(options.qos()),
        no_local: options.nl(),
        as_published: options.rap(),
        handling: match options.rh() {
            packet::RetainHandling::SendRetained => RetainHandling::Always,
            packet::RetainHandling::SendRetainedIfNotExists => RetainHandling::New,
            packet::RetainHandling::DoNotSendRetained => RetainHandling::Never,
        },
    })
}

pub(super) fn subscribe(version: Version, body: &[u8]) -> Result<Packet, Bad> {
    let id = packet_id(body)?;
    let mut identifier = None;
    let filters: Vec<Filter> = match version {
        Version::V3 => {
            let (packet, consumed) = v3_1_1::Subscribe::parse(body).map_err(bad)?;
            ends(consumed, body)?;
            let reserved = |entry: &SubEntry| entry.sub_opts().to_buffer()[0] & 0xfc != 0;
            if packet.entries().iter().any(reserved) {
                return Err(Bad::malformed("reserved bits of a requested QoS"));
            }
            packet
                .entries()
                .iter()
                .map(filter)
                .collect::<Result<_, _>>()?
        }
        Version::V5 => {
            let parsed = v5_0::Subscribe::parse(body);
            let (packet, consumed) = parsed.map_err(|error| bad_filters(body, error))?;
            ends(consumed, body)?;
            for property in packet.props() {
                match property {
                    Property::SubscriptionIdentifier(_) if identifier.is_some() => {
                        return Err(Bad::protocol("two subscription identifiers"));
                    }
                    Property::SubscriptionIdentifier(p) => identifier = Some(p.val()),
                    Property::UserProperty(p) => strings(&[p.key(), p.val()])?,
                    _ => {}
                }
            }
            packet
                .entries()
                .iter()
                .map(filter)
                .collect::<Result<_, _>>()?
        }
    };
    let is_shared = |filter: &Filter| filter.no_local && filter.text.starts_with("$share/");
    if filters.iter().any(is_shared) {
        return Err(Bad::protocol("no local in a shared subscription"));
    }
    Ok(Packet::Subscribe(Subscribe {
        id,
        identifier,
        filters,
    }))
}

pub(super) fn unsubscribe(version: Version, body: &[u8]) -> Result<Packet, Bad> {
    let id = packet_id(body)?;
    let filters: Vec<String> = match version {
        Version::V3 => {
            let (packet, consumed) = v3_1_1::Unsubscribe::parse(body).map_err(bad)?;
            ends(consumed, body)?;
            let all = packet.entries().iter().map(|entry| valid(entry.as_str()));
            all.collect::<Result<_, _>>()?
        }
        Version::V5 => {
            let parsed = v5_0::Unsubscribe::parse(body);
            let (packet, consumed) = parsed.map_err(|error| bad_filters(body, error))?;
            ends(consumed, body)?;
            let all = packet.entries().iter().map(|entry| valid(entry.as_str()));
            all.collect::<Result<_, _>>()?
        }
    };
    Ok(Packet::Unsubscribe(id, filters))
}

pub(super) fn ping(body: &[u8]) -> Result<Packet, Bad> {
    ends(0, body).map(|()| Packet::Ping)
}

pub(super) fn disconnect(version: Version, body: &[u8]) -> Result<Packet, Bad> {
    if version == Version::V3 {
        return ends(0, body).map(|()| Packet::Disconnect(0, None));
    }
    let (packet, consumed) = v5_0::Disconnect::parse(body).map_err(bad)?;
    ends(consumed, body)?;
    let mut expiry = None;
    for property in packet.props().iter().flatten() {
        match property {
            Property::SessionExpiryInterval(p) => expiry = Some(p.val()),
            Property::ReasonString(p) => strings(&[p.val()])?,
            Property::UserProperty(p) => strings(&[p.key(), p.val()])?,
            Property::ServerReference(_) => {
                return Err(Bad::protocol("server reference from a client"));
            }
            _ => {}
        }
    }
    Ok(Packet::Disconnect(
        body.first().copied().unwrap_or(0),
        expiry,
    ))
}

/// AUTH is always wrong: no connection here has agreed on a method.
pub(super) fn auth(body: &[u8]) -> Bad {
    match v5_0::Auth::parse(body) {
        Ok((_, consumed)) if consumed == body.len() => Bad::protocol("AUTH without a method"),
        Ok(_) => Bad::malformed("bytes behind the packet's end"),
        Err(error) => bad(error),
    }
}
