//! `build`: the roles, the BPF object inside them (see `enforcer/build.rs`) and the lab.

use std::path::PathBuf;

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

/// Cargo's folder for what is built.
pub fn target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    process::workspace().join(target)
}

/// A binary that [`run`] has built.
pub fn binary(name: &str, release: bool) -> PathBuf {
    target().join(if release { "release" } else { "debug" }).join(name)
}
