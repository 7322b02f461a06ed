//! Who has sent what (DESIGN.md 2.2), on three brokers: data that was copied, a gateway and a
//! leader that die together, a leader that lacks what was confirmed, a topic that grows, a first
//! start without Kafka, another cluster.
//!
//! What is left to other tests: expired identities and deleted topics (`uplink`, on one broker),
//! the other engine (`at_least_once`).

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::gateway::binary;
use crate::harness::{Gateway, Kafka, Load, oracle, pause, run, wait};

const CONFIG: &str = r#"
[gateway]
log_filter = "tidegate::uplink=debug,info"
[kafka]
connect_timeout_ms = 2000
request_timeout_ms = 6000
server_timeout_ms = 3000
retry_backoff_max_ms = 1000
[proxy]
default_topic = "TOPIC"
"#;
const LOAD: &str = "--clients 10 --topics 30 --rate 800 --processes 1 --drain 120";

#[test]
fn a_cluster_of_three_brokers_keeps_identities_apart() {
    let begun = Instant::now();
    let kafka = Kafka::start(3, &["auto.leader.rebalance.enable=false"]);
    let topics = ["copied", "twin", "together", "first", "exchanged"];
    kafka.create_topics(topics, 6);
    copied(&kafka);
    gateway_and_leader_killed_together(&kafka);
    first_start_without_kafka(&kafka);
    grown(&kafka);
    unclean(&kafka);
    // Ends this cluster.
    exchanged(&kafka);
    eprintln!("{:.0} s", begun.elapsed().as_secs_f64());
}

fn gateway(kafka: &Kafka, topic: &str, more: &str) -> Gateway {
    let config = CONFIG.replace("TOPIC", topic);
    Gateway::new(&kafka.bootstrap, &format!("{config}{more}"))
}

/// Starts it as a device of that name.
fn start_as(gateway: &mut Gateway, device: &str) {
    gateway.launch(Command::new(binary()).env("TIDEGATE_DEVICE", device));
    gateway.wait_ready();
}

fn log(gateway: &Gateway) -> String {
    std::fs::read_to_string(gateway.log_path()).unwrap()
}

/// What the log says behind `field=`, line by line, of lines that have `words`.
fn told(gateway: &Gateway, words: &str, field: &str) -> Vec<i64> {
    let log = log(gateway);
    let lines = log.lines().filter(|line| line.contains(words));
    let values = lines.filter_map(|line| {
        let (_, value) = line.split_once(&format!(" {field}="))?;
        value.split_whitespace().next()?.parse().ok()
    });
    values.collect()
}

fn producer_ids(gateway: &Gateway) -> Vec<i64> {
    told(gateway, "run has its identity", "producer_id")
}

fn stop_all_acked(load: Load) {
    let done = load.stop();
    assert_eq!(done.acked, done.sent);
}

