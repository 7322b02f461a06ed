//! The configuration as the program uses it: every value present, in range, and fit for the others.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::ListenAddress;
use crate::access::Watched;
use crate::access::acl::Acl;
use crate::access::password::Passwords;
use crate::kafka::Compression;
use crate::kafka::security::Security;
use crate::tls::identity::NamedIn;
use crate::tls::server::Server;

/// The whole of `tidegate.toml`.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[gateway]`
    pub gateway: Gateway,
    /// `[kafka]`
    pub kafka: Kafka,
    /// `[proxy]`; `None` when the table is absent: no device can connect.
    pub proxy: Option<Proxy>,
    /// `[spool]`
    pub spool: Spool,
    /// `[api]`; `None` when the table is absent.
    pub api: Option<Api>,
}

/// `[gateway]`: who this gateway is and where it keeps things.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Name of the gateway: in provenance headers, logs and Kafka's client id.
    pub id: String,
    /// Folder for everything that must survive.
    pub data_dir: PathBuf,
    /// What is logged, in `tracing`'s filter syntax (`info`, `tidegate::uplink=debug,info`).
    pub log_filter: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Longest time from SIGTERM to exit.
    pub shutdown_timeout: Duration,
    /// When the clock is believed.
    pub clock: ClockTrust,
    /// File whose presence says that the clock is right; instead of `clock`.
    pub clock_file: Option<PathBuf>,
    /// Threads that serve connections and Kafka; 0: one per core, at most four.
    pub worker_threads: usize,
}

/// `clock`: when the clock is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockTrust {
    /// When the kernel says that it is synchronised.
    Auto,
    /// Always.
    Trusted,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[kafka]`: the cluster and how records get there.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// `host:port` of the brokers to ask first.
    pub bootstrap_servers: Vec<String>,
    /// Which engine sends.
    pub delivery: Delivery,
    /// How batches are compressed.
    pub compression: Compression,
    /// Name in the brokers' logs and quotas; default `tidegate-{gateway.id}`.
    pub client_id: String,
    /// Whether records carry `tidegate.id`, `tidegate.run` and `tidegate.seq`.
    pub provenance: bool,
    /// Deadline for a TCP connection.
    pub connect_timeout: Duration,
    /// Deadline for an answer; above `server_timeout`.
    pub request_timeout: Duration,
    /// How long a broker may wait for its followers; at most 5 s.
    pub server_timeout: Duration,
    /// Largest batch of one partition, uncompressed bytes.
    pub batch_bytes_max: usize,
    /// Most bytes of all batches in one request.
    pub request_bytes_max: usize,
    /// First and longest wait before something is tried again.
    pub retry_backoff: (Duration, Duration),
    /// `[kafka.tls]` and `[kafka.sasl]`: how connections are secured.
    pub security: Security,
    /// After which time a topic that Kafka refuses has its records dead-lettered; `None`: never.
    pub dead_letter_after: Option<Duration>,
    /// `[kafka.topic_creation]`; `None`: missing topics are reported, not made.
    pub topic_creation: Option<TopicCreation>,
}

/// `delivery`: which engine sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Our engine: each record once, through power cuts.
    ExactlyOnce,
    /// The crate `rskafka`: each record, some perhaps twice.
    AtLeastOnce,
}

/// `[kafka.topic_creation]`: how missing topics are made.
#[derive(Clone, Debug)]
pub struct TopicCreation {
    /// Partitions of a new topic; −1 is the broker's default.
    pub partitions: i32,
    /// Replicas of each; −1 is the broker's default.
    pub replication_factor: i16,
    /// Topic configs by their Kafka names, from `[kafka.topic_creation.configs]`.
    pub configs: Vec<(String, String)>,
}

/// `[proxy]`: the MQTT front door.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// What devices connect to; at least one.
    pub listeners: Vec<Listener>,
    /// Kafka topic where no route matches; `None`: such messages are refused.
    pub default_topic: Option<String>,
    /// What a 3.1.1 client gets for a message that no route takes.
    pub on_refused: OnRefused,
    /// Most connections at once.
    pub max_connections: usize,
    /// Most of one IP address, loopback apart.
    pub max_connections_per_address: usize,
    /// Messages of one client in a second; `None`: no bound.
    pub max_publishes_per_second: Option<u32>,
    /// Largest MQTT packet.
    pub max_packet_bytes: usize,
    /// From TCP accept to a whole CONNECT.
    pub connect_timeout: Duration,
    /// Unacknowledged messages of one client (v5 receive maximum).
    pub max_inflight_messages: u16,
    /// Unacknowledged bytes of one client.
    pub max_inflight_bytes: usize,
    /// Unacknowledged bytes of all clients.
    pub max_total_inflight_bytes: usize,
    /// v5 topic aliases a client may use.
    pub topic_alias_max: u16,
    /// Longest time a disconnected persistent session is kept.
    pub session_expiry_max: Duration,
    /// Most disconnected sessions kept.
    pub max_sessions: usize,
    /// Bounds of local delivery.
    pub local: Local,
    /// `[proxy.headers]`: names of the record headers; an empty name leaves a header out.
    pub headers: HeaderNames,
    /// `[[proxy.route]]`, in order.
    pub routes: Vec<Route>,
}

/// `proxy.listen`, or one of `[[proxy.listener]]`.
#[derive(Clone, Debug)]
pub struct Listener {
    /// The key that its address was typed under.
    pub key: String,
    /// Where it is.
    pub address: ListenAddress,
    /// Whether clients without credentials may come in beyond loopback, or in spite of passwords.
    pub allow_anonymous: bool,
    /// Users and their passwords; `None`: nobody is asked.
    pub passwords: Option<Arc<Watched<Passwords>>>,
    /// Who may do what; `None`: all may do everything.
    pub acl: Option<Arc<Watched<Acl>>>,
    /// Where a client's certificate says who it is; `None`: it does not.
    pub certificate_user: Option<NamedIn>,
    /// Whether MQTT goes inside WebSocket.
    pub websocket: bool,
    /// Whether a load balancer says first for whom it speaks.
    pub proxy_protocol: bool,
    /// Its certificate; `None`: not encrypted.
    pub tls: Option<Arc<Server>>,
}

impl Listener {
    /// `proxy.listen`, for anybody.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            key: "proxy.listen".to_owned(),
            address: ListenAddress::Tcp(address),
            allow_anonymous: true,
            passwords: None,
            acl: None,
            certificate_user: None,
            websocket: false,
            proxy_protocol: false,
            tls: None,
        }
    }
}

/// Bounds of local delivery, in `[proxy]`.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    /// Most subscriptions of one client.
    pub max_subscriptions: usize,
    /// Most messages that wait for one subscriber.
    pub max_queued_messages: usize,
    /// Their bytes, with those that are sent and not acknowledged.
    pub max_queued_bytes: usize,
    /// The same of all subscribers.
    pub max_total_queued_bytes: usize,
    /// Most retained messages.
    pub max_retained_messages: usize,
    /// Their bytes.
    pub max_retained_bytes: usize,
}

/// `on_refused`: what a 3.1.1 client gets for a message that no route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRefused {
    /// It is acknowledged, dropped and written to the ledger.
    Ack,
    /// The connection is closed.
    Disconnect,
}

/// Names of the headers that carry MQTT's own fields; empty: not written.
/// The first four are the Confluent MQTT source's.
#[derive(Clone, Debug)]
pub struct HeaderNames {
    /// Packet id, as text; default `mqtt.message.id`.
    pub message_id: String,
    /// QoS, as text; default `mqtt.qos`.
    pub qos: String,
    /// `true` or `false`; default `mqtt.retained`.
    pub retained: String,
    /// `true` or `false`; default `mqtt.duplicate`.
    pub duplicate: String,
    /// MQTT topic; default empty, for it is the key by default.
    pub topic: String,
    /// Client id; default `mqtt.client.id`.
    pub client_id: String,
    /// v5 content type; default `mqtt.content.type`.
    pub content_type: String,
    /// v5 response topic; default `mqtt.response.topic`.
    pub response_topic: String,
    /// v5 correlation data; default `mqtt.correlation.data`.
    pub correlation_data: String,
    /// Prefix of v5 user properties' names; default `mqtt.user.`. `None` leaves them out.
    pub user_property_prefix: Option<String>,
}

/// `[[proxy.route]]`: which messages go to which Kafka topic.
#[derive(Clone, Debug)]
pub struct Route {
    /// MQTT filter with named captures: `plant/+line/#rest`.
    pub mqtt: String,
    /// Template of the Kafka topic.
    pub topic: String,
    /// Template of the key; `None`: the MQTT topic.
    pub key: Option<String>,
    /// Header names and templates of their values.
    pub headers: Vec<(String, String)>,
    /// 0 to 9 of the Kafka topic: the higher goes first after an outage.
    pub priority: u8,
    /// Age at which a record that is not in Kafka is dropped.
    pub ttl: Option<Duration>,
}

