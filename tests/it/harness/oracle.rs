//! The oracle as a process: foreign load with a ledger of its own, and the check of what came of
//! it.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde::Deserialize;

use super::{Gateway, Kafka, run, tests_dir, wait};

/// Where a load stands; one a second, and one at its end.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Progress {
    /// Since the load began.
    pub seconds: f64,
    /// Messages sent at least once.
    pub sent: u64,
    /// Messages acknowledged.
    pub acked: u64,
    /// Sent again after a reconnect.
    pub repeated: u64,
    /// Successful CONNECTs.
    pub connects: u64,
    /// Messages refused by a v5 reason code; at the end only.
    #[serde(default)]
    pub refused: u64,
    /// From sending to PUBACK; at the end only.
    #[serde(default)]
    pub p50_ms: f64,
    /// The same, 99 of 100.
    #[serde(default)]
    pub p99_ms: f64,
    /// The same, the slowest.
    #[serde(default)]
    pub max_ms: f64,
    #[serde(default)]
    done: bool,
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    child: Child,
    stdin: Option<ChildStdin>,
    reader: Option<JoinHandle<()>>,
    progress: Arc<Mutex<Vec<Progress>>>,
    /// What it acknowledged; there when it has ended.
    pub ledger: PathBuf,
}

impl Load {
    /// Starts `oracle load` against the gateway; `arguments` are its options. `name` begins client
    /// ids and, without `--prefix`, topics; it is used once in a test.
    pub fn start(gateway: &Gateway, name: &str, arguments: &str) -> Self {
        let ledger = gateway.folder().join(format!("ledger-{name}"));
        let mut child = Command::new(tests_dir("oracle/oracle"))
            .args(["load", "--until-eof", "--name", name, "--mqtt"])
            .arg(gateway.mqtt.to_string())
            .arg("--ledger")
            .arg(&ledger)
            .args(arguments.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let progress = Arc::new(Mutex::new(vec![Progress::default()]));
        let lines = child.stdout.take().unwrap();
        let reader = std::thread::spawn({
            let progress = Arc::clone(&progress);
            move || read(lines, &progress)
        });
        Self {
            stdin: child.stdin.take(),
            child,
            reader: Some(reader),
            progress,
            ledger,
        }
    }

    /// The newest report.
    pub fn now(&self) -> Progress {
        self.progress.lock().unwrap().last().unwrap().clone()
    }

    /// All reports so far, a second apart.
    pub fn history(&self) -> Vec<Progress> {
        self.progress.lock().unwrap().clone()
    }

    /// Waits until `more` messages have been acknowledged from now on, as far as reported.
    pub fn wait_acked(&self, more: u64, seconds: u64) {
        let wanted = self.now().acked + more;
        wait(
            &format!("{more} messages more acknowledged"),
            seconds,
            || {
                let ended = self.reader.as_ref().is_some_and(JoinHandle::is_finished);
                assert!(!ended, "the load ended: {:?}", self.now());
                (self.now().acked >= wanted).then_some(())
            },
        );
    }

    /// No new messages; waits until all are acknowledged, at most `--drain` seconds.
    pub fn stop(mut self) -> Progress {
        drop(self.stdin.take());
        self.finish()
    }

    /// Waits for the end of a load that has one (`--count`, `--seconds`).
    pub fn finish(mut self) -> Progress {
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let last = self.now();
        assert!(status.success() && last.done, "the load failed, {status}");
        assert_eq!(last.refused, 0, "messages were refused");
        last
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read(lines: ChildStdout, progress: &Mutex<Vec<Progress>>) {
    for line in BufReader::new(lines).lines().map_while(Result::ok) {
        progress
            .lock()
            .unwrap()
            .push(serde_json::from_str(&line).unwrap());
    }
}

/// The five numbers, and what stands beside them. `tests/oracle/check.py` says what each means.
#[derive(Clone, Debug, Deserialize)]
pub struct Verdict {
    pub missing: u64,
    pub unknown: u64,
    pub altered: u64,
    pub out_of_order: u64,
    pub twice: u64,
    /// Missing, but in the gateway's loss ledger.
    pub explained: u64,
    /// All that the gateway's loss ledger has.
    pub ledger: u64,
    /// Went with a deleted topic (`--recreated`).
    pub gone: u64,
    pub sent: u64,
    pub acknowledged: u64,
    pub records: u64,
    /// Records of messages that were in Kafka already.
    pub repeats: u64,
    /// A few of what was found.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Prints the numbers and fails unless all five are 0.
    pub fn expect_clean(&self, what: &str) {
        eprintln!("{what}: {self}");
        assert_eq!(self.five(), [0; 5], "{what}: {:#?}", self.examples);
    }

    /// The five numbers, in their order.
    pub fn five(&self) -> [u64; 5] {
        [
            self.missing,
            self.unknown,
            self.altered,
            self.out_of_order,
            self.twice,
        ]
    }

    /// The same for what may be in Kafka twice: at most as often as the gateway has counted.
    pub fn expect_counted(&self, what: &str, maybe_twice: f64) {
        self.expect_all_there(what, maybe_twice);
        let twice = f64::from(u32::try_from(self.twice).unwrap());
        assert!(twice <= maybe_twice, "{what}: twice, and not counted");
    }

    /// The same where the gateway cannot count what is there twice.
    pub fn expect_all_there(&self, what: &str, maybe_twice: f64) {
        eprintln!("{what}: {self}; maybe twice by the gateway's count {maybe_twice}");
        let four = [self.missing, self.unknown, self.altered, self.out_of_order];
        assert_eq!(four, [0; 4], "{what}: {:#?}", self.examples);
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sent {}, acknowledged {}, records {}, senders' repeats {}, explained {} of {}, \
             gone {}: missing {}, unknown {}, altered {}, out of order {}, twice {}",
            self.sent,
            self.acknowledged,
            self.records,
            self.repeats - self.twice,
            self.explained,
            self.ledger,
            self.gone,
            self.missing,
            self.unknown,
            self.altered,
            self.out_of_order,
            self.twice
        )
    }
}

/// `oracle check` over the ledgers; `arguments` are its options, `--topic` or `--pattern` first.
pub fn check(kafka: &Kafka, ledgers: &[&Path], arguments: &str) -> Verdict {
    let mut command = Command::new(tests_dir("oracle/oracle"));
    command.args(["check", "--json", "--bootstrap", &kafka.bootstrap]);
    for ledger in ledgers {
        command.arg("--ledger").arg(ledger);
    }
    judge(command.args(arguments.split_whitespace()))
}

/// The same over a file of lines as `tidegate buffer dump` prints them.
pub fn check_dump(records: &Path, ledger: &Path, arguments: &str) -> Verdict {
    let mut command = Command::new(tests_dir("oracle/oracle"));
    command.args(["check", "--json", "--records"]).arg(records);
    command.arg("--ledger").arg(ledger);
    judge(command.args(arguments.split_whitespace()))
}

fn judge(command: &mut Command) -> Verdict {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// `oracle list`: a load's acknowledged messages, as `tidegate verify --ledger` takes them.
pub fn list(ledger: &Path) -> String {
    let mut command = Command::new(tests_dir("oracle/oracle"));
    run(command.args(["list", "--ledger"]).arg(ledger))
}

/// `oracle plant`: known faults straight into Kafka.
pub fn plant(kafka: &Kafka, ledger: &Path, arguments: &str) {
    let mut command = Command::new(tests_dir("oracle/oracle"));
    command
        .args(["plant", "--bootstrap", &kafka.bootstrap, "--ledger"])
        .arg(ledger)
        .args(arguments.split_whitespace());
    run(&mut command);
}
