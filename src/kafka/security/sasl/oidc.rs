//! Tokens of an identity provider by the client credentials grant (RFC 6749, section 4.4): one POST
//! over HTTPS, the token kept until most of its life has passed.

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::kafka::security::tls::Tls;
use crate::kafka::security::{Security, Stream};
use crate::secret::{Secret, Source};
use crate::tls::Unfit;

/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long an answer is waited for; the connection that wants the token has its own deadline.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What a client is known by.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: Source,
    /// What it asks for, words with spaces between them; the provider's default if it says nothing.
    pub scope: Option<String>,
}

/// An identity provider, and the token it gave last.
#[derive(Debug)]
pub struct Provider {
    url: Uri,
    host: String,
    port: u16,
    security: Security,
    client: Client,
    /// Held while a token is fetched: connections that are made meanwhile share it.
    last: Mutex<Option<(Secret, Instant)>>,
}

#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    expires_in: Option<f64>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Provider {
    /// A provider by the URL of its token endpoint; `tls` makes the encryption of an `https` one.
    ///
    /// # Errors
    /// [`Unfit`]: no `https` URL, nor an `http` one of this machine; or what `tls` says.
    pub fn new(
        url: &str,
        client: Client,
        tls: impl FnOnce() -> Result<Tls, Unfit>,
    ) -> Result<Self, Unfit> {
        let unfit = |found: String| Unfit {
            key: "token_url",
            found,
            right: "write an https:// URL".into(),
        };
        let uri: Uri = url
            .parse()
            .map_err(|_| unfit(format!("{url:?} is no URL")))?;
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_owned();
        let has_user = uri.authority().is_some_and(|a| a.as_str().contains('@'));
        if host.is_empty() || has_user {
            return Err(unfit(
                "a URL without a host, or with more than one before its path".into(),
            ));
        }
        let local = host
            .parse()
            .map_or(host == "localhost", |ip: std::net::IpAddr| ip.is_loopback());
        let (port, tls) = match uri.scheme_str() {
            Some("https") => (443, Some(tls()?.into())),
            Some("http") if local => (80, None),
            Some("http") => {
                return Err(unfit(format!(
                    "{url:?} would tell the secret to the network"
                )));
            }
            _ => return Err(unfit(format!("{url:?} is no https:// URL"))),
        };
        Ok(Self {
            port: uri.port_u16().unwrap_or(port),
            url: uri,
            host,
            security: Security { tls, sasl: None },
            client,
            last: Mutex::default(),
        })
    }

    /// A token that is good for a while.
    pub(super) async fn token(&self) -> Result<Secret, String> {
        let mut last = self.last.lock().await;
        if let Some((token, until)) = &*last
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        *last = None;
        let fetched = tokio::time::timeout(TIMEOUT, self.fetch()).await;
        let fetched = fetched.unwrap_or_else(|_| Err("no answer".into()));
        let (token, life) = fetched.map_err(|why| format!("token from {}: {why}", self.url))?;
        if let Some(until) = life.and_then(|life| Instant::now().checked_add(life.mul_f64(0.8))) {
            *last = Some((token.clone(), until));
        }
        Ok(token)
    }

    /// The last token was refused.
    pub(super) async fn forget(&self) {
        *self.last.lock().await = None;
    }

    async fn fetch(&self) -> Result<(Secret, Option<Duration>), String> {
        let request = self.request()?;
        let tcp = TcpStream::connect((self.host.as_str(), self.port));
        let tcp = tcp.await.map_err(|error| error.to_string())?;
        let stream = self.security.secure(tcp, &self.host).await;
        let (status, body) = ask(stream.map_err(|error| error.to_string())?, request).await?;
        read(status, &body)
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, String> {
        let secret = self.client.secret.fetch();
        let secret = secret.map_err(|error| format!("client secret: {error}"))?;
        // Both are form-encoded first (RFC 6749, section 2.3.1).
        let pair = format!("{}:{}", encode(&self.client.id), encode(secret.expose()));
        let mut body = "grant_type=client_credentials".to_owned();
        if let Some(scope) = &self.client.scope {
            body.push_str("&scope=");
            body.push_str(&encode(scope));
        }
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let host = self
            .url
            .authority()
            .map_or("", |authority| authority.as_str());
        Request::post(path)
            .header(HOST, host)
            .header(USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(AUTHORIZATION, format!("Basic {}", BASE64.encode(pair)))
            .body(Full::new(body.into()))
            .map_err(|error| error.to_string())
    }
}

/// One request on a connection of its own.
async fn ask(stream: Stream, request: Request<Full<Bytes>>) -> Result<(u16, Bytes), String> {
    let text = |error: hyper::Error| error.to_string();
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(text)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(text)?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        let body = body.map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes()))
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => return answer,
        end = &mut connection => end.map_err(text)?,
    }
    exchange.await
}

