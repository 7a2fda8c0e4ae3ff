//! `demo`: setup, build, then the demo of the lab (`tests/src/demo.rs`).

use anyhow::Result;

use crate::{build, process, setup};

#[derive(clap::Args)]
pub struct Args {
    /// One JSON object a line: check, expected, got, ok
    #[arg(long)]
    json: bool,
    /// Leave the lab up and print how to look around in it
    #[arg(long)]
    keep: bool,
}

pub fn run(args: &Args) -> Result<()> {
    setup::run(setup::Args::default())?;
    build::run(&build::Args::default())?;
    let mut lab = process::command(build::binary("enforcer-lab", false));
    lab.arg("demo");
    if args.json {
        lab.arg("--json");
    }
    if args.keep {
        lab.arg("--keep");
    }
    process::exec(&mut lab)
}
