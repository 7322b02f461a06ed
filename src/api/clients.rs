//! The proxy's clients: who there is, and sending one away.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};

use super::{ApiState, error_with};

/// Where a page begins.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    after: Option<String>,
}

/// `POST /tidegate/clients/kick`: whom to send away.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kick {
    /// Its client id.
    pub client_id: String,
    /// Whether its session is to be forgotten too.
    #[serde(default)]
    pub forget: bool,
}

/// It was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kicked {
    /// Who was sent away.
    pub client_id: String,
}

pub(super) async fn list(
    State(state): State<Arc<ApiState>>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let after = wanted.after.unwrap_or_default();
    let page = state.clients.get().map(|clients| clients.page(&after));
    // Without a proxy there are no clients.
    Json(page.unwrap_or_default()).into_response()
}

pub(super) async fn kick(
    State(state): State<Arc<ApiState>>,
    Json(Kick { client_id, forget }): Json<Kick>,
) -> Response {
    let clients = state.clients.get();
    if clients.is_some_and(|clients| clients.kick(&client_id, forget)) {
        tracing::info!(client_id, forget, "sent away by hand");
        return Json(Kicked { client_id }).into_response();
    }
    let message = format!("no client {client_id:?} is connected or has a session");
    error_with(StatusCode::NOT_FOUND, &message)
}
