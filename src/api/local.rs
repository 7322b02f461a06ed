//! What only the machine itself may ask: it shows records, or changes what is buffered.

use std::net::SocketAddr;

use axum::extract::{Extension, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;

use super::error_with;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub SocketAddr);

/// Lets through who comes over loopback. The API asks for no credentials, so nobody else may read
/// or drop records.
pub(super) async fn only(
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if peer.0.ip().to_canonical().is_loopback() {
        return next.run(request).await;
    }
    let message = "records are shown and changed over loopback only: ask on the gateway itself";
    error_with(StatusCode::FORBIDDEN, message)
}
