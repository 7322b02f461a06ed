//! `tidegate run`: the gateway itself.

use super::{ConfigFile, End, load, out};
use crate::config::checked::LogFormat;
use crate::{app, log};

/// Runs the gateway with the configuration in `file` until it is told to stop.
pub(super) fn run(file: &ConfigFile) -> End {
    let (loaded, board) = match load(file) {
        Ok(loaded) => loaded,
        Err(end) => return end,
    };
    let gateway = &loaded.config.gateway;
    let json = gateway.log_format == LogFormat::Json;
    if let Err(error) = log::init(&gateway.log_filter, json) {
        out::error(format_args!("gateway.log_filter: {error}"));
        return End::Failed;
    }
    if let Some(board) = board {
        tracing::info!(board = board.id, "defaults are those of the board");
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match app::run(loaded.config) {
        Ok(()) => End::Done,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "stopped by an error");
            End::Failed
        }
    }
}
