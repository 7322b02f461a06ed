//! Tells what a file in the spool's folder is, by its head, its end and its length.
//!
//! A file gets its name `….seg` when it is whole, full of zeros and synced ([`super::files`]). So
//! one that is shorter than its head says, or too short for a head, was cut by somebody else.

use super::files::{FreeFile, read_index};
use super::frame::{self, Header};
use super::index::{Index, IndexRead};
use super::scan::{Ident, Region, Want, search};
use super::segment::{Head, HeadRead};
use super::{
    Entry, LANES, LogError, PAGE, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, Store, StoreFile, page_up,
};
use crate::spool::StreamId;

/// How often a file is opened that cannot be.
const TRIES: u32 = 3;

/// A file that holds a segment.
pub(super) struct Candidate {
    pub file: FreeFile,
    pub ident: Ident,
    pub head: Option<Head>,
    pub sealed: Option<Box<Index>>,
    pub start: u64,
    /// Number of the frame there.
    pub number: u64,
    /// What its head says, until it is taken out.
    pub entries: Vec<Entry>,
    /// Streams that its head declares, once its entries are out.
    pub declared: Vec<StreamId>,
    /// Bytes that the file had, if it has fewer now.
    pub cut_from: Option<u64>,
}

/// What a file is.
pub(super) enum Kind {
    Segment(Box<Candidate>),
    /// Nothing is in it.
    Free(FreeFile),
    /// It was cut so short that nothing is left; bytes that it had, if its head still says so.
    Stub(FreeFile, Option<u64>),
    /// Left alone: its bytes, and why.
    Alien(u64, String),
}

/// Looks for a segment that only a newer version can read, and changes nothing.
///
/// # Errors
/// [`LogError::Newer`]; [`LogError::Folder`].
pub fn refuse_newer(store: &dyn Store) -> Result<(), LogError> {
    for file in store.list().map_err(LogError::Folder)? {
        // What cannot be read is told by who opens the log.
        let head = store.open(&file).and_then(|file| read_head(file.as_ref()));
        if let Ok(HeadRead::Newer(version)) = head {
            return Err(LogError::Newer { file, version });
        }
    }
    Ok(())
}

/// Tells what a file is by its head and its end. A file that cannot be read is tried again: what it
/// holds would be missing for all of this life.
pub(super) fn inspect(store: &dyn Store, name: &str) -> Kind {
    let mut kind = look_at(store, name);
    for _ in 1..TRIES {
        if !matches!(kind, Kind::Alien(..)) {
            break;
        }
        kind = look_at(store, name);
    }
    kind
}

fn look_at(store: &dyn Store, name: &str) -> Kind {
    let opened = store.open(name).and_then(|file| Ok((file.length()?, file)));
    let (length, file) = match opened {
        Ok(opened) => opened,
        Err(error) => return Kind::Alien(0, error.to_string()),
    };
    let free = FreeFile {
        name: name.to_owned(),
        file,
        length,
        generation: 0,
        serial: 0,
        head: 0,
    };
    match read_head(free.file.as_ref()) {
        Ok(HeadRead::Good(head, bytes, entries)) if head.lane < LANES => {
            let ident = Ident {
                generation: head.generation,
                lane: head.lane,
            };
            let cut_from = (length < head.length).then_some(head.length);
            let sealed = match read_index(free.file.as_ref(), length) {
                IndexRead::Good(generation, index)
                    if generation == head.generation && cut_from.is_none() =>
                {
                    Some(index)
                }
                _ => None,
            };
            Kind::Segment(Box::new(Candidate {
                file: free,
                ident,
                head: Some(head),
                sealed,
                start: page_up(bytes),
                number: head.first_number,
                entries,
                declared: Vec::new(),
                cut_from,
            }))
        }
        Ok(HeadRead::Newer(version)) => {
            Kind::Alien(length, format!("needs a reader of version {version}"))
        }
        Ok(_) => headless(free),
        Err(error) => Kind::Alien(length, error.to_string()),
    }
}

fn read_head(file: &dyn StoreFile) -> std::io::Result<HeadRead> {
    let mut wanted = usize::try_from(PAGE).unwrap_or(0);
    for _ in 0..2 {
        let mut bytes = vec![0; wanted];
        let read = file.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        match Head::read(&bytes) {
            HeadRead::Short(more) => wanted = more,
            other => return Ok(other),
        }
    }
    Ok(HeadRead::Bad)
}

/// What a head that does not verify says of the file's length, if the file is shorter and that can
/// be.
fn cut_from(file: &FreeFile) -> Option<u64> {
    let mut bytes = [0; super::segment::HEAD];
    let read = file.file.read_at(0, &mut bytes).ok()?;
    let says = Head::length(bytes.get(..read)?)?;
    let can_be = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&says) && says % PAGE == 0;
    (can_be && file.length < says).then_some(says)
}

/// A file without a head is what its newest frames say, or free.
fn headless(mut file: FreeFile) -> Kind {
    let cut_from = cut_from(&file);
    let limit = cut_from.unwrap_or(file.length);
    let at_of = |generation: u64| {
        let above = search(file.file.as_ref(), 0, limit, move |header| {
            header.generation > generation && header.lane < LANES
        });
        // A header that only looks like one is passed over.
        above.into_iter().find_map(|at| {
            let mut bytes = [0; frame::HEADER];
            file.file.read_at(at, &mut bytes).ok()?;
            let header = Header::parse(&bytes)?;
            let ident = Ident {
                generation: header.generation,
                lane: header.lane,
            };
            let region = Region {
                file: file.file.as_ref(),
                ident,
                limit,
            };
            region
                .probe(at, Want::Front)
                .map(|found| (ident, at, found.header.number))
        })
    };
    let mut newest: Option<(Ident, u64, u64)> = None;
    while let Some(newer) = at_of(newest.map_or(0, |(ident, ..)| ident.generation)) {
        newest = Some(newer);
    }
    let Some((ident, at, number)) = newest else {
        file.generation = 0;
        return if cut_from.is_some() || file.length < SEGMENT_BYTES_MIN {
            Kind::Stub(file, cut_from)
        } else {
            Kind::Free(file)
        };
    };
    let sealed = match read_index(file.file.as_ref(), file.length) {
        IndexRead::Good(generation, index) if generation == ident.generation => Some(index),
        _ => None,
    };
    Kind::Segment(Box::new(Candidate {
        file,
        ident,
        head: None,
        start: sealed.as_ref().map_or(at, |index| index.frames_start),
        number: sealed.as_ref().map_or(number, |index| index.first_number),
        sealed,
        entries: Vec::new(),
        declared: Vec::new(),
        cut_from,
    }))
}
