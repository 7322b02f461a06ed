//! Health, metrics and what tools ask, over HTTP. The Kafka Connect REST API will live beside them.
//!
//! | path | answer |
//! |---|---|
//! | `GET /health/live` | 200 while the process works |
//! | `GET /health/ready` | 200 when devices are accepted and the spool is open, or 503 |
//! | `GET /metrics` | Prometheus text |
//! | `GET /tidegate/status` | [`Status`] |
//! | `GET /tidegate/streams` | streams: [`crate::spool::inspect::StreamInfo`] |
//! | `GET /tidegate/ranges?topic=&partition=` | what is left of one, number by number |
//! | `GET /tidegate/records` | records that wait, in pages; `?topic=&partition=`: of one stream |
//! | `GET /tidegate/check` | reads every frame, in pages |
//! | `GET /tidegate/ledger` | the loss ledger, in pages; `?topic=`: of one topic |
//! | `GET /tidegate/quarantine`, `…/quarantine/ID` | what Kafka rejected, in pages; one record |
//! | `GET /tidegate/clients` | MQTT clients, in pages: [`crate::proxy::clients::ClientInfo`] |
//! | `POST /tidegate/clients/kick` | sends one away: [`Kick`] |
//! | `POST /tidegate/drop` | [`Drop`]s records that wait |
//! | `POST /tidegate/quarantine/drop`, `…/retry` | takes [`Ids`] out of quarantine |
//!
//! The next page begins at `?after=`. Below `/tidegate`, all but the status is for clients on
//! loopback only (`local`).
//!
//! An outage of Kafka is *not* unready: the gateway is made for it, and a restart would help
//! nobody. All other answers are JSON as Connect's are: `{"error_code": 404, "message": "…"}`.

mod buffer;
mod by_hand;
mod clients;
mod health;
mod listening;
mod local;
mod server;
mod status;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::checked;
use crate::metrics::{self, Metrics};
use crate::proxy::clients::Clients;
use crate::spool::core::Spool;

pub use by_hand::{Done, Drop, Ids};
pub use clients::{Kick, Kicked};
pub use listening::{LISTENING, Listening, write_listening};
pub use status::Status;

/// Largest request body that a handler reads.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What the answers are made from; the parts of the gateway set it.
pub struct ApiState {
    metrics: Arc<Metrics>,
    /// Brings gauges up to date that are counted only when somebody asks.
    refresh: Box<dyn Fn() + Send + Sync>,
    /// Answers tools.
    spool: OnceLock<Spool>,
    clients: OnceLock<Clients>,
    started: Instant,
    accepting: AtomicBool,
    spool_open: AtomicBool,
}

impl ApiState {
    /// Nothing is ready yet. `refresh` is called before each answer that has figures.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, refresh: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            metrics,
            refresh: Box::new(refresh),
            spool: OnceLock::new(),
            clients: OnceLock::new(),
            started: Instant::now(),
            accepting: AtomicBool::new(false),
            spool_open: AtomicBool::new(false),
        }
    }

    /// Who answers tools; the first word holds.
    pub fn set_spool(&self, spool: Spool) {
        drop(self.spool.set(spool));
    }

    /// Who knows the clients; the first word holds.
    pub fn set_clients(&self, clients: Clients) {
        drop(self.clients.set(clients));
    }

    /// Whether devices are accepted. Without `[proxy]` there is nothing to wait for: say `true`.
    pub fn set_accepting(&self, accepting: bool) {
        self.accepting.store(accepting, Ordering::Relaxed);
    }

    /// Whether the spool is open.
    pub fn set_spool_open(&self, open: bool) {
        self.spool_open.store(open, Ordering::Relaxed);
    }
}

/// Starts the HTTP server; it ends soon after `shutdown`.
///
/// # Errors
/// The address cannot be bound.
pub async fn spawn(
    config: &checked::Api,
    state: Arc<ApiState>,
    shutdown: CancellationToken,
) -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(config.listen).await?;
    let address = listener.local_addr()?;
    let task = tokio::spawn(server::serve(listener, router(state), shutdown));
    Ok((address, task))
}

fn router(state: Arc<ApiState>) -> Router {
    let local = Router::new()
        .route("/tidegate/streams", get(buffer::streams))
        .route("/tidegate/ranges", get(buffer::ranges))
        .route("/tidegate/records", get(buffer::records))
        .route("/tidegate/check", get(buffer::check))
        .route("/tidegate/ledger", get(buffer::ledger))
        .route("/tidegate/quarantine", get(buffer::quarantine))
        .route("/tidegate/quarantine/{id}", get(buffer::quarantined))
        .route("/tidegate/clients", get(clients::list))
        .route("/tidegate/clients/kick", post(clients::kick))
        .route("/tidegate/drop", post(by_hand::drop_range))
        .route("/tidegate/quarantine/drop", post(by_hand::quarantine_drop))
        .route(
            "/tidegate/quarantine/retry",
            post(by_hand::quarantine_retry),
        )
        .route_layer(middleware::from_fn(local::only));
    Router::new()
        .merge(local)
        .route("/tidegate/status", get(status::status))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(figures))
        .fallback(async || error(StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(async || error(StatusCode::METHOD_NOT_ALLOWED))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(state)
}

async fn figures(State(state): State<Arc<ApiState>>) -> Response {
    (state.refresh)();
    let kind = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    (kind, state.metrics.render()).into_response()
}

/// An error as Connect tells it.
fn error(code: StatusCode) -> Response {
    let message = format!(
        "HTTP {} {}",
        code.as_u16(),
        code.canonical_reason().unwrap_or("")
    );
    error_with(code, message.trim_end())
}

/// The same, with words of our own.
fn error_with(code: StatusCode, message: &str) -> Response {
    let body = serde_json::json!({ "error_code": code.as_u16(), "message": message });
    (code, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests;
