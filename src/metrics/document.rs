//! `docs/metrics.md`, written from [`super::names`]; a test keeps the file equal (`UPDATE=1 cargo
//! test` rewrites it).

use std::fmt::Write;

use super::names::{COUNTER_NAMES, GAUGE_NAMES, HISTOGRAM_NAMES, Name, PROCESS_NAMES};

const HEAD: &str = "\
# Metrics

Generated from `src/metrics/names.rs`; `UPDATE=1 cargo test` rewrites it.

`GET /metrics` on `[api] listen` answers in Prometheus' text format. Counters start at 0 with the
process. Histograms have buckets of 100 µs, doubled up to 1.6 s, and one for all above.

| name | type | meaning |
|---|---|---|
| `tidegate_build_info` | gauge | Version of the program, as a label; always 1. |
";

/// The whole page.
#[must_use]
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    rows(&mut page, &COUNTER_NAMES, "counter");
    rows(&mut page, &GAUGE_NAMES, "gauge");
    rows(&mut page, &HISTOGRAM_NAMES, "histogram");
    for (name, kind, help) in PROCESS_NAMES {
        row(&mut page, name, kind, help);
    }
    page
}

fn rows<T>(page: &mut String, names: &[Name<T>], kind: &str) {
    let mut last = "";
    for name in names {
        if name.family != last {
            let label = name.label.map(|(label, _)| format!("{{{label}}}"));
            let shown = format!("tidegate_{}{}", name.family, label.unwrap_or_default());
            row(page, &shown, kind, name.help);
        }
        last = name.family;
    }
}

fn row(page: &mut String, name: &str, kind: &str, help: &str) {
    // A String takes all that is written.
    let _always = writeln!(page, "| `{name}` | {kind} | {help} |");
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let page = super::page();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == page,
            "docs/metrics.md is old: run UPDATE=1 cargo test"
        );
    }
}
