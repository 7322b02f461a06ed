//! Tries `mqtt-protocol-core` and rumqttd's codecs on the same packets: recorded sequences,
//! mutations of them, and two packets for speed. `run` beside the manifest builds and starts it.

mod codecs;
mod mutate;
mod sequences;
mod speed;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments
        .next()
        .context("usage: codec SEQUENCES.jsonl SECONDS")?;
    let seconds = arguments.next().context("how many seconds of mutations?")?;
    let seconds: u64 = seconds.parse().context("SECONDS is no number")?;
    // Panics are counted, not printed.
    std::panic::set_hook(Box::new(|_| {}));
    let sequences = sequences::read(Path::new(&file))?;
    sequences::conformance(&sequences);
    mutate::run(&sequences, Duration::from_secs(seconds))?;
    speed::run()
}
