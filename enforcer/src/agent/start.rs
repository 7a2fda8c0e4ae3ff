//! What an agent needs before it can begin: to be the only one, a ledger, and its node's addresses.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};

use crate::compile::{Ledger, ledger::VERSION};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{path}: cannot be {action}")]
    Io {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{path} is locked: another agent runs with this --run-dir")]
    Locked { path: PathBuf },
    #[error("{path}: damaged, expected what an agent wrote")]
    Ledger {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path}: version {found}, expected {VERSION}")]
    Version { path: PathBuf, found: u32 },
    #[error(
        "{path} is missing, but programs of an earlier agent are pinned in {bpffs}: restore it, or end them by removing {bpffs}"
    )]
    MissingState { path: PathBuf, bpffs: PathBuf },
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Io { path: path.to_owned(), action, source }
}

/// Makes the run directory and locks it for as long as the result lives.
pub fn lock(run_dir: &Path) -> Result<Flock<File>, StartError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(run_dir).map_err(failed(run_dir, "made"))?;
    let path = run_dir.join("agent.lock");
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed(&path, "opened"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, _)| StartError::Locked { path })
}

/// Refuses to start without something that the pins of an earlier agent depend on.
pub fn refuse_missing(path: &Path, bpffs: &Path) -> Result<(), StartError> {
    let pinned = fs::read_dir(bpffs.join("maps")).is_ok_and(|mut entries| entries.next().is_some());
    if pinned && !path.exists() {
        return Err(StartError::MissingState { path: path.to_owned(), bpffs: bpffs.to_owned() });
    }
    Ok(())
}

/// The ledger on disk.
pub struct LedgerFile {
    path: PathBuf,
    saved: Option<Ledger>,
}

impl LedgerFile {
    /// Reads it; a new one where there is none.
    pub fn load(run_dir: &Path, bpffs: &Path) -> Result<(Self, Ledger), StartError> {
        let path = run_dir.join("workloads.json");
        refuse_missing(&path, bpffs)?;
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Self { path, saved: None }, Ledger::default()));
            }
            Err(source) => return Err(failed(&path, "read")(source)),
        };
        let ledger: Ledger = serde_json::from_slice(&text)
            .map_err(|source| StartError::Ledger { path: path.clone(), source })?;
        if ledger.version != VERSION {
            return Err(StartError::Version { path, found: ledger.version });
        }
        Ok((Self { path, saved: Some(ledger.clone()) }, ledger))
    }

    /// Writes it if it says something that must be known after a crash. What can wait comes with [`Self::save`]:
    /// writing takes longer than most changes.
    pub fn save_urgent(&mut self, ledger: &Ledger) -> Result<(), StartError> {
        if self.saved.as_ref().is_some_and(|saved| saved.same_but_for_connections(ledger)) {
            return Ok(());
        }
        self.save(ledger)
    }

    /// Writes it if it says something new. After a crash the file is the old one or the new one.
    pub fn save(&mut self, ledger: &Ledger) -> Result<(), StartError> {
        if self.saved.as_ref().is_some_and(|saved| saved.same_on_disk(ledger)) {
            return Ok(());
        }
        let beside = self.path.with_extension("json.new");
        let write = || {
            let text = serde_json::to_vec_pretty(ledger)?;
            let mut file =
                fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            io::Write::write_all(&mut file, &text)?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)
        };
        // A half of it would take the last of the room from everybody.
        let written = write().inspect_err(|_| drop(fs::remove_file(&beside)));
        written.map_err(failed(&self.path, "written"))?;
        self.saved = Some(ledger.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("enforcer-agent-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_run_directory_has_one_agent() {
        let dir = dir("lock");
        let held = lock(&dir).unwrap();
        assert_eq!(
            lock(&dir).unwrap_err().to_string(),
            format!("{}/agent.lock is locked: another agent runs with this --run-dir", dir.display())
        );
        drop(held);
        drop(lock(&dir).unwrap());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_ledger_comes_back_and_its_loss_is_noticed() {
        let dir = dir("ledger");
        let bpffs = dir.join("bpffs");
        let (mut file, mut ledger) = LedgerFile::load(&dir, &bpffs).unwrap();
        ledger.workload("pod");
        file.save(&ledger).unwrap();
        assert_eq!(LedgerFile::load(&dir, &bpffs).unwrap().1, ledger);

        fs::create_dir_all(bpffs.join("maps/GRANTS")).unwrap();
        fs::remove_file(dir.join("workloads.json")).unwrap();
        assert!(matches!(LedgerFile::load(&dir, &bpffs), Err(StartError::MissingState { .. })));
        fs::remove_dir_all(dir).unwrap();
    }
}
