//! Figures of size and speed, printed with `--nocapture`.

use std::time::Instant;

use super::super::sim::Rng;
use super::*;

/// 112 bytes of JSON as a device sends it: a random id, drifting values.
fn reading(rng: &mut Rng, machine: u64, drift: &mut [f64; 3]) -> String {
    for value in drift.iter_mut() {
        *value += (rng.below(200) as f64 - 99.5) / 400.0;
    }
    let id = rng.next() << 8 ^ rng.next();
    let text = format!(
        "{{\"id\":\"{id:016x}\",\"machine\":{machine},\"temp\":{:.2},\
         \"pressure\":{:.3},\"rpm\":{:.0},\"state\":\"running\",\"ok\":true",
        21.0 + drift[0],
        1.013 + drift[1] / 100.0,
        1450.0 + drift[2] * 10.0,
    );
    format!("{text:<111}}}")
}

fn mqtt_record(rng: &mut Rng, topic: u64, packet_id: u64, drift: &mut [f64; 3]) -> Record {
    let kinds = ["temp", "pressure", "vibration", "power"];
    let kind = kinds[usize::try_from(topic % 4).unwrap()];
    let key = format!("plant/l{}/m{}/{kind}", topic / 100, topic % 100);
    let value = reading(rng, topic % 100, drift);
    assert_eq!(value.len(), 112);
    let mut writer = RecordWriter::new(Some(key.as_bytes()), Some(value.as_bytes()));
    writer.header(b"mqtt.message.id", Some(packet_id.to_string().as_bytes()));
    writer.header(b"mqtt.qos", Some(b"1"));
    writer.header(b"mqtt.retained", Some(b"false"));
    writer.header(b"mqtt.duplicate", Some(b"false"));
    writer.finish(1_763_000_000_000 + i64::try_from(rng.below(200)).unwrap())
}

fn big() -> LogConfig {
    LogConfig {
        segment_bytes: 8 << 20,
        max_bytes: 64 << 20,
        ..config()
    }
}

#[test]
fn frame_size_of_a_hundred_single_records() {
    let store = SimStore::new(1);
    let (mut log, _) = Log::open(Arc::new(store), big()).unwrap();
    let mut rng = Rng::new(7);
    let mut drifts = vec![[0.0; 3]; 500];
    let (mut frames, mut bytes, mut written, mut bare, mut zstd) = (0u64, 0u64, 0u64, 0u64, 0u64);
    for round in 0..40u64 {
        let mut values = Vec::new();
        let mut sections = Vec::new();
        for i in 0..100 {
            let topic = (round * 100 + i * 7 + rng.below(3)) % 500;
            let packet_id = 1 + (round * 31 + topic * 17) % 9000;
            let record = mqtt_record(
                &mut rng,
                topic,
                packet_id,
                &mut drifts[usize::try_from(topic).unwrap()],
            );
            values.extend_from_slice(record.value().unwrap().unwrap());
            sections.push(SectionDraft {
                stream: StreamId(u32::try_from(topic).unwrap()),
                run: Run(3),
                first: 1000 + round * 100 + i,
                records: vec![record],
            });
        }
        let appended = log.append(0, &draft(sections), &Names::default()).unwrap();
        // The first frames of a segment declare its streams.
        if round >= 20 {
            let frame = log.reader().read_frame(appended.at).unwrap().unwrap();
            frames += 1;
            bytes += frame.bytes;
            written += appended.bytes_written;
            bare += values.len() as u64;
            zstd += zstd::bulk::compress(&values, 1).unwrap().len() as u64;
        }
    }
    println!(
        "frame of 100 single records of 112 B: {} B, {} B written ({:.3} per payload byte); \
         zstd -1 of the bare payloads {} B ({:.3})",
        bytes / frames,
        written / frames,
        written as f64 / bare as f64,
        zstd / frames,
        zstd as f64 / bare as f64,
    );
    assert!(bytes / frames <= 4096);
}

#[test]
fn time_of_a_thousand_records() {
    let store = SimStore::new(1);
    let (mut log, _) = Log::open(Arc::new(store), big()).unwrap();
    let mut rng = Rng::new(7);
    let mut drift = [0.0; 3];
    let records: Vec<Record> = (0..1000)
        .map(|i| mqtt_record(&mut rng, i % 500, i, &mut drift))
        .collect();
    let bytes: usize = records.iter().map(|record| record.body.len()).sum();
    let sections = records
        .chunks(2)
        .zip(0..)
        .map(|(records, stream)| SectionDraft {
            stream: StreamId(stream),
            run: Run(1),
            first: 5,
            records: records.to_vec(),
        });
    let frame = draft(sections.collect());
    let names = Names::default();
    let at = log.append(0, &frame, &names).unwrap().at;
    let begin = Instant::now();
    for _ in 0..50 {
        log.append(0, &frame, &names).unwrap();
    }
    let append = begin.elapsed() / 50;
    let reader = log.reader();
    let begin = Instant::now();
    for _ in 0..50 {
        reader.read_frame(at).unwrap().unwrap();
    }
    println!(
        "1,000 records, {bytes} B in 500 sections: append {append:?} (memory as disk), read {:?}",
        begin.elapsed() / 50
    );
}
