//! The open connections: at most two a broker ([`Road`]), opened when first needed, and again after
//! they broke. Whoever needs a connection that is being opened waits for it and shares its failure.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::client::{ClientConfig, Error, NodeId, Road};
use super::connection::{Connection, Manner};
use super::security::Security;
use super::versions::Versions;

/// A connection that is ready for requests.
#[derive(Debug)]
pub(super) struct Broker {
    pub connection: Connection,
    pub versions: Versions,
}

impl Broker {
    pub(super) fn is_open(&self) -> bool {
        !self.connection.is_closed()
    }
}

/// Opens connections.
#[derive(Debug)]
pub(super) struct Dialer {
    config: Arc<ClientConfig>,
    security: Security,
    manner: Manner,
}

impl Dialer {
    pub(super) fn new(config: Arc<ClientConfig>, security: Security) -> Self {
        let manner = Manner {
            client_id: StrBytes::from_string(config.client_id.clone()),
            request_timeout: config.request_timeout,
            response_bytes_max: config.response_bytes_max,
        };
        Self {
            config,
            security,
            manner,
        }
    }

    /// Opens a connection and asks for the broker's versions, all within `connect_timeout`.
    pub(super) async fn dial(&self, address: &Arc<str>) -> Result<Arc<Broker>, Error> {
        let deadline = Instant::now() + self.config.connect_timeout;
        let refused = |source: io::Error| Error::Connect {
            address: address.to_string(),
            source,
        };
        let tcp = connect_any(address, deadline).await.map_err(refused)?;
        let hello = async {
            let host = address
                .rsplit_once(':')
                .map_or(&**address, |(host, _)| host);
            let stream = self.security.secure(tcp, host).await.map_err(refused)?;
            let connection = Connection::start(stream, Arc::clone(address), &self.manner);
            let answer = connection.api_versions().await?;
            let versions = Versions::new(Arc::clone(address), &answer);
            Ok(Arc::new(Broker {
                connection,
                versions,
            }))
        };
        match timeout_at(deadline, hello).await {
            Ok(Ok(broker)) => Ok(broker),
            // Nothing but the question for versions was sent.
            Ok(Err(Error::Lost { source, .. })) => Err(refused(source)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(refused(ErrorKind::TimedOut.into())),
        }
    }
}

/// Connects to the first of a name's addresses that answers; each gets its share of the time.
async fn connect_any(address: &str, deadline: Instant) -> io::Result<TcpStream> {
    let found = timeout_at(deadline, lookup_host(address)).await??;
    let found: Vec<_> = found.collect();
    let mut left = u32::try_from(found.len()).unwrap_or(u32::MAX);
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for socket in found {
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / left.max(1);
        left -= 1;
        match timeout_at(now + share, TcpStream::connect(socket)).await {
            Ok(Ok(tcp)) => {
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// One place for a connection.
#[derive(Debug, Default)]
struct Slot {
    current: tokio::sync::Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    broker: Option<Arc<Broker>>,
    /// When the last attempt failed, and why.
    failed: Option<(Instant, ErrorKind, String)>,
}

/// The connections to brokers.
#[derive(Debug, Default)]
pub(super) struct Pool {
    slots: Mutex<HashMap<(NodeId, Road), Arc<Slot>>>,
}

impl Pool {
    /// The connection to a broker at `address`; opened if there is none.
    pub(super) async fn get(
        &self,
        dialer: &Dialer,
        line: (NodeId, Road),
        address: &Arc<str>,
    ) -> Result<Arc<Broker>, Error> {
        let asked = Instant::now();
        let slot = Arc::clone(self.slots.lock().entry(line).or_default());
        let mut current = slot.current.lock().await;
        if let Some(broker) = &current.broker
            && !broker.connection.is_closed()
            && broker.connection.address() == address
        {
            return Ok(Arc::clone(broker));
        }
        current.broker = None;
        if let Some((when, kind, text)) = &current.failed
            && *when >= asked
        {
            return Err(Error::Connect {
                address: address.to_string(),
                source: io::Error::new(*kind, text.clone()),
            });
        }
        let result = dialer.dial(address).await;
        match &result {
            Ok(broker) => {
                current.broker = Some(Arc::clone(broker));
                current.failed = None;
            }
            Err(Error::Connect { source, .. }) => {
                current.failed = Some((Instant::now(), source.kind(), source.to_string()));
            }
            Err(_) => {}
        }
        result
    }

    /// Whether a connection is open, or being opened.
    pub(super) fn any_open(&self) -> bool {
        let is_open = |slot: &Arc<Slot>| match slot.current.try_lock() {
            Ok(current) => current.broker.as_ref().is_some_and(|it| it.is_open()),
            Err(_) => true,
        };
        self.slots.lock().values().any(is_open)
    }

    /// Gives up the connections to brokers that are no more.
    pub(super) fn keep(&self, known: impl Fn(NodeId) -> bool) {
        self.slots.lock().retain(|(node, _), _| known(*node));
    }

    /// Closes every connection.
    pub(super) async fn close(&self) {
        let slots: Vec<_> = self.slots.lock().drain().map(|(_, slot)| slot).collect();
        for slot in slots {
            if let Some(broker) = slot.current.lock().await.broker.take() {
                broker.connection.close("the client is closed");
            }
        }
    }
}
