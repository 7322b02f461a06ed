//! Packets of the sequences with a few bytes changed: no bytes may make a codec panic.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::codecs::{Codec, Version};
use crate::sequences::Sequence;

/// Packets between two looks at the clock.
const ROUND: u64 = 2000;

/// xorshift64: the same packets in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// Below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }
}

/// Runs each codec for `time` and prints what it made of how many packets.
pub fn run(sequences: &[Sequence], time: Duration) -> anyhow::Result<()> {
    let seeds: Vec<(Version, &[u8])> = sequences
        .iter()
        .flat_map(|sequence| {
            sequence
                .sends
                .iter()
                .map(|send| (sequence.version, &send[..]))
        })
        .collect();
    for codec in Codec::ALL {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let (mut packets, mut accepted, mut panics) = (0u64, 0u64, 0u64);
        let begun = Instant::now();
        let mut packet = Vec::new();
        while begun.elapsed() < time {
            for _ in 0..ROUND {
                let (version, seed) = seeds.get(random.below(seeds.len())).context("no seeds")?;
                packet.clear();
                packet.extend_from_slice(seed);
                change(&mut packet, &mut random);
                match codec.accepts(*version, &packet) {
                    Some(verdict) => accepted += u64::from(verdict),
                    None => panics += 1,
                }
            }
            packets += ROUND;
        }
        println!(
            "{:20} {packets} mutated packets in {} s: {accepted} accepted, {panics} panics",
            codec.name(),
            time.as_secs()
        );
    }
    Ok(())
}

/// One to four changes: a byte set, a bit flipped, a byte put in, the end cut off.
fn change(packet: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let kind = random.below(4);
        if kind == 2 {
            let at = random.below(packet.len() + 1);
            packet.insert(at, random.byte());
            continue;
        }
        if packet.is_empty() {
            continue;
        }
        let at = random.below(packet.len());
        match (kind, packet.get_mut(at)) {
            (0, Some(byte)) => *byte = random.byte(),
            (1, Some(byte)) => *byte ^= 1 << random.below(8),
            _ => packet.truncate(at),
        }
    }
}
