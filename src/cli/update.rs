//! `tidegate update`: on the image of docs/install.md, writes a signed update to the slot that is
//! not running and starts it on trial. RAUC does the work; U-Boot and `cross/image-files` decide
//! which of the two stays.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use clap::Args;

use super::{End, out, told};

/// What makes a system one that can be updated so.
const SLOTS: &str = "/etc/rauc/system.conf";

#[derive(Debug, Args)]
pub(super) struct Update {
    /// The update, as `cross/image` or `cross/bundle` made it: a .raucb file.
    file: PathBuf,
    /// Install it, and leave the start to somebody else.
    #[arg(long)]
    no_reboot: bool,
}

pub(super) fn update(asked: &Update) -> End {
    told(install(asked, Path::new(SLOTS)))
}

fn install(asked: &Update, slots: &Path) -> anyhow::Result<End> {
    let file = &asked.file;
    let name = file.display();
    ensure!(
        slots.exists(),
        "this system has no slots for an update ({} is missing): where tidegate came as a package, \
         `apt install ./tidegate_VERSION_ARCHITECTURE.deb` is the way",
        slots.display()
    );
    File::open(file).with_context(|| format!("cannot read {name}"))?;
    // RAUC's service has another working directory.
    let file = file.canonicalize()?;
    if !succeeds(Command::new("rauc").arg("install").arg(file))? {
        bail!("{name} was not installed, for the reason above; this system stays as it is");
    }
    if asked.no_reboot {
        out::line("installed; it is tried at the next start, and kept when the gateway runs");
        return Ok(End::Done);
    }
    out::line("installed; starting it on trial: it is kept when the gateway runs for a minute");
    ensure!(
        succeeds(Command::new("systemctl").arg("reboot"))?,
        "cannot start again: `reboot` does"
    );
    Ok(End::Done)
}

fn succeeds(command: &mut Command) -> anyhow::Result<bool> {
    let status = command.status();
    let status = status.with_context(|| format!("cannot run {:?}", command.get_program()))?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(file: &str, slots: &str) -> String {
        let asked = Update {
            file: file.into(),
            no_reboot: true,
        };
        let error = install(&asked, Path::new(slots)).unwrap_err();
        format!("{error:#}")
    }

    #[test]
    fn who_has_no_slots_is_told_the_other_way() {
        let said = said("/dev/null", "/nowhere/system.conf");
        assert!(said.contains("apt install"), "{said}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let said = said("/nowhere/a.raucb", "/dev/null");
        assert!(said.starts_with("cannot read /nowhere/a.raucb: "), "{said}");
    }
}
