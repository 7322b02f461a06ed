//! One connection to one broker: requests go out in order and may overlap, answers come back in
//! order.
//!
//! Two tasks own the halves of the stream. The writer takes requests from a bounded queue, notes
//! who waits for the answer, and writes what has gathered with one vectored write. The reader gives
//! each answer to the longest waiting.
//!
//! # Invariants
//! - Who waits is noted in the order of the bytes on the wire, before the bytes are written.
//! - Who waits longest is answered within `request_timeout` of its own writing or of the answer
//!   before it.
//! - Any doubt (an error, a deadline, a length out of bounds, a foreign correlation id, an answer
//!   that does not parse) closes the connection for good; everyone who waits gets the reason.
//! - Dropping a call's future leaves the connection whole: its answer is read and thrown away.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::Error;
use super::security::Stream;

/// Requests that wait for the writer.
const QUEUE_MAX: usize = 16;
/// Longest that a broker is believed to mute a connection; by default its quota windows, and so
/// what it asks for, are eleven seconds.
const MUTED_MAX: Duration = Duration::from_secs(60);
/// Requests written and not answered.
const IN_FLIGHT_MAX: usize = 64;
/// Bytes after which no more requests are gathered for one write.
const GATHER_BYTES: usize = 256 * 1024;
/// Pieces of one vectored write (`IOV_MAX` is 1024).
const PIECES_MAX: usize = 128;
/// How a TLS listener answers those who speak plainly: an alert of TLS 1.
const TLS_ALERT: [u8; 2] = [0x15, 0x03];

/// A request, whole: length, header and body in pieces.
struct Outgoing {
    correlation_id: i32,
    pieces: Vec<Bytes>,
    answer: oneshot::Sender<Result<Bytes, Error>>,
}

struct Waiter {
    correlation_id: i32,
    deadline: Instant,
    answer: oneshot::Sender<Result<Bytes, Error>>,
    _permit: OwnedSemaphorePermit,
}

/// Why a connection is closed.
#[derive(Clone, Debug)]
enum End {
    Io(ErrorKind, String),
    Malformed(String),
}

/// A connection's handle; the last one dropped closes it.
#[derive(Debug)]
pub(super) struct Connection {
    queue: mpsc::Sender<Outgoing>,
    shared: Arc<Shared>,
    next_id: AtomicI32,
    client_id: StrBytes,
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outgoing({})", self.correlation_id)
    }
}

struct Shared {
    address: Arc<str>,
    request_timeout: Duration,
    state: Mutex<State>,
    /// Told when a waiter comes to an empty line.
    waiting: Notify,
    closed: CancellationToken,
}

#[derive(Default)]
struct State {
    in_flight: VecDeque<Waiter>,
    /// Until when the broker reads nothing of this connection, as it has said.
    muted_until: Option<Instant>,
    end: Option<End>,
}

impl State {
    /// Of a request that is the next to be answered.
    fn deadline(&self, request_timeout: Duration) -> Instant {
        let now = Instant::now();
        self.muted_until.map_or(now, |until| until.max(now)) + request_timeout
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({})", self.address)
    }
}

/// What a connection is told when it is made.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    pub client_id: StrBytes,
    pub request_timeout: Duration,
    pub response_bytes_max: usize,
}

impl Connection {
    /// The broker has said that it reads nothing of this connection for so long (KIP-219): who
    /// waits for an answer waits so much longer.
    pub(super) fn muted(&self, long: Duration) {
        let mut state = self.shared.state.lock();
        state.muted_until = Some(Instant::now() + long.min(MUTED_MAX));
        let deadline = state.deadline(self.shared.request_timeout);
        if let Some(oldest) = state.in_flight.front_mut() {
            oldest.deadline = deadline;
        }
    }

    /// Starts the tasks of a secured stream.
    pub(super) fn start(stream: Stream, address: Arc<str>, manner: &Manner) -> Self {
        let (read, write) = tokio::io::split(stream);
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let shared = Arc::new(Shared {
            address,
            request_timeout: manner.request_timeout,
            state: Mutex::default(),
            waiting: Notify::new(),
            closed: CancellationToken::new(),
        });
        tokio::spawn(write_all_requests(write, requests, Arc::clone(&shared)));
        tokio::spawn(read_answers(
            read,
            Arc::clone(&shared),
            manner.response_bytes_max,
        ));
        Self {
            queue,
            shared,
            next_id: AtomicI32::new(1),
            client_id: manner.client_id.clone(),
        }
    }

    pub(super) fn address(&self) -> &Arc<str> {
        &self.shared.address
    }

