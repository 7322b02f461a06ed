//! `docs/config.md`, written from the keys; a test keeps the file equal (`UPDATE=1 cargo test`
//! rewrites it).

use std::fmt::Write;

use super::environment;
use super::keys::{Default, Key, Kind, Shape, TABLES, Table};
use super::units;

const HEAD: &str = "\
# Configuration

Generated from `src/config/keys/`; `UPDATE=1 cargo test` rewrites it.

`tidegate run` and `tidegate check` read `/etc/tidegate/tidegate.toml`, or what `--config` names.
Every key can be set by an environment variable, which wins over the file: `TIDEGATE__`, the table
and the key, in capitals and joined by `__`. Lists are comma-separated there; tables, and lists of
tables, are JSON and replace what the file says of them. `tidegate check` tells all that is wrong at
once, with line or variable. Below both stands what is known of the board ([boards](boards.md)), and
below that the defaults here.

Exit codes of `tidegate`: 0 done, 1 the configuration is wrong, 2 the command line is wrong, 3 it
failed while running.

Sizes are plain bytes or text with `KiB`, `MiB`, `GiB`, `TiB` (`\"256MiB\"`). Times are whole
milliseconds; underscores are allowed (`86_400_000`). Secrets are
text, `{ file = \"path\" }` or `{ env = \"VARIABLE\" }`, and are never printed.
";

/// The whole page.
#[must_use]
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for table in TABLES {
        page.push_str(&section(table));
    }
    page
}

fn section(table: &Table) -> String {
    let mut out = String::new();
    let heading = match table.shape {
        Shape::Repeated => format!("[[{}]]", table.path),
        _ => format!("[{}]", table.path),
    };
    let presence = match table.shape {
        Shape::Always => String::new(),
        Shape::Optional(absent) => format!(" Left out: {absent}."),
        Shape::Repeated => format!(
            " Any number of times, in order; `{}` sets all as a JSON list.",
            environment::variable(table.path)
        ),
    };
    // A String takes all that is written.
    let _always = write!(out, "\n## `{heading}`\n\n{}{presence}\n", table.doc);
    for key in table.keys {
        let _always = write!(
            out,
            "\n### `{}`\n\n{}\n\n{}\n",
            key.name,
            facts(table, key).join(" · "),
            key.doc
        );
    }
    out
}

fn facts(table: &Table, key: &Key) -> Vec<String> {
    let mut facts = vec![what(key.kind)];
    facts.push(match key.default {
        Default::Required => "required".to_owned(),
        Default::Is(literal) => format!("default `{literal}`"),
        Default::Absent(meaning) => format!("left out: {meaning}"),
    });
    if table.shape != Shape::Repeated {
        let path = format!("{}.{}", table.path, key.name);
        facts.push(format!("`{}`", environment::variable(&path)));
    }
    facts
}

fn what(kind: Kind) -> String {
    let range = |min, max, show: fn(i64) -> String| format!("{} to {}", show(min), show(max));
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Name => "text, may be empty".to_owned(),
        Kind::Id => "1 to 128 of `A-Z a-z 0-9 . _ -`".to_owned(),
        Kind::Topic => "Kafka topic name".to_owned(),
        Kind::TopicTemplate => "Kafka topic name or template".to_owned(),
        Kind::Path => "path".to_owned(),
        Kind::LogFilter => "log filter".to_owned(),
        Kind::Address => "IP address and port".to_owned(),
        Kind::ListenAddress => "IP address and port, or `unix:` and a path".to_owned(),
        Kind::Servers => "list of `host:port`".to_owned(),
        Kind::Flag => "`true` or `false`".to_owned(),
        Kind::Integer { min, max } => format!("number, {}", range(min, max, units::show_integer)),
        Kind::Bytes { min, max } => format!("bytes, {}", range(min, max, units::show_bytes)),
        Kind::Millis { min, max } => {
            format!("milliseconds, {}", range(min, max, units::show_integer))
        }
        Kind::Choice(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
            words.join(", ")
        }
        Kind::Map => "table of names and texts".to_owned(),
        Kind::Secret => "secret".to_owned(),
    }
}
