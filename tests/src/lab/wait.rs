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
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if start.elapsed() > WATCHDOG {
            bail!("waited {} s in vain: {what}", WATCHDOG.as_secs());
        }
        thread::sleep(PAUSE);
    }
}

/// Waits until it is true.
pub fn for_true(what: &str, mut ask: impl FnMut() -> bool) -> Result<()> {
    until(what, || ask().then_some(()))
}
