//! SASL: who we are, told in `SaslHandshake` and `SaslAuthenticate` requests right behind
//! `ApiVersions` (KIP-43, KIP-152).
//!
//! Passwords and tokens are fetched anew for each connection, so that a file that was changed is
//! used without a restart. A session that ends (KIP-368) is replaced by a new connection before it
//! does; see `pool`.

pub mod oauth;
pub mod oidc;
mod scram;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::sasl_authenticate_request::SaslAuthenticateRequest;
use kafka_protocol::messages::sasl_handshake_request::SaslHandshakeRequest;
use kafka_protocol::protocol::StrBytes;

use crate::kafka::client::Error;
use crate::kafka::connection::Connection;
use crate::kafka::versions::{SASL_AUTHENTICATE, SASL_HANDSHAKE, Versions};
use crate::secret::Source;

pub use scram::Hash;

/// How we say who we are.
#[derive(Debug)]
pub enum Sasl {
    /// `PLAIN`: name and password, as they are (RFC 4616).
    Plain(Login),
    /// `SCRAM-SHA-256`, `SCRAM-SHA-512`: a proof that we know the password, and that the broker
    /// does (RFC 5802).
    Scram(Hash, Login),
    /// `OAUTHBEARER`: a token of an identity provider (RFC 7628).
    OauthBearer {
        /// Where tokens come from.
        tokens: oauth::Tokens,
        /// What is told beside the token, as some services want it.
        extensions: BTreeMap<String, String>,
    },
}

/// A name and its password.
#[derive(Clone, Debug)]
pub struct Login {
    /// The name.
    pub username: String,
    /// Where its password is.
    pub password: Source,
}

/// Why there is no session.
pub(super) enum Failure {
    /// The connection broke, or answered nonsense.
    Call(Error),
    /// The broker, or we, did not like what was said.
    Refused(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl Sasl {
    fn mechanism(&self) -> &'static str {
        match self {
            Self::Plain(_) => "PLAIN",
            Self::Scram(hash, _) => hash.mechanism(),
            Self::OauthBearer { .. } => "OAUTHBEARER",
        }
    }

    /// What takes long when this takes long.
    pub(in crate::kafka) fn stage(&self) -> &'static str {
        match self {
            Self::OauthBearer {
                tokens: oauth::Tokens::Provider(_),
                ..
            } => "SASL OAUTHBEARER, getting the token included,",
            _ => "SASL",
        }
    }

    /// Authenticates a fresh connection; returns how long the session lasts, if it ends.
    ///
    /// # Errors
    /// [`Error::Connect`] with [`ErrorKind::PermissionDenied`] when either side refuses; the
    /// errors of a call otherwise.
    pub(in crate::kafka) async fn authenticate(
        &self,
        connection: &Connection,
        versions: &Versions,
    ) -> Result<Option<Duration>, Error> {
        let result = async {
            self.handshake(connection, versions).await?;
            let mut talk = Talk {
                connection,
                version: versions.pick(&SASL_AUTHENTICATE)?,
                lifetime_ms: 0,
            };
            match self {
                Self::Plain(login) => talk.plain(login).await?,
                Self::Scram(hash, login) => scram::talk(*hash, login, &mut talk).await?,
                Self::OauthBearer { tokens, extensions } => {
                    oauth::talk(tokens, extensions, &mut talk).await?;
                }
            }
            let lifetime = u64::try_from(talk.lifetime_ms).unwrap_or(0);
            Ok((lifetime > 0).then(|| Duration::from_millis(lifetime)))
        };
        result.await.map_err(|failure| match failure {
            Failure::Call(error) => error,
            Failure::Refused(why) => Error::Connect {
                address: connection.address().to_string(),
                source: io::Error::new(
                    ErrorKind::PermissionDenied,
                    format!("SASL {}: {why}", self.mechanism()),
                ),
            },
        })
    }

    async fn handshake(&self, connection: &Connection, versions: &Versions) -> Result<(), Failure> {
        let version = versions.pick(&SASL_HANDSHAKE)?;
        let request = SaslHandshakeRequest::default()
            .with_mechanism(StrBytes::from_static_str(self.mechanism()));
        let answer = connection.call(&SASL_HANDSHAKE, version, &request).await?;
        match answer.error_code {
            0 => Ok(()),
            UNSUPPORTED_SASL_MECHANISM => {
                let all: Vec<&str> = answer.mechanisms.iter().map(|m| m.as_str()).collect();
                let all = all.join(", ");
                Err(Failure::Refused(format!("the broker takes only {all}")))
            }
            ILLEGAL_SASL_STATE => Err(Failure::Refused("this listener asks for no SASL".into())),
            code => Err(Failure::Refused(format!("handshake: error {code}"))),
        }
    }
}

const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
const ILLEGAL_SASL_STATE: i16 = 34;

/// The messages of a mechanism, one request each.
pub(super) struct Talk<'a> {
    connection: &'a Connection,
    version: i16,
    lifetime_ms: i64,
}

impl Talk<'_> {
    /// Says something and gives the broker's answer.
    pub(super) async fn say(&mut self, message: impl Into<Bytes>) -> Result<Bytes, Failure> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
        let call = self
            .connection
            .call(&SASL_AUTHENTICATE, self.version, &request);
        let answer = call.await?;
        if answer.error_code != 0 {
            let words = answer.error_message.map(|words| words.to_string());
            let words = words.unwrap_or_else(|| "the broker refuses".into());
            return Err(Failure::Refused(format!(
                "{words} (error {})",
                answer.error_code
            )));
        }
        self.lifetime_ms = answer.session_lifetime_ms;
        Ok(answer.auth_bytes)
    }

    async fn plain(&mut self, login: &Login) -> Result<(), Failure> {
        let password = login.password()?;
        if login.username.contains('\0') || password.expose().contains('\0') {
            return Err(Failure::Refused(
                "a name or password with a NUL in it".into(),
            ));
        }
        let message = format!("\0{}\0{}", login.username, password.expose());
        self.say(message).await.map(drop)
    }
}

impl Login {
    fn password(&self) -> Result<crate::secret::Secret, Failure> {
        let fetched = self.password.fetch();
        fetched.map_err(|error| Failure::Refused(format!("password: {error}")))
    }
}