fn read(status: u16, body: &[u8]) -> Result<(Secret, Option<Duration>), String> {
    let answer = serde_json::from_slice::<Answer>(body);
    if status != 200 {
        let words = answer
            .ok()
            .and_then(|a| Some((a.error?, a.error_description)));
        let (error, description) = words.unwrap_or_default();
        let description = description.unwrap_or_default();
        let all = format!("HTTP {status} {error} {description}");
        return Err(format!("{:.300}", all.trim_end()));
    }
    // Its text is not told: it may hold the token.
    let answer = answer.map_err(|_| "an answer that is not JSON")?;
    let token = answer.access_token.filter(|token| !token.is_empty());
    let token = token.ok_or("an answer without access_token")?;
    let life = answer
        .expires_in
        .and_then(|s| Duration::try_from_secs_f64(s).ok());
    Ok((Secret::new(token), life))
}

/// `application/x-www-form-urlencoded`
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _always = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(url: &str) -> Result<Provider, Unfit> {
        let client = Client {
            id: "gate:1".into(),
            secret: Source::Value(Secret::new("p ss".into())),
            scope: Some("kafka write".into()),
        };
        Provider::new(url, client, || {
            Tls::new(Default::default(), None, "token_ca_file")
        })
    }

    #[test]
    fn the_request_is_as_the_rfc_says() {
        let provider = provider("http://127.0.0.1:8080/realms/a/token?x=1").unwrap();
        assert_eq!((provider.host.as_str(), provider.port), ("127.0.0.1", 8080));
        let request = provider.request().unwrap();
        assert_eq!(request.uri(), "/realms/a/token?x=1");
        assert_eq!(request.headers()[HOST], "127.0.0.1:8080");
        let basic = format!("Basic {}", BASE64.encode("gate%3A1:p%20ss"));
        assert_eq!(request.headers()[AUTHORIZATION], basic);
        let shown = format!("{provider:?}");
        assert!(!shown.contains("p ss"), "{shown}");
    }

    #[test]
    fn secrets_do_not_go_in_the_clear() {
        for bad in [
            "http://idp.example/token",
            "ftp://127.0.0.1/",
            "idp",
            "",
            "https://",
            "https://a@b/",
        ] {
            assert!(provider(bad).is_err(), "{bad}");
        }
        assert_eq!(provider("http://[::1]:1/").unwrap().host, "::1");
    }

    #[test]
    fn answers_give_a_token_or_a_reason() {
        let (token, life) = read(200, br#"{"access_token":"abc","expires_in":60}"#).unwrap();
        assert_eq!(
            (token.expose(), life),
            ("abc", Some(Duration::from_mins(1)))
        );
        assert_eq!(read(200, br#"{"access_token":"abc"}"#).unwrap().1, None);
        let why = |status, body: &[u8]| read(status, body).err().unwrap();
        assert_eq!(
            why(401, br#"{"error":"invalid_client"}"#),
            "HTTP 401 invalid_client"
        );
        assert_eq!(why(502, b"<html>"), "HTTP 502");
        assert!(why(200, b"secret-token").contains("not JSON"));
        assert!(why(200, b"{}").contains("access_token"));
    }
}