    pub(super) fn client_id(&self) -> &StrBytes {
        &self.client_id
    }

    pub(super) fn is_closed(&self) -> bool {
        self.shared.closed.is_cancelled()
    }

    /// A correlation id for the next request.
    pub(super) fn next_id(&self) -> i32 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a request that carries `correlation_id`; the answer begins with its header.
    /// [`Error::Connect`] when surely nothing was sent.
    pub(super) async fn send(
        &self,
        correlation_id: i32,
        pieces: Vec<Bytes>,
    ) -> Result<Bytes, Error> {
        let (answer, answered) = oneshot::channel();
        let request = Outgoing {
            correlation_id,
            pieces,
            answer,
        };
        if self.queue.send(request).await.is_err() {
            return Err(Error::Connect {
                address: self.address().to_string(),
                source: ErrorKind::NotConnected.into(),
            });
        }
        answered.await.unwrap_or_else(|_| Err(self.shared.error()))
    }

    /// Closes the connection: everyone who waits gets [`Error::Lost`].
    pub(super) fn close(&self, why: &str) {
        self.shared
            .fail(End::Io(ErrorKind::ConnectionAborted, why.into()));
    }

    /// Closes the connection because of an answer that makes no sense, and gives the error for it.
    pub(super) fn malformed(&self, what: impl Into<String>) -> Error {
        let end = End::Malformed(what.into());
        self.shared.fail(end.clone());
        end.error(&self.shared.address)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close("closed by us");
    }
}

impl End {
    fn error(&self, address: &str) -> Error {
        let address = address.to_owned();
        match self {
            Self::Io(kind, text) => Error::Lost {
                address,
                source: io::Error::new(*kind, text.clone()),
            },
            Self::Malformed(what) => Error::Malformed {
                address,
                what: what.clone(),
            },
        }
    }
}

impl Shared {
    /// Closes the connection for good. The first reason stands.
    fn fail(&self, end: End) {
        let waiters = {
            let mut state = self.state.lock();
            if state.end.is_none() {
                state.end = Some(end);
            }
            std::mem::take(&mut state.in_flight)
        };
        self.closed.cancel();
        for waiter in waiters {
            drop(waiter.answer.send(Err(self.error())));
        }
    }

    fn error(&self) -> Error {
        let end = self.state.lock().end.clone();
        end.unwrap_or(End::Io(ErrorKind::ConnectionAborted, "closed".into()))
            .error(&self.address)
    }

    /// Notes who waits for the answer to what is written next.
    fn wait_for(&self, request: &mut Option<Waiter>) {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return;
        }
        if let Some(waiter) = request.take() {
            state.in_flight.push_back(waiter);
        }
        if state.in_flight.len() == 1 {
            self.waiting.notify_one();
        }
    }

    /// Returns when the longest waiting has waited too long. Wakes about once a `request_timeout`.
    async fn overdue(&self) {
        loop {
            let oldest = self.state.lock().in_flight.front().map(|w| w.deadline);
            match oldest {
                None => self.waiting.notified().await,
                Some(deadline) if deadline <= Instant::now() => return,
                Some(deadline) => tokio::time::sleep_until(deadline).await,
            }
        }
    }

    /// Gives a frame to the longest waiting.
    fn answer(&self, frame: Bytes) -> Result<(), End> {
        let foreign = || End::Malformed("a correlation id that was not asked for".into());
        let id = frame.first_chunk::<4>().map(|id| i32::from_be_bytes(*id));
        let waiter = {
            let mut state = self.state.lock();
            if state.in_flight.front().map(|w| w.correlation_id) != id {
                return Err(foreign());
            }
            let answered = state.in_flight.pop_front().ok_or_else(foreign)?;
            // A broker answers one request of a connection at a time: the next one's time begins.
            let deadline = state.deadline(self.request_timeout);
            if let Some(next) = state.in_flight.front_mut() {
                next.deadline = deadline;
            }
            answered
        };
        // Whoever asked may have gone; the answer was theirs all the same.
        drop(waiter.answer.send(Ok(frame)));
        Ok(())
    }
}

