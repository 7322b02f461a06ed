//! Sessions that end (KIP-368) and tokens of a provider.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use tidegate::kafka::security::sasl::oidc;

use super::*;
use crate::harness::tests_dir;

/// Four sessions of the listener `BRIEF`, each of which is used for its half.
const LOAD: Duration = Duration::from_secs(25);

/// `tests/kafka/idp`; ends with this value.
struct Provider {
    child: Child,
    url: String,
}

impl Provider {
    fn start(kafka: &Kafka, arguments: &[&str]) -> Self {
        let mut child = Command::new(tests_dir("kafka/idp"))
            .arg("serve")
            .arg(kafka.file("tls"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        let lines = child.stdout.take().unwrap();
        BufReader::new(lines).read_line(&mut url).unwrap();
        let url = url.trim().to_owned();
        Self { child, url }
    }

    fn sasl(&self, kafka: &Kafka, secret: &str) -> Sasl {
        let client = oidc::Client {
            id: "gate way".into(),
            secret: Source::Value(Secret::new(secret.into())),
            scope: Some("kafka".into()),
        };
        let tls = || Tls::new(tls_files(kafka, "ca"), None, "token_ca_file");
        Sasl::OauthBearer {
            tokens: Tokens::Provider(oidc::Provider::new(&self.url, client, tls).unwrap().into()),
            extensions: Default::default(),
        }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn requests(kafka: &Kafka) -> usize {
    let log = std::fs::read_to_string(kafka.file("tls/idp.log"));
    log.unwrap_or_default().lines().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_come_from_a_provider_are_kept_and_renewed() {
    let kafka = Kafka::shared_secure();
    let provider = Provider::start(kafka, &["--tls", "--life", "20"]);
    let secured = |secret| Security {
        tls: trusting(kafka),
        sasl: Some(provider.sasl(kafka, secret).into()),
    };
    let why = refusal(&client(&kafka.listener("OIDC"), secured("wrong"))).await;
    eprintln!("{why}");
    assert!(
        why.contains("HTTP 401 invalid_client who are you?"),
        "{why}"
    );
    let before = requests(kafka);
    let good = secured("gate:secret");
    let mut stream = Stream::open(client(&kafka.listener("OIDC"), good.clone()), "oidc").await;
    stream.send().await.unwrap();
    assert_eq!(requests(kafka) - before, 1, "two connections, one token");
    // Another client of the same settings asks again when the token has lived most of its life.
    let end = Instant::now() + Duration::from_secs(60);
    while requests(kafka) - before < 2 {
        let fresh = client(&kafka.listener("OIDC"), good.clone());
        fresh.cluster_id().await.unwrap();
        assert!(Instant::now() < end, "the token is never renewed");
    }
    drop(provider);
    let plain = Provider::start(kafka, &[]);
    let security = Security {
        tls: trusting(kafka),
        sasl: Some(plain.sasl(kafka, "gate:secret").into()),
    };
    let client = client(&kafka.listener("OIDC"), security);
    client.cluster_id().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_under_load_and_no_answer_is_lost() {
    let kafka = Kafka::shared_secure();
    let listener = kafka.listener("BRIEF");
    let mut running = Vec::new();
    for mechanism in MECHANISMS {
        let security = Security {
            tls: trusting(kafka),
            sasl: Some(good(mechanism, kafka).into()),
        };
        let client = client(&listener, security);
        for n in 0..3 {
            let topic = format!("brief-{mechanism}-{n}");
            let mut stream = Stream::open(client.clone(), &topic).await;
            running.push(tokio::spawn(async move {
                let end = Instant::now() + LOAD;
                let mut slowest = Duration::ZERO;
                while Instant::now() < end {
                    let began = Instant::now();
                    stream
                        .send()
                        .await
                        .unwrap_or_else(|why| panic!("{topic}: {why}"));
                    slowest = slowest.max(began.elapsed());
                }
                (stream.sent, slowest)
            }));
        }
    }
    let mut seen = HashSet::new();
    while running.iter().any(|stream| !stream.is_finished()) {
        seen.extend(connections(port(&listener)));
        tokio::task::spawn_blocking(|| crate::harness::pause(Duration::from_millis(100)))
            .await
            .unwrap();
    }
    let (mut sent, mut slowest) = (0, Duration::ZERO);
    for stream in running {
        let (more, slow) = stream.await.unwrap();
        sent += more;
        slowest = slowest.max(slow);
    }
    eprintln!(
        "{sent} requests of 4 clients in {LOAD:?}, none failed, slowest {slowest:?}; \
         {} connections",
        seen.len()
    );
    assert!(seen.len() >= 4 * 4, "sessions did not end: {}", seen.len());
}
