//! Who subscribes to what: a trie of filter levels.
//!
//! `+` and `#` are children like any other, for no topic has a level of that name. A look-up goes
//! from a node to three children at most, however many there are; it visits only nodes that are the
//! beginning of a matching filter. Filters have [`LEVELS_MAX`] levels at most, which bounds the
//! recursion.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashMap;

use super::queue::Outbox;

/// Most levels of a filter, as in mosquitto.
pub const LEVELS_MAX: usize = 200;
/// Memory that all subscriptions together may take, in bytes, estimated.
pub const BYTES_MAX: usize = 64 << 20;
/// What a level takes beside its name, in bytes, about.
const LEVEL_BYTES: usize = 256;
/// What a subscription takes beside its filter, in bytes, about.
const SUBSCRIPTION_BYTES: usize = 256;

/// Memory that a client's subscription counts for: its filter is kept with its session.
fn size(group: Option<&str>, filter: &str) -> usize {
    SUBSCRIPTION_BYTES + 2 * group.map_or(0, str::len) + filter.len()
}

/// How a subscriber wants the messages of a filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Highest QoS.
    pub qos: u8,
    /// v5: not its own messages.
    pub no_local: bool,
    /// v5: with the retain flag as it was published.
    pub as_published: bool,
    /// v5: the subscription identifier.
    pub identifier: Option<u32>,
}

/// One client's subscription to one filter.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Who.
    pub to: Arc<Outbox>,
    /// How.
    pub options: Options,
}

/// The members of a `$share` group, who get each message in turn.
#[derive(Debug, Default)]
pub struct Group {
    members: Vec<Subscription>,
    turn: AtomicUsize,
}

/// The subscriptions of one filter.
#[derive(Debug, Default)]
pub struct Here {
    /// By the number of the outbox.
    pub direct: HashMap<u64, Subscription>,
    /// By name.
    pub groups: HashMap<Box<str>, Group>,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<[u8]>, Node>,
    here: Here,
}

/// All filters.
#[derive(Debug, Default)]
pub struct Tree {
    root: Node,
    bytes: usize,
}

impl Group {
    /// Whose turn it is: of those who are connected, else of all, for what is kept for a client
    /// that is away is not lost.
    pub fn next(&self) -> Option<&Subscription> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.members.len();
        let from = turn.checked_rem(count)?;
        let order = || self.members.iter().cycle().skip(from).take(count);
        order()
            .find(|member| member.to.is_connected())
            .or_else(|| order().next())
    }
}

impl Here {
    fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.groups.is_empty()
    }

    /// Whether the subscription is new.
    fn insert(&mut self, group: Option<&str>, subscription: Subscription) -> bool {
        let Some(group) = group else {
            let number = subscription.to.number;
            return self.direct.insert(number, subscription).is_none();
        };
        let members = &mut self.groups.entry_ref(group).or_default().members;
        let number = subscription.to.number;
        match members.iter_mut().find(|had| had.to.number == number) {
            Some(had) => {
                *had = subscription;
                false
            }
            None => {
                members.push(subscription);
                true
            }
        }
    }

    fn remove(&mut self, group: Option<&str>, number: u64) -> bool {
        let Some(group) = group else {
            return self.direct.remove(&number).is_some();
        };
        let Some(found) = self.groups.get_mut(group) else {
            return false;
        };
        let before = found.members.len();
        found.members.retain(|member| member.to.number != number);
        let removed = found.members.len() < before;
        if found.members.is_empty() {
            self.groups.remove(group);
        }
        removed
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.here.is_empty()
    }

    /// `rest`: the levels below this node; `hidden`: wildcards do not match here.
    fn collect<'a>(&'a self, rest: Option<&[u8]>, hidden: bool, found: &mut Vec<&'a Here>) {
        if !hidden && let Some(all) = self.children.get(&b"#"[..]) {
            found.push(&all.here);
        }
        let Some(rest) = rest else {
            if !self.here.is_empty() {
                found.push(&self.here);
            }
            return;
        };
        if self.children.is_empty() {
            return;
        }
        let (level, below) = split(rest);
        if let Some(child) = self.children.get(level) {
            child.collect(below, false, found);
        }
        if !hidden && let Some(child) = self.children.get(&b"+"[..]) {
            child.collect(below, false, found);
        }
    }

    /// Returns whether it was there, and the bytes that became free.
    fn remove(&mut self, rest: Option<&[u8]>, group: Option<&str>, number: u64) -> (bool, usize) {
        let Some(rest) = rest else {
            return (self.here.remove(group, number), 0);
        };
        let (level, below) = split(rest);
        let Some(child) = self.children.get_mut(level) else {
            return (false, 0);
        };
        let (removed, mut freed) = child.remove(below, group, number);
        if child.is_empty() {
            self.children.remove(level);
            freed += level.len() + LEVEL_BYTES;
        }
        (removed, freed)
    }
}

/// The first level, and what is below it.
fn split(topic: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut parts = topic.splitn(2, |byte| *byte == b'/');
    (parts.next().unwrap_or_default(), parts.next())
}

impl Tree {
    /// Adds a subscription, or replaces that of the same client to the same filter. Returns whether
    /// it is new; `None` when all take too much memory.
    pub fn insert(
        &mut self,
        group: Option<&str>,
        filter: &str,
        subscription: Subscription,
    ) -> Option<bool> {
        if self.bytes >= BYTES_MAX {
            return None;
        }
        let mut node = &mut self.root;
        for level in filter.as_bytes().split(|byte| *byte == b'/') {
            let bytes = &mut self.bytes;
            node = node.children.entry_ref(level).or_insert_with(|| {
                *bytes += level.len() + LEVEL_BYTES;
                Node::default()
            });
        }
        let is_new = node.here.insert(group, subscription);
        if is_new {
            self.bytes += size(group, filter);
        }
        Some(is_new)
    }

    /// Removes a client's subscription. Returns whether it was there.
    pub fn remove(&mut self, group: Option<&str>, filter: &str, number: u64) -> bool {
        let (removed, mut freed) = self.root.remove(Some(filter.as_bytes()), group, number);
        if removed {
            freed += size(group, filter);
        }
        self.bytes = self.bytes.saturating_sub(freed);
        removed
    }

    /// Memory that the filters take, in bytes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The subscriptions of all filters that match a topic. Wildcards in front do not match topics
    /// that begin with `$` (section 4.7.2).
    #[must_use]
    pub fn matching(&self, topic: &[u8]) -> Vec<&Here> {
        let mut found = Vec::new();
        let hidden = topic.first() == Some(&b'$');
        self.root.collect(Some(topic), hidden, &mut found);
        found
    }
}
