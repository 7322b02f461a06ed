//! MQTT inside WebSocket (RFC 6455; MQTT 5, section 6): a stream of the payloads of binary frames.
//!
//! Of our own, for the libraries gather a whole frame before they give its first byte: devices that
//! each send half a frame as large as the largest packet would hold gigabytes, beside all that
//! bounds unfinished packets. Here a payload goes on as it comes, and a connection holds 4 KiB.
//!
//! # Invariants
//! - Frames may split packets, and packets frames; a frame may come in parts.
//! - A ping is answered, of several the last; what is no binary frame ends the connection.

mod frame;
mod handshake;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::frame::{Frames, Part};

pub use handshake::accept;

/// What is read at once.
const READ_BYTES: usize = 4 * 1024;
/// What is written as one frame.
const WRITE_BYTES: usize = 16 * 1024;

/// A stream inside WebSocket, from the server's side.
#[derive(Debug)]
pub struct WebSocket<S> {
    stream: S,
    frames: Frames,
    /// What was read; from `from` on it is to be looked at.
    read: Vec<u8>,
    from: usize,
    /// Frames that are to be written; up to `written` they are.
    out: Vec<u8>,
    written: usize,
    /// What the last ping said, until it is answered.
    ping: Option<Vec<u8>>,
    /// A close frame came.
    closed: bool,
    said_goodbye: bool,
}

impl<S> WebSocket<S> {
    /// After the handshake, which has read `rest` too.
    fn new(stream: S, rest: Vec<u8>) -> Self {
        Self {
            stream,
            frames: Frames::default(),
            read: rest,
            from: 0,
            out: Vec::new(),
            written: 0,
            ping: None,
            closed: false,
            said_goodbye: false,
        }
    }
}

fn ended(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Writes the frames that wait.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let rest = self.out.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                self.out.clear();
                self.written = 0;
                let Some(ping) = self.ping.take() else {
                    break;
                };
                frame::write(&mut self.out, frame::PONG, &ping);
                continue;
            }
            let bytes = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if bytes == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += bytes;
        }
        if self.out.capacity() > WRITE_BYTES {
            self.out = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Appends payload bytes of what was read to `to`, and sees to control frames. `false`: more
    /// must be read.
    fn take(&mut self, to: &mut ReadBuf<'_>) -> io::Result<bool> {
        while let Some(rest) = self
            .read
            .get_mut(self.from..)
            .filter(|rest| !rest.is_empty())
        {
            let (used, part) = self.frames.next(rest, to.remaining()).map_err(ended)?;
            let used_part = rest.get(..used).unwrap_or_default();
            self.from += used;
            match part {
                Part::More => {}
                Part::Payload(bytes) => {
                    let start = used.saturating_sub(bytes);
                    to.put_slice(used_part.get(start..).unwrap_or_default());
                    if bytes > 0 {
                        return Ok(true);
                    }
                }
                Part::Ping(payload) => self.ping = Some(payload),
                Part::Close => {
                    self.closed = true;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.closed || to.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let found = this.take(to)?;
            // A pong, if there is one; who does not read it is not waited for here.
            if let Poll::Ready(Err(error)) = this.poll_out(cx) {
                return Poll::Ready(Err(error));
            }
            if found {
                return Poll::Ready(Ok(()));
            }
            this.read.resize(READ_BYTES, 0);
            let mut buffer = ReadBuf::new(&mut this.read);
            let polled = Pin::new(&mut this.stream).poll_read(cx, &mut buffer);
            let bytes = buffer.filled().len();
            this.read.truncate(bytes);
            this.from = 0;
            if polled.is_pending() {
                // An idle connection holds no buffer.
                this.read = Vec::new();
            }
            ready!(polled)?;
            if bytes == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        let data = data.get(..WRITE_BYTES).unwrap_or(data);
        frame::write(&mut this.out, frame::BINARY, data);
        // The rest of it goes with the next write, or with flush.
        match this.poll_out(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(data.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.said_goodbye, true) {
            frame::write(&mut this.out, frame::CLOSE, &frame::NORMAL);
        }
        ready!(this.poll_out(cx))?;
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
