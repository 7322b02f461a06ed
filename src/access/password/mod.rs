//! Password files: a line `user:hash` for each user, as mosquitto's and htpasswd's are.
//!
//! ```text
//! # made by `tidegate passwd FILE USER`
//! pump-7:$argon2id$v=19$m=7168,t=5,p=1$…$…
//! ```
//! A blank file is refused: it is more often one that was cut short than one that is meant to shut
//! everybody out.

mod hash;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};

pub use hash::{Hash, NoRandom, Unreadable};

use super::{Rules, Wrong, lines};

/// Users, and the hashes of their passwords.
#[derive(Debug)]
pub struct Passwords {
    users: BTreeMap<Box<str>, Hash>,
    stand_ins: RandomState,
}

impl Passwords {
    /// The hash of a user's password.
    #[must_use]
    pub fn of(&self, user: &str) -> Option<&Hash> {
        self.users.get(user)
    }

    /// What a password is held against for a name that is no user's: the hash of one who is, always
    /// the same of a name. So that time does not tell who is one: kinds of hashes take from
    /// microseconds to a tenth of a second.
    #[must_use]
    pub fn stand_in(&self, name: &str) -> Option<&Hash> {
        let at = self.stand_ins.hash_one(name) % (self.users.len().max(1) as u64);
        self.users.values().nth(usize::try_from(at).ok()?)
    }

    /// How many users there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.users.len()
    }
}

impl Rules for Passwords {
    const KEY: &'static str = "password_file";

    fn read(text: &str) -> Result<Self, Wrong> {
        let mut users = BTreeMap::new();
        for (line, text) in lines(text) {
            let wrong = |found: &str, right| Wrong {
                line,
                found: found.to_owned(),
                right,
            };
            let (user, hash) = text
                .split_once(':')
                .filter(|(user, _)| !user.is_empty())
                .ok_or(wrong("not USER:HASH", REMEDY))?;
            let hash = Hash::read(hash).map_err(|why| wrong(why.0, REMEDY))?;
            if users.insert(user.into(), hash).is_some() {
                return Err(wrong("a user who has a line already", "remove one of them"));
            }
        }
        if users.is_empty() {
            return Err(Wrong {
                line: 0,
                found: "holds no user".to_owned(),
                right: REMEDY,
            });
        }
        Ok(Self {
            users,
            stand_ins: RandomState::new(),
        })
    }
}

const REMEDY: &str = "make lines with `tidegate passwd FILE USER`";

/// The text of a password file with another hash for `user`, or without the user. `None`: there is
/// no such user to take out.
#[must_use]
pub fn edited(text: &str, user: &str, hash: Option<&str>) -> Option<String> {
    let is_theirs = |line: &str| {
        let rest = line.strip_prefix(user);
        rest.is_some_and(|rest| rest.starts_with(':'))
    };
    let known = text.lines().any(is_theirs);
    if !known && hash.is_none() {
        return None;
    }
    let mut out = String::new();
    let mut add = |line: &str| {
        out.push_str(line);
        out.push('\n');
    };
    let line = hash.map(|hash| format!("{user}:{hash}"));
    for old in text.lines() {
        match &line {
            Some(line) if is_theirs(old) => add(line),
            None if is_theirs(old) => {}
            _ => add(old),
        }
    }
    if let Some(line) = line.filter(|_| !known) {
        add(&line);
    }
    Some(out)
}

/// Whether a name can stand in a password file.
#[must_use]
pub fn is_user(name: &str) -> bool {
    let legal = |c: char| c != ':' && !c.is_control();
    !name.is_empty() && !name.starts_with('#') && name.trim() == name && name.chars().all(legal)
}
