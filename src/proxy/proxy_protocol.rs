//! The PROXY protocol, versions 1 and 2: a load balancer's word for whom it speaks.
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::io;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::socket::Peer;

/// What version 2 begins with (section 2.2).
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Most bytes of version 1, with its line's end (section 2.1).
const V1_BYTES_MAX: usize = 107;
/// Version 2 until its length, with it.
const V2_HEAD_BYTES: usize = 16;
/// Most bytes behind that: addresses, and what a balancer adds, such as a certificate's names.
const V2_BYTES_MAX: usize = 4 * 1024;

const CONFIG: ParseConfig = ParseConfig {
    include_tlvs: false,
    allow_v1: true,
    allow_v2: true,
};

/// Reads the header and not a byte more. Returns for whom the connection is: `from`, the balancer
/// itself, when the header names nobody.
///
/// # Errors
/// What comes is no header, or a longer one than anybody needs; or reading failed.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S, from: Peer) -> io::Result<Peer> {
    let mut bytes = vec![0; V2.len()];
    stream.read_exact(&mut bytes).await?;
    if bytes == V2 {
        bytes.resize(V2_HEAD_BYTES, 0);
        let [.., high, low] = read_from(stream, &mut bytes, V2.len()).await? else {
            return Err(invalid("no PROXY header"));
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length > V2_BYTES_MAX {
            return Err(invalid("a PROXY header of more than 4 KiB"));
        }
        bytes.resize(V2_HEAD_BYTES + length, 0);
        read_from(stream, &mut bytes, V2_HEAD_BYTES).await?;
    } else {
        while !bytes.ends_with(b"\r\n") {
            if !bytes.starts_with(b"PROXY ") || bytes.len() >= V1_BYTES_MAX {
                return Err(invalid("no PROXY header"));
            }
            bytes.push(stream.read_u8().await?);
        }
    }
    let (header, _) = ProxyHeader::parse(&bytes, CONFIG)
        .map_err(|error| invalid(&format!("a wrong PROXY header: {error}")))?;
    let address = header.proxied_address();
    Ok(address.map_or(from, |address| Peer::Net(address.source)))
}

/// Fills `bytes` from `at` on.
async fn read_from<'b, S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: &'b mut [u8],
    at: usize,
) -> io::Result<&'b [u8]> {
    if let Some(rest) = bytes.get_mut(at..) {
        stream.read_exact(rest).await?;
    }
    Ok(bytes)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BALANCER: Peer = Peer::Unix;

    async fn read_all(bytes: &[u8]) -> (io::Result<Peer>, usize) {
        let mut left = bytes;
        let peer = read(&mut left, BALANCER).await;
        (peer, left.len())
    }

    fn net(address: &str) -> Peer {
        Peer::Net(address.parse().unwrap())
    }

    /// Version 2 with a command, a family and what follows.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&V2[..], &[command, family], &length, rest].concat()
    }

    #[tokio::test]
    async fn the_source_is_read_and_not_a_byte_more() {
        let four = v2(0x21, 0x11, b"\x0a\0\0\x07\x0a\0\0\x01\x30\x39\x07\x5b");
        let six = [&[0; 15][..], &[1], &[0; 15], &[2], &[0, 80, 0, 81]].concat();
        let with_tlv = v2(
            0x21,
            0x11,
            b"\x0a\0\0\x07\x0a\0\0\x01\x30\x39\x07\x5b\xe0\0\x02hi",
        );
        let unix = v2(0x21, 0x31, &[b'a'; 216]);
        for (header, peer) in [
            (
                &b"PROXY TCP4 10.0.0.7 10.0.0.1 12345 1883\r\n"[..],
                net("10.0.0.7:12345"),
            ),
            (b"PROXY TCP6 ::1 ::2 80 81\r\n", net("[::1]:80")),
            (b"PROXY UNKNOWN\r\n", BALANCER),
            (b"PROXY UNKNOWN ffff::1 whatever\r\n", BALANCER),
            (&four, net("10.0.0.7:12345")),
            (&with_tlv, net("10.0.0.7:12345")),
            (&v2(0x21, 0x21, &six), net("[::1]:80")),
            (&v2(0x20, 0x00, b""), BALANCER),
            (
                &v2(0x20, 0x11, b"\x0a\0\0\x07\x0a\0\0\x01\x30\x39\x07\x5b"),
                BALANCER,
            ),
            (&unix, BALANCER),
        ] {
            let all = [header, b"\x10MQTT"].concat();
            let (found, left) = read_all(&all).await;
            assert_eq!(
                (found.unwrap(), left),
                (peer, 5),
                "{}",
                header.escape_ascii()
            );
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_without_reading_on() {
        let endless = [&b"PROXY TCP4 "[..], &[b'1'; 500]].concat();
        for bad in [
            &b"\x10\x0c\0\x04MQTT\x04\0\0\0\0\0"[..],
            b"GET / HTTP/1.1\r\n\r\n",
            b"PROXY TCP4 10.0.0.7 10.0.0.1 99999 1\r\n",
            b"PROXY TCP4 ::1 ::1 9 1\r\n",
            b"PROXY TCP4 1.1.1.1",
            b"",
            &endless,
            &v2(0x31, 0x11, &[0; 12]),
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x21, 0x11, &[0; 3]),
            &v2(0x21, 0x11, &[0; 5000]),
        ] {
            let (found, left) = read_all(bad).await;
            assert!(found.is_err(), "{}", bad.escape_ascii());
            assert!(left + 4 * 1024 + 16 >= bad.len());
        }
        assert_eq!(read_all(&endless).await.1, endless.len() - V1_BYTES_MAX);
    }
}
