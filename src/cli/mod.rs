//! The `tidegate` command: a module a subcommand, one exit code for what each can end with.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; of `run`: stopped as asked |
//! | 1 | the configuration is wrong, what and where is on stderr; or what was looked at is not well |
//! | 2 | the command line is wrong |
//! | 3 | it failed while running |

mod buffer;
mod check;
mod client;
mod clients;
mod edit;
mod human;
mod import;
mod out;
#[cfg(test)]
mod pages;
mod passwd;
mod run;
mod source;
mod status;
mod update;
mod verify;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};

use crate::board::{self, Board};
use crate::config::{self, Config, Loaded, RouteProblem, RouteReport, checked};
use crate::proxy::{RouteError, Routes};

/// A gateway between MQTT devices and Kafka.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or SIGINT.
    Run(ConfigFile),
    /// Check the configuration, tell all that is wrong with it, and change nothing.
    Check(ConfigFile),
    /// Tell how the gateway is, how long its disk lasts and how long the backlog takes.
    Status(status::Asked),
    /// Look at what waits for Kafka, and take out of it, on a running or a stopped gateway.
    Buffer(buffer::Buffer),
    /// List the MQTT clients of a running gateway, or send one away.
    Clients(clients::Asked),
    /// Read a topic back from Kafka and tell what is missing, twice or out of order.
    Verify(verify::Verify),
    /// Turn another broker's configuration into a tidegate.toml.
    Import(import::Import),
    /// Write a user's password into a password file.
    Passwd(passwd::Passwd),
    /// Install an update of the whole system, on the image of docs/install.md.
    Update(update::Update),
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration; TIDEGATE__SECTION__KEY variables override its keys.
    #[arg(long, global = true, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
    /// Take this board's defaults, not those of the board found here (docs/boards.md).
    #[arg(long, global = true, value_name = "NAME")]
    board: Option<String>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    ConfigWrong,
    /// Damage, an alarm, no gateway: what was looked at is not well.
    Found,
    UsageWrong,
    Failed,
}

impl From<End> for ExitCode {
    fn from(end: End) -> Self {
        Self::from(match end {
            End::Done => 0,
            End::ConfigWrong | End::Found => 1,
            End::UsageWrong => 2,
            End::Failed => 3,
        })
    }
}

/// Runs the command that `args` (with the program's name first) ask for.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let end = match Cli::try_parse_from(args) {
        Ok(cli) => match cli.command {
            Command::Run(file) => run::run(&file),
            Command::Check(file) => check::check(&file),
            Command::Status(asked) => status::status(&asked),
            Command::Buffer(asked) => buffer::buffer(&asked),
            Command::Clients(asked) => clients::clients(&asked),
            Command::Verify(asked) => verify::verify(&asked),
            Command::Import(asked) => import::import(&asked),
            Command::Passwd(asked) => passwd::passwd(&asked),
            Command::Update(asked) => update::update(&asked),
        },
        Err(help) => {
            // Help and version go to stdout, errors to stderr; when nobody listens there is nothing
            // to do.
            let _unheard = help.print();
            if help.use_stderr() {
                End::UsageWrong
            } else {
                End::Done
            }
        }
    };
    end.into()
}

/// Reads the configuration, or tells on stderr what is wrong with it.
fn load(file: &ConfigFile) -> Result<(Loaded, Option<Board>), End> {
    let board = match &file.board {
        Some(name) => board::named(name).map(Some),
        None => board::here(Path::new(board::COMPATIBLE_FILE)),
    };
    let board = board.map_err(|error| {
        out::error(error);
        End::UsageWrong
    })?;
    let loaded = config::load(
        &file.config,
        board.as_ref(),
        std::env::vars_os(),
        check_routes,
    );
    match loaded {
        Ok(loaded) => Ok((loaded, board)),
        Err(problems) => {
            out::error(&problems);
            if let Some(board) = &board {
                let id = board.id;
                out::error(format_args!(
                    "what is left out has the values of board {id}: docs/boards.md"
                ));
            }
            Err(End::ConfigWrong)
        }
    }
}

/// Does with the configuration in `file` what was asked.
fn with_config(file: &ConfigFile, ask: impl FnOnce(&Config) -> anyhow::Result<End>) -> End {
    match load(file) {
        Ok((loaded, _)) => told(ask(&loaded.config)),
        Err(end) => end,
    }
}

/// Tells on stderr why it could not be done.
fn told(done: anyhow::Result<End>) -> End {
    done.unwrap_or_else(|error| {
        out::error(format_args!("{error:#}"));
        End::Failed
    })
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// What the compiler of routes says of filters, templates and captures.
fn check_routes(proxy: &checked::Proxy) -> RouteReport {
    let wrong = |error: RouteError| RouteProblem {
        route: error.index,
        key: error.key,
        found: error.message,
        right: error.would_be_right,
    };
    match Routes::compile(proxy) {
        Ok(routes) => RouteReport {
            problems: Vec::new(),
            warnings: routes.warnings(),
        },
        Err(errors) => {
            let problems = errors.into_iter().map(wrong).collect();
            RouteReport {
                problems,
                warnings: Vec::new(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(args.split(' '))
    }

    #[test]
    fn arguments() {
        Cli::command().debug_assert();
        let Command::Check(file) = parse("tidegate check").unwrap().command else {
            panic!()
        };
        assert_eq!(file.config, Path::new("/etc/tidegate/tidegate.toml"));
        let Command::Run(file) = parse("tidegate run --config a.toml").unwrap().command else {
            panic!()
        };
        assert_eq!(file.config, Path::new("a.toml"));
        assert!(!parse("tidegate --version").unwrap_err().use_stderr());
        assert!(parse("tidegate").unwrap_err().use_stderr());
        assert!(
            parse("tidegate rum")
                .unwrap_err()
                .to_string()
                .contains("'run'")
        );
    }

    #[test]
    fn a_wrong_configuration_is_no_failure_of_usage() {
        assert_eq!(
            check::check(&ConfigFile {
                config: "/nowhere/tidegate.toml".into(),
                board: None,
            }),
            End::ConfigWrong
        );
    }
}
