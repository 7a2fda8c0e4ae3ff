//! A newer server of custom resources than Debian's release has the source of: the one that knows rules in CEL and
//! admission policies.
//!
//! Debian's unstable release has it as a Go library. That changes from day to day, so that nothing of a plain test run
//! depends on it. Nothing of it is installed: packages are unpacked into a folder of ours.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{RUN_PACKAGES, remove, source::Apt};
use crate::{
    build,
    process::{self, command, output},
    setup,
};

const RELEASE: &str = "unstable";
const SERVER: &str = "golang-k8s-apiextensions-apiserver-dev";
/// What it is built with, as new as what it needs.
const COMPILER: &str = "golang-go";
const IMPORT: &str = "k8s.io/apiextensions-apiserver";

/// The server's binary. Instant when it is there.
pub fn server() -> Result<PathBuf> {
    setup::packages(RUN_PACKAGES)?;
    let dir = build::target().join("kube").join("newer");
    let program = dir.join("apiextensions-apiserver");
    if program.is_file() {
        return Ok(program);
    }
    remove(&dir)?;
    let root = dir.join("root");
    unpack(&dir, &root)?;
    let go = compiler(&root)?;
    eprintln!("kubernetes: building {IMPORT}, once; this takes minutes");
    let path = root.join("usr/share/gocode");
    let aside = dir.join("aside");
    process::run(
        command(go.join("bin/go"))
            .current_dir(path.join("src").join(IMPORT))
            .args(["build", "-o"])
            .arg(&aside)
            .arg(".")
            .env("GOPATH", &path)
            .env("GOROOT", &go)
            .env("GOCACHE", dir.join("cache"))
            // Everything is unpacked; whatever is not is an error, no download.
            .env("GO111MODULE", "off")
            .env("GOPROXY", "off")
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", ""),
    )?;
    fs::rename(&aside, &program).with_context(|| format!("cannot rename to {}", program.display()))?;
    for left in [root, dir.join("cache"), dir.join("packages")] {
        remove(&left)?;
    }
    Ok(program)
}

/// Unpacks what the server is made of below `root`: libraries and the compiler, and nothing that those want to run.
fn unpack(dir: &Path, root: &Path) -> Result<()> {
    let packages = dir.join("packages");
    for dir in [root, &packages] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let apt = Apt::alone(&packages, RELEASE)?;
    process::run(apt.get().arg("update"))?;
    let wanted = ["--simulate", "--no-install-recommends", "install", SERVER, COMPILER];
    let plan = output(apt.get().args(wanted)).with_context(|| {
        format!("{RELEASE} has no {SERVER} that could be installed today; try again another day")
    })?;
    let names = plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
    let names: Vec<&str> = names.filter(|name| name.starts_with("golang-")).collect();
    eprintln!("kubernetes: {} packages of Debian {RELEASE}, unpacked below {}", names.len(), root.display());
    process::run(apt.get().arg("download").args(names))?;
    for entry in fs::read_dir(&packages).with_context(|| format!("cannot read {}", packages.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            process::run(command("dpkg-deb").arg("--extract").arg(path).arg(root))?;
        }
    }
    Ok(())
}

/// The only version of Go among them.
fn compiler(root: &Path) -> Result<PathBuf> {
    let lib = root.join("usr/lib");
    let found = fs::read_dir(&lib).with_context(|| format!("cannot read {}", lib.display()))?;
    let mut found = found.filter_map(|entry| Some(entry.ok()?.path()));
    let go = found.find(|path| path.join("bin/go").is_file());
    go.with_context(|| format!("no Go below {}", lib.display()))
}
