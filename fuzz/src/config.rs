//! Any text as `tidegate.toml`, with environment variables: whatever it is, it is taken or all that
//! is wrong with it is told.
//!
//! input: the file's text | for each variable: 0 u8, `NAME=value`

use std::ffi::OsString;
use std::path::Path;

use tidegate::config::{self, RouteReport, checked};
use tidegate::proxy::Routes;

const MEMORY_BYTES_MAX: usize = 64 << 20;

/// The target.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let variables = parts
        .filter_map(|part| part.split_once('='))
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    super::within(MEMORY_BYTES_MAX, || {
        match config::parse(
            (Path::new("tidegate.toml"), file),
            None,
            variables,
            check_routes,
        ) {
            Ok(loaded) => {
                if let Some(proxy) = &loaded.config.proxy {
                    route(proxy);
                }
                drop(format!("{:?}", loaded.config));
            }
            Err(problems) => assert!(!problems.to_string().is_empty()),
        }
    });
}

/// As `tidegate check` does, but for the words.
fn check_routes(proxy: &checked::Proxy) -> RouteReport {
    let routes = Routes::compile(proxy);
    RouteReport {
        problems: Vec::new(),
        warnings: routes.map_or_else(|_| Vec::new(), |routes| routes.warnings()),
    }
}

/// What a route makes of a topic is a name that Kafka takes.
fn route(proxy: &checked::Proxy) {
    let Ok(routes) = Routes::compile(proxy) else {
        return;
    };
    for topic in [
        "a",
        "plant/line7/machine12/temperature",
        "$SYS/é/%/../x",
        "//",
    ] {
        let Some(destination) = routes.destination(topic) else {
            continue;
        };
        let name = &*destination.topic;
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!(name.chars().all(legal), "{topic:?} became {name:?}");
        assert!((1..=249).contains(&name.len()) && name != "." && name != "..");
    }
}
