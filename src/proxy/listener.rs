//! Accepts connections: one task each, never more than allowed, and never blocked by any of them.
//!
//! What comes before MQTT, TLS and WebSocket, is done in the connection's task, with the same
//! deadline as its CONNECT.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hashbrown::hash_map::Entry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::{Access, Visitor};
use super::clients::Clients;
use super::socket::{Peer, Socket, Stream};
use super::sys::Sys;
use super::{Running, Shared, connection, proxy_protocol, websocket};
use crate::config::{ListenAddress, checked};
use crate::metrics::{Counter, Gauge, Metrics};
use crate::spool::Intake;
use crate::tls::identity::{NamedIn, user_of};

/// How often delayed wills, sessions that expire and changed files are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Waits after an accept that failed, out of file descriptors above all.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A listener, and the rules of those who come to it.
struct Entrance {
    listener: checked::Listener,
    access: Arc<Access>,
    shared: Arc<Shared>,
    tasks: TaskTracker,
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
        bound.push(Socket::listen(&one.address).map_err(|error| {
            let text = format!("cannot listen on {} {}: {error}", one.key, one.address);
            io::Error::new(error.kind(), text)
        })?);
    }
    let addresses = bound.iter().map(Socket::address);
    let addresses = addresses.collect::<io::Result<Vec<ListenAddress>>>()?;
    let shared = Arc::new(Shared::new(config, intake, metrics, shutdown)?);
    let tasks = TaskTracker::new();
    let mut accesses = Vec::new();
    for ((socket, address), config) in bound.into_iter().zip(&addresses).zip(&config.listeners) {
        let (tls, websocket) = (config.tls.is_some(), config.websocket);
        tracing::info!(%address, tls, websocket, "proxy listens");
        let entrance = Entrance {
            listener: config.clone(),
            access: Arc::new(Access::of(config)),
            shared: Arc::clone(&shared),
            tasks: tasks.clone(),
        };
        accesses.push(Arc::clone(&entrance.access));
        tasks.spawn(accept(socket, Arc::new(entrance)));
    }
    let clients = Clients(Arc::clone(&shared.sessions));
    let task = tokio::spawn(sweep(shared, accesses, tasks, reload));
    Ok(Running {
        addresses,
        task,
        clients,
    })
}

/// Sees to what is due by the clock, until the last connection has ended.
async fn sweep(
    shared: Arc<Shared>,
    accesses: Vec<Arc<Access>>,
    tasks: TaskTracker,
    reload: Arc<Notify>,
) {
    let mut sys = Sys::begin();
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let always = tokio::select! {
            () = shared.shutdown.cancelled() => break,
            _ = sweep.tick() => false,
            () = reload.notified() => true,
        };
        shared.publish_due();
        sys.tell(&shared);
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

async fn accept(socket: Socket, entrance: Arc<Entrance>) {
    let shutdown = &entrance.shared.shutdown;
    let mut wait = BACKOFF.0;
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                wait = BACKOFF.0;
                entrance.admit(stream, peer);
            }
            Err(error) => {
                tracing::warn!(%error, wait_ms = wait.as_millis(), "cannot accept");
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = tokio::time::sleep(wait) => {}
                }
                wait = (wait * 2).min(BACKOFF.1);
            }
        }
    }
}

impl Entrance {
    fn admit(self: &Arc<Self>, mut stream: Stream, peer: Peer) {
        let shared = &self.shared;
        let open = usize::try_from(shared.open.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        if open >= shared.config.max_connections {
            tracing::debug!(%peer, open, "too many connections");
            return;
        }
        let open = Open::new(shared);
        let mut visitor = Visitor {
            peer,
            deadline: Instant::now() + shared.config.connect_timeout,
            certified: None,
            access: Arc::clone(&self.access),
        };
        if !self.listener.proxy_protocol {
            self.serve(stream, visitor, open);
            return;
        }
        let entrance = Arc::clone(self);
        self.tasks.spawn(async move {
            let header = proxy_protocol::read(&mut stream, peer);
            let read = in_time(header, ("PROXY", &visitor), &entrance.shared).await;
            if let Some(peer) = read {
                visitor.peer = peer;
                entrance.serve(stream, visitor, open);
            }
        });
    }

    /// Serves the connection in a task, if its address has not too many already.
    fn serve(&self, stream: Stream, mut visitor: Visitor, mut open: Open) {
        if !open.is_of(visitor.peer.ip()) {
            tracing::debug!(peer = %visitor.peer, "too many connections of its address");
            self.shared.metrics.add(Counter::CrowdedOut, 1);
            return;
        }
        self.shared.metrics.add(Counter::Connections, 1);
        let (websocket, named_in) = (self.listener.websocket, self.listener.certificate_user);
        let tls = self.listener.tls.as_ref().map(|tls| tls.config());
        let shared = Arc::clone(&self.shared);
        // Tasks of their own kind, so that a plain connection has no room for what TLS needs.
        match tls {
            None if websocket => self.tasks.spawn(async move {
                unwrap_websocket(stream, visitor, shared).await;
                drop(open);
            }),
            None => self.tasks.spawn(async move {
                connection::serve(stream, visitor, shared).await;
                drop(open);
            }),
            Some(config) => self.tasks.spawn(async move {
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
}

/// A TLS handshake, and the user that the client's certificate names, where that is asked for.
async fn certified(
    handshake: tokio_rustls::Accept<Stream>,
    named_in: Option<NamedIn>,
) -> io::Result<(TlsStream<Stream>, Option<Arc<str>>)> {
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
struct Open {
    shared: Arc<Shared>,
    /// The address that it is counted for, too; never loopback.
    address: Option<IpAddr>,
}

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.count_open(true);
        Self {
            shared: Arc::clone(shared),
            address: None,
        }
    }

    /// Counts it for its address. `false`: that has as many as it may.
    fn is_of(&mut self, address: IpAddr) -> bool {
        if address.is_loopback() {
            return true;
        }
        let mut all = self.shared.addresses.lock();
        let open = all.entry(address).or_insert(0);
        if *open >= self.shared.config.max_connections_per_address {
            return false;
        }
        *open += 1;
        self.address = Some(address);
        true
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.count_open(false);
        let Some(address) = self.address else {
            return;
        };
        if let Entry::Occupied(mut open) = self.shared.addresses.lock().entry(address) {
            *open.get_mut() = open.get().saturating_sub(1);
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}
