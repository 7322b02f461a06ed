//! A small file system of one's own: an image in a file, on a loop device. Needs root.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::run;

/// A mounted ext4, taken down when dropped: make it before the gateway that runs on it.
#[derive(Debug)]
pub struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// Makes and mounts a file system of so many bytes; fails where that is not possible.
    pub fn new(bytes: u64) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("tidegate-disk-")
            .tempdir()
            .unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(bytes).unwrap();
        run(Command::new("mkfs.ext4")
            .args(["-q", "-m", "0"])
            .arg(&image));
        let mount = folder.path().join("mount");
        fs::create_dir(&mount).unwrap();
        // Without root or loop devices this says so, and the test fails.
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(&mount));
        Self { folder }
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    /// Bytes that are free.
    pub fn free_bytes(&self) -> u64 {
        let mut df = Command::new("df");
        let printed = run(df.args(["-B1", "--output=avail"]).arg(self.path()));
        printed.lines().nth(1).unwrap().trim().parse().unwrap()
    }

    /// Writes a file until nothing more fits.
    pub fn fill(&self) -> Filler {
        let path = self.path().join("filler");
        let mut file = File::create(&path).unwrap();
        for chunk in [256 << 10, 4 << 10] {
            while file.write_all(&vec![1; chunk]).is_ok() {}
        }
        // Space is taken for good only when it is on the disk.
        drop(file.sync_all());
        Filler(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(self.path()).status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.path().display());
        }
    }
}

/// Somebody else's file.
#[derive(Debug)]
pub struct Filler(PathBuf);

impl Filler {
    /// Gives the space back.
    pub fn free(self) {
        fs::remove_file(Path::new(&self.0)).unwrap();
    }
}
