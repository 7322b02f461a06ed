//! Hashes of passwords, as they stand in a file.
//!
//! | begins with | what | made by |
//! |---|---|---|
//! | `$argon2id$` | Argon2id, RFC 9106, as a PHC string | `tidegate passwd`, mosquitto 2.1 |
//! | `$2b$`, `$2y$`, `$2a$` | bcrypt | `htpasswd -B` |
//! | `$7$` | PBKDF2 with HMAC-SHA-512 | mosquitto 2.0 |
//!
//! What a hash costs is bounded, for it is paid each time that somebody knocks.

use std::fmt;
use std::num::NonZeroU32;

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::pbkdf2::{self, PBKDF2_HMAC_SHA512};
use ring::rand::{SecureRandom as _, SystemRandom};

/// Of new hashes: 7 MiB, five passes, one lane; OWASP's choice for little memory, and 0.1 s on a
/// Raspberry Pi.
const MEMORY_KIB: u32 = 7 * 1024;
const PASSES: u32 = 5;
/// Bounds of what stands in a file.
const MEMORY_KIB_MAX: u32 = 64 * 1024;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 8;
const BCRYPT_COST_MAX: u32 = 14;
const ITERATIONS_MAX: u32 = 1_000_000;
const SALT_BYTES: usize = 16;

/// The hash of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash {
    /// As it stands in the file.
    text: Box<str>,
    kind: Kind,
}

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Argon2,
    Bcrypt,
    Pbkdf2 {
        iterations: NonZeroU32,
        salt: Box<[u8]>,
        digest: Box<[u8]>,
    },
}

/// Why a hash cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable(pub &'static str);

/// The system gives no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandom;

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(not shown)")
    }
}

impl Hash {
    /// Of a new password, with a salt of its own.
    ///
    /// # Errors
    /// There is no salt to be had.
    pub fn of(password: &[u8]) -> Result<Self, NoRandom> {
        let mut salt = [0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).map_err(|_| NoRandom)?;
        let salt = SaltString::encode_b64(&salt).map_err(|_| NoRandom)?;
        let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|_| NoRandom)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hash = argon2
            .hash_password(password, &salt)
            .map_err(|_| NoRandom)?;
        Ok(Self {
            text: hash.to_string().into(),
            kind: Kind::Argon2,
        })
    }

    /// Reads a hash.
    ///
    /// # Errors
    /// It is none of those that are known, or costs too much.
    pub fn read(text: &str) -> Result<Self, Unreadable> {
        let kind = if text.starts_with("$argon2id$") {
            read_argon2(text)?
        } else if let Some(rest) = text.strip_prefix("$7$") {
            read_pbkdf2(rest)?
        } else if ["$2a$", "$2b$", "$2y$"]
            .iter()
            .any(|it| text.starts_with(it))
        {
            read_bcrypt(text)?
        } else if text.starts_with("$6$") {
            return Err(Unreadable(
                "a hash of mosquitto 1 ($6$), which is too weak to be kept",
            ));
        } else {
            return Err(Unreadable("no hash that is known"));
        };
        Ok(Self {
            text: text.into(),
            kind,
        })
    }

    /// As it stands in a file.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is the hash of this password. Takes its time, by intent.
    #[must_use]
    pub fn fits(&self, password: &[u8]) -> bool {
        match &self.kind {
            Kind::Argon2 => {
                let hash = PasswordHash::new(&self.text);
                hash.is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
            }
            Kind::Bcrypt => bcrypt::verify(password, &self.text).unwrap_or(false),
            Kind::Pbkdf2 {
                iterations,
                salt,
                digest,
            } => pbkdf2::verify(PBKDF2_HMAC_SHA512, *iterations, salt, password, digest).is_ok(),
        }
    }
}

fn read_argon2(text: &str) -> Result<Kind, Unreadable> {
    let wrong = |_| Unreadable("no PHC string of Argon2id");
    let hash = PasswordHash::new(text).map_err(wrong)?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(Unreadable("Argon2id without salt or hash"));
    }
    let params = Params::try_from(&hash).map_err(wrong)?;
    let too_much = params.m_cost() > MEMORY_KIB_MAX
        || params.t_cost() > PASSES_MAX
        || params.p_cost() > LANES_MAX;
    if too_much {
        return Err(Unreadable(
            "Argon2id that costs too much: at most m=65536, t=16, p=8",
        ));
    }
    Ok(Kind::Argon2)
}

/// `$2b$COST$` and 53 characters of salt and hash.
fn read_bcrypt(text: &str) -> Result<Kind, Unreadable> {
    let wrong = Unreadable("no hash of bcrypt");
    let (cost, rest) = text
        .get(4..)
        .and_then(|rest| rest.split_once('$'))
        .ok_or(wrong)?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"./".contains(&byte);
    let cost: u32 = cost.parse().map_err(|_| wrong)?;
    if rest.len() != 53 || !rest.bytes().all(legal) || cost < 4 {
        return Err(wrong);
    }
    if cost > BCRYPT_COST_MAX {
        return Err(Unreadable("bcrypt that costs too much: at most 14"));
    }
    Ok(Kind::Bcrypt)
}

/// `ITERATIONS$SALT$HASH`, both in Base64.
fn read_pbkdf2(text: &str) -> Result<Kind, Unreadable> {
    let wrong = Unreadable("no hash of mosquitto ($7$ITERATIONS$SALT$HASH)");
    let mut parts = text.split('$');
    let (Some(iterations), Some(salt), Some(digest), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong);
    };
    let bytes = |text: &str| STANDARD.decode(text).map_err(|_| wrong);
    let (salt, digest) = (bytes(salt)?, bytes(digest)?);
    let iterations: NonZeroU32 = iterations.parse().map_err(|_| wrong)?;
    if salt.is_empty() || digest.len() != ring::digest::SHA512_OUTPUT_LEN {
        return Err(wrong);
    }
    if iterations.get() > ITERATIONS_MAX {
        return Err(Unreadable(
            "a hash that costs too much: at most 1,000,000 iterations",
        ));
    }
    Ok(Kind::Pbkdf2 {
        iterations,
        salt: salt.into(),
        digest: digest.into(),
    })
}
