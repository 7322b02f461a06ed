//! From accept to CONNACK.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout_at;

use super::Shared;
use super::access::{Pass, Visitor};
use super::bounds::{Part, WillPart};
use super::buffer::ReadBuffer;
use super::packet::{self, Accepted, Bad, Connect, Telling, Version, reason};
use super::session::{Claim, Guest, KeptWill};

/// A client that was let in, and what it has sent beyond its CONNECT.
#[derive(Debug)]
pub struct Entered {
    /// Its CONNECT.
    pub connect: Connect,
    /// Its client id, or the one it was given.
    pub client_id: String,
    /// Its hold of the session.
    pub claim: Claim,
    /// What it came in by.
    pub pass: Pass,
    /// Its will.
    pub will: Option<KeptWill>,
    /// What was read.
    pub buffer: ReadBuffer,
}

/// Why a client was not let in.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It broke the protocol, or wants what there is not.
    #[error(transparent)]
    Bad(#[from] Bad),
    /// It sent no whole CONNECT in time.
    #[error("no CONNECT in time")]
    Late,
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Too much waits for the rest of packets, and this one began first.
pub const TOO_SLOW: Bad = Bad {
    reason: reason::QUOTA,
    what: "packet unfinished for the longest, and too much is",
};

const TOO_MANY_WILLS: Bad = Bad {
    reason: reason::QUOTA,
    what: "no room for another will",
};

/// Waits for the CONNECT and answers it.
///
/// # Errors
/// Why the client was not let in; it has been told, where its protocol has words for it.
pub async fn enter<S>(
    stream: &mut S,
    visitor: &Visitor,
    part: &mut Part,
    shared: &Arc<Shared>,
) -> Result<Entered, Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = ReadBuffer::default();
    let handshake = async {
        let (mut connect, length) = first_packet(stream, &mut buffer, (part, shared)).await?;
        buffer.consume(length);
        let pass = visitor.access.admit(visitor, &mut connect, &shared.gate);
        let pass = match pass.await {
            Ok(pass) => pass,
            Err(bad) => return Err(refuse(stream, connect.telling(), bad).await),
        };
        let mut will = None;
        if let Some(kept) = connect.will.take() {
            let Some(part) = WillPart::take(&shared.wills, kept.bytes()) else {
                return Err(refuse(stream, connect.telling(), TOO_MANY_WILLS).await);
            };
            will = Some(Box::new((kept, part)));
        }
        let client_id = client_id(&connect, stream).await?;
        let expiry = shared.sessions.granted(connect.session_expiry);
        let guest = Guest {
            peer: visitor.peer,
            version: connect.version,
            pass: pass.clone(),
        };
        let claim = shared
            .sessions
            .claim(&client_id, (connect.clean, expiry), guest)
            .await;
        // The session it ends may leave a will.
        shared.publish_due();
        let mut out = Vec::new();
        let lowered = expiry.as_secs() != u64::from(connect.session_expiry);
        let accepted = Accepted {
            session_present: claim.present && !connect.is_3_1,
            receive_maximum: shared.config.max_inflight_messages,
            packet_bytes_max: u32::try_from(shared.config.max_packet_bytes).unwrap_or(u32::MAX),
            topic_alias_max: shared.config.topic_alias_max,
            assigned_id: connect.client_id.is_empty().then_some(&*client_id),
            session_expiry: u32::try_from(expiry.as_secs()).ok().filter(|_| lowered),
        };
        packet::connack(&mut out, connect.version, &accepted)
            .map_err(|_| Bad::protocol("CONNACK cannot be said"))?;
        if out.len() > connect.telling().packet_bytes_max {
            let bad = Bad::protocol("maximum packet size too small for a CONNACK");
            return Err(Refused::Bad(bad));
        }
        stream.write_all(&out).await?;
        stream.flush().await?;
        Ok((connect, client_id, claim, (will, pass)))
    };
    let (connect, client_id, claim, (will, pass)) = timeout_at(visitor.deadline, handshake)
        .await
        .map_err(|_| Refused::Late)??;
    Ok(Entered {
        connect,
        client_id,
        claim,
        pass,
        will,
        buffer,
    })
}

/// Reads until the CONNECT is there. Anything else is refused at its first byte.
async fn first_packet<S>(
    stream: &mut S,
    buffer: &mut ReadBuffer,
    (part, shared): (&mut Part, &Shared),
) -> Result<(Connect, usize), Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        if buffer.data().first().is_some_and(|first| first >> 4 != 1) {
            return Err(Bad::protocol("first packet is no CONNECT").into());
        }
        if let Some(frame) = packet::frame(buffer.data(), shared.config.max_packet_bytes)? {
            let length = frame.length;
            let connect = match packet::connect(frame.body) {
                Ok(connect) => connect,
                Err(bad) => {
                    // 3.1 and 3.1.1 are answered in their words, all else in those of version 5.
                    let version = match frame.body {
                        [0, 4, b'M', b'Q', b'T', b'T', 4, ..] => Version::V3,
                        [0, 4, b'M', b'Q', b'T', b'T', ..] => Version::V5,
                        _ => Version::V3,
                    };
                    return Err(refuse(stream, Telling::codes(version), bad).await);
                }
            };
            if connect.authenticates {
                let bad = Bad {
                    reason: reason::AUTH_METHOD,
                    what: "no enhanced authentication here",
                };
                return Err(refuse(stream, connect.telling(), bad).await);
            }
            part.set(0);
            return Ok((connect, length));
        }
        part.set(buffer.data().len());
        let read = tokio::select! {
            () = part.cut() => return Err(TOO_SLOW.into()),
            read = buffer.read(stream) => read?,
        };
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// Tells a client that it may not come in.
async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, telling: Telling, bad: Bad) -> Refused {
    let mut out = Vec::new();
    packet::connack_refused(&mut out, telling, bad);
    let told = stream.write_all(&out).await;
    match told.and(stream.flush().await) {
        Ok(()) => Refused::Bad(bad),
        Err(error) => Refused::Io(error),
    }
}

/// The client's id, or a new one. 3.1.1 gives a new one only to clients that leave no session
/// behind.
async fn client_id<S>(connect: &Connect, stream: &mut S) -> Result<String, Refused>
where
    S: AsyncWrite + Unpin,
{
    if !connect.client_id.is_empty() {
        return Ok(connect.client_id.clone());
    }
    if connect.version == Version::V3 && !connect.clean {
        let bad = Bad {
            reason: reason::CLIENT_ID,
            what: "session without a client id",
        };
        return Err(refuse(stream, connect.telling(), bad).await);
    }
    let random = RandomState::new();
    let (high, low) = (random.hash_one(0), random.hash_one(1));
    Ok(format!("auto-{high:016x}{low:016x}"))
}
