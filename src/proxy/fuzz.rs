//! A door for `fuzz/`: one connection over any stream.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::access::Visitor;
use super::socket::Peer;
use super::{Shared, connection};
use crate::config::checked;
use crate::metrics::Metrics;
use crate::spool::Intake;

/// Serves one connection, with a proxy of its own, from accept to close.
///
/// # Errors
/// When the routes of `config` do not compile.
pub async fn serve<S>(config: &checked::Proxy, intake: Arc<dyn Intake>, stream: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let metrics = Arc::new(Metrics::default());
    let shared = Shared::new(config, intake, metrics, CancellationToken::new())?;
    let visitor = Visitor {
        peer: Peer::Unix,
        deadline: Instant::now() + config.connect_timeout,
        certified: None,
        access: Arc::default(),
    };
    connection::serve(stream, visitor, Arc::new(shared)).await;
    Ok(())
}
