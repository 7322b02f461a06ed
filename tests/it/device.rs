//! On the device: what systemd is told, the unit's exposure, the package.

use std::collections::HashSet;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::gateway::binary;
use crate::harness::{Disk, Gateway, run, wait};

/// What the unit promises, times ten.
const EXPOSURE_MAX: &str = "13";
/// How long the gateway is told that systemd waits; it feeds four times in it.
const WATCHDOG: Duration = Duration::from_secs(2);

/// What the package has beside the binary and its configuration.
const FILES: [&str; 12] = [
    "./usr/lib/systemd/system/tidegate.service",
    "./usr/lib/sysusers.d/tidegate.conf",
    "./usr/lib/tmpfiles.d/tidegate.conf",
    "./usr/lib/udev/rules.d/61-tidegate-serial.rules",
    "./usr/share/bash-completion/completions/tidegate",
    "./usr/share/doc/tidegate/copyright",
    "./usr/share/doc/tidegate/install.md",
    "./usr/share/doc/tidegate/sbom.cdx.json",
    "./usr/share/fish/vendor_completions.d/tidegate.fish",
    "./usr/share/man/man1/tidegate-buffer-ls.1.gz",
    "./usr/share/man/man1/tidegate.1.gz",
    "./usr/share/zsh/vendor-completions/_tidegate",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The service manager's side of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self {
            socket,
            path,
            _folder: folder,
        }
    }

    /// What comes next, if anything does in that time.
    fn told(&self, within: Duration) -> Option<String> {
        let mut buffer = [0; 1024];
        self.socket.set_read_timeout(Some(within)).unwrap();
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    fn wait_told(&self, what: &str) {
        wait(what, 60, || {
            let told = self.told(Duration::from_secs(60));
            told.filter(|told| told.contains(what))
        });
    }
}

/// A file system on which nothing can be written until this is dropped.
struct Frozen(PathBuf);

impl Frozen {
    fn new(disk: &Disk) -> Self {
        run(Command::new("fsfreeze").arg("-f").arg(disk.path()));
        Self(disk.path())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        run(Command::new("fsfreeze").arg("-u").arg(&self.0));
    }
}

