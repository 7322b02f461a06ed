//! Accepts connections: one task each, never more than allowed, and never blocked by any of them.
//!
//! What comes before MQTT, TLS and WebSocket, is done in the connection's task, with the same
//! deadline as its CONNECT.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, MissedTickBehavior, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::{Access, Visitor};
use super::{Running, Shared, connection, websocket};
use crate::config::checked;
use crate::metrics::{Counter, Gauge, Metrics};
use crate::spool::Intake;

/// Connections the kernel holds until they are accepted.
const BACKLOG: u32 = 1024;
/// How often delayed wills, sessions that expire and changed certificates are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Waits after an accept that failed, out of file descriptors above all.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A listener, and the rules of those who come to it.
struct Entrance {
    listener: checked::Listener,
    access: Arc<Access>,
}

/// Opens the listeners and serves them until `shutdown`. The handle ends when the last connection
/// has.
///
/// # Errors
/// An address cannot be listened on, or the routes are wrong.
pub fn spawn(
    config: &checked::Proxy,
    intake: Arc<dyn Intake>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> io::Result<Running> {
    let mut bound = Vec::new();
    for one in &config.listeners {
        bound.push(listen(one.address).map_err(|error| {
            let text = format!("cannot listen on {} {}: {error}", one.key, one.address);
            io::Error::new(error.kind(), text)
        })?);
    }
    let addresses = bound.iter().map(TcpListener::local_addr);
    let addresses = addresses.collect::<io::Result<Vec<SocketAddr>>>()?;
    let shared = Arc::new(Shared::new(config, intake, metrics, shutdown)?);
    let tasks = TaskTracker::new();
    for (listener, config) in bound.into_iter().zip(&config.listeners) {
        if let Ok(address) = listener.local_addr() {
            let (tls, websocket) = (config.tls.is_some(), config.websocket);
            tracing::info!(%address, tls, websocket, "proxy listens");
        }
        let entrance = Entrance {
            listener: config.clone(),
            access: Arc::default(),
        };
        tasks.spawn(accept(
            listener,
            entrance,
            Arc::clone(&shared),
            tasks.clone(),
        ));
    }
    Ok((addresses, tokio::spawn(sweep(shared, tasks))))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Sees to what is due by the clock, until the last connection has ended.
async fn sweep(shared: Arc<Shared>, tasks: TaskTracker) {
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => break,
            _ = sweep.tick() => {
                shared.publish_due();
                look_at_certificates(&shared);
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

fn look_at_certificates(shared: &Shared) {
    let all = shared.config.listeners.iter();
    let ends = all.filter_map(|listener| {
        let tls = listener.tls.as_ref()?;
        tls.refresh();
        Some(tls.not_after_ms())
    });
    if let Some(first) = ends.min() {
        shared.metrics.set(Gauge::CertificateEndsMs, first);
    }
}

async fn accept(
    listener: TcpListener,
    entrance: Entrance,
    shared: Arc<Shared>,
    tasks: TaskTracker,
) {
    let mut wait = BACKOFF.0;
    loop {
        let accepted = tokio::select! {
            () = shared.shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                wait = BACKOFF.0;
                admit(stream, (peer, &entrance), &shared, &tasks);
            }
            Err(error) => {
                tracing::warn!(%error, wait_ms = wait.as_millis(), "cannot accept");
                tokio::select! {
                    () = shared.shutdown.cancelled() => break,
                    () = tokio::time::sleep(wait) => {}
                }
                wait = (wait * 2).min(BACKOFF.1);
            }
        }
    }
}

fn admit(
    stream: TcpStream,
    (peer, entrance): (SocketAddr, &Entrance),
    shared: &Arc<Shared>,
    tasks: &TaskTracker,
) {
    let open = usize::try_from(shared.open.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
    if open >= shared.config.max_connections {
        tracing::debug!(%peer, open, "too many connections");
        return;
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "no TCP_NODELAY");
    }
    shared.metrics.add(Counter::Connections, 1);
    let visitor = Visitor {
        peer,
        deadline: Instant::now() + shared.config.connect_timeout,
        access: Arc::clone(&entrance.access),
    };
    let open = Open::new(shared);
    let websocket = entrance.listener.websocket;
    let tls = entrance.listener.tls.as_ref().map(|tls| tls.config());
    let shared = Arc::clone(shared);
    // Tasks of their own kind, so that a plain connection has no room for what TLS needs.
    match tls {
        None if websocket => tasks.spawn(async move {
            unwrap_websocket(stream, visitor, shared).await;
            drop(open);
        }),
        None => tasks.spawn(async move {
            connection::serve(stream, visitor, shared).await;
            drop(open);
        }),
        Some(config) => tasks.spawn(async move {
            let handshake = TlsAcceptor::from(config).accept(stream);
            match in_time(handshake, ("TLS", &visitor), &shared).await {
                Some(stream) if websocket => unwrap_websocket(stream, visitor, shared).await,
                Some(stream) => connection::serve(stream, visitor, shared).await,
                None => {}
            }
            drop(open);
        }),
    };
}

async fn unwrap_websocket<S>(stream: S, visitor: Visitor, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let handshake = websocket::accept(stream);
    if let Some(stream) = in_time(handshake, ("WebSocket", &visitor), &shared).await {
        connection::serve(stream, visitor, shared).await;
    }
}

/// What a handshake brought; `None`: it failed, or was too slow.
async fn in_time<T>(
    handshake: impl Future<Output = io::Result<T>>,
    (what, visitor): (&'static str, &Visitor),
    shared: &Shared,
) -> Option<T> {
    let done = tokio::select! {
        () = shared.shutdown.cancelled() => return None,
        done = timeout_at(visitor.deadline, handshake) => done,
    };
    let why = match done {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "too slow".to_owned(),
    };
    tracing::debug!(peer = %visitor.peer, what, why, "handshake failed");
    shared.metrics.add(Counter::HandshakesFailed, 1);
    None
}

/// Counts a connection for as long as it lives.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.count_open(true);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.count_open(false);
    }
}
