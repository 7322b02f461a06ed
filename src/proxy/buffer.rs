//! A connection's read buffer: none while idle, as large as the traffic asks for, never larger
//! than what has arrived by a factor of two; a length that a packet only claims allocates nothing.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

/// Capacity of a buffer that has just got its first bytes.
const SMALL: usize = 512;
/// Largest capacity that is kept for more than one packet.
const LARGE: usize = 64 * 1024;

/// Bytes that were read and not yet consumed.
#[derive(Debug)]
pub struct ReadBuffer {
    data: Vec<u8>,
    from: usize,
    /// Room that is made for the next read.
    room: usize,
}

impl Default for ReadBuffer {
    fn default() -> Self {
        Self {
            data: Vec::new(),
            from: 0,
            room: SMALL,
        }
    }
}

impl ReadBuffer {
    /// What was read and not consumed.
    #[inline]
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.data.get(self.from..).unwrap_or_default()
    }

    /// Takes `bytes` off the front.
    #[inline]
    pub fn consume(&mut self, bytes: usize) {
        self.from = self.from.saturating_add(bytes).min(self.data.len());
        if self.from == self.data.len() {
            self.data.clear();
            self.from = 0;
            if self.data.capacity() > LARGE {
                self.data = Vec::new();
            }
        }
    }

    /// Reads once. `Ok(0)` is the end of the stream. Loses nothing when dropped before it is ready.
    ///
    /// # Errors
    /// The stream's.
    pub async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        if self.data.capacity() == 0 {
            return poll_fn(|context| self.poll_first(stream, context)).await;
        }
        if self.from > 0 {
            self.data.drain(..self.from);
            self.from = 0;
        }
        let room = self.room.max(self.data.len().min(LARGE));
        if self.data.capacity() - self.data.len() < room.div_ceil(2) {
            self.data.reserve_exact(room);
        }
        let before = self.data.capacity() - self.data.len();
        let read = stream.read_buf(&mut self.data).await?;
        if read == before {
            self.room = (self.room * 2).min(LARGE);
        }
        Ok(read)
    }

    /// Reads what makes the buffer: who waits for it has none.
    fn poll_first(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut room = [MaybeUninit::uninit(); SMALL];
        let mut room = ReadBuf::uninit(&mut room);
        ready!(Pin::new(stream).poll_read(context, &mut room))?;
        let read = room.filled();
        if !read.is_empty() {
            self.data.reserve_exact(SMALL);
            self.data.extend_from_slice(read);
        }
        if room.remaining() == 0 {
            self.room = (self.room * 2).min(LARGE);
        }
        Poll::Ready(Ok(room.filled().len()))
    }

    /// Gives memory back while the connection is idle.
    pub fn shrink(&mut self) {
        self.room = SMALL;
        if self.data.is_empty() {
            self.data = Vec::new();
        } else {
            self.data.shrink_to_fit();
        }
    }
}
