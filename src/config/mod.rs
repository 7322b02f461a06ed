//! What the user typed in `tidegate.toml` and the environment, checked and bounded once.
//!
//! Two stages. *As typed*: `tree` (TOML and JSON with places), `environment` (overrides), `raw` and
//! `value` (each key by itself). *Checked*: `check` (defaults, the structs of [`checked`]),
//! `security` (keys and files that secure connections), `combine` (keys together).
//! [`keys`] is the one definition that both and `docs/config.md` follow. All problems are told at
//! once, each with file and line or variable, key, what was found and what would be right.

mod check;
pub mod checked;
mod combine;
pub mod document;
mod environment;
pub mod keys;
mod listen_address;
mod problem;
mod raw;
mod security;
mod suggest;
mod tree;
mod units;
mod value;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::Path;

use crate::board::Board;
pub use checked::Config;
pub use listen_address::ListenAddress;
pub use problem::{Place, Problem, Problems};

/// Where the file is when nobody says otherwise.
pub const DEFAULT_FILE: &str = "/etc/tidegate/tidegate.toml";

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A configuration that can be run.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is legal and probably not meant.
    pub warnings: Vec<String>,
}

/// What the compiler of routes, which this module must not import, says of them.
#[derive(Clone, Debug, Default)]
pub struct RouteReport {
    /// What is wrong.
    pub problems: Vec<RouteProblem>,
    /// What is legal and probably not meant: two MQTT topics that become one Kafka topic, say.
    pub warnings: Vec<String>,
}

/// What is wrong with one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteProblem {
    /// Index of the route.
    pub route: usize,
    /// The key of it: `mqtt`, `topic`, `key`, `headers.NAME`.
    pub key: String,
    /// What was found.
    pub found: String,
    /// What would be right.
    pub right: String,
}

/// Checks filters, templates and captures.
pub type RouteCheck = fn(&checked::Proxy) -> RouteReport;

/// Reads the configuration from `file`, with the overrides among `variables`, and what `board` says
/// below both.
///
/// # Errors
/// [`Problems`]: all of them.
pub fn load(
    file: &Path,
    board: Option<&Board>,
    variables: impl Iterator<Item = (OsString, OsString)>,
    routes: RouteCheck,
) -> Result<Loaded, Problems> {
    let refused = |found: String, right: &str| {
        let problem = Problem::new(Place::File, "", found, right);
        Problems::new(file, vec![problem])
    };
    let text = match std::fs::metadata(file) {
        Ok(meta) if meta.len() > FILE_BYTES_MAX => {
            return Err(refused(
                "larger than 4 MiB".to_owned(),
                "this is no configuration",
            ));
        }
        _ => std::fs::read_to_string(file),
    };
    let text = text.map_err(|error| {
        refused(
            format!("cannot be read: {error}"),
            "name a readable file with --config",
        )
    })?;
    parse((file, &text), board, variables, routes)
}

/// As [`load`], with the name of a file and its text.
///
/// # Errors
/// [`Problems`]: all of them.
pub fn parse(
    (file, text): (&Path, &str),
    board: Option<&Board>,
    variables: impl Iterator<Item = (OsString, OsString)>,
    routes: RouteCheck,
) -> Result<Loaded, Problems> {
    let (mut root, mut problems) = tree::from_toml(text);
    if !problems.is_empty() {
        // What was lost to bad syntax would be told as missing.
        return Err(Problems::new(file, problems));
    }
    problems.extend(environment::apply(keys::TABLES, &mut root, variables));
    let mut raw = raw::Raw::new(keys::TABLES, &root);
    if let Some(board) = board {
        raw.put_below(keys::TABLES, board);
    }
    let (mut config, mut warnings) = check::build(&mut raw);
    warnings.extend(combine::check(&mut config, &mut raw));
    warnings.extend(board.and_then(|board| combine::memory(&config, board)));
    if let Some(proxy) = &config.proxy {
        let report = check_routes(proxy, &raw, routes);
        problems.extend(report.0);
        warnings.extend(report.1);
    }
    problems.append(&mut raw.problems);
    if problems.is_empty() {
        Ok(Loaded { config, warnings })
    } else {
        Err(Problems::new(file, problems))
    }
}

fn check_routes(
    proxy: &checked::Proxy,
    raw: &raw::Raw,
    routes: RouteCheck,
) -> (Vec<Problem>, Vec<String>) {
    let report = routes(proxy);
    let told = |problem: RouteProblem| {
        let key = format!("proxy.route[{}].{}", problem.route, problem.key);
        let typed = match problem.key.split_once('.') {
            Some((first, _)) => format!("proxy.route[{}].{first}", problem.route),
            None => key.clone(),
        };
        // A key that is missing or wrong by itself was told of already.
        let known = raw.has(&typed) && !raw.is_refused(&typed);
        known.then(|| Problem::new(raw.place(&typed), key, problem.found, problem.right))
    };
    let problems = report.problems.into_iter().filter_map(told).collect();
    (problems, report.warnings)
}
