//! A folder of YAML as the source of objects: read once, or watched.
//!
//! Only `*.yaml`, `*.yml` and `*.json` directly in the folder count; what editors leave beside them (dotfiles,
//! `name~`, `#name#`, `.swp`) does not. A file that was renamed into place is whole and is taken over at once; any
//! other one when it has stopped changing for a moment, so that it is not taken half written. What is not in any file
//! any more is gone when the whole folder has rested: an editor that saves by renaming, or an object that moves to
//! another file, takes nothing away in between.
//!
//! A change costs what it changes: events name the files to look at, and a view shares with the last one what they do
//! not touch. Every file is looked at every few seconds, in doubt, and before anything is taken away.
//!
//! An object keeps its last good state while its document is refused, over restarts as well (`accepted`), and all
//! objects of the folder keep theirs while the folder cannot be read: a slip of the pen revokes nothing. Deleting the
//! document or its file does.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::sync::watch;

use crate::{changes::Changes, store::Snapshot};

mod accepted;
pub mod edit;
mod folder;
mod parse;
#[cfg(test)]
mod tests;

use accepted::Accepted;
use folder::Folder;

/// All files are looked at this often even if no event says so: inotify does not see every file system.
const RESCAN: Duration = Duration::from_secs(3);
/// What must not change for so long before it is believed.
const SETTLE: Duration = Duration::from_millis(100);
/// What never rests is believed after so long.
const LONGEST_UNREST: Duration = Duration::from_secs(2);

/// Reads the folder once.
pub fn load(dir: &Path) -> Snapshot {
    let mut folder = Folder::new(dir);
    folder.read_all();
    folder.last()
}

/// Names of the files that count, in their order.
pub fn file_names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string().ok().filter(|name| folder::is_manifest(name)));
    }
    names.sort_unstable();
    Ok(names)
}

/// Takes one text for the only file of a folder.
pub fn read_text(name: &str, text: &str) -> Snapshot {
    Folder::of_text(name, text).last()
}

/// Where it is kept what was accepted.
#[derive(Clone, Debug)]
pub enum Memory {
    /// In this folder, which is the role's own.
    Own(PathBuf),
    /// Another role keeps it there.
    Others(PathBuf),
}

/// Reads the folder and follows it from a task of its own until nobody listens any more. The channel has the first
/// state from the start. Call it from within a tokio runtime.
pub fn watch(dir: impl Into<PathBuf>, memory: Memory) -> anyhow::Result<watch::Receiver<Arc<Snapshot>>> {
    let dir = dir.into();
    let metadata =
        fs::metadata(&dir).with_context(|| format!("cannot read the manifests in {}", dir.display()))?;
    anyhow::ensure!(metadata.is_dir(), "--manifests {}: expected a folder", dir.display());
    let mut changes = Changes::of(&dir);
    let accepted = match memory {
        Memory::Own(dir) => Accepted::open(dir, true),
        Memory::Others(dir) => Accepted::open(dir, false),
    };
    let mut folder = Folder::new(&dir).remembering(accepted);
    folder.read_all();
    let (sender, receiver) = watch::channel(folder.snapshot());
    folder.keep();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sender.closed() => return,
                () = changes.next(folder.wait(Instant::now())) => {}
            }
            if !folder.look(Instant::now(), &changes.hints()) {
                continue;
            }
            let next = folder.snapshot();
            if !Arc::ptr_eq(&next, &sender.borrow()) {
                sender.send_replace(next);
            }
            folder.keep();
        }
    });
    Ok(receiver)
}
