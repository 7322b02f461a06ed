//! The open connections: at most two a broker ([`Road`]), opened when first needed, and again after
//! they broke. Whoever needs a connection that is being opened waits for it and shares its failure.
//!
//! A connection whose SASL session is about to end (KIP-368) is replaced, not authenticated again:
//! the next request opens a new one, and the old one lives until its last answer has been read. So
//! no request ever waits between a handshake and an authentication, a password or token that was
//! changed may belong to somebody else (which Kafka refuses on one connection), and addresses are
//! looked up anew.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::client::{ClientConfig, Error, NodeId, Road};
use super::connection::{Connection, Manner};
use super::security::tls;
use super::versions::Versions;
use crate::backoff::Random;

/// A connection that is ready for requests.
#[derive(Debug)]
pub(super) struct Broker {
    pub connection: Connection,
    pub versions: Versions,
    /// No request is begun later than this: the session ends.
    until: Option<Instant>,
}

impl Broker {
    /// Whether requests may be sent.
    pub(super) fn is_usable(&self) -> bool {
        !self.connection.is_closed() && self.until.is_none_or(|until| Instant::now() < until)
    }
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
    manner: Manner,
}

impl Dialer {
    pub(super) fn new(config: Arc<ClientConfig>) -> Self {
        let manner = Manner {
            client_id: StrBytes::from_string(config.client_id.clone()),
            request_timeout: config.request_timeout,
            response_bytes_max: config.response_bytes_max,
        };
        Self { config, manner }
    }

    /// Opens a connection, asks for the broker's versions and says who we are, all within
    /// `connect_timeout`.
    pub(super) async fn dial(&self, address: &Arc<str>) -> Result<Arc<Broker>, Error> {
        let deadline = Instant::now() + self.config.connect_timeout;
        let refused = |source: io::Error| Error::Connect {
            address: address.to_string(),
            source,
        };
        let tcp = connect_any(address, deadline).await.map_err(refused)?;
        let stage = Mutex::new("");
        match timeout_at(deadline, self.hello(tcp, address, &stage)).await {
            Ok(Ok(broker)) => Ok(broker),
            // Nothing but questions for versions and credentials was sent.
            Ok(Err(Error::Lost { source, .. })) => Err(refused(tls::late(source))),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let what = format!("{} takes too long", stage.lock());
                Err(refused(io::Error::new(ErrorKind::TimedOut, what)))
            }
        }
    }

    /// Everything behind the TCP handshake; `stage` tells where it is.
    async fn hello(
        &self,
        tcp: TcpStream,
        address: &Arc<str>,
        stage: &Mutex<&'static str>,
    ) -> Result<Arc<Broker>, Error> {
        let security = &self.config.security;
        *stage.lock() = "the TLS handshake";
        let stream = security.secure(tcp, host_of(address)).await;
        let stream = stream.map_err(|source| Error::Connect {
            address: address.to_string(),
            source,
        })?;
        *stage.lock() = "the answer to ApiVersions";
        let connection = Connection::start(stream, Arc::clone(address), &self.manner);
        let versions = Versions::new(Arc::clone(address), &connection.api_versions().await?);
        let mut until = None;
        if let Some(sasl) = &security.sasl {
            *stage.lock() = sasl.stage();
            let began = Instant::now();
            let lifetime = sasl.authenticate(&connection, &versions).await?;
            until = lifetime.map(|all| began + self.usable(all, Random::new().draw()));
        }
        Ok(Arc::new(Broker {
            connection,
            versions,
            until,
        }))
    }

    /// How much of a session's lifetime requests are begun in: 85 to 95 %, so that brokers are not
    /// all gone to at once, and at least so little that what was begun last is answered, or late,
    /// before the end. Of a very short one half is used.
    fn usable(&self, lifetime: Duration, random: u64) -> Duration {
        let early = lifetime / 20 + lifetime / 1000 * u32::try_from(random % 100).unwrap_or(0);
        let least = self.config.request_timeout.min(lifetime / 2);
        lifetime.saturating_sub(early.max(least))
    }
}

/// `[::1]:9093` → `::1`
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host)
}

/// Connects to the first of a name's addresses that answers; each gets its share of the time.
async fn connect_any(address: &str, deadline: Instant) -> io::Result<TcpStream> {
    let found = timeout_at(deadline, lookup_host(address)).await??;
    connect_first(found.collect(), deadline).await
}

async fn connect_first(found: Vec<SocketAddr>, deadline: Instant) -> io::Result<TcpStream> {
    let mut left = u32::try_from(found.len()).unwrap_or(u32::MAX);
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for socket in found {
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / left.max(1);
        left -= 1;
        match timeout_at(now + share, TcpStream::connect(socket)).await {
            Ok(Ok(tcp)) => {
                tcp.set_nodelay(true)?;
                // What is given up on must not arrive later, when it has been sent again.
                tcp.set_zero_linger()?;
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
            && broker.is_usable()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn dialer(request_timeout: Duration) -> Dialer {
        Dialer::new(Arc::new(ClientConfig {
            bootstrap_servers: Vec::new(),
            client_id: "test".into(),
            connect_timeout: Duration::from_secs(5),
            request_timeout,
            server_timeout: Duration::from_secs(5),
            metadata_interval: Duration::from_millis(100),
            response_bytes_max: 1024,
            security: Default::default(),
        }))
    }

    #[test]
    fn sessions_are_left_in_time() {
        let dialer = dialer(Duration::from_secs(10));
        let usable = |seconds, random| dialer.usable(Duration::from_secs(seconds), random);
        assert_eq!(usable(3600, 0), Duration::from_secs(3420));
        assert!(usable(3600, 99) >= Duration::from_secs(3060));
        assert_eq!(
            usable(60, 0),
            Duration::from_secs(50),
            "a request timeout before the end"
        );
        assert_eq!(usable(3, 0), Duration::from_millis(1500));
    }

    /// A name with four addresses, of which one refuses and two say nothing.
    #[tokio::test]
    async fn all_addresses_of_a_name_are_tried() {
        let there = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let live = there.local_addr().unwrap();
        let all = ["[::1]:1", "192.0.2.1:9", "192.0.2.2:9"].map(|a| a.parse().unwrap());
        let found = [&all[..], &[live]].concat();
        let began = Instant::now();
        let deadline = began + Duration::from_secs(2);
        let tcp = connect_first(found, deadline).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), live);
        assert!(Instant::now() < deadline);
        let none = connect_first(all.to_vec(), Instant::now() + Duration::from_millis(50)).await;
        assert!(none.is_err());
    }

    #[test]
    fn hosts_lose_port_and_brackets() {
        assert_eq!(host_of("[::1]:9093"), "::1");
        assert_eq!(host_of("kafka-1:9093"), "kafka-1");
        assert_eq!(host_of("10.0.0.1:1"), "10.0.0.1");
    }
}
