//! Pure decisions: the table of error codes, cutting.
use std::sync::Arc;

use super::error::{SendError, name, of_code};
use super::trouble::split;
use crate::record::Record;
use crate::spool::{Run, StreamId, Taken, TopicPartition};

fn taken(numbers: &[u64], sequence: u64) -> Taken {
    Taken {
        stream: StreamId(1),
        to: TopicPartition {
            topic: Arc::from("t"),
            partition: 0,
        },
        run: Run(1),
        sent_as: Run(1),
        first: numbers[0],
        numbers: numbers.to_vec(),
        sequence,
        records: numbers
            .iter()
            .map(|_| Record {
                timestamp_ms: 0,
                headers_at: 2,
                header_count: 0,
                body: [1, 1].into(),
            })
            .collect(),
        guessed: false,
    }
}

#[test]
fn what_comes_after_an_append_is_of_unknown_fate() {
    for code in [-1, 3, 6, 7, 13, 20, 56, 999] {
        assert!(!of_code(code, None).surely_not_appended(), "{code}");
    }
    for code in [2, 10, 18, 19, 29, 32, 45, 47, 87, 100] {
        assert!(of_code(code, None).surely_not_appended(), "{code}");
    }
}

#[test]
fn classes() {
    assert!(matches!(of_code(10, None), SendError::TooLarge(_)));
    assert!(matches!(of_code(87, None), SendError::Rejected(..)));
    assert!(matches!(of_code(29, None), SendError::Denied(_)));
    assert!(matches!(of_code(100, None), SendError::Gone(_)));
    assert!(matches!(of_code(45, None), SendError::OutOfOrder(_)));
    assert!(matches!(of_code(90, None), SendError::Fenced(_)));
    assert_eq!(name(19), "NOT_ENOUGH_REPLICAS");
}

#[test]
fn a_cut_keeps_numbers_and_counts_sequences_on() {
    let (first, rest) = split(taken(&[5, 6, 9, 12], 3), 2);
    let rest = rest.unwrap();
    assert_eq!(
        (first.first, first.sequence, first.numbers),
        (5, 3, vec![5, 6])
    );
    assert_eq!(
        (rest.first, rest.sequence, rest.numbers),
        (9, 5, vec![9, 12])
    );
    assert!(split(taken(&[5], 0), 0).1.is_none());
    assert!(split(taken(&[5, 6], 0), 2).1.is_none());
}

#[test]
fn the_sick_stand_only_so_much_company() {
    let mut given = (0, 0);
    assert!(super::pump::joins(&mut given, 3));
    assert!(super::pump::joins(&mut given, 2));
    assert!(
        !super::pump::joins(&mut given, 9),
        "the second stands one other"
    );
    let mut given = (0, 0);
    assert!(super::pump::joins(&mut given, 1));
    assert!(!super::pump::joins(&mut given, 1));
}
