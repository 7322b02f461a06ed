//! Which device this is: a spool that was copied to another must not send under its original's
//! producer id (DESIGN.md 2.2 rule 1).
//!
//! The board's serial number, else the address of the first network interface that is hardware,
//! and always the inode of the folder, which a copy on the same machine has not. `machine-id` is no
//! help: it is copied with the card. A name that changes without need costs a producer id and
//! nothing else.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Stands for all of it in tests.
const OVERRIDE: &str = "TIDEGATE_DEVICE";
const SERIAL: &str = "firmware/devicetree/base/serial-number";
const INTERFACES: &str = "class/net";

/// The name of this device and of `folder` on it.
#[must_use]
pub fn name(folder: &Path) -> String {
    if let Ok(name) = std::env::var(OVERRIDE) {
        return name;
    }
    let hardware = hardware(Path::new("/sys")).unwrap_or_default();
    let inode = fs::metadata(folder).map_or(0, |folder| folder.ino());
    format!("{hardware}/{inode}")
}

fn hardware(sys: &Path) -> Option<String> {
    text(&sys.join(SERIAL)).or_else(|| {
        let interfaces = fs::read_dir(sys.join(INTERFACES)).ok()?;
        let mut interfaces: Vec<_> = interfaces.flatten().map(|entry| entry.path()).collect();
        interfaces.sort();
        interfaces
            .iter()
            .filter(|interface| interface.join("device").exists())
            .find_map(|interface| text(&interface.join("address")))
    })
}

/// What a file says, unless that is nothing or zeros.
fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    let says = text.contains(|c: char| c.is_ascii_alphanumeric() && c != '0');
    says.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serial_number_then_the_first_hardware_address_then_the_folder() {
        let sys = tempfile::tempdir().unwrap();
        assert_eq!(hardware(sys.path()), None);
        let interface = |name: &str, address: &str, is_hardware: bool| {
            let folder = sys.path().join(INTERFACES).join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("address"), format!("{address}\n")).unwrap();
            if is_hardware {
                fs::create_dir(folder.join("device")).unwrap();
            }
        };
        interface("docker0", "02:42:00:00:00:01", false);
        interface("can0", "00:00:00:00:00:00", true);
        assert_eq!(hardware(sys.path()), None);
        interface("wlan0", "dc:a6:32:00:00:02", true);
        interface("eth0", "dc:a6:32:00:00:01", true);
        assert_eq!(hardware(sys.path()).unwrap(), "dc:a6:32:00:00:01");
        let serial = sys.path().join(SERIAL);
        fs::create_dir_all(serial.parent().unwrap()).unwrap();
        fs::write(&serial, "0000000000000000\0").unwrap();
        assert_eq!(hardware(sys.path()).unwrap(), "dc:a6:32:00:00:01");
        fs::write(&serial, "10000000abcdef01\0").unwrap();
        assert_eq!(hardware(sys.path()).unwrap(), "10000000abcdef01");

        let other = tempfile::tempdir().unwrap();
        assert_ne!(name(sys.path()), name(other.path()));
        assert_eq!(name(sys.path()), name(sys.path()));
    }
}
