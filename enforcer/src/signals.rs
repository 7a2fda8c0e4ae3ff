//! What tells a role to end.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// Ready at SIGTERM or SIGINT, from now on. Call it from within a tokio runtime.
pub fn told_to_end() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
