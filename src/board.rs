//! The boards that are known by name: `boards/<name>/board.toml`, part of the binary.
//!
//! A profile's table `config` has defaults for keys of `tidegate.toml`; they count where neither
//! the file nor the environment says anything. The rest is for people, and `docs/boards.md` is
//! written from it ([`page`]).

use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

/// Where the kernel says which board this is: names, the most exact first, each ended by a zero.
pub const COMPATIBLE_FILE: &str = "/proc/device-tree/compatible";

/// Names and files of the profiles. The generic ones are for boards that no other is for.
const PROFILES: [(&str, &str); 6] = [
    (
        "rpi-zero-2w",
        include_str!("../boards/rpi-zero-2w/board.toml"),
    ),
    ("rpi3", include_str!("../boards/rpi3/board.toml")),
    ("rpi4", include_str!("../boards/rpi4/board.toml")),
    ("rpi5", include_str!("../boards/rpi5/board.toml")),
    (
        "generic-aarch64",
        include_str!("../boards/generic-aarch64/board.toml"),
    ),
    (
        "generic-armv7",
        include_str!("../boards/generic-armv7/board.toml"),
    ),
];

/// A board's profile.
#[derive(Clone, Debug)]
pub struct Board {
    /// As in `--board rpi4`.
    pub id: &'static str,
    /// The file, whose table `config` the configuration reads.
    pub text: &'static str,
    /// What the file says.
    pub profile: Profile,
}

/// What stands in a `board.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// For people.
    pub name: String,
    /// Names in the device tree that are this board; none: no other profile is for it.
    pub compatible: Vec<String>,
    /// What `cross/build` builds for it.
    pub target: String,
    /// Memory of the smallest variant, in MiB.
    pub memory_mib: u32,
    /// Where the spool usually lies.
    pub storage: String,
    /// Defaults of configuration keys.
    pub config: toml::Table,
    /// Serial ports.
    #[serde(default)]
    pub serial: Vec<Serial>,
    /// The hardware watchdog.
    pub watchdog: Option<Watchdog>,
    /// What lights up.
    pub leds: Option<Leds>,
}

/// A serial port.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serial {
    /// Its device files, by kernel.
    pub paths: Vec<String>,
    /// What it is, and where it is connected.
    pub kind: String,
    /// Whether it can send parity bits; Modbus RTU's default is even parity.
    pub parity: bool,
    /// What `config.txt` must say for it.
    pub needs: Option<String>,
}

/// The hardware watchdog.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watchdog {
    /// The kernel's driver.
    pub driver: String,
    /// Longest time it can be set to, in seconds.
    pub longest_s: u32,
}

/// LEDs, by their folders in `/sys`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leds {
    /// The one that can tell how the gateway is.
    pub status: String,
}

/// Why there is no such profile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No profile has this name.
    #[error("--board: found {found:?}; write one of {}", names().join(", "))]
    Unknown {
        /// What was asked for.
        found: String,
    },
    /// A profile of this binary is wrong; a test holds that none is.
    #[error("boards/{id}/board.toml: {error}")]
    Wrong {
        /// Its name.
        id: &'static str,
        /// What is wrong.
        error: toml::de::Error,
    },
}

/// Names of all profiles.
#[must_use]
pub fn names() -> Vec<&'static str> {
    PROFILES.iter().map(|(id, _)| *id).collect()
}

/// The profile of that name.
///
/// # Errors
/// [`Error`].
pub fn named(id: &str) -> Result<Board, Error> {
    let known = PROFILES.iter().find(|(known, _)| *known == id);
    let (id, text) = known.ok_or_else(|| Error::Unknown {
        found: id.to_owned(),
    })?;
    let profile = toml::from_str(text).map_err(|error| Error::Wrong { id, error })?;
    Ok(Board { id, text, profile })
}

/// The profile of the board that this runs on, by [`COMPATIBLE_FILE`] or one like it. None where
/// there is no device tree: this is no such board.
///
/// # Errors
/// [`Error::Wrong`].
pub fn here(compatible_file: &Path) -> Result<Option<Board>, Error> {
    let Ok(found) = std::fs::read(compatible_file) else {
        return Ok(None);
    };
    for found in found.split(|byte| *byte == 0) {
        for id in names() {
            let board = named(id)?;
            let known = &board.profile.compatible;
            if known.iter().any(|known| known.as_bytes() == found) {
                return Ok(Some(board));
            }
        }
    }
    if cfg!(target_arch = "aarch64") {
        named("generic-aarch64").map(Some)
    } else if cfg!(target_arch = "arm") {
        named("generic-armv7").map(Some)
    } else {
        Ok(None)
    }
}

const HEAD: &str = "\
# Boards