/// `[spool]`: what is kept while Kafka is away.
#[derive(Clone, Debug)]
pub struct Spool {
    /// When records are written to disk.
    pub mode: SpoolMode,
    /// `hybrid`: age at which an unconfirmed record is written.
    pub spill_after: Duration,
    /// Least time between group commits.
    pub sync_interval: Duration,
    /// Most bytes of segment files.
    pub max_bytes: u64,
    /// Bytes that stay free on the file system.
    pub min_free_bytes: u64,
    /// What happens at either bound.
    pub on_full: OnFull,
    /// Size of a segment file.
    pub segment_bytes: u64,
    /// Most bytes of records in memory that were read back or not yet written.
    pub memory_max_bytes: usize,
    /// Most bytes of records a second that go to Kafka from disk; 0: no bound.
    pub replay_bytes_per_second: u64,
    /// Share of `max_bytes`, in percent, for streams that cannot be sent while others can.
    pub stalled_max_percent: u8,
    /// What happens to such a stream at its share.
    pub on_stalled_full: OnFull,
    /// zstd level of frames.
    pub compression_level: i32,
    /// Most bytes of quarantined records.
    pub quarantine_max_bytes: u64,
    /// Most bytes of segments of what sources keep beside records.
    pub kept_max_bytes: u64,
    /// `kafka.dead_letter_topic`; `None`: sick topics are held, rejected records go to quarantine.
    pub dead_letter_topic: Option<String>,
}

/// `mode`: when records are written to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolMode {
    /// Only when Kafka does not confirm them in time.
    Hybrid,
    /// All, before they are acknowledged.
    Always,
}

/// `on_full`: what gives way when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// Senders are not acknowledged until there is room.
    Refuse,
    /// The oldest records are dropped.
    DropOldest,
    /// The oldest records of the lowest priority are dropped.
    DropLowestPriority,
}

/// `[api]`: health and metrics.
#[derive(Clone, Debug)]
pub struct Api {
    /// Address of the HTTP server. Port 0 takes a free one and logs it.
    pub listen: SocketAddr,
}
