//! Every packet but PUBLISH, read by the library; with the checks of the specification that it
//! leaves out: reserved bits, U+0000 in strings, bytes behind the end, filters, packet id 0.

use mqtt_protocol_core::mqtt::packet::{self, Property, Qos, SubEntry, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::MqttError;

use super::{Ack, Bad, Packet, Properties, Version, reason};
use crate::proxy::topic;

/// A client's first packet.
#[derive(Clone, Debug)]
pub struct Connect {
    /// What it speaks.
    pub version: Version,
    /// Without session state from before.
    pub clean: bool,
    /// Seconds; 0: never timed out.
    pub keep_alive: u16,
    /// May be empty.
    pub client_id: String,
    /// What is published if the client goes without a word.
    pub will: Option<Will>,
    /// Seconds; what 3.1.1 says with its clean flag is 0 or `u32::MAX`.
    pub session_expiry: u32,
    /// Most messages that may be on the way to it without its acknowledgement.
    pub receive_maximum: u16,
    /// Largest packet the client takes.
    pub packet_bytes_max: Option<u32>,
    /// Whether it wants enhanced authentication, which is refused.
    pub authenticates: bool,
}

/// A client's last will.
#[derive(Clone, Debug)]
pub struct Will {
    /// A valid topic name.
    pub topic: String,
    /// The message.
    pub payload: Vec<u8>,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether it is to be retained.
    pub retain: bool,
    /// Seconds between the end of the connection and the will.
    pub delay: u32,
    /// v5 properties that become headers.
    pub properties: Properties,
}

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

const UNSUPPORTED: Bad = Bad {
    reason: reason::UNSUPPORTED_VERSION,
    what: "protocol version",
};

/// Reads the body of a CONNECT.
///
/// # Errors
/// [`Bad`]; reason 0x84 when the version is not ours, which 3.1.1's CONNACK can say too.
pub fn connect(body: &[u8]) -> Result<Connect, Bad> {
    let old = b"\0\x06MQIsdp";
    if let Some(rest) = body.strip_prefix(old) {
        // MQTT 3.1 differs in its name, its number, and in that a client id is never empty.
        let [3, rest @ ..] = rest else {
            return Err(UNSUPPORTED);
        };
        let mut body = [&b"\0\x04MQTT\x04"[..], rest].concat();
        if let Some(flags) = body.get_mut(7) {
            // The reserved flag was not looked at then.
            *flags &= 0xfe;
        }
        let connect = connect_v3(&body)?;
        if connect.client_id.is_empty() {
            return Err(bad(MqttError::ClientIdentifierNotValid));
        }
        return Ok(connect);
    }
    let rest = body
        .strip_prefix(b"\0\x04MQTT")
        .ok_or(Bad::malformed("protocol name"))?;
    match rest {
        [4, ..] => connect_v3(body),
        [5, ..] => connect_v5(body),
        [_, ..] => Err(UNSUPPORTED),
        [] => Err(Bad::malformed("CONNECT cut short")),
    }
}

/// Flags that the library does not look at; `body` begins with a name of four letters.
fn connect_flags(body: &[u8]) -> Result<u8, Bad> {
    let flags = *body.get(7).ok_or(Bad::malformed("CONNECT cut short"))?;
    let will = flags & 0x04 != 0;
    let will_bits = flags & 0x38;
    if flags & 1 != 0 || (!will && will_bits != 0) || flags & 0x18 == 0x18 {
        return Err(Bad::malformed("CONNECT flags"));
    }
    Ok(flags)
}

fn strings(all: &[&str]) -> Result<(), Bad> {
    if all.iter().all(|text| topic::is_text(text)) {
        Ok(())
    } else {
        Err(Bad::malformed("character not allowed in a string"))
    }
}

fn ends(consumed: usize, body: &[u8]) -> Result<(), Bad> {
    if consumed == body.len() {
        Ok(())
    } else {
        Err(Bad::malformed("bytes behind the packet's end"))
    }
}

fn qos(qos: Qos) -> u8 {
    match qos {
        Qos::AtMostOnce => 0,
        Qos::AtLeastOnce => 1,
        Qos::ExactlyOnce => 2,
    }
}

fn will_topic(name: &str) -> Result<String, Bad> {
    match topic::name(name.as_bytes()) {
        Ok(name) => Ok(name.to_owned()),
        Err(what) => Err(Bad {
            reason: reason::TOPIC_INVALID,
            what,
        }),
    }
}

fn connect_v3(body: &[u8]) -> Result<Connect, Bad> {
    let flags = connect_flags(body)?;
    if flags & 0xc0 == 0x40 {
        return Err(Bad::malformed("password without user name"));
    }
    // 3.1.1 has a code for client ids that are not let in, not for malformed ones.
    let malformed = |_| Bad::malformed("CONNECT");
    let (packet, consumed) = v3_1_1::Connect::parse(body).map_err(malformed)?;
    ends(consumed, body)?;
    strings(&[packet.client_id(), packet.user_name().unwrap_or_default()])?;
    let will = match packet.will_topic() {
        Some(name) => Some(Will {
            topic: will_topic(name)?,
            payload: packet.will_payload().unwrap_or_default().to_vec(),
            qos: qos(packet.will_qos()),
            retain: packet.will_retain(),
            delay: 0,
            properties: Properties::default(),
        }),
        None => None,
    };
    Ok(Connect {
        version: Version::V3,
        clean: packet.clean_session(),
        keep_alive: packet.keep_alive(),
        client_id: packet.client_id().to_owned(),
        will,
        session_expiry: if packet.clean_session() { 0 } else { u32::MAX },
        receive_maximum: u16::MAX,
        packet_bytes_max: None,
        authenticates: false,
    })
}

/// MQTT 5 allows a password without a user name, the library does not: the password is cut off for
/// it.
fn without_lone_password(body: &[u8], flags: u8) -> Option<Vec<u8>> {
    if flags & 0xc0 != 0x40 {
        return None;
    }
    let mut bare = body.to_vec();
    *bare.get_mut(7)? &= 0xbf;
    let (_, consumed) = v5_0::Connect::parse(&bare).ok()?;
    let (length, password) = body.get(consumed..)?.split_first_chunk::<2>()?;
    if usize::from(u16::from_be_bytes(*length)) != password.len() {
        return None;
    }
    bare.truncate(consumed);
    Some(bare)
}

fn connect_v5(body: &[u8]) -> Result<Connect, Bad> {
    let flags = connect_flags(body)?;
    let bare = without_lone_password(body, flags);
    let body = bare.as_deref().unwrap_or(body);
    let (packet, consumed) = v5_0::Connect::parse(body).map_err(bad)?;
    ends(consumed, body)?;
    if !topic::is_text(packet.client_id()) {
        return Err(bad(MqttError::ClientIdentifierNotValid));
    }
    strings(&[packet.user_name().unwrap_or_default()])?;
    let mut connect = Connect {
        version: Version::V5,
        clean: packet.clean_start(),
        keep_alive: packet.keep_alive(),
        client_id: packet.client_id().to_owned(),
        will: None,
        session_expiry: 0,
        receive_maximum: u16::MAX,
        packet_bytes_max: None,
        authenticates: false,
    };
    let mut data = false;
    for property in packet.props() {
        match property {
            Property::SessionExpiryInterval(p) => connect.session_expiry = p.val(),
            Property::ReceiveMaximum(p) => connect.receive_maximum = p.val(),
            Property::MaximumPacketSize(p) => connect.packet_bytes_max = Some(p.val()),
            Property::AuthenticationMethod(p) => {
                strings(&[p.val()])?;
                connect.authenticates = true;
            }
            Property::AuthenticationData(_) => data = true,
            Property::UserProperty(p) => strings(&[p.key(), p.val()])?,
            _ => {}
        }
    }
    if data && !connect.authenticates {
        return Err(Bad::protocol("authentication data without a method"));
    }
    if let Some(name) = packet.will_topic() {
        connect.will = Some(will_v5(&packet, name)?);
    }
    Ok(connect)
}

fn will_v5(packet: &v5_0::Connect, name: &str) -> Result<Will, Bad> {
    let mut will = Will {
        topic: will_topic(name)?,
        payload: packet.will_payload().unwrap_or_default().to_vec(),
        qos: qos(packet.will_qos()),
        retain: packet.will_retain(),
        delay: 0,
        properties: Properties::default(),
    };
    for property in packet.will_props() {
        match property {
            Property::WillDelayInterval(p) => will.delay = p.val(),
            other => will.properties.take(other)?,
        }
    }
    Ok(will)
}

pub(super) fn ack(version: Version, kind: Ack, body: &[u8]) -> Result<Packet<'static>, Bad> {
    let (id, rest) = body
        .split_first_chunk::<2>()
        .ok_or(Bad::malformed("acknowledgement cut short"))?;
    let id = u16::from_be_bytes(*id);
    if id == 0 {
        return Err(Bad::malformed("packet id 0"));
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
        Some(0) => Err(Bad::protocol("packet id 0")),
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
/// it malformed (section 2.2.2.2), which the library takes for a protocol error, as no filter is.
fn bad_filters(body: &[u8], error: MqttError) -> Bad {
    match error {
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

pub(super) fn subscribe(version: Version, body: &[u8]) -> Result<Packet<'static>, Bad> {
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
                    Property::SubscriptionIdentifier(p) => {
                        if identifier.replace(p.val()).is_some() {
                            return Err(Bad::protocol("two subscription identifiers"));
                        }
                    }
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

pub(super) fn unsubscribe(version: Version, body: &[u8]) -> Result<Packet<'static>, Bad> {
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

pub(super) fn ping(body: &[u8]) -> Result<Packet<'static>, Bad> {
    ends(0, body).map(|()| Packet::Ping)
}

pub(super) fn disconnect(version: Version, body: &[u8]) -> Result<Packet<'static>, Bad> {
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
