//! What every test of the whole gateway stands on: waits with a deadline, temporary folders, a real
//! Kafka, and the gateway as a process that can be killed.

pub mod backlog;
pub mod blocks;
pub mod disk;
pub mod gateway;
pub mod kafka;
pub mod mosquitto;
pub mod oracle;
pub mod spool;
pub mod uplink;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use disk::Disk;
pub use gateway::{Figures, Gateway};
pub use kafka::Kafka;
pub use mosquitto::Mosquitto;
pub use oracle::Load;
pub use spool::MemorySpool;

/// A path below `tests/`.
pub fn tests_dir(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(path)
}

/// Asks every 20 ms until `condition` gives something; fails after `seconds`.
pub fn wait<T>(what: &str, seconds: u64, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "not within {seconds} s: {what}");
        pause(Duration::from_millis(20));
    }
}

/// Lets time pass where time itself is the load, as in "Kafka is away for 60 s".
pub fn pause(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "the one place that sleeps")]
    std::thread::sleep(time);
}

/// Python with the packages of `tests/oracle/requirements.txt`.
pub fn python() -> Command {
    static INTERPRETER: OnceLock<String> = OnceLock::new();
    let made = || run(&mut Command::new(tests_dir("setup"))).trim().to_owned();
    Command::new(INTERPRETER.get_or_init(made))
}

/// Runs a command to its end and gives its standard output; fails when the command does.
pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}
