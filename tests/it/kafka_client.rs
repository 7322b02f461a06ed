//! The Kafka client against a real Kafka: what it writes is read by Kafka's own consumer and by
//! librdkafka, what brokers say arrives, and brokers that die or hang are noticed in time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::kafka::Compression;
use tidegate::kafka::batch::{BatchIdentity, Encoder};
use tidegate::kafka::client::{
    Client, ClientConfig, CreateOutcome, Error, NodeId, ProduceAnswer, ProduceBatch, Road,
    TopicMetadata, Which,
};
use tidegate::record::{Record, RecordWriter};

use crate::harness::{Kafka, run};

const NODE: NodeId = NodeId(1);

fn client(kafka: &Kafka) -> Client {
    Client::new(ClientConfig {
        bootstrap_servers: kafka.bootstrap.split(',').map(str::to_owned).collect(),
        client_id: "tidegate-test".into(),
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(5),
        server_timeout: Duration::from_secs(3),
        metadata_interval: Duration::from_millis(100),
        response_bytes_max: 8 << 20,
        security: Default::default(),
    })
}

/// A topic that is known, with a leader everywhere.
async fn topic(client: &Client, name: &str, partitions: i32) -> Arc<str> {
    let made = client
        .create_topic(name, partitions, -1, &[])
        .await
        .unwrap();
    assert_eq!(made, CreateOutcome::Created);
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let topic = client.topic(name, true).await.unwrap();
        if topic.code == 0 && leads_all(client, &topic).await {
            assert_eq!(i32::try_from(topic.leaders.len()), Ok(partitions));
            return topic.name;
        }
        assert!(Instant::now() < end, "no leaders: {topic:?}");
    }
}

/// Whether every leader knows that it is one: metadata may be ahead of it.
async fn leads_all(client: &Client, topic: &TopicMetadata) -> bool {
    for (partition, leader) in (0..).zip(&topic.leaders) {
        let Some(node) = *leader else { return false };
        let end = client.list_offsets(node, &topic.name, partition, Which::Latest);
        if end.await.is_err() {
            return false;
        }
    }
    true
}

fn record(key: Option<&str>, value: Option<&str>, headers: &[(&str, Option<&str>)]) -> Record {
    let bytes = str::as_bytes;
    let mut writer = RecordWriter::new(key.map(bytes), value.map(bytes));
    for (name, value) in headers {
        writer.header(name.as_bytes(), value.map(bytes));
    }
    writer.finish(1_700_000_000_123)
}

fn id(producer_id: i64, epoch: i16, base_sequence: i32) -> BatchIdentity {
    BatchIdentity {
        producer_id,
        epoch,
        base_sequence,
    }
}

struct Sender<'a> {
    client: &'a Client,
    topic: Arc<str>,
    partition: i32,
    encoder: Encoder,
}

impl<'a> Sender<'a> {
    fn new(client: &'a Client, topic: &Arc<str>) -> Self {
        Self {
            client,
            topic: Arc::clone(topic),
            partition: 0,
            encoder: Encoder::new(Compression::Zstd, None),
        }
    }

    fn batch(&mut self, id: BatchIdentity, count: i32) -> ProduceBatch {
        let records: Vec<_> = (0..count)
            .map(|n| {
                record(
                    None,
                    Some(&format!("{}", id.base_sequence.wrapping_add(n))),
                    &[],
                )
            })
            .collect();
        self.batch_of(id, &records)
    }

    fn batch_of(&mut self, id: BatchIdentity, records: &[Record]) -> ProduceBatch {
        let leader = self.client.leader(&self.topic, self.partition);
        ProduceBatch {
            topic: Arc::clone(&self.topic),
            topic_id: leader.unwrap_or((NODE, [0; 16])).1,
            partition: self.partition,
            records: self.encoder.encode(records.iter(), id, None).unwrap(),
        }
    }

    async fn try_send(&mut self, id: BatchIdentity, count: i32) -> Result<ProduceAnswer, Error> {
        let batch = self.batch(id, count);
        let node = self
            .client
            .leader(&self.topic, self.partition)
            .map_or(NODE, |l| l.0);
        let (mut answers, _) = self.client.produce(node, Road::Main, vec![batch]).await?;
        assert_eq!(answers.len(), 1);
        Ok(answers.remove(0))
    }

