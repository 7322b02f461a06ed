//! One connection: a task that reads, hands over, acknowledges, and ends.
//!
//! It is generic over its stream, so that TLS and WebSocket need nothing here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};

use super::access::Visitor;
use super::batch::{Inbox, Progress, When};
use super::bounds::Part;
use super::buffer::ReadBuffer;
use super::handshake::{self, Entered, Refused};
use super::local::queue::Door;
use super::packet::{self, Bad, Version, reason};
use super::session::{Claim, Delayed, KeptWill, Stopped};
use super::socket::Peer;
use super::{Client, Shared};
use crate::metrics::Counter;

/// Longest time in which a client may read nothing of what is written to it.
const WRITE_MAX: Duration = Duration::from_secs(30);
/// Longest time for the last words.
const FAREWELL_MAX: Duration = Duration::from_millis(500);
/// How long a stopping proxy waits for records in flight to become safe.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// How often an idle connection is looked at.
const IDLE_CHECK: Duration = Duration::from_secs(60);
/// Turns after which it is seen that the connection is to end, however busy it is.
const BUSY_TURNS: u32 = 32;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    /// DISCONNECT, with its reason code.
    #[error("client disconnected (reason 0x{0:02x})")]
    Goodbye(u8),
    /// The stream ended or broke.
    #[error("stream ended: {0}")]
    Gone(io::Error),
    /// The client broke the protocol.
    #[error(transparent)]
    Bad(Bad),
    /// Nothing came for one and a half times the keep-alive.
    #[error("keep-alive passed")]
    Silent,
    /// Somebody has ended it.
    #[error("{0}")]
    Stopped(Stopped),
    /// The proxy stops.
    #[error("proxy stops")]
    Shutdown,
}

/// Serves one connection from accept to close.
pub async fn serve<S>(stream: S, visitor: Visitor, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    // Both in boxes: what coming in needs takes no room afterwards, and ten thousand wait for long.
    if let Some(connection) = Box::pin(let_in(stream, visitor, shared)).await {
        connection.run().await;
    }
}

async fn let_in<S>(
    mut stream: S,
    visitor: Visitor,
    shared: Arc<Shared>,
) -> Option<Box<Connection<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut part = Part::new(Arc::clone(&shared.unfinished));
    let entered = tokio::select! {
        () = shared.shutdown.cancelled() => return None,
        entered = handshake::enter(&mut stream, &visitor, &mut part, &shared) => entered,
    };
    match entered {
        Ok(entered) => {
            let connection = Connection::new((stream, visitor.peer), shared, (entered, part));
            Some(Box::new(connection))
        }
        Err(refused) => {
            tracing::debug!(peer = %visitor.peer, %refused, "client not let in");
            if matches!(refused, Refused::Bad(_)) {
                shared.metrics.add(Counter::ProtocolErrors, 1);
            }
            farewell(&mut stream, &[]).await;
            None
        }
    }
}

/// Writes the last bytes and closes; a client that does not read them is not waited for.
async fn farewell<S: AsyncWrite + Unpin>(stream: &mut S, last: &[u8]) {
    let words = async {
        stream.write_all(last).await?;
        stream.shutdown().await
    };
    if let Ok(Err(error)) = timeout(FAREWELL_MAX, words).await {
        tracing::trace!(%error, "no farewell");
    }
}

/// Writes a part of `rest`; with nothing left, what the stream itself holds back.
async fn write_some<S: AsyncWrite + Unpin>(stream: &mut S, rest: &[u8]) -> io::Result<usize> {
    if rest.is_empty() {
        return stream.flush().await.map(|()| 0);
    }
    stream.write(rest).await
}

struct Connection<S> {
    stream: S,
    peer: Peer,
    shared: Arc<Shared>,
    inbox: Inbox,
    buffer: ReadBuffer,
    part: Part,
    claim: Claim,
    will: Option<KeptWill>,
    /// One and a half times the keep-alive.
    silence_max: Option<Duration>,
    /// When the bytes in the buffer came.
    last_read: Instant,
    /// When the client was heard last, or could not be because it was held.
    heard: Instant,
    had_expiry: bool,
}

