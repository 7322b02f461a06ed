//! The normative statements of MQTT 3.1.1 and 5, each held by a conversation, or by a test that is
//! named. `docs/statements.md` is made of them.
//!
//! In the files `= IDS TEXT` begins a statement: `5:` ids are MQTT 5's, `3:` those of 3.1.1. Then
//! `held by TEST`, `none: WHY`, or lines of a conversation, which is had in both versions but for
//! `5 only` and `3 only`:
//!
//! ```text
//! a open                connects without a CONNECT; `a connect`, `a connect kept`: with one
//! a > 30 ~ 0001 't'     sends packets, with ` / ` between; `~` is the length of what follows,
//!                       `5:` and `3:` before a part: in that version only
//! a < 40 02 00??        gets packets; `??` is any byte, `..` any bytes, ` | ` means or
//! a gone 81|82          gets a DISCONNECT with one of the reasons (in 3.1.1 nothing) and is closed
//! a refused 81          the same with a CONNACK
//! a closed, a silent    nothing came
//! a drop                breaks off
//! wait 10, records 1    seconds pass; so many records went to Kafka
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::*;

const FILES: [&str; 3] = [
    include_str!("statements/section_1_to_3_2.txt"),
    include_str!("statements/section_3_3_to_3_15.txt"),
    include_str!("statements/section_4_to_6.txt"),
];

/// Sections, and how many statements each has; `2.2.1` begins at 2.
const IN_5: &str = "\
    1.5.4 3, 1.5.5 1, 1.5.7 1, 2.1.3 1, 2.2.1 6, 2.2.2 1, 3.1.0 2, 3.1.2 30, 3.1.3 12, 3.1.4 \
    6, 3.2.0 2, 3.2.2 22, 3.3.1 13, 3.3.2 20, 3.3.4 10, 3.4.2 3, 3.5.2 3, 3.6.1 1, 3.6.2 3, \
    3.7.2 3, 3.8.1 1, 3.8.3 5, 3.8.4 8, 3.9.2 2, 3.9.3 2, 3.10.1 1, 3.10.3 2, 3.10.4 6, \
    3.11.2 2, 3.11.3 2, 3.12.4 1, 3.14.0 1, 3.14.1 1, 3.14.2 4, 3.14.4 3, 3.15.1 1, 3.15.2 \
    3, 4.1.0 2, 4.2.0 1, 4.3.1 1, 4.3.2 5, 4.3.3 13, 4.4.0 2, 4.5.0 2, 4.6.0 6, 4.7.0 1, \
    4.7.1 2, 4.7.2 1, 4.7.3 4, 4.8.2 6, 4.9.0 3, 4.12.0 7, 4.12.1 2, 4.13.1 1, 4.13.2 1, \
    6.0.0 4";
const IN_3_1_1: &str = "\
    1.5.3 3, 2.2.2 2, 2.3.1 7, 3.1.0 2, 3.1.2 24, 3.1.3 11, 3.1.4 5, 3.2.0 1, 3.2.2 6, 3.3.1 \
    12, 3.3.2 3, 3.3.4 1, 3.3.5 2, 3.6.1 1, 3.8.1 1, 3.8.3 4, 3.8.4 6, 3.9.3 2, 3.10.1 1, \
    3.10.3 2, 3.10.4 6, 3.12.4 1, 3.14.1 1, 3.14.4 3, 4.1.0 2, 4.2.0 1, 4.3.1 1, 4.3.2 2, \
    4.3.3 2, 4.4.0 1, 4.5.0 2, 4.6.0 6, 4.7.1 3, 4.7.2 1, 4.7.3 4, 4.8.0 2, 6.0.0 4";

/// A statement, and what holds it.
struct Statement {
    ids: Vec<&'static str>,
    text: String,
    lines: Vec<&'static str>,
}

fn statements() -> Vec<Statement> {
    let mut all: Vec<Statement> = Vec::new();
    for line in FILES.iter().flat_map(|file| file.lines()) {
        if let Some(head) = line.strip_prefix("= ") {
            let is_id = |word: &&str| word.starts_with("5:") || word.starts_with("3:");
            let words = head.split(' ');
            all.push(Statement {
                ids: words.clone().take_while(is_id).collect(),
                text: words.skip_while(is_id).collect::<Vec<_>>().join(" "),
                lines: Vec::new(),
            });
        } else if !line.is_empty() {
            all.last_mut().unwrap().lines.push(line);
        }
    }
    all
}

/// A byte of a packet, or what stands for some.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Byte(u8),
    AnyByte,
    AnyBytes,
}

/// The packets of a line.
fn packets(text: &str, version: u8) -> Vec<Vec<Part>> {
    text.split(" / ")
        .map(|one| packet_of(one, version))
        .collect()
}

