//! Asks a running gateway's API: one request, one answer, one connection. HTTP/1.1 with
//! `Connection: close`, so the answer ends where the connection does.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// To connect; the gateway is on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest silence while it answers: a page waits for the disk.
const READ_TIMEOUT: Duration = Duration::from_mins(2);
/// Largest answer: a page holds half a mebibyte of records, or one record.
const ANSWER_BYTES_MAX: u64 = 512 << 20;

/// A gateway's API.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    address: SocketAddr,
}

impl Client {
    /// Of the gateway that has bound `address`.
    pub fn new(mut address: SocketAddr) -> Self {
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Self { address }
    }

    /// What `GET path?query` answers.
    pub fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> anyhow::Result<T> {
        let mut target = path.to_owned();
        for (at, (name, value)) in query.iter().enumerate() {
            target.push(if at == 0 { '?' } else { '&' });
            target.push_str(name);
            target.push('=');
            target.push_str(&escape(value));
        }
        self.ask("GET", &target, &[])
    }

    /// What `POST path` with a body answers.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.ask("POST", path, &serde_json::to_vec(body)?)
    }

    fn ask<T: DeserializeOwned>(&self, verb: &str, path: &str, body: &[u8]) -> anyhow::Result<T> {
        let at = format!("http://{}{path}", self.address);
        let answer = self
            .exchange(verb, path, body)
            .with_context(|| format!("the gateway runs, but its API does not answer at {at}"))?;
        let (status, body) = split(&answer).with_context(|| format!("{at}: no HTTP answer"))?;
        if status == 200 {
            return serde_json::from_slice(body).with_context(|| format!("{at}: odd answer"));
        }
        let told: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        match told.get("message").and_then(|message| message.as_str()) {
            Some(message) => bail!("{message}"),
            None => bail!("{at}: HTTP {status}"),
        }
    }

    fn exchange(&self, verb: &str, path: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        stream.set_write_timeout(Some(CONNECT_TIMEOUT))?;
        let head = format!(
            "{verb} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        Ok(answer)
    }
}

/// Status and body of an answer that is whole by its own words.
fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(answer.get(..at)?).ok()?;
    let body = answer.get(at + 4..)?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    (length == Some(body.len())).then_some((status, body))
}

/// Percent-encodes what has a meaning in a query.
fn escape(value: &str) -> String {
    let keeps = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    value
        .bytes()
        .map(|byte| match keeps(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_cut_is_none() {
        let whole = b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nbody";
        assert_eq!(split(whole), Some((404, &b"body"[..])));
        for cut in 0..whole.len() {
            assert_eq!(split(&whole[..cut]), None, "cut at {cut}");
        }
        assert_eq!(escape("a b/é-_.1"), "a%20b%2F%C3%A9-_.1");
    }
}
