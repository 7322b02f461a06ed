//! Who is connected, `$SYS`, and moving here from mosquitto, as people at a terminal meet them.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Output, Stdio};

use crate::harness::gateway::binary;
use crate::harness::{Gateway, Mosquitto, run, wait};

/// A `mosquitto_sub` whose session outlives it.
fn subscriber(gateway: &Gateway, id: &str, arguments: &[&str]) -> Child {
    let port = gateway.mqtt.port().to_string();
    let mut command = Command::new("mosquitto_sub");
    command.args(["-p", &port, "-i", id, "-V", "5", "-c", "-q", "1"]);
    command.args(["-x", "3600"]).args(arguments);
    let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn clients(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, String) {
    let config = gateway.config_path();
    let mut command = Command::new(binary());
    let command = command.arg("clients").arg("--config").arg(config);
    let Output {
        status,
        stdout,
        stderr,
    } = command.args(arguments).output().unwrap();
    let text = String::from_utf8([stdout, stderr].concat()).unwrap();
    (status.code(), text)
}

#[test]
fn clients_are_listed_and_sent_away_with_a_reason() {
    let mut gateway = Gateway::start("127.0.0.1:1", "");
    let children = ["pump-7", "valve"].map(|id| subscriber(&gateway, id, &["-t", "a/#"]));
    gateway.wait_figure("subscriptions", 20, |n| n >= 2.0);
    let (code, text) = clients(&gateway, &[]);
    eprintln!("{text}");
    assert_eq!(code, Some(0));
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    for (line, id) in lines[1..3].iter().zip(["pump-7", "valve"]) {
        assert_eq!((line[0], line[1], line[3], line[6]), (id, "-", "5", "1"));
        assert!(line[2].starts_with("127.0.0.1:"));
    }
    assert_eq!(lines[3].join(" "), "2 connected, 0 away");

    // mosquitto_sub comes back by itself when it is sent away, so it is ended.
    for (id, mut child) in ["pump-7", "valve"].into_iter().zip(children) {
        let (code, text) = clients(&gateway, &["kick", id]);
        assert_eq!(
            (code, text.trim()),
            (Some(0), &*format!("{id} is sent away"))
        );
        child.kill().unwrap();
        let said = child.wait_with_output().unwrap().stderr;
        let said = String::from_utf8(said).unwrap();
        // Its own word for reason 0x98.
        assert!(
            said.is_empty() || said.contains("Administrative action"),
            "{said}"
        );
    }
    gateway.wait_figure("connections_open", 20, |n| n == 0.0);
    let away = || clients(&gateway, &["--json"]).1;
    let text = away();
    assert_eq!(text.lines().count(), 2, "{text}");
    for line in text.lines() {
        let client: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(client["connection"].is_null(), "{line}");
        assert!((3_500..=3_600).contains(&client["expires_in_seconds"].as_u64().unwrap()));
    }
    assert_eq!(clients(&gateway, &["kick", "valve", "--forget"]).0, Some(0));
    assert!(away().starts_with(r#"{"client_id":"pump-7""#) && away().lines().count() == 1);
    let (code, text) = clients(&gateway, &["kick", "valve"]);
    assert_eq!(code, Some(3));
    assert!(text.contains("no client \"valve\""), "{text}");
    assert!(gateway.stop().success());
    let (code, text) = clients(&gateway, &[]);
    assert_eq!(code, Some(1));
    assert!(text.contains("no gateway runs"), "{text}");
}

#[test]
fn what_people_look_at_below_sys_is_there_and_is_nobodys_to_write() {
    let gateway = Gateway::start("127.0.0.1:1", "");
    let port = gateway.mqtt.port().to_string();
    let mut publisher = Command::new("mosquitto_pub");
    run(publisher.args(["-p", &port, "-t", "a", "-m", "12345", "-q", "1"]));
    let mut forger = Command::new("mosquitto_pub");
    let said = forger
        .args(["-p", &port, "-V", "5", "-q", "1", "-m", "9"])
        .args(["-t", "$SYS/broker/clients/connected"])
        .output()
        .unwrap();
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains("Not authorized"), "{said}");
    // Each is told to a new subscriber at once, as a retained message.
    let told = wait("what was published is told", 30, || {
        let mut command = Command::new("mosquitto_sub");
        let command = command.args(["-p", &port, "-t", "$SYS/#", "-W", "1", "-F", "%r|%t|%p"]);
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let told: BTreeMap<String, String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("1|")?.split_once('|'))
            .map(|(topic, value)| (topic.to_owned(), value.to_owned()))
            .collect();
        let bytes = told.get("$SYS/broker/publish/bytes/received")?;
        (bytes == "6").then_some(told)
    });
    for (topic, value) in &told {
        eprintln!("{topic}: {value}");
    }
    let version = concat!("tidegate version ", env!("CARGO_PKG_VERSION"));
    assert_eq!(told["$SYS/broker/version"], version);
    // What was denied was received, too.
    assert_eq!(told["$SYS/broker/publish/messages/received"], "2");
    assert_eq!(told["$SYS/tidegate/kafka/connected"], "0");
    assert!(told["$SYS/broker/uptime"].ends_with(" seconds"));
    let buffered = gateway.metrics().of("buffered_records");
    assert_eq!(buffered, 1.0, "nothing of $SYS goes to Kafka");
}

#[test]
fn a_mosquitto_conf_comes_over_and_lets_the_same_people_in() {
    let folder = tempfile::tempdir().unwrap();
    let passwords = folder.path().join("passwords");
    fs::write(&passwords, "").unwrap();
    let mut tool = Command::new("mosquitto_passwd");
    run(tool.arg("-b").arg(&passwords).args(["pump", "secret"]));
    let acl = folder.path().join("acl");
    fs::write(&acl, "user pump\ntopic readwrite a/#\n").unwrap();
    let config = format!(
        "password_file {}\nacl_file {}\nmax_packet_size 1000\nautosave_interval 60\n\
         max_queued_messages 50\nmax_keepalive 3600",
        passwords.display(),
        acl.display()
    );
    let mosquitto = Mosquitto::start(&config);
    let imported = folder.path().join("tidegate.toml");
    let mut import = Command::new(binary());
    import
        .args(["import", "mosquitto"])
        .arg(mosquitto.config_path());
    let import = import.arg("--output").arg(&imported);
    let said = import.output().unwrap();
    assert!(said.status.success());
    let said = String::from_utf8(said.stderr).unwrap();
    eprintln!("{said}{}", fs::read_to_string(&imported).unwrap());
    for note in [
        "line 1: user is systemd's matter here",
        "line 6: autosave_interval is always so here",
        "line 8: max_keepalive has no counterpart",
        "name your brokers",
    ] {
        assert!(said.contains(note), "{said}");
    }
    assert_eq!(said.lines().count(), 4, "{said}");
    assert_eq!(
        import.output().unwrap().status.code(),
        Some(3),
        "it is there already"
    );
    let mut check = Command::new(binary());
    run(check.arg("check").arg("--config").arg(&imported));

    let attempts = |port: u16| {
        ["secret", "wrong"].map(|password| {
            let mut command = Command::new("mosquitto_pub");
            command.args(["-p", &port.to_string(), "-q", "1", "-t", "a/b", "-m", "x"]);
            command.args(["-u", "pump", "-P", password]);
            command.output().unwrap().status.success()
        })
    };
    let theirs = attempts(mosquitto.port());
    assert_eq!(theirs, [true, false]);
    let text = fs::read_to_string(&imported).unwrap();
    let text = text.replace(&format!(":{}\"", mosquitto.port()), ":0\"");
    let mut config: toml::Table = text.parse().unwrap();
    drop(config.remove("kafka"));
    assert_eq!(config["proxy"]["max_packet_bytes"].as_integer(), Some(1000));
    let gateway = Gateway::start("127.0.0.1:1", &config.to_string());
    assert_eq!(attempts(gateway.doors()[1].port()), theirs);
    assert_eq!(gateway.metrics().of("buffered_records"), 1.0);
}
