//! What two threads do at one moment. A race that is missed fails nothing: many tries.

use super::*;
use crate::proxy::acks::{Acks, Slot};
use crate::proxy::packet::{Ack, Telling, Version};
use crate::proxy::session::{Receipt, Session};
use crate::spool::Settle as _;

/// A client may answer PUBRECs while the thread that made them possible is still about it.
#[test]
fn what_can_be_sent_can_be_released() {
    const IDS: u16 = 500;
    let b = bench(&config());
    let session = Arc::new(Session::new(b.shared.local.outbox(&"c".into(), false)));
    for _ in 0..100 {
        let acks = Acks::new(Arc::clone(&b.shared.bounds), Arc::clone(&session));
        let slot = |id| Slot {
            id,
            kind: Ack::Pubrec,
            reason: 0,
            done: false,
            waits: 0,
            first: true,
            bytes: 1,
            received: Instant::now(),
        };
        (1..=IDS).for_each(|id| assert_eq!(session.receive(id, 1), Receipt::New));
        acks.push(&mut (1..=IDS).map(slot).collect());
        std::thread::scope(|scope| {
            scope.spawn(|| acks.safe(&(0..u64::from(IDS)).collect::<Vec<_>>()));
            let mut out = Vec::new();
            while out.is_empty() {
                std::thread::yield_now();
                acks.take(&mut out, Telling::codes(Version::V3), |_, _| ());
            }
            let released = (1..=IDS)
                .rev()
                .filter(|id| session.release(*id) == Some(true));
            assert_eq!(released.count(), usize::from(IDS));
        });
    }
}
