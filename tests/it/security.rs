//! TLS and SASL against a real Kafka: every mechanism, what is refused and how it is told, sessions
//! that end under load, and whole gateways behind them.
//!
//! `tests/kafka/secure.sh` says which listener asks for what, and who the users are.

mod gateway;
mod sessions;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tidegate::kafka::Compression;
use tidegate::kafka::batch::{BatchIdentity, Encoder};
use tidegate::kafka::client::{Client, ClientConfig, CreateOutcome, Error, ProduceBatch, Road};
use tidegate::kafka::security::Security;
use tidegate::kafka::security::sasl::oauth::Tokens;
use tidegate::kafka::security::sasl::{Hash, Login, Sasl};
use tidegate::kafka::security::tls::{Files, Tls};
use tidegate::record::RecordWriter;
use tidegate::secret::{Secret, Source};

use crate::harness::Kafka;

fn client(bootstrap: &str, security: Security) -> Client {
    Client::new(ClientConfig {
        bootstrap_servers: bootstrap.split(',').map(str::to_owned).collect(),
        client_id: "tidegate-test".into(),
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(5),
        server_timeout: Duration::from_secs(3),
        metadata_interval: Duration::from_millis(100),
        response_bytes_max: 8 << 20,
        security,
    })
}

fn login(username: &str, password: &str) -> Login {
    Login {
        username: username.into(),
        password: Source::Value(Secret::new(password.into())),
    }
}

fn sasl(mechanism: &str, password: &str) -> Sasl {
    match mechanism {
        "PLAIN" => Sasl::Plain(login("alice", password)),
        "SCRAM-SHA-256" => Sasl::Scram(Hash::Sha256, login("carol", password)),
        "SCRAM-SHA-512" => Sasl::Scram(Hash::Sha512, login("carol", password)),
        other => panic!("{other}"),
    }
}

/// The right credentials for a mechanism.
fn good(mechanism: &str, kafka: &Kafka) -> Sasl {
    match mechanism {
        "PLAIN" => sasl(mechanism, "alice-secret"),
        "OAUTHBEARER" => bearer(token_file(kafka, "admin")),
        _ => sasl(mechanism, "carol-secret"),
    }
}

fn bearer(file: PathBuf) -> Sasl {
    Sasl::OauthBearer {
        tokens: Tokens::File(file),
        extensions: [("traceId".to_owned(), "it-1".to_owned())].into(),
    }
}

/// A file with an unsecured token, as Kafka's own test validator takes it.
fn token_file(kafka: &Kafka, name: &str) -> PathBuf {
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    let claims = format!("{{\"sub\":{name:?},\"iat\":{now},\"exp\":{}}}", now + 3600);
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let token = format!("{}.{}.", part("{\"alg\":\"none\"}"), part(&claims));
    let path = kafka.file(&format!("token-{name}"));
    std::fs::write(&path, token + "\n").unwrap();
    path
}

fn tls_files(kafka: &Kafka, ca: &str) -> Files {
    Files {
        ca_file: Some(kafka.file(&format!("tls/{ca}.pem"))),
        identity: None,
    }
}

fn tls(files: Files, server_name: Option<&str>) -> Option<Arc<Tls>> {
    Some(Tls::new(files, server_name, "ca_file").unwrap().into())
}

fn trusting(kafka: &Kafka) -> Option<Arc<Tls>> {
    tls(tls_files(kafka, "ca"), None)
}

/// Produces records one by one; how many were taken.
struct Stream {
    client: Client,
    topic: Arc<str>,
    sent: i32,
}

impl Stream {
    /// A topic of its own with one partition; its records carry `id`.
    async fn open(client: Client, name: &str) -> Self {
        let made = client.create_topic(name, 1, 1, &[]).await.unwrap();
        assert_eq!(made, CreateOutcome::Created);
        let end = Instant::now() + Duration::from_secs(20);
        let mut stream = Self {
            client,
            topic: name.into(),
            sent: 0,
        };
        while stream.send().await.is_err() {
            assert!(Instant::now() < end, "{name} is not ready");
            drop(stream.client.topic(name, true).await);
        }
        stream
    }

    async fn send(&mut self) -> Result<(), String> {
        let (node, topic_id) = self.client.leader(&self.topic, 0).ok_or("no leader")?;
        let id = BatchIdentity {
            producer_id: 77,
            epoch: 0,
            base_sequence: self.sent,
        };
        let record = RecordWriter::new(None, Some(b"x")).finish(1_700_000_000_000);
        let mut encoder = Encoder::new(Compression::None, None);
        let batch = ProduceBatch {
            topic: Arc::clone(&self.topic),
            topic_id,
            partition: 0,
            records: encoder.encode([&record].into_iter(), id, None).unwrap(),
        };
        let answers = self.client.produce(node, Road::Main, vec![batch]).await;
        let (answers, _) = answers.map_err(|error| error.to_string())?;
        if answers[0].code != 0 {
            return Err(format!("code {}", answers[0].code));
        }
        assert_eq!(answers[0].base_offset, i64::from(self.sent));
        self.sent += 1;
        Ok(())
    }
}

/// Local ports of the open connections to `port`, as the kernel tells them.
fn connections(port: &str) -> HashSet<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let wanted = format!(":{:04X}", port.parse::<u16>().unwrap());
    let rows = table.lines().skip(1);
    let rows = rows.map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[2].ends_with(&wanted) && row[3] == "01")
        .map(|row| row[1].to_owned())
        .collect()
}

fn port(address: &str) -> &str {
    address.rsplit_once(':').unwrap().1
}

