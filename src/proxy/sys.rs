//! `$SYS`: what the gateway tells subscribers about itself, under mosquitto's names as far as it
//! has the same figures, and under `$SYS/tidegate` its own.
//!
//! Each value is told when it has changed, every ten seconds, and to who subscribes: at QoS 0, for
//! who is away has no use for it. Clients cannot publish below `$SYS`, bridges' states apart.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use crate::metrics::{Counter, Gauge};

/// How often values are told; mosquitto's `sys_interval`.
const EVERY: Duration = Duration::from_secs(10);

/// What was told.
#[derive(Debug)]
pub struct Sys {
    begun: Instant,
    due: Instant,
    most_connected: u64,
    told: BTreeMap<&'static str, String>,
}

impl Sys {
    /// Nothing was told.
    #[must_use]
    pub fn begin() -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            due: now,
            most_connected: 0,
            told: BTreeMap::new(),
        }
    }

    /// Tells what has changed, if it is time to.
    pub(super) fn tell(&mut self, shared: &Shared) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        self.due = now + EVERY;
        for (topic, value) in self.values(shared, now) {
            let old = self.told.get(topic);
            if old != Some(&value) {
                shared.local.tell(topic, &value);
                self.told.insert(topic, value);
            }
        }
    }

    fn values(&mut self, shared: &Shared, now: Instant) -> Vec<(&'static str, String)> {
        let count = |counter| shared.metrics.count(counter);
        let level = |gauge| shared.metrics.level(gauge);
        let (connected, away) = shared.sessions.count();
        self.most_connected = self.most_connected.max(connected);
        let dropped = [
            Counter::UndeliveredQos0,
            Counter::UndeliveredFull,
            Counter::UndeliveredExpired,
            Counter::UndeliveredTooLarge,
            Counter::UndeliveredDenied,
        ];
        let uptime = now.saturating_duration_since(self.begun).as_secs();
        let mut values = vec![
            (
                "$SYS/broker/version",
                concat!("tidegate version ", env!("CARGO_PKG_VERSION")).to_owned(),
            ),
            ("$SYS/broker/uptime", format!("{uptime} seconds")),
        ];
        let numbers = [
            ("$SYS/broker/clients/connected", connected),
            ("$SYS/broker/clients/active", connected),
            ("$SYS/broker/clients/disconnected", away),
            ("$SYS/broker/clients/inactive", away),
            ("$SYS/broker/clients/total", connected + away),
            ("$SYS/broker/clients/maximum", self.most_connected),
            (
                "$SYS/broker/publish/messages/received",
                count(Counter::Received),
            ),
            (
                "$SYS/broker/publish/bytes/received",
                count(Counter::ReceivedBytes),
            ),
            (
                "$SYS/broker/publish/messages/sent",
                count(Counter::Delivered),
            ),
            (
                "$SYS/broker/publish/messages/dropped",
                dropped.map(count).iter().sum(),
            ),
            (
                "$SYS/broker/retained messages/count",
                level(Gauge::Retained),
            ),
            (
                "$SYS/broker/subscriptions/count",
                level(Gauge::Subscriptions),
            ),
            ("$SYS/tidegate/kafka/connected", level(Gauge::UplinkUp)),
            ("$SYS/tidegate/kafka/messages/sent", count(Counter::Sent)),
        ];
        values.extend(numbers.map(|(topic, number)| (topic, number.to_string())));
        values
    }
}
