//! How a connection is secured before the first request: [`tls`] around it, [`sasl`] on it.
//!
//! Both happen inside the connect deadline. A failure of either is a connection that could not be
//! made: nothing was sent, everybody waits and tries again at the usual, bounded pace.

pub mod sasl;
pub mod tls;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use sasl::Sasl;
use tls::Tls;

/// What a cluster's listeners ask for; by default nothing (`PLAINTEXT`).
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// Encryption, and the client's certificate if it has one: `SSL`, `SASL_SSL`.
    pub tls: Option<Arc<Tls>>,
    /// Who we are: `SASL_PLAINTEXT`, `SASL_SSL`.
    pub sasl: Option<Arc<Sasl>>,
}

impl Security {
    /// Turns a fresh TCP connection to `host` (a name or an IP address, without brackets) into one
    /// that requests can be written to.
    pub(super) async fn secure(&self, tcp: TcpStream, host: &str) -> io::Result<Stream> {
        match &self.tls {
            None => Ok(Stream::Plain(tcp)),
            Some(tls) => Ok(Stream::Tls(Box::new(tls.connect(tcp, host).await?))),
        }
    }
}

/// A secured connection.
#[derive(Debug)]
pub(super) enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// Inside TLS.
    Tls(Box<tls::TlsStream>),
}

macro_rules! inner {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Plain($inner) => $call,
            Stream::Tls($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        inner!(self.get_mut(), stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        inner!(self.get_mut(), stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        inner!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        inner!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner!(self.get_mut(), stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(context))
    }
}
