//! `clean-lab`: the lab knows what it makes, so it also knows what to remove (`tests/src/lab/clean.rs`).

use anyhow::Result;

use crate::{build, process};

pub fn run() -> Result<()> {
    build::run(&build::Args::default())?;
    process::exec(process::command(build::binary("enforcer-lab", false)).arg("clean"))
}
