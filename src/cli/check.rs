//! `tidegate check`: all that is wrong with the configuration, or a summary of what it says.

use super::{ConfigFile, End, load, out};
use crate::config::Config;

/// Checks `file`. Errors go to stderr, the summary and warnings to stdout.
pub(super) fn check(file: &ConfigFile) -> End {
    let (loaded, board) = match load(file) {
        Ok(loaded) => loaded,
        Err(end) => return end,
    };
    out::line(format_args!("{}: ok", file.config.display()));
    if let Some(board) = board {
        out::line(format_args!("board   {}, {}", board.id, board.profile.name));
    }
    for line in summary(&loaded.config) {
        out::line(line);
    }
    for warning in &loaded.warnings {
        out::line(format_args!("warning: {warning}"));
    }
    End::Done
}

fn summary(config: &Config) -> Vec<String> {
    let kafka = &config.kafka;
    let mut lines = vec![
        format!(
            "gateway {}, data in {}",
            config.gateway.id,
            config.gateway.data_dir.display()
        ),
        format!("kafka   {}", kafka.bootstrap_servers.join(", ")),
    ];
    match &config.proxy {
        Some(proxy) => {
            for listener in &proxy.listeners {
                let tls = listener
                    .tls
                    .as_ref()
                    .map_or("", |tls| match tls.asks_clients() {
                        true => ", TLS, clients by certificate",
                        false => ", TLS",
                    });
                let websocket = if listener.websocket {
                    ", WebSocket"
                } else {
                    ""
                };
                let passwords = match &listener.passwords {
                    Some(all) => format!(", {} users", all.current().count()),
                    None => String::new(),
                };
                let acl = if listener.acl.is_some() { ", ACL" } else { "" };
                lines.push(format!(
                    "mqtt    {}{tls}{websocket}{passwords}{acl}",
                    listener.address
                ));
            }
            for route in &proxy.routes {
                lines.push(format!("route   {} -> {}", route.mqtt, route.topic));
            }
            let other = proxy.default_topic.as_deref();
            lines.push(format!("else    {}", other.unwrap_or("refused")));
        }
        None => lines.push("mqtt    no listener: there is no [proxy]".to_owned()),
    }
    lines.push(match &config.api {
        Some(api) => format!("api     {}", api.listen),
        None => "api     no listener: there is no [api]".to_owned(),
    });
    lines
}
