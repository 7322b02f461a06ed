//! OAUTHBEARER (RFC 7628, KIP-255): a token, shown as it is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::oidc::Provider;
use super::{Failure, Talk};
use crate::secret::{Secret, Source};

/// Where tokens come from.
#[derive(Debug)]
pub enum Tokens {
    /// A file that somebody else keeps fresh; read for each connection.
    File(PathBuf),
    /// An identity provider.
    Provider(Box<Provider>),
}

impl Tokens {
    /// One that is good now.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub async fn token(&self) -> Result<Secret, String> {
        match self {
            Self::File(path) => {
                let token = Source::File(path.clone()).fetch();
                token.map_err(|error| format!("token: {error}"))
            }
            Self::Provider(provider) => provider.token().await,
        }
    }
}

/// The whole exchange.
pub(super) async fn talk(
    tokens: &Tokens,
    extensions: &BTreeMap<String, String>,
    talk: &mut Talk<'_>,
) -> Result<(), Failure> {
    let token = tokens.token().await.map_err(Failure::Refused)?;
    let message = first(token.expose().trim(), extensions).map_err(Failure::Refused)?;
    let answer = talk.say(message).await;
    let refused = match answer {
        Ok(answer) if answer.is_empty() => return Ok(()),
        // The reason comes first, and the failure when we have said that we understand.
        Ok(reason) => {
            drop(talk.say(&b"\x01"[..]).await);
            let reason = String::from_utf8_lossy(&reason).into_owned();
            Failure::Refused(format!("the broker refuses the token: {reason:.300}"))
        }
        Err(failure) => failure,
    };
    if let Tokens::Provider(provider) = tokens {
        provider.forget().await;
    }
    Err(refused)
}

fn first(token: &str, extensions: &BTreeMap<String, String>) -> Result<String, String> {
    // b64token of RFC 6750.
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    if token.is_empty() || !token.bytes().all(legal) {
        return Err("the token holds what no token may".into());
    }
    let mut message = format!("n,,\x01auth=Bearer {token}\x01");
    for (name, value) in extensions {
        message.push_str(&format!("{name}={value}\x01"));
    }
    message.push('\x01');
    Ok(message)
}

/// Whether an extension can be said (RFC 7628, section 3.1): the name is of letters and is not
/// `auth`, the value is printable.
#[must_use]
pub fn is_extension(name: &str, value: &str) -> bool {
    let printable = |b: u8| matches!(b, 0x20..=0x7e | b'\t' | b'\r' | b'\n');
    !name.is_empty()
        && name != "auth"
        && name.bytes().all(|b| b.is_ascii_alphabetic())
        && !value.is_empty()
        && value.bytes().all(printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_as_the_rfc_says() {
        let extensions = BTreeMap::from([("logicalCluster".to_owned(), "lkc-1".to_owned())]);
        let message = first("abc.def", &extensions).unwrap();
        assert_eq!(
            message,
            "n,,\x01auth=Bearer abc.def\x01logicalCluster=lkc-1\x01\x01"
        );
        assert_eq!(
            first("t=", &BTreeMap::new()).unwrap(),
            "n,,\x01auth=Bearer t=\x01\x01"
        );
        for bad in ["", "a b", "a\x01b", "é"] {
            assert!(first(bad, &BTreeMap::new()).is_err());
        }
    }

    #[test]
    fn extensions_are_names_of_letters() {
        assert!(is_extension("identityPoolId", "pool-1 x"));
        for (name, value) in [
            ("", "x"),
            ("auth", "x"),
            ("a-b", "x"),
            ("a", ""),
            ("a", "\x01"),
        ] {
            assert!(!is_extension(name, value), "{name}");
        }
    }
}