/// A card image of a gateway with a backlog starts on another device, and a folder is copied on the
/// same one: the original keeps its producer id, the copies take others, and the backlog that all
/// have is there once, or as often as was counted.
fn copied(kafka: &Kafka) {
    let mut original = gateway(kafka, "copied", "");
    start_as(&mut original, "one");
    let load = Load::start(&original, "copied", LOAD);
    let mut ledgers = vec![load.ledger.clone()];
    original.wait_figure("sent_total", 60, |n| n >= 1_000.0);
    kafka.cluster("cut", &["drop"]);
    original.wait_figure("disk_written_records_total", 60, |n| n >= 2_000.0);
    stop_all_acked(load);
    let backlog = original.metrics().of("buffered_records");
    original.kill9();
    let mut copies = [gateway(kafka, "copied", ""), gateway(kafka, "copied", "")];
    for copy in &copies {
        copy_folder(&original.data_dir(), &copy.data_dir());
    }
    kafka.cluster("heal", &[]);
    start_as(&mut original, "one");
    start_as(&mut copies[0], "two");
    copies[1].up();
    let all = [&original, &copies[0], &copies[1]];
    let loads = [(0, "copied-a"), (1, "copied-b"), (2, "copied-c")]
        .map(|(at, name)| Load::start(all[at], name, &format!("{LOAD} --prefix copied")));
    for (load, gateway) in loads.into_iter().zip(all) {
        load.wait_acked(500, 60);
        ledgers.push(load.ledger.clone());
        stop_all_acked(load);
        gateway.wait_drained(60);
    }
    let [first, ids @ ..] = all.map(producer_ids);
    eprintln!("copied: producer ids {first:?}, of the copies {ids:?}");
    assert!(
        first.iter().all(|id| *id == first[0]),
        "the original has changed its id"
    );
    assert!(
        ids.iter().all(|ids| *ids.last().unwrap() != first[0]),
        "a copy has kept the id"
    );
    assert_ne!(ids[0].last(), ids[1].last());
    let said = "the data folder was copied";
    assert!(
        log(all[1]).contains(said) && log(all[2]).contains(said) && !log(all[0]).contains(said)
    );
    let twice: f64 = all
        .iter()
        .map(|one| one.metrics().of("maybe_twice_total"))
        .sum();
    eprintln!("copied: a backlog of {backlog}, three gateways with it");
    let ledgers: Vec<&Path> = ledgers.iter().map(|path| &**path).collect();
    oracle::check(kafka, &ledgers, "--topic copied").expect_counted("copied", twice);
    twin(kafka, copies.into_iter().next().unwrap());
}

/// Two that nothing tells apart, the second started from a copy of the first as it ran: the first
/// is fenced and takes another id.
fn twin(kafka: &Kafka, mut first: Gateway) {
    first.stop();
    let config = std::fs::read_to_string(first.config_path()).unwrap();
    std::fs::write(
        first.config_path(),
        config.replace("\"copied\"", "\"twin\""),
    )
    .unwrap();
    start_as(&mut first, "two");
    let load = Load::start(&first, "twin-a", &format!("{LOAD} --prefix twin"));
    first.wait_figure("sent_total", 60, |n| n >= 1_000.0);
    let mut second = gateway(kafka, "twin", "");
    // Between two writes of a running gateway: as a card that is read while it is in use.
    copy_folder(&first.data_dir(), &second.data_dir());
    start_as(&mut second, "two");
    let other = Load::start(&second, "twin-b", &format!("{LOAD} --prefix twin"));
    wait("the first is fenced", 60, || {
        log(&first)
            .contains("another gateway writes under our producer id")
            .then_some(())
    });
    other.wait_acked(1_000, 60);
    load.wait_acked(1_000, 60);
    let ledgers = [load.ledger.clone(), other.ledger.clone()];
    stop_all_acked(load);
    stop_all_acked(other);
    let twice = [&first, &second].map(|gateway| {
        gateway.wait_drained(60);
        gateway.metrics().of("maybe_twice_total")
    });
    let ledgers: Vec<&Path> = ledgers.iter().map(|path| &**path).collect();
    let verdict = oracle::check(kafka, &ledgers, "--topic twin");
    verdict.expect_counted("twin", twice.iter().sum());
}

