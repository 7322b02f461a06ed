//! Local delivery: what the proxy takes for Kafka goes to the site's own subscribers too.
//!
//! ```text
//!  PUBLISH ─▶ batch ─┬─▶ spool (the road)
//!                    └─▶ tree ─▶ outbox of each subscriber ─▶ its connection
//! ```
//! A message is delivered when it is taken for the road, not when it is safe; at QoS 2 between two
//! sessions that are kept when it is safe, for until then its publisher may have to send it again.
//! One that is refused (no route, too large) is delivered to nobody. While nobody subscribes a
//! message costs one atomic load. A slow subscriber's messages are dropped (`queue`); nobody waits
//! for it.
//!
//! Retained messages, and the subscriptions and queued messages of sessions that outlive their
//! connection, are on disk too ([`super::keep`]).

mod encode;
pub mod message;
pub mod queue;
pub mod retained;
#[cfg(test)]
mod tests;
pub mod tree;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use self::message::Message;
use self::queue::{Grant, Limits, Outbox, Search};
use self::retained::Retained;
use self::tree::{Here, LEVELS_MAX, Options, Subscription, Tree};
use super::keep::{self, Keep, Queued, WithRecord};
use super::packet::{Filter, Publish, RetainHandling, Subscribe, reason};
use crate::config::checked;
use crate::metrics::{Counter, Gauge, Metrics};
use crate::mqtt_topic as topic;
use crate::spool::Intake;

/// Most messages, and bytes, below `$SYS`: a few are our own, the others bridges'.
const SYSTEM_MAX: (usize, usize) = (1_000, 1 << 20);

/// Subscribers, and what is retained for them.
#[derive(Debug)]
pub struct Local {
    tree: RwLock<Tree>,
    subscriptions: AtomicUsize,
    retained: Mutex<Retained>,
    /// What is below `$SYS`: in no bound of the configuration, and not on disk.
    system: Mutex<Retained>,
    limits: Arc<Limits>,
    subscriptions_max: usize,
    next: AtomicU64,
    /// Numbers of sessions that are kept, ever.
    next_session: AtomicU64,
    intake: Arc<dyn Intake>,
}

impl Local {
    /// Nobody, nothing.
    #[must_use]
    pub fn new(config: &checked::Local, intake: Arc<dyn Intake>, metrics: Arc<Metrics>) -> Self {
        Self {
            tree: RwLock::default(),
            subscriptions: AtomicUsize::new(0),
            retained: Mutex::new(Retained::new(
                config.max_retained_messages,
                config.max_retained_bytes,
            )),
            system: Mutex::new(Retained::new(SYSTEM_MAX.0, SYSTEM_MAX.1)),
            limits: Arc::new(Limits {
                messages_max: config.max_queued_messages,
                bytes_max: config.max_queued_bytes,
                total_max: config.max_total_queued_bytes,
                total: AtomicUsize::new(0),
                metrics,
            }),
            subscriptions_max: config.max_subscriptions,
            next: AtomicU64::new(0),
            next_session: AtomicU64::new(1),
            intake,
        }
    }

    /// The outbox of a new session, which outlives its connection or not.
    #[must_use]
    pub fn outbox(&self, client_id: &Arc<str>, lasts: bool) -> Arc<Outbox> {
        let session = lasts.then(|| self.next_session.fetch_add(1, Ordering::Relaxed));
        self.outbox_of(client_id, session)
    }

