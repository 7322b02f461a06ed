//! Accepts connections: one task each, never more than allowed, and never blocked by any of them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Running, Shared, connection};
use crate::config::checked;
use crate::metrics::{Counter, Metrics};
use crate::spool::Intake;

/// Connections the kernel holds until they are accepted.
const BACKLOG: u32 = 1024;
/// How often delayed wills and sessions that expire are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Waits after an accept that failed, out of file descriptors above all.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Opens the listener and serves it until `shutdown`. The handle ends when the last connection has.
///
/// # Errors
/// The address cannot be listened on, or the routes are wrong.
pub fn spawn(
    config: &checked::Proxy,
    intake: Arc<dyn Intake>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> io::Result<Running> {
    let listener = listen(config.listen)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", config.listen)))?;
    let address = listener.local_addr()?;
    let shared = Arc::new(Shared::new(config, intake, metrics, shutdown)?);
    tracing::info!(%address, "proxy listens");
    Ok((address, tokio::spawn(accept(listener, shared))))
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

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let tasks = TaskTracker::new();
    let mut wait = BACKOFF.0;
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let accepted = tokio::select! {
            () = shared.shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
            _ = sweep.tick() => {
                shared.publish_due();
                continue;
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                wait = BACKOFF.0;
                admit(stream, peer, &shared, &tasks);
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
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

fn admit(stream: TcpStream, peer: SocketAddr, shared: &Arc<Shared>, tasks: &TaskTracker) {
    let open = usize::try_from(shared.open.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
    if open >= shared.config.max_connections {
        tracing::debug!(%peer, open, "too many connections");
        return;
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "no TCP_NODELAY");
    }
    shared.metrics.add(Counter::Connections, 1);
    let open = Open::new(shared);
    let shared = Arc::clone(shared);
    tasks.spawn(async move {
        connection::serve(stream, peer, shared).await;
        drop(open);
    });
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
