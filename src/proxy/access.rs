//! Who may come in, and as whom: one [`Access`] per listener, one [`Gate`] for all.
//!
//! A password is hashed in a thread of its own, two at a time: a hash takes a tenth
//! of a second on a Raspberry Pi, by intent, and 7 MiB. One that was right is remembered as a MAC
//! under a key of this process, so that a device that comes back does not cost it again. Who is
//! wrong five times in a row waits a minute before a password is looked at again, per
//! user name and address: nobody can lock a device out from elsewhere.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::packet::{Bad, Connect, reason};
use super::socket::Peer;
use crate::access::Watched;
use crate::access::acl::{Acl, Rights};
use crate::access::password::{Hash, Passwords};
use crate::config::checked;
use crate::metrics::{Counter, Metrics};

/// Passwords that are hashed at the same time.
const HASHES_AT_ONCE: usize = 2;
/// Wrong passwords in a row before a user name is locked for an address.
const FAILURES_MAX: u32 = 5;
/// How long it is, from the last failure.
const LOCKED_FOR: Duration = Duration::from_secs(60);
/// Pairs of user name and address whose failures are counted; beyond it the oldest are forgotten.
const FAILURES_KEPT: usize = 10_000;

/// The rules of a listener.
#[derive(Debug, Default)]
pub struct Access {
    passwords: Option<Arc<Watched<Passwords>>>,
    acl: Option<Arc<Watched<Acl>>>,
    anonymous: bool,
}

/// Who stands at the door.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// The client.
    pub peer: Peer,
    /// Until when it must have said CONNECT.
    pub deadline: Instant,
    /// The user that its certificate names, where that is what counts.
    pub certified: Option<Arc<str>>,
    /// Rules of the listener that it came to.
    pub access: Arc<Access>,
}

const WRONG: Bad = Bad {
    reason: reason::BAD_CREDENTIALS,
    what: "wrong user name or password",
};
const LOCKED: Bad = Bad {
    reason: reason::BAD_CREDENTIALS,
    what: "too many wrong passwords: locked for a minute",
};
const NOBODY: Bad = Bad {
    reason: reason::NOT_AUTHORISED,
    what: "no user name, and the listener takes none without",
};

impl Access {
    /// Of a listener.
    #[must_use]
    pub fn of(listener: &checked::Listener) -> Self {
        Self {
            passwords: listener.passwords.clone(),
            acl: listener.acl.clone(),
            anonymous: listener.allow_anonymous,
        }
    }

    /// Reads files that have changed, or `always`. Returns whether passwords may have changed.
    pub fn refresh(&self, always: bool) -> bool {
        if let Some(acl) = &self.acl {
            acl.refresh(always);
        }
        let passwords = self.passwords.as_ref();
        passwords.is_some_and(|passwords| passwords.refresh(always))
    }

    /// Who a client has proved to be. A name that nothing here can prove is not believed.
    ///
    /// # Errors
    /// It may not come in.
    pub async fn admit(
        self: &Arc<Self>,
        visitor: &Visitor,
        connect: &mut Connect,
        gate: &Arc<Gate>,
    ) -> Result<Pass, Bad> {
        let mut pass = Pass {
            access: Arc::clone(self),
            user: visitor.certified.clone(),
            hash: None,
        };
        let password = connect.password.take();
        let Some(passwords) = self.passwords.as_ref().filter(|_| pass.user.is_none()) else {
            return Ok(pass);
        };
        // An empty name is none, to mosquitto too.
        let user = connect.user_name.take().filter(|user| !user.is_empty());
        let Some(user) = user else {
            return if self.anonymous {
                Ok(pass)
            } else {
                Err(NOBODY)
            };
        };
        let passwords = passwords.current();
        pass.hash = passwords.of(&user).cloned();
        let known = pass.hash.is_some();
        let Some(hash) = pass.hash.as_ref().or_else(|| passwords.stand_in(&user)) else {
            return Err(WRONG);
        };
        let password = password.map(|password| password.0).unwrap_or_default();
        let held = (known, hash.clone(), password);
        let user = gate.prove(visitor.peer.ip(), user.into(), held);
        pass.user = Some(user.await?);
        Ok(pass)
    }
}

/// What a client came in by.
#[derive(Clone, Debug)]
pub struct Pass {
    access: Arc<Access>,
    /// Who it is; `None`: anybody.
    pub user: Option<Arc<str>>,
    hash: Option<Hash>,
}

impl Pass {
    /// Whether it would still let its client in: not when the user is gone, or has another
    /// password.
    #[must_use]
    pub fn holds(&self) -> bool {
        let (Some(passwords), Some(user)) = (&self.access.passwords, &self.user) else {
            return true;
        };
        self.hash.is_none() || passwords.current().of(user) == self.hash.as_ref()
    }

