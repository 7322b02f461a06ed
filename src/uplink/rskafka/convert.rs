//! Our records as rskafka's.
//!
//! rskafka keeps headers in a map: they come out in the order of their names, a null value cannot
//! be, and a name can be there once. So a null becomes an empty value, and the second `a` is sent
//! as `a.2`.

use std::collections::BTreeMap;

use rskafka::chrono::DateTime;
use rskafka::record::Record;

use crate::record::{self, Malformed};
use crate::spool::Taken;

/// The records of a batch, with provenance headers where `gateway` is given.
pub(super) fn records(taken: &Taken, gateway: Option<&str>) -> Result<Vec<Record>, Malformed> {
    let numbers = taken.numbers.iter();
    let records = taken.records.iter().zip(numbers).map(|(record, number)| {
        let mut converted = convert(record)?;
        if let Some(gateway) = gateway {
            let run = taken.run.to_string();
            let number = number.to_string();
            let provenance = [
                ("tidegate.id", gateway),
                ("tidegate.run", &run),
                ("tidegate.seq", &number),
            ];
            for (name, value) in provenance {
                insert(&mut converted.headers, name.to_owned(), value.into());
            }
        }
        Ok(converted)
    });
    records.collect()
}

fn convert(record: &record::Record) -> Result<Record, Malformed> {
    let mut headers = BTreeMap::new();
    for (name, value) in record.headers()? {
        let name = String::from_utf8_lossy(name).into_owned();
        insert(&mut headers, name, value.unwrap_or_default().to_vec());
    }
    Ok(Record {
        key: record.key()?.map(<[u8]>::to_vec),
        value: record.value()?.map(<[u8]>::to_vec),
        headers,
        timestamp: DateTime::from_timestamp_millis(record.timestamp_ms).unwrap_or_default(),
    })
}

fn insert(headers: &mut BTreeMap<String, Vec<u8>>, name: String, value: Vec<u8>) {
    let mut unique = name.clone();
    let mut count = 1;
    while headers.contains_key(&unique) {
        count += 1;
        unique = format!("{name}.{count}");
    }
    headers.insert(unique, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordWriter;

    #[test]
    fn a_header_that_is_there_twice_keeps_both_values() {
        let mut writer = RecordWriter::new(None, Some(b"value"));
        writer.header(b"a", Some(b"1"));
        writer.header(b"a", Some(b"2"));
        writer.header(b"b", None);
        let record = convert(&writer.finish(1_700_000_000_123)).unwrap();
        assert_eq!((record.key, record.value), (None, Some(b"value".to_vec())));
        assert_eq!(record.timestamp.timestamp_millis(), 1_700_000_000_123);
        let wanted = [("a", "1"), ("a.2", "2"), ("b", "")]
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        assert_eq!(record.headers, wanted.into());
    }
}
