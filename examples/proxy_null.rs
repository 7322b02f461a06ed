//! The proxy alone, with an intake that calls every record safe at once: what the front door costs,
//! and a server for the recorded packet sequences.
//!
//! `proxy_null [ADDRESS]` prints the address it listens on, and its CPU time for each message every
//! second.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    missing_docs
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate::config::checked::{HeaderNames, Listener, Local, OnRefused, Proxy};
use tidegate::metrics::{Counter, Metrics};
use tidegate::spool::intake::Refusal;
use tidegate::spool::{Change, Incoming, Intake, Ticket, TopicId, TopicOptions};
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
struct Null;

impl Intake for Null {
    fn topic(&self, _: &str, _: &TopicOptions) -> TopicId {
        TopicId(0)
    }

    fn record_bytes_max(&self, _: TopicId) -> usize {
        1_048_576
    }

    fn is_short(&self) -> bool {
        false
    }

    fn append(&self, batch: &mut Vec<Incoming>) {
        let mut tokens = Vec::with_capacity(batch.len());
        let mut to = None;
        for incoming in batch.drain(..) {
            if let Some(ticket) = incoming.ticket {
                tokens.push(ticket.token);
                to = Some(ticket.to);
            }
        }
        if let Some(to) = to {
            to.safe(&tokens);
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

fn config(listen: &str) -> Proxy {
    Proxy {
        listeners: vec![Listener::plain(listen.parse().unwrap())],
        default_topic: Some("mqtt".to_owned()),
        on_refused: OnRefused::Ack,
        max_connections_per_address: 1_000_000,
        max_publishes_per_second: None,
        max_connections: 20_000,
        max_packet_bytes: 1_048_576,
        connect_timeout: Duration::from_secs(10),
        max_inflight_messages: 1_024,
        max_inflight_bytes: 4 << 20,
        max_total_inflight_bytes: 64 << 20,
        topic_alias_max: 10,
        session_expiry_max: Duration::from_secs(86_400),
        max_sessions: 10_000,
        local: Local {
            max_subscriptions: 1_000,
            max_queued_messages: 1_000,
            max_queued_bytes: 1 << 20,
            max_total_queued_bytes: 32 << 20,
            max_retained_messages: 10_000,
            max_retained_bytes: 16 << 20,
        },
        headers: HeaderNames {
            message_id: "mqtt.message.id".to_owned(),
            qos: "mqtt.qos".to_owned(),
            retained: "mqtt.retained".to_owned(),
            duplicate: "mqtt.duplicate".to_owned(),
            topic: String::new(),
            client_id: "mqtt.client.id".to_owned(),
            content_type: "mqtt.content.type".to_owned(),
            response_topic: "mqtt.response.topic".to_owned(),
            correlation_data: "mqtt.correlation.data".to_owned(),
            user_property_prefix: Some("mqtt.user.".to_owned()),
        },
        routes: Vec::new(),
    }
}

/// User and system time of this process, microseconds.
fn cpu_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = |at: usize| -> u64 {
        let rest = stat.rsplit(") ").next().unwrap_or_default();
        rest.split(' ')
            .nth(at)
            .and_then(|n| n.parse().ok())
            .unwrap_or(0)
    };
    (ticks(11) + ticks(12)) * 10_000
}

#[tokio::main]
async fn main() {
    let listen = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let metrics = Arc::new(Metrics::default());
    let stop = CancellationToken::new();
    let proxy = tidegate::proxy::spawn(
        &config(&listen),
        Arc::new(Null),
        Arc::clone(&metrics),
        (stop.clone(), Arc::default()),
    );
    let proxy = proxy.unwrap();
    println!("{:?}", proxy.addresses);
    let mut last = (0, cpu_us());
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            _ = every.tick() => {}
        }
        let now = (metrics.count(Counter::Received), cpu_us());
        let messages = now.0 - last.0;
        if messages > 0 {
            let each = (now.1 - last.1) as f64 / messages as f64;
            println!("{messages} messages, {each:.2} us each");
        }
        last = now;
    }
    stop.cancel();
    proxy.task.await.unwrap();
}
