//! Accepts HTTP connections and bounds them: their number, the wait for a request's head, their
//! whole life.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::local::Peer;
use crate::log::RateLimited;

/// Most connections at once; the next wait to be accepted.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// Longest wait for a request's head, idle time between requests included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest life of a connection, so that one who never reads its answer does not hold a place for
/// ever.
const LIFE_MAX: Duration = Duration::from_secs(300);
/// Time for a running request at the end of a connection's life.
const GRACE: Duration = Duration::from_secs(2);
/// Largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Wait after a failed accept: the process is out of files, as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

static ACCEPT_FAILED: RateLimited = RateLimited::new(Duration::from_secs(10));

/// Serves until `shutdown`, then lets running requests end.
pub(super) async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let next = accept(&listener, &places);
        let (stream, peer, place) = tokio::select! {
            () = shutdown.cancelled() => break,
            next = next => match next {
                Some(next) => next,
                None => continue,
            },
        };
        let router = router.clone().layer(Extension(Peer(peer)));
        let shutdown = shutdown.clone();
        connections.spawn(async move {
            connection(stream, router, shutdown).await;
            drop(place);
        });
    }
    connections.close();
    connections.wait().await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            if let Some(held_back) = ACCEPT_FAILED.check() {
                tracing::warn!(%error, held_back, "API cannot accept connections");
            }
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(stream: TcpStream, router: Router, shutdown: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = shutdown.cancelled() => None,
        () = tokio::time::sleep(LIFE_MAX) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(GRACE, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "API connection ended");
    }
}
