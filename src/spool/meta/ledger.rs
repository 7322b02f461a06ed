//! Reads the loss ledger page by page.

use super::{Loss, Meta, numbers};
use crate::spool::inspect::{BadPlace, LedgerPage};

/// Lines that one page looks at.
const PAGE_LINES: usize = 5_000;

impl Meta {
    /// Lines of a topic (of all without one), the oldest first, from `after` on.
    ///
    /// # Errors
    /// `after` is no place.
    pub fn ledger_page(
        &self,
        topic: Option<&str>,
        after: Option<&str>,
    ) -> Result<LedgerPage, BadPlace> {
        let from: u64 = match after {
            None => 0,
            Some(text) => text.parse().map_err(|_| BadPlace(text.to_owned()))?,
        };
        let mut page = LedgerPage {
            cut: self.ledger.front().is_some_and(|first| *first > 0),
            ..LedgerPage::default()
        };
        let from = format!("loss/{from:020}");
        let lines = self
            .db
            .iter()
            .flat_map(|db| db.range(from.as_str().."loss0").flatten());
        for (looked, (key, value)) in lines.enumerate() {
            if looked == PAGE_LINES {
                page.next = numbers(&key).next().map(|number| number.to_string());
                break;
            }
            let line: Option<Loss> = serde_json::from_slice(&value).ok();
            let fits = |line: &Loss| topic.is_none_or(|topic| line.topic == topic);
            page.lines.extend(line.filter(fits));
        }
        Ok(page)
    }
}
