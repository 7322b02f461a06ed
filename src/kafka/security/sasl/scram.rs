//! SCRAM (RFC 5802, RFC 7677), with ring's HMAC, PBKDF2 and digests.
//!
//! The broker proves that it knows the password too: its signature is checked before the first
//! request. Names and passwords are taken byte for byte; like Kafka's own client this does no
//! SASLprep.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};

use super::{Failure, Login, Talk};

/// Fewer are too easily guessed (RFC 7677); Kafka refuses them too.
const ITERATIONS_MIN: u32 = 4_096;
/// More would hold a connection for seconds on a small machine. Kafka itself stores up to 16,384.
const ITERATIONS_MAX: u32 = 1_000_000;
const NONCE_BYTES: usize = 24;

/// The hash of a SCRAM mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// `SCRAM-SHA-256`
    Sha256,
    /// `SCRAM-SHA-512`
    Sha512,
}

impl Hash {
    pub(super) fn mechanism(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

/// The whole exchange.
pub(super) async fn talk(hash: Hash, login: &Login, talk: &mut Talk<'_>) -> Result<(), Failure> {
    let password = login.password()?;
    let nonce = nonce().ok_or_else(|| Failure::Refused("no random numbers".into()))?;
    let first = first_bare(&login.username, &nonce);
    let answer = talk.say(format!("n,,{first}")).await?;
    let challenge = Challenge::read(&answer, &nonce).map_err(Failure::Refused)?;
    // Some milliseconds at Kafka's usual count, but the broker chooses it.
    let proof = tokio::task::spawn_blocking(move || {
        Proof::new(hash, password.expose(), &first, &challenge)
    });
    let proof = proof
        .await
        .map_err(|error| Failure::Refused(error.to_string()))?;
    let last = talk.say(proof.message).await?;
    verify(&proof.server_key, &proof.signed, &last).map_err(Failure::Refused)
}

fn nonce() -> Option<String> {
    let mut bytes = [0; NONCE_BYTES];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(BASE64.encode(bytes))
}

/// The first message without its header; `=` and `,` of a name are written as RFC 5802 says.
fn first_bare(username: &str, nonce: &str) -> String {
    let username = username.replace('=', "=3D").replace(',', "=2C");
    format!("n={username},r={nonce}")
}

/// The broker's first message.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    text: String,
    nonce: String,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

impl Challenge {
    fn read(message: &[u8], ours: &str) -> Result<Self, String> {
        let text = std::str::from_utf8(message).map_err(|_| "a challenge that is no text")?;
        let mut fields = text.split(',');
        let mut field = |name| fields.next().and_then(|field| field.strip_prefix(name));
        let (Some(nonce), Some(salt), Some(count)) = (field("r="), field("s="), field("i=")) else {
            return Err("a challenge without nonce, salt and count".into());
        };
        if nonce.len() <= ours.len() || !nonce.starts_with(ours) {
            return Err("a challenge to somebody else's nonce".into());
        }
        let salt = BASE64
            .decode(salt)
            .map_err(|_| "a salt that is not base64")?;
        let iterations = count.parse::<NonZeroU32>().ok();
        let iterations =
            iterations.filter(|n| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&n.get()));
        let iterations = iterations.ok_or_else(|| {
            format!("{count:.20} iterations; {ITERATIONS_MIN} to {ITERATIONS_MAX} are taken")
        })?;
        Ok(Self {
            text: text.to_owned(),
            nonce: nonce.to_owned(),
            salt,
            iterations,
        })
    }
}

/// Our last message, and what the broker's must be signed with.
struct Proof {
    message: String,
    signed: String,
    server_key: hmac::Key,
}

impl Proof {
    /// Computes for long; not for an async task.
    fn new(hash: Hash, password: &str, first: &str, challenge: &Challenge) -> Self {
        let algorithm = hash.hmac();
        let mut salted = vec![0; algorithm.digest_algorithm().output_len()];
        let (salt, password) = (&challenge.salt, password.as_bytes());
        pbkdf2::derive(
            hash.pbkdf2(),
            challenge.iterations,
            salt,
            password,
            &mut salted,
        );
        let salted = hmac::Key::new(algorithm, &salted);
        let client_key = hmac::sign(&salted, b"Client Key");
        let stored_key = digest::digest(algorithm.digest_algorithm(), client_key.as_ref());
        let server_key = hmac::sign(&salted, b"Server Key");
        // "biws" is "n,,": no channel binding.
        let bare = format!("c=biws,r={}", challenge.nonce);
        let signed = format!("{first},{},{bare}", challenge.text);
        let signature = hmac::sign(
            &hmac::Key::new(algorithm, stored_key.as_ref()),
            signed.as_bytes(),
        );
        let both = client_key.as_ref().iter().zip(signature.as_ref());
        let proof: Vec<u8> = both.map(|(key, signature)| key ^ signature).collect();
        Self {
            message: format!("{bare},p={}", BASE64.encode(proof)),
            signed,
            server_key: hmac::Key::new(algorithm, server_key.as_ref()),
        }
    }
}

/// Whether the broker's last message shows that it knows the password.
fn verify(server_key: &hmac::Key, signed: &str, message: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(message).map_err(|_| "a last message that is no text")?;
    let first = text.split(',').next().unwrap_or_default();
    if let Some(error) = first.strip_prefix("e=") {
        return Err(format!("the broker says {error:.100}"));
    }
    let signature = first.strip_prefix("v=").and_then(|v| BASE64.decode(v).ok());
    let signature = signature.ok_or("a last message without a signature")?;
    hmac::verify(server_key, signed.as_bytes(), &signature)
        .map_err(|_| "the broker does not know the password: it is not who it should be".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    /// RFC 7677, section 3.
    #[test]
    fn the_rfcs_example_comes_out() {
        let first = first_bare("user", NONCE);
        let challenge = Challenge::read(FIRST.as_bytes(), NONCE).unwrap();
        let proof = Proof::new(Hash::Sha256, "pencil", &first, &challenge);
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(proof.message, expected);
        let verify = |message: &str| verify(&proof.server_key, &proof.signed, message.as_bytes());
        verify("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
        let lie = verify("v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap_err();
        assert!(lie.contains("not who it should be"), "{lie}");
        assert!(
            verify("e=unknown-user")
                .unwrap_err()
                .contains("unknown-user")
        );
        for bad in ["", "v=", "v=!", "x=6rri", "6rri"] {
            assert!(verify(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn challenges_that_are_wrong_are_refused() {
        for (from, to) in [
            ("r=rOpr", "r=xOpr"),
            ("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", ""),
            ("s=W22", "s=!!!"),
            ("i=4096", "i=4095"),
            ("i=4096", "i=1000001"),
            ("i=4096", "i=0"),
            ("i=4096", "i=-1"),
            ("i=4096", ""),
            ("r=", "m=x,r="),
        ] {
            let message = FIRST.replacen(from, to, 1);
            assert!(
                Challenge::read(message.as_bytes(), NONCE).is_err(),
                "{message}"
            );
        }
        assert!(Challenge::read(b"\xff", NONCE).is_err());
    }

    #[test]
    fn names_are_escaped_and_nonces_differ() {
        assert_eq!(first_bare("a=b,c", "n"), "n=a=3Db=2Cc,r=n");
        assert_ne!(nonce(), nonce());
    }
}