fn packet_of(text: &str, version: u8) -> Vec<Part> {
    let (mut parts, mut length_at) = (Vec::new(), None);
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = match rest.find('\'') {
            // A quoted text may have spaces in it.
            Some(quote) if !rest[..quote].contains(' ') => {
                quote + 2 + rest[quote + 1..].find('\'').unwrap()
            }
            _ => rest.find(' ').unwrap_or(rest.len()),
        };
        let (word, left) = rest.split_at(end);
        rest = left.trim_start();
        let word = match (word.split_at_checked(2), version) {
            (Some(("5:", part)), 5) | (Some(("3:", part)), 4) => part,
            (Some(("5:" | "3:", _)), _) => continue,
            _ => word,
        };
        if word == "~" {
            length_at = Some(parts.len());
        } else if word == ".." {
            parts.push(Part::AnyBytes);
        } else if let Some(text) = word.strip_prefix('\'') {
            let text = text.strip_suffix('\'').unwrap();
            parts.extend(text.bytes().map(Part::Byte));
        } else {
            for pair in word.as_bytes().chunks(2) {
                let pair = str::from_utf8(pair).unwrap();
                parts.push(match pair {
                    "??" => Part::AnyByte,
                    _ => Part::Byte(u8::from_str_radix(pair, 16).expect(word)),
                });
            }
        }
    }
    if let Some(at) = length_at {
        let length = match parts[at..].contains(&Part::AnyBytes) {
            true => Part::AnyByte,
            false => Part::Byte(u8::try_from(parts.len() - at).unwrap()),
        };
        parts.insert(at, length);
    }
    parts
}

fn fits(pattern: &[Part], bytes: &[u8]) -> bool {
    match (pattern.split_first(), bytes.split_first()) {
        (None, None) => true,
        (Some((Part::AnyBytes, left)), _) => {
            (0..=bytes.len()).any(|skip| fits(left, &bytes[skip..]))
        }
        (Some((Part::Byte(wanted), left)), Some((byte, rest))) => {
            wanted == byte && fits(left, rest)
        }
        (Some((Part::AnyByte, left)), Some((_, rest))) => fits(left, rest),
        _ => false,
    }
}

fn bytes_of(text: &str, version: u8) -> Vec<u8> {
    let parts = packets(text, version).concat();
    let byte = |part| match part {
        Part::Byte(byte) => byte,
        _ => panic!("sent bytes are certain: {text}"),
    };
    parts.into_iter().map(byte).collect()
}

/// One packet, whole; `None`: the connection ended.
async fn packet(peer: &mut Peer) -> Option<Vec<u8>> {
    let mut head = [0; 2];
    let read = timeout(Duration::from_secs(600), peer.0.read_exact(&mut head));
    read.await.expect("something comes").ok()?;
    assert!(head[1] < 0x80, "short packets only");
    let mut bytes = head.to_vec();
    bytes.extend(peer.read(usize::from(head[1])).await);
    Some(bytes)
}

struct Talk {
    bench: Bench,
    version: u8,
    peers: BTreeMap<&'static str, Peer>,
}

impl Talk {
    fn new(version: u8) -> Self {
        let mut config = config();
        config.max_sessions = 20;
        let fake = Fake::default();
        fake.at_once.store(true, Ordering::Relaxed);
        Self {
            bench: bench_over(&config, fake),
            version,
            peers: BTreeMap::new(),
        }
    }

    async fn line(&mut self, line: &'static str) {
        let (who, what) = line.split_once(' ').unwrap();
        let number = || what.parse().unwrap();
        match who {
            "wait" => {
                tokio::time::sleep(Duration::from_secs(number())).await;
                self.bench.shared.publish_due();
                return;
            }
            "records" => {
                let records = self.bench.fake.records.lock().len();
                assert_eq!(records as u64, number());
                return;
            }
            _ => {}
        }
        if what == "open" {
            self.peers.insert(who, self.bench.open());
            return;
        }
        if let Some(how) = what.strip_prefix("connect") {
            let flags = if how.contains("kept") { 0 } else { 2 };
            let (peer, present) = self.bench.connect(self.version, flags, 0, who).await;
            match how.trim() {
                "kept present" => assert_eq!(present, 1),
                _ => assert_eq!(present, 0),
            }
            self.peers.insert(who, peer);
            return;
        }
        if what == "drop" {
            self.peers.remove(who);
            // The connection notices.
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.bench.shared.publish_due();
            return;
        }
        let peer = self.peers.get_mut(who).unwrap();
        match what.split_once(' ').unwrap_or((what, "")) {
            (">", text) => peer.send(&bytes_of(text, self.version)).await,
            ("<", text) => {
                let any: Vec<_> = text
                    .split(" | ")
                    .map(|one| packets(one, self.version))
                    .collect();
                for at in 0..any[0].len() {
                    let came = packet(peer).await.expect("a packet, not the end");
                    let found = any.iter().any(|one| fits(&one[at], &came));
                    assert!(found, "came {}", hex(&came));
                }
            }
            ("gone", reasons) => end(peer, (0xe0, 2), (reasons, self.version)).await,
            ("refused", reasons) => end(peer, (0x20, 3), (reasons, self.version)).await,
            ("closed", _) => peer.closed().await,
            ("silent", _) => peer.silent().await,
            other => panic!("what is {other:?}?"),
        }
    }
}