#[test]
fn systemd_is_fed_without_kafka_and_not_while_a_disk_hangs() {
    let disk = Disk::new(64 << 20);
    let manager = Manager::new();
    let config = format!(
        "[gateway]\ndata_dir = {:?}\n[spool]\nmax_bytes = \"32MiB\"\nmin_free_bytes = 0\n\
         segment_bytes = \"4MiB\"\n",
        disk.path().join("data")
    );
    // Nobody listens there.
    let mut gateway = Gateway::new("127.0.0.1:1", &config);
    let usec = WATCHDOG.as_micros().to_string();
    gateway.launch(
        Command::new(binary())
            .env("NOTIFY_SOCKET", &manager.path)
            .env("WATCHDOG_USEC", usec),
    );
    let first = manager.told(Duration::from_secs(60)).unwrap();
    assert!(first.starts_with("READY=1\n"), "{first}");
    let begun = Instant::now();
    for _ in 0..6 {
        manager.wait_told("WATCHDOG=1\nSTATUS=Kafka is away");
    }
    println!("fed six times in {:?} without Kafka", begun.elapsed());

    let frozen = Frozen::new(&disk);
    let publish = ["-q", "1", "-t", "t", "-m", "x", "-p"];
    let mut publisher = Command::new("mosquitto_pub")
        .args(publish)
        .arg(gateway.mqtt.port().to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // What was told before the writer got stuck comes first.
    let silence = 2 * WATCHDOG;
    wait("silence", 60, || {
        manager.told(silence).is_none().then_some(())
    });
    println!("not fed for {silence:?} with a frozen disk");
    assert!(publisher.try_wait().unwrap().is_none(), "acknowledged");
    assert!(gateway.log_end(50).contains("the spool's writer"));

    drop(frozen);
    manager.wait_told("WATCHDOG=1");
    assert!(publisher.wait().unwrap().success());
    gateway.terminate();
    manager.wait_told("STOPPING=1");
    gateway.bury();
}

/// `systemd-analyze` of the unit in `systemd/`, with lines that begin so left out.
fn is_hardened(without: &[&str]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let unit = std::fs::read_to_string(root().join("systemd/tidegate.service")).unwrap();
    let kept = unit
        .lines()
        .filter(|line| !without.iter().any(|start| line.starts_with(start)));
    let path = folder.path().join("tidegate.service");
    std::fs::write(&path, kept.collect::<Vec<_>>().join("\n")).unwrap();
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={EXPOSURE_MAX}"))
        .arg(&path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{}", text.lines().last().unwrap());
    output.status.success()
}

#[test]
fn the_unit_is_exposed_little() {
    assert!(is_hardened(&[]));
    assert!(!is_hardened(&["SystemCallFilter", "PrivateUsers"]));
}

/// Every serial port of a board is let through by the unit, by its driver's name.
#[test]
fn serial_ports_are_in_reach() {
    let unit = std::fs::read_to_string(root().join("systemd/tidegate.service")).unwrap();
    let allowed: HashSet<&str> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("DeviceAllow=char-")?.strip_suffix(" rw"))
        .collect();
    for board in tidegate::board::names() {
        let board = tidegate::board::named(board).unwrap();
        for path in board.profile.serial.iter().flat_map(|port| &port.paths) {
            let name = path.strip_prefix("/dev/").unwrap();
            let driver = name.trim_end_matches(|c: char| c.is_ascii_digit());
            let drivers = match driver {
                "serial/by-id/*" => vec!["ttyUSB", "ttyACM"],
                driver => vec![driver],
            };
            for driver in drivers {
                assert!(allowed.contains(driver), "{}: {path}", board.id);
            }
        }
    }
}

#[test]
fn the_package_holds_what_it_should() {
    let folder = tempfile::tempdir().unwrap();
    let pack = |name: &str| {
        let printed = run(Command::new(root().join("cross/deb"))
            .arg("amd64")
            .arg(binary())
            .env("CARGO_TARGET_DIR", folder.path().join(name)));
        PathBuf::from(printed.lines().last().unwrap())
    };
    let (package, again) = (pack("one"), pack("two"));
    let same = std::fs::read(&package).unwrap() == std::fs::read(again).unwrap();
    assert!(same, "packed twice, other bytes");
    let listed = run(Command::new("dpkg-deb").arg("-c").arg(&package));
    let plain = FILES.map(|path| ("-rw-r--r--", path));
    let others = [
        ("-rwxr-xr-x", "./usr/bin/tidegate"),
        ("-rw-r-----", "./etc/tidegate/tidegate.toml"),
    ];
    for (mode, path) in others.into_iter().chain(plain) {
        let owned = format!("{mode} root/root");
        let is_there = |line: &str| line.starts_with(&owned) && line.ends_with(path);
        assert!(listed.lines().any(is_there), "{mode} {path}\n{listed}");
    }
    let control = folder.path().join("control");
    run(Command::new("dpkg-deb")
        .arg("-e")
        .arg(&package)
        .arg(&control));
    let read = |name: &str| std::fs::read_to_string(control.join(name)).unwrap();
    assert_eq!(read("conffiles"), "/etc/tidegate/tidegate.toml\n");
    assert!(read("control").contains("Architecture: amd64\n"));
    for script in ["postinst", "prerm", "postrm"] {
        run(Command::new("sh").arg("-n").arg(control.join(script)));
    }
    // The configuration it comes with is one.
    let config = root().join("cross/debian/tidegate.toml");
    run(Command::new(binary())
        .arg("check")
        .arg("--config")
        .arg(config));
    let problems = Command::new("lintian")
        .args(["--fail-on", "error", "--no-tag-display-limit"])
        .arg(&package)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&problems.stdout).into_owned();
    println!("lintian:\n{text}");
    assert!(problems.status.success(), "{text}");
}

#[test]
fn other_targets_are_refused_in_words() {
    for (target, told) in [
        ("arm-unknown-linux-gnueabihf", "ARMv6"),
        ("riscv64gc-unknown-linux-gnu", "aarch64-unknown-linux-musl"),
    ] {
        let build = Command::new(root().join("cross/build"))
            .arg(target)
            .output();
        let build = build.unwrap();
        assert_eq!(build.status.code(), Some(2));
        let text = String::from_utf8_lossy(&build.stderr).into_owned();
        assert!(text.contains(target) && text.contains(told), "{text}");
    }
}

/// What boards' profiles change is in `config::tests`; here, the command.
#[test]
fn check_reads_as_a_board_would() {
    let sample = root().join("examples/tidegate.toml");
    let check = |board: &str| {
        let mut command = Command::new(binary());
        command.env_clear().args(["check", "--board", board]);
        command.arg("--config").arg(&sample).output().unwrap()
    };
    let output = check("rpi4");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("board   rpi4, Raspberry Pi 4"), "{text}");
    let output = check("rpi9");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains("rpi9") && text.contains("rpi-zero-2w"),
        "{text}"
    );
}
