//! Under which producer id and epoch a run sends (DESIGN.md 2.2 rule 1).
//!
//! # Invariants
//! - One producer id a spool and cluster; each run takes the epoch behind the greatest ever used.
//! - On every stream epochs grow in the order of its records, so a rebase takes a new epoch too;
//!   streams that must rebase share one as long as none needs it twice.
//! - An identity is synced before its first use. Epochs that run out, another cluster, another
//!   device (the spool was copied), or a fenced id: a new id.

use std::collections::{HashMap, HashSet};

use crate::spool::{Identity, Run, StreamId};

/// The identities of all runs, and the next one to give.
#[derive(Debug, Default)]
pub(super) struct Identities {
    device: String,
    cluster_id: String,
    by_run: HashMap<Run, Identity>,
    /// The newest identity in this cluster; the next has its producer id and a greater epoch.
    newest: Option<Identity>,
    /// The greatest epoch that earlier starts of the gateway had of each producer id.
    earlier: HashMap<i64, i16>,
    /// What rebased streams take now, and which have it.
    shared: Option<(Identity, HashSet<StreamId>)>,
    /// Producer ids that another has taken over.
    fenced: HashSet<i64>,
}

/// What [`Identities::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Use this (once it is synced).
    Use(Identity),
    /// Ask Kafka for a producer id first.
    NeedsId,
}

impl Identities {
    /// Those of a spool on this device; it knows of none yet.
    pub(super) fn new(device: String) -> Self {
        Self {
            device,
            ..Self::default()
        }
    }

    /// What the spool knows, in a cluster. Returns the runs that need an identity before anything
    /// is sent, in order: those that never sent anything. `current` among them if its identity is
    /// another cluster's.
    pub(super) fn learn(
        &mut self,
        cluster_id: &str,
        known: &[(Run, Option<Identity>)],
        current: Run,
    ) -> Vec<Run> {
        if self.cluster_id != cluster_id {
            cluster_id.clone_into(&mut self.cluster_id);
            self.newest = None;
            self.shared = None;
        }
        let mut needing = Vec::new();
        for (run, identity) in known {
            match identity {
                Some(identity) => {
                    self.by_run.insert(*run, identity.clone());
                    if identity.cluster_id == cluster_id && identity.has_producer() {
                        match identity.device == self.device {
                            true => self.raise(identity),
                            // Who has the original goes on under this id.
                            false => self.newest = None,
                        }
                    }
                    if *run < current {
                        let greatest = self.earlier.entry(identity.producer_id);
                        let greatest = greatest.or_insert(identity.epoch);
                        *greatest = identity.epoch.max(*greatest);
                    }
                }
                None if *run <= current => needing.push(*run),
                None => {}
            }
        }
        let last = known
            .iter()
            .rev()
            .find_map(|(_, identity)| identity.as_ref());
        if last.is_some_and(|last| last.device != self.device && !last.device.is_empty()) {
            tracing::warn!(
                "the data folder was copied, or moved to another device: taking a new producer id"
            );
        }
        if !needing.contains(&current) && self.of(current).is_none() {
            needing.push(current);
        }
        needing.sort_unstable();
        needing
    }

    /// The identity that a run sends under in this cluster.
    pub(super) fn of(&self, run: Run) -> Option<&Identity> {
        self.here(run).filter(|identity| identity.has_producer())
    }

    /// Whether a run has sent to this cluster without a producer id, by the other engine.
    pub(super) fn is_unidentified(&self, run: Run) -> bool {
        self.here(run)
            .is_some_and(|identity| !identity.has_producer())
    }

    fn here(&self, run: Run) -> Option<&Identity> {
        let identity = self.by_run.get(&run);
        identity.filter(|identity| identity.cluster_id == self.cluster_id)
    }

    /// Whether an earlier start of the gateway had a greater epoch than this run. Where that one
    /// has written, all that this run left is there: it went first.
    pub(super) fn was_passed(&self, run: Run) -> bool {
        let earlier = |of: &Identity| self.earlier.get(&of.producer_id).copied();
        self.of(run)
            .is_some_and(|identity| earlier(identity) > Some(identity.epoch))
    }

    /// The greatest epoch ever used with a producer id of ours.
    pub(super) fn greatest_epoch(&self, producer_id: i64) -> Option<i16> {
        self.newest
            .as_ref()
            .filter(|newest| newest.producer_id == producer_id)
            .map(|newest| newest.epoch)
            .or_else(|| {
                self.by_run
                    .values()
                    .filter(|identity| identity.producer_id == producer_id)
                    .map(|identity| identity.epoch)
                    .max()
            })
    }

    /// The next identity. It counts as used from here on, whether or not it gets stored.
    pub(super) fn next(&mut self) -> Next {
        let next = self.newest.as_ref().and_then(|newest| {
            let epoch = newest.epoch.checked_add(1)?;
            (!self.fenced.contains(&newest.producer_id)).then(|| Identity {
                epoch,
                ..newest.clone()
            })
        });
        match next {
            Some(identity) => {
                self.newest = Some(identity.clone());
                Next::Use(identity)
            }
            None => Next::NeedsId,
        }
    }

