//! `tidegate run`: the gateway itself.

use std::path::Path;

use super::{End, load, out};
use crate::config::checked::LogFormat;
use crate::{app, log};

/// Runs the gateway with the configuration in `file` until it is told to stop.
pub(super) fn run(file: &Path) -> End {
    let loaded = match load(file) {
        Ok(loaded) => loaded,
        Err(end) => return end,
    };
    let gateway = &loaded.config.gateway;
    let json = gateway.log_format == LogFormat::Json;
    if let Err(error) = log::init(&gateway.log_filter, json) {
        out::error(format_args!("gateway.log_filter: {error}"));
        return End::Failed;
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
