//! The first corpus of each target: names and inputs.

mod answers;
mod packets;

use std::fmt::Write as _;

use tidegate::config::keys::{Default, Shape, TABLES};
use tidegate::record::RecordWriter;
use tidegate::spool::log::{Catalog, Entry, FrameDraft, SectionDraft};
use tidegate::spool::{Identity, Run, StreamId, TopicPartition};

pub use answers::kafka_answers;
pub use packets::packets;

use crate::disk::Folder;
use crate::frames;

/// A file's name and what is in it.
pub type Input = (String, Vec<u8>);

/// The examples, every key with its default, and some by the environment.
pub fn config() -> Vec<Input> {
    let example = include_str!("../../../examples/tidegate.toml");
    let road = include_str!("../../../benches/road/tidegate.toml");
    let least = "[kafka]\nbootstrap_servers = [\"k:9092\", \"[::1]:9\"]\n";
    let variables = "\0TIDEGATE__SPOOL__MAX_BYTES=1GiB\0TIDEGATE__KAFKA__BOOTSTRAP_SERVERS=a:1,b:2\
                     \0TIDEGATE__PROXY__ROUTE=[{\"mqtt\":\"a/+x/#y\",\"topic\":\"{x}\",\
                     \"headers\":{\"h\":\"{y}\"}}]";
    [
        ("example", example.to_owned()),
        ("road", road.to_owned()),
        ("variables", format!("{least}{variables}")),
        ("every_key", every_key()),
        (
            "mistakes",
            format!("{least}[spol]\nmax_byte = 1\n[spool]\nmode = 3\nmax_bytes = \"1x\"\n"),
        ),
    ]
    .map(|(name, text)| (name.to_owned(), text.into_bytes()))
    .into()
}

/// Password files, and ACL files with clients that are in them and that are not.
pub fn rules() -> Vec<Input> {
    const HASHES: [&str; 4] = [
        "$argon2id$v=19$m=1024,t=2,p=1$MDEyMzQ1Njc4OWFi$/eWNtmzBbXWp0TecT0OdikCo41tnzUcl1ciBTeV3mM\
         g",
        "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a",
        "$7$101$MDEyMzQ1Njc4OWFi$EO/lLlkeUgIiBaS8G8UK0ZMP1u508TA7Tl+AdJ1cEsmlbGyEPAERErpfq84j1kepIS\
         s0UzmcdL4ucgZ2uodxfQ==",
        "$6$MDEyMzQ1Njc4OWFi$EO/lLlkeUg==",
    ];
    let acl = "topic read site/#\ntopic deny site/secret\n\nuser pump\ntopic write pumps/1/#\n\
               topic readwrite both ways\npattern write devices/%c/up\n\
               pattern read users/%u/+\n";
    let mut inputs = Vec::new();
    for (i, hash) in HASHES.iter().enumerate() {
        inputs.push((
            format!("hash-{i}"),
            format!("pump\0\0\0# ours\npump:{hash}\na b:{hash}\n"),
        ));
    }
    for (i, (user, client_id, topic)) in [
        ("", "c", "site/a"),
        ("", "c", "site/secret"),
        ("pump", "c", "pumps/1/x/y"),
        ("pump", "c", "devices/c/up"),
        ("pump", "#", "devices/#/up"),
        ("pump", "+", "users/pump/a"),
        ("valve", "c", "both ways"),
        ("valve", "c", "$SYS/broker"),
    ]
    .iter()
    .enumerate()
    {
        inputs.push((
            format!("acl-{i}"),
            format!("{user}\0{client_id}\0{topic}\0{acl}"),
        ));
    }
    let bytes = |(name, text): (String, String)| (name, text.into_bytes());
    inputs.into_iter().map(bytes).collect()
}

/// Filters around a topic.
pub fn topics() -> Vec<Input> {
    let filters = "#\n+\n+/+\n/+\n+/#\na/#\na/+/c\na/b/c\na/b/c/#\n$SYS/#\n$SYS/+\n\u{e9}/+\n//#\n\
                   $share/g/a/#\na#\n#/a\n/\n+/b/#\na/+";
    let topics = [
        "a",
        "a/b",
        "a/b/c",
        "/",
        "//",
        "$SYS/x",
        "\u{e9}/\u{6e29}",
        "/a",
        "a/",
        "$",
    ];
    let named = topics.iter().zip('a'..).map(|(topic, letter)| {
        let text = format!("{topic}\n{filters}");
        (format!("topic-{letter}"), text.into_bytes())
    });
    named.collect()
}

