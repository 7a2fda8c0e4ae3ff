//! The source of Debian's package, fetched by apt with lists of its own: the machine's configuration stays as it is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::process::{self, command, output};

const PACKAGE: &str = "kubernetes";
const RELEASE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";

/// Downloads it into `dir` and unpacks it as `tree`.
pub fn fetch(dir: &Path, tree: &Path) -> Result<()> {
    let lists = dir.join("lists");
    for dir in [&lists.join("partial"), tree] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let sources = dir.join("sources.list");
    let line = format!("deb-src {} {RELEASE} main\n", mirror());
    fs::write(&sources, line).with_context(|| format!("cannot write {}", sources.display()))?;
    let apt = || {
        let mut apt = command("apt-get");
        apt.current_dir(dir)
            .arg("--quiet=2")
            // As root it would complain that apt's own user cannot write here.
            .arg("--option=APT::Sandbox::User=root")
            .arg(format!("--option=Dir::Etc::SourceList={}", sources.display()))
            .arg("--option=Dir::Etc::SourceParts=/dev/null")
            .arg(format!("--option=Dir::State::Lists={}", lists.display()))
            .arg(format!("--option=Dir::Cache={}", dir.display()));
        apt
    };
    eprintln!("kubernetes: apt-get source {PACKAGE} ({RELEASE})");
    process::run(apt().arg("update"))?;
    process::run(apt().args(["source", "--download-only", PACKAGE]))?;
    let archive = archive(dir)?;
    process::run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(tree).arg("--strip-components=1"))
}

/// Where this machine has Debian's packages from.
fn mirror() -> String {
    let format = "$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)";
    let targets =
        output(command("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]));
    let targets = targets.unwrap_or_default();
    let mirror = targets.lines().find_map(|line| line.strip_prefix("Debian Debian main "));
    mirror.unwrap_or(MIRROR).to_owned()
}

/// Upstream's part of what apt has left: Debian's patches are for Debian's own binaries.
fn archive(dir: &Path) -> Result<PathBuf> {
    fs::read_dir(dir)
        .with_context(|| format!("cannot read {}", dir.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.to_string_lossy().ends_with(".orig.tar.gz"))
        .with_context(|| format!("apt-get left no source of {PACKAGE} in {}", dir.display()))
}
