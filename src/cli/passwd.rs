//! `tidegate passwd`: makes and changes password files. The password is typed twice without being
//! shown, or is the first line of stdin where that is no terminal.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};

use super::{End, out, told};
use crate::access::Rules as _;
use crate::access::password::{Hash, Passwords, edited, is_user};

/// Longest password, in bytes: what CONNECT can say.
const PASSWORD_BYTES_MAX: u64 = 65_535;

#[derive(Debug, Args)]
pub(super) struct Passwd {
    /// The password file; made if there is none.
    file: PathBuf,
    /// The user.
    user: String,
    /// Take the user out of the file.
    #[arg(long)]
    delete: bool,
}

pub(super) fn passwd(asked: &Passwd) -> End {
    told(change(asked).map(|what| {
        let Passwd { file, user, .. } = asked;
        out::line(format_args!("{}: {what} {user}", file.display()));
        End::Done
    }))
}

fn change(asked: &Passwd) -> anyhow::Result<&'static str> {
    let Passwd { file, user, delete } = asked;
    ensure!(
        is_user(user),
        "{user:?} cannot be a user: no colon, no control character, no space at either end"
    );
    let name = file.display();
    let old = match fs::read_to_string(file) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {name}")),
    };
    let text = old.as_deref().unwrap_or_default();
    if let Some(wrong) = Passwords::read(text).err().filter(|wrong| wrong.line > 0) {
        bail!("{name}, line {}: {}", wrong.line, wrong.found);
    }
    let hash = match delete {
        true => None,
        false => Some(Hash::of(&password()?)?),
    };
    let fresh = edited(text, user, hash.as_ref().map(Hash::text));
    let fresh = fresh.with_context(|| format!("{name} has no user {user}"))?;
    write(file, &fresh).with_context(|| format!("cannot write {name}"))?;
    Ok(match (delete, old.is_some()) {
        (true, _) => "is without",
        (false, true) => "has a new password of",
        (false, false) => "made, for its owner to read, with",
    })
}

/// Whole or not at all, with the owner and the rights of what was there.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let old = fs::metadata(path).ok();
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    // A leftover may have other rights.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(text.as_bytes())?;
    if let Some(old) = old {
        chown(&fresh, Some(old.uid()), Some(old.gid()))?;
        file.set_permissions(old.permissions())?;
    }
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn password() -> anyhow::Result<Vec<u8>> {
    let stdin = io::stdin();
    let password = if stdin.is_terminal() {
        let password = typed("Password: ")?;
        ensure!(password == typed("Again: ")?, "these two differ");
        password
    } else {
        line()?
    };
    ensure!(!password.is_empty(), "the password is empty");
    ensure!(
        password.len() as u64 <= PASSWORD_BYTES_MAX,
        "the password is longer than MQTT can say: 65,535 bytes"
    );
    Ok(password)
}

/// What the terminal sends for Ctrl-C.
const INTERRUPT: u8 = 3;

/// A line that is typed without being shown. Ctrl-C is a character that ends it, not a signal: that
/// would leave the terminal as it is.
fn typed(prompt: &str) -> anyhow::Result<Vec<u8>> {
    let stdin = io::stdin();
    let shown = tcgetattr(&stdin).context("cannot ask the terminal how it is")?;
    let mut hidden = shown.clone();
    hidden
        .local_modes
        .remove(LocalModes::ECHO | LocalModes::ISIG);
    hidden.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
    let mut stderr = io::stderr();
    write!(stderr, "{prompt}")?;
    stderr.flush()?;
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).context("cannot hide what is typed")?;
    // A terminal gives one line at a time.
    let mut locked = stdin.lock();
    let typed = locked.fill_buf().map(<[u8]>::to_vec);
    locked.consume(typed.as_ref().map_or(0, Vec::len));
    tcsetattr(&stdin, OptionalActions::Flush, &shown).context("cannot show again what is typed")?;
    writeln!(stderr)?;
    let mut typed = typed.context("cannot read the password")?;
    ensure!(typed.last() != Some(&INTERRUPT), "interrupted");
    if typed.last() == Some(&b'\n') {
        typed.pop();
    }
    Ok(typed)
}

fn line() -> anyhow::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut stdin = io::stdin().lock().take(PASSWORD_BYTES_MAX + 3);
    stdin
        .read_until(b'\n', &mut line)
        .context("cannot read the password")?;
    for end in [b'\n', b'\r'] {
        if line.last() == Some(&end) {
            line.pop();
        }
    }
    Ok(line)
}
