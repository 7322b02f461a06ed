//! The server over real sockets.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::metrics::{Counter, Gauge};

async fn start() -> (SocketAddr, Arc<ApiState>, CancellationToken, JoinHandle<()>) {
    let state = Arc::new(ApiState::new(Arc::new(Metrics::default()), || ()));
    let shutdown = CancellationToken::new();
    let config = checked::Api {
        listen: "127.0.0.1:0".parse().unwrap(),
    };
    let (address, task) = spawn(&config, state.clone(), shutdown.clone())
        .await
        .unwrap();
    (address, state, shutdown, task)
}

async fn ask(address: SocketAddr, request: &str) -> (u16, String, serde_json::Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    let json = serde_json::from_str(&body).unwrap_or_default();
    (code, body, json)
}

#[tokio::test]
async fn ready_says_what_is_missing_and_an_outage_is_not() {
    let (address, state, ..) = start().await;
    let (code, _, json) = ask(address, "GET /health/ready").await;
    assert_eq!((code, &json["spool"]["open"]), (503, &false.into()));
    state.set_accepting(true);
    state.set_spool_open(true);
    state.metrics.set(Gauge::UplinkUp, 0);
    state.metrics.set(Gauge::BufferedRecords, 42);
    let (code, _, json) = ask(address, "GET /health/ready").await;
    assert_eq!((code, &json["uplink"]["up"]), (200, &false.into()));
    assert_eq!(json["spool"]["buffered_records"], 42);
    assert_eq!(ask(address, "GET /health/live").await.0, 200);
}

#[tokio::test]
async fn metrics_are_served() {
    let (address, state, ..) = start().await;
    state.metrics.add(Counter::Sent, 7);
    let (code, body, _) = ask(address, "GET /metrics").await;
    assert_eq!(code, 200);
    assert!(body.contains("\ntidegate_sent_total 7\n"), "{body}");
}

#[tokio::test]
async fn what_is_not_there_is_told_as_connect_does() {
    let (address, ..) = start().await;
    let (code, _, json) = ask(address, "GET /nothing").await;
    assert_eq!((code, &json["error_code"]), (404, &404.into()));
    assert_eq!(json["message"], "HTTP 404 Not Found");
    let (code, _, json) = ask(address, "POST /metrics").await;
    assert_eq!((code, &json["error_code"]), (405, &405.into()));
}

#[tokio::test]
async fn tools_are_answered_by_the_spool_and_changes_must_be_json() {
    let (address, ..) = start().await;
    let (code, _, json) = ask(address, "GET /tidegate/streams").await;
    assert_eq!(
        (code, &json["message"]),
        (503, &"the spool is not open".into())
    );
    assert_eq!(ask(address, "POST /tidegate/drop").await.0, 415);
}

/// Those who send nothing hold a place each, and lose it after the head timeout; then others are
/// served.
#[tokio::test]
async fn silent_clients_are_bounded_in_number_and_time() {
    let (address, ..) = start().await;
    tokio::time::pause();
    let mut silent = Vec::new();
    for _ in 0..server::CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /hea").await.unwrap();
        silent.push(stream);
    }
    let answer = tokio::time::timeout(Duration::from_secs(60), ask(address, "GET /health/live"));
    assert_eq!(answer.await.unwrap().0, 200);
}

#[tokio::test]
async fn shutdown_ends_the_server_though_a_client_idles() {
    let (address, _, shutdown, task) = start().await;
    let _idle = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(address, "GET /health/live").await.0, 200);
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), task)
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[test]
fn the_listening_file_can_be_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let listening = Listening {
        mqtt: Some("127.0.0.1:1883".parse().unwrap()),
        listeners: vec!["127.0.0.1:1883".parse().unwrap()],
        api: None,
    };
    write_listening(dir.path(), &listening).unwrap();
    let text = std::fs::read_to_string(dir.path().join("listening")).unwrap();
    let expected = r#"{"mqtt":"127.0.0.1:1883","listeners":["127.0.0.1:1883"],"api":null}"#;
    assert_eq!(text, expected);
    let missing = write_listening(&dir.path().join("no"), &listening).unwrap_err();
    assert!(missing.to_string().contains("/no/listening"));
}
