//! Accepts connections: one task each, never more than allowed, and never blocked by any of them.
//!
//! What comes before MQTT, TLS and WebSocket, is done in the connection's task, with the same
//! deadline as its CONNECT.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hashbrown::hash_map::Entry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::{Access, Visitor};
use super::{Running, Shared, connection, websocket};
use crate::config::checked;
use crate::metrics::{Counter, Gauge, Metrics};
use crate::spool::Intake;
use crate::tls::identity::{NamedIn, user_of};

/// Connections the kernel holds until they are accepted.
const BACKLOG: u32 = 1024;
/// How often delayed wills, sessions that expire and changed files are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Waits after an accept that failed, out of file descriptors above all.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A listener, and the rules of those who come to it.
struct Entrance {
    listener: checked::Listener,
    access: Arc<Access>,
}

/// Opens the listeners and serves them until `shutdown`. The handle ends when the last connection
/// has. Certificates and rules are read again when `reload` is notified, too.
///
/// # Errors
/// An address cannot be listened on, or the routes are wrong.
pub fn spawn(
    config: &checked::Proxy,
    intake: Arc<dyn Intake>,
    metrics: Arc<Metrics>,
    (shutdown, reload): (CancellationToken, Arc<Notify>),
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
    let mut accesses = Vec::new();
    for (listener, config) in bound.into_iter().zip(&config.listeners) {
        if let Ok(address) = listener.local_addr() {
            let (tls, websocket) = (config.tls.is_some(), config.websocket);
            tracing::info!(%address, tls, websocket, "proxy listens");
        }
        let entrance = Entrance {
            listener: config.clone(),
            access: Arc::new(Access::of(config)),
        };
        accesses.push(Arc::clone(&entrance.access));
        tasks.spawn(accept(
            listener,
            entrance,
            Arc::clone(&shared),
            tasks.clone(),
        ));
    }
    let sweep = sweep(shared, accesses, tasks, reload);
    Ok((addresses, tokio::spawn(sweep)))
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
async fn sweep(
    shared: Arc<Shared>,
    accesses: Vec<Arc<Access>>,
    tasks: TaskTracker,
    reload: Arc<Notify>,
) {
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let always = tokio::select! {
            () = shared.shutdown.cancelled() => break,
            _ = sweep.tick() => false,
            () = reload.notified() => true,
        };
        shared.publish_due();
        look_at_certificates(&shared);
        let read = accesses.iter().map(|access| access.refresh(always));
        if read.fold(false, |any, read| any | read) {
            shared.sessions.look_at_passes();
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
    let Some(open) = Open::new(shared, peer.ip()) else {
        tracing::debug!(%peer, "too many connections of its address");
        shared.metrics.add(Counter::CrowdedOut, 1);
        return;
    };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "no TCP_NODELAY");
    }
    shared.metrics.add(Counter::Connections, 1);
    let mut visitor = Visitor {
        peer,
        deadline: Instant::now() + shared.config.connect_timeout,
        certified: None,
        access: Arc::clone(&entrance.access),
    };
    let (websocket, named_in) = (
        entrance.listener.websocket,
        entrance.listener.certificate_user,
    );
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
            let handshake = certified(handshake, named_in);
            if let Some((stream, user)) = in_time(handshake, ("TLS", &visitor), &shared).await {
                visitor.certified = user;
                match websocket {
                    true => unwrap_websocket(stream, visitor, shared).await,
                    false => connection::serve(stream, visitor, shared).await,
                }
            }
            drop(open);
        }),
    };
}

/// A TLS handshake, and the user that the client's certificate names, where that is asked for.
async fn certified(
    handshake: tokio_rustls::Accept<TcpStream>,
    named_in: Option<NamedIn>,
) -> io::Result<(TlsStream<TcpStream>, Option<Arc<str>>)> {
    let stream = handshake.await?;
    let Some(named_in) = named_in else {
        return Ok((stream, None));
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let user = certificates.and_then(|all| user_of(all.first()?, named_in));
    let user = user.ok_or_else(|| {
        let text = format!("the client's certificate has no name in its {named_in}");
        io::Error::new(io::ErrorKind::PermissionDenied, text)
    })?;
    Ok((stream, Some(user.into())))
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
struct Open(Arc<Shared>, IpAddr);

impl Open {
    /// `None`: the address has as many as it may.
    fn new(shared: &Arc<Shared>, from: IpAddr) -> Option<Self> {
        let from = from.to_canonical();
        if !from.is_loopback() {
            let mut addresses = shared.addresses.lock();
            let open = addresses.entry(from).or_insert(0);
            if *open >= shared.config.max_connections_per_address {
                return None;
            }
            *open += 1;
        }
        shared.count_open(true);
        Some(Self(Arc::clone(shared), from))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Self(shared, from) = self;
        shared.count_open(false);
        if from.is_loopback() {
            return;
        }
        if let Entry::Occupied(mut open) = shared.addresses.lock().entry(*from) {
            *open.get_mut() = open.get().saturating_sub(1);
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}
