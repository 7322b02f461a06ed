//! The Prometheus text format 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>).

use std::fmt::Write;

use super::names::{COUNTER_NAMES, GAUGE_NAMES, HISTOGRAM_NAMES, Name, PROCESS_NAMES};
use super::{BUCKETS, Histogram, Metrics, process};

/// What the HTTP answer's `Content-Type` must be.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const PREFIX: &str = "tidegate_";

/// A String takes all that is written.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => { let _always = writeln!($out, $($arg)*); };
}

impl Metrics {
    /// All figures as Prometheus reads them.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(16 * 1024);
        header(
            &mut out,
            "tidegate_build_info",
            "gauge",
            "Version of the program.",
        );
        put!(
            out,
            "tidegate_build_info{{version=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION")
        );
        let mut family = "";
        for name in &COUNTER_NAMES {
            plain(
                &mut out,
                &mut family,
                name,
                "counter",
                self.count(name.of) as f64,
            );
        }
        for name in &GAUGE_NAMES {
            let level = self.level(name.of);
            let value = match name.family.ends_with("_seconds") {
                true if level == u64::MAX => f64::INFINITY,
                true => level as f64 / 1e3,
                false => level as f64,
            };
            plain(&mut out, &mut family, name, "gauge", value);
        }
        for name in &HISTOGRAM_NAMES {
            self.histogram(&mut out, name);
        }
        for ((name, kind, help), value) in PROCESS_NAMES.iter().zip(process::figures()) {
            if let Some(value) = value {
                header(&mut out, name, kind, help);
                put!(out, "{name} {value}");
            }
        }
        out
    }

    fn histogram(&self, out: &mut String, name: &Name<Histogram>) {
        let family = format!("{PREFIX}{}", name.family);
        header(out, &family, "histogram", name.help);
        let (counts, sum_us) = self.spread(name.of);
        let mut below: u64 = 0;
        for (i, count) in counts.iter().enumerate() {
            below = below.saturating_add(*count);
            if i + 1 < BUCKETS {
                put!(out, "{family}_bucket{{le=\"{}\"}} {below}", bound(i));
            }
        }
        put!(out, "{family}_bucket{{le=\"+Inf\"}} {below}");
        put!(out, "{family}_sum {}", sum_us as f64 / 1e6);
        put!(out, "{family}_count {below}");
    }
}

/// Upper bound of bucket `i` in seconds: 2^i × 100 µs.
fn bound(i: usize) -> f64 {
    (100u64 << i) as f64 / 1e6
}

fn plain<T>(out: &mut String, last: &mut &str, name: &Name<T>, kind: &str, value: f64) {
    let family = name.family;
    let value = if value.is_infinite() {
        "+Inf".to_owned()
    } else {
        value.to_string()
    };
    if *last != family {
        header(out, &format!("{PREFIX}{family}"), kind, name.help);
        *last = family;
    }
    match name.label {
        Some((label, of)) => {
            put!(out, "{PREFIX}{family}{{{label}=\"{of}\"}} {value}");
        }
        None => {
            put!(out, "{PREFIX}{family} {value}");
        }
    }
}

fn header(out: &mut String, name: &str, kind: &str, help: &str) {
    put!(out, "# HELP {name} {help}");
    put!(out, "# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::super::{Counter, Gauge};
    use super::*;

    #[test]
    fn figures_come_out_as_they_went_in() {
        let metrics = Metrics::default();
        metrics.add(Counter::Received, 3);
        metrics.add(Counter::DroppedFull, 2);
        metrics.set(Gauge::BufferedAgeMs, 1_500);
        metrics.set(Gauge::RunwayMs, u64::MAX);
        let page = metrics.render();
        for line in [
            "# TYPE tidegate_received_total counter",
            "tidegate_received_total 3",
            "tidegate_dropped_total{reason=\"full\"} 2",
            "tidegate_dropped_total{reason=\"expired\"} 0",
            "tidegate_buffered_age_seconds 1.5",
            "tidegate_runway_seconds +Inf",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
    }

    #[test]
    fn buckets_add_up() {
        let metrics = Metrics::default();
        let ms = Duration::from_millis;
        metrics.observe(Histogram::PubackSeconds, Duration::from_micros(50), 4);
        metrics.observe(Histogram::PubackSeconds, ms(1), 2);
        metrics.observe(Histogram::PubackSeconds, ms(60_000), 1);
        let page = metrics.render();
        for line in [
            "tidegate_puback_seconds_bucket{le=\"0.0001\"} 4",
            "tidegate_puback_seconds_bucket{le=\"0.0008\"} 4",
            "tidegate_puback_seconds_bucket{le=\"0.0016\"} 6",
            "tidegate_puback_seconds_bucket{le=\"1.6384\"} 6",
            "tidegate_puback_seconds_bucket{le=\"+Inf\"} 7",
            "tidegate_puback_seconds_count 7",
            "tidegate_puback_seconds_sum 60.0022",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
    }

    #[test]
    fn each_family_is_declared_once_and_each_variant_named_once() {
        let page = Metrics::default().render();
        let declared: Vec<_> = page.lines().filter(|l| l.starts_with("# TYPE")).collect();
        let distinct: BTreeSet<_> = declared.iter().collect();
        assert_eq!(declared.len(), distinct.len());
        let counters: BTreeSet<_> = COUNTER_NAMES.iter().map(|n| n.of as usize).collect();
        let gauges: BTreeSet<_> = GAUGE_NAMES.iter().map(|n| n.of as usize).collect();
        assert_eq!(
            (counters.len(), gauges.len()),
            (COUNTER_NAMES.len(), GAUGE_NAMES.len())
        );
    }
}
