//! From what was read, and what the gateway says, to a verdict. Pure.
//!
//! A number that is missing between 0 and the last of its run is explained by the loss ledger, or
//! an alarm. So is what the gateway's cursor says is in Kafka. A number that comes twice is
//! explained as far as the ledger counts what may be twice; one that comes too late never is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::account::{Account, Finding, PIECES_MAX, Run};
use super::acked::Judged;
use crate::spool::Ranges;
use crate::spool::meta::{Loss, Reason};

/// Missing ranges of one run that are listed; all are counted.
const LISTED_MAX: usize = 1_000;

/// What one gateway says of its records of the topic.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// `gateway.id`.
    pub gateway: String,
    /// Its loss ledger, or why there is none.
    pub ledger: Vec<Loss>,
    /// The ledger's oldest lines were given up.
    pub cut: bool,
    /// By partition: everything of this run below this number is in Kafka or in the ledger.
    pub cursors: BTreeMap<i32, (u32, u64)>,
    /// Records that wait for Kafka.
    pub buffered: u64,
    /// Why nothing of this is known.
    pub silent: Option<String>,
}

/// Numbers that are not in Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Missing {
    /// First number.
    pub first: u64,
    /// Number behind the last.
    pub end: u64,
    /// The ledger's reason; `None`: nobody knows of it.
    pub reason: Option<String>,
}

/// The records of one partition, gateway and run.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Stream {
    pub partition: i32,
    pub gateway: String,
    pub run: u32,
    /// Different numbers in Kafka.
    pub records: u64,
    /// The number behind the greatest.
    pub end: u64,
    /// Numbers below the first whose records retention may have deleted: not judged.
    pub trimmed: u64,
    pub missing: Vec<Missing>,
    pub missing_explained: u64,
    pub missing_alarming: u64,
    pub repeats: Finding,
    pub repeats_explained: u64,
    pub late: Finding,
    /// Findings that nothing explains.
    pub alarms: u64,
}

/// The verdict.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Verdict {
    pub topic: String,
    pub partitions: usize,
    /// Records read.
    pub records: u64,
    /// Of them without provenance headers.
    pub without_provenance: u64,
    /// One each partition, gateway and run.
    pub streams: Vec<Stream>,
    /// Batches that cannot be read: partition, offset, why.
    pub unreadable: Vec<(i32, i64, String)>,
    /// What became of `--ledger`.
    pub acknowledged: Option<Judged>,
    /// What this cannot know, in words.
    pub cannot_know: Vec<String>,
    /// Findings that nothing explains; 0: all is well.
    pub alarms: u64,
}

/// Reasons for which a number is not in Kafka.
fn explains(reason: Reason) -> bool {
    match reason {
        Reason::Refused | Reason::MaybeTwice => false,
        Reason::Expired
        | Reason::Full
        | Reason::Rejected
        | Reason::Damaged
        | Reason::ByHand
        | Reason::DeadLettered
        | Reason::LostByKafka => true,
    }
}

/// A reason as the ledger writes it.
fn word(reason: Reason) -> String {
    let word = serde_json::to_value(reason).ok();
    let word = word.and_then(|word| word.as_str().map(str::to_owned));
    word.unwrap_or_default()
}

/// How many records of the topic the ledger explains.
pub(super) fn explained(ledger: &[Loss]) -> u64 {
    let lines = ledger.iter().filter(|loss| explains(loss.reason));
    lines.map(|loss| loss.end.saturating_sub(loss.first)).sum()
}

/// The ledger by partition and run.
#[derive(Default)]
struct Book {
    ranges: HashMap<(i32, u32), BTreeMap<String, Ranges>>,
    maybe_twice: HashMap<(i32, u32), u64>,
}

