//! What systemd is told, by the protocol of sd_notify(3): lines in a datagram to `NOTIFY_SOCKET`.
//!
//! Without that variable nobody asked, and nothing is told.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

/// Longest wait for a service manager that does not read.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The way to the service manager.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    to: SocketAddr,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says; none where nobody asked.
    ///
    /// # Errors
    /// `NOTIFY_SOCKET` is neither a path nor `@` and a name, or no socket can be made.
    pub fn new(variable: impl Fn(&str) -> Option<OsString>) -> io::Result<Option<Self>> {
        let Some(name) = variable("NOTIFY_SOCKET") else {
            return Ok(None);
        };
        let to = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(Path::new(&name))?,
            _ => {
                return Err(io::Error::other(
                    "NOTIFY_SOCKET: found no path and no @name",
                ));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        let watchdog = watchdog(variable);
        Ok(Some(Self {
            socket,
            to,
            watchdog,
        }))
    }

    /// How long the service manager waits for a `WATCHDOG=1` before it restarts us, if it does.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Tells lines such as `READY=1`. That they cannot be told is logged: the service manager will
    /// do what it does without.
    pub fn tell(&self, lines: &str) {
        if let Err(error) = self.socket.send_to_addr(lines.as_bytes(), &self.to) {
            tracing::warn!(%error, lines, "cannot tell the service manager");
        }
    }
}

/// `WATCHDOG_USEC`, unless `WATCHDOG_PID` says that another process is meant.
fn watchdog(variable: impl Fn(&str) -> Option<OsString>) -> Option<Duration> {
    let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
    let meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let micros = number("WATCHDOG_USEC").filter(|micros| meant && *micros > 0)?;
    Some(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(to: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let length = to.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn notifier(socket: &str) -> io::Result<Option<Notifier>> {
        let pid = std::process::id().to_string();
        Notifier::new(|name| match name {
            "NOTIFY_SOCKET" => Some(socket.into()),
            "WATCHDOG_USEC" => Some("2000000".into()),
            "WATCHDOG_PID" => Some(pid.clone().into()),
            _ => None,
        })
    }

    #[test]
    fn nobody_asked() {
        assert!(Notifier::new(|_| None).unwrap().is_none());
        assert!(notifier("run/notify").is_err());
    }

    #[test]
    fn paths_and_abstract_names_are_reached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("tidegate-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        for (socket, name) in [
            (by_path, path.to_str().unwrap().to_owned()),
            (by_name, format!("@{name}")),
        ] {
            let notifier = notifier(&name).unwrap().unwrap();
            notifier.tell("READY=1");
            assert_eq!(told(&socket), "READY=1");
            assert_eq!(notifier.watchdog(), Some(Duration::from_secs(2)));
        }
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let variable = |pid: &'static str| {
            move |name: &str| Some(if name == "WATCHDOG_PID" { pid } else { "5" }.into())
        };
        assert_eq!(watchdog(variable("1")), None);
        let only_micros = |name: &str| (name == "WATCHDOG_USEC").then(|| "5".into());
        assert_eq!(watchdog(only_micros), Some(Duration::from_micros(5)));
    }
}
