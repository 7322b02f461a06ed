//! CONNECT, read by the library; with the checks of the specification that it leaves out.

use std::fmt;

use mqtt_protocol_core::mqtt::packet::{Property, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::MqttError;

use super::control::{bad, ends, qos, strings};
use super::{Bad, Properties, Telling, Version, reason};
use crate::mqtt_topic as topic;

/// A client's first packet.
#[derive(Clone, Debug)]
pub struct Connect {
    /// What it speaks.
    pub version: Version,
    /// Whether it is MQTT 3.1, whose CONNACK does not tell of sessions.
    pub is_3_1: bool,
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
    /// Whether it asks to be told reasons in words.
    pub asks_reasons: bool,
    /// Whether it wants enhanced authentication, which is refused.
    pub authenticates: bool,
    /// Who it says that it is.
    pub user_name: Option<String>,
    /// By what it would prove it; without a user name it says nothing.
    pub password: Option<Password>,
}

/// A password; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub Vec<u8>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(not shown)")
    }
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

pub(super) const UNSUPPORTED: Bad = Bad {
    reason: reason::UNSUPPORTED_VERSION,
    what: "protocol version",
};

/// Who does not even write credentials rightly learns nothing, as from other brokers.
const CREDENTIALS: Bad = Bad::unsaid("user name or password malformed");

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
        let mut connect = connect_v3(&body)?;
        connect.is_3_1 = true;
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

impl Connect {
    /// How much its client is told.
    #[must_use]
    pub fn telling(&self) -> Telling {
        let most = self.packet_bytes_max.unwrap_or(u32::MAX);
        Telling {
            version: self.version,
            strings: self.asks_reasons,
            packet_bytes_max: usize::try_from(most).unwrap_or(usize::MAX),
        }
    }
}

impl Will {
    /// Memory it takes, in bytes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.topic.len() + self.payload.len() + self.properties.bytes()
    }
}

/// Flags that the library does not look at; `body` begins with a name of four letters.
fn connect_flags(body: &[u8]) -> Result<u8, Bad> {
    let Some([flags, _, _, ..]) = body.get(7..) else {
        return Err(Bad::unsaid("CONNECT cut short"));
    };
    let flags = *flags;
    let will = flags & 0x04 != 0;
    let will_bits = flags & 0x38;
    if flags & 1 != 0 || (!will && will_bits != 0) || flags & 0x18 == 0x18 {
        return Err(Bad::unsaid("CONNECT flags"));
    }
    Ok(flags)
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
        is_3_1: false,
        clean: packet.clean_session(),
        keep_alive: packet.keep_alive(),
        client_id: packet.client_id().to_owned(),
        will,
        session_expiry: if packet.clean_session() { 0 } else { u32::MAX },
        receive_maximum: u16::MAX,
        packet_bytes_max: None,
        asks_reasons: false,
        authenticates: false,
        user_name: packet.user_name().map(str::to_owned),
        password: packet.password().map(|it| Password(it.to_vec())),
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

/// Whether all is well in front of user name and password.
fn is_well_without_credentials(body: &[u8], flags: u8) -> bool {
    let mut bare = body.to_vec();
    if let Some(flags) = bare.get_mut(7) {
        *flags &= 0x3f;
    }
    flags & 0xc0 != 0 && v5_0::Connect::parse(&bare).is_ok()
}

fn connect_v5(body: &[u8]) -> Result<Connect, Bad> {
    let flags = connect_flags(body)?;
    let bare = without_lone_password(body, flags);
    let body = bare.as_deref().unwrap_or(body);
    let (packet, consumed) = v5_0::Connect::parse(body).map_err(|error| {
        if is_well_without_credentials(body, flags) {
            CREDENTIALS
        } else {
            bad(error)
        }
    })?;
    ends(consumed, body)?;
    if !topic::is_text(packet.client_id()) {
        return Err(bad(MqttError::ClientIdentifierNotValid));
    }
    if !topic::is_text(packet.user_name().unwrap_or_default()) {
        return Err(CREDENTIALS);
    }
    let mut connect = Connect {
        version: Version::V5,
        is_3_1: false,
        clean: packet.clean_start(),
        keep_alive: packet.keep_alive(),
        client_id: packet.client_id().to_owned(),
        will: None,
        session_expiry: 0,
        receive_maximum: u16::MAX,
        packet_bytes_max: None,
        asks_reasons: false,
        authenticates: false,
        user_name: packet.user_name().map(str::to_owned),
        password: packet.password().map(|it| Password(it.to_vec())),
    };
    let mut data = false;
    for property in packet.props() {
        match property {
            Property::SessionExpiryInterval(p) => connect.session_expiry = p.val(),
            Property::ReceiveMaximum(p) => connect.receive_maximum = p.val(),
            Property::MaximumPacketSize(p) => connect.packet_bytes_max = Some(p.val()),
            Property::RequestProblemInformation(p) => connect.asks_reasons = p.val() == 1,
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
