//! rumqttc, the client in Rust: it runs inside the test.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Largest packet in each direction, in bytes; the client's own default is 10 KiB.
const PACKET_BYTES_MAX: u32 = 1 << 20;

fn wanted() -> HashMap<String, String> {
    let pairs = [("0", "zero"), ("1", "one"), ("2", "two")];
    let mut wanted: HashMap<String, String> = pairs
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into();
    wanted.insert("big".to_owned(), "x".repeat(100_000));
    wanted
}

/// How it connects.
fn way(transport: &str, ca: Option<&Path>) -> Transport {
    let tls = || {
        let pem = fs::read(ca.unwrap()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(&pem).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        TlsConfiguration::Rustls(Arc::new(config))
    };
    match transport {
        "tls" => Transport::tls_with_config(tls()),
        "ws" => Transport::Ws,
        "wss" => Transport::wss_with_config(tls()),
        _ => Transport::Tcp,
    }
}

/// Subscribes, publishes to itself, and waits until all has come back.
macro_rules! echo {
    ($options:ident, $client:ident, $events:ident, $qos:ident, $incoming:pat => $message:expr) => {{
        let (client, mut events) = $client::new($options.0, 20);
        let base = $options.1;
        client
            .subscribe(format!("{base}/#"), $qos::ExactlyOnce)
            .await
            .unwrap();
        let mut wanted = wanted();
        for (name, text) in &wanted {
            let qos = match name.as_str() {
                "0" => $qos::AtMostOnce,
                "2" => $qos::ExactlyOnce,
                _ => $qos::AtLeastOnce,
            };
            client
                .publish(format!("{base}/{name}"), qos, false, text.clone())
                .await
                .unwrap();
        }
        while !wanted.is_empty() {
            if let $incoming = events.poll().await.unwrap() {
                let (topic, payload) = $message;
                let name = topic.strip_prefix(&format!("{base}/")).unwrap();
                assert_eq!(wanted.remove(name).unwrap().as_bytes(), payload);
            }
        }
        client.disconnect().await.unwrap();
        // What is on the way leaves, and the connection ends.
        while events.poll().await.is_ok() {}
    }};
}

async fn three(options: (rumqttc::MqttOptions, String)) {
    use rumqttc::{AsyncClient, Event, Packet, QoS};
    echo!(options, AsyncClient, Event, QoS, Event::Incoming(Packet::Publish(message)) => {
        (message.topic.clone(), &message.payload[..])
    });
}

async fn five(options: (rumqttc::v5::MqttOptions, String)) {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::Packet;
    use rumqttc::v5::{AsyncClient, Event};
    echo!(options, AsyncClient, Event, QoS, Event::Incoming(Packet::Publish(message)) => {
        (String::from_utf8(message.topic.to_vec()).unwrap(), &message.payload[..])
    });
}

/// One run of it.
pub fn run(version: &str, transport: &str, port: u16, ca: Option<&Path>) {
    let base = format!("foreign/rumqttc/{version}/{transport}");
    let way = way(transport, ca);
    let host = match transport.starts_with('w') {
        true => format!("{transport}://localhost:{port}/mqtt"),
        false => "localhost".to_owned(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let talk = async {
            if version == "5" {
                let mut options = rumqttc::v5::MqttOptions::new("rumqttc5", host, port);
                options
                    .set_transport(way)
                    .set_max_packet_size(Some(PACKET_BYTES_MAX));
                five((options, base)).await;
            } else {
                let mut options = rumqttc::MqttOptions::new("rumqttc4", host, port);
                let most = PACKET_BYTES_MAX as usize;
                options.set_transport(way).set_max_packet_size(most, most);
                three((options, base)).await;
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(30), talk).await;
        told.expect("all comes back in time");
    });
}
