//! `load`: the kernel developer's loop; the work is `enforcer load`'s.

use std::ffi::OsString;

use anyhow::Result;

use crate::{build, process};

#[derive(clap::Args)]
pub struct Args {
    /// Arguments of `enforcer load`, such as `--iface IF [--hook HOOK]`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub fn run(args: &Args) -> Result<()> {
    build::run(&build::Args::default())?;
    process::exec(process::command(build::binary("enforcer", false)).arg("load").args(&args.args))
}
