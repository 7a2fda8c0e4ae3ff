//! `tidy`: the rules of the code base that no compiler checks.
//!
//! Every rule is a pure function from a file (or all files) to complaints; nothing here repairs anything.

mod layers;
mod manifest;
mod readme;
mod size;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::process::{self, command};

/// A file of ours, its path relative to the workspace.
pub struct File {
    pub path: PathBuf,
    pub text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "rs")
    }

    /// `path:line: what is wrong`
    fn complain(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path.display())
    }
}

pub fn run() -> Result<()> {
    let files = files()?;
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        complaints.extend(size::check(file));
        complaints.extend(layers::check(file));
    }
    for file in &files {
        if file.path.ends_with("Cargo.toml") {
            complaints.extend(manifest::check(file));
        }
    }
    complaints.extend(readme::check(&files)?);
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    if !complaints.is_empty() {
        bail!("{} complaints in {} files", complaints.len(), files.len());
    }
    eprintln!("tidy: {} files, nothing to complain about", files.len());
    Ok(())
}

/// Everything that git knows or would add, so that a file is judged before its first commit.
fn files() -> Result<Vec<File>> {
    let list =
        process::output(command("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))
            .context("cannot list the files: git ls-files failed")?;
    let root = process::workspace();
    let wanted = |path: &&str| {
        let path = Path::new(path);
        root.join(path).is_file()
            && (path.extension().is_some_and(|e| e == "rs" || e == "toml") || path.ends_with("README.md"))
    };
    let read = |path: &str| {
        let text = fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))?;
        Ok(File { path: path.into(), text })
    };
    list.lines().filter(wanted).map(read).collect()
}