impl Book {
    fn new(ledger: &[Loss]) -> Self {
        let mut book = Self::default();
        for loss in ledger {
            let key = (loss.partition, loss.run.0);
            if loss.reason == Reason::MaybeTwice {
                *book.maybe_twice.entry(key).or_default() += loss.end.saturating_sub(loss.first);
            } else if explains(loss.reason) {
                let reasons = book.ranges.entry(key).or_default();
                let ranges = reasons.entry(word(loss.reason)).or_default();
                ranges.add(loss.first, loss.end);
            }
        }
        book
    }

    /// Sorts missing numbers by the ledger's reasons; the rest has none.
    fn explain(&self, key: (i32, u32), missing: Ranges) -> Vec<Missing> {
        let mut all = Vec::new();
        let mut left = missing;
        for (reason, ranges) in self.ranges.get(&key).into_iter().flatten() {
            let mut rest = Ranges::default();
            for (first, end) in left.iter() {
                for (first, end) in ranges.within(first, end).iter() {
                    let reason = Some(reason.clone());
                    all.push(Missing { first, end, reason });
                }
                for (first, end) in ranges.missing(first, end).iter() {
                    rest.add(first, end);
                }
            }
            left = rest;
        }
        all.extend(left.iter().map(|(first, end)| Missing {
            first,
            end,
            reason: None,
        }));
        all.sort_by_key(|missing| missing.first);
        all
    }
}

/// The verdict over a topic.
pub(super) fn judge(
    topic: &str,
    account: &Account,
    told: &Told,
    acknowledged: Option<Judged>,
) -> Verdict {
    let book = Book::new(&told.ledger);
    let nobody = Book::default();
    let mut verdict = Verdict {
        topic: topic.to_owned(),
        partitions: account.partitions.len(),
        acknowledged,
        ..Verdict::default()
    };
    let unseen = Run::default();
    let mut numbers: Vec<i32> = account.partitions.keys().copied().collect();
    numbers.sort_unstable();
    for number in numbers {
        let Some(partition) = account.partitions.get(&number) else {
            continue;
        };
        verdict.records += partition.records;
        verdict.without_provenance += partition.nameless;
        let unreadable = partition.unreadable.iter().cloned();
        let unreadable = unreadable.map(|(offset, why)| (number, offset, why));
        verdict.unreadable.extend(unreadable);
        for (name, gateway) in &partition.gateways {
            let ours = *name == told.gateway;
            for (id, run) in &gateway.runs {
                let cursor = told
                    .cursors
                    .get(&number)
                    .filter(|(run, _)| ours && run == id);
                let up_to = cursor.map_or(0, |(_, next)| *next);
                let book = if ours { &book } else { &nobody };
                let trimmed = run.oldest && partition.begin > 0;
                let place = (number, name.as_str(), *id);
                let stream = judge_run(place, run, (trimmed, up_to), book);
                verdict.streams.push(stream);
            }
        }
        // A run that the cursor stands in and of which Kafka has nothing.
        let here = partition.gateways.get(&told.gateway);
        if let Some((id, next)) = told.cursors.get(&number)
            && here.is_none_or(|gateway| !gateway.runs.contains_key(id))
            && *next > 0
            && partition.begin == 0
            && partition.nameless == 0
        {
            let place = (number, told.gateway.as_str(), *id);
            let stream = judge_run(place, &unseen, (false, *next), &book);
            verdict.streams.push(stream);
        }
    }
    verdict.alarms = verdict
        .streams
        .iter()
        .map(|stream| stream.alarms)
        .sum::<u64>()
        + verdict.unreadable.len() as u64
        + u64::from(account.is_full())
        + verdict
            .acknowledged
            .as_ref()
            .map_or(0, |judged| u64::from(judged.missing > judged.explained));
    verdict.cannot_know = cannot_know(account, told, &verdict);
    verdict
}

