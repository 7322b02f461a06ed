//! The HTTP request that opens a WebSocket (RFC 6455, section 4.2).

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::WebSocket;

/// Longest request, bytes.
const REQUEST_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;
/// What is hashed with the client's key (section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Subprotocols: MQTT 5 section 6.0 has the first; clients of MQTT 3.1 ask for the second.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// Answers the request. The caller sees to a deadline.
///
/// # Errors
/// The stream's; or what is wrong with the request, which the client was told.
pub async fn accept<S>(mut stream: S) -> io::Result<WebSocket<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut read = Vec::new();
    let (length, answer) = loop {
        let before = read.len();
        let mut chunk = [0; 1024];
        let bytes = stream.read(&mut chunk).await?;
        read.extend_from_slice(chunk.get(..bytes).unwrap_or_default());
        match answer(&read) {
            Ok(Some(done)) => break done,
            Ok(None) if bytes == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(None) if before < REQUEST_MAX => {}
            Ok(None) => return Err(refuse(&mut stream, "request too long").await),
            Err(why) => return Err(refuse(&mut stream, why).await),
        }
    };
    stream.write_all(&answer).await?;
    stream.flush().await?;
    Ok(WebSocket::new(stream, read.split_off(length)))
}

async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, why: &'static str) -> io::Error {
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nSec-WebSocket-Version: 13\r\n\
         Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{why}\n",
        why.len() + 1
    );
    // It is refused whether it hears so or not.
    let told = stream.write_all(answer.as_bytes()).await;
    let told = told.and(stream.shutdown().await);
    told.err()
        .unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidData, why))
}

/// The values of a header; names know no case.
fn values<'r>(request: &'r httparse::Request<'_, 'r>, name: &str) -> impl Iterator<Item = &'r str> {
    let of_name = |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case(name);
    let found: Vec<&'r str> = request
        .headers
        .iter()
        .filter(of_name)
        .filter_map(|header| std::str::from_utf8(header.value).ok())
        .collect();
    found.into_iter()
}

/// The answer to a whole request, and its length; `None`: it is not whole.
fn answer(read: &[u8]) -> Result<Option<(usize, Vec<u8>)>, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(read) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err("this is no HTTP request"),
    };
    let says = |name: &str, wanted: &str| {
        let mut tokens = values(&request, name).flat_map(|value| value.split(','));
        tokens.any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    if request.method != Some("GET") || !says("upgrade", "websocket") {
        return Err("this is a WebSocket listener: a GET that upgrades is due");
    }
    if !says("connection", "upgrade") || !says("sec-websocket-version", "13") {
        return Err("Connection: Upgrade and Sec-WebSocket-Version: 13 are due");
    }
    let key = values(&request, "sec-websocket-key").next().map(str::trim);
    let key = key.filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16));
    let key = key.ok_or("a Sec-WebSocket-Key of 16 bytes is due")?;
    let asked = |name: &&&str| says("sec-websocket-protocol", name);
    let subprotocol = SUBPROTOCOLS.iter().find(asked);
    let subprotocol = subprotocol.ok_or("the subprotocol mqtt is due")?;
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(GUID);
    let accepted = STANDARD.encode(hash.finish());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accepted}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    );
    Ok(Some((length, answer.into_bytes())))
}
