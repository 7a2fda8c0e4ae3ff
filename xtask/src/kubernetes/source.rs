//! What Debian has, fetched by apt with lists of its own: the machine's configuration stays as it is.

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

/// apt, which leaves what it downloads in a folder, from one release alone.
pub struct Apt {
    dir: PathBuf,
    /// What is said to be installed; `None`: what is.
    installed: Option<PathBuf>,
}

impl Apt {
    /// For packages whose source is wanted.
    fn sources(dir: &Path, release: &str) -> Result<Self> {
        Self::of(dir, &format!("deb-src {} {release} main\n", mirror()), None)
    }

    /// For packages as they are on a machine that has none.
    pub fn alone(dir: &Path, release: &str) -> Result<Self> {
        let nothing = dir.join("installed");
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        fs::write(&nothing, "").with_context(|| format!("cannot write {}", nothing.display()))?;
        Self::of(dir, &format!("deb {} {release} main\n", mirror()), Some(nothing))
    }

    fn of(dir: &Path, line: &str, installed: Option<PathBuf>) -> Result<Self> {
        for dir in [dir.join("lists/partial"), dir.join("archives/partial")] {
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let sources = dir.join("sources.list");
        fs::write(&sources, line).with_context(|| format!("cannot write {}", sources.display()))?;
        Ok(Self { dir: dir.to_owned(), installed })
    }

    pub fn get(&self) -> Command {
        let mut apt = command("apt-get");
        apt.current_dir(&self.dir)
            .arg("--quiet=2")
            // As root it would complain that apt's own user cannot write here.
            .arg("--option=APT::Sandbox::User=root")
            .arg(format!("--option=Dir::Etc::SourceList={}", self.dir.join("sources.list").display()))
            .arg("--option=Dir::Etc::SourceParts=/dev/null")
            .arg(format!("--option=Dir::State::Lists={}", self.dir.join("lists").display()))
            .arg(format!("--option=Dir::Cache={}", self.dir.display()));
        if let Some(installed) = &self.installed {
            apt.arg(format!("--option=Dir::State::Status={}", installed.display()));
        }
        apt
    }
}

/// Downloads Kubernetes' source into `dir` and unpacks it as `tree`.
pub fn fetch(dir: &Path, tree: &Path) -> Result<()> {
    fs::create_dir_all(tree).with_context(|| format!("cannot make {}", tree.display()))?;
    let apt = Apt::sources(dir, RELEASE)?;
    eprintln!("kubernetes: apt-get source {PACKAGE} ({RELEASE})");
    process::run(apt.get().arg("update"))?;
    process::run(apt.get().args(["source", "--download-only", PACKAGE]))?;
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
