//! How numbers of one run become Kafka's sequences, which have no holes: what was dropped has none.

use super::super::Run;

/// Of one run of one stream.
#[derive(Clone, Debug)]
pub(super) struct Numbering {
    pub run: Run,
    /// Run whose identity sends them.
    pub sent_as: Run,
    /// The number that has sequence 0. Below zero when records of an older run go first under the
    /// same identity.
    pub zero: i64,
    /// Dropped ranges at or behind `zero`, ascending, not touching: first number, number behind the
    /// last.
    pub drops: Vec<(u64, u64)>,
}

impl Numbering {
    pub fn new(run: Run) -> Self {
        Self {
            run,
            sent_as: run,
            zero: 0,
            drops: Vec::new(),
        }
    }

    /// Kafka's sequence of `number`, before the wrap: its distance from `zero`, less what was
    /// dropped.
    pub fn sequence(&self, number: u64) -> u64 {
        let dropped: u64 = self
            .drops
            .iter()
            .take_while(|(first, _)| *first < number)
            .map(|(first, end)| (*end).min(number) - *first)
            .sum();
        let distance = number.cast_signed().saturating_sub(self.zero);
        u64::try_from(distance).unwrap_or(0).saturating_sub(dropped)
    }

    /// The number that has this sequence: the inverse of [`Self::sequence`].
    pub fn number_at(&self, sequence: u64) -> u64 {
        let start = self.zero.saturating_add(sequence.cast_signed());
        let mut number = u64::try_from(start).unwrap_or(0);
        for (first, end) in &self.drops {
            if *first <= number {
                number += end - first;
            }
        }
        number
    }

    /// Takes `first..end` out of the count; gives how many were not out of it before.
    pub fn drop_range(&mut self, first: u64, end: u64) -> u64 {
        let first = first.max(u64::try_from(self.zero).unwrap_or(0));
        let count =
            |drops: &[(u64, u64)]| drops.iter().map(|(first, end)| end - first).sum::<u64>();
        let before = count(&self.drops);
        if first < end {
            self.drops.push((first, end));
        }
        self.drops.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(self.drops.len());
        for (first, end) in self.drops.drain(..) {
            match merged.last_mut() {
                Some(last) if first <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((first, end)),
            }
        }
        self.drops = merged;
        count(&self.drops) - before
    }

    /// From now on `sent_as` sends, and number `zero` has sequence 0.
    pub fn rebase(&mut self, zero: i64, sent_as: Run) {
        self.zero = zero;
        self.sent_as = sent_as;
        for (first, end) in std::mem::take(&mut self.drops) {
            self.drop_range(first, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_leave_no_hole_for_what_was_dropped() {
        let mut numbering = Numbering::new(Run(1));
        assert_eq!(numbering.sequence(7), 7);
        numbering.drop_range(3, 5);
        numbering.drop_range(5, 6);
        assert_eq!(numbering.drops, vec![(3, 6)]);
        assert_eq!((numbering.sequence(2), numbering.sequence(6)), (2, 3));
        assert_eq!((numbering.number_at(2), numbering.number_at(3)), (2, 6));
        numbering.rebase(5, Run(4));
        assert_eq!(numbering.drop_range(5, 6), 0);
        assert_eq!(
            (
                numbering.sent_as,
                numbering.sequence(6),
                numbering.sequence(9)
            ),
            (Run(4), 0, 3)
        );
    }
}
