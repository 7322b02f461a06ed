//! Figures of the process itself, from `/proc/self`
//! (<https://man7.org/linux/man-pages/man5/proc.5.html>). What cannot be read is left out.

use std::fs;

/// Clock ticks a second in `/proc`: `USER_HZ`, 100 on every Linux architecture that Rust targets.
const TICKS_PER_SECOND: f64 = 100.0;

/// Values in the order of [`super::names::PROCESS_NAMES`].
pub(super) fn figures() -> [Option<f64>; 4] {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let system = fs::read_to_string("/proc/stat").unwrap_or_default();
    [
        cpu_seconds(&stat),
        resident_bytes(&status),
        open_files(),
        start_seconds(&stat, &system),
    ]
}

/// Fields of `stat` behind the command's name, which may hold spaces: `n` counts as the page does.
fn field(stat: &str, n: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace()
        .nth(n.checked_sub(3)?)?
        .parse()
        .ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) / TICKS_PER_SECOND)
}

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

fn open_files() -> Option<f64> {
    let files = fs::read_dir("/proc/self/fd").ok()?.count();
    // One is the folder that is being read.
    u32::try_from(files.saturating_sub(1)).ok().map(f64::from)
}

fn start_seconds(stat: &str, system: &str) -> Option<f64> {
    let boot = system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?;
    Some(boot.trim().parse::<f64>().ok()? + field(stat, 22)? / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 9 0 0 0 150 50 0 0 20 0 1 0 1000 5 6";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(start_seconds(stat, "cpu 1 2\nbtime 500\n"), Some(510.0));
        assert_eq!(
            resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\n"),
            Some(2_097_152.0)
        );
        assert_eq!(cpu_seconds("nonsense"), None);
    }

    #[test]
    fn this_process_has_all() {
        let figures = figures();
        assert!(figures.iter().all(Option::is_some), "{figures:?}");
        assert!(
            figures[1].unwrap() > 1e6 && figures[3].unwrap() > 1.6e9,
            "{figures:?}"
        );
    }
}
