//! Waiting for a condition, never for a time: the watchdog only ends what would hang for ever.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Far beyond what anything takes, also on a busy machine.
const WATCHDOG: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(20);

/// Asks until there is an answer.
pub fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> Result<T> {
    until_within(WATCHDOG, what, ask)
}

/// The same for what takes long on a machine with much else to do.
pub fn until_within<T>(watchdog: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if start.elapsed() > watchdog {
            bail!("waited {} s in vain: {what}", watchdog.as_secs());
        }
        thread::sleep(PAUSE);
    }
}

/// Waits until it is true.
pub fn for_true(what: &str, mut ask: impl FnMut() -> bool) -> Result<()> {
    until(what, || ask().then_some(()))
}
