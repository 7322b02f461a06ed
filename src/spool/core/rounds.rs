//! Whether the loops that move records still go round, at work or idle: they are asked, and answer
//! when they next come round. One that hangs in a call, waits for a lock or has panicked does not.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Spool;

/// One loop.
#[derive(Debug, Default)]
pub(super) struct Round {
    asked: AtomicU64,
    answered: AtomicU64,
}

impl Round {
    fn ask(&self) {
        self.asked.fetch_add(1, Ordering::AcqRel);
    }

    /// Called by the loop itself, once a round.
    pub(super) fn answer(&self) {
        let asked = self.asked.load(Ordering::Acquire);
        self.answered.store(asked, Ordering::Release);
    }

    fn is_silent(&self) -> bool {
        self.answered.load(Ordering::Acquire) != self.asked.load(Ordering::Acquire)
    }
}

/// The loops of the road.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    pub writer: Round,
    pub loader: Round,
    pub uplink: Round,
}

impl Spool {
    /// Asks the writer, the loader and the uplink's pump to come round once, and wakes them.
    pub fn ask_rounds(&self) {
        let shared = &self.shared;
        let rounds = &shared.rounds;
        for round in [&rounds.writer, &rounds.loader, &rounds.uplink] {
            round.ask();
        }
        let mut state = shared.state.lock();
        shared.poke_writer(&mut state);
        shared.loader.notify_one();
        drop(state);
        shared.changed.notify_one();
    }

    /// Those that have not come round since they were last asked.
    #[must_use]
    pub fn silent(&self) -> Vec<&'static str> {
        let rounds = &self.shared.rounds;
        let all = [
            ("the spool's writer", &rounds.writer),
            ("the spool's loader", &rounds.loader),
            ("the uplink", &rounds.uplink),
        ];
        let silent = all.iter().filter(|(_, round)| round.is_silent());
        silent.map(|(name, _)| *name).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::super::tests::config;
    use super::*;
    use crate::metrics::Metrics;
    use crate::spool::Outlet;

    fn wait_for(spool: &Spool, silent: &[&str]) {
        let end = Instant::now() + Duration::from_secs(30);
        while spool.silent() != silent {
            assert!(Instant::now() < end, "{:?}", spool.silent());
            std::thread::yield_now();
        }
    }

    #[test]
    fn idle_loops_answer_and_ended_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::default());
        let spool = Spool::open(&config(), folder.path(), metrics).unwrap();
        assert_eq!(spool.silent(), [""; 0]);
        for _ in 0..3 {
            // Nobody runs a pump here.
            spool.ask_rounds();
            wait_for(&spool, &["the uplink"]);
            spool.came_round();
            assert_eq!(spool.silent(), [""; 0]);
        }
        // Threads that have ended answer no more.
        spool.stop();
        spool.ask_rounds();
        spool.came_round();
        assert_eq!(spool.silent(), ["the spool's writer", "the spool's loader"]);
    }
}
