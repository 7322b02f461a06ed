//! The image of a card (`cross/image`), booted in QEMU (`cross/boot`): from the network as a device
//! sees it, and from the card as a technician does.
//!
//! By command, for it takes minutes: `TIDEGATE_IMAGE=target/image/tidegate-0.1.0.img`, root;
//! `TIDEGATE_CARD_KILLS` is how often it is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Gateway, Kafka, Load, oracle, run};

/// Where the guest finds Kafka: an address of the host's loopback device.
const HOST: &str = "10.99.0.1";
const CONFIG: &str = "
[gateway]
data_dir = '/var/lib/tidegate'
[proxy]
listen = '0.0.0.0:1883'
allow_anonymous = true
[api]
listen = '0.0.0.0:8083'
[kafka.topic_creation]
partitions = 4
replication_factor = 1
";

/// A card with the image on it, larger than that.
struct Card {
    folder: tempfile::TempDir,
}

impl Card {
    fn new() -> Self {
        let image = std::env::var_os("TIDEGATE_IMAGE").expect("TIDEGATE_IMAGE names an image");
        let card = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let mut copy = Command::new("cp");
        run(copy
            .arg("--sparse=always")
            .arg(PathBuf::from(image))
            .arg(card.path()));
        run(Command::new("truncate").args(["-s", "1G"]).arg(card.path()));
        card
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("card")
    }

    /// Boots it with the gateway's configuration on the boot partition.
    fn boot(&self, gateway: &mut Gateway) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let ports = [gateway.mqtt, gateway.api].map(|at| at.port().to_string());
        let mut command = Command::new(root.join("cross/boot"));
        gateway.launch(command.arg(self.path()).args(ports));
        gateway.wait_ready_within(180);
    }

    /// A file of the boot partition; `None`: there is none.
    fn file(&self, name: &str) -> Option<String> {
        // Behind 4 MiB: cross/image.
        let partition = format!("{}@@4M", self.path().display());
        let mut mtype = Command::new("mtype");
        let output = mtype
            .args(["-i", &partition, &format!("::{name}")])
            .output();
        let output = output.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then_some(text)
    }
}

#[test]
#[ignore = "boots an image in QEMU twenty times: TIDEGATE_IMAGE=target/image/…"]
fn a_card_outlives_twenty_hard_kills_and_says_what_is_wrong_on_it() {
    run(Command::new("ip").args(["address", "replace", &format!("{HOST}/32"), "dev", "lo"]));
    let kafka = Kafka::start_at(HOST, 1, &[]);
    let card = Card::new();
    let mut gateway = Gateway::new(&kafka.bootstrap, CONFIG);
    card.boot(&mut gateway);
    let identity = card.file("tidegate-identity.txt").unwrap();
    for told in ["MQTT password  ", "certificate    ", "storage        "] {
        assert!(identity.contains(told), "{identity}");
    }
    assert_eq!(card.file("tidegate-error.txt"), None);

    let options = "--clients 5 --topics 20 --rate 200 --window 20 --size 150 --drain 300";
    let load = Load::start(&gateway, "card", options);
    let kills = std::env::var("TIDEGATE_CARD_KILLS").map_or(20, |kills| kills.parse().unwrap());
    let mut buffered = 0.0;
    for _ in 0..kills {
        load.wait_acked(200, 120);
        buffered += gateway.metrics().of("buffered_records");
        gateway.kill9();
        card.boot(&mut gateway);
    }
    let ledger = load.ledger.clone();
    let done = load.stop();
    assert_eq!(done.acked, done.sent);
    assert!(done.connects > kills, "the kills did not bite");
    gateway.wait_drained(300);
    eprintln!("{kills} kills with {buffered} records buffered in all");
    oracle::check(&kafka, &[&ledger], "--topic mqtt").expect_clean("a card");

    // What is wrong on the card is told there, and the last that was right is used.
    gateway.kill9();
    let right = fs::read_to_string(gateway.config_path()).unwrap();
    fs::write(gateway.config_path(), "[kafka]\nbootstrap = 3\n").unwrap();
    card.boot(&mut gateway);
    let error = card.file("tidegate-error.txt").unwrap();
    eprintln!("tidegate-error.txt:\n{error}");
    assert!(
        error.contains("tidegate.toml:2: kafka.bootstrap"),
        "{error}"
    );
    gateway.kill9();
    fs::write(gateway.config_path(), right).unwrap();
    card.boot(&mut gateway);
    assert_eq!(card.file("tidegate-error.txt"), None);
}
