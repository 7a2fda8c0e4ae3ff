//! `bench`: setup, a release build, then the measurements of the lab (`tests/src/bench.rs`).

use std::path::PathBuf;

use anyhow::Result;

use crate::{build, kubernetes, process, setup};

#[derive(clap::Args)]
pub struct Args {
    /// One JSON object a line: metric, labels, value, unit, reference
    #[arg(long)]
    json: bool,
    /// Only metrics whose name begins so; may be given more than once
    #[arg(long, value_name = "METRIC")]
    only: Vec<String>,
    /// Small and with the development build: whether it works, in seconds
    #[arg(long)]
    quick: bool,
    /// Draw the figures that grow with the number of rules (SVG)
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    setup::run(setup::Args::default())?;
    let release = !args.quick;
    build::run(&build::Args { release })?;
    let mut lab = process::command(build::binary("enforcer-lab", release));
    lab.arg("bench").env(kubernetes::ASSETS, kubernetes::control_plane()?);
    for (flag, given) in [("--json", args.json), ("--quick", args.quick)] {
        if given {
            lab.arg(flag);
        }
    }
    for metric in &args.only {
        lab.args(["--only", metric]);
    }
    if let Some(chart) = &args.chart {
        // As the caller sees it: the lab runs in the root of the workspace.
        lab.arg("--chart").arg(std::path::absolute(chart)?);
    }
    process::exec(&mut lab)
}
