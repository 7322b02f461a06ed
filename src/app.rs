//! Stub: waits for ctrl-c.

use crate::config::Config;

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// What ended it.
pub fn run(_config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(tokio::signal::ctrl_c())?)
}
