//! `build`: the roles, the BPF object inside them (see `enforcer/build.rs`) and the lab.

use anyhow::Result;

use crate::process;

#[derive(clap::Args, Default)]
pub struct Args {
    /// Optimise as for a release
    #[arg(long)]
    pub release: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let mut cargo = process::cargo();
    // The whole workspace, here as in `test`: another selection has other features, and builds dependencies again.
    cargo.args(["build", "--workspace", "--bins"]);
    if args.release {
        cargo.arg("--release");
    }
    process::run(&mut cargo)
}

/// A binary that [`run`] has built.
pub fn binary(name: &str, release: bool) -> std::path::PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), std::path::PathBuf::from);
    process::workspace().join(target).join(if release { "release" } else { "debug" }).join(name)
}
