//! Finds frames in a segment file. Never fails: what cannot be read is not a frame.

use std::collections::HashMap;

use super::frame::{self, Header};
use super::{Directory, PAGE, Section, Span, StoreFile, page_up};
use crate::spool::{Run, StreamId};

/// Most bytes that are asked for at once: more than any of our own frames has.
const PIECE_BYTES: usize = 1 << 20;

/// What all frames of a segment carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ident {
    pub generation: u64,
    pub lane: u8,
}

/// What to read of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Header and directory.
    Front,
    /// All, verified.
    Body,
}

/// A frame whose header and directory verify.
#[derive(Debug)]
pub(super) struct Found {
    pub at: u64,
    pub header: Header,
    pub directory: Directory,
    /// The body as stored; `None` if it was not wanted or does not verify.
    pub body: Option<Vec<u8>>,
}

impl Found {
    /// The byte behind it.
    pub fn end(&self) -> u64 {
        self.at + self.header.frame_bytes()
    }
}

/// A segment file, or the part of it below `limit`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region<'a> {
    pub file: &'a dyn StoreFile,
    pub ident: Ident,
    pub limit: u64,
}

impl Region<'_> {
    /// The frame that starts exactly at `at`.
    pub fn probe(&self, at: u64, want: Want) -> Option<Found> {
        let first = if want == Want::Body { 16 << 10 } else { PAGE };
        let mut bytes = Vec::new();
        self.fill(&mut bytes, at, first)?;
        let header = Header::parse(&bytes).filter(|header| self.is_ours(header, at))?;
        self.fill(&mut bytes, at, header.front_bytes())?;
        let front = usize::try_from(header.front_bytes()).ok()?;
        let front_bytes = bytes.get(..front).filter(|front| Header::verify(front))?;
        let directory = Directory::decode(front_bytes.get(frame::HEADER..)?)?;
        let mut found = Found {
            at,
            header,
            directory,
            body: None,
        };
        if want == Want::Body && self.fill(&mut bytes, at, header.frame_bytes()).is_some() {
            found.body = header.body(bytes.get(front..)?).map(<[u8]>::to_vec);
        }
        Some(found)
    }

    fn is_ours(&self, header: &Header, at: u64) -> bool {
        let end = at.checked_add(header.frame_bytes());
        header.generation == self.ident.generation
            && header.lane == self.ident.lane
            && end.is_some_and(|end| end <= self.limit)
    }

    /// Reads on until `bytes` has `wanted` bytes from `at`, or what there is below the limit.
    fn fill(&self, bytes: &mut Vec<u8>, at: u64, wanted: u64) -> Option<()> {
        let most = usize::try_from(wanted.min(self.limit.checked_sub(at)?)).ok()?;
        while bytes.len() < most {
            let there = bytes.len();
            // Head and header may both claim more than the file has.
            let piece = (most - there).min(PIECE_BYTES);
            bytes.resize(there + piece, 0);
            let more = bytes.get_mut(there..)?;
            let read = self.file.read_at(at + there as u64, more).ok()?;
            bytes.truncate(there + read);
            if read < piece {
                break;
            }
        }
        Some(())
    }

    /// The frame `number` that follows `end`. The number matters: at the next page may be a frame
    /// that is not the next, if that one is damaged.
    pub fn follow(&self, end: u64, number: u64, want: Want) -> Option<Found> {
        let behind = end.next_multiple_of(8);
        let is_next = |found: &Found| found.header.number == number;
        self.probe(behind, want).filter(is_next).or_else(|| {
            let boundary = page_up(end);
            (boundary != behind).then(|| self.probe(boundary, want).filter(is_next))?
        })
    }

    /// Whether something that was to be frame `number` lies behind `end`. One field of it may be
    /// wrong: stale frames of the file's life before agree in two at most.
    pub fn is_torn(&self, end: u64, number: u64) -> bool {
        [end.next_multiple_of(8), page_up(end)]
            .into_iter()
            .any(|at| {
                let mut bytes = Vec::new();
                self.fill(&mut bytes, at, frame::HEADER as u64);
                let Some((magic, header)) = Header::fields(&bytes) else {
                    return false;
                };
                let right = [
                    magic == frame::MAGIC,
                    header.lane == self.ident.lane,
                    header.generation == self.ident.generation,
                    header.number == number,
                ];
                right.into_iter().filter(|right| *right).count() >= 3
            })
    }

    /// The first frame at or behind `from` with at least that number, at any 8 bytes: where, and
    /// its number.
    pub fn search(&self, from: u64, number: u64) -> Option<(u64, u64)> {
        let generation = self.ident.generation;
        let hits = search(self.file, from, self.limit, move |header| {
            header.generation == generation && header.number >= number
        });
        let mut found = hits.filter_map(|at| self.probe(at, Want::Front));
        found.next().map(|found| (found.at, found.header.number))
    }
}

