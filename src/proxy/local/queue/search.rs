//! Retained messages that a new subscription asks for. They are looked for a step at a time, as the
//! outbox has room, so that a queue shorter than what is retained loses none of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Outbox, State};
use crate::proxy::local::tree::Options;

/// Messages that one step finds at most.
const STEP_MESSAGES: usize = 64;

/// A filter whose retained messages are to be looked for.
#[derive(Debug)]
pub struct Search {
    /// The filter, valid and of no group.
    pub filter: Arc<str>,
    /// Of its subscription.
    pub options: Options,
    /// The topic that was looked at last; empty: none.
    pub after: Box<[u8]>,
}

/// What an outbox takes of one step.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Messages.
    pub messages: usize,
    /// Bytes; a message that has more goes alone.
    pub bytes: usize,
}

impl Outbox {
    /// Has the retained messages of a filter looked for, from the first on.
    pub fn search(&self, search: Search) {
        self.forget_search(&search.filter);
        self.put(&mut self.state.lock(), search, false);
    }

    /// No longer looks for the retained messages of a filter.
    pub fn forget_search(&self, filter: &str) {
        if !self.searching.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state.lock();
        let at = state.searches.iter().position(|had| &*had.filter == filter);
        if let Some(had) = at.and_then(|at| state.searches.remove(at)) {
            self.free(&mut state, had.after.len());
        }
    }

    /// Takes the next search out, if there is room for what it finds. It is given back by
    /// [`Outbox::go_on`] unless it has ended.
    pub fn next_search(&self, connection: u64) -> Option<(Search, Room)> {
        if !self.searching.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.state.lock();
        if state.door.as_ref().map(|door| door.number) != Some(connection) {
            return None;
        }
        let half = (self.limits.messages_max / 2, self.limits.bytes_max / 2);
        let waiting = state.lasting.len() + state.fleeting.len();
        let Some(after) = state.searches.front().map(|first| first.after.len()) else {
            self.searching.store(false, Ordering::Release);
            return None;
        };
        if waiting > half.0 || state.bytes.saturating_sub(after) > half.1 {
            return None;
        }
        let room = Room {
            messages: half.0.clamp(1, STEP_MESSAGES),
            bytes: half.1,
        };
        let search = state.searches.pop_front()?;
        self.free(&mut state, search.after.len());
        Some((search, room))
    }

    /// Gives back a search that has not ended.
    pub fn go_on(&self, search: Search) {
        self.put(&mut self.state.lock(), search, true);
    }

    fn put(&self, state: &mut State, search: Search, first: bool) {
        if state.ended {
            return;
        }
        let bytes = search.after.len();
        state.bytes += bytes;
        self.limits.total.fetch_add(bytes, Ordering::Relaxed);
        if first {
            state.searches.push_front(search);
        } else {
            state.searches.push_back(search);
        }
        self.searching.store(true, Ordering::Release);
    }
}
