//! What a source makes and the spool keeps: key, value, headers and a timestamp. Plain data, no
//! I/O.
//!
//! A record's key, value and headers are encoded once, at the door, in the form they have inside a
//! Kafka record batch v2 (<https://kafka.apache.org/documentation/#record>): zigzag varint lengths,
//! −1 for null. So a batch for Kafka and a frame for the disk are made by copying bytes.
//!
//! ```text
//! body: key length varint | key | value length varint | value | { header name | header value }*
//! ```
//! The number of headers stands beside the body, not in it, so that the uplink can add headers of
//! its own.

pub mod mark;
pub mod varint;

use std::cell::Cell;
use std::sync::Arc;

use bytes::BufMut;

/// One record, without the topic it goes to: the spool's stream says that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Milliseconds since 1970 at which the message came in.
    pub timestamp_ms: i64,
    /// Bytes of `body` that are key and value; what follows are `header_count` headers.
    pub headers_at: u32,
    /// Headers in `body`.
    pub header_count: u32,
    /// Key, value and headers as Kafka encodes them (see the module).
    pub body: Arc<[u8]>,
}

/// A body that does not hold what its lengths say.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("record body is malformed")]
pub struct Malformed;

/// A header's name and value; a null value is `None`.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

impl Record {
    /// Bytes that the record counts for in every bound: its body and what is kept beside it.
    #[must_use]
    pub fn size(&self) -> usize {
        self.body.len() + 32
    }

    /// The key, or `None` when it is null.
    ///
    /// # Errors
    /// [`Malformed`] when the body lies about its lengths.
    pub fn key(&self) -> Result<Option<&[u8]>, Malformed> {
        let mut rest: &[u8] = &self.body;
        take(&mut rest)
    }

    /// The value, or `None` when it is null.
    ///
    /// # Errors
    /// [`Malformed`] when the body lies about its lengths.
    pub fn value(&self) -> Result<Option<&[u8]>, Malformed> {
        let mut rest: &[u8] = &self.body;
        take(&mut rest)?;
        take(&mut rest)
    }

    /// The headers in order.
    ///
    /// # Errors
    /// [`Malformed`] when the body lies about its lengths.
    pub fn headers(&self) -> Result<Vec<Header<'_>>, Malformed> {
        let at = usize::try_from(self.headers_at).map_err(|_| Malformed)?;
        let mut rest = self.body.get(at..).ok_or(Malformed)?;
        let mut all = Vec::new();
        for _ in 0..self.header_count {
            let name = take(&mut rest)?.ok_or(Malformed)?;
            all.push((name, take(&mut rest)?));
        }
        if rest.is_empty() {
            Ok(all)
        } else {
            Err(Malformed)
        }
    }
}

/// Takes what [`put`] has written off `rest`; `None` for null.
///
/// # Errors
/// [`Malformed`] when `rest` lies about its lengths.
pub fn take<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
    let length = varint::read_signed(rest).ok_or(Malformed)?;
    if length < 0 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    let (head, tail) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = tail;
    Ok(Some(head))
}

/// A number in decimal digits, without an allocation.
#[derive(Clone, Copy, Debug)]
pub struct Digits {
    bytes: [u8; 20],
    from: usize,
}

impl Digits {
    /// The digits of `number`.
    #[must_use]
    pub fn new(mut number: u64) -> Self {
        let mut bytes = [b'0'; 20];
        let mut from = bytes.len();
        for byte in bytes.iter_mut().rev() {
            from -= 1;
            *byte = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
            if number == 0 {
                break;
            }
        }
        Self { bytes, from }
    }

    /// As ASCII text.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.bytes.get(self.from..).unwrap_or_default()
    }
}

thread_local! {
    /// Where a thread writes bodies, one after the other, before each gets memory of just its size.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}
/// Bytes of it that a thread keeps at most.
const SCRATCH_KEPT: usize = 64 << 10;

/// Writes a record's body field by field: key, value, then headers.
#[derive(Debug)]
pub struct RecordWriter {
    body: Vec<u8>,
    headers_at: usize,
    header_count: u32,
}

impl RecordWriter {
    /// Starts a record with its key and value.
    #[must_use]
    pub fn new(key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        let mut body = SCRATCH.take();
        body.clear();
        put(&mut body, key);
        put(&mut body, value);
        let headers_at = body.len();
        Self {
            body,
            headers_at,
            header_count: 0,
        }
    }

    /// Appends a header.
    pub fn header(&mut self, name: &[u8], value: Option<&[u8]>) {
        put(&mut self.body, Some(name));
        put(&mut self.body, value);
        self.header_count += 1;
    }

    /// Appends `count` headers that are encoded already.
    pub fn encoded_headers(&mut self, count: u32, encoded: &[u8]) {
        self.body.put_slice(encoded);
        self.header_count += count;
    }

    /// The finished record. A body of 4 GiB or more cannot be: packets are bounded far below.
    #[must_use]
    pub fn finish(self, timestamp_ms: i64) -> Record {
        let record = Record {
            timestamp_ms,
            headers_at: u32::try_from(self.headers_at).unwrap_or(u32::MAX),
            header_count: self.header_count,
            body: Arc::from(&*self.body),
        };
        if self.body.capacity() <= SCRATCH_KEPT {
            SCRATCH.set(self.body);
        }
        record
    }
}

/// Appends a length and the bytes, or −1 for null.
#[inline]
pub fn put(out: &mut impl BufMut, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::write_signed(out, -1),
        Some(bytes) => {
            varint::write_signed(out, i64::try_from(bytes.len()).unwrap_or(i64::MAX));
            out.put_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gives_back_what_was_put_in() {
        let mut writer = RecordWriter::new(Some(b"key"), None);
        writer.header(b"a", Some(b"1"));
        writer.header(b"a", None);
        let record = writer.finish(7);
        assert_eq!(record.key(), Ok(Some(&b"key"[..])));
        assert_eq!(record.value(), Ok(None));
        let wanted: Vec<Header<'_>> = vec![(b"a", Some(b"1")), (b"a", None)];
        assert_eq!(record.headers(), Ok(wanted));
    }

    #[test]
    fn digits_are_those_of_the_number() {
        for number in [0, 7, 10, 65_535, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(Digits::new(number).text(), number.to_string().as_bytes());
        }
    }

    #[test]
    fn a_cut_body_is_malformed_not_a_panic() {
        let whole = RecordWriter::new(Some(b"key"), Some(b"value")).finish(0);
        for cut in 0..whole.body.len() {
            let record = Record {
                body: whole.body[..cut].into(),
                ..whole.clone()
            };
            assert_eq!(record.value(), Err(Malformed), "cut at {cut}");
        }
    }
}