async fn write_all_requests(
    mut write: WriteHalf<Stream>,
    mut requests: mpsc::Receiver<Outgoing>,
    shared: Arc<Shared>,
) {
    let closed = shared.closed.clone();
    let work = async {
        let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let mut pieces = VecDeque::new();
        while let Some(first) = requests.recv().await {
            let mut gathered = enlist(first, &permits, &shared, &mut pieces).await;
            while gathered < GATHER_BYTES
                && permits.available_permits() > 0
                && let Ok(more) = requests.try_recv()
            {
                gathered += enlist(more, &permits, &shared, &mut pieces).await;
            }
            write_pieces(&mut write, &mut pieces).await?;
        }
        Ok::<(), io::Error>(())
    };
    let end = tokio::select! {
        end = work => end,
        () = closed.cancelled() => Ok(()),
    };
    match end {
        Ok(()) => shared.fail(End::Io(ErrorKind::ConnectionAborted, "closed by us".into())),
        Err(error) => shared.fail(End::Io(error.kind(), error.to_string())),
    }
    // Not waited for: a peer that does not read must not keep this task.
    drop(tokio::time::timeout(Duration::from_millis(100), write.shutdown()).await);
}

/// Takes a request in line for writing; returns its bytes, 0 when nobody waits for it any more.
async fn enlist(
    request: Outgoing,
    permits: &Arc<Semaphore>,
    shared: &Shared,
    pieces: &mut VecDeque<Bytes>,
) -> usize {
    let Ok(permit) = Arc::clone(permits).acquire_owned().await else {
        return 0; // never: the semaphore is not closed
    };
    if request.answer.is_closed() {
        return 0;
    }
    let mut waiter = Some(Waiter {
        correlation_id: request.correlation_id,
        deadline: shared.state.lock().deadline(shared.request_timeout),
        answer: request.answer,
        _permit: permit,
    });
    shared.wait_for(&mut waiter);
    if waiter.is_some() {
        return 0; // closed meanwhile; dropping the waiter tells
    }
    let bytes = request.pieces.iter().map(Bytes::len).sum();
    pieces.extend(request.pieces.into_iter().filter(|piece| !piece.is_empty()));
    bytes
}

/// Writes and drops all pieces.
async fn write_pieces(
    write: &mut WriteHalf<Stream>,
    pieces: &mut VecDeque<Bytes>,
) -> io::Result<()> {
    while !pieces.is_empty() {
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces.iter()) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        let slices = slices.get(..count).unwrap_or_default();
        let mut written = write.write_vectored(slices).await?;
        if written == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        while let Some(front) = pieces.front_mut() {
            if written < front.len() {
                front.advance(written);
                break;
            }
            written -= front.len();
            pieces.pop_front();
        }
    }
    write.flush().await
}

async fn read_answers(read: ReadHalf<Stream>, shared: Arc<Shared>, bytes_max: usize) {
    let late = || {
        End::Io(
            ErrorKind::TimedOut,
            "no answer within the request timeout".into(),
        )
    };
    tokio::select! {
        end = read_frames(read, &shared, bytes_max) => shared.fail(end),
        () = shared.overdue() => shared.fail(late()),
        () = shared.closed.cancelled() => {}
    }
}

/// Reads until something is wrong.
async fn read_frames(mut read: ReadHalf<Stream>, shared: &Shared, bytes_max: usize) -> End {
    let mut buffer = BytesMut::new();
    loop {
        let missing = match take_frame(&mut buffer, bytes_max) {
            Ok(Ok(frame)) => {
                if let Err(end) = shared.answer(frame) {
                    return end;
                }
                if buffer.is_empty() {
                    buffer = BytesMut::new(); // gives back the room of a large answer
                }
                continue;
            }
            Ok(Err(missing)) => missing,
            Err(end) => return end,
        };
        buffer.reserve(missing.max(4096));
        match read.read_buf(&mut buffer).await {
            Ok(0) => return End::Io(ErrorKind::UnexpectedEof, "closed by the broker".into()),
            Ok(_) => {}
            Err(error) => return End::Io(error.kind(), error.to_string()),
        }
    }
}

/// The first frame without its length, or how many bytes it lacks.
fn take_frame(buffer: &mut BytesMut, bytes_max: usize) -> Result<Result<Bytes, usize>, End> {
    let Some(length) = buffer.first_chunk::<4>() else {
        return Ok(Err(4));
    };
    if length.starts_with(&TLS_ALERT) {
        return Err(End::Malformed("TLS: this listener asks for it".into()));
    }
    let length = i32::from_be_bytes(*length);
    let length = usize::try_from(length)
        .ok()
        .filter(|length| (4..=bytes_max).contains(length))
        .ok_or_else(|| {
            End::Malformed(format!(
                "an answer of {length} bytes (at most {bytes_max} are read)"
            ))
        })?;
    if buffer.len() < 4 + length {
        return Ok(Err(4 + length - buffer.len()));
    }
    buffer.advance(4);
    Ok(Ok(buffer.split_to(length).freeze()))
}

#[cfg(test)]
mod tests;
