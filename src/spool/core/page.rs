//! Where a page of what tools see begins, as text that a client gives back.

use std::str::FromStr;

use super::super::StreamId;
use super::super::inspect::BadPlace;
use super::super::log::{FramePos, SegmentId};

/// Where a page begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Records in memory: of this stream, from this number on.
    Memory(StreamId, u64),
    /// In this segment, at its beginning or further on.
    Disk(SegmentId, Option<FramePos>),
}

impl FromStr for Place {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Self, BadPlace> {
        let parts: Option<Vec<u64>> = text
            .split('.')
            .skip(1)
            .map(|part| part.parse().ok())
            .collect();
        let place = match (text.split('.').next(), parts.as_deref()) {
            (Some("memory"), Some([stream, number])) => u32::try_from(*stream)
                .ok()
                .map(|stream| Self::Memory(StreamId(stream), *number)),
            (Some("disk"), Some([segment])) => Some(Self::Disk(SegmentId(*segment), None)),
            (Some("disk"), Some([segment, offset, number])) => {
                let (segment, offset, number) = (SegmentId(*segment), *offset, *number);
                let at = FramePos {
                    segment,
                    offset,
                    number,
                };
                Some(Self::Disk(segment, Some(at)))
            }
            _ => None,
        };
        place.ok_or_else(|| BadPlace(text.to_owned()))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory(stream, number) => write!(f, "memory.{}.{number}", stream.0),
            Self::Disk(segment, None) => write!(f, "disk.{}", segment.0),
            Self::Disk(segment, Some(at)) => {
                write!(f, "disk.{}.{}.{}", segment.0, at.offset, at.number)
            }
        }
    }
}