    /// What its client may do; `None`: everything.
    #[must_use]
    pub fn rights(&self, client_id: &Arc<str>) -> Option<Rights> {
        let acl = Arc::clone(self.access.acl.as_ref()?);
        Some(Rights::of(acl, self.user.clone(), Arc::clone(client_id)))
    }
}

/// What is known of those who knocked.
#[derive(Debug)]
pub struct Gate {
    hashing: Arc<Semaphore>,
    /// Of this process; `None`: there were no random numbers, and nothing is remembered.
    key: Option<hmac::Key>,
    /// Of each user, the MAC of the password that was right last, and its hash.
    remembered: Mutex<HashMap<Arc<str>, hmac::Tag>>,
    failures: Mutex<HashMap<(IpAddr, Arc<str>), Failures>>,
    metrics: Arc<Metrics>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Gate {
    /// Nobody has knocked yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            hashing: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
            remembered: Mutex::default(),
            failures: Mutex::default(),
            metrics,
        }
    }

    /// Whether the password is the user's. For a name that is not `known` it is held against a
    /// stand-in's hash.
    async fn prove(
        self: &Arc<Self>,
        from: IpAddr,
        user: Arc<str>,
        (known, hash, password): (bool, Hash, Vec<u8>),
    ) -> Result<Arc<str>, Bad> {
        if self.is_locked(from, &user) {
            self.metrics.add(Counter::LoginsFailed, 1);
            return Err(LOCKED);
        }
        if known && self.remembers(&user, &hash, &password) {
            self.succeeded(from, &user);
            return Ok(user);
        }
        let Ok(permit) = Arc::clone(&self.hashing).acquire_owned().await else {
            return Err(WRONG);
        };
        // Others may have failed meanwhile.
        if self.is_locked(from, &user) {
            self.metrics.add(Counter::LoginsFailed, 1);
            return Err(LOCKED);
        }
        let gate = Arc::clone(self);
        let name = Arc::clone(&user);
        // It goes on when the client is gone: what was right is known when it comes again.
        let hashed = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let right = hash.fits(&password) && known;
            match right {
                true => gate.remember(&name, &hash, &password),
                false => gate.failed(from, &name),
            }
            right
        });
        if hashed.await.unwrap_or(false) {
            self.succeeded(from, &user);
            return Ok(user);
        }
        self.metrics.add(Counter::LoginsFailed, 1);
        Err(WRONG)
    }

    fn remembers(&self, user: &str, hash: &Hash, password: &[u8]) -> bool {
        let tag = self.remembered.lock().get(user).copied();
        let (Some(key), Some(tag)) = (&self.key, tag) else {
            return false;
        };
        hmac::verify(key, &claim(user, hash, password), tag.as_ref()).is_ok()
    }

    fn remember(&self, user: &Arc<str>, hash: &Hash, password: &[u8]) {
        if let Some(key) = &self.key {
            let tag = hmac::sign(key, &claim(user, hash, password));
            self.remembered.lock().insert(Arc::clone(user), tag);
        }
    }

    fn is_locked(&self, from: IpAddr, user: &Arc<str>) -> bool {
        let failures = self.failures.lock();
        let of = failures.get(&(from, Arc::clone(user)));
        of.is_some_and(|of| of.count >= FAILURES_MAX && of.last.elapsed() < LOCKED_FOR)
    }

    fn failed(&self, from: IpAddr, user: &Arc<str>) {
        let mut all = self.failures.lock();
        let who = (from, Arc::clone(user));
        if all.len() >= FAILURES_KEPT && !all.contains_key(&who) {
            all.retain(|_, of| of.last.elapsed() < LOCKED_FOR);
            if all.len() >= FAILURES_KEPT {
                let oldest = all.iter().min_by_key(|(_, of)| of.last);
                let oldest = oldest.map(|(who, _)| who.clone());
                oldest.and_then(|oldest| all.remove(&oldest));
            }
        }
        let last = Instant::now();
        let of = all.entry(who).or_insert(Failures { count: 0, last });
        if of.last.elapsed() >= LOCKED_FOR {
            of.count = 0;
        }
        of.count += 1;
        of.last = last;
        if of.count == FAILURES_MAX {
            tracing::warn!(%from, %user, "too many wrong passwords: locked for a minute");
        }
    }

    fn succeeded(&self, from: IpAddr, user: &Arc<str>) {
        let mut failures = self.failures.lock();
        if !failures.is_empty() {
            failures.remove(&(from, Arc::clone(user)));
        }
    }
}

/// What a MAC is made of: neither a user name nor a hash has a zero byte in it.
fn claim(user: &str, hash: &Hash, password: &[u8]) -> Vec<u8> {
    let parts = [
        user.as_bytes(),
        b"\0",
        hash.text().as_bytes(),
        b"\0",
        password,
    ];
    parts.concat()
}
