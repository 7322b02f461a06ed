//! What the loads have in common: packets as MQTT 3.1.1 writes them, and a histogram of latencies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate::proxy::packet::put_varint;

/// A control packet (MQTT 3.1.1, 2.2): its first byte, its remaining length, and that.
pub fn packet(first: u8, body: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![first];
    put_varint(&mut out, body.iter().map(|part| part.len()).sum());
    body.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// A UTF-8 string as MQTT writes it (1.5.3).
pub fn string(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

/// How long things took: bucket i holds those of 2^(i/8) microseconds.
#[derive(Debug)]
pub struct Latencies(Vec<AtomicU64>);

impl Default for Latencies {
    fn default() -> Self {
        Self((0..256).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Latencies {
    pub fn took(&self, time: Duration) {
        let micros = time.as_micros().max(1) as f64;
        let bucket = (micros.log2() * 8.0) as usize;
        self.0[bucket.min(self.0.len() - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// What this share of them did not exceed, in microseconds; 0 when there are none.
    pub fn percentile(&self, share: f64) -> u64 {
        let counts: Vec<u64> = self.0.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        let wanted = counts.iter().sum::<u64>() as f64 * share;
        let mut seen = 0;
        let at = counts.iter().position(|count| {
            seen += count;
            seen > 0 && seen as f64 >= wanted
        });
        at.map_or(0, |at| 2f64.powf((at as f64 + 0.5) / 8.0) as u64)
    }
}
