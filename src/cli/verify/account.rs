//! What was read of a topic, kept as ranges: of each partition, gateway and run the numbers seen,
//! and what came twice or too late. Pure; memory grows with gaps and runs, not with records.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::record::Header;
use crate::spool::Ranges;

/// Ranges of all runs together; beyond it nothing more is learnt, and that is an alarm.
pub(super) const PIECES_MAX: usize = 500_000;
/// Offsets of each kind of finding that are named.
const EXAMPLES: usize = 10;

/// Who numbered a record, by its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin<'a> {
    pub gateway: &'a str,
    pub run: u32,
    pub seq: u64,
}

impl<'a> Origin<'a> {
    /// From `tidegate.id`, `tidegate.run` and `tidegate.seq`; the last of each name counts, for the
    /// gateway's own stand behind all others.
    pub fn of(headers: &[Header<'a>]) -> Option<Self> {
        let text = |wanted: &[u8]| {
            let mut named = headers.iter().rev().filter(|(name, _)| *name == wanted);
            std::str::from_utf8(named.next()?.1?).ok()
        };
        Some(Self {
            gateway: text(b"tidegate.id")?,
            run: text(b"tidegate.run")?.parse().ok()?,
            seq: text(b"tidegate.seq")?.parse().ok()?,
        })
    }
}

/// Records of a kind: how many, and where some of them are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub records: u64,
    /// Number and offset of the first few.
    pub examples: Vec<(u64, i64)>,
}

impl Finding {
    fn add(&mut self, seq: u64, offset: i64) {
        self.records += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push((seq, offset));
        }
    }
}

/// Records of one run in a partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    pub seen: Ranges,
    /// Numbers that were there already.
    pub repeats: Finding,
    /// Numbers that come behind a greater one, or behind a later run.
    pub late: Finding,
    /// It is the first of its gateway in this partition: what went before may have been deleted.
    pub oldest: bool,
}

/// Records of one gateway in a partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Gateway {
    pub runs: BTreeMap<u32, Run>,
    newest: u32,
}

/// A partition, as far as it was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Partition {
    pub gateways: BTreeMap<String, Gateway>,
    /// First offset that is still there.
    pub begin: i64,
    pub records: u64,
    /// Records without whole provenance headers.
    pub nameless: u64,
    /// Offsets that no record has: compaction took them.
    pub compacted: u64,
    /// Batches that cannot be read: offset and why.
    pub unreadable: Vec<(i64, String)>,
}

/// All partitions.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub partitions: HashMap<i32, Partition>,
    /// Ranges of all runs.
    pieces: usize,
}

impl Account {
    pub fn partition(&mut self, partition: i32) -> &mut Partition {
        self.partitions.entry(partition).or_default()
    }

    /// Whether there are so many gaps that no more can be kept.
    pub fn is_full(&self) -> bool {
        self.pieces >= PIECES_MAX
    }

    /// Takes the next record of a partition; gives false when its number was there already.
    pub fn take(&mut self, partition: i32, offset: i64, origin: Option<Origin<'_>>) -> bool {
        let there = self.partitions.entry(partition).or_default();
        there.records += 1;
        let Some(origin) = origin else {
            there.nameless += 1;
            return true;
        };
        if !there.gateways.contains_key(origin.gateway) {
            let name = origin.gateway.to_owned();
            there.gateways.insert(name, Gateway::default());
        }
        let Some(gateway) = there.gateways.get_mut(origin.gateway) else {
            return true;
        };
        let oldest = gateway.runs.is_empty();
        let run = gateway.runs.entry(origin.run).or_insert_with(|| Run {
            oldest,
            ..Run::default()
        });
        let before = run.seen.pieces();
        let greatest = run.seen.end();
        let fresh = run.seen.insert(origin.seq);
        self.pieces = (self.pieces + run.seen.pieces()).saturating_sub(before);
        if !fresh {
            run.repeats.add(origin.seq, offset);
        } else if origin.seq < greatest || origin.run < gateway.newest {
            run.late.add(origin.seq, offset);
        }
        gateway.newest = gateway.newest.max(origin.run);
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(account: &mut Account, records: &[(u32, u64)]) {
        for (offset, (run, seq)) in (0..).zip(records) {
            let origin = Origin {
                gateway: "g",
                run: *run,
                seq: *seq,
            };
            account.take(0, offset, Some(origin));
        }
    }

    fn run(account: &Account, run: u32) -> &Run {
        &account.partitions[&0].gateways["g"].runs[&run]
    }

    #[test]
    fn a_gap_a_repeat_and_a_swap_are_told_apart() {
        let mut account = Account::default();
        let records = [0, 1, 2, 5, 6, 6, 8, 7, 9, 1].map(|seq| (3, seq));
        take(&mut account, &records);
        let run = run(&account, 3);
        let missing: Vec<_> = run.seen.missing(0, run.seen.end()).iter().collect();
        assert_eq!(missing, [(3, 5)]);
        assert_eq!(run.repeats.examples, [(6, 5), (1, 9)]);
        assert_eq!(
            (run.late.records, &run.late.examples[..]),
            (1, &[(7, 7)][..])
        );
    }

    #[test]
    fn an_older_run_behind_a_newer_is_late() {
        let mut account = Account::default();
        take(&mut account, &[(1, 0), (1, 1), (2, 0), (1, 2), (2, 1)]);
        assert_eq!(run(&account, 1).late.examples, [(2, 3)]);
        assert_eq!(run(&account, 2).late.records, 0);
        assert!(run(&account, 1).oldest && !run(&account, 2).oldest);
    }

    #[test]
    fn memory_follows_the_gaps() {
        let mut account = Account::default();
        for seq in 0..100_000 {
            let origin = Origin {
                gateway: "g",
                run: 1,
                seq,
            };
            account.take(7, 0, Some(origin));
        }
        account.take(7, 0, None);
        assert_eq!((account.pieces, account.partitions[&7].nameless), (1, 1));
    }

    #[test]
    fn provenance_is_whole_or_not_there() {
        let headers: [Header<'_>; 4] = [
            (b"tidegate.seq", Some(b"forged")),
            (b"tidegate.id", Some(b"g")),
            (b"tidegate.run", Some(b"2")),
            (b"tidegate.seq", Some(b"7")),
        ];
        let origin = Origin::of(&headers).unwrap();
        assert_eq!((origin.gateway, origin.run, origin.seq), ("g", 2, 7));
        for left_out in 1..4 {
            let mut some = headers.to_vec();
            some.remove(left_out);
            assert_eq!(Origin::of(&some), None);
        }
    }
}
