//! Counts in answers are checked before they are believed: `kafka-protocol` allocates an array for
//! whatever count it reads, so a bad one would end the process.
//!
//! An answer is walked by a table of what it is made of, nothing is allocated. Integers, texts and
//! lists are encoded as <https://kafka.apache.org/protocol#protocol_types> says; from an API's
//! *flexible* version on, lengths are varints of length + 1 and every structure ends with tagged
//! fields. A tagged field that the codec knows is read by it whatever length its tag says, so all
//! of these are in the table, and their lengths must be right.

use crate::record::varint;

/// What an answer of one API is made of.
#[derive(Debug)]
pub(super) struct Shape {
    /// First flexible version.
    pub flexible: i16,
    pub parts: &'static [Part],
}

/// A field and the versions that have it.
#[derive(Debug)]
pub(super) struct Part {
    from: i16,
    to: i16,
    field: Field,
}

#[derive(Debug)]
enum Field {
    /// So many bytes.
    Bytes(usize),
    /// A text, perhaps null.
    Text,
    /// Bytes with their length, perhaps null.
    Blob,
    /// Integers of so many bytes.
    Numbers(usize),
    /// Structures, perhaps null.
    List(&'static [Part]),
    Struct(&'static [Part]),
    /// Behind all others, with its number.
    Tagged(usize, &'static Field),
}

use Field::{Blob, Bytes, List, Numbers, Struct, Tagged, Text};

const fn since(from: i16, field: Field) -> Part {
    within(from, i16::MAX, field)
}

const fn within(from: i16, to: i16, field: Field) -> Part {
    Part { from, to, field }
}

const fn all(field: Field) -> Part {
    since(0, field)
}

const FEATURE: &[Part] = &[all(Text), all(Bytes(4))];
/// A leader and its epoch.
const LEADER: &Field = &Struct(&[all(Bytes(4 + 4))]);
/// An epoch and an offset, in any order.
const EPOCH_AND_OFFSET: &Field = &Struct(&[all(Bytes(4 + 8))]);
const ENDPOINT: &[Part] = &[all(Bytes(4)), all(Text), all(Bytes(4)), all(Text)];

pub(super) const API_VERSIONS: Shape = Shape {
    flexible: 3,
    parts: &[
        all(Bytes(2)),
        all(List(&[all(Bytes(6))])),
        since(1, Bytes(4)),
        all(Tagged(0, &List(FEATURE))),
        all(Tagged(1, &Bytes(8))),
        all(Tagged(2, &List(FEATURE))),
        all(Tagged(3, &Bytes(1))),
    ],
};

pub(super) const SASL_HANDSHAKE: Shape = Shape {
    flexible: i16::MAX,
    parts: &[all(Bytes(2)), all(List(&[all(Text)]))],
};

pub(super) const SASL_AUTHENTICATE: Shape = Shape {
    flexible: 2,
    parts: &[all(Bytes(2)), all(Text), all(Blob), since(1, Bytes(8))],
};

pub(super) const METADATA: Shape = Shape {
    flexible: 9,
    parts: &[
        all(Bytes(4)),
        all(List(ENDPOINT)),
        all(Text),
        all(Bytes(4)),
        all(List(&[
            all(Bytes(2)),
            all(Text),
            since(10, Bytes(16)),
            all(Bytes(1)),
            all(List(&[
                all(Bytes(2 + 4 + 4)),
                since(7, Bytes(4)),
                all(Numbers(4)),
                all(Numbers(4)),
                since(5, Numbers(4)),
            ])),
            since(8, Bytes(4)),
        ])),
        within(8, 10, Bytes(4)),
        since(13, Bytes(2)),
    ],
};

pub(super) const PRODUCE: Shape = Shape {
    flexible: 9,
    parts: &[
        all(List(&[
            within(0, 12, Text),
            since(13, Bytes(16)),
            all(List(&[
                all(Bytes(4 + 2 + 8 + 8)),
                since(5, Bytes(8)),
                since(8, List(&[all(Bytes(4)), all(Text)])),
                since(8, Text),
                all(Tagged(0, LEADER)),
            ])),
        ])),
        all(Bytes(4)),
        all(Tagged(0, &List(ENDPOINT))),
    ],
};

pub(super) const FETCH: Shape = Shape {
    flexible: 12,
    parts: &[
        all(Bytes(4)),
        since(7, Bytes(2 + 4)),
        all(List(&[
            all(Text),
            all(List(&[
                all(Bytes(4 + 2 + 8 + 8)),
                since(5, Bytes(8)),
                all(List(&[all(Bytes(8 + 8))])),
                since(11, Bytes(4)),
                all(Blob),
                all(Tagged(0, EPOCH_AND_OFFSET)),
                all(Tagged(1, LEADER)),
                all(Tagged(2, EPOCH_AND_OFFSET)),
            ])),
        ])),
    ],
};

pub(super) const LIST_OFFSETS: Shape = Shape {
    flexible: 6,
    parts: &[
        since(2, Bytes(4)),
        all(List(&[
            all(Text),
            all(List(&[all(Bytes(4 + 2 + 8 + 8)), since(4, Bytes(4))])),
        ])),
    ],
};

pub(super) const CREATE_TOPICS: Shape = Shape {
    flexible: 5,
    parts: &[
        all(Bytes(4)),
        all(List(&[
            all(Text),
            since(7, Bytes(16)),
            all(Bytes(2)),
            all(Text),
            since(5, Bytes(4 + 2)),
            since(5, List(&[all(Text), all(Text), all(Bytes(3))])),
            all(Tagged(0, &Bytes(2))),
        ])),
    ],
};

pub(super) const INIT_PRODUCER_ID: Shape = Shape {
    flexible: 2,
    parts: &[all(Bytes(4 + 2 + 8 + 2))],
};

pub(super) const DESCRIBE_CONFIGS: Shape = Shape {
    flexible: 4,
    parts: &[
        all(Bytes(4)),
        all(List(&[
            all(Bytes(2)),
            all(Text),
            all(Bytes(1)),
            all(Text),
            all(List(&[
                all(Text),
                all(Text),
                all(Bytes(3)),
                all(List(&[all(Text), all(Text), all(Bytes(1))])),
                since(3, Bytes(1)),
                since(3, Text),
            ])),
        ])),
    ],
};

pub(super) const OFFSET_FOR_LEADER_EPOCH: Shape = Shape {
    flexible: 4,
    parts: &[
        all(Bytes(4)),
        all(List(&[all(Text), all(List(&[all(Bytes(2 + 4 + 4 + 8))]))])),
    ],
};

pub(super) const DESCRIBE_PRODUCERS: Shape = Shape {
    flexible: 0,
    parts: &[
        all(Bytes(4)),
        all(List(&[
            all(Text),
            all(List(&[
                all(Bytes(4 + 2)),
                all(Text),
                all(List(&[all(Bytes(8 + 4 + 4 + 8 + 4 + 8))])),
            ])),
        ])),
    ],
};

impl Shape {
    /// Whether everything that `answer` says it holds is there.
    pub(super) fn fits(&self, answer: &[u8], version: i16) -> bool {
        let mut walk = Walk {
            rest: answer,
            version,
            flexible: version >= self.flexible,
        };
        walk.structure(self.parts).is_some()
    }
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
}

impl Walk<'_> {
    fn structure(&mut self, parts: &[Part]) -> Option<()> {
        for part in parts {
            if (part.from..=part.to).contains(&self.version) {
                self.field(&part.field)?;
            }
        }
        self.tags(parts)
    }

    fn field(&mut self, field: &Field) -> Option<()> {
        match field {
            Bytes(length) => self.skip(*length),
            Text => {
                let length = self.length(2)?;
                self.skip(length)
            }
            Blob => {
                let length = self.length(4)?;
                self.skip(length)
            }
            Numbers(width) => {
                let count = self.length(4)?;
                self.skip(count.checked_mul(*width)?)
            }
            List(parts) => {
                for _ in 0..self.length(4)? {
                    let before = self.rest.len();
                    self.structure(parts)?;
                    if self.rest.len() == before {
                        return None; // nothing, as often as somebody likes
                    }
                }
                Some(())
            }
            Struct(parts) => self.structure(parts),
            Tagged(..) => Some(()),
        }
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.rest = self.rest.get(length..)?;
        Some(())
    }

    /// A length or count that is `width` bytes wide in versions that are not flexible; 0 for null.
    fn length(&mut self, width: usize) -> Option<usize> {
        if self.flexible {
            return Some(self.varint()?.saturating_sub(1));
        }
        let (length, rest) = self.rest.split_at_checked(width)?;
        self.rest = rest;
        let length = match length {
            [a, b] => i16::from_be_bytes([*a, *b]).into(),
            [a, b, c, d] => i32::from_be_bytes([*a, *b, *c, *d]),
            _ => return None,
        };
        usize::try_from(length.max(0)).ok()
    }

    /// At most 32 bits in at most five bytes: the codec reads no more and would go on elsewhere.
    fn varint(&mut self) -> Option<usize> {
        let before = self.rest.len();
        let value = u32::try_from(varint::read(&mut self.rest)?).ok()?;
        let length = before - self.rest.len();
        (length <= 5).then(|| usize::try_from(value).ok())?
    }

    fn tags(&mut self, parts: &[Part]) -> Option<()> {
        if !self.flexible {
            return Some(());
        }
        for _ in 0..self.varint()? {
            let (tag, length) = (self.varint()?, self.varint()?);
            let behind = self.rest.len().checked_sub(length)?;
            let known = parts.iter().find_map(|part| match &part.field {
                Tagged(number, field) if *number == tag => Some(field),
                _ => None,
            });
            match known {
                Some(field) => self.field(field)?,
                None => self.skip(length)?,
            }
            if self.rest.len() != behind {
                return None; // another length than its tag says
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests;
