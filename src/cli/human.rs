//! Sizes, times and names as people read and write them; tables.

use std::fmt::Write as _;
use std::str::FromStr;

use crate::spool::inspect::RangeInfo;

/// `1.5 GiB`, `312 B`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in UNITS {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    if unit == "B" || value >= 100.0 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// `31 h`, `22 min`, `4.2 s`, `12 d`.
pub(super) fn seconds(seconds: f64) -> String {
    const UNITS: [(&str, f64, f64); 4] = [
        ("s", 1.0, 90.0),
        ("min", 60.0, 90.0 * 60.0),
        ("h", 3_600.0, 48.0 * 3_600.0),
        ("d", 86_400.0, 1_000.0 * 86_400.0),
    ];
    for (unit, one, below) in UNITS {
        if seconds < below {
            let value = seconds / one;
            return if value < 10.0 && unit != "min" {
                format!("{value:.1} {unit}")
            } else {
                format!("{value:.0} {unit}")
            };
        }
    }
    "years".to_owned()
}

/// A number with its thousands apart: `12,345,678`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Numbers of a run as they are typed and shown: `7:100-199`, one alone `7:100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    pub run: u32,
    pub first: u64,
    /// Behind the last.
    pub end: u64,
}

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (run, numbers) = text.split_once(':')?;
            let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            let end = last.checked_add(1).filter(|end| *end > first)?;
            let run = run.parse().ok()?;
            Some(Self { run, first, end })
        };
        parse().ok_or_else(|| "write RUN:FIRST-LAST, as in 7:100-199".to_owned())
    }
}

impl From<&RangeInfo> for Numbers {
    fn from(range: &RangeInfo) -> Self {
        Self {
            run: range.run,
            first: range.first,
            end: range.end,
        }
    }
}

impl std::fmt::Display for Numbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.run, self.first)?;
        match self.end.saturating_sub(1) {
            last if last > self.first => write!(f, "-{last}"),
            _ => Ok(()),
        }
    }
}

/// A topic's partition as it is typed and shown: `TOPIC/PARTITION`; `?` where the partitions are
/// not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StreamName {
    pub topic: String,
    pub partition: i32,
}

impl FromStr for StreamName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (topic, partition) = text.rsplit_once('/')?;
            let partition = match partition {
                "?" => -1,
                number => number.parse().ok().filter(|number| *number >= -1)?,
            };
            let topic = (!topic.is_empty()).then(|| topic.to_owned())?;
            Some(Self { topic, partition })
        };
        parse().ok_or_else(|| "write TOPIC/PARTITION, as in temperature/3".to_owned())
    }
}

impl std::fmt::Display for StreamName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.partition {
            -1 => write!(f, "{}/?", self.topic),
            partition => write!(f, "{}/{partition}", self.topic),
        }
    }
}

/// Rows under a head; columns that hold numbers are right-aligned.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(head.get(at).map_or(0, |name| name.chars().count()))
    };
    let is_number = |at: usize| {
        let mut cells = rows.iter().filter_map(|row| row.get(at));
        let digit = |cell: &String| cell.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        at > 0 && cells.all(digit)
    };
    let columns: Vec<(usize, bool)> = (0..head.len())
        .map(|at| (width(at), is_number(at)))
        .collect();
    let mut text = String::new();
    let head: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (cell, (width, number)) in row.iter().zip(&columns) {
            // A String takes all that is written.
            let _always = if *number {
                write!(line, "{cell:>width$}  ")
            } else {
                write!(line, "{cell:<width$}  ")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_short() {
        let sizes = [0, 1_023, 1_536, 200 << 10, 5 << 30].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.5 KiB", "200 KiB", "5.0 GiB"]);
        let times = [0.0, 12.3, 1_320.0, 111_600.0, 864_000.0, 1e12].map(seconds);
        assert_eq!(times, ["0.0 s", "12 s", "22 min", "31 h", "10 d", "years"]);
        let counts = [0, 999, 1_000, 12_345_678].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "12,345,678"]);
    }

    #[test]
    fn names_are_read_as_they_are_shown() {
        for text in ["7:100-199", "7:100"] {
            assert_eq!(text.parse::<Numbers>().unwrap().to_string(), text);
        }
        for text in ["a.b-c/0", "t/?"] {
            assert_eq!(text.parse::<StreamName>().unwrap().to_string(), text);
        }
        assert_eq!("t/-1".parse::<StreamName>().unwrap().partition, -1);
        for wrong in [
            "7",
            "7:9-3",
            "7:-3",
            "x:1",
            "7:1-",
            "7:0-18446744073709551615",
        ] {
            assert!(wrong.parse::<Numbers>().is_err(), "{wrong}");
        }
        for wrong in ["t", "/3", "t/", "t/-2", "t/x"] {
            assert!(wrong.parse::<StreamName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_stand_under_each_other() {
        let rows = [["t/0", "7", "a"], ["long/12", "1,000", "b"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        let wanted = "stream   records  why\nt/0            7  a\nlong/12    1,000  b";
        assert_eq!(table(&["stream", "records", "why"], &rows), wanted);
    }
}
