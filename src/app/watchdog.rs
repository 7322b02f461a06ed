//! systemd's watchdog is fed while the road moves: the runtime runs this task, the spool's writer
//! and loader and the uplink's pump come round, and no part of the gateway has ended.
//!
//! Kafka being away, a full disk, a disk that answers with errors are no reason to stop: all of
//! them go on coming round, and a restart would mend nothing. A call that does not return and a
//! thread that panicked are; what was acknowledged is safe in either case.

use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Gauge, Metrics};
use crate::notify::Notifier;
use crate::spool::core::Spool;

/// How often it is fed in the time that systemd waits.
const FEEDS: u32 = 4;

/// What is looked at.
pub(super) struct Road {
    pub spool: Spool,
    /// Tasks that end only when the gateway stops.
    pub tasks: Vec<(&'static str, AbortHandle)>,
}

impl Road {
    /// The parts that do not move.
    fn silent(&self) -> Vec<&'static str> {
        let ended = self.tasks.iter().filter(|(_, task)| task.is_finished());
        let mut silent = self.spool.silent();
        silent.extend(ended.map(|(name, _)| *name));
        silent
    }
}

/// Feeds the watchdog until `stop`; returns at once where there is none.
pub(super) async fn feed(
    notifier: &Notifier,
    road: &Road,
    metrics: &Metrics,
    stop: &CancellationToken,
) {
    let Some(patience) = notifier.watchdog() else {
        return;
    };
    let mut waiting = Duration::ZERO;
    road.spool.ask_rounds();
    let every = patience / FEEDS;
    while stop
        .run_until_cancelled(tokio::time::sleep(every))
        .await
        .is_some()
    {
        let silent = road.silent();
        if silent.is_empty() {
            waiting = Duration::ZERO;
            notifier.tell(&format!("WATCHDOG=1\n{}", status(metrics)));
            road.spool.ask_rounds();
        } else {
            waiting += every;
            tracing::error!(
                ?silent,
                ?waiting,
                ?patience,
                "does not move; systemd is not fed"
            );
        }
    }
}

/// What `systemctl status` shows.
pub(super) fn status(metrics: &Metrics) -> &'static str {
    if metrics.level(Gauge::SpoolFull) != 0 {
        "STATUS=The spool is full"
    } else if metrics.level(Gauge::UplinkUp) != 0 {
        "STATUS=Kafka answers"
    } else {
        "STATUS=Kafka is away; messages are kept on disk"
    }
}
