//! Whole configurations: what is taken, what is refused and how it is told.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::checked::{Delivery, LogFormat, OnFull, OnRefused, Proxy, SpoolMode};
use super::*;
use crate::board;
use crate::kafka::Compression;

const LEAST: &str = "[kafka]\nbootstrap_servers = [\"k:9092\"]\n";

fn no_routes(_: &Proxy) -> RouteReport {
    RouteReport::default()
}

fn read_with(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Problems> {
    let variables = variables
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    parse((Path::new("t.toml"), text), None, variables, no_routes)
}

fn read(text: &str) -> Config {
    read_with(text, &[]).unwrap().config
}

/// The lines of all problems with `text` behind the least configuration.
fn refused(text: &str) -> Vec<String> {
    refused_with(&format!("{LEAST}{text}"), &[])
}

fn refused_with(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let problems = read_with(text, variables).unwrap_err();
    problems.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn the_sample_is_taken_as_it_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tidegate.toml");
    let loaded = load(Path::new(path), None, std::iter::empty(), no_routes).unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    let config = loaded.config;
    assert_eq!(config.gateway.id, "plant-7");
    assert_eq!(config.kafka.client_id, "tidegate-plant-7");
    assert_eq!(config.kafka.delivery, Delivery::ExactlyOnce);
    let creation = config.kafka.topic_creation.unwrap();
    assert_eq!((creation.partitions, creation.replication_factor), (4, 3));
    let proxy = config.proxy.unwrap();
    assert_eq!(proxy.default_topic.as_deref(), Some("mqtt"));
    assert_eq!(proxy.routes[0].key.as_deref(), Some("{line}.{machine}"));
    assert_eq!(proxy.routes[0].priority, 5);
    assert_eq!(proxy.routes[0].ttl, Some(Duration::from_secs(86_400)));
    assert_eq!(
        (config.spool.max_bytes, config.spool.min_free_bytes),
        (2 << 30, 256 << 20)
    );
    assert_eq!(config.api.unwrap().listen.port(), 8083);
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let config = read(LEAST);
    assert!(config.proxy.is_none() && config.api.is_none());
    assert!(config.kafka.topic_creation.is_none());
    assert!(config.kafka.provenance && !config.gateway.id.is_empty());
    assert_eq!(config.kafka.compression, Compression::Zstd);
    assert_eq!(config.gateway.log_format, LogFormat::Text);
    let spool = config.spool;
    assert_eq!(
        (spool.mode, spool.on_full),
        (SpoolMode::Hybrid, OnFull::Refuse)
    );
    assert_eq!(spool.spill_after, Duration::from_millis(500));
    assert_eq!(
        (spool.segment_bytes, spool.stalled_max_percent),
        (8 << 20, 25)
    );
    let proxy = read(&format!("{LEAST}[proxy]\n")).proxy.unwrap();
    assert_eq!(proxy.listeners[0].address.to_string(), "127.0.0.1:1883");
    assert_eq!(proxy.on_refused, OnRefused::Ack);
    assert_eq!(proxy.headers.message_id, "mqtt.message.id");
    assert_eq!(
        proxy.headers.user_property_prefix.as_deref(),
        Some("mqtt.user.")
    );
    assert_eq!(
        (proxy.max_inflight_messages, proxy.max_packet_bytes),
        (1_000, 1 << 20)
    );
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let told = refused(
        "[spool]\nmax_bytes = \"2GB\"\nspil_after_ms = 5\n[proxy]\nlisten = \"0.0.0.0:1883\"\n\
         [[proxy.route]]\nmqtt = \"a/#\"\ntopic = \"a b\"\nttl = \"5s\"\npriority = 10\n\
         [[proxy.rout]]\n",
    );
    let expected = [
        "t.toml:4: spool.max_bytes: found \"2GB\"; write \"2GiB\"",
        "t.toml:5: spool.spil_after_ms: unknown key; did you mean `spill_after_ms`?",
        "t.toml:7: proxy.listen: found 0.0.0.0:1883, which is reached from outside, and nothing \
         says who may come in; write \"127.0.0.1:1883\", a password_file, a [[proxy.listener]] \
         with client_ca_file, or allow_anonymous = true to let everybody publish",
        "t.toml:10: proxy.route[0].topic: found \"a b\"; write a Kafka topic in quotes: 1 to 249 \
         of A-Z a-z 0-9 . _ -, not . or .., or {captures}",
        "t.toml:11: proxy.route[0].ttl: unknown key; did you mean `ttl_ms = 5_000`, in \
         milliseconds?",
        "t.toml:12: proxy.route[0].priority: found 10; write 0 to 9",
        "t.toml:13: proxy.rout: unknown key; did you mean `route`?",
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_is_missing_is_told_where_its_table_is() {
    let told = refused_with("[proxy]\n[[proxy.route]]\nmqtt = 'a'\n", &[]);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("t.toml: kafka.bootstrap_servers: missing; set it: `host:port`"));
    assert!(told[1].starts_with("t.toml:2: proxy.route[0].topic: missing; set it: Kafka topic;"));
}

#[test]
fn tables_of_the_wrong_shape_are_told() {
    let told = refused("[proxy]\nroute = 5\nheaders = \"x\"\n[[spool]]\n");
    assert_eq!(
        told,
        [
            "t.toml:4: proxy.route: found 5; write [[proxy.route]]",
            "t.toml:5: proxy.headers: found \"x\"; write [proxy.headers]",
            "t.toml:6: spool: found a list; write [spool]",
        ]
    );
}

#[test]
fn combinations_that_cannot_work_are_refused() {
    let cases = [
        (
            "request_timeout_ms = 3_000\n",
            "kafka.server_timeout_ms: 5_000 is not below request_timeout_ms; write less than 3_000",
        ),
        (
            "server_timeout_ms = 5_001\n",
            "t.toml:3: kafka.server_timeout_ms: found 5_001; write 100 to 5_000",
        ),
        (
            "batch_bytes_max = \"4MiB\"\n",
            "kafka.batch_bytes_max: 4MiB is more than request_bytes_max; write at most 2MiB",
        ),
        (
            "retry_backoff_min_ms = 6_000\n",
            "kafka.retry_backoff_min_ms: 6_000 is more than",
        ),
        (
            "[kafka.topic_creation]\npartitions = 0\n",
            "t.toml:4: kafka.topic_creation.partitions: found 0; write at least 1",
        ),
        (
            "[spool]\nmax_bytes = \"16MiB\"\n",
            "spool.max_bytes: 16MiB is less than four segments of 8MiB; write at least 32MiB",
        ),
        (
            "[proxy]\nmax_packet_bytes = \"5MiB\"\n",
            "proxy.max_packet_bytes: 5MiB is more than max_inflight_bytes",
        ),
        (
            "[proxy]\nmax_inflight_bytes = \"32MiB\"\n",
            "proxy.max_inflight_bytes: 32MiB for one client",
        ),
        (
            "[proxy]\n[api]\nlisten = \"127.0.0.1:1883\"\n",
            "t.toml:5: api.listen: found 127.0.0.1:1883, the port of proxy.listen",
        ),
    ];
    for (text, expected) in cases {
        let told = refused(text);
        assert!(told[0].contains(expected), "{text}: {told:?}");
    }
}

#[test]
fn outside_listeners_need_a_word() {
    let text = format!("{LEAST}[proxy]\nlisten = \"0.0.0.0:1883\"\nallow_anonymous = true\n");
    assert!(read(&text).proxy.unwrap().listeners[0].allow_anonymous);
    assert!(read_with(&format!("{LEAST}[proxy]\nlisten = \"[::1]:0\"\n"), &[]).is_ok());
}

#[test]
fn one_topic_has_one_priority_and_time_to_live() {
    let route = |rest| format!("[[proxy.route]]\nmqtt = 'a'\ntopic = 't'\n{rest}\n");
    let told = refused(&(route("priority = 3\nttl_ms = 5") + &route("priority = 4\nttl_ms = 6")));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("t.toml:11: proxy.route[1].priority: another priority"));
    assert!(told[1].starts_with("t.toml:12: proxy.route[1].ttl_ms: another ttl_ms"));
    let agreed = read(&format!(
        "{LEAST}{}{}",
        route(""),
        route("priority = 4\nttl_ms = 6")
    ));
    let routes = agreed.proxy.unwrap().routes;
    assert_eq!((routes[0].priority, routes[0].ttl), (4, routes[1].ttl));
}

#[test]
fn doubtful_combinations_are_warned_of() {
    let warnings = |text: &str| read_with(&format!("{LEAST}{text}"), &[]).unwrap().warnings;
    assert!(warnings("[spool]\nspill_after_ms = 100\n")[0].contains("sync_interval_ms (200)"));
    assert!(
        warnings("[spool]\nmode = \"always\"\nspill_after_ms = 300\n")[0].contains("no effect")
    );
    assert!(warnings("[proxy]\n")[0].contains("all messages are refused"));
}

#[test]
fn the_environment_wins_over_the_file() {
    let config = read_with(
        "[kafka]\nbootstrap_servers = [\"k:9092\"]\n[spool]\nmax_bytes = \"1GiB\"\n\
         [[proxy.route]]\nmqtt = 'a'\ntopic = 'a'\n",
        &[
            ("TIDEGATE__KAFKA__BOOTSTRAP_SERVERS", "a:1, b:2"),
            ("TIDEGATE__KAFKA__PROVENANCE", "false"),
            ("TIDEGATE__SPOOL__MAX_BYTES", "3GiB"),
            ("TIDEGATE__SPOOL__SPILL_AFTER_MS", "1_000"),
            (
                "TIDEGATE__KAFKA__TOPIC_CREATION",
                r#"{"partitions": 7, "configs": {"retention.ms": "1"}}"#,
            ),
            ("TIDEGATE__KAFKA__TOPIC_CREATION__REPLICATION_FACTOR", "2"),
            (
                "TIDEGATE__PROXY__ROUTE",
                r#"[{"mqtt": "x/#", "topic": "x", "ttl_ms": 9}]"#,
            ),
            ("TIDEGATE__API__LISTEN", "127.0.0.1:0"),
            ("TIDEGATE_MQTT_SEQUENCES", "not ours"),
        ],
    );
    let config = config.unwrap().config;
    assert_eq!(config.kafka.bootstrap_servers, ["a:1", "b:2"]);
    assert!(!config.kafka.provenance);
    assert_eq!(config.spool.max_bytes, 3 << 30);
    assert_eq!(config.spool.spill_after, Duration::from_secs(1));
    let creation = config.kafka.topic_creation.unwrap();
    assert_eq!((creation.partitions, creation.replication_factor), (7, 2));
    assert_eq!(
        creation.configs,
        [("retention.ms".to_owned(), "1".to_owned())]
    );
    let routes = config.proxy.unwrap().routes;
    assert_eq!((routes.len(), routes[0].mqtt.as_str()), (1, "x/#"));
    assert_eq!(config.api.unwrap().listen.port(), 0);
}

#[test]
fn errors_name_the_variable() {
    let told = refused_with(
        LEAST,
        &[
            ("TIDEGATE__SPOOL__MAX_BYTES", "much"),
            ("TIDEGATE__SPOOL__MODE", "hybird"),
            ("TIDEGATE__SPOL__MODE", "hybrid"),
            ("TIDEGATE__PROXY__ROUTE", "[{"),
            ("TIDEGATE__PROXY__ROUTE__0__TOPIC", "x"),
        ],
    );
    let all = told.join("\n");
    assert_eq!(told.len(), 5, "{all}");
    assert!(
        all.contains("TIDEGATE__SPOOL__MAX_BYTES: spool.max_bytes: found \"much\"; write bytes")
    );
    assert!(
        all.contains(
            "TIDEGATE__SPOOL__MODE: spool.mode: found \"hybird\"; did you mean \"hybrid\"?"
        )
    );
    assert!(all.contains("unknown variable; did you mean TIDEGATE__SPOOL__MODE?"));
    assert!(all.contains("TIDEGATE__PROXY__ROUTE: proxy.route: not JSON"));
    assert!(all.contains("as JSON into TIDEGATE__PROXY__ROUTE"));
}

#[test]
fn routes_are_checked_by_their_compiler_too() {
    fn compiler(proxy: &Proxy) -> RouteReport {
        let problem = |route| RouteProblem {
            route,
            key: "topic".to_owned(),
            found: "{x} is no capture".to_owned(),
            right: "known: line".to_owned(),
        };
        let problems = (0..proxy.routes.len()).map(problem).collect();
        RouteReport {
            problems,
            warnings: Vec::new(),
        }
    }
    let text = format!(
        "{LEAST}[[proxy.route]]\nmqtt = 'a'\ntopic = '{{x}}'\n[[proxy.route]]\nmqtt = 'b'\n"
    );
    let told = parse(
        (Path::new("t.toml"), &text),
        None,
        std::iter::empty(),
        compiler,
    )
    .unwrap_err();
    let told = told.to_string();
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(told.starts_with("t.toml:5: proxy.route[0].topic: {x} is no capture; known: line\n"));
    assert!(
        told.contains("t.toml:6: proxy.route[1].topic: missing"),
        "{told}"
    );
}

#[test]
fn unreadable_files_and_bad_syntax() {
    let missing = load(Path::new("/no/t.toml"), None, std::iter::empty(), no_routes).unwrap_err();
    assert!(
        missing
            .to_string()
            .starts_with("/no/t.toml: cannot be read: No such file")
    );
    let told = refused_with("[kafka]\nbootstrap_servers = [\"k:9092\"\n[spool\n", &[]);
    assert!(told[0].starts_with("t.toml:3: not TOML; "), "{told:?}");
}

/// Planted secrets stay out of everything that is printed.
#[test]
fn values_that_may_be_secrets_are_not_told() {
    let told = refused("sasl_password = \"hunter2\"\n[spool]\nx = hunter2\n").join("\n");
    assert!(!told.contains("hunter2"), "{told}");
    let told = refused("sasl_password = \"hunter2\"\n").join("\n");
    assert!(!told.contains("hunter2"), "{told}");
    let told = refused_with(LEAST, &[("TIDEGATE__KAFKA__PASSWORD", "hunter2")]).join("\n");
    assert!(!told.contains("hunter2"), "{told}");
    let told = refused_with(
        LEAST,
        &[("TIDEGATE__KAFKA", "{\"password\": \"hunter2\" oops")],
    );
    assert!(!told.join("\n").contains("hunter2"), "{told:?}");
}

#[test]
fn every_board_says_what_keys_take() {
    for id in board::names() {
        let board = board::named(id).unwrap();
        let raw = raw::Raw::of_board(keys::TABLES, &board);
        assert!(raw.problems.is_empty(), "{id}: {:?}", raw.problems);
        let text = format!("{LEAST}[proxy]\ndefault_topic = \"t\"\n");
        let file = (Path::new("t.toml"), text.as_str());
        let loaded = parse(file, Some(&board), std::iter::empty(), no_routes).unwrap();
        assert_eq!(loaded.warnings, [""; 0], "{id}");
        for (table, keys) in &board.profile.config {
            for (key, _) in keys.as_table().unwrap() {
                let said = raw.value(&format!("{table}.{key}"));
                assert!(said.is_some(), "{id}: {table}.{key}");
            }
        }
    }
}

#[test]
fn a_board_is_below_file_and_environment() {
    let board = board::named("rpi-zero-2w").unwrap();
    let parse = |text: &str, variables: Vec<(OsString, OsString)>| {
        let text = format!("{LEAST}{text}");
        let file = (Path::new("t.toml"), text.as_str());
        parse(file, Some(&board), variables.into_iter(), no_routes).unwrap()
    };
    let config = parse("", Vec::new()).config;
    assert_eq!(config.spool.max_bytes, 1 << 30);
    assert_eq!(config.spool.sync_interval, Duration::from_millis(500));
    assert!(config.proxy.is_none(), "a board makes no [proxy]");
    let variable = ("TIDEGATE__SPOOL__SYNC_INTERVAL_MS".into(), "7".into());
    let config = parse("[spool]\nmax_bytes = \"3GiB\"\n", vec![variable]).config;
    assert_eq!(config.spool.max_bytes, 3 << 30);
    assert_eq!(config.spool.sync_interval, Duration::from_millis(7));
    let loaded = parse("[spool]\nmemory_max_bytes = \"200MiB\"\n", Vec::new());
    assert!(
        loaded.warnings.join("").contains("rpi-zero-2w"),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn the_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.md");
    let page = document::page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == page,
        "docs/config.md is old: run UPDATE=1 cargo test"
    );
}

proptest::proptest! {
    /// Whatever is typed, it is taken or refused; nothing panics.
    #[test]
    fn noise_is_refused(text in "(\\[[a-z.]{0,9}\\]|[a-z_]{0,6} ?= ?|[0-9\"\\[{,}\\]é\n]){0,40}") {
        let variables = [("TIDEGATE__KAFKA", &*text), ("TIDEGATE__PROXY__ROUTE", &*text)];
        let _either = read_with(&text, &variables);
    }

    #[test]
    fn sizes_come_back(n in 0i64..1 << 45) {
        assert_eq!(units::bytes(&units::show_bytes(n)), Some(n));
        assert_eq!(units::integer(&units::show_integer(-n)), Some(-n));
    }
}
