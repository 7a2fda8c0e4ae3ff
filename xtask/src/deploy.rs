//! `deploy`: the kustomize base and the Helm chart, from the same source as what `enforcer install` prints.

use std::fs;

use anyhow::{Context, Result};

use crate::{build, process};

pub fn run() -> Result<()> {
    build::run(&build::Args::default())?;
    for format in ["kustomize", "helm"] {
        let folder = process::workspace().join("enforcer/deploy").join(format);
        // Files that are made no more would stay.
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        let mut install = process::command(build::binary("enforcer", false));
        process::run(install.args(["install", "--format", format, "--output"]).arg(folder))?;
    }
    Ok(())
}
