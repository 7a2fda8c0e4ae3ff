//! What every cleanup takes away: files of run folders, and what a tunnel in user space was told.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::tunnel::{descriptions, socket_path};

/// Tells the tunnel in user space that its devices are no more; it may run on.
pub fn remove_descriptions(run_dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut removed = Vec::new();
    let folder = descriptions(run_dir);
    for entry in fs::read_dir(&folder).into_iter().flatten() {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        let device = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        remove(&path)?;
        if remove(&socket_path(&device))? {
            removed.push(format!("socket of {device}"));
        }
    }
    Ok(removed)
}

/// Removes those of these files that are there, and returns their paths.
pub fn remove_files(run_dir: &Path, names: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut removed = Vec::new();
    for path in names.iter().map(|name| run_dir.join(name)) {
        if remove(&path)? {
            removed.push(path.display().to_string());
        }
    }
    Ok(removed)
}

/// Removes a run folder; of somebody else's files in it nothing is known, and they are said.
pub fn remove_run_dir(run_dir: &Path) -> Option<String> {
    let error = fs::remove_dir(run_dir).err()?;
    Some(format!("but not {}: {error}", run_dir.display()))
}

/// Whether there was something.
pub fn remove(path: &PathBuf) -> anyhow::Result<bool> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

/// One a line.
pub fn lines(removed: &[String]) -> String {
    removed.iter().fold(String::new(), |lines, line| lines + line + "\n")
}