fn every_key() -> String {
    let mut text = String::new();
    for table in TABLES {
        let heading = match table.shape {
            Shape::Repeated => format!("[[{}]]\n", table.path),
            _ => format!("[{}]\n", table.path),
        };
        text.push_str(&heading);
        for key in table.keys {
            let value = match (key.name, key.default) {
                (_, Default::Is(value)) => value,
                ("bootstrap_servers", _) => "[\"k:9092\"]",
                ("mqtt", _) => "\"plant/+line/#rest\"",
                ("topic" | "key", _) => "\"{line}\"",
                _ => continue,
            };
            writeln!(text, "{} = {value}", key.name).expect("a String takes all");
        }
    }
    text
}

/// Streams with names, and a checkpoint of every kind of entry.
struct Names(u32);

impl Catalog for Names {
    fn name(&self, stream: StreamId) -> Option<TopicPartition> {
        let topic = format!("t{}", stream.0).into();
        Some(TopicPartition {
            topic,
            partition: 1,
        })
    }

    fn checkpoint(&self) -> Vec<Entry> {
        let (stream, run) = (StreamId(1), Run(self.0));
        vec![
            Entry::RunStart {
                run,
                at_ms: 1_700_000_000_000,
            },
            Entry::Identity {
                run,
                identity: Identity {
                    cluster_id: "cluster".into(),
                    producer_id: 7,
                    epoch: 2,
                    device: "device".into(),
                },
            },
            Entry::Partitions {
                topic: "t1".into(),
                count: 4,
            },
            Entry::Cursor {
                stream,
                run,
                next: 3,
                offset: Some(9),
            },
            Entry::Drop {
                stream,
                run,
                from: 3,
                to: 5,
                reason: 1,
            },
            Entry::Base {
                stream,
                run,
                from: 5,
                sent_as: run,
            },
        ]
    }
}

/// Folders of one to four segments: open, full, of two lanes; with frames of one and many records.
pub fn frames() -> Vec<Input> {
    let lives: [(&str, &[(u8, u64, usize)]); 5] = [
        ("empty", &[]),
        ("one", &[(0, 1, 10)]),
        ("some", &[(0, 3, 20), (0, 1, 1), (0, 20, 8)]),
        ("lanes", &[(0, 2, 30), (3, 2, 30), (10, 1, 60), (0, 5, 5)]),
        (
            "full",
            &[
                (0, 2, 10),
                (0, 1, 28_000),
                (0, 1, 28_000),
                (0, 3, 10),
                (0, 1, 9),
            ],
        ),
    ];
    lives
        .map(|(name, life)| (name.to_owned(), folder(life).write()))
        .into()
}

/// Appends frames: lane, records of a section, bytes of a record.
fn folder(life: &[(u8, u64, usize)]) -> Folder {
    let folder = Folder::default();
    let (mut log, _) = frames::open(&folder);
    let mut first = 10;
    for (number, (lane, count, bytes)) in (0u32..).zip(life) {
        let record = |number: u64| {
            let noise = (0..bytes / 4).flat_map(|at| {
                crc32c::crc32c(&(number * 1_000_003 + at as u64).to_le_bytes()).to_le_bytes()
            });
            let value: Vec<u8> = noise.collect();
            let mut writer = RecordWriter::new(Some(b"key"), Some(&value));
            writer.header(b"h", Some(b"v"));
            writer.finish(1_700_000_000_000)
        };
        let section = |stream| SectionDraft {
            stream: StreamId(stream),
            run: Run(1 + number / 3),
            first,
            records: (first..first + count).map(record).collect(),
        };
        let sections = if *bytes > 1000 {
            vec![section(1)]
        } else {
            vec![section(1), section(2)]
        };
        let controls = vec![
            Entry::Cursor {
                stream: StreamId(1),
                run: Run(1),
                next: first,
                offset: None,
            },
            Entry::Note(bytes::Bytes::from_static(b"note")),
        ];
        let draft = FrameDraft { controls, sections };
        log.append(*lane, &draft, &Names(1 + number / 3))
            .expect("an empty disk");
        first += count;
    }
    folder
}
