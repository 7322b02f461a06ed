//! Secrets planted in every place that takes one are printed nowhere: not in what `tidegate check`
//! says of mistakes around them, not in logs at `trace`, not over HTTP, not in a panic.
//!
//! Which keys are secret is read from the table of keys. What else a key's table must say before
//! the gateway starts with it stands in [`AROUND`]; a new secret key fails here until it does.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};

use tidegate::config::keys::{Kind, Shape, TABLES};

use crate::harness::gateway::{binary, get};
use crate::harness::{Gateway, wait};

const PLANTED: &str = "planted0hunter2";
/// Files whose content is a secret, though their path is none.
const SECRET_FILES: [&str; 3] = ["token_file", "key_file", "password_file"];
/// Key → what its table must say beside it.
const AROUND: [(&str, &str); 7] = [
    (
        "kafka.sasl.password",
        "mechanism = \"SCRAM-SHA-256\"\nusername = \"me\"\n",
    ),
    (
        "kafka.sasl.client_secret",
        "mechanism = \"OAUTHBEARER\"\ntoken_url = \"http://127.0.0.1:1/\"\nclient_id = \"me\"\n",
    ),
    ("kafka.sasl.token_file", "mechanism = \"OAUTHBEARER\"\n"),
    ("kafka.tls.key_file", ""),
    ("proxy.password_file", ""),
    ("proxy.listener.key_file", "listen = \"127.0.0.1:0\"\n"),
    ("proxy.listener.password_file", "listen = \"127.0.0.1:0\"\n"),
];

/// Paths of keys: table, name, and whether the content of a file is the secret.
fn secret_keys() -> Vec<(&'static str, &'static str, bool)> {
    let keys = TABLES.iter().flat_map(|table| {
        table.keys.iter().filter_map(|key| {
            let in_file = key.kind == Kind::Path && SECRET_FILES.contains(&key.name);
            (in_file || key.kind == Kind::Secret).then_some((table.path, key.name, in_file))
        })
    });
    keys.collect()
}

/// The line that begins a table.
fn begun(table: &str) -> String {
    let known = TABLES.iter().find(|known| known.path == table);
    if known.is_some_and(|known| known.shape == Shape::Repeated) {
        return format!("[[{table}]]");
    }
    format!("[{table}]")
}

fn around(table: &str, name: &str) -> &'static str {
    let path = format!("{table}.{name}");
    let known = AROUND.iter().find(|(key, _)| *key == path);
    known
        .unwrap_or_else(|| panic!("{path} is a secret; say in AROUND what must stand with it"))
        .1
}

/// Fails if the secret is anywhere in what was said.
fn clean(what: &str, said: &str) -> usize {
    if let Some(at) = said.find(PLANTED) {
        let from = said[..at].rfind('\n').map_or(0, |line| line + 1);
        let line = said[from..].lines().next().unwrap();
        panic!("{what}: a secret is shown: {line}");
    }
    said.len()
}

