//! What a role has accepted of each file, kept on disk: after a restart a file that says nothing valid means what it
//! meant before, and an object that stands in two files is that of the file that had it first.
//!
//! Every role keeps its own. Another role's copy may be older, and bring back what was revoked since. A file that is
//! deleted takes its copy along, also while nobody runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::json;

use super::parse::{self, Objects};

pub(super) struct Accepted {
    dir: PathBuf,
    /// What the copies say. Key: name of the file.
    written: BTreeMap<Arc<str>, Objects>,
    /// Whether this role writes; the DNS server reads the controller's copies.
    writes: bool,
    /// What was in the log last, so that it is there once.
    complaint: Option<String>,
}

impl Accepted {
    /// Reads all copies. One that is damaged says nothing: what it was a copy of has to be repaired.
    pub fn open(dir: PathBuf, writes: bool) -> Self {
        let mut accepted = Self { dir, written: BTreeMap::new(), writes, complaint: None };
        let entries = fs::read_dir(&accepted.dir).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let name =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(SUFFIX));
            let (Some(name), Ok(text)) = (name, fs::read_to_string(&path)) else { continue };
            let content = parse::file("copy.json", &text, &Objects::new());
            if content.incomplete {
                tracing::warn!(path = %path.display(), "damaged, expected what was written here; it is not used");
            } else {
                accepted.written.insert(name.into(), content.objects);
            }
        }
        accepted
    }

    /// What was accepted of a file; nothing where that is not known.
    pub fn of(&self, name: &str) -> Objects {
        self.written.get(name).cloned().unwrap_or_default()
    }

    pub fn all(&self) -> impl Iterator<Item = (&Arc<str>, &Objects)> {
        self.written.iter()
    }

    /// Brings the copies of these files to what is accepted of them `now` (`None`: the file is gone). Those that could
    /// not be written stay in `stale`.
    pub fn keep(&mut self, stale: &mut BTreeSet<Arc<str>>, now: impl Fn(&str) -> Option<Objects>) {
        if !self.writes {
            for name in std::mem::take(stale) {
                match now(&name) {
                    Some(objects) => drop(self.written.insert(name, objects)),
                    None => drop(self.written.remove(&name)),
                }
            }
        }
        // One that cannot be written holds up no other: a copy of what is gone must not come back.
        let mut failure = None;
        stale.retain(|name| {
            let failed = self.write(name, now(name)).err();
            let stays = failed.is_some();
            failure = failure.take().or(failed);
            stays
        });
        let complaint = failure.map(|error| {
            let dir = self.dir.display();
            format!("{dir}: what is accepted now cannot be kept for the next start: {error}")
        });
        if let Some(complaint) =
            complaint.as_ref().filter(|complaint| self.complaint.as_ref() != Some(complaint))
        {
            tracing::warn!("{complaint}");
        }
        self.complaint = complaint;
    }

    fn write(&mut self, name: &Arc<str>, now: Option<Objects>) -> io::Result<()> {
        if self.written.get(name) == now.as_ref() {
            return Ok(());
        }
        let Some(objects) = now else {
            match fs::remove_file(self.path(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => drop(self.written.remove(name)),
            }
            return Ok(());
        };
        // A copy that says what is not true any more must not be found after a failure.
        self.written.remove(name);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        replace(&self.path(name), &objects).inspect_err(|_| {
            let _gone = fs::remove_file(self.path(name));
        })?;
        self.written.insert(Arc::clone(name), objects);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}{SUFFIX}"))
    }
}

const SUFFIX: &str = ".json";

/// Beside its place, then there: a reader finds the old or the new one.
fn replace(path: &Path, objects: &Objects) -> io::Result<()> {
    let items: Vec<_> = objects.values().map(|object| object.document()).collect();
    let text = serde_json::to_vec(&json!({ "apiVersion": "v1", "kind": "List", "items": items }))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    io::Write::write_all(&mut file, &text)?;
    fs::rename(&beside, path)
}
