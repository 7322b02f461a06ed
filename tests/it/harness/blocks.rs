//! A disk that keeps a log of what was written to it, block by block, with its flushes: QEMU's
//! `blklogwrites`, exported by FUSE, on a loop device. From the log come *crash images*: what the
//! disk may hold if the power goes at one moment of it. Needs root, FUSE and loop devices.
//!
//! Behind the file system there is room for *marks*, which are writes too and so stand in the log:
//! what a mark says was true before whatever follows it in the log.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::gateway::signal;
use super::{run, wait};

const SECTOR: u64 = 512;
const MARKS_BYTES: u64 = 4096;
/// `dm-log-writes.h`, whose format it is.
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
/// Blocks with which ext4's journal begins and ends a transaction, as they lie on the disk.
const JOURNAL: [u8; 4] = [0xc0, 0x3b, 0x39, 0x98];
/// With which each frame of a segment begins.
const FRAME: &[u8] = b"TGFG";

/// A file system and how it is used.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// `mkfs.NAME`.
    pub name: &'static str,
    /// Bytes of the disk.
    pub bytes: u64,
    /// What of a write of its own is there or not: sectors where the file system bears it.
    pub torn_bytes: u64,
}

/// ext4 repairs all that is torn but its superblock and the ends of its transactions.
pub const EXT4: Kind = Kind {
    name: "ext4",
    bytes: 128 << 20,
    torn_bytes: SECTOR,
};
/// xfs does not repair a block of which the first sector is newer than the others.
pub const XFS: Kind = Kind {
    name: "xfs",
    bytes: 320 << 20,
    torn_bytes: 4096,
};

/// The disk while it is written to. Taken down when dropped; after a failure its folder is kept.
#[derive(Debug)]
pub struct LoggedDisk {
    folder: tempfile::TempDir,
    kind: Kind,
    storage: Option<Child>,
}

impl LoggedDisk {
    pub fn new(kind: Kind) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("tidegate-blocks-")
            .tempdir()
            .unwrap();
        let mut disk = Self {
            folder,
            kind,
            storage: None,
        };
        let base = disk.path("base");
        // Made without the room for marks, so that it does not take it.
        let file = File::create(&base).unwrap();
        file.set_len(kind.bytes - MARKS_BYTES).unwrap();
        let mut mkfs = Command::new(format!("mkfs.{}", kind.name));
        if kind.name == "ext4" {
            mkfs.args(["-b", "4096"]);
        }
        run(mkfs.arg("-q").arg(&base));
        file.set_len(kind.bytes).unwrap();
        sparse_copy(&base, &disk.path("written"));
        for empty in ["log", "device"] {
            File::create(disk.path(empty)).unwrap();
        }
        fs::create_dir(disk.mount_point()).unwrap();
        disk.storage = Some(disk.export());
        let device = disk.path("device");
        wait("the disk is there", 20, || {
            (fs::metadata(&device).unwrap().len() == kind.bytes).then_some(())
        });
        mount(&device, &disk.mount_point());
        disk
    }

    fn export(&self) -> Child {
        let mut daemon = Command::new("qemu-storage-daemon");
        let file = |node: &str, name: &str| {
            let path = self.path(name);
            format!("driver=file,node-name={node},filename={}", path.display())
        };
        let log = "driver=blklogwrites,node-name=logged,file=disk,log=log,log-sector-size=512";
        for blockdev in [&file("disk", "written"), &file("log", "log"), log] {
            daemon.args(["--blockdev", blockdev]);
        }
        let device = self.path("device");
        let device = device.display();
        let export = format!("type=fuse,id=out,node-name=logged,mountpoint={device},writable=on");
        daemon.args(["--export", &export]).stdin(Stdio::null());
        daemon.spawn().expect("qemu-storage-daemon")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn mount_point(&self) -> PathBuf {
        self.path("mount")
    }

    /// Where marks are written.
    pub fn marks(&self) -> Marks {
        let device = fs::OpenOptions::new().write(true).open(self.path("device"));
        Marks {
            device: device.unwrap(),
            at: self.kind.bytes - MARKS_BYTES,
        }
    }

    /// Ends the recording, and proves that the log has all of it.
    pub fn end(&mut self) -> BlockLog {
        run(Command::new("umount").arg(self.mount_point()));
        let device = self.path("device");
        wait("the loop device is gone", 20, || {
            let mut losetup = Command::new("losetup");
            run(losetup.arg("-j").arg(&device)).is_empty().then_some(())
        });
        let mut storage = self.storage.take().unwrap();
        signal(storage.id(), "TERM");
        storage.wait().unwrap();
        let mut log = BlockLog::open(self);
        let whole = log.entries.len();
        log.flushed_up_to(whole);
        run(Command::new("cmp").arg(&log.path).arg(self.path("written")));
        sparse_copy(&self.path("base"), &log.path);
        log.applied = 0;
        log
    }
}

