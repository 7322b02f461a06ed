//! Streams of frames against RFC 6455.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::frame::{CLOSE, PONG};
use super::*;

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: here\r\nUpgrade: WebSocket\r\n\
    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, mqtt\r\n\r\n";

/// A frame as clients send it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame::write(&mut frame, first & 15, payload);
    frame[0] = first;
    let head = frame.len() - payload.len();
    frame[1] |= 0x80;
    let mask = [7, 77, 0, 177];
    let body = payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m);
    [&frame[..head], &mask, &body.collect::<Vec<u8>>()].concat()
}

async fn opened() -> (WebSocket<DuplexStream>, DuplexStream) {
    let (server, mut client) = duplex(1 << 20);
    client.write_all(REQUEST.as_bytes()).await.unwrap();
    let socket = accept(server).await.unwrap();
    let mut answer = vec![0; 1024];
    let length = client.read(&mut answer).await.unwrap();
    let answer = std::str::from_utf8(&answer[..length]).unwrap();
    // The example of RFC 6455, section 1.3.
    assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    assert!(answer.contains("Sec-WebSocket-Protocol: mqtt\r\n"));
    (socket, client)
}

#[tokio::test]
async fn frames_in_any_pieces_are_one_stream() {
    let long: Vec<u8> = (0..70_000_u32).map(|n| n as u8).collect();
    let all = [
        masked(0x82, b"abc"),
        masked(0x02, b"de"),
        masked(0x89, b"are you there"),
        masked(0x00, b""),
        masked(0x80, b"f"),
        masked(0x82, &long[..126]),
        masked(0x82, &long),
        masked(0x8a, b"unasked"),
        masked(0x82, b"end"),
    ]
    .concat();
    let wanted = [&b"abcdef"[..], &long[..126], &long, b"end"].concat();
    for step in [1, 2, 3, 5, 13, 4096, 4097, 100_000] {
        let (mut socket, mut client) = opened().await;
        let mut got = Vec::new();
        for piece in all.chunks(step) {
            client.write_all(piece).await.unwrap();
        }
        while got.len() < wanted.len() {
            let mut some = vec![0; step.min(1000)];
            let bytes = socket.read(&mut some).await.unwrap();
            assert!(bytes > 0);
            got.extend_from_slice(&some[..bytes]);
        }
        assert!(got == wanted, "in steps of {step}");
        let mut pong = vec![0; 15];
        client.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, [&[0x80 | PONG, 13], &b"are you there"[..]].concat());
    }
}

#[tokio::test]
async fn what_is_written_goes_in_binary_frames_and_ends_with_a_close() {
    let (mut socket, mut client) = opened().await;
    let long = vec![9; 40_000];
    socket.write_all(b"hi").await.unwrap();
    socket.write_all(&long).await.unwrap();
    socket.flush().await.unwrap();
    client.write_all(&masked(0x80 | CLOSE, &[])).await.unwrap();
    assert_eq!(socket.read(&mut [0; 9]).await.unwrap(), 0);
    socket.shutdown().await.unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    assert_eq!(all[..4], [0x82, 2, b'h', b'i']);
    assert_eq!(all[4..8], [0x82, 126, 0x40, 0]);
    assert_eq!(all[all.len() - 4..], [0x88, 2, 3, 0xe8]);
    assert_eq!(all.len(), 4 + 40_000 + 3 * 4 + 4);
}

#[tokio::test]
async fn what_is_no_frame_of_a_client_ends_the_connection() {
    let bad: [(&[u8], &str); 9] = [
        (&masked(0x81, b"text"), "text frame"),
        (&[0x82, 3, 1, 2, 3], "without a mask"),
        (&masked(0xc2, b"compressed"), "reserved bits"),
        (&masked(0x83, b"?"), "unknown opcode"),
        (&masked(0x80, b"?"), "continuation of nothing"),
        (&[masked(2, b"a"), masked(2, b"b")].concat(), "within"),
        (&masked(0x09, b"half a ping"), "in parts"),
        (&masked(0x89, &[0; 126]), "too long"),
        (&[0x82, 0xff, 0xff], ""),
    ];
    for (bytes, why) in bad {
        let (mut socket, mut client) = opened().await;
        client.write_all(bytes).await.unwrap();
        drop(client);
        let mut all = Vec::new();
        let result = socket.read_to_end(&mut all).await;
        let told = result
            .err()
            .map_or(String::new(), |error| error.to_string());
        assert!(told.contains(why), "{bytes:?}: {told}");
    }
}

#[tokio::test]
async fn other_requests_are_refused_in_words() {
    let long = format!("GET / HTTP/1.1\r\nCookie: {}\r\n", "x".repeat(9000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(70));
    let no_protocol = REQUEST.replace("chat, mqtt", "chat");
    let short_key = REQUEST.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhl");
    for (request, why) in [
        ("\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0", "no HTTP request"),
        ("GET / HTTP/1.1\r\nHost: here\r\n\r\n", "WebSocket listener"),
        ("POST / HTTP/1.1\r\n\r\n", "WebSocket listener"),
        (&REQUEST.replace("13", "8"), "Sec-WebSocket-Version"),
        (&no_protocol, "subprotocol mqtt"),
        (&short_key, "16 bytes"),
        (&long, "too long"),
        (&many, "no HTTP request"),
    ] {
        let (server, mut client) = duplex(1 << 20);
        client.write_all(request.as_bytes()).await.unwrap();
        let error = accept(server).await.unwrap_err().to_string();
        assert!(error.contains(why), "{request}: {error}");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(why));
    }
}