async fn refusal(client: &Client) -> String {
    match client.cluster_id().await {
        Err(Error::NoBroker(why)) => why,
        other => panic!("{other:?}"),
    }
}

const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mechanism_is_taken_without_and_with_tls() {
    let kafka = Kafka::shared_secure();
    for (listener, encrypted) in [("SASL", false), ("SASL_SSL", true)] {
        for mechanism in MECHANISMS {
            let security = Security {
                tls: encrypted.then(|| trusting(kafka)).flatten(),
                sasl: Some(good(mechanism, kafka).into()),
            };
            let client = client(&kafka.listener(listener), security);
            let began = Instant::now();
            client.cluster_id().await.unwrap();
            let took = began.elapsed();
            let mut stream = Stream::open(client, &format!("{listener}-{mechanism}")).await;
            for _ in 0..10 {
                stream.send().await.unwrap();
            }
            eprintln!(
                "{listener} {mechanism}: connected in {took:?}, {} sent",
                stream.sent
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_both_sides_are_shown_and_checked() {
    let kafka = Kafka::shared_secure();
    let mut mutual = tls_files(kafka, "ca");
    mutual.identity = Some((kafka.file("tls/client.pem"), kafka.file("tls/client.key")));
    let by_name = kafka.listener("SSL").replace("127.0.0.1", "localhost");
    for (what, listener, tls) in [
        ("own authority", kafka.listener("SSL"), trusting(kafka)),
        ("by name", by_name, trusting(kafka)),
        ("IPv6", kafka.listener("SIX"), trusting(kafka)),
        (
            "client certificate",
            kafka.listener("MTLS"),
            tls(mutual, None),
        ),
        (
            "server name",
            kafka.listener("OTHER"),
            tls(tls_files(kafka, "ca"), Some("other.test")),
        ),
    ] {
        let client = client(&listener, Security { tls, sasl: None });
        client
            .cluster_id()
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let topic = format!("tls-{}", what.replace(' ', "-"));
        let mut stream = Stream::open(client, &topic).await;
        stream.send().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_right_is_told_by_what_is_wrong() {
    let kafka = Kafka::shared_secure();
    let stranger = tls(tls_files(kafka, "stranger"), None);
    let elsewhere = tls(tls_files(kafka, "ca"), Some("else.test"));
    for (listener, tls, words) in [
        (
            "SSL",
            stranger,
            "UnknownIssuer (does ca_file hold the authority",
        ),
        ("EXPIRED", trusting(kafka), "certificate expired"),
        (
            "OTHER",
            trusting(kafka),
            "is only valid for DnsName(\"other.test\")",
        ),
        (
            "SSL",
            elsewhere,
            "TLS with else.test: invalid peer certificate",
        ),
        (
            "MTLS",
            trusting(kafka),
            "(the broker refuses, or lacks, this client's certificate",
        ),
        ("SASL", trusting(kafka), "is this a TLS listener?"),
    ] {
        let client = client(&kafka.listener(listener), Security { tls, sasl: None });
        let why = refusal(&client).await;
        eprintln!("{listener}: {why}");
        assert!(why.contains(words), "{listener}: {why}");
    }
    let plain = client(&kafka.listener("SSL"), Security::default());
    let why = refusal(&plain).await;
    assert!(why.contains("TLS: this listener asks for it"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_are_wrong_are_refused_in_words() {
    let kafka = Kafka::shared_secure();
    let mut cases: Vec<(&str, Sasl, &str)> = MECHANISMS
        .into_iter()
        .take(3)
        .map(|mechanism| ("SASL_SSL", sasl(mechanism, "wrong"), "(error 58)"))
        .collect();
    let nonsense = kafka.file("token-nonsense");
    std::fs::write(&nonsense, "a.b.c").unwrap();
    cases.push((
        "SASL_SSL",
        bearer(nonsense),
        "refuses the token: {\"status\":\"invalid_token\"}",
    ));
    cases.push((
        "SASL_SSL",
        bearer(kafka.file("token-none")),
        "token: cannot read",
    ));
    cases.push((
        "OIDC",
        good("PLAIN", kafka),
        "the broker takes only OAUTHBEARER",
    ));
    cases.push((
        "SSL",
        good("PLAIN", kafka),
        "SASL PLAIN: this listener asks for no SASL",
    ));
    for (listener, sasl, words) in cases {
        let security = Security {
            tls: trusting(kafka),
            sasl: Some(sasl.into()),
        };
        let why = refusal(&client(&kafka.listener(listener), security)).await;
        eprintln!("{listener}: {why}");
        assert!(why.contains(words), "{listener}: {why}");
        assert!(!why.contains("wrong"), "{why}");
    }
    let silent = client(&kafka.listener("SASL"), Security::default());
    eprintln!("no SASL: {:?}", silent.cluster_id().await.unwrap_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_change_are_used_and_bad_ones_are_not() {
    let kafka = Kafka::shared_secure();
    let ca = kafka.file("changing.pem");
    let put = |name: &str| {
        let text = std::fs::read(kafka.file(&format!("tls/{name}"))).unwrap();
        std::fs::write(&ca, text).unwrap();
    };
    put("stranger.pem");
    let files = Files {
        ca_file: Some(ca.clone()),
        identity: None,
    };
    let tls = tls(files, None);
    let ask = || {
        let tls = tls.clone();
        let client = client(&kafka.listener("SSL"), Security { tls, sasl: None });
        async move { client.cluster_id().await.map(drop) }
    };
    assert!(ask().await.is_err());
    put("ca.pem");
    ask().await.unwrap();
    put("log"); // no PEM: what was read last stays in use
    ask().await.unwrap();
}
