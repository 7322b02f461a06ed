//! Power cuts of a real file system: what was not synced is gone (pages, lengths, directory
//! entries), by the ioctl with which a kernel shuts a file system down without writing its log.
//!
//! `TIDEGATE_POWER_CUTS=200` makes more cuts than ten a file system. Needs root: loop devices.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::{Gateway, Kafka, Load, oracle, run};

/// A file system in a file. Unmounted when dropped.
pub struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// With an empty file system of this kind, of 400 MiB.
    pub fn new(kind: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("tidegate-disk-")
            .tempdir()
            .unwrap();
        let disk = Self { folder };
        fs::create_dir(disk.mount_point()).unwrap();
        let image = fs::File::create(disk.image()).unwrap();
        image.set_len(400 << 20).unwrap();
        run(Command::new(format!("mkfs.{kind}"))
            .arg("-q")
            .arg(disk.image()));
        disk.mount();
        disk
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    fn mount(&self) {
        let mut command = Command::new("mount");
        command.args(["-o", "loop"]);
        run(command.arg(self.image()).arg(self.mount_point()));
    }

    /// The power is gone: `FS_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`, for xfs the same.
    fn cut(&self) {
        const PROGRAM: &str = "import fcntl, os, struct, sys\n\
             fd = os.open(sys.argv[1], os.O_RDONLY)\n\
             fcntl.ioctl(fd, 0x8004587D, struct.pack('I', 2))";
        let mut command = Command::new("python3");
        run(command.args(["-c", PROGRAM]).arg(self.mount_point()));
    }

    /// The power is back.
    fn again(&self) {
        run(Command::new("umount").arg(self.mount_point()));
        self.mount();
    }

    /// Cuts the power under a gateway and starts it again. Returns whether the cut bit: a file that
    /// was not synced is gone.
    pub fn power_cut(&self, gateway: &mut Gateway) -> bool {
        let unsynced = self.mount_point().join("unsynced");
        fs::write(&unsynced, b"gone").unwrap();
        self.cut();
        gateway.kill9();
        self.again();
        let bit = fs::read(&unsynced).map_or(true, |content| content != b"gone");
        drop(fs::remove_file(&unsynced));
        gateway.up();
        bit
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(
            Command::new("umount")
                .arg("-l")
                .arg(self.mount_point())
                .status(),
        );
    }
}

#[test]
fn power_cuts_on_ext4_lose_repeat_and_reorder_nothing() {
    cuts("ext4");
}

#[test]
fn power_cuts_on_xfs_lose_repeat_and_reorder_nothing() {
    cuts("xfs");
}

/// What there was to lose.
#[derive(Debug, Default)]
struct Bite {
    cuts: u32,
    buffered: f64,
    on_disk: f64,
    files_lost: u32,
    resumed: f64,
    maybe_twice: f64,
}

fn cuts(kind: &str) {
    let cuts = std::env::var("TIDEGATE_POWER_CUTS");
    let cuts: u32 = cuts.map_or(10, |text| text.parse().unwrap());
    let disk = Disk::new(kind);
    let kafka = Kafka::start(1, &[]);
    let data = disk.mount_point().join("data");
    let config = format!(
        "[gateway]\ndata_dir = {data:?}\n\
         [spool]\nmax_bytes = \"200MiB\"\nmin_free_bytes = \"16MiB\"\nsegment_bytes = \"1MiB\"\n\
         [proxy]\nmax_packet_bytes = \"16KiB\"\n\
         [kafka.topic_creation]\npartitions = 4\nreplication_factor = 1\n"
    );
    let mut gateway = Gateway::start(&kafka.bootstrap, &config);
    let load = Load::start(
        &gateway,
        kind,
        "--clients 20 --topics 100 --rate 2000 --window 40 --size 150 --drain 120",
    );
    load.wait_acked(500, 60);
    let mut bite = Bite::default();
    for round in 0..cuts {
        // Kafka up; then down; then back, with the backlog on its way.
        match round % 3 {
            1 => kafka.cluster("kill", &["1"]),
            2 => kafka.cluster("restart", &["1"]),
            _ => {}
        }
        load.wait_acked(300 + u64::from(round % 7) * 150, 60);
        power_cut(&disk, &mut gateway, &mut bite);
    }
    if cuts % 3 == 2 {
        kafka.cluster("restart", &["1"]);
    }
    let ledger = load.ledger.clone();
    let done = load.stop();
    eprintln!("{kind}: {bite:.0?}");
    assert_eq!(bite.files_lost, cuts, "the cut did not bite");
    assert!(
        bite.on_disk >= 200.0 && bite.resumed >= 1.0,
        "the cut did not bite"
    );
    assert_eq!(done.acked, done.sent);
    gateway.wait_drained(120);
    oracle::check(&kafka, &[&ledger], "--topic mqtt").expect_clean(kind);
}

fn power_cut(disk: &Disk, gateway: &mut Gateway, bite: &mut Bite) {
    let at = gateway.metrics();
    bite.cuts += 1;
    bite.buffered += at.of("buffered_records");
    bite.on_disk += at.of("disk_written_records_total");
    bite.resumed += at.of("streams_resumed_total");
    bite.maybe_twice += at.of("maybe_twice_total");
    bite.files_lost += u32::from(disk.power_cut(gateway));
}