fn check(folder: &Path, config: &str, variables: &[(&str, &str)]) -> String {
    let path = folder.join("tidegate.toml");
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new(binary());
    command.arg("check").arg("--config").arg(&path);
    let Output { stdout, stderr, .. } = command.envs(variables.iter().copied()).output().unwrap();
    [stdout, stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat()
}

/// The ways to write a secret, right and wrong, each as the text behind `key = `.
fn spellings(file: &Path) -> Vec<String> {
    let file = file.display();
    let right = [
        format!("\"{PLANTED}\""),
        format!("{{ file = \"{file}\" }}"),
        "{ env = \"PLANTED\" }".to_owned(),
    ];
    let wrong = [
        format!("\"{PLANTED}"),
        PLANTED.to_owned(),
        format!("'{PLANTED}' '"),
        format!("[\"{PLANTED}\"]"),
        format!("[\"{PLANTED}\""),
        format!("{{ fil = \"{PLANTED}\" }}"),
        format!("{{ value = \"{PLANTED}\" }}"),
        format!("{{ env = \"{PLANTED}\" }}"),
        format!("{{ file = \"/nowhere\", env = \"{PLANTED}\" }}"),
        format!("\"\"\"{PLANTED}\n{PLANTED}\"\"\""),
        "17".to_owned(),
    ];
    right.into_iter().chain(wrong).collect()
}

/// The same where the key names the file and its content is the secret.
fn paths(file: &Path) -> Vec<String> {
    let file = file.display();
    [
        format!("\"{file}\""),
        format!("\"{file}"),
        format!("[\"{file}\"]"),
        format!("{{ file = \"{file}\" }}"),
        "\"/nowhere\"".to_owned(),
        "17".to_owned(),
    ]
    .into()
}

#[test]
fn check_never_tells_a_secret_whatever_is_wrong_around_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, PLANTED).unwrap();
    let (mut runs, mut said) = (0, 0);
    let mut look = |config: &str, variables: &[(&str, &str)]| {
        runs += 1;
        said += clean(config, &check(folder.path(), config, variables));
    };
    let head = "[kafka]\nbootstrap_servers = [\"127.0.0.1:1\"]\n";
    let keys = secret_keys();
    for (table, name, in_file) in &keys {
        let (around, begun) = (around(table, name), begun(table));
        let all = if *in_file {
            paths(&file)
        } else {
            spellings(&file)
        };
        for spelling in all {
            let variables = [("PLANTED", PLANTED)];
            for mistake in ["", "nonsense = 1\n", "mechanism = \"NONE\"\n", "broken =\n"] {
                let body = format!("{head}{begun}\n{name} = {spelling}\n{around}{mistake}");
                look(&body, &variables);
            }
            // A misspelt key, one of another table, one twice.
            let body = format!("{head}{begun}\n{around}{name}s = {spelling}\n");
            look(&body, &variables);
            look(&format!("{head}{name} = {spelling}\n"), &variables);
            look(
                &format!("{head}{begun}\n{name} = 'x'\n{name} = {spelling}\n"),
                &variables,
            );
        }
        let key = format!("{table}.{name}").to_uppercase().replace('.', "__");
        let variable = format!("TIDEGATE__{key}");
        let missing = format!("{variable}S");
        // Of a file the content is the secret, its path is told.
        let values = match in_file {
            true => vec![file.display().to_string()],
            false => vec![
                PLANTED.to_owned(),
                format!("{{\"fil\":\"{PLANTED}\"}}"),
                format!("{{{PLANTED}"),
            ],
        };
        for value in &values {
            look(head, &[(&variable, value)]);
            look(head, &[(&missing, value)]);
        }
    }
    // What is no secret today may be a misspelt one: unknown keys and tables, anywhere.
    for spelling in spellings(&file) {
        for table in ["kafka", "kafka.sas", "proxy", "api", "gateway", "passwords"] {
            look(&format!("{head}[{table}.x]\npassword = {spelling}\n"), &[]);
            look(&format!("[{table}]\npassword = {spelling}\n"), &[]);
        }
    }
    look(head, &[("TIDEGATE__KAFKA__SASL__PASSWORT", PLANTED)]);
    eprintln!(
        "{} secret keys, {runs} runs of check, {said} bytes said, secrets in them: 0",
        keys.len()
    );
    assert!(said > 10_000, "check said nothing");
}

/// With each secret planted in each way the gateway runs, at `trace`, against a Kafka that is not
/// there, and a device says its password.
#[test]
fn a_running_gateway_never_tells_a_secret() {
    let trace = "[gateway]\nlog_filter = \"trace\"\n[kafka]\nconnect_timeout_ms = 300\n";
    let (mut runs, mut said) = (1, run(trace));
    for (table, name, in_file) in secret_keys() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, PLANTED).unwrap();
        let ways = match in_file {
            true => vec![format!("{file:?}")],
            false => spellings(&file)[..3].to_vec(),
        };
        for way in ways {
            let (around, begun) = (around(table, name), begun(table));
            said += run(&format!("{trace}{begun}\n{name} = {way}\n{around}"));
            runs += 1;
        }
    }
    eprintln!("{runs} gateways, {said} bytes of logs, health and metrics, secrets in them: 0");
    assert!(said > 5_000, "they said nothing");
}

fn run(config: &str) -> usize {
    let mut gateway = Gateway::new("127.0.0.1:1", config);
    gateway.launch(Command::new(binary()).env("PLANTED", PLANTED));
    let log = gateway.log_path();
    // A file that is no key and no token may keep it from starting; it says so.
    let ready = wait("the gateway is ready, or has ended", 30, || {
        let ended = gateway.has_ended();
        let ready = get(gateway.api, "/health/ready").is_some_and(|(status, _)| status == 200);
        (ready || ended).then_some(ready)
    });
    let mut said = 0;
    if ready {
        device(&gateway);
        wait("failures to tell of", 20, || {
            std::fs::read_to_string(&log)
                .unwrap()
                .contains("cannot connect")
                .then_some(())
        });
        for path in ["/health/live", "/health/ready", "/metrics", "/"] {
            let (_, body) = get(gateway.api, path).unwrap();
            said += clean(path, &body);
        }
        gateway.stop();
    }
    said + clean("the log", &std::fs::read_to_string(&log).unwrap())
}

/// CONNECT with a password, and one that is cut off in the middle of it.
fn device(gateway: &Gateway) {
    let mut body = b"\0\x04MQTT\x04\xc2\0\x3c\0\x06device\0\x02me\0".to_vec();
    body.push(u8::try_from(PLANTED.len()).unwrap());
    body.extend_from_slice(PLANTED.as_bytes());
    let packet = [&[0x10, u8::try_from(body.len()).unwrap()], &body[..]].concat();
    for length in [packet.len(), packet.len() - 2] {
        let mut stream = TcpStream::connect(gateway.mqtt).unwrap();
        stream.write_all(&packet[..length]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
    }
}
