//! The proxy with foreign clients: mosquitto's and paho's.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate::config::checked::{HeaderNames, Listener, Local, OnRefused, Proxy, Route};
use tidegate::metrics::Metrics;
use tidegate::record::Record;
use tidegate::spool::intake::Refusal;
use tidegate::spool::{Change, Incoming, Intake, Ticket, TopicId, TopicOptions};
use tokio_util::sync::CancellationToken;

use crate::harness::python;

/// Keeps every record and calls it safe at once.
#[derive(Debug, Default)]
pub struct Kept {
    pub topics: parking_lot::Mutex<Vec<String>>,
    pub records: parking_lot::Mutex<Vec<(TopicId, Record)>>,
}

impl Intake for Kept {
    fn topic(&self, name: &str, _: &TopicOptions) -> TopicId {
        let mut topics = self.topics.lock();
        let at = topics
            .iter()
            .position(|topic| topic == name)
            .unwrap_or(topics.len());
        if at == topics.len() {
            topics.push(name.to_owned());
        }
        TopicId(u32::try_from(at).unwrap())
    }

    fn record_bytes_max(&self, _: TopicId) -> usize {
        1 << 20
    }

    fn is_short(&self) -> bool {
        false
    }

    fn append(&self, batch: &mut Vec<Incoming>) {
        for incoming in batch.drain(..) {
            self.records.lock().push((incoming.topic, incoming.record));
            if let Some(ticket) = incoming.ticket {
                ticket.to.safe(&[ticket.token]);
            }
        }
    }

    fn keep(&self, _: Vec<Change>, ticket: Option<Ticket>) {
        if let Some(ticket) = ticket {
            tokio::spawn(async move { ticket.to.safe(&[ticket.token]) });
        }
    }

    fn kept(&self) -> Vec<(Bytes, Bytes)> {
        Vec::new()
    }

    fn refused(&self, _: Refusal, _: &str, _: u64) {}
}

/// A running proxy.
pub struct Gate {
    pub address: SocketAddr,
    pub kept: Arc<Kept>,
    stop: CancellationToken,
}

impl Gate {
    pub fn start(config: Proxy) -> Self {
        let kept = Arc::new(Kept::default());
        let stop = CancellationToken::new();
        let intake: Arc<dyn Intake> = Arc::clone(&kept) as _;
        let metrics = Arc::new(Metrics::default());
        let running =
            tidegate::proxy::spawn(&config, intake, metrics, (stop.clone(), Arc::default()))
                .unwrap();
        let address = running.addresses[0].tcp().unwrap();
        Self {
            address,
            kept,
            stop,
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn config() -> Proxy {
    let name = str::to_owned;
    Proxy {
        listeners: vec![Listener::plain("127.0.0.1:0".parse().unwrap())],
        default_topic: Some(name("mqtt")),
        on_refused: OnRefused::Ack,
        max_connections: 1_000,
        max_connections_per_address: 1_000,
        max_publishes_per_second: None,
        max_packet_bytes: 1 << 20,
        connect_timeout: Duration::from_secs(10),
        max_inflight_messages: 1_000,
        max_inflight_bytes: 4 << 20,
        max_total_inflight_bytes: 64 << 20,
        topic_alias_max: 10,
        session_expiry_max: Duration::from_secs(3_600),
        max_sessions: 1_000,
        local: Local {
            max_subscriptions: 1_000,
            max_queued_messages: 1_000,
            max_queued_bytes: 1 << 20,
            max_total_queued_bytes: 32 << 20,
            max_retained_messages: 10_000,
            max_retained_bytes: 16 << 20,
        },
        headers: HeaderNames {
            message_id: name("mqtt.message.id"),
            qos: name("mqtt.qos"),
            retained: name("mqtt.retained"),
            duplicate: name("mqtt.duplicate"),
            topic: String::new(),
            client_id: name("mqtt.client.id"),
            content_type: name("mqtt.content.type"),
            response_topic: name("mqtt.response.topic"),
            correlation_data: name("mqtt.correlation.data"),
            user_property_prefix: Some(name("mqtt.user.")),
        },
        routes: vec![Route {
            mqtt: name("plant/+line/#rest"),
            topic: name("line-{line}"),
            key: Some(name("{rest}")),
            headers: vec![(name("line"), name("{line}"))],
            priority: 0,
            ttl: None,
        }],
    }
}

async fn run(mut command: Command, args: Vec<String>) {
    command.args(args);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_publishes_at_every_qos_in_every_version() {
    let gate = Gate::start(config());
    let port = gate.address.port();
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        for qos in 0..3 {
            let args = format!(
                "-p {port} -V {version} -q {qos} -t plant/7/é/temp -m hello -r --repeat 20"
            );
            let args = args.split(' ').map(str::to_owned).collect();
            run(Command::new("mosquitto_pub"), args).await;
        }
    }
    let records = gate.kept.records.lock();
    assert_eq!(records.len(), 180);
    assert_eq!(*gate.kept.topics.lock(), ["line-7"]);
    for (topic, record) in records.iter() {
        assert_eq!(*topic, TopicId(0));
        assert_eq!(record.key(), Ok(Some("é/temp".as_bytes())));
        assert_eq!(record.value(), Ok(Some(&b"hello"[..])));
        let headers = record.headers().unwrap();
        assert!(headers.contains(&(b"line", Some(b"7"))));
        assert!(headers.contains(&(b"mqtt.retained", Some(b"true"))));
    }
}

const PAHO: &str = r#"
import sys, paho.mqtt.client as m, paho.mqtt.packettypes as t
from paho.mqtt.properties import Properties
port, version = int(sys.argv[1]), int(sys.argv[2])
c = m.Client(m.CallbackAPIVersion.VERSION2, client_id=f"paho{version}", protocol=version)
c.connect("127.0.0.1", port); c.loop_start()
p = None
if version == 5:
    p = Properties(t.PacketTypes.PUBLISH); p.UserProperty = ("a", "b"); p.ContentType = "text/plain"
infos = [c.publish(f"t/{i % 5}", str(i), qos=i % 3, properties=p) for i in range(300)]
for i in infos: i.wait_for_publish(30)
assert all(i.is_published() for i in infos)
c.disconnect(); c.loop_stop()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn paho_publishes_in_order_with_properties() {
    let gate = Gate::start(config());
    for version in ["4", "5"] {
        let port = gate.address.port().to_string();
        let arguments = ["-c", PAHO, &port, version].map(str::to_owned);
        run(python(), arguments.to_vec()).await;
    }
    let records = gate.kept.records.lock();
    assert_eq!(records.len(), 600);
    for (run, records) in records.chunks(300).enumerate() {
        // paho queues QoS 1 and 2 beyond its window of 20, and lets QoS 0 pass them: order is per
        // QoS.
        let mut next = [0, 1, 2];
        for (_, record) in records {
            let value = String::from_utf8_lossy(record.value().unwrap().unwrap()).into_owned();
            let value: usize = value.parse().unwrap();
            assert_eq!(value, next[value % 3]);
            next[value % 3] += 3;
            let headers = record.headers().unwrap();
            let five = run == 1;
            assert_eq!(headers.contains(&(b"mqtt.user.a", Some(b"b"))), five);
            assert_eq!(
                headers.contains(&(b"mqtt.content.type", Some(b"text/plain"))),
                five
            );
        }
    }
}
