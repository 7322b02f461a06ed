//! What a record costs to put into a Kafka batch, in processor time, per codec and batch size.
//!
//! `cargo bench --profile fast --bench batch`. Records are 256 bytes of value: JSON as sensors send
//! it, its digits from a seeded generator.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints and stops where it goes wrong"
)]

use tidegate::kafka::Compression;
use tidegate::kafka::batch::{BatchIdentity, Encoder};
use tidegate::record::{Record, RecordWriter};

const VALUE_BYTES: usize = 256;
const RECORDS: usize = 400_000;

fn main() {
    let codecs = [
        ("none", Compression::None, None),
        ("lz4", Compression::Lz4, None),
        ("snappy", Compression::Snappy, None),
        ("zstd -5", Compression::Zstd, Some(-5)),
        ("zstd -1", Compression::Zstd, Some(-1)),
        ("zstd 1", Compression::Zstd, Some(1)),
        ("zstd 3", Compression::Zstd, Some(3)),
        ("gzip 1", Compression::Gzip, Some(1)),
    ];
    println!(
        "{:8} {:>8} {:>12} {:>12}",
        "codec", "records", "ns/record", "bytes/record"
    );
    for count in [10, 50, 400, 2000] {
        let records = records(count);
        for (name, compression, level) in codecs {
            let mut encoder = Encoder::new(compression, level);
            let mut encode = || {
                let id = BatchIdentity {
                    producer_id: 1,
                    epoch: 0,
                    base_sequence: 0,
                };
                encoder.encode(records.iter(), id, None).unwrap().len()
            };
            let bytes = encode();
            let rounds = (RECORDS / count).max(1);
            let before = cpu_ns();
            for _ in 0..rounds {
                assert_eq!(encode(), bytes);
            }
            let done = (rounds * count) as f64;
            let each = (cpu_ns() - before) as f64 / done;
            println!(
                "{name:8} {count:8} {each:12.0} {:12.1}",
                bytes as f64 / count as f64
            );
        }
    }
}

fn records(count: usize) -> Vec<Record> {
    let mut state = 88_172_645_463_325_252u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    (0..count)
        .map(|n| {
            let device = random(500);
            let mut value = format!(
                "{{\"device\":\"plant-7/line-{}/press-{device:04}\",\"time\":{},\
                 \"temperature\":{}.{:03},\"pressure\":{}.{:03},\
                 \"vibration\":[0.{:03},0.{:03},0.{:03}],\"state\":\"running\",\"count\":{}",
                device % 9,
                1_700_000_000_000 + n,
                20 + random(9),
                random(1000),
                100 + random(4),
                random(1000),
                random(1000),
                random(1000),
                random(1000),
                random(1_000_000),
            );
            value.push_str(",\"note\":\"");
            while value.len() < VALUE_BYTES - 2 {
                value.push(char::from(b'a' + u8::try_from(random(16)).unwrap()));
            }
            value.push_str("\"}");
            let key = device.to_string();
            let mut writer = RecordWriter::new(Some(key.as_bytes()), Some(value.as_bytes()));
            writer.header(
                b"mqtt.topic",
                Some(format!("plant/7/press/{device}").as_bytes()),
            );
            writer.finish(1_700_000_000_000 + n as i64)
        })
        .collect()
}

/// Time that this thread has had on a processor.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}
