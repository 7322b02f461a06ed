//! Against brokers that answer two questions, which versions and which metadata, and count the
//! latter.

use super::*;
use crate::kafka::client::{Client, ClientConfig, NodeId, ProduceBatch, Road};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse, MetadataResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, decode_request_header_from_buffer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A broker that knows every topic, each led by a broker that is not there.
struct Fake {
    address: String,
    port: i32,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Fake {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, port) = (Arc::clone(&asked), i32::from(address.port()));
        let task = tokio::spawn(async move {
            let mut all = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                all.spawn(serve(stream, port, Arc::clone(&count)));
            }
        });
        Self {
            address: address.to_string(),
            port,
            asked,
            task,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, port: i32, asked: Arc<AtomicUsize>) -> Option<()> {
    loop {
        let length = stream.read_u32().await.ok()?;
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await.ok()?;
        let mut frame = Bytes::from(frame);
        let header = decode_request_header_from_buffer(&mut frame).unwrap();
        let version = header.request_api_version;
        let mut answer = BytesMut::from(&[0u8; 4][..]);
        let key = ApiKey::try_from(header.request_api_key).unwrap();
        ResponseHeader::default()
            .with_correlation_id(header.correlation_id)
            .encode(&mut answer, key.response_header_version(version))
            .unwrap();
        match key {
            ApiKey::ApiVersions => versions().encode(&mut answer, version).unwrap(),
            ApiKey::Metadata => {
                asked.fetch_add(1, Ordering::SeqCst);
                let request = MetadataRequest::decode(&mut frame, version).unwrap();
                assert!(!request.allow_auto_topic_creation);
                metadata(&request, port)
                    .encode(&mut answer, version)
                    .unwrap();
            }
            other => panic!("{other:?}"),
        }
        let length = (answer.len() - 4) as u32;
        (&mut answer[..4]).put_u32(length);
        stream.write_all(&answer).await.ok()?;
    }
}

fn versions() -> ApiVersionsResponse {
    let apis = [(0, 13), (3, 13), (18, 3)].map(|(key, max)| {
        ApiVersion::default()
            .with_api_key(key)
            .with_max_version(max)
    });
    ApiVersionsResponse::default().with_api_keys(apis.to_vec())
}

fn metadata(request: &MetadataRequest, port: i32) -> MetadataResponse {
    let host = StrBytes::from_static_str("127.0.0.1");
    let broker = |id: i32, port| {
        MetadataResponseBroker::default()
            .with_node_id(id.into())
            .with_host(host.clone())
            .with_port(port)
    };
    let topics = request.topics.iter().flatten().map(|topic| {
        let partition = MetadataResponsePartition::default().with_leader_id(2.into());
        MetadataResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(vec![partition])
    });
    MetadataResponse::default()
        .with_brokers(vec![broker(1, port), broker(2, 1)]) // nobody listens on port 1
        .with_cluster_id(Some(StrBytes::from_static_str("cluster")))
        .with_topics(topics.collect())
}

fn client(bootstrap: &[&str], interval_ms: u64) -> Client {
    Client::new(ClientConfig {
        bootstrap_servers: bootstrap
            .iter()
            .map(|address| (*address).to_owned())
            .collect(),
        client_id: "test".into(),
        connect_timeout: Duration::from_secs(3),
        request_timeout: Duration::from_secs(3),
        server_timeout: Duration::from_secs(2),
        metadata_interval: Duration::from_millis(interval_ms),
        response_bytes_max: 1 << 20,
        security: Default::default(),
    })
}

#[tokio::test]
async fn a_thousand_askers_share_a_few_requests() {
    let fake = Fake::start().await;
    let client = client(&[&fake.address], 10);
    let mut all = JoinSet::new();
    for n in 0..1000 {
        let client = client.clone();
        all.spawn(async move { client.topic(&format!("topic-{}", n % 300), true).await });
    }
    for topic in all.join_all().await {
        assert_eq!(topic.unwrap().leaders, [Some(NodeId(2))]);
    }
    assert!(fake.asked() <= 3, "{}", fake.asked());
    assert_eq!(client.cluster_id().await.unwrap(), "cluster");
    client.topic("topic-7", false).await.unwrap();
    assert!(fake.asked() <= 3, "what is known is not asked for");
}

#[tokio::test]
async fn refreshes_keep_their_distance() {
    let fake = Fake::start().await;
    let client = client(&[&fake.address], 100);
    let began = Instant::now();
    for _ in 0..4 {
        client.topic("topic", true).await.unwrap();
    }
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(fake.asked(), 4);
}

#[tokio::test]
async fn askers_that_go_away_leave_the_others_their_answer() {
    let fake = Fake::start().await;
    let client = client(&[&fake.address], 100);
    client.topic("first", true).await.unwrap();
    let mut all = Vec::new();
    for n in 0..20 {
        let client = client.clone();
        all.push(tokio::spawn(async move {
            client.topic(&format!("{n}"), true).await
        }));
    }
    tokio::task::yield_now().await;
    for call in all.iter().take(10) {
        call.abort();
    }
    for call in all.into_iter().skip(10) {
        call.await.unwrap().unwrap();
    }
    assert!(fake.asked() <= 3, "{}", fake.asked());
}

#[tokio::test]
async fn a_black_hole_and_a_refusal_are_passed_by() {
    let fake = Fake::start().await;
    // Listens and never accepts: the kernel does, and nobody says anything.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let client = client(&["127.0.0.1:1", &silent, &fake.address], 10);
    let began = Instant::now();
    assert_eq!(client.cluster_id().await.unwrap(), "cluster");
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_leader_that_cannot_be_reached_is_forgotten() {
    let fake = Fake::start().await;
    let client = client(&[&fake.address], 10);
    client.topic("topic", false).await.unwrap();
    assert_eq!(client.leader("topic", 0).map(|l| l.0), Some(NodeId(2)));
    let batch = ProduceBatch {
        topic: "topic".into(),
        topic_id: [0; 16],
        partition: 0,
        records: Bytes::from_static(b"records"),
    };
    let error = client
        .produce(NodeId(2), Road::Main, vec![batch])
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert_eq!(client.leader("topic", 0), None);
}

#[tokio::test]
async fn when_none_answers_the_configured_brokers_are_tried_again() {
    let first = Fake::start().await;
    let second = Fake::start().await;
    let client = client(&[&first.address], 10);
    client.topic("topic", false).await.unwrap();
    assert!(client.inner.metadata.lock().knows(NodeId(1)));
    assert_ne!(first.port, second.port);
    first.task.abort();
    assert!(first.task.await.unwrap_err().is_cancelled());
    // Twenty askers fail together, not one after the other.
    let began = Instant::now();
    let mut all = JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        all.spawn(async move { client.topic("topic", true).await });
    }
    for answer in all.join_all().await {
        assert!(matches!(answer, Err(Error::NoBroker(_))), "{answer:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(!client.inner.metadata.lock().knows(NodeId(1)));
    assert_eq!(client.leader("topic", 0), None);
}