Generated from `boards/*/board.toml`; `UPDATE=1 cargo test` rewrites it.

`tidegate run` looks into `/proc/device-tree/compatible` for the board it runs on, and takes that
profile's values for keys that neither `tidegate.toml` nor the environment sets. A board with a
device tree and none of these names takes the generic profile; a machine without one (a PC) takes
none. `--board NAME` takes another profile, for any command; `tidegate check --board rpi4` so checks
a configuration on a PC as that board would read it, and warns where it allows more memory than a
quarter of the board's.

ARMv6 (Raspberry Pi 1, Zero, Zero W) is not supported.

The limits are chosen by the size of memory and the kind of storage, and were not measured on
hardware; nor were serial ports, LEDs and watchdogs, which nothing reads yet.
";

/// `docs/boards.md`.
///
/// # Errors
/// [`Error::Wrong`].
pub fn page() -> Result<String, Error> {
    let mut page = HEAD.to_owned();
    for id in names() {
        page.push_str(&section(&named(id)?));
    }
    Ok(page)
}

fn section(board: &Board) -> String {
    let profile = &board.profile;
    // A String takes all that is written.
    let mut out = String::new();
    let _always = write!(
        out,
        "\n## `{}`\n\n{}; from {} MiB of memory; {}.\n\nBuilt by `cross/build {}`.\n",
        board.id, profile.name, profile.memory_mib, profile.storage, profile.target
    );
    if profile.compatible.is_empty() {
        out.push_str("For boards with a device tree and another name.\n");
    } else {
        let names = profile.compatible.join("`, `");
        let _always = writeln!(out, "Known by `{names}`.");
    }
    out.push_str("\n| key | here |\n|---|---|\n");
    for (table, keys) in &profile.config {
        for (key, value) in keys.as_table().into_iter().flatten() {
            let _always = writeln!(out, "| `{table}.{key}` | `{value}` |");
        }
    }
    out.push_str("\n| serial port | device | parity | in `config.txt` |\n|---|---|---|---|\n");
    for port in &profile.serial {
        let _always = writeln!(
            out,
            "| {} | `{}` | {} | {} |",
            port.kind,
            port.paths.join("`, `"),
            if port.parity { "yes" } else { "no" },
            port.needs.as_ref().map_or("–".into(), |n| format!("`{n}`")),
        );
    }
    if let Some(watchdog) = &profile.watchdog {
        let (driver, longest_s) = (&watchdog.driver, watchdog.longest_s);
        let _always = writeln!(out, "\nWatchdog `{driver}`, at most {longest_s} s.");
    }
    if let Some(leds) = &profile.leds {
        let _always = writeln!(out, "\nStatus LED `{}`.", leds.status);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_is_a_profile_and_every_profile_is_whole() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/boards");
        let folders = std::fs::read_dir(folder).unwrap();
        let mut folders: Vec<_> = folders
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        folders.sort();
        let mut known = names();
        known.sort_unstable();
        assert_eq!(folders, known);
        let targets = [
            "aarch64-unknown-linux-musl",
            "armv7-unknown-linux-gnueabihf",
        ];
        for id in names() {
            let board = named(id).unwrap();
            assert!(targets.contains(&board.profile.target.as_str()), "{id}");
            let generic = id.starts_with("generic-");
            assert_eq!(board.profile.compatible.is_empty(), generic, "{id}");
            assert!(!board.profile.serial.is_empty(), "{id}");
        }
    }

    #[test]
    fn a_board_is_known_by_its_device_tree() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("compatible");
        let id = |names: &str| {
            std::fs::write(&file, names).unwrap();
            here(&file).unwrap().map(|board| board.id)
        };
        let other = match std::env::consts::ARCH {
            "aarch64" => Some("generic-aarch64"),
            "arm" => Some("generic-armv7"),
            _ => None,
        };
        assert_eq!(id("raspberrypi,4-model-b\0brcm,bcm2711\0"), Some("rpi4"));
        assert_eq!(
            id("raspberrypi,3-model-b-plus\0brcm,bcm2837\0"),
            Some("rpi3")
        );
        assert_eq!(id("raspberrypi,4-model\0brcm,bcm2711\0"), other);
        assert_eq!(id(""), other);
        assert!(here(&dir.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn an_unknown_name_is_told_the_known_ones() {
        let error = named("rpi9").unwrap_err().to_string();
        assert!(error.contains("\"rpi9\""), "{error}");
        assert!(error.contains("rpi4"), "{error}");
    }

    #[test]
    fn the_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/boards.md");
        let page = page().unwrap();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        let old = "docs/boards.md is old: run UPDATE=1 cargo test";
        assert!(found == page, "{old}");
    }
}
