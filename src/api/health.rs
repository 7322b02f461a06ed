//! `/health/live` and `/health/ready`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::ApiState;
use crate::metrics::Gauge;

/// The process works: it got here.
pub(super) async fn live(State(state): State<Arc<ApiState>>) -> Json<Value> {
    let uptime = state.started.elapsed().as_secs();
    Json(json!({
        "status": "live",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": uptime,
    }))
}

/// Whether devices can be served, and how each part is. The uplink's state is told and does not
/// count.
pub(super) async fn ready(State(state): State<Arc<ApiState>>) -> (StatusCode, Json<Value>) {
    let accepting = state.accepting.load(Ordering::Relaxed);
    let spool_open = state.spool_open.load(Ordering::Relaxed);
    let ready = accepting && spool_open;
    (state.refresh)();
    let level = |gauge| state.metrics.level(gauge);
    let body = json!({
        "status": if ready { "ready" } else { "not ready" },
        "proxy": {
            "accepting": accepting,
            "connections": level(Gauge::ConnectionsOpen),
        },
        "spool": {
            "open": spool_open,
            "full": level(Gauge::SpoolFull) != 0,
            "buffered_records": level(Gauge::BufferedRecords),
            "buffered_memory_bytes": level(Gauge::BufferedMemoryBytes),
            "buffered_disk_bytes": level(Gauge::BufferedDiskBytes),
            "buffered_age_ms": level(Gauge::BufferedAgeMs),
        },
        "uplink": {
            "up": level(Gauge::UplinkUp) != 0,
            "streams_stalled": level(Gauge::StreamsStalled),
        },
    });
    let code = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(body))
}
