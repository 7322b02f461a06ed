//! The header that says that a record's time is not to be believed.
//!
//! `tidegate.clock` is the last header of a record's body: `unsynchronised` from the door on,
//! `corrected` once its timestamp was put right. One that has to go without being put right
//! carries the time at which it is sent, and its own in `tidegate.timestamp`.

use bytes::BufMut;

use super::{Digits, Record, put};

/// Name of the header.
pub const CLOCK: &[u8] = b"tidegate.clock";
/// Name of the header with the record's own time, in milliseconds since 1970 as text.
pub const TIMESTAMP: &[u8] = b"tidegate.timestamp";
const UNSYNCHRONISED: &[u8] = b"unsynchronised";
const CORRECTED: &[u8] = b"corrected";
/// Name and value with a byte of length before each.
const MARK_BYTES: usize = 2 + CLOCK.len() + UNSYNCHRONISED.len();

/// The record with the mark, stamped by our time.
#[must_use]
pub fn marked(record: &Record, timestamp_ms: i64) -> Record {
    with(
        record,
        &record.body,
        timestamp_ms,
        &[(CLOCK, UNSYNCHRONISED)],
    )
}

/// Whether a record carries the mark. Its last header alone is looked at.
#[must_use]
pub fn is_marked(record: &Record) -> bool {
    record.header_count > 0
        && record.body.ends_with(UNSYNCHRONISED)
        && record.headers().is_ok_and(|headers| {
            headers
                .last()
                .is_some_and(|last| *last == (CLOCK, Some(UNSYNCHRONISED)))
        })
}

/// A marked record with the right time.
#[must_use]
pub fn corrected(record: &Record, timestamp_ms: i64) -> Record {
    replaced(record, timestamp_ms, &[(CLOCK, CORRECTED)])
}

/// A marked record that goes with another time than its own; `own_ms` is what is known of that.
#[must_use]
pub fn sent_at(record: &Record, timestamp_ms: i64, own_ms: i64) -> Record {
    let minus: &[u8] = if own_ms < 0 { b"-" } else { b"" };
    let own = [minus, Digits::new(own_ms.unsigned_abs()).text()].concat();
    let headers = [(CLOCK, UNSYNCHRONISED), (TIMESTAMP, own.as_slice())];
    replaced(record, timestamp_ms, &headers)
}

fn replaced(record: &Record, timestamp_ms: i64, headers: &[(&[u8], &[u8])]) -> Record {
    let end = record.body.len().saturating_sub(MARK_BYTES);
    let before = record.body.get(..end).unwrap_or_default();
    let mut record = with(record, before, timestamp_ms, headers);
    record.header_count = record.header_count.saturating_sub(1);
    record
}

fn with(record: &Record, before: &[u8], timestamp_ms: i64, headers: &[(&[u8], &[u8])]) -> Record {
    let mut body = Vec::with_capacity(before.len() + headers.len() * MARK_BYTES);
    body.put_slice(before);
    let mut header_count = record.header_count;
    for (name, value) in headers {
        put(&mut body, Some(name));
        put(&mut body, Some(value));
        header_count += 1;
    }
    Record {
        timestamp_ms,
        headers_at: record.headers_at,
        header_count,
        body: body.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordWriter;

    fn record() -> Record {
        let mut writer = RecordWriter::new(Some(b"key"), Some(b"value"));
        writer.header(b"a", Some(b"1"));
        writer.finish(77)
    }

    #[test]
    fn a_mark_is_found_replaced_and_leaves_the_rest_alone() {
        let plain = record();
        assert!(!is_marked(&plain));
        let marked = marked(&plain, 80);
        assert!(is_marked(&marked));
        assert_eq!((marked.timestamp_ms, marked.header_count), (80, 2));
        let right = corrected(&marked, 90);
        assert!(!is_marked(&right));
        let wanted: Vec<super::super::Header<'_>> =
            vec![(b"a", Some(b"1")), (CLOCK, Some(CORRECTED))];
        assert_eq!((right.headers(), right.timestamp_ms), (Ok(wanted), 90));
        let late = sent_at(&marked, 95, -80);
        let wanted: Vec<super::super::Header<'_>> = vec![
            (b"a", Some(b"1")),
            (CLOCK, Some(UNSYNCHRONISED)),
            (TIMESTAMP, Some(b"-80")),
        ];
        assert_eq!((late.headers(), late.timestamp_ms), (Ok(wanted), 95));
        assert_eq!(late.value(), Ok(Some(&b"value"[..])));
    }

    #[test]
    fn what_only_ends_like_a_mark_is_none() {
        let value = [CLOCK, UNSYNCHRONISED].concat();
        let bare = RecordWriter::new(None, Some(&value)).finish(0);
        let mut writer = RecordWriter::new(None, None);
        writer.header(b"a", Some(&value));
        assert!(!is_marked(&bare) && !is_marked(&writer.finish(0)));
    }
}