    fn outbox_of(&self, client_id: &Arc<str>, session: Option<u64>) -> Arc<Outbox> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let limits = Arc::clone(&self.limits);
        let intake = || Arc::clone(&self.intake);
        let keep = session.map(|session| Keep::new(intake(), Arc::clone(client_id), session));
        Arc::new(Outbox::new(number, Arc::clone(client_id), limits, keep))
    }

    /// The outbox of a session that was kept, with its subscriptions and messages.
    #[must_use]
    pub fn restore(
        &self,
        client_id: &Arc<str>,
        filters: &[(String, Options)],
        session: u64,
        queued: Vec<(u64, Queued)>,
    ) -> Arc<Outbox> {
        self.next_session
            .fetch_max(session.saturating_add(1), Ordering::Relaxed);
        let to = self.outbox_of(client_id, Some(session));
        for (filter, options) in filters {
            if self.insert(&to, filter, *options).is_err() {
                tracing::warn!(%client_id, %filter, "a kept subscription has no room any more");
            }
        }
        for (number, queued) in queued {
            to.restore(number, queued);
        }
        to
    }

    /// Takes up a retained message that was kept.
    pub fn restore_retained(&self, message: Message) {
        let message = Arc::new(message);
        let mut all = self.retained.lock();
        if !all.set(&message) {
            keep::retained(&*self.intake, &message.topic, None);
        }
        let count = all.count() as u64;
        self.limits.metrics.set(Gauge::Retained, count);
    }

    /// Whether a message with these flags could be of use to anybody here.
    #[inline]
    #[must_use]
    pub fn wants(&self, flags: u8) -> bool {
        flags & 1 != 0 || self.subscriptions.load(Ordering::Relaxed) > 0
    }

    fn count(&self, change: impl FnOnce(&AtomicUsize) -> usize) {
        let now = change(&self.subscriptions);
        self.limits.metrics.set(Gauge::Subscriptions, now as u64);
    }

    /// Subscribes a session to a valid filter, and has it get what is retained. Returns SUBACK's
    /// reason code.
    pub fn subscribe(&self, to: &Arc<Outbox>, filter: &Filter, identifier: Option<u32>) -> u8 {
        let options = Options {
            qos: filter.qos,
            no_local: filter.no_local,
            as_published: filter.as_published,
            identifier,
        };
        let (is_new, text) = match self.insert(to, &filter.text, options) {
            Ok(inserted) => inserted,
            Err(code) => return code,
        };
        if let Some(keep) = &to.keep {
            keep.subscribed(&text, &options);
        }
        let is_shared = topic::split_share(&text).is_some_and(|(group, _)| group.is_some());
        let retained = match filter.handling {
            RetainHandling::Always => true,
            RetainHandling::New => is_new,
            RetainHandling::Never => false,
        };
        if retained && !is_shared {
            to.search(Search {
                filter: text,
                options,
                after: Box::default(),
            });
        }
        filter.qos
    }

    /// Puts a subscription into the tree. Returns whether it is new, and its filter; or SUBACK's
    /// reason code.
    fn insert(
        &self,
        to: &Arc<Outbox>,
        filter: &str,
        options: Options,
    ) -> Result<(bool, Arc<str>), u8> {
        let (group, levels) = topic::split_share(filter).ok_or(reason::FILTER_INVALID)?;
        if levels.split('/').count() > LEVELS_MAX {
            return Err(reason::FILTER_INVALID);
        }
        let mut filters = to.filters.lock();
        let filters = filters.as_mut().ok_or(reason::UNSPECIFIED)?;
        let known = filters.get(filter).cloned();
        if known.is_none() && filters.len() >= self.subscriptions_max {
            return Err(reason::QUOTA);
        }
        let subscription = Subscription {
            to: Arc::clone(to),
            options,
        };
        let is_new = self.tree.write().insert(group, levels, subscription);
        let is_new = is_new.ok_or(reason::QUOTA)?;
        let text = known.unwrap_or_else(|| filter.into());
        filters.insert(Arc::clone(&text));
        if is_new {
            self.count(|all| all.fetch_add(1, Ordering::Relaxed) + 1);
        }
        Ok((is_new, text))
    }

    /// Answers the filters of a SUBSCRIBE; those beyond what a client may have are not looked at.
    pub fn subscribe_all(&self, to: &Arc<Outbox>, subscribe: &Subscribe) -> Vec<u8> {
        let one = |(at, filter)| {
            if at < self.subscriptions_max {
                self.subscribe(to, filter, subscribe.identifier)
            } else {
                reason::QUOTA
            }
        };
        subscribe.filters.iter().enumerate().map(one).collect()
    }

    /// Appends what a client may get now, about `bytes_max` at once. `true`: there is more.
    pub fn deliver(
        &self,
        to: &Arc<Outbox>,
        connection: u64,
        (out, bytes_max): (&mut Vec<u8>, usize),
    ) -> bool {
        let searched = self.search(to, connection);
        to.take(connection, out, bytes_max) || searched
    }

    /// One step of looking for retained messages. `false`: nothing to look for, or no room.
    fn search(&self, to: &Arc<Outbox>, connection: u64) -> bool {
        let Some((mut search, room)) = to.next_search(connection) else {
            return false;
        };
        let options = search.options;
        let store = match is_system(search.filter.as_bytes()) {
            true => &self.system,
            false => &self.retained,
        };
        let found = store.lock().find(&search, room, Instant::now());
        for message in found.messages {
            if options.no_local && message.from == to.client_id {
                continue;
            }
            let grant = Grant {
                qos: message.qos.min(options.qos),
                retain: true,
                identifiers: options.identifier.into_iter().collect(),
            };
            to.offer(&message, grant, None);
        }
        if let Some(until) = found.until {
            search.after = (*until).into();
            to.go_on(search);
        }
        true
    }

    /// Forgets the retained messages that have expired.
    pub fn expire(&self) {
        let mut retained = self.retained.lock();
        let expired = retained.expire(Instant::now());
        for topic in &expired {
            keep::retained(&*self.intake, topic, None);
        }
        if !expired.is_empty() {
            let count = retained.count() as u64;
            self.limits.metrics.set(Gauge::Retained, count);
        }
    }

    /// Takes a subscription back. Returns UNSUBACK's reason code.
    pub fn unsubscribe(&self, to: &Outbox, filter: &str) -> u8 {
        let known = to
            .filters
            .lock()
            .as_mut()
            .is_some_and(|filters| filters.remove(filter));
        if !known {
            return reason::NO_SUBSCRIPTION;
        }
        to.forget_search(filter);
        if let Some(keep) = &to.keep {
            keep.unsubscribed([filter].into_iter());
        }
        self.remove(to, filter);
        reason::SUCCESS
    }

    fn remove(&self, to: &Outbox, filter: &str) {
        let Some((group, levels)) = topic::split_share(filter) else {
            return;
        };
        if self.tree.write().remove(group, levels, to.number) {
            self.count(|all| all.fetch_sub(1, Ordering::Relaxed) - 1);
        }
    }

    /// A session ends: its subscriptions, and what waits for it.
    pub fn end(&self, outbox: &Outbox) {
        let filters = outbox.filters.lock().take();
        if let Some(keep) = &outbox.keep {
            keep.unsubscribed(filters.iter().flatten().map(|filter| &**filter));
        }
        for filter in filters.into_iter().flatten() {
            self.remove(outbox, &filter);
        }
        outbox.end();
    }

    /// Tells subscribers what the gateway says of itself, now and when they subscribe.
    pub fn tell(&self, topic: &str, text: &str) {
        let publish = Publish {
            flags: 1,
            topic: topic.as_bytes(),
            id: 0,
            alias: None,
            properties: None,
            payload: text.as_bytes(),
        };
        let nobody: Arc<str> = "".into();
        let message = Message::new(&publish, publish.topic, &nobody, Instant::now());
        let message = Arc::new(message);
        self.system.lock().set(&message);
        deliver(&message, &self.tree.read().matching(publish.topic), None);
    }

    /// Delivers a message that was taken for the road, and retains it if it is to be. `name` is its
    /// valid topic, `from` its publisher's client id. What must be known with its record comes
    /// `with` it; returns whether something else of it is kept.
    pub fn publish(
        &self,
        publish: &Publish<'_>,
        name: &[u8],
        from: &Arc<str>,
        with: Option<&mut WithRecord>,
    ) -> bool {
        let tree = self.tree.read();
        let found = tree.matching(name);
        let retain = publish.flags & 1 != 0;
        if found.is_empty() && !retain {
            return false;
        }
        let message = Arc::new(Message::new(publish, name, from, Instant::now()));
        if retain && is_system(name) {
            self.system.lock().set(&message);
            return deliver(&message, &found, with);
        }
        if retain {
            let mut retained = self.retained.lock();
            let kept = retained.set(&message);
            let stays = Some(&*message).filter(|it| kept && !it.payload.is_empty());
            keep::retained(&*self.intake, name, stays);
            let count = retained.count() as u64;
            drop(retained);
            self.limits.metrics.set(Gauge::Retained, count);
            if !kept {
                self.limits.metrics.add(Counter::UnretainedFull, 1);
            }
        }
        deliver(&message, &found, with) | retain
    }
}