fn judge_run(
    (partition, gateway, id): (i32, &str, u32),
    run: &Run,
    (trimmed, up_to): (bool, u64),
    book: &Book,
) -> Stream {
    let first_seen = run.seen.iter().next().map_or(0, |(first, _)| first);
    let from = if trimmed { first_seen } else { 0 };
    let end = run.seen.end();
    let missing = book.explain((partition, id), run.seen.missing(from, end.max(up_to)));
    let count = |known: bool| {
        let of_kind = missing.iter().filter(|m| m.reason.is_some() == known);
        of_kind.map(|m| m.end - m.first).sum::<u64>()
    };
    let (missing_explained, missing_alarming) = (count(true), count(false));
    let gaps = missing.iter().filter(|m| m.reason.is_none()).count() as u64;
    let maybe_twice = book.maybe_twice.get(&(partition, id)).copied().unwrap_or(0);
    let repeats_explained = run.repeats.records.min(maybe_twice);
    let mut listed = missing;
    listed.truncate(LISTED_MAX);
    Stream {
        partition,
        gateway: gateway.to_owned(),
        run: id,
        records: run.seen.count(),
        end,
        trimmed: from,
        missing: listed,
        missing_explained,
        missing_alarming,
        repeats: run.repeats.clone(),
        repeats_explained,
        late: run.late.clone(),
        alarms: gaps + (run.repeats.records - repeats_explained) + run.late.records,
    }
}

