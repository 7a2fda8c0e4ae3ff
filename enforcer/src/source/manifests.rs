//! A folder of YAML as the source of objects: read once, or watched.
//!
//! Only `*.yaml`, `*.yml` and `*.json` directly in the folder count; what editors leave beside them (dotfiles,
//! `name~`, `#name#`, `.swp`) does not. The folder is read when it has stopped changing for a moment, so that a file
//! is not taken half written, or as removed while an editor saves it by renaming.
//!
//! An object keeps its last good state while its document is refused, and all objects of the folder keep theirs while
//! the folder cannot be read: a slip of the pen revokes nothing.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use tokio::sync::watch;

use crate::{
    changes::Changes,
    store::{Problem, Snapshot},
};

mod message;
mod parse;
#[cfg(test)]
mod tests;

/// The folder is looked at this often even if no event says so: inotify does not see every file system.
const RESCAN: Duration = Duration::from_secs(3);
/// The folder must look the same twice, this far apart, before it is read.
const SETTLE: Duration = Duration::from_millis(100);
/// A folder that never rests is read after this many looks.
const MOST_LOOKS: u32 = 20;

/// Reads the folder once.
pub fn load(dir: &Path) -> Snapshot {
    let mut folder = Folder::new(dir);
    let prints = folder.fingerprints();
    folder.read(&prints);
    folder.snapshot(1)
}

/// Takes one text for the only file of a folder.
pub fn read_text(name: &str, text: &str) -> Snapshot {
    let mut folder = Folder::new(Path::new(""));
    let mut file = File::default();
    file.take(name, text);
    folder.files.insert(name.to_owned(), file);
    folder.snapshot(1)
}

/// Reads the folder and follows it from a task of its own until nobody listens any more. The channel has the first
/// state from the start. Call it from within a tokio runtime.
pub fn watch(dir: impl Into<PathBuf>) -> anyhow::Result<watch::Receiver<Arc<Snapshot>>> {
    let dir = dir.into();
    let metadata =
        fs::metadata(&dir).with_context(|| format!("cannot read the manifests in {}", dir.display()))?;
    anyhow::ensure!(metadata.is_dir(), "--manifests {}: expected a folder", dir.display());
    let mut changes = Changes::of(&dir);
    let mut folder = Folder::new(&dir);
    let mut prints = folder.fingerprints();
    folder.read(&prints);
    let mut revision = 1;
    let (sender, receiver) = watch::channel(Arc::new(folder.snapshot(revision)));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sender.closed() => return,
                () = changes.next(RESCAN) => {}
            }
            let settled = settle(&folder, &prints).await;
            if same(&settled, &prints) {
                continue;
            }
            prints = settled;
            folder.read(&prints);
            let next = folder.snapshot(revision + 1);
            let last = sender.borrow().clone();
            if !says_the_same(&next, &last) {
                revision += 1;
                sender.send_replace(Arc::new(next));
            }
        }
    });
    Ok(receiver)
}

fn says_the_same(left: &Snapshot, right: &Snapshot) -> bool {
    let without_revision = |snapshot: &Snapshot| Snapshot { revision: 0, ..snapshot.clone() };
    without_revision(left) == without_revision(right)
}

/// What tells that a file is another than before: a save by renaming changes the inode, one in place the time.
type Fingerprint = (u64, Option<SystemTime>, u64);
type Fingerprints = Result<BTreeMap<String, Fingerprint>, io::Error>;

fn same(left: &Fingerprints, right: &Fingerprints) -> bool {
    match (left, right) {
        (Ok(left), Ok(right)) => left == right,
        (Err(left), Err(right)) => left.kind() == right.kind(),
        _ => false,
    }
}

async fn settle(folder: &Folder, known: &Fingerprints) -> Fingerprints {
    let mut last = folder.fingerprints();
    if same(&last, known) {
        return last;
    }
    for _ in 0..MOST_LOOKS {
        tokio::time::sleep(SETTLE).await;
        let next = folder.fingerprints();
        if same(&next, &last) {
            break;
        }
        last = next;
    }
    last
}

struct Folder {
    dir: PathBuf,
    files: BTreeMap<String, File>,
    /// Why the folder could not be read.
    problem: Option<Problem>,
}

/// What one file says.
#[derive(Default)]
struct File {
    read: Option<Fingerprint>,
    objects: parse::Objects,
    problems: Vec<Problem>,
    incomplete: bool,
}

impl Folder {
    fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), files: BTreeMap::new(), problem: None }
    }

    fn fingerprints(&self) -> Fingerprints {
        use std::os::unix::fs::MetadataExt;
        let mut prints = BTreeMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            if !is_manifest(&name) {
                continue;
            }
            // A file that vanishes between the two calls is a file that is not there.
            if let Ok(metadata) = fs::metadata(self.dir.join(&name))
                && metadata.is_file()
            {
                prints.insert(name, (metadata.len(), metadata.modified().ok(), metadata.ino()));
            }
        }
        Ok(prints)
    }

    /// Reads what changed since the last time.
    fn read(&mut self, prints: &Fingerprints) {
        let prints = match prints {
            Ok(prints) => prints,
            Err(error) => {
                self.problem = Some(Problem {
                    origin: self.dir.display().to_string(),
                    object: "folder".to_owned(),
                    field: String::new(),
                    message: format!("cannot be read: {error}"),
                });
                return;
            }
        };
        self.problem = None;
        self.files.retain(|name, _| prints.contains_key(name));
        for (name, print) in prints {
            let file = self.files.entry(name.clone()).or_default();
            if file.read != Some(*print) {
                file.read = file.read_from(&self.dir.join(name), name).then_some(*print);
            }
        }
    }

    fn snapshot(&self, revision: u64) -> Snapshot {
        let mut snapshot = Snapshot { revision, ..Snapshot::default() };
        snapshot.problems.extend(self.problem.clone());
        snapshot.incomplete = self.problem.is_some() || self.files.values().any(|file| file.incomplete);
        for (name, file) in &self.files {
            snapshot.problems.extend(file.problems.iter().cloned());
            for (key, object) in &file.objects {
                if let Some(first) = snapshot.origins.get(key) {
                    snapshot.problems.push(Problem {
                        origin: name.clone(),
                        object: key.to_string(),
                        field: String::new(),
                        message: format!("stands in {first} already, which is used"),
                    });
                    continue;
                }
                snapshot.origins.insert(key.clone(), name.clone());
                snapshot.objects.insert(key.clone(), object.clone());
            }
        }
        snapshot
    }
}

impl File {
    fn take(&mut self, name: &str, text: &str) {
        let content = parse::file(name, text, &self.objects);
        self.objects = content.objects;
        self.problems = content.problems;
        self.incomplete = content.incomplete;
    }

    /// False: it could not be read and is to be tried again.
    fn read_from(&mut self, path: &Path, name: &str) -> bool {
        match fs::read_to_string(path) {
            Ok(text) => {
                self.take(name, &text);
                true
            }
            Err(error) => {
                self.problems = vec![Problem {
                    origin: name.to_owned(),
                    object: "file".to_owned(),
                    field: String::new(),
                    message: format!("cannot be read: {error}"),
                }];
                self.incomplete = true;
                false
            }
        }
    }
}

fn is_manifest(name: &str) -> bool {
    !name.starts_with(['.', '#'])
        && ["yaml", "yml", "json"].iter().any(|extension| parse::has_extension(name, extension))
}
