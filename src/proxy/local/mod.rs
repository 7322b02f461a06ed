//! Local delivery: what the proxy takes for Kafka goes to the site's own subscribers too.
//!
//! ```text
//!  PUBLISH ─▶ batch ─┬─▶ spool (the road)
//!                    └─▶ tree ─▶ outbox of each subscriber ─▶ its connection
//! ```
//! A message is delivered when it is taken for the road, not when it is safe; one that is refused
//! (no route, too large) is delivered to nobody. While nobody subscribes a message costs one atomic
//! load. A slow subscriber's messages are dropped (`queue`); nobody waits for it.
//!
//! All of this is in memory for now: subscriptions, queued and retained messages end with the
//! process.

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
use super::packet::{Filter, Publish, RetainHandling, Subscribe, reason};
use super::topic;
use crate::config::checked;
use crate::metrics::{Counter, Gauge, Metrics};

/// Subscribers, and what is retained for them.
#[derive(Debug)]
pub struct Local {
    tree: RwLock<Tree>,
    subscriptions: AtomicUsize,
    retained: Mutex<Retained>,
    limits: Arc<Limits>,
    subscriptions_max: usize,
    next: AtomicU64,
}

impl Local {
    /// Nobody, nothing.
    #[must_use]
    pub fn new(config: &checked::Local, metrics: Arc<Metrics>) -> Self {
        Self {
            tree: RwLock::default(),
            subscriptions: AtomicUsize::new(0),
            retained: Mutex::new(Retained::new(
                config.max_retained_messages,
                config.max_retained_bytes,
            )),
            limits: Arc::new(Limits {
                messages_max: config.max_queued_messages,
                bytes_max: config.max_queued_bytes,
                total_max: config.max_total_queued_bytes,
                total: AtomicUsize::new(0),
                metrics,
            }),
            subscriptions_max: config.max_subscriptions,
            next: AtomicU64::new(0),
        }
    }

    /// The outbox of a new session.
    #[must_use]
    pub fn outbox(&self, client_id: &Arc<str>) -> Arc<Outbox> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let limits = Arc::clone(&self.limits);
        Arc::new(Outbox::new(number, Arc::clone(client_id), limits))
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
        let Some((group, levels)) = topic::split_share(&filter.text) else {
            return reason::FILTER_INVALID;
        };
        if levels.split('/').count() > LEVELS_MAX {
            return reason::FILTER_INVALID;
        }
        let options = Options {
            qos: filter.qos,
            no_local: filter.no_local,
            as_published: filter.as_published,
            identifier,
        };
        let (is_new, text) = {
            let mut filters = to.filters.lock();
            let Some(filters) = filters.as_mut() else {
                return reason::UNSPECIFIED;
            };
            let known = filters.get(&*filter.text).cloned();
            if known.is_none() && filters.len() >= self.subscriptions_max {
                return reason::QUOTA;
            }
            let subscription = Subscription {
                to: Arc::clone(to),
                options,
            };
            let Some(is_new) = self.tree.write().insert(group, levels, subscription) else {
                return reason::QUOTA;
            };
            let text = known.unwrap_or_else(|| filter.text.as_str().into());
            filters.insert(Arc::clone(&text));
            (is_new, text)
        };
        if is_new {
            self.count(|all| all.fetch_add(1, Ordering::Relaxed) + 1);
        }
        let retained = match filter.handling {
            RetainHandling::Always => true,
            RetainHandling::New => is_new,
            RetainHandling::Never => false,
        };
        if retained && group.is_none() {
            to.search(Search {
                filter: text,
                options,
                after: Box::default(),
            });
        }
        filter.qos
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
        to: &Outbox,
        connection: u64,
        (out, bytes_max): (&mut Vec<u8>, usize),
    ) -> bool {
        let searched = self.search(to, connection);
        to.take(connection, out, bytes_max) || searched
    }

    /// One step of looking for retained messages. `false`: nothing to look for, or no room.
    fn search(&self, to: &Outbox, connection: u64) -> bool {
        let Some((mut search, room)) = to.next_search(connection) else {
            return false;
        };
        let options = search.options;
        let found = self.retained.lock().find(&search, room, Instant::now());
        for message in found.messages {
            if options.no_local && message.from == to.client_id {
                continue;
            }
            let grant = Grant {
                qos: message.qos.min(options.qos),
                retain: true,
                identifiers: options.identifier.into_iter().collect(),
            };
            to.offer(&message, grant);
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
        if retained.expire(Instant::now()) {
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
        for filter in filters.into_iter().flatten() {
            self.remove(outbox, &filter);
        }
        outbox.end();
    }

    /// Delivers a message that was taken for the road, and retains it if it is to be. `name` is its
    /// valid topic, `from` its publisher's client id.
    pub fn publish(&self, publish: &Publish<'_>, name: &[u8], from: &Arc<str>) {
        let tree = self.tree.read();
        let found = tree.matching(name);
        let retain = publish.flags & 1 != 0;
        if found.is_empty() && !retain {
            return;
        }
        let message = Arc::new(Message::new(publish, name, from, Instant::now()));
        if retain {
            let mut retained = self.retained.lock();
            let kept = retained.set(&message);
            let count = retained.count() as u64;
            drop(retained);
            self.limits.metrics.set(Gauge::Retained, count);
            if !kept {
                self.limits.metrics.add(Counter::UnretainedFull, 1);
            }
        }
        deliver(&message, &found);
    }
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
/// do (section 3.3.4), and once to each `$share` group.
fn deliver(message: &Arc<Message>, found: &[&Here]) {
    for group in found.iter().flat_map(|here| here.groups.values()) {
        if let Some(member) = group.next()
            && let Some(grant) = grant(message, member)
        {
            member.to.offer(message, grant);
        }
    }
    if let [only] = found {
        for subscription in only.direct.values() {
            if let Some(grant) = grant(message, subscription) {
                subscription.to.offer(message, grant);
            }
        }
        return;
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
        to.offer(message, grant);
    }
}
