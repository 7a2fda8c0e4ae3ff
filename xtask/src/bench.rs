//! `bench`: setup, build, then the measurements of the lab (`tests/src/bench.rs`).
//!
//! The programs are the same in every profile of cargo, so that the development build measures them as well.

use anyhow::Result;

use crate::{build, process, setup};

#[derive(clap::Args)]
pub struct Args {
    /// One JSON object a line: metric, labels, value, unit, reference
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    setup::run(setup::Args::default())?;
    build::run(&build::Args::default())?;
    let mut lab = process::command(build::binary("enforcer-lab", false));
    lab.arg("bench");
    if args.json {
        lab.arg("--json");
    }
    process::exec(&mut lab)
}
