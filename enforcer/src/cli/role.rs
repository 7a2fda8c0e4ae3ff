//! Running one of the long-lived roles: logging and runtime around it.

use std::{future::Future, io::IsTerminal as _, process::ExitCode};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// Runs a role until it ends; `ENFORCER_LOG` filters its log, which goes to standard error; without it, `info` of everything but the
/// DNS library, which says that of every query.
pub fn run(role: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    let filter = EnvFilter::try_from_env("ENFORCER_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,hickory_server=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(role)?;
    Ok(ExitCode::SUCCESS)
}
