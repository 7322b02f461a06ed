//! Frames (RFC 6455, section 5): read as they come, in any pieces; written whole.

/// Opcodes.
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
const PING: u8 = 9;
pub const PONG: u8 = 10;
/// Status 1000: all is well (section 7.4.1).
pub const NORMAL: [u8; 2] = [0x03, 0xe8];

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// Longest payload of a control frame.
const CONTROL_MAX: usize = 125;
/// Two bytes, a length of eight, a mask of four.
const HEAD_MAX: usize = 14;

/// What a piece of the stream was.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// Of a frame that goes on.
    More,
    /// The last so many bytes of it are payload, unmasked.
    Payload(usize),
    /// A whole ping, with its payload.
    Ping(Vec<u8>),
    /// A whole close frame.
    Close,
}

/// Where the stream stands.
#[derive(Debug, Default)]
pub struct Frames {
    head: Vec<u8>,
    /// Of the frame that is read; `None`: a head is due.
    body: Option<Body>,
    /// A message's first frame has come, and not its last.
    unfinished: bool,
}

#[derive(Debug)]
struct Body {
    opcode: u8,
    left: u64,
    mask: [u8; 4],
    /// Bytes of it that have come, modulo four.
    phase: usize,
    /// What has come of a control frame.
    control: Vec<u8>,
}

impl Frames {
    /// Reads on in `data`, which is not empty; gives at most `room` bytes of payload, and unmasks
    /// them in place. Returns the bytes that are done with.
    ///
    /// # Errors
    /// What is wrong with the frame.
    pub fn next(&mut self, data: &mut [u8], room: usize) -> Result<(usize, Part), &'static str> {
        let Some(body) = &mut self.body else {
            return self.head(data);
        };
        let left = usize::try_from(body.left).unwrap_or(usize::MAX);
        let is_control = body.opcode >= CLOSE;
        let room = if is_control { left } else { left.min(room) };
        let payload = match data.split_at_mut_checked(room) {
            Some((payload, _)) => payload,
            None => data,
        };
        for (byte, mask) in payload
            .iter_mut()
            .zip(body.mask.iter().cycle().skip(body.phase))
        {
            *byte ^= mask;
        }
        let bytes = payload.len();
        body.phase = (body.phase + bytes) % 4;
        body.left -= bytes as u64;
        if is_control {
            body.control.extend_from_slice(payload);
        }
        if body.left > 0 {
            let part = if is_control {
                Part::More
            } else {
                Part::Payload(bytes)
            };
            return Ok((bytes, part));
        }
        let part = self.end();
        let part = part.unwrap_or(Part::Payload(bytes));
        Ok((bytes, part))
    }

    /// The frame is whole. Returns what a control frame means.
    fn end(&mut self) -> Option<Part> {
        let body = self.body.take()?;
        match body.opcode {
            PING => Some(Part::Ping(body.control)),
            PONG => Some(Part::More),
            CLOSE => Some(Part::Close),
            _ => None,
        }
    }

    fn head(&mut self, data: &[u8]) -> Result<(usize, Part), &'static str> {
        let mut used = 0;
        for byte in data.iter().take(HEAD_MAX) {
            self.head.push(*byte);
            used += 1;
            let Some(body) = head(&self.head)? else {
                continue;
            };
            let last = self.head.first().is_some_and(|first| first & FIN != 0);
            match body.opcode {
                CONTINUATION if !self.unfinished => return Err("continuation of nothing"),
                BINARY if self.unfinished => return Err("message within a message"),
                CONTINUATION | BINARY => self.unfinished = !last,
                _ if !last => return Err("control frame in parts"),
                _ => {}
            }
            self.head.clear();
            let is_empty = body.left == 0;
            self.body = Some(body);
            let part = if is_empty { self.end() } else { None };
            return Ok((used, part.unwrap_or(Part::More)));
        }
        Ok((used, Part::More))
    }
}

/// A head, when it is whole.
fn head(head: &[u8]) -> Result<Option<Body>, &'static str> {
    let [first, second, rest @ ..] = head else {
        return Ok(None);
    };
    let opcode = first & 0x0f;
    if first & 0x70 != 0 {
        return Err("reserved bits");
    }
    match opcode {
        CONTINUATION | BINARY | CLOSE | PING | PONG => {}
        TEXT => return Err("text frame: MQTT goes in binary ones"),
        _ => return Err("unknown opcode"),
    }
    if second & MASKED == 0 {
        return Err("frame without a mask");
    }
    let short = second & !MASKED;
    if opcode >= CLOSE && usize::from(short) > CONTROL_MAX {
        return Err("control frame too long");
    }
    let (left, rest) = match short {
        126 => match rest.split_first_chunk::<2>() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        short => (u64::from(short), rest),
    };
    let Some(mask) = rest.first_chunk::<4>() else {
        return Ok(None);
    };
    Ok(Some(Body {
        opcode,
        left,
        mask: *mask,
        phase: 0,
        control: Vec::new(),
    }))
}

/// Appends a whole frame, as servers send it: without a mask.
pub fn write(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(FIN | opcode);
    let length = payload.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => out.push(short),
        (_, Ok(medium)) => {
            out.push(126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}