    /// The answer's code and offset.
    async fn send(&mut self, id: BatchIdentity, count: i32) -> (i16, i64) {
        let answer = self.try_send(id, count).await.unwrap();
        (answer.code, answer.base_offset)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_compression_is_read_by_foreign_consumers() {
    let kafka = Kafka::shared();
    let client = client(kafka);
    let special = [
        record(
            Some("k"),
            Some("v"),
            &[("h", Some("1")), ("h", Some("2")), ("n", None)],
        ),
        record(None, Some("no key"), &[("", Some(""))]),
        record(Some("no value"), None, &[]),
        record(Some(""), Some(""), &[("ü", Some("ß"))]),
    ];
    // Longer than a block of any codec.
    let long: Vec<_> = (0..3000)
        .map(|n| record(Some(&n.to_string()), Some(&format!("{n:0>80}")), &[]))
        .collect();
    let all = [
        ("none", Compression::None),
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ];
    for (name, compression) in all {
        let topic = topic(&client, &format!("compressed-{name}"), 1).await;
        let mut sender = Sender::new(&client, &topic);
        sender.encoder = Encoder::new(compression, None);
        for (sequence, records) in [(0, &special[..]), (4, &long[..])] {
            let batch = sender.batch_of(id(900, 0, sequence), records);
            let (answers, _) = client.produce(NODE, Road::Main, vec![batch]).await.unwrap();
            assert_eq!(
                (answers[0].code, answers[0].base_offset),
                (0, sequence.into())
            );
        }
        check_with_librdkafka(kafka, &topic);
        check_with_java(kafka, &topic);
    }
}

fn check_with_librdkafka(kafka: &Kafka, topic: &str) {
    let mut kcat = std::process::Command::new("kcat");
    kcat.args([
        "-C",
        "-e",
        "-q",
        "-X",
        "check.crcs=true",
        "-b",
        &kafka.bootstrap,
        "-t",
        topic,
    ]);
    let text = run(kcat.args(["-f", "%T %K:%k %S:%s %h\n"]));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3004, "{topic}");
    assert_eq!(lines[0], "1700000000123 1:k 1:v h=1,h=2,n=NULL");
    assert_eq!(lines[1], "1700000000123 -1: 6:no key =");
    assert_eq!(lines[2], "1700000000123 8:no value -1: ");
    assert_eq!(lines[3], "1700000000123 0: 0: ü=ß");
    assert_eq!(
        lines[3003],
        format!("1700000000123 4:2999 80:{:0>80} ", 2999)
    );
}

fn check_with_java(kafka: &Kafka, topic: &str) {
    let show = [
        "--topic",
        topic,
        "--partition",
        "0",
        "--offset",
        "earliest",
        "--max-messages",
        "3004",
        "--timeout-ms",
        "60000",
        "--formatter-property",
        "print.key=true",
        "--formatter-property",
        "print.headers=true",
        "--formatter-property",
        "print.timestamp=true",
        "--formatter-property",
        "null.literal=NULL",
    ];
    let text = kafka.tool("consume", &show);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("CreateTime"))
        .collect();
    assert_eq!(lines.len(), 3004, "{topic}");
    assert_eq!(lines[0], "CreateTime:1700000000123\th:1,h:2,n:NULL\tk\tv");
    assert_eq!(lines[1], "CreateTime:1700000000123\t:\tNULL\tno key");
    assert_eq!(
        lines[2],
        "CreateTime:1700000000123\tNO_HEADERS\tno value\tNULL"
    );
    assert_eq!(lines[3], "CreateTime:1700000000123\tü:ß\t\t");
    let last = format!("CreateTime:1700000000123\tNO_HEADERS\t2999\t{:0>80}", 2999);
    assert_eq!(lines[3003], last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_recognise_what_they_have_and_refuse_gaps_and_old_epochs() {
    let kafka = Kafka::shared();
    let client = client(kafka);
    let (producer, epoch) = client.init_producer_id().await.unwrap();
    let (other, _) = client.init_producer_id().await.unwrap();
    assert!(producer >= 0 && epoch == 0 && other != producer);
    let topic = topic(&client, "sequences", 2).await;
    let mut sender = Sender::new(&client, &topic);
    assert_eq!(sender.send(id(producer, 0, 0), 3).await, (0, 0));
    assert_eq!(sender.send(id(producer, 0, 3), 2).await, (0, 3));
    assert_eq!(sender.send(id(producer, 0, 0), 3).await, (0, 0), "a repeat");
    assert_eq!(sender.send(id(producer, 0, 6), 1).await.0, 45, "a gap");
    assert_eq!(
        sender.send(id(producer, 0, 0), 2).await.0,
        45,
        "other boundaries"
    );
    assert_eq!(
        sender.send(id(producer, 5, 0), 1).await,
        (0, 5),
        "a new epoch"
    );
    assert_eq!(
        sender.send(id(producer, 0, 5), 1).await.0,
        47,
        "the old epoch"
    );
    assert_eq!(
        sender.send(id(other, 0, i32::MAX - 1), 4).await,
        (0, 6),
        "over the wrap"
    );
    assert_eq!(sender.send(id(other, 0, 2), 1).await, (0, 10));

    let asked = [
        (Arc::clone(&topic), 1),
        ("no-such-topic".into(), 0),
        (topic, 0),
    ];
    let mut told = client.describe_producers(NODE, &asked).await.unwrap();
    assert_eq!((&told[0], &told[1]), (&Ok(Vec::new()), &Err(3)));
    let states = told[2].as_mut().unwrap();
    states.sort_by_key(|state| state.producer_id);
    let states: Vec<_> = states
        .iter()
        .map(|state| (state.producer_id, state.epoch, state.last_sequence))
        .collect();
    assert_eq!(states, [(producer, 5, 0), (other, 0, 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_many_partitions_are_in_the_order_of_the_request() {
    let kafka = Kafka::shared();
    let client = client(kafka);
    let topics = [
        topic(&client, "many-a", 40).await,
        topic(&client, "many-b", 40).await,
    ];
    let mut batches = Vec::new();
    for partition in (0..40).rev() {
        for topic in &topics {
            let mut sender = Sender::new(&client, topic);
            sender.partition = partition;
            // A gap behind nothing is accepted, so only odd ones get a first batch here.
            if partition % 2 == 1 {
                assert_eq!(sender.send(id(7, 0, 0), partition).await, (0, 0));
            }
            batches.push(sender.batch(id(7, 0, partition), 1));
        }
    }
    let (answers, throttle) = client
        .produce(NODE, Road::Slow, batches.clone())
        .await
        .unwrap();
    assert_eq!(throttle, Duration::ZERO);
    for (batch, answer) in batches.iter().zip(answers) {
        let offset = if batch.partition % 2 == 1 {
            batch.partition
        } else {
            0
        };
        assert_eq!((answer.code, answer.base_offset), (0, offset.into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_made_when_told_and_never_by_asking() {
    let kafka = Kafka::start(1, &["auto.create.topics.enable=true"]);
    let client = client(&kafka);
    let missing = client.topic("missing", false).await.unwrap();
    assert_eq!((missing.code, missing.leaders.len()), (3, 0));
    let missing = client.topic("missing", true).await.unwrap();
    assert_eq!(missing.code, 3);
    assert!(!kafka.tool("topics", &["--list"]).contains("missing"));
    assert!(matches!(
        client.topic_limits("missing").await,
        Err(Error::Code { code: 3, .. })
    ));

    let configs = [
        ("max.message.bytes", "123456"),
        ("retention.ms", "-1"),
        ("message.timestamp.after.max.ms", "3600000"),
    ];
    let configs = configs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let make = || client.create_topic("made", 3, 1, &configs);
    assert_eq!(make().await.unwrap(), CreateOutcome::Created);
    assert_eq!(make().await.unwrap(), CreateOutcome::Exists);
    let limits = client.topic_limits("made").await.unwrap();
    assert_eq!(limits.message_bytes_max, Some(123_456));
    assert_eq!(
        (limits.min_insync_replicas, limits.retention_ms),
        (Some(1), Some(-1))
    );
    assert_eq!(limits.timestamp_after_max_ms, Some(3_600_000));
    assert_eq!(limits.timestamp_before_max_ms, Some(i64::MAX));
    let refused = client.create_topic("a/b", 1, 1, &[]).await;
    assert!(matches!(refused, Err(Error::Code { code: 17, .. })));

    let listed = run(std::process::Command::new("kcat").args(["-L", "-J", "-b", &kafka.bootstrap]));
    let id = client.cluster_id().await.unwrap();
    assert!(id.len() == 22 && !listed.contains("\"topic\":\"missing\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_anew_has_another_id_and_batches_for_the_old_one_are_refused() {
    let kafka = Kafka::shared();
    let client = client(kafka);
    let name = topic(&client, "again", 1).await;
    let mut sender = Sender::new(&client, &name);
    let old = sender.batch(id(8, 0, 0), 1);
    kafka.tool("topics", &["--delete", "--topic", "again"]);
    let end = Instant::now() + Duration::from_secs(20);
    while client.create_topic("again", 1, 1, &[]).await.ok() != Some(CreateOutcome::Created) {
        assert!(Instant::now() < end, "the old topic does not go");
    }
    let answer = loop {
        let (answers, _) = client
            .produce(NODE, Road::Main, vec![old.clone()])
            .await
            .unwrap();
        if answers[0].code != 0 || Instant::now() > end {
            break answers[0].clone();
        }
    };
    assert_eq!(answer.code, 100);
    assert!(client.leader("again", 0).is_none());
    let new = client.topic("again", true).await.unwrap();
    assert_ne!(new.id, old.topic_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_searched_by_batch_headers() {
    let kafka = Kafka::shared();
    let client = client(kafka);
    let topic = topic(&client, "headers", 1).await;
    let mut sender = Sender::new(&client, &topic);
    for n in 0..20 {
        assert_eq!(
            sender
                .send(id(30 + i64::from(n % 2), 4, n / 2 * 5), 5)
                .await
                .0,
            0
        );
    }
    assert_eq!(
        client
            .list_offsets(NODE, &topic, 0, Which::Earliest)
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        client
            .list_offsets(NODE, &topic, 0, Which::Latest)
            .await
            .unwrap(),
        100
    );
    assert_eq!(client.log_end(NODE, &topic, 0).await.unwrap(), 100);
    let mut from = 12;
    let mut found = Vec::new();
    loop {
        let (headers, end) = client
            .batch_headers(NODE, (&topic, 0), from, 400)
            .await
            .unwrap();
        assert_eq!(end, 100);
        let Some(last) = headers.last() else { break };
        from = last.last_offset + 1;
        found.extend(headers);
    }
    assert_eq!((found.len(), found[0].base_offset, from), (18, 10, 100));
    for header in found {
        let n = i32::try_from(header.base_offset / 5).unwrap();
        assert_eq!(
            (header.producer_id, header.epoch),
            (30 + i64::from(n % 2), 4)
        );
        assert_eq!(
            (header.base_sequence, header.last_sequence),
            (n / 2 * 5, n / 2 * 5 + 4)
        );
    }
    let beyond = client.batch_headers(NODE, (&topic, 0), 101, 400).await;
    assert!(matches!(beyond, Err(Error::Code { code: 1, .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_dropped_do_not_break_the_connection() {
    let kafka = Kafka::shared();
    let client = client(kafka);
    let topic = topic(&client, "dropped", 1).await;
    let mut sender = Sender::new(&client, &topic);
    for n in 0..200 {
        let batch = sender.batch(id(50, 0, n), 1);
        let call = client.produce(NODE, Road::Main, vec![batch.clone()]);
        let time = Duration::from_micros(u64::try_from(n % 40).unwrap() * 50);
        if tokio::time::timeout(time, call).await.is_err() {
            // Sent or not: the same batch again is what the engine does.
            let (answers, _) = client.produce(NODE, Road::Main, vec![batch]).await.unwrap();
            assert_eq!((answers[0].code, answers[0].base_offset), (0, n.into()));
        }
    }
    assert_eq!(
        client
            .list_offsets(NODE, &topic, 0, Which::Latest)
            .await
            .unwrap(),
        200
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_and_comes_back_is_used_again() {
    let kafka = Kafka::start(1, &[]);
    let client = client(&kafka);
    let topic = topic(&client, "killed", 1).await;
    let mut sender = Sender::new(&client, &topic);
    assert_eq!(sender.send(id(1, 0, 0), 1).await, (0, 0));
    kafka.cluster("kill", &["1"]);
    let began = Instant::now();
    let error = sender.try_send(id(1, 0, 1), 1).await.unwrap_err();
    assert!(
        matches!(error, Error::Connect { .. } | Error::Lost { .. }),
        "{error}"
    );
    let error = sender.try_send(id(1, 0, 1), 1).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert!(client.leader(&topic, 0).is_none());
    let error = client.topic(&topic, true).await.unwrap_err();
    assert!(matches!(error, Error::NoBroker(_)), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
    kafka.cluster("restart", &["1"]);
    let end = Instant::now() + Duration::from_secs(30);
    while client.leader(&topic, 0).is_none() {
        assert!(Instant::now() < end, "no leader");
        drop(client.topic(&topic, true).await);
    }
    while sender
        .try_send(id(1, 0, 1), 1)
        .await
        .map(|answer| answer.code)
        .ok()
        != Some(0)
    {
        assert!(Instant::now() < end, "nothing is taken");
    }
    assert_eq!(
        client
            .list_offsets(NODE, &topic, 0, Which::Latest)
            .await
            .unwrap(),
        2
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_costs_the_deadline_and_no_more() {
    let kafka = Kafka::start(1, &["broker.session.timeout.ms=60000"]);
    let client = client(&kafka);
    let topic = topic(&client, "hangs", 1).await;
    let mut sender = Sender::new(&client, &topic);
    assert_eq!(sender.send(id(1, 0, 0), 1).await, (0, 0));
    kafka.cluster("pause", &["1"]);
    let began = Instant::now();
    let error = sender.try_send(id(1, 0, 1), 1).await.unwrap_err();
    assert!(matches!(error, Error::Lost { .. }), "{error}");
    let took = began.elapsed();
    assert!((4.9..6.0).contains(&took.as_secs_f64()), "{took:?}");
    // It accepts connections, the kernel does that; and says nothing on them.
    let error = sender.try_send(id(1, 0, 1), 1).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(12));
    kafka.cluster("cont", &["1"]);
    client.topic(&topic, true).await.unwrap();
    assert_eq!(sender.send(id(1, 0, 1), 1).await, (0, 1));
    client.close().await;
    let error = sender.try_send(id(1, 0, 2), 1).await.unwrap_err();
    assert!(matches!(error, Error::NoBroker(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_brokers_hanging_does_not_keep_metadata_from_coming() {
    let kafka = Kafka::start(3, &[]);
    let client = client(&kafka);
    let topic = topic(&client, "three", 6).await;
    let mut sender = Sender::new(&client, &topic);
    for node in ["1", "2", "3"] {
        kafka.cluster("pause", &[node]);
        let began = Instant::now();
        // Ten askers, one request.
        let asked = (0..10).map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.topic("three", true).await.unwrap() })
        });
        for answer in asked.collect::<Vec<_>>() {
            assert_eq!(answer.await.unwrap().leaders.len(), 6);
        }
        assert!(
            began.elapsed() < Duration::from_secs(9),
            "{:?}",
            began.elapsed()
        );
        kafka.cluster("cont", &[node]);
    }
    let end = Instant::now() + Duration::from_secs(30);
    for partition in 0..6 {
        sender.partition = partition;
        while sender
            .try_send(id(1, 0, 0), 1)
            .await
            .map(|answer| answer.code)
            .ok()
            != Some(0)
        {
            assert!(Instant::now() < end, "nothing is taken");
            client.topic("three", true).await.unwrap();
        }
    }
}