    /// A new producer id from Kafka, with the epoch that came with it; [`Identities::next`] goes on
    /// from there.
    pub(super) fn new_id(&mut self, producer_id: i64, epoch: i16) {
        // The first `next` gives this very epoch.
        self.newest = Some(Identity {
            producer_id,
            epoch: epoch.saturating_sub(1),
            cluster_id: self.cluster_id.clone(),
            device: self.device.clone(),
        });
        self.shared = None;
    }

    /// An identity for a stream that must rebase.
    pub(super) fn next_for(&mut self, stream: StreamId) -> Next {
        if let Some((identity, streams)) = &mut self.shared
            && !self.fenced.contains(&identity.producer_id)
            && streams.insert(stream)
        {
            return Next::Use(identity.clone());
        }
        let next = self.next();
        if let Next::Use(identity) = &next {
            self.shared = Some((identity.clone(), HashSet::from([stream])));
        }
        next
    }

    /// Another writes under this producer id.
    pub(super) fn fence(&mut self, producer_id: i64) {
        self.fenced.insert(producer_id);
    }

    /// A run's identity is synced.
    pub(super) fn stored(&mut self, run: Run, identity: Identity) {
        self.raise(&identity);
        self.by_run.insert(run, identity);
    }

    /// Later runs have the newer producer id: what comes later in the spool's order wins, and
    /// within an id the greater epoch.
    fn raise(&mut self, identity: &Identity) {
        match &mut self.newest {
            Some(newest) if newest.producer_id == identity.producer_id => {
                newest.epoch = newest.epoch.max(identity.epoch);
            }
            newest => *newest = Some(identity.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(producer_id: i64, epoch: i16, cluster: &str) -> Identity {
        Identity {
            producer_id,
            epoch,
            cluster_id: cluster.to_owned(),
            device: String::new(),
        }
    }

    #[test]
    fn a_run_takes_the_epoch_behind_the_greatest() {
        let mut all = Identities::default();
        let known = [
            (Run(1), Some(identity(7, 4, "a"))),
            (Run(2), Some(identity(7, 6, "a"))),
            (Run(3), Some(identity(7, 5, "a"))),
            (Run(4), None),
            (Run(5), None),
        ];
        assert_eq!(all.learn("a", &known, Run(5)), [Run(4), Run(5)]);
        assert_eq!(all.next(), Next::Use(identity(7, 7, "a")));
        assert_eq!(all.next(), Next::Use(identity(7, 8, "a")));
        all.stored(Run(5), identity(7, 8, "a"));
        let passed = [1, 2, 3, 5].map(|run| all.was_passed(Run(run)));
        assert_eq!(passed, [true, false, true, false]);
    }

    #[test]
    fn no_id_another_cluster_and_epochs_at_their_end_need_a_new_id() {
        let mut all = Identities::default();
        assert_eq!(all.learn("a", &[(Run(1), None)], Run(1)), [Run(1)]);
        assert_eq!(all.next(), Next::NeedsId);
        all.new_id(9, 0);
        assert_eq!(all.next(), Next::Use(identity(9, 0, "a")));
        all.stored(Run(1), identity(9, 0, "a"));

        assert_eq!(
            all.learn("b", &[(Run(1), Some(identity(9, 0, "a")))], Run(1)),
            [Run(1)]
        );
        assert_eq!(all.next(), Next::NeedsId);

        let mut all = Identities::default();
        all.learn("a", &[(Run(1), Some(identity(7, i16::MAX, "a")))], Run(2));
        assert_eq!(all.next(), Next::NeedsId);
    }

    #[test]
    fn a_copied_spool_needs_a_new_id_and_keeps_it() {
        let original = identity(7, 4, "a");
        let mut copy = Identities::new("other".to_owned());
        let known = [(Run(1), Some(original.clone())), (Run(2), None)];
        assert_eq!(copy.learn("a", &known, Run(2)), [Run(2)]);
        assert_eq!(copy.next(), Next::NeedsId);
        copy.new_id(8, 0);
        let Next::Use(taken) = copy.next() else {
            panic!("no identity")
        };
        assert_eq!((taken.producer_id, taken.epoch), (8, 0));
        // What the original left is asked about under its own id.
        assert_eq!(copy.of(Run(1)), Some(&original));
        assert_eq!(copy.greatest_epoch(7), Some(4));

        let mut later = Identities::new("other".to_owned());
        let known = [
            (Run(1), Some(original)),
            (Run(2), Some(taken)),
            (Run(3), None),
        ];
        later.learn("a", &known, Run(3));
        let Next::Use(next) = later.next() else {
            panic!("no identity")
        };
        assert_eq!((next.producer_id, next.epoch), (8, 1));
    }

    #[test]
    fn rebased_streams_share_an_epoch_but_none_has_it_twice() {
        let mut all = Identities::default();
        all.learn("a", &[(Run(1), Some(identity(7, 4, "a")))], Run(1));
        assert_eq!(all.next_for(StreamId(1)), Next::Use(identity(7, 5, "a")));
        assert_eq!(all.next_for(StreamId(2)), Next::Use(identity(7, 5, "a")));
        assert_eq!(all.next_for(StreamId(1)), Next::Use(identity(7, 6, "a")));
        assert_eq!(all.next_for(StreamId(2)), Next::Use(identity(7, 6, "a")));
        all.fence(7);
        assert_eq!(all.next_for(StreamId(1)), Next::NeedsId);
    }
}
