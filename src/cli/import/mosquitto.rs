//! What a mosquitto.conf says, in our words.
//! <https://mosquitto.org/man/mosquitto-conf-5.html>; the defaults are those of mosquitto 2.

use crate::config::ListenAddress;

/// A configuration, and what could not be brought over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Imported {
    /// The text of a `tidegate.toml`.
    pub toml: String,
    /// Lines of the other file, and what about them.
    pub notes: Vec<(usize, String)>,
}

/// A door, as far as it is written down.
#[derive(Clone, Debug, Default)]
struct Door {
    line: usize,
    port: Option<String>,
    address: Option<String>,
    websocket: bool,
    proxied: bool,
    cert_file: Option<String>,
    key_file: Option<String>,
    ca_file: Option<String>,
    needs_certificate: bool,
    names_user: bool,
    rules: Rules,
}

#[derive(Clone, Debug, Default)]
struct Rules {
    anonymous: Option<bool>,
    password_file: Option<String>,
    acl_file: Option<String>,
}

/// What is being read.
#[derive(Debug, Default)]
struct Reader {
    /// The first is the one without a `listener` line.
    doors: Vec<Door>,
    rules: Rules,
    per_listener: bool,
    bounds: Vec<(&'static str, String)>,
    notes: Vec<(usize, String)>,
}

/// Settings that we have no need of: name, and why.
const NEEDLESS: &[(&str, &str)] = &[
    ("autosave_interval", SYNCED),
    ("autosave_on_changes", SYNCED),
    ("persistence", SYNCED),
    ("persistence_file", SYNCED),
    ("persistence_location", "is [gateway] data_dir here"),
    ("pid_file", "is systemd's matter here"),
    ("user", "is systemd's matter here"),
    ("sys_interval", "is 10 s here"),
    ("set_tcp_nodelay", "is always so here"),
    ("allow_zero_length_clientid", "is always so here"),
    ("auto_id_prefix", "is \"auto-\" here"),
    ("per_listener_settings", ""),
    ("log_dest", LOGGED),
    ("log_type", LOGGED),
    ("log_timestamp", LOGGED),
    ("log_timestamp_format", LOGGED),
    ("log_facility", LOGGED),
    ("connection_messages", LOGGED),
];
const SYNCED: &str = "is always so here: what is acknowledged is on disk";
const LOGGED: &str = "is [gateway] log_filter and log_format here, to stderr";

/// Bounds, and our keys for them.
const BOUNDS: &[(&str, &str)] = &[
    ("max_inflight_messages", "max_inflight_messages"),
    ("max_queued_messages", "max_queued_messages"),
    ("max_queued_bytes", "max_queued_bytes"),
    ("max_packet_size", "max_packet_bytes"),
    ("max_connections", "max_connections"),
    ("global_max_connections", "max_connections"),
    ("max_topic_alias", "topic_alias_max"),
];

/// Translates the text of a mosquitto.conf.
pub(super) fn translate(text: &str) -> Imported {
    let mut reader = Reader {
        doors: vec![Door::default()],
        ..Reader::default()
    };
    reader.per_listener = text
        .lines()
        .any(|line| words(line) == Some(("per_listener_settings", "true")));
    for (line, at) in text.lines().zip(1..) {
        if let Some((name, value)) = words(line) {
            reader.setting(at, name, value);
        }
    }
    reader.finish()
}

/// Name and value of a line that says something.
fn words(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (name, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    Some((name, value.trim()))
}

impl Reader {
    fn note(&mut self, line: usize, text: impl Into<String>) {
        self.notes.push((line, text.into()));
    }

    fn setting(&mut self, line: usize, name: &str, value: &str) {
        let text = || Some(value.to_owned());
        let is_true = value == "true";
        if name == "listener" {
            let (port, address) = value.split_once(' ').unwrap_or((value, ""));
            let address = address.trim();
            self.doors.push(Door {
                line,
                port: Some(port.to_owned()),
                address: (!address.is_empty()).then(|| address.to_owned()),
                ..Door::default()
            });
            return;
        }
        if let Some((_, ours)) = BOUNDS.iter().find(|(theirs, _)| *theirs == name) {
            self.bound(line, (name, ours), value);
            return;
        }
        if let Some((_, why)) = NEEDLESS.iter().find(|(needless, _)| *needless == name) {
            if !why.is_empty() {
                self.note(line, format!("{name} {why}"));
            }
            return;
        }
        let per_listener = self.per_listener;
        let Some(door) = self.doors.last_mut() else {
            return;
        };
        let rules = match per_listener {
            true => &mut door.rules,
            false => &mut self.rules,
        };
        match name {
            "port" => {
                door.line = line;
                door.port = text();
            }
            "bind_address" => door.address = text(),
            "protocol" => door.websocket = value == "websockets",
            "enable_proxy_protocol" => door.proxied = value != "0",
            "certfile" => door.cert_file = text(),
            "keyfile" => door.key_file = text(),
            "cafile" => door.ca_file = text(),
            "require_certificate" => door.needs_certificate = is_true,
            "use_identity_as_username" => door.names_user = is_true,
            "allow_anonymous" => rules.anonymous = Some(is_true),
            "password_file" => rules.password_file = text(),
            "acl_file" => rules.acl_file = text(),
            "persistent_client_expiration" => match milliseconds(value) {
                Some(ms) => self.set("session_expiry_max_ms", ms.to_string()),
                None => self.note(line, format!("{name} {value:?} is no time such as 14d")),
            },
            "message_size_limit" => {
                self.note(
                    line,
                    "message_size_limit has no counterpart: see max_packet_bytes",
                );
            }
            _ => self.note(line, format!("{name} has no counterpart")),
        }
    }

    /// The last word holds.
    fn set(&mut self, key: &'static str, value: String) {
        self.bounds.retain(|(known, _)| *known != key);
        self.bounds.push((key, value));
    }

    fn bound(&mut self, line: usize, (name, ours): (&str, &'static str), value: &str) {
        match value.parse::<i64>() {
            Ok(number) if number > 0 => {
                self.set(ours, number.to_string());
                if name == "max_connections" {
                    self.note(line, "max_connections is for all listeners together here");
                }
            }
            Ok(_) => self.note(
                line,
                format!("{name} without a bound has no counterpart: the default holds"),
            ),
            Err(_) => self.note(line, format!("{name} {value:?} is no number")),
        }
    }

    fn finish(mut self) -> Imported {
        let mut doors = std::mem::take(&mut self.doors);
        // Without a port the first one is there only when there is no other.
        let others = doors.len() > 1;
        let local_only = !others && doors.iter().all(|door| door.port.is_none());
        if others && doors.first().is_some_and(|first| first.port.is_none()) {
            doors.remove(0);
        }
        let mut tables = String::new();
        for mut door in doors {
            if !self.per_listener {
                door.rules = self.rules.clone();
            }
            self.door(&door, local_only, &mut tables);
        }
        let mut toml = "# From a mosquitto.conf, by tidegate import.\n\n[kafka]\n\
                        bootstrap_servers = [\"localhost:9092\"]  # your brokers\n\n[proxy]\n\
                        default_topic = \"mqtt\"  # or [[proxy.route]]: docs/config.md\n"
            .to_owned();
        for (name, value) in &self.bounds {
            toml.push_str(&format!("{name} = {value}\n"));
        }
        toml.push_str(&tables);
        self.notes.sort_by_key(|(line, _)| *line);
        Imported {
            toml,
            notes: self.notes,
        }
    }

    fn door(&mut self, door: &Door, local_only: bool, out: &mut String) {
        let port = door.port.as_deref().unwrap_or("1883");
        let address = match door.address.as_deref() {
            None | Some("localhost") if local_only || door.address.is_some() => "127.0.0.1",
            None => "0.0.0.0",
            Some(address) => address,
        };
        let shown = match address.contains(':') {
            _ if port == "0" => format!("unix:{address}"),
            true => format!("[{address}]:{port}"),
            false => format!("{address}:{port}"),
        };
        let is_local = match shown.parse::<ListenAddress>() {
            Ok(listen) => listen.is_local() && !door.proxied,
            Err(_) => {
                let text = format!(
                    "listen = {shown:?} must be an IP address and a port, or a socket's path"
                );
                self.note(door.line, text);
                false
            }
        };
        let mut key = |name: &str, value: Option<&String>| {
            if let Some(value) = value {
                let value = toml::Value::from(value.clone());
                out.push_str(&format!("{name} = {value}\n"));
            }
        };
        key("\n[[proxy.listener]]\nlisten", Some(&shown));
        let websocket = "websocket".to_owned();
        key("transport", door.websocket.then_some(&websocket));
        key("cert_file", door.cert_file.as_ref());
        key("key_file", door.key_file.as_ref());
        key(
            "client_ca_file",
            door.ca_file.as_ref().filter(|_| door.needs_certificate),
        );
        let common_name = "common_name".to_owned();
        key("certificate_user", door.names_user.then_some(&common_name));
        key("password_file", door.rules.password_file.as_ref());
        key("acl_file", door.rules.acl_file.as_ref());
        if door.proxied {
            out.push_str("proxy_protocol = true\n");
        }
        // mosquitto 2: without a listener line everybody on this machine, else nobody.
        let anonymous = door.rules.anonymous.unwrap_or(local_only);
        if anonymous && (!is_local || door.rules.password_file.is_some()) {
            out.push_str("allow_anonymous = true\n");
        }
        if door.ca_file.is_some() && !door.needs_certificate {
            self.note(
                door.line,
                "certificates that clients may show and need not have no counterpart: \
                 client_ca_file asks all of them",
            );
        }
        if !anonymous && door.rules.password_file.is_none() && !door.needs_certificate {
            self.note(
                door.line,
                "nobody may come in here, by mosquitto's rules (or a plugin says who): name a \
                 password_file",
            );
        }
        if door.rules.password_file.is_none() && door.rules.acl_file.is_some() && !door.names_user {
            let text = "a user name that nothing proves is not believed: `user` lines of acl_file \
                        hold for nobody without a password_file";
            self.note(door.line, text);
        }
    }
}

/// `14d`, `2w`, `1m`, `1y`, `6h`.
fn milliseconds(text: &str) -> Option<u64> {
    const DAY: u64 = 24 * 3_600_000;
    let unit = text.chars().last()?;
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let each = match unit {
        'h' => 3_600_000,
        'd' => DAY,
        'w' => 7 * DAY,
        'm' => 30 * DAY,
        'y' => 365 * DAY,
        _ => return None,
    };
    number.checked_mul(each)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(imported: &Imported) -> Vec<(usize, &str)> {
        let all = imported.notes.iter();
        all.map(|(line, note)| (*line, &**note)).collect()
    }

    fn proxy(toml: &str) -> toml::Table {
        let table: toml::Table = toml.parse().unwrap();
        table["proxy"].as_table().unwrap().clone()
    }

    #[test]
    fn an_empty_file_is_a_door_on_this_machine() {
        let imported = translate("# nothing\n\n");
        assert!(imported.notes.is_empty());
        let proxy = proxy(&imported.toml);
        let doors = proxy["listener"].as_array().unwrap();
        assert_eq!(doors.len(), 1);
        assert_eq!(doors[0]["listen"].as_str(), Some("127.0.0.1:1883"));
        assert!(doors[0].get("allow_anonymous").is_none());
    }

    #[test]
    fn doors_rules_and_bounds_come_over() {
        let text = "\
persistence true
password_file /etc/mosquitto/passwd
acl_file /etc/mosquitto/acl
max_queued_messages 500
max_packet_size 100000
persistent_client_expiration 2w
listener 1883
listener 8883 ::1
certfile /c.pem
keyfile /k.pem
cafile /ca.pem
require_certificate true
use_identity_as_username true
listener 9001 10.0.0.1
protocol websockets
enable_proxy_protocol 2
bridge_protocol_version mqttv50
";
        let imported = translate(text);
        let proxy = proxy(&imported.toml);
        assert_eq!(proxy["max_queued_messages"].as_integer(), Some(500));
        assert_eq!(proxy["max_packet_bytes"].as_integer(), Some(100_000));
        let expiry = proxy["session_expiry_max_ms"].as_integer();
        assert_eq!(expiry, Some(14 * 24 * 3_600_000));
        let doors = proxy["listener"].as_array().unwrap();
        let listen: Vec<_> = doors
            .iter()
            .map(|it| it["listen"].as_str().unwrap())
            .collect();
        assert_eq!(listen, ["0.0.0.0:1883", "[::1]:8883", "10.0.0.1:9001"]);
        for door in doors {
            assert_eq!(
                door["password_file"].as_str(),
                Some("/etc/mosquitto/passwd")
            );
            assert_eq!(door["acl_file"].as_str(), Some("/etc/mosquitto/acl"));
            assert!(door.get("allow_anonymous").is_none());
        }
        assert_eq!(doors[1]["client_ca_file"].as_str(), Some("/ca.pem"));
        assert_eq!(doors[1]["certificate_user"].as_str(), Some("common_name"));
        assert_eq!(doors[2]["transport"].as_str(), Some("websocket"));
        assert_eq!(doors[2]["proxy_protocol"].as_bool(), Some(true));
        let told = notes(&imported);
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[0].0, 1);
        assert_eq!(told[1], (17, "bridge_protocol_version has no counterpart"));
    }

    #[test]
    fn rules_may_be_a_listener_s_own() {
        let text = "per_listener_settings true\nlistener 1883\nallow_anonymous true\n\
                    listener 1884 localhost\npassword_file /p\nallow_anonymous true\n\
                    listener 0 /run/socket\nlistener 1885 myhost\n";
        let imported = translate(text);
        let proxy = proxy(&imported.toml);
        let doors = proxy["listener"].as_array().unwrap();
        assert_eq!(doors.len(), 4);
        assert_eq!(doors[2]["listen"].as_str(), Some("unix:/run/socket"));
        assert!(doors[0].get("password_file").is_none());
        assert_eq!(doors[0]["allow_anonymous"].as_bool(), Some(true));
        assert_eq!(doors[1]["listen"].as_str(), Some("127.0.0.1:1884"));
        assert_eq!(doors[1]["password_file"].as_str(), Some("/p"));
        assert_eq!(doors[1]["allow_anonymous"].as_bool(), Some(true));
        let lines: Vec<usize> = imported.notes.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [7, 8, 8], "{:?}", imported.notes);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        let text = "max_queued_messages 0\nmax_inflight_messages many\n\
                    persistent_client_expiration soon\nconnection bridge\nport 1883\ncafile /ca\n\
                    acl_file /a\n";
        let imported = translate(text);
        let told = notes(&imported);
        let lines: Vec<usize> = told.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5, 5, 5], "{told:?}");
        for ms in [
            ("6h", 21_600_000),
            ("1m", 2_592_000_000),
            ("1y", 31_536_000_000),
        ] {
            assert_eq!(milliseconds(ms.0), Some(ms.1));
        }
        for bad in ["", "d", "14", "14x", "-1d", "99999999999999999y"] {
            assert_eq!(milliseconds(bad), None, "{bad}");
        }
    }
}
