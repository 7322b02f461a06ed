//! A set of numbers, kept as ranges: as small as the gaps in it are few.

use std::collections::BTreeMap;

/// Numbers as ranges that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds one number; false when it was there.
    pub fn insert(&mut self, number: u64) -> bool {
        if self.contains(number) {
            return false;
        }
        self.add(number, number.saturating_add(1));
        true
    }

    /// Adds `first..end`.
    pub fn add(&mut self, mut first: u64, mut end: u64) {
        if first >= end {
            return;
        }
        if let Some((&start, &stop)) = self.0.range(..=first).next_back()
            && stop >= first
        {
            (first, end) = (start, end.max(stop));
        }
        while let Some((&start, &stop)) = self.0.range(first..=end).next() {
            self.0.remove(&start);
            end = end.max(stop);
        }
        self.0.insert(first, end);
    }

    /// Whether a number is in it.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let before = self.0.range(..=number).next_back();
        before.is_some_and(|(_, end)| *end > number)
    }

    /// First number and number behind the last of each range, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(first, end)| (*first, *end))
    }

    /// How many ranges: what it costs.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.0.len()
    }

    /// How many numbers.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.iter().map(|(first, end)| end - first).sum()
    }

    /// The number behind the greatest; 0 when empty.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// What of `first..end` is not in it.
    #[must_use]
    pub fn missing(&self, first: u64, end: u64) -> Self {
        let (mut missing, mut at) = (Self::default(), first);
        let end = end.max(first);
        let before = self.0.range(..=first).next_back();
        let behind = self.0.range(first..end);
        for (&start, &stop) in before.into_iter().chain(behind) {
            missing.add(at, start.min(end));
            at = at.max(stop);
        }
        missing.add(at, end);
        missing
    }

    /// What of `first..end` is in it.
    #[must_use]
    pub fn within(&self, first: u64, end: u64) -> Self {
        self.missing(first, end).missing(first, end)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_the_set_that_they_stand_for(
            added in proptest::collection::vec((0u64..60, 0u64..6), 0..40),
            singles in proptest::collection::vec(0u64..60, 0..40),
            (first, length) in (0u64..60, 0u64..30),
        ) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (first, length) in added {
                ranges.add(first, first + length);
                set.extend(first..first + length);
            }
            for single in singles {
                prop_assert_eq!(ranges.insert(single), set.insert(single));
            }
            let flat = |ranges: &Ranges| -> Vec<u64> {
                ranges.iter().flat_map(|(first, end)| first..end).collect()
            };
            prop_assert_eq!(flat(&ranges), set.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(ranges.count(), set.len() as u64);
            prop_assert_eq!(ranges.end(), set.last().map_or(0, |last| last + 1));
            let touching = ranges.iter().zip(ranges.iter().skip(1)).any(|(a, b)| a.1 >= b.0);
            prop_assert!(!touching);
            let within = first..first + length;
            let missing: Vec<u64> = within.clone().filter(|n| !set.contains(n)).collect();
            prop_assert_eq!(flat(&ranges.missing(within.start, within.end)), missing);
            let there: Vec<u64> = within.clone().filter(|n| set.contains(n)).collect();
            prop_assert_eq!(flat(&ranges.within(within.start, within.end)), there);
        }
    }
}
