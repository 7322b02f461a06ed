//! A frame's body before compression: the records of its sections, column by column.
//!
//! ```text
//! for each record: timestamp less the record's before (the first: less the directory's oldest),
//!                  signed varint
//! for each record: 0 if key and value say their own length, else headers_at + 1, varint
//! for each record: header count, varint
//! for each record: bytes of headers shared with the record's before at the start, varint
//! for each record: the same at the end, varint
//! for each record: bytes of headers between the two, varint
//! those bytes of all records | keys and values of all records
//! ```
//! Headers of neighbours differ in a few digits at most (a packet id), so they nearly vanish;
//! without this they would be most of a small frame. Each column compresses well by itself and
//! decodes by copying.

use crate::record::{Record, varint};

/// Collects records and writes their columns. Reused from frame to frame.
#[derive(Debug, Default)]
pub(super) struct BodyWriter {
    columns: [Vec<u8>; 6],
    headers: Vec<u8>,
    fields: Vec<u8>,
}

impl BodyWriter {
    /// Appends the body of `records` to `out`; `oldest_ms` is the base of their timestamps.
    pub(super) fn encode<'a>(
        &mut self,
        records: impl Iterator<Item = &'a Record>,
        oldest_ms: i64,
        out: &mut Vec<u8>,
    ) {
        self.columns.iter_mut().for_each(Vec::clear);
        self.headers.clear();
        self.fields.clear();
        let (mut time, mut before): (i64, &[u8]) = (oldest_ms, &[]);
        for record in records {
            let at = usize::try_from(record.headers_at).unwrap_or(usize::MAX);
            let (fields, headers) = record
                .body
                .split_at_checked(at)
                .unwrap_or((&record.body, &[]));
            let says = fields_length(fields) == Some(fields.len());
            let start = shared(before.iter(), headers.iter());
            let most = before.len().min(headers.len()) - start;
            let end = shared(
                before.iter().rev().take(most),
                headers.iter().rev().take(most),
            );
            let middle = headers.get(start..headers.len() - end).unwrap_or(&[]);
            let [times, lengths, counts, starts, ends, middles] = &mut self.columns;
            varint::write_signed(times, record.timestamp_ms.wrapping_sub(time));
            varint::write(lengths, if says { 0 } else { fields.len() as u64 + 1 });
            varint::write(counts, u64::from(record.header_count));
            varint::write(starts, start as u64);
            varint::write(ends, end as u64);
            varint::write(middles, middle.len() as u64);
            self.headers.extend_from_slice(middle);
            self.fields.extend_from_slice(fields);
            (time, before) = (record.timestamp_ms, headers);
        }
        for column in &self.columns {
            out.extend_from_slice(column);
        }
        out.extend_from_slice(&self.headers);
        out.extend_from_slice(&self.fields);
    }
}

struct Shape {
    timestamp_ms: i64,
    fields: usize,
    header_count: u32,
    start: usize,
    end: usize,
    middle: usize,
}

/// Reads `count` records back; `None` when the body does not hold them.
pub(super) fn decode(raw: &[u8], count: usize, oldest_ms: i64) -> Option<Vec<Record>> {
    // A record has a byte in each column at least.
    if count > raw.len() / 6 {
        return (count == 0 && raw.is_empty()).then(Vec::new);
    }
    let mut rest = raw;
    let mut shapes = read_shapes(&mut rest, count, oldest_ms)?;
    let middles = shapes
        .iter()
        .try_fold(0usize, |sum, shape| sum.checked_add(shape.middle))?;
    let (mut headers, mut fields) = rest.split_at_checked(middles)?;
    let (mut total, mut before) = (0usize, 0usize);
    let mut peek = fields;
    for shape in &mut shapes {
        if shape.fields == 0 {
            shape.fields = fields_length(peek)?;
        } else {
            shape.fields -= 1;
        }
        peek = peek.get(shape.fields..)?;
        if shape.start.checked_add(shape.end)? > before {
            return None;
        }
        before = shape
            .start
            .checked_add(shape.middle)?
            .checked_add(shape.end)?;
        total = total.checked_add(shape.fields)?.checked_add(before)?;
    }
    // What the sharing of headers may blow a body up to.
    if !peek.is_empty() || total > super::RAW_BYTES_MAX {
        return None;
    }
    let mut out = Vec::with_capacity(total);
    let (mut bounds, mut before) = (Vec::with_capacity(count), 0..0);
    for shape in &shapes {
        let from = out.len();
        let (own, tail) = fields.split_at_checked(shape.fields)?;
        fields = tail;
        out.extend_from_slice(own);
        let headers_at = out.len();
        out.extend_from_within(before.start..before.start + shape.start);
        let (own, tail) = headers.split_at_checked(shape.middle)?;
        headers = tail;
        out.extend_from_slice(own);
        out.extend_from_within(before.end - shape.end..before.end);
        before = headers_at..out.len();
        bounds.push((from, headers_at, out.len()));
    }
    cut_up(&out, &shapes, &bounds)
}

fn cut_up(bytes: &[u8], shapes: &[Shape], bounds: &[(usize, usize, usize)]) -> Option<Vec<Record>> {
    let one = |(shape, (from, headers_at, to)): (&Shape, &(usize, usize, usize))| {
        Some(Record {
            timestamp_ms: shape.timestamp_ms,
            headers_at: u32::try_from(headers_at - from).ok()?,
            header_count: shape.header_count,
            body: bytes.get(*from..*to)?.into(),
        })
    };
    shapes.iter().zip(bounds).map(one).collect()
}

fn read_shapes(rest: &mut &[u8], count: usize, oldest_ms: i64) -> Option<Vec<Shape>> {
    let mut shapes = Vec::with_capacity(count);
    let mut timestamp_ms = oldest_ms;
    for _ in 0..count {
        timestamp_ms = timestamp_ms.wrapping_add(varint::read_signed(rest)?);
        shapes.push(Shape {
            timestamp_ms,
            fields: 0,
            header_count: 0,
            start: 0,
            end: 0,
            middle: 0,
        });
    }
    let mut column = |set: &dyn Fn(&mut Shape, u64) -> Option<()>| {
        shapes
            .iter_mut()
            .try_for_each(|shape| set(shape, varint::read(rest)?))
    };
    column(&|shape, n| usize::try_from(n).ok().map(|n| shape.fields = n))?;
    column(&|shape, n| u32::try_from(n).ok().map(|n| shape.header_count = n))?;
    column(&|shape, n| usize::try_from(n).ok().map(|n| shape.start = n))?;
    column(&|shape, n| usize::try_from(n).ok().map(|n| shape.end = n))?;
    column(&|shape, n| usize::try_from(n).ok().map(|n| shape.middle = n))?;
    Some(shapes)
}

/// Bytes that a key and a value take together by their own lengths.
fn fields_length(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    for _ in 0..2 {
        let length = varint::read_signed(&mut rest)?;
        if length > 0 {
            rest = rest.get(usize::try_from(length).ok()?..)?;
        }
    }
    Some(bytes.len() - rest.len())
}

fn shared<'a>(a: impl Iterator<Item = &'a u8>, b: impl Iterator<Item = &'a u8>) -> usize {
    a.zip(b).take_while(|(a, b)| a == b).count()
}