fn cannot_know(account: &Account, told: &Told, verdict: &Verdict) -> Vec<String> {
    let mut all = Vec::new();
    let begun = account.partitions.values().filter(|p| p.begin > 0).count();
    if begun > 0 {
        let trimmed: u64 = verdict.streams.iter().map(|stream| stream.trimmed).sum();
        all.push(format!(
            "the head of {begun} partitions is gone (retention, or deleted): {trimmed} numbers at \
             the beginning of the oldest runs there, and runs before them, are not judged"
        ));
    }
    if verdict.without_provenance > 0 {
        let records = verdict.without_provenance;
        all.push(format!(
            "{records} records carry no provenance (kafka.provenance = false, or another \
             producer's): they are not judged"
        ));
    }
    let ours = |s: &&Stream| s.gateway == told.gateway;
    let known_end = |s: &&Stream| {
        let cursor = told.cursors.get(&s.partition);
        ours(s) && cursor.is_some_and(|(run, _)| *run == s.run)
    };
    let open = verdict.streams.iter().filter(|s| !known_end(s)).count();
    if open > 0 && verdict.acknowledged.is_none() {
        all.push(format!(
            "what {open} runs had behind their last record in Kafka, and runs of which nothing is \
             there: give the acknowledged messages with --ledger to judge the tails"
        ));
    }
    let others: BTreeSet<&str> = verdict
        .streams
        .iter()
        .filter(|s| !ours(s))
        .map(|s| s.gateway.as_str())
        .collect();
    if !others.is_empty() {
        let others: Vec<&str> = others.into_iter().collect();
        let others = others.join(", ");
        all.push(format!(
            "what the loss ledgers of other gateways explain ({others}): verify on each of them"
        ));
    }
    if let Some(why) = &told.silent {
        all.push(format!(
            "what the loss ledger of {} explains, and where it stands: {why}",
            told.gateway
        ));
    }
    if told.cut {
        let gateway = &told.gateway;
        all.push(format!(
            "the oldest lines of the loss ledger of {gateway}: it is bounded"
        ));
    }
    let compacted: u64 = account.partitions.values().map(|p| p.compacted).sum();
    if compacted > 0 {
        all.push(format!(
            "{compacted} offsets have no record, as compaction leaves them: gaps may be its work"
        ));
    }
    if account.is_full() {
        all.push(format!(
            "the rest: there are more than {PIECES_MAX} gaps, and reading ended there"
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::account::Origin;
    use super::*;
    use crate::spool;

    fn account(records: &[(&str, u32, u64)], begin: i64) -> Account {
        let mut account = Account::default();
        for (offset, (gateway, run, seq)) in (0..).zip(records) {
            let (run, seq) = (*run, *seq);
            let origin = Origin { gateway, run, seq };
            account.take(0, offset, Some(origin));
        }
        account.partition(0).begin = begin;
        account
    }

    fn loss(run: u32, first: u64, end: u64, reason: Reason) -> Loss {
        Loss {
            topic: "t".to_owned(),
            partition: 0,
            run: spool::Run(run),
            first,
            end,
            reason,
            at_ms: 0,
        }
    }

    fn told(ledger: Vec<Loss>) -> Told {
        Told {
            gateway: "g".to_owned(),
            ledger,
            ..Told::default()
        }
    }

    fn missing(stream: &Stream) -> Vec<(u64, u64, Option<&str>)> {
        let all = stream.missing.iter();
        all.map(|m| (m.first, m.end, m.reason.as_deref())).collect()
    }

    #[test]
    fn a_gap_is_explained_by_the_ledger_or_an_alarm() {
        let read = account(&[("g", 1, 0), ("g", 1, 9), ("h", 1, 1)], 0);
        let ledger = vec![
            loss(1, 2, 4, Reason::Expired),
            loss(1, 6, 20, Reason::Full),
            loss(2, 4, 6, Reason::Full),
        ];
        let verdict = judge("t", &read, &told(ledger), None);
        let wanted = [
            (1, 2, None),
            (2, 4, Some("expired")),
            (4, 6, None),
            (6, 9, Some("full")),
        ];
        assert_eq!(missing(&verdict.streams[0]), wanted);
        assert_eq!(verdict.streams[0].alarms, 2);
        // The ledger is not the other gateway's.
        assert_eq!(missing(&verdict.streams[1]), [(0, 1, None)]);
        assert_eq!(verdict.alarms, 3);
        assert!(verdict.cannot_know.iter().any(|line| line.contains("(h)")));
    }

    #[test]
    fn repeats_are_explained_as_far_as_they_are_counted() {
        let read = account(&[("g", 1, 0), ("g", 1, 0), ("g", 1, 0), ("g", 1, 1)], 0);
        let ledger = vec![loss(1, 0, 1, Reason::MaybeTwice)];
        let verdict = judge("t", &read, &told(ledger), None);
        let stream = &verdict.streams[0];
        assert_eq!((stream.repeats.records, stream.repeats_explained), (2, 1));
        assert_eq!(verdict.alarms, 1);
    }

    #[test]
    fn a_trimmed_head_is_not_judged_and_a_cursor_tells_the_tail() {
        let read = account(&[("g", 1, 7), ("g", 1, 8), ("g", 2, 1)], 100);
        let mut told = told(Vec::new());
        told.cursors.insert(0, (2, 4));
        let verdict = judge("t", &read, &told, None);
        assert_eq!(
            (verdict.streams[0].trimmed, verdict.streams[0].alarms),
            (7, 0)
        );
        assert_eq!(missing(&verdict.streams[1]), [(0, 1, None), (2, 4, None)]);
        assert!(verdict.cannot_know[0].contains("7 numbers"));
    }

    #[test]
    fn a_run_that_kafka_should_have_and_has_not_is_an_alarm() {
        let read = account(&[], 0);
        let mut told = told(Vec::new());
        told.cursors.insert(0, (3, 5));
        let verdict = judge("t", &read, &told, None);
        assert_eq!(missing(&verdict.streams[0]), [(0, 5, None)]);
        assert_eq!(verdict.alarms, 1);
    }

    #[test]
    fn acknowledged_messages_may_be_missing_as_far_as_the_ledger_goes() {
        let read = account(&[("g", 1, 0)], 0);
        for (explained, alarms) in [(3, 0), (2, 1)] {
            let judged = Judged {
                missing: 3,
                explained,
                ..Judged::default()
            };
            let verdict = judge("t", &read, &told(Vec::new()), Some(judged));
            assert_eq!(verdict.alarms, alarms);
        }
    }
}