impl<S> Connection<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    fn new(
        (stream, peer): (S, Peer),
        shared: Arc<Shared>,
        (entered, part): (Entered, Part),
    ) -> Self {
        let Entered {
            connect,
            client_id,
            claim,
            pass,
            will,
            mut buffer,
        } = entered;
        buffer.shrink();
        let telling = connect.telling();
        let client = Client {
            id: Arc::clone(&claim.client_id),
            telling,
            session: Arc::clone(&claim.session),
            number: claim.number,
            pass,
            header: shared.headers.client(&client_id),
        };
        let rights = client.pass.rights(&client.id);
        let keep_alive = Duration::from_secs(u64::from(connect.keep_alive));
        let inbox = Inbox::new(Arc::clone(&shared), client);
        let receive_maximum = connect
            .receive_maximum
            .min(shared.config.max_inflight_messages);
        claim.session.outbox.attach(Door {
            number: claim.number,
            version: connect.version,
            receive_maximum: usize::from(receive_maximum),
            packet_bytes_max: telling.packet_bytes_max,
            rights,
            acks: Arc::clone(&inbox.acks),
        });
        Self {
            inbox,
            stream,
            peer,
            shared,
            buffer,
            part,
            claim,
            will,
            silence_max: (!keep_alive.is_zero()).then_some(keep_alive * 3 / 2),
            last_read: Instant::now(),
            heard: Instant::now(),
            had_expiry: connect.session_expiry > 0,
        }
    }

    async fn run(mut self: Box<Self>) {
        let end = match self.serve().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        tracing::debug!(peer = %self.peer, %end, "connection ends");
        if matches!(end, End::Bad(_)) {
            self.shared.metrics.add(Counter::ProtocolErrors, 1);
        }
        self.publish_will(&end);
        self.inbox.collect();
        let why = match end {
            End::Bad(bad) => Some((bad.reason, bad.what)),
            End::Silent => Some((reason::KEEP_ALIVE, "")),
            End::Stopped(Stopped::TakenOver) => Some((reason::TAKEN_OVER, "")),
            End::Stopped(Stopped::NotAuthorised) => {
                Some((reason::NOT_AUTHORISED, "user or password has changed"))
            }
            End::Stopped(Stopped::Kicked { .. }) => Some((reason::ADMINISTRATIVE, "")),
            End::Shutdown => Some((reason::SHUTTING_DOWN, "")),
            End::Goodbye(_) | End::Gone(_) => None,
        };
        if let Some(why) = why {
            let telling = self.inbox.client.telling;
            packet::disconnect(&mut self.inbox.out, telling, why);
        }
        self.inbox.acks.close();
        drop(self.claim);
        farewell(&mut self.stream, &self.inbox.out).await;
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        let stop = self.claim.stop.clone().cancelled_owned();
        tokio::pin!(stop);
        let timer = sleep_until(self.look_again());
        tokio::pin!(timer);
        let mut drain_until = None;
        let mut turn = 0u32;
        loop {
            turn = turn.wrapping_add(1);
            let progress = self.step().await?;
            let held = progress != Progress::Read;
            self.part
                .set(if held { 0 } else { self.buffer.data().len() });
            if drain_until.is_some() && self.inbox.acks.is_empty() {
                return Err(End::Shutdown);
            }
            let reads = !held && drain_until.is_none();
            if progress == Progress::HeldByPace && drain_until.is_none() {
                timer
                    .as_mut()
                    .reset(Instant::now() + self.inbox.pace_wait());
            }
            let mut stopped = false;
            tokio::select! {
                biased;
                () = self.shared.bounds.freed(), if progress == Progress::HeldByAll => {
                    self.heard = Instant::now();
                }
                () = self.part.cut(), if reads => return Err(End::Bad(handshake::TOO_SLOW)),
                read = self.buffer.read(&mut self.stream), if reads => match read {
                    Ok(0) => return Err(End::Gone(io::ErrorKind::UnexpectedEof.into())),
                    Ok(_) => {
                        self.last_read = Instant::now();
                        self.heard = self.last_read;
                    }
                    Err(error) => return Err(End::Gone(error)),
                },
                () = &mut timer => {
                    if held {
                        // It is we who do not listen.
                        self.heard = Instant::now();
                    }
                    if drain_until.is_some() {
                        return Err(End::Shutdown);
                    }
                    self.idle()?;
                    timer.as_mut().reset(self.look_again());
                }
                // Behind the others, for a busy subscriber has news all the time.
                () = self.inbox.acks.news.notified() => if held {
                    self.heard = Instant::now();
                },
                // Last, for each look takes a lock; while the client is busy, see below.
                () = &mut stop, if drain_until.is_none() => stopped = true,
            }
            stopped |= turn.is_multiple_of(BUSY_TURNS) && self.claim.stop.is_cancelled();
            if stopped && drain_until.is_none() {
                if !self.shared.shutdown.is_cancelled() {
                    return Err(End::Stopped(self.claim.stopped()));
                }
                let until = Instant::now() + DRAIN_MAX;
                drain_until = Some(until);
                timer.as_mut().reset(until);
            }
        }
    }

    /// Processes what was read and sends what there is to send. Returns whether a message is held,
    /// and by what.
    async fn step(&mut self) -> Result<Progress, End> {
        loop {
            let progress = self.process();
            let more = match progress {
                Err(_) | Ok(Progress::Goodbye(..)) => false,
                Ok(_) => self.inbox.deliver(),
            };
            let freed = self.inbox.collect();
            match progress {
                Err(bad) => return Err(End::Bad(bad)),
                Ok(Progress::Goodbye(code, expiry)) => return Err(self.goodbye(code, expiry)),
                Ok(progress) => {
                    self.flush().await?;
                    if more {
                        // What the client has sent is looked at in between.
                        self.inbox.acks.news.notify_one();
                        tokio::task::yield_now().await;
                    }
                    // Acknowledgements that left may have made room.
                    if progress == Progress::Read || !freed {
                        return Ok(progress);
                    }
                }
            }
        }
    }

    fn process(&mut self) -> Result<Progress, Bad> {
        if self.buffer.data().is_empty() {
            return Ok(Progress::Read);
        }
        let when = When::now(self.last_read);
        let (bytes, result) = self.inbox.process(self.buffer.data(), when);
        self.buffer.consume(bytes);
        result
    }

    fn goodbye(&mut self, code: u8, expiry: Option<u32>) -> End {
        if let Some(seconds) = expiry {
            if seconds > 0 && !self.had_expiry {
                return End::Bad(Bad::protocol("session expiry after none"));
            }
            self.claim.expiry = self.shared.sessions.granted(seconds);
        }
        End::Goodbye(code)
    }

    /// Writes all that waits in one piece.
    async fn flush(&mut self) -> Result<(), End> {
        let mut from = 0;
        let mut flushed = self.inbox.out.is_empty();
        while !flushed {
            let rest = self.inbox.out.get(from..).unwrap_or_default();
            // Made when they are needed only: nearly always it is written at once.
            let stop = async { self.claim.stop.cancelled().await };
            let too_slow = async { tokio::time::sleep(WRITE_MAX).await };
            let written = tokio::select! {
                biased;
                written = write_some(&mut self.stream, rest) => written,
                () = stop, if !self.shared.shutdown.is_cancelled() => {
                    Err(io::ErrorKind::ConnectionAborted.into())
                }
                () = too_slow => Err(io::ErrorKind::TimedOut.into()),
            };
            match written {
                Ok(_) if from == self.inbox.out.len() => flushed = true,
                Ok(0) => return Err(self.cut(io::ErrorKind::WriteZero.into())),
                Ok(bytes) => from += bytes,
                Err(error) => return Err(self.cut(error)),
            }
        }
        self.inbox.written();
        Ok(())
    }

    /// A write was cut short: nothing more can be said on this stream.
    fn cut(&mut self, error: io::Error) -> End {
        self.inbox.out.clear();
        End::Gone(error)
    }

    /// When the timer looks at the connection next.
    fn look_again(&self) -> Instant {
        let idle = Instant::now() + IDLE_CHECK;
        self.silence_max
            .map_or(idle, |max| idle.min(self.heard + max))
    }

    /// The timer's look.
    fn idle(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.silence_max.is_some_and(|max| now >= self.heard + max) {
            return Err(End::Silent);
        }
        if now >= self.heard + IDLE_CHECK / 2 {
            self.buffer.shrink();
            self.inbox.shrink();
        }
        Ok(())
    }

    /// Publishes the will, or leaves it to its delay, unless the client has taken it back. Nobody
    /// waits for it to be safe.
    fn publish_will(&mut self, end: &End) {
        let Some(will) = self.will.take() else {
            return;
        };
        let keeps_session = !self.claim.expiry.is_zero();
        let silent = match end {
            End::Goodbye(code) => {
                *code != reason::DISCONNECT_WITH_WILL
                    || self.inbox.client.telling.version == Version::V3
            }
            End::Shutdown => true,
            _ => false,
        };
        if silent {
            return;
        }
        if will.0.delay > 0 && keeps_session {
            let delay = Duration::from_secs(will.0.delay.into());
            let client = self.inbox.client.clone();
            self.claim.will = Some((delay, Box::new(Delayed { will, client })));
        } else {
            self.inbox.will(&will.0);
        }
    }
}