impl Drop for LoggedDisk {
    fn drop(&mut self) {
        for mount in [self.mount_point(), self.path("crashed")] {
            let mut umount = Command::new("umount");
            drop(umount.arg("-lq").arg(mount).output());
        }
        if let Some(mut storage) = self.storage.take() {
            signal(storage.id(), "TERM");
            drop(storage.wait());
        }
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("disk and log are kept in {}", self.folder.path().display());
        }
    }
}

/// What a mark says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    /// Bytes of the file of acknowledgements.
    pub acked_bytes: u64,
    /// Milliseconds since 1970.
    pub ms: u64,
}

/// Writes marks.
#[derive(Debug)]
pub struct Marks {
    device: File,
    at: u64,
}

impl Marks {
    /// Returns when the mark is in the log.
    pub fn write(&self, mark: Mark) {
        let mut sector = [0; 512];
        sector[..8].copy_from_slice(&mark.acked_bytes.to_le_bytes());
        sector[8..16].copy_from_slice(&mark.ms.to_le_bytes());
        self.device.write_all_at(&sector, self.at).unwrap();
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    flags: u64,
    /// Where on the disk, bytes.
    to: u64,
    bytes: u64,
    /// Where in the log the bytes are.
    from: u64,
}

/// What was done to a crash image.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cut {
    /// Entries of the log before the cut.
    pub entries: usize,
    /// Writes that were not flushed.
    pub unflushed: usize,
    /// Those of them that are not there at all.
    pub left_out: usize,
    /// Those of them that are there in part.
    pub torn: usize,
    /// The last mark before.
    pub before: Mark,
    /// A mark that was begun when the cut was over.
    pub after: Mark,
}

/// The log, and the disk as it was after a beginning of it.
#[derive(Debug)]
pub struct BlockLog {
    file: File,
    kind: Kind,
    entries: Vec<Entry>,
    marks: Vec<(usize, Mark)>,
    /// The disk with the first `applied` entries.
    path: PathBuf,
    applied: usize,
    crashed: PathBuf,
}

impl BlockLog {
    fn open(disk: &LoggedDisk) -> Self {
        let mut log = Self {
            file: File::open(disk.path("log")).unwrap(),
            kind: disk.kind,
            entries: Vec::new(),
            marks: Vec::new(),
            path: disk.path("flushed"),
            applied: 0,
            crashed: disk.path("crashed.image"),
        };
        sparse_copy(&disk.path("base"), &log.path);
        fs::create_dir(disk.path("crashed")).unwrap();
        let [magic, _, count, sector] = log.numbers(0);
        assert_eq!((magic, sector & 0xffff_ffff), (MAGIC, SECTOR));
        let mut at = SECTOR;
        for _ in 0..count {
            let [to, sectors, flags, _] = log.numbers(at);
            let entry = Entry {
                flags,
                to: to * SECTOR,
                bytes: sectors * SECTOR,
                from: at + SECTOR,
            };
            at = entry.from;
            if flags & DISCARD == 0 {
                at += entry.bytes;
            }
            if entry.to == disk.kind.bytes - MARKS_BYTES {
                let [acked_bytes, ms, ..] = log.numbers(entry.from);
                let mark = Mark { acked_bytes, ms };
                log.marks.push((log.entries.len(), mark));
            }
            log.entries.push(entry);
        }
        log
    }

    fn numbers(&self, at: u64) -> [u64; 4] {
        let mut bytes = [0; 32];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        let number = |n: usize| u64::from_le_bytes(bytes[n * 8..][..8].try_into().unwrap());
        [number(0), number(1), number(2), number(3)]
    }