/// Offsets of headers, unverified, that `fits` takes, up to `limit` or the end of the file.
pub(super) fn search<'a>(
    file: &'a dyn StoreFile,
    from: u64,
    limit: u64,
    fits: impl Fn(&Header) -> bool + 'a,
) -> impl Iterator<Item = u64> + 'a {
    const CHUNK: u64 = 64 << 10;
    let from = from.next_multiple_of(8);
    // A segment may say that it was longer.
    let limit = file.length().unwrap_or(limit).min(limit);
    let chunks = (0..)
        .map(move |i| from + i * CHUNK)
        .take_while(move |at| *at < limit);
    chunks.flat_map(move |at| {
        // Headers that begin in this chunk may end in the next.
        let most = (CHUNK + frame::HEADER as u64).min(limit - at);
        let mut bytes = vec![0; usize::try_from(most).unwrap_or(0)];
        let read = file.read_at(at, &mut bytes).unwrap_or(0);
        bytes.truncate(read);
        let words = bytes
            .chunks_exact(8)
            .take(usize::try_from(CHUNK / 8).unwrap_or(0));
        let magic = frame::MAGIC.to_le_bytes();
        let starts = words
            .enumerate()
            .filter(|(_, word)| word.starts_with(&magic));
        let hits: Vec<u64> = starts
            .map(|(word, _)| 8 * word)
            .filter(|start| {
                let header = bytes.get(*start..).and_then(Header::parse);
                header.is_some_and(|header| fits(&header))
            })
            .map(|start| at + start as u64)
            .collect();
        hits
    })
}

/// What comes next in a segment.
#[derive(Debug)]
pub(super) enum Step {
    /// A frame; its body may be bad.
    Frame(Box<Found>),
    /// Bytes from here on are no frame, but one lies behind them.
    Hole(u64),
}

impl<'a> Walk<'a> {
    /// Begins at `start` with that frame.
    pub fn new(region: Region<'a>, start: u64, number: u64, want: Want) -> Self {
        Self {
            region,
            end: start,
            number,
            want,
        }
    }
}

/// Frames of a segment in order.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    region: Region<'a>,
    /// Byte behind the last frame.
    pub end: u64,
    /// Number that the next frame should have.
    pub number: u64,
    want: Want,
}

impl Iterator for Walk<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.end >= self.region.limit {
            return None;
        }
        if let Some(found) = self.region.follow(self.end, self.number, self.want) {
            (self.end, self.number) = (found.end(), found.header.number + 1);
            return Some(Step::Frame(Box::new(found)));
        }
        let hole = self.end;
        (self.end, self.number) = self.region.search(self.end, self.number)?;
        Some(Step::Hole(hole))
    }
}

/// What a hole at `hole` must have held: of each stream and run, the numbers between what lies
/// before it and behind it; at the segment's ends, `spans` and `before` (number behind the last in
/// older segments) help.
pub(super) fn lost(
    region: Region<'_>,
    (start, number, hole): (u64, u64, u64),
    spans: &[Span],
    before: &HashMap<(StreamId, Run), u64>,
) -> Vec<Section> {
    let mut low: HashMap<(StreamId, Run), u64> = before.clone();
    let mut high: HashMap<(StreamId, Run), u64> = HashMap::new();
    for span in spans {
        let key = (span.stream, span.run);
        low.entry(key).or_insert(span.first);
        high.insert(key, span.last.saturating_add(1));
    }
    let mut behind: HashMap<(StreamId, Run), u64> = HashMap::new();
    for step in Walk::new(region, start, number, Want::Front) {
        let Step::Frame(found) = step else { continue };
        for section in &found.directory.sections {
            let key = (section.stream, section.run);
            if found.at < hole {
                let low = low.entry(key).or_insert(section.end());
                *low = section.end().max(*low);
            } else {
                let first = behind.entry(key).or_insert(section.first);
                *first = section.first.min(*first);
            }
        }
    }
    high.extend(behind);
    let gap = |(key, to): (&(StreamId, Run), &u64)| {
        let first = *low.get(key)?;
        let count = u32::try_from(to.checked_sub(first)?).ok()?;
        (count > 0).then_some(Section {
            stream: key.0,
            run: key.1,
            first,
            count,
        })
    };
    let mut lost: Vec<Section> = high.iter().filter_map(gap).collect();
    lost.sort_unstable();
    lost
}

#[cfg(test)]
mod tests {
    use super::super::Store as _;
    use super::super::sim::SimStore;
    use super::*;

    #[test]
    fn a_length_that_is_only_claimed_takes_no_memory() {
        let file = SimStore::new(1).create("a").unwrap();
        file.write_at(0, &[7; 100]).unwrap();
        let ident = Ident {
            generation: 1,
            lane: 0,
        };
        let region = Region {
            file: &*file,
            ident,
            limit: 1 << 50,
        };
        let mut bytes = Vec::new();
        region.fill(&mut bytes, 10, 1 << 50).unwrap();
        assert_eq!(bytes, [7; 90]);
        assert!(bytes.capacity() <= 2 * PIECE_BYTES);
    }
}