/// The connection ends, in MQTT 5 after a packet with one of the reasons.
async fn end(peer: &mut Peer, (first, at): (u8, usize), (reasons, version): (&str, u8)) {
    if version == 5 {
        let came = packet(peer).await.expect("a packet, not the end");
        let mut known = reasons
            .split('|')
            .map(|one| u8::from_str_radix(one, 16).unwrap());
        let told = came[0] == first && known.any(|reason| came.get(at) == Some(&reason));
        assert!(told, "came {}", hex(&came));
    }
    assert_eq!(packet(peer).await, None);
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x} ").unwrap();
    }
    text
}

#[test]
fn conversations_hold_the_statements() {
    let (mut had, mut wrong) = (0, Vec::new());
    for statement in statements() {
        let lines = &statement.lines;
        if lines[0].starts_with("held by") || lines[0].starts_with("none:") {
            continue;
        }
        let only = lines[0].strip_suffix(" only");
        for version in [4, 5] {
            let name = if version == 4 { "3" } else { "5" };
            if only.is_some_and(|only| only != name) {
                continue;
            }
            had += 1;
            let lines: Vec<&'static str> = lines[usize::from(only.is_some())..].to_vec();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .unwrap();
            let at = std::sync::atomic::AtomicUsize::new(0);
            let talk = async {
                let mut talk = Talk::new(version);
                for line in &lines {
                    talk.line(line).await;
                    at.fetch_add(1, Ordering::Relaxed);
                }
            };
            let talk = std::panic::AssertUnwindSafe(|| runtime.block_on(talk));
            if std::panic::catch_unwind(talk).is_err() {
                let line = lines[at.load(Ordering::Relaxed)];
                wrong.push(format!("MQTT {name}, {:?}: {line}", statement.ids));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {had}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_statement_is_held_by_something() {
    let mut known = BTreeSet::new();
    for statement in statements() {
        for id in &statement.ids {
            assert!(known.insert(*id), "{id} is there twice");
        }
        assert!(
            !statement.ids.is_empty() && !statement.lines.is_empty(),
            "{}",
            statement.text
        );
    }
    let mut wanted = 0;
    for (version, sections) in [("5", IN_5), ("3", IN_3_1_1)] {
        for section in sections.split(", ") {
            let (section, count) = section.trim().split_once(' ').unwrap();
            let first = if (version, section) == ("5", "2.2.1") {
                2
            } else {
                1
            };
            for n in first..=count.parse::<u32>().unwrap() {
                let id = format!("{version}:{section}-{n}");
                assert!(known.contains(&*id), "nothing holds {id}");
                wanted += 1;
            }
        }
    }
    assert_eq!(
        known.len(),
        wanted,
        "there are ids that no specification has"
    );
}

/// Names of tests, in the sources of the library and of `tests/it`.
fn tests_of(folder: &std::path::Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_of(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let functions = text
                .split("fn ")
                .skip(1)
                .filter_map(|rest| rest.split_once('('));
            names.extend(functions.map(|(name, _)| name.to_owned()));
        }
    }
}

#[test]
fn the_page_is_up_to_date() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    tests_of(&root.join("src"), &mut names);
    tests_of(&root.join("tests/it"), &mut names);
    let mut page = PAGE.to_owned();
    for statement in statements() {
        let held = match statement.lines[0].split_once(' ').unwrap() {
            ("held", test) => {
                let test = test.trim_start_matches("by ");
                assert!(names.contains(test), "there is no test {test}");
                format!("`{test}`")
            }
            ("none:", why) => format!("– ({why})"),
            _ => "a conversation".to_owned(),
        };
        let of = |version: &str| {
            let ids = statement
                .ids
                .iter()
                .filter_map(|id| id.strip_prefix(version));
            ids.collect::<Vec<_>>().join(", ")
        };
        writeln!(
            page,
            "| {} | {} | {} | {held} |",
            of("5:"),
            of("3:"),
            statement.text
        )
        .unwrap();
    }
    let path = root.join("docs/statements.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/statements.md is old: run UPDATE=1 cargo test"
    );
}

const PAGE: &str = "# What MQTT demands, and what holds us to it\n\n\
    Made by a test from `src/proxy/tests/statements`. The numbers are those of the normative\n\
    statements of [MQTT 5](https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html) and\n\
    [3.1.1](https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html), the words are ours.\n\
    *A conversation* is one in these files, which a test has over a pipe; other tests are named.\n\
    *–*: it does not bind this server, for the reason that is given.\n\n\
    | 5 | 3.1.1 | what | held by |\n|---|---|---|---|\n";
