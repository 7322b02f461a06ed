//! What only the machine itself may ask: it shows records, or changes what is buffered.

use std::net::{IpAddr, SocketAddr};

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
    if is_local(peer.0.ip()) {
        return next.run(request).await;
    }
    let message = "records are shown and changed over loopback only: ask on the gateway itself";
    error_with(StatusCode::FORBIDDEN, message)
}

fn is_local(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_local() {
        for (peer, local) in [
            ("127.0.0.1", true),
            ("127.8.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.7", false),
            ("::ffff:10.0.0.7", false),
            ("fe80::1", false),
        ] {
            assert_eq!(is_local(peer.parse().unwrap()), local, "{peer}");
        }
    }
}
