//! The image of a card (`cross/image`), booted in QEMU (`cross/boot`): from the network as a device
//! sees it, and from the card as a technician does.
//!
//! By command, for it takes minutes: `TIDEGATE_IMAGE=target/image/tidegate-0.1.0.img`, root;
//! `TIDEGATE_CARD_KILLS` is how often it is killed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::harness::gateway::Port;
use crate::harness::{Gateway, Kafka, Load, oracle, run, wait};

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

fn kafka() -> Kafka {
    run(Command::new("ip").args(["address", "replace", &format!("{HOST}/32"), "dev", "lo"]));
    Kafka::start_at(HOST, 1, &[])
}

/// A card with the image on it, larger than that.
struct Card {
    folder: tempfile::TempDir,
    /// What QEMU boots it on, and how long that may take until devices can connect, in seconds.
    machine: (&'static str, u64),
    /// Where its SSH is.
    ssh: Port,
}

fn image() -> PathBuf {
    PathBuf::from(std::env::var_os("TIDEGATE_IMAGE").expect("TIDEGATE_IMAGE names an image"))
}

fn script(name: &str) -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(name))
}

impl Card {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let card = Self {
            ssh: Port::take(folder.path()),
            folder,
            machine: ("virt", 180),
        };
        let mut copy = Command::new("cp");
        run(copy.arg("--sparse=always").arg(image()).arg(card.path()));
        run(Command::new("truncate").args(["-s", "1G"]).arg(card.path()));
        card
    }

    fn path(&self) -> PathBuf {
        self.in_folder("card")
    }

    fn in_folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The boot partition, for mtools: behind 4 MiB, by cross/image.
    fn boot_partition(&self) -> String {
        format!("{}@@4M", self.path().display())
    }

    /// Puts a public key on the boot partition.
    fn let_in(&self) {
        let key = self.in_folder("key");
        let mut keygen = Command::new("ssh-keygen");
        run(keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key));
        let mut put = Command::new("mcopy");
        put.args(["-o", "-i", &self.boot_partition()]);
        run(put
            .arg(key.with_extension("pub"))
            .arg("::authorized_keys.txt"));
    }

    /// Boots it with the gateway's configuration on the boot partition.
    fn boot(&self, gateway: &mut Gateway) {
        let ports = [gateway.mqtt, gateway.api].map(|at| at.port().to_string());
        let mut command = script("cross/boot");
        command
            .env("SSH_PORT", self.ssh.number().to_string())
            .env("MACHINE", self.machine.0);
        if self.machine.0 == "virt" {
            command.env("SERIAL", self.in_folder("serial"));
        }
        gateway.launch(command.arg(self.path()).args(ports));
        gateway.wait_ready_within(self.machine.1);
    }

    /// A file of the boot partition; `None`: there is none.
    fn file(&self, name: &str) -> Option<String> {
        let mut mtype = Command::new("mtype");
        let output = mtype
            .args(["-i", &self.boot_partition(), &format!("::{name}")])
            .output();
        let output = output.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then_some(text)
    }

    /// Runs a command on the device; what it printed, if it succeeded.
    fn ssh(&self, command: &str, stdin: Stdio) -> Result<String, String> {
        let mut ssh = Command::new("ssh");
        ssh.arg("-i").arg(self.in_folder("key"));
        for option in [
            "BatchMode=yes",
            "ConnectTimeout=20",
            "LogLevel=ERROR",
            "ServerAliveInterval=5",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.args([
            "-p",
            &self.ssh.number().to_string(),
            "root@127.0.0.1",
            command,
        ]);
        let output = ssh.stdin(stdin).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => Ok(text),
            false => Err(text + &String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// As [`Self::ssh`], once the device lets it.
    fn asked(&self, command: &str) -> String {
        let ask = || self.ssh(command, Stdio::null()).ok();
        wait(&format!("ssh: {command}"), 180, ask)
    }

    /// Waits until the slot runs, and is the one that stays.
    fn wait_slot(&self, slot: &str) {
        let state = format!("slot={slot}\ntrial=none\n");
        let begun = Instant::now();
        wait(&format!("slot {slot} runs and stays"), 600, || {
            let words = self.ssh("cat /proc/cmdline", Stdio::null()).ok()?;
            let runs = words.contains(&format!("rauc.slot={slot}"));
            (runs && self.file("slots.env")?.starts_with(&state)).then_some(())
        });
        eprintln!("slot {slot} runs and stays {:.0?} later", begun.elapsed());
    }

    /// Copies an update to the device and installs it; what was said.
    fn update(&self, bundle: &Path) -> Result<String, String> {
        let file = fs::File::open(bundle).unwrap();
        self.ssh("cat >/data/update.raucb", file.into())?;
        let begun = Instant::now();
        let said = self.ssh(
            "tidegate update --no-reboot /data/update.raucb 2>&1",
            Stdio::null(),
        );
        eprintln!("tidegate update took {:.0?}: {said:?}", begun.elapsed());
        said
    }
}

#[test]
#[ignore = "boots an image in QEMU twenty times: TIDEGATE_IMAGE=target/image/…"]
fn a_card_outlives_twenty_hard_kills_and_says_what_is_wrong_on_it() {
    let kafka = kafka();
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

#[test]
#[ignore = "boots an image in QEMU: TIDEGATE_IMAGE=target/image/…"]
fn a_raspberry_pi_3_boots_from_its_card() {
    let kafka = kafka();
    let card = Card {
        machine: ("raspi3b", 600),
        ..Card::new()
    };
    let mut gateway = Gateway::new(&kafka.bootstrap, CONFIG);
    let begun = Instant::now();
    card.boot(&mut gateway);
    eprintln!("devices can connect after {:.0?}", begun.elapsed());
    let options = "--clients 2 --topics 4 --rate 20 --window 5 --size 150 --drain 300";
    let load = Load::start(&gateway, "pi3", options);
    load.wait_acked(200, 300);
    let ledger = load.ledger.clone();
    let done = load.stop();
    assert_eq!(done.acked, done.sent);
    gateway.wait_drained(300);
    oracle::check(&kafka, &[&ledger], "--topic mqtt").expect_clean("a Raspberry Pi 3");
    assert_eq!(card.file("tidegate-error.txt"), None);
}

/// Updates of the image's own system: as it is, and broken in two ways.
struct Updates {
    good: PathBuf,
    folder: tempfile::TempDir,
}

impl Updates {
    fn new() -> Self {
        let updates = Self {
            good: image().with_extension("raucb"),
            folder: tempfile::tempdir().unwrap(),
        };
        let mut unpack = Command::new("unsquashfs");
        unpack.args(["-q", "-n", "-d"]).arg(updates.path("parts"));
        run(unpack.arg(&updates.good));
        updates
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An update of other parts, signed as the image's own is unless `key` is given.
    fn bundle(&self, name: &str, key: Option<[PathBuf; 2]>) -> PathBuf {
        let to = self.path(&format!("{name}.raucb"));
        let mut bundle = script("cross/bundle");
        bundle.arg(self.path("parts")).arg(name).arg(&to);
        if let Some([key, cert]) = key {
            bundle.env("UPDATE_KEY", key).env("UPDATE_CERT", cert);
        }
        run(&mut bundle);
        to
    }

    /// Its kernel is none.
    fn without_kernel(&self) -> PathBuf {
        let kernel = self.path("parts/vmlinuz");
        let kept = fs::read(&kernel).unwrap();
        fs::write(&kernel, vec![0x5a; kept.len()]).unwrap();
        let bundle = self.bundle("without-kernel", None);
        fs::write(&kernel, kept).unwrap();
        bundle
    }

    /// Its gateway ends at once.
    fn without_gateway(&self) -> PathBuf {
        let (tree, root) = (self.path("tree"), self.path("parts/root.img"));
        let mut unpack = Command::new("unsquashfs");
        run(unpack.args(["-q", "-n", "-d"]).arg(&tree).arg(&root));
        fs::write(tree.join("usr/bin/tidegate"), "#!/bin/sh\nexit 3\n").unwrap();
        fs::remove_file(&root).unwrap();
        let mut pack = Command::new("mksquashfs");
        pack.arg(&tree).arg(&root).args(["-quiet", "-no-progress"]);
        run(pack.args(["-comp", "zstd", "-Xcompression-level", "1"]));
        self.bundle("without-gateway", None)
    }

    /// Signed by somebody else.
    fn of_a_stranger(&self) -> PathBuf {
        let [key, cert] = ["stranger.key", "stranger.pem"].map(|name| self.path(name));
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9",
        ]);
        openssl
            .args(["-subj", "/CN=Tidegate updates", "-keyout"])
            .arg(&key);
        run(openssl.arg("-out").arg(&cert));
        self.bundle("of-a-stranger", Some([key, cert]))
    }
}

#[test]
#[ignore = "updates an image in QEMU, a quarter of an hour: TIDEGATE_IMAGE=target/image/…"]
fn an_update_is_kept_when_it_runs_and_left_when_it_does_not() {
    let updates = Updates::new();
    let kafka = kafka();
    let card = Card::new();
    card.let_in();
    let mut gateway = Gateway::new(&kafka.bootstrap, CONFIG);
    card.boot(&mut gateway);
    card.wait_slot("a");
    let identity = card.asked("cat /etc/machine-id");
    let options = "--clients 5 --topics 20 --rate 100 --window 20 --size 150 --drain 900";
    let load = Load::start(&gateway, "update", options);
    load.wait_acked(200, 120);

    // What is not signed by who made the image, or is half, changes nothing.
    let said = card.update(&updates.of_a_stranger()).unwrap_err();
    assert!(said.contains("signature"), "{said}");
    let half = updates.path("half.raucb");
    let whole = fs::read(&updates.good).unwrap();
    fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    let said = card.update(&half).unwrap_err();
    assert!(said.contains("was not installed"), "{said}");
    card.wait_slot("a");

    // One that runs is kept, though Kafka is away all the time.
    kafka.cluster("kill", &["1"]);
    card.update(&updates.good).unwrap();
    let _closed = card.ssh("reboot", Stdio::null());
    card.wait_slot("b");
    assert!(gateway.metrics().of("buffered_records") > 0.0);
    kafka.cluster("restart", &["1"]);
    gateway.wait_drained(300);

    // One whose kernel does not start, and one whose gateway does not run.
    card.update(&updates.without_kernel()).unwrap();
    let _closed = card.ssh("reboot", Stdio::null());
    let told = |what: &str| {
        wait("the update is given up on", 900, || {
            let told = card.file("tidegate-error.txt")?;
            told.contains("given up on").then(|| {
                eprintln!("{what}: {told}");
                assert!(card.file("slots.env").unwrap().starts_with("slot=b\n"));
            })
        });
    };
    told("no kernel");
    gateway.wait_ready_within(180);
    card.update(&updates.without_gateway()).unwrap();
    run(Command::new("mdel").args(["-i", &card.boot_partition(), "::tidegate-error.txt"]));
    let _closed = card.ssh("reboot", Stdio::null());
    told("no gateway");
    gateway.wait_ready_within(180);
    assert!(card.asked("cat /proc/cmdline").contains("rauc.slot=b"));
    assert_eq!(card.asked("cat /etc/machine-id"), identity);

    let ledger = load.ledger.clone();
    let done = load.stop();
    assert_eq!(done.acked, done.sent);
    gateway.wait_drained(300);
    oracle::check(&kafka, &[&ledger], "--topic mqtt").expect_clean("updates");
}

#[test]
#[ignore = "boots an image in QEMU: TIDEGATE_IMAGE=target/image/…"]
fn a_serial_adapter_speaks_and_a_reload_with_a_wrong_configuration_is_refused() {
    // Nothing of it needs Kafka.
    let card = Card::new();
    card.let_in();
    let mut gateway = Gateway::new(&format!("{HOST}:9"), CONFIG);
    card.boot(&mut gateway);
    let adapters = card.asked("ls /dev/tidegate");
    assert_eq!(adapters.trim(), "TIDE-1");
    let mut wire = UnixStream::connect(card.in_folder("serial")).unwrap();
    let device = "/dev/tidegate/TIDE-1";
    card.asked(&format!("stty -F {device} raw -echo 115200"));
    std::thread::scope(|scope| {
        let read = scope.spawn(|| card.asked(&format!("head -n 1 {device}")));
        wait("what the wire says is read", 60, || {
            wire.write_all(b"21.5 C\n").unwrap();
            read.is_finished().then_some(())
        });
        assert_eq!(read.join().unwrap(), "21.5 C\n");
    });
    card.asked(&format!("printf 'hello\\n' >{device}"));
    let mut heard = [0; 6];
    wire.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello\n");

    let pid = || card.asked("systemctl show --property MainPID --value tidegate");
    let first = pid();
    card.asked("systemctl reload tidegate");
    wait("the gateway runs again", 60, || {
        let is_up = card.asked("systemctl is-active tidegate || true") == "active\n";
        (is_up && pid() != first).then_some(())
    });
    let second = pid();
    card.asked("echo wrong = 1 >>/etc/tidegate/tidegate.toml");
    let said = card.ssh("systemctl reload tidegate", Stdio::null());
    assert!(said.is_err(), "{said:?}");
    let log = card.asked("journalctl --unit tidegate --lines 20 --output cat");
    assert!(log.contains("wrong: unknown key"), "{log}");
    assert_eq!(pid(), second);
    eprintln!(
        "{}",
        card.asked("systemd-analyze security tidegate | tail -n 1")
    );
}
