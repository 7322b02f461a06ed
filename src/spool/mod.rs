//! Keeps records safe between the sources and their subscribers (DESIGN.md 2).
//!
//! A *stream* is one Kafka topic partition, or the *provisional* stream of a topic whose partition
//! count is not known. Records of a stream are numbered 0, 1, 2 … in each *run*. A record is *safe*
//! when Kafka has confirmed it or when the frame that holds it is synced; then, once, its
//! [`Ticket`] is settled.
//!
//! * [`Intake`] is what sources see, [`Outlet`] what the uplink sees, [`inspect`] what tools see.
//! * `log/` is the store on disk: frames in segment files. `meta` is sled: cursors, ledger, runs.
//!   `keep` is another log: what sources keep beside records.

pub mod core;
pub mod device;
pub mod inspect;
pub mod intake;
pub mod keep;
pub mod log;
pub mod meta;
pub mod outlet;
mod ranges;

use std::fmt;

pub use intake::{Change, Incoming, Intake, Settle, Ticket, TopicId, TopicOptions};
pub use outlet::{Identity, Leftover, Outlet, TakeLimits, Taken, TopicPartition};
pub use ranges::Ranges;

/// A stream's number on this gateway; given out once and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// A run: one start of the gateway, or a new epoch that a partition had to take. Grows by one each.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Run(pub u32);

/// Partition of a provisional stream.
pub const PROVISIONAL: i32 = -1;

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
