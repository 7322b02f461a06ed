//! What is stored beside the records: cursors, ledger, counts; and the checkpoint in each segment's
//! head.

use super::super::intake::Refusal;
use super::super::log::{self, Catalog};
use super::super::meta::{Cursor, Loss, MetaBatch, Reason};
use super::super::{Run, StreamId, TopicPartition};
use super::state::State;
use super::stream::Stream;
use super::{Shared, wall_ms};
use crate::metrics::Counter;

impl Catalog for Shared {
    fn name(&self, stream: StreamId) -> Option<TopicPartition> {
        self.state
            .lock()
            .stream(stream)
            .map(|stream| stream.to.clone())
    }

    fn checkpoint(&self) -> Vec<log::Entry> {
        let identities = self.meta.lock().identities();
        let state = self.state.lock();
        let mut all = vec![log::Entry::RunStart {
            run: state.newest_run,
            at_ms: wall_ms(),
        }];
        all.extend(
            identities
                .into_iter()
                .map(|(run, identity)| log::Entry::Identity { run, identity }),
        );
        let on_disk = || {
            state
                .streams
                .iter()
                .filter(|stream| !stream.spans.is_empty())
        };
        for stream in on_disk() {
            add_numberings(&mut all, stream);
        }
        for topic in state.topics.iter().filter(|topic| topic.partitions > 0) {
            let (topic, count) = (topic.name.clone(), topic.partitions);
            all.push(log::Entry::Partitions { topic, count });
        }
        let provisional = |s: &&Stream| s.is_provisional() && s.confirmed > (Run(0), 0);
        let provisional = state.streams.iter().filter(provisional);
        for stream in on_disk().filter(|s| !s.is_provisional()).chain(provisional) {
            let (run, next) = stream.confirmed;
            all.push(log::Entry::Cursor {
                stream: stream.id,
                run,
                next,
                offset: stream.offset,
            });
        }
        all
    }
}

fn add_numberings(all: &mut Vec<log::Entry>, stream: &super::stream::Stream) {
    for numbering in &stream.numberings {
        let (run, sent_as) = (numbering.run, numbering.sent_as);
        if run != sent_as || numbering.zero != 0 {
            let from = numbering.zero.cast_unsigned();
            all.push(log::Entry::Base {
                stream: stream.id,
                run,
                from,
                sent_as,
            });
        }
        for (from, to) in &numbering.drops {
            let (from, to, reason) = (*from, *to, Reason::Full as u8);
            all.push(log::Entry::Drop {
                stream: stream.id,
                run,
                from,
                to,
                reason,
            });
        }
    }
}

impl Shared {
    /// Stores cursors that moved past something on disk, new partition counts and refusals; gives
    /// false when that failed.
    pub(super) fn store(&self) -> bool {
        let (batch, cursors) = {
            let mut state = self.state.lock();
            let cursors = state.cursors_moved.clone();
            (collect(&mut state), cursors)
        };
        if batch.is_empty() {
            return true;
        }
        let result = self.meta.lock().apply(&batch, true);
        let mut state = self.state.lock();
        match &result {
            Ok(()) => state.folded.clear(),
            Err(error) => {
                self.metrics.add(Counter::DiskErrors, 1);
                tracing::warn!(%error, "cannot store cursors and ledger");
                // Counts and refusals are told again by Kafka and by the next refusal; cursors are
                // tried again.
                state.cursors_moved.extend(cursors);
            }
        }
        result.is_ok()
    }
}

fn collect(state: &mut State) -> MetaBatch {
    let mut batch = MetaBatch::default();
    for id in std::mem::take(&mut state.cursors_moved) {
        let Some(stream) = state.stream(id) else {
            continue;
        };
        stream.cursor_moved = false;
        let (run, next) = stream.confirmed;
        let cursor = Cursor {
            run,
            next,
            offset: stream.offset,
        };
        batch.cursor(id, &stream.to, cursor);
        let folded = stream.fold();
        for n in stream
            .numberings
            .iter()
            .filter(|n| n.zero != 0 || n.run != n.sent_as)
        {
            batch.base(id, n.run, n.zero, n.sent_as);
        }
        state.folded.push((id, folded));
    }
    for (id, (bases, drops)) in &state.folded {
        for run in bases {
            batch.forget_base(*id, *run);
        }
        for (run, end) in drops {
            batch.forget_drops(*id, *run, *end);
        }
    }
    for id in std::mem::take(&mut state.counts_moved) {
        if let Some(topic) = state.topic(id) {
            batch.partitions(&topic.name.clone(), topic.partitions);
        }
    }
    for ((why, topic), messages) in std::mem::take(&mut state.refused) {
        let run = state.run;
        // The ledger's topic is the MQTT one here: a refused message has no other.
        let partition = match why {
            Refusal::NoRoute => -1,
            Refusal::TooLarge => -2,
            Refusal::Denied => -3,
        };
        let end = messages;
        let reason = Reason::Refused;
        batch.loss(Loss {
            topic,
            partition,
            run,
            first: 0,
            end,
            reason,
            at_ms: wall_ms(),
        });
    }
    batch
}