/// Whether a topic, or the topics of a filter, are the gateway's own.
#[must_use]
pub fn is_system(topic: &[u8]) -> bool {
    topic == b"$SYS" || topic.starts_with(b"$SYS/")
}

/// Whether clients may publish to a topic of `$SYS`: bridges of mosquitto tell their state there,
/// at `$SYS/broker/connection/NAME/state`.
#[must_use]
pub fn is_bridge_state(topic: &[u8]) -> bool {
    let name = topic.strip_prefix(b"$SYS/broker/connection/");
    name.and_then(|name| name.strip_suffix(b"/state"))
        .is_some_and(|name| !name.is_empty() && !name.contains(&b'/'))
}

/// What a subscription makes of a message; `None`: nothing.
fn grant(message: &Message, subscription: &Subscription) -> Option<Grant> {
    let options = &subscription.options;
    if options.no_local && message.from == subscription.to.client_id {
        return None;
    }
    Some(Grant {
        qos: message.qos.min(options.qos),
        retain: options.as_published && message.retain,
        identifiers: options.identifier.into_iter().collect(),
    })
}

/// Offers a message to all whose filters match, once to each client however many of its filters
/// do (section 3.3.4), and once to each `$share` group. Returns whether one of them is kept.
fn deliver(message: &Arc<Message>, found: &[&Here], mut with: Option<&mut WithRecord>) -> bool {
    let mut kept = false;
    for group in found.iter().flat_map(|here| here.groups.values()) {
        if let Some(member) = group.next()
            && let Some(grant) = grant(message, member)
        {
            kept |= member.to.offer(message, grant, with.as_deref_mut());
        }
    }
    if let [only] = found {
        for subscription in only.direct.values() {
            if let Some(grant) = grant(message, subscription) {
                kept |= subscription.to.offer(message, grant, with.as_deref_mut());
            }
        }
        return kept;
    }
    let mut all: Vec<(&Arc<Outbox>, Grant)> = found
        .iter()
        .flat_map(|here| here.direct.values())
        .filter_map(|subscription| Some((&subscription.to, grant(message, subscription)?)))
        .collect();
    all.sort_by_key(|(to, _)| to.number);
    all.dedup_by(|(to, grant), (kept_to, kept)| {
        let same = to.number == kept_to.number;
        if same {
            kept.qos = kept.qos.max(grant.qos);
            kept.retain |= grant.retain;
            kept.identifiers.append(&mut grant.identifiers);
        }
        same
    });
    for (to, grant) in all {
        kept |= to.offer(message, grant, with.as_deref_mut());
    }
    kept
}