fn copy_folder(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// Each time the cursor is behind what Kafka has, and the leader that knows where is another.
fn gateway_and_leader_killed_together(kafka: &Kafka) {
    let mut gateway = gateway(kafka, "together", "[spool]\nmode = \"always\"");
    gateway.up();
    let load = Load::start(&gateway, "together", LOAD);
    let mut resumed = 0.0;
    // How many streams have something on disk that is not known to be in Kafka is chance.
    for (round, node) in [3, 1, 2].into_iter().cycle().take(9).enumerate() {
        if round >= 3 && resumed >= 6.0 {
            break;
        }
        gateway.wait_figure("sent_total", 60, |n| n >= 1_000.0);
        std::thread::scope(|scope| {
            scope.spawn(|| kafka.each("kill", &[node]));
            gateway.kill9();
        });
        gateway.up();
        gateway.wait_figure("sent_total", 60, |n| n >= 1_000.0);
        gateway.wait_figure("buffered_records", 60, |n| n < 100.0);
        resumed += gateway.metrics().of("streams_resumed_total");
        kafka.each("restart", &[node]);
    }
    let stale: i64 = told(&gateway, ": resumed ", "records").iter().sum();
    eprintln!("together: {resumed} streams resumed, cursors stale by {stale} records in all");
    assert!(resumed >= 6.0 && stale > 0, "the fault did not bite");
    let ledger = load.ledger.clone();
    stop_all_acked(load);
    gateway.wait_drained(60);
    assert_eq!(gateway.metrics().of("maybe_twice_total"), 0.0);
    let verdict = oracle::check(kafka, &[&ledger], "--topic together --partitions-like-java");
    verdict.expect_clean("gateway and leader killed together");
}

/// Partitions are unknown, so records wait in a provisional stream; killed there, and several times
/// while they are dealt out.
fn first_start_without_kafka(kafka: &Kafka) {
    kafka.cluster("cut", &["reset"]);
    let mut gateway = gateway(kafka, "first", "");
    gateway.up();
    let load = Load::start(&gateway, "first", &format!("{LOAD} --rate 3000"));
    load.wait_acked(8_000, 60);
    gateway.kill9();
    gateway.up();
    load.wait_acked(8_000, 60);
    let ledger = load.ledger.clone();
    stop_all_acked(load);
    let streams = gateway.metrics().of("streams");
    kafka.cluster("heal", &[]);
    let mut while_dealing = 0;
    for round in 0..8 {
        let dealt = wait("a deal", 60, || {
            let now = gateway.metrics();
            (now.of("streams") > streams || now.of("buffered_records") == 0.0).then_some(now)
        });
        pause(Duration::from_millis(5 * round));
        if dealt.of("buffered_records") == 0.0 {
            break;
        }
        gateway.kill9();
        while_dealing += 1;
        gateway.up();
    }
    eprintln!("first start: killed {while_dealing} times while records were dealt out and sent");
    assert!(while_dealing >= 1, "the fault did not bite");
    gateway.wait_drained(60);
    assert_eq!(gateway.metrics().of("maybe_twice_total"), 0.0);
    let verdict = oracle::check(kafka, &[&ledger], "--topic first --partitions-like-java");
    verdict.expect_clean("first start without Kafka");
}

/// A topic gets more partitions while there is a backlog, of which some was sent by the old count:
/// keys move to other partitions, and their order holds.
fn grown(kafka: &Kafka) {
    let create = ["--create", "--topic", "grown", "--partitions", "3"];
    let time = ["--config", "message.timestamp.type=LogAppendTime"];
    kafka.tool("topics", &[&create[..], &time].concat());
    let mut gateway = gateway(kafka, "grown", "");
    gateway.up();
    let load = Load::start(&gateway, "grown", LOAD);
    gateway.wait_figure("sent_total", 60, |n| n >= 1_000.0);
    let more = ["--alter", "--topic", "grown", "--partitions", "7"];
    kafka.tool("topics", &more);
    kafka.cluster("cut", &["drop"]);
    load.wait_acked(3_000, 60);
    // A start asks for the count; a running gateway does every five minutes.
    gateway.kill9();
    gateway.up();
    load.wait_acked(1_000, 60);
    kafka.cluster("heal", &[]);
    gateway.wait_figure("streams", 60, |n| n >= 7.0);
    load.wait_acked(1_000, 60);
    let ledger = load.ledger.clone();
    stop_all_acked(load);
    gateway.wait_drained(60);
    let offsets = kafka.tool("offsets", &["--topic", "grown"]);
    let used = offsets.lines().filter(|line| !line.ends_with(":0")).count();
    eprintln!("grown: records on {used} partitions");
    assert!(used > 3, "no key has moved");
    assert_eq!(gateway.metrics().of("maybe_twice_total"), 0.0);
    oracle::check(kafka, &[&ledger], "--topic grown --by-time").expect_clean("grown");
}

/// The leader dies alone with what it had confirmed alone, and one that lacks it is made leader:
/// the ledger says which records that were, and what is new flows on.
fn unclean(kafka: &Kafka) {
    let create = [
        "--create",
        "--topic",
        "unclean",
        "--replica-assignment",
        "1:2,1:2",
    ];
    let weak = ["--config", "min.insync.replicas=1", "--config"];
    let unclean = ["unclean.leader.election.enable=true"];
    kafka.tool("topics", &[&create[..], &weak, &unclean].concat());
    let mut gateway = gateway(kafka, "unclean", "");
    gateway.up();
    let load = Load::start(&gateway, "unclean", LOAD);
    gateway.wait_figure("sent_total", 60, |n| n >= 1_000.0);
    kafka.each("kill", &[2]);
    let sent = gateway.metrics().of("sent_total");
    gateway.wait_figure("sent_total", 60, |n| n >= sent + 2_000.0);
    kafka.each("kill", &[1]);
    kafka.each("restart", &[2]);
    let elect = [
        "--election-type",
        "unclean",
        "--topic",
        "unclean",
        "--partition",
    ];
    for partition in ["0", "1"] {
        wait("an unclean leader", 60, || {
            let leader = kafka.leaders()[&format!("unclean {partition}")];
            if leader != 2 {
                kafka.tool("elect", &[&elect[..], &[partition]].concat());
            }
            (leader == 2).then_some(())
        });
    }
    let lost = gateway.wait_figure("lost_total{reason=\"kafka\"}", 60, |n| n > 0.0);
    load.wait_acked(1_000, 60);
    kafka.each("restart", &[1]);
    let ledger = load.ledger.clone();
    stop_all_acked(load);
    gateway.wait_drained(60);
    eprintln!("unclean: {lost:.0} records lost by Kafka, says the gateway");
    let arguments = format!("--topic unclean --metrics {}", gateway.metrics_url());
    let verdict = oracle::check(kafka, &[&ledger], &arguments);
    verdict.expect_counted("unclean", gateway.metrics().of("maybe_twice_total"));
    assert!(verdict.explained >= 1_000, "the fault did not bite");
    assert_eq!(
        verdict.ledger, verdict.explained,
        "in the ledger, but not missing"
    );
}

/// The gateway's cluster is gone for good and it is given another: what waited goes there.
fn exchanged(kafka: &Kafka) {
    let other = Kafka::start(1, &[]);
    other.create_topic("exchanged", 6);
    let mut gateway = gateway(kafka, "exchanged", "");
    gateway.up();
    let load = Load::start(&gateway, "before", &format!("{LOAD} --prefix exchanged"));
    gateway.wait_figure("sent_total", 60, |n| n >= 1_000.0);
    let before = load.ledger.clone();
    stop_all_acked(load);
    gateway.wait_drained(60);
    oracle::check(kafka, &[&before], "--topic exchanged").expect_clean("before the exchange");
    kafka.each("kill", &[1, 2, 3]);
    let load = Load::start(&gateway, "after", &format!("{LOAD} --prefix exchanged"));
    load.wait_acked(3_000, 60);
    let waiting = gateway.metrics().of("buffered_records");
    gateway.kill9();
    let config = std::fs::read_to_string(gateway.config_path()).unwrap();
    let mut table: toml::Table = config.parse().unwrap();
    table["kafka"]["bootstrap_servers"] = vec![other.bootstrap.clone()].into();
    std::fs::write(gateway.config_path(), table.to_string()).unwrap();
    gateway.up();
    load.wait_acked(1_000, 60);
    let after = load.ledger.clone();
    stop_all_acked(load);
    gateway.wait_drained(60);
    eprintln!("exchanged: {waiting} records waited for the first cluster");
    assert!(waiting >= 3_000.0, "the fault did not bite");
    assert_eq!(gateway.metrics().of("maybe_twice_total"), 0.0);
    oracle::check(&other, &[&after], "--topic exchanged").expect_clean("another cluster");
}
