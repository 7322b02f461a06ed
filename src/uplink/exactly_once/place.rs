//! The decision: from what a broker remembers of our producer, how many of the records in question
//! are there.
//!
//! Sequences wrap to 0 behind 2^31 − 1, so they are compared by their difference modulo 2^31, taken
//! as the number nearest to 0.

use crate::kafka::batch::sequence;
use crate::kafka::client::ProducerState;

/// Records that may be in a partition's log: consecutive sequences of one identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Producer id.
    pub producer_id: i64,
    /// Epoch.
    pub epoch: i16,
    /// Sequence of the first, before the wrap.
    pub sequence: u64,
    /// How many.
    pub records: u64,
    /// The greatest epoch of ours that stands *behind* these records in their stream, if that is
    /// known.
    pub epoch_after: Option<i16>,
}

/// Where they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// This many from the first on are there.
    There(u64),
    /// This many *before* the first are missing, which were confirmed.
    Behind(u64),
    /// The broker knows nothing of our producer.
    Forgotten,
    /// A higher epoch that is not ours.
    Fenced,
}

/// Decides. `states` is what the leader remembers of all producers of the partition.
#[must_use]
pub fn place(states: &[ProducerState], question: &Question) -> Place {
    let Some(state) = states
        .iter()
        .filter(|state| state.producer_id == question.producer_id)
        .max_by_key(|state| state.epoch)
    else {
        return Place::Forgotten;
    };
    match state.epoch.cmp(&i32::from(question.epoch)) {
        std::cmp::Ordering::Less => {
            // An older epoch is the newest: nothing of ours was appended, and nothing was before
            // it.
            if question.sequence == 0 {
                Place::There(0)
            } else {
                Place::Behind(question.sequence)
            }
        }
        std::cmp::Ordering::Equal => within(state.last_sequence, question),
        std::cmp::Ordering::Greater => {
            let ours = question
                .epoch_after
                .is_some_and(|after| state.epoch <= i32::from(after));
            if ours {
                Place::There(question.records)
            } else {
                Place::Fenced
            }
        }
    }
}

/// The same for the last sequence that was found in the log itself.
#[must_use]
pub fn within(last_sequence: i32, question: &Question) -> Place {
    const HALF: i64 = 1 << 30;
    let ahead = i64::from(last_sequence) - i64::from(sequence(question.sequence)) + 1;
    // Into −2^30 … 2^30.
    let ahead = (ahead + HALF).rem_euclid(2 * HALF) - HALF;
    match u64::try_from(ahead) {
        // More than we know of: those were confirmed from memory and never written to our disk.
        Ok(there) => Place::There(there.min(question.records)),
        Err(_) => Place::Behind(ahead.unsigned_abs().min(question.sequence)),
    }
}

/// The offset behind the last of the `seen` records in question, from the `last` sequence that was
/// found in the log and the offset `behind` it. `None` when the log goes on under this identity: a
/// search for what comes next must not start behind that.
#[must_use]
pub fn offset_behind(question: &Question, seen: u64, (last, behind): (i32, i64)) -> Option<i64> {
    let end = (question.sequence + question.records).checked_sub(1)?;
    (seen < question.records || last == sequence(end)).then_some(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(epoch: i32, last_sequence: i32) -> ProducerState {
        ProducerState {
            producer_id: 7,
            epoch,
            last_sequence,
        }
    }

    fn ask(sequence: u64, records: u64) -> Question {
        Question {
            producer_id: 7,
            epoch: 3,
            sequence,
            records,
            epoch_after: Some(5),
        }
    }

    #[test]
    fn an_offset_is_that_of_the_records_in_question() {
        assert_eq!(offset_behind(&ask(10, 5), 5, (14, 90)), Some(90));
        assert_eq!(offset_behind(&ask(10, 5), 3, (12, 88)), Some(88));
        assert_eq!(offset_behind(&ask(10, 5), 5, (20, 96)), None);
    }

    #[test]
    fn the_table() {
        let other = ProducerState {
            producer_id: 8,
            epoch: 9,
            last_sequence: 9,
        };
        for (states, question, wanted) in [
            (vec![], ask(0, 5), Place::Forgotten),
            (vec![other], ask(0, 5), Place::Forgotten),
            (vec![other, state(2, 99)], ask(0, 5), Place::There(0)),
            (vec![state(2, 99)], ask(10, 5), Place::Behind(10)),
            (vec![state(3, -1)], ask(0, 5), Place::There(0)),
            (vec![state(3, 9)], ask(10, 5), Place::There(0)),
            (vec![state(3, 10)], ask(10, 5), Place::There(1)),
            (vec![state(3, 14)], ask(10, 5), Place::There(5)),
            (vec![state(3, 40)], ask(10, 5), Place::There(5)),
            (vec![state(3, 8)], ask(10, 5), Place::Behind(1)),
            (vec![state(3, -1)], ask(10, 5), Place::Behind(10)),
            (vec![state(5, 0)], ask(10, 5), Place::There(5)),
            (vec![state(6, 0)], ask(10, 5), Place::Fenced),
        ] {
            assert_eq!(place(&states, &question), wanted, "{states:?} {question:?}");
        }
    }

    #[test]
    fn sequences_wrap() {
        let end = (1u64 << 31) - 2; // two records before the wrap
        let last = i32::MAX;
        assert_eq!(place(&[state(3, last)], &ask(end, 5)), Place::There(2));
        assert_eq!(place(&[state(3, 0)], &ask(end, 5)), Place::There(3));
        assert_eq!(place(&[state(3, 2)], &ask(end, 5)), Place::There(5));
        assert_eq!(place(&[state(3, last)], &ask(1 << 31, 5)), Place::There(0));
        assert_eq!(
            place(&[state(3, last - 1)], &ask(1 << 31, 5)),
            Place::Behind(1)
        );
        assert_eq!(place(&[state(3, 1)], &ask(1 << 31, 5)), Place::There(2));
    }

    #[test]
    fn in_a_run_every_higher_epoch_is_someone_elses() {
        let question = Question {
            epoch_after: None,
            ..ask(10, 5)
        };
        assert_eq!(place(&[state(4, 0)], &question), Place::Fenced);
    }
}
