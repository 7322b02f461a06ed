//! Writes the first corpus: `seeds FOLDER` (by `fuzz/run --seeds`). Packets as the specifications
//! write them, segment files as the log writes them, answers as Kafka's schemas encode them,
//! configurations of this repository.

use std::io;
use std::path::Path;

use fuzz::seeds;
// The counters of the code under test are at home there.
use libfuzzer_sys as _;

fn main() -> io::Result<()> {
    let folder = std::env::args().nth(1).expect("usage: seeds FOLDER");
    for (target, inputs) in [
        ("packets", seeds::packets()),
        ("frames", seeds::frames()),
        ("kafka_answers", seeds::kafka_answers()),
        ("config", seeds::config()),
        ("rules", seeds::rules()),
        ("topics", seeds::topics()),
    ] {
        let folder = Path::new(&folder).join(target);
        std::fs::create_dir_all(&folder)?;
        let count = inputs.len();
        for (name, input) in inputs {
            std::fs::write(folder.join(name), input)?;
        }
        println!("{target}: {count}");
    }
    Ok(())
}