    /// Of each flush that had something to do: the entries between the flush before and it, and
    /// how many writes are among them.
    pub fn flushes(&self) -> Vec<(Range<usize>, usize)> {
        let mut from = 0;
        let mut all = Vec::new();
        for (at, entry) in self.entries.iter().enumerate() {
            if entry.flags & FLUSH != 0 {
                let writes = self.writes(from..at).count();
                if writes > 0 {
                    all.push((from..at, writes));
                }
                from = at;
            }
        }
        all
    }

    /// How many entries there are, and how many are marks.
    pub fn len(&self) -> (usize, usize) {
        (self.entries.len(), self.marks.len())
    }

    fn writes(&self, range: Range<usize>) -> impl Iterator<Item = &Entry> {
        let marks = self.kind.bytes - MARKS_BYTES;
        let all = self.entries[range].iter();
        all.filter(move |entry| entry.bytes > 0 && entry.to < marks)
    }

    fn flushed_up_to(&mut self, end: usize) {
        let disk = fs::OpenOptions::new().write(true).open(&self.path).unwrap();
        for entry in &self.entries[self.applied..end] {
            disk.write_all_at(&self.content(entry), entry.to).unwrap();
        }
        self.applied = end;
    }

    /// What an entry leaves on the disk.
    fn content(&self, entry: &Entry) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(entry.bytes).unwrap()];
        if entry.flags & DISCARD == 0 {
            self.file.read_exact_at(&mut bytes, entry.from).unwrap();
        }
        bytes
    }

    /// Makes and mounts the image of a cut within `window`, one of [`Self::flushes`] and later than
    /// that of the call before: what was flushed is there, of the rest what `choice` says.
    pub fn crash(&mut self, window: Range<usize>, choice: &mut Choice) -> Cut {
        self.flushed_up_to(window.start);
        // A new file: the loop device of the one before may linger.
        drop(fs::remove_file(&self.crashed));
        sparse_copy(&self.path, &self.crashed);
        let image = fs::OpenOptions::new()
            .write(true)
            .open(&self.crashed)
            .unwrap();
        let mark = |at: usize| self.marks[at].1;
        let next = self.marks.partition_point(|(at, _)| *at < window.end);
        let mut cut = Cut {
            entries: window.end,
            before: next.checked_sub(1).map(mark).unwrap_or_default(),
            // The one behind the next: that one may have been begun before the cut.
            after: mark((next + 1).min(self.marks.len() - 1)),
            ..Cut::default()
        };
        let way = choice.below(8);
        for entry in self.writes(window) {
            let content = self.content(entry);
            let whole = entry.flags & FUA != 0 || is_never_torn(entry.to, &content);
            let (mut there, mut parts) = (0, 0);
            let part = match way {
                _ if whole => entry.bytes,
                0..4 if has_frames(&content) => SECTOR,
                0..4 => self.kind.torn_bytes,
                _ => entry.bytes,
            };
            let mut at = entry.to;
            for bytes in content.chunks(usize::try_from(part).unwrap()) {
                parts += 1;
                if entry.flags & FUA != 0 || (way != 7 && choice.below(2) == 0) {
                    image.write_all_at(bytes, at).unwrap();
                    there += 1;
                }
                at += part;
            }
            cut.unflushed += 1;
            cut.left_out += usize::from(there == 0);
            cut.torn += usize::from(0 < there && there < parts);
        }
        mount(&self.crashed, &self.mount_point());
        cut
    }

    /// Where the image is mounted.
    pub fn mount_point(&self) -> PathBuf {
        self.crashed.with_file_name("crashed")
    }

    /// Done with the image.
    pub fn unmount(&self) {
        run(Command::new("umount").arg(self.mount_point()));
    }
}

/// Whether it is a part of a segment file, not of the file system: that may be torn anywhere.
fn has_frames(content: &[u8]) -> bool {
    content.windows(FRAME.len()).any(|bytes| bytes == FRAME)
}

/// What a file system needs whole: its superblock, and the ends of a journal's transactions.
fn is_never_torn(at: u64, content: &[u8]) -> bool {
    at < 4096 || content.starts_with(&JOURNAL)
}

/// Chance that can be had again.
#[derive(Debug)]
pub struct Choice(pub u64);

impl Choice {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn mount(image: &Path, to: &Path) {
    run(Command::new("mount")
        .args(["-o", "loop"])
        .arg(image)
        .arg(to));
}

fn sparse_copy(from: &Path, to: &Path) {
    let mut cp = Command::new("cp");
    run(cp.arg("--sparse=always").arg(from).arg(to));
}
