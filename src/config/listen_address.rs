//! Where a listener is: an IP address and a port, or a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What comes before the path of a Unix socket, as in nginx.
const UNIX: &str = "unix:";
/// Longest path of a Unix socket, in bytes (unix(7): 108 with the zero at its end).
const PATH_BYTES_MAX: usize = 107;

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// Port 0 takes a free one.
    Tcp(SocketAddr),
    /// A socket file, by its absolute path.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Whether only this machine reaches it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Of a TCP listener.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// Neither an address nor a socket's path.
#[derive(Debug)]
pub struct NoListenAddress;

impl FromStr for ListenAddress {
    type Err = NoListenAddress;

    fn from_str(text: &str) -> Result<Self, NoListenAddress> {
        let Some(path) = text.strip_prefix(UNIX) else {
            return text.parse().map(Self::Tcp).map_err(|_| NoListenAddress);
        };
        let fits = path.len() <= PATH_BYTES_MAX && !path.contains('\0') && !path.ends_with('/');
        if fits && Path::new(path).is_absolute() {
            Ok(Self::Unix(path.into()))
        } else {
            Err(NoListenAddress)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_sockets_are_told_apart() {
        let long = format!("unix:/{}", "x".repeat(107));
        for bad in [
            "",
            "1883",
            "localhost:1",
            "unix:",
            "unix:a",
            "unix:/",
            "unix:/a\0b",
            &long,
        ] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad:?}");
        }
        for (text, local) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("unix:/run/tidegate/mqtt.sock", true),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(
                (address.to_string(), address.is_local()),
                (text.to_owned(), local)
            );
        }
    }
}
