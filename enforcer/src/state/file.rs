//! The state file on disk: read, replaced, followed.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Deserialize;
use tokio::sync::watch;

use super::{State, VERSION};
use crate::changes::Changes;

/// The file is looked at this often even without a hint.
const RELOOK: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("state file {}, line {line}: damaged, expected what enforcer controller wrote; restore it", path.display())]
    Damaged {
        path: PathBuf,
        line: usize,
        #[source]
        source: serde_json::Error,
    },
    #[error("state file {}: version {found}, expected {VERSION}", path.display())]
    Version { path: PathBuf, found: u32 },
    #[error("state file {}: ula {found}, expected a /48", path.display())]
    Ula { path: PathBuf, found: ipnet::Ipv6Net },
    #[error("state file {}: cannot be {action}", path.display())]
    Io {
        path: PathBuf,
        /// `read` or `written`
        action: &'static str,
        #[source]
        source: io::Error,
    },
}

/// `DIR.state.json`: beside the folder of manifests, never in it.
pub fn default_path(manifests: &Path) -> PathBuf {
    // A trailing slash or `.` would make it a file in the folder.
    let dir = manifests.canonicalize().unwrap_or_else(|_| manifests.components().collect());
    let mut name = dir.into_os_string();
    name.push(".state.json");
    name.into()
}

/// Where the controller keeps what it has accepted of the manifests: beside its state file.
pub fn accepted_path(state: &Path) -> PathBuf {
    let mut name = state.as_os_str().to_owned();
    name.push(".accepted");
    name.into()
}

/// `None`: there is no such file.
pub fn load(path: &Path) -> Result<Option<State>, StateError> {
    match fs::read(path) {
        Ok(text) => parse(path, &text).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Io { path: path.to_owned(), action: "read", source }),
    }
}

fn parse(path: &Path, text: &[u8]) -> Result<State, StateError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let version_of = |found| StateError::Version { path: path.to_owned(), found };
    let damaged = |source: serde_json::Error| StateError::Damaged {
        path: path.to_owned(),
        line: source.line(),
        source,
    };
    let state: State = serde_json::from_slice(text).map_err(|error| {
        // What another version contains is not damage.
        match serde_json::from_slice(text) {
            Ok(Versioned { version }) if version != VERSION => version_of(version),
            _ => damaged(error),
        }
    })?;
    if state.version != VERSION {
        return Err(version_of(state.version));
    }
    if state.ula.prefix_len() != 48 {
        return Err(StateError::Ula { path: path.to_owned(), found: state.ula });
    }
    Ok(state)
}

/// Replaces the file; after a crash it is the old one or the new one.
pub fn save(path: &Path, state: &State) -> Result<(), StateError> {
    let write = || {
        let mut text = serde_json::to_vec(state)?;
        text.push(b'\n');
        replace(path, &text)
    };
    write().map_err(|source| StateError::Io { path: path.to_owned(), action: "written", source })
}

/// Replaces any file that nobody else is to read; after a crash it is the old one or the new one.
pub fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    let beside = dir.join(hidden);
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    // A half of it would take the last of the room from everybody.
    write().inspect_err(|_| drop(fs::remove_file(&beside)))?;
    fs::File::open(dir)?.sync_all()
}

/// Follows the file from a task of its own until nobody listens any more. `None` until there is a good one; a
/// damaged or vanished file leaves the last good state, and says so in the log. Call it from within a tokio runtime.
pub fn watch_state(path: impl Into<PathBuf>) -> watch::Receiver<Option<Arc<State>>> {
    let path = path.into();
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut changes = Changes::of(dir);
    let mut reader = Reader { path, read: None, last: None };
    let (sender, receiver) = watch::channel(reader.look().map(Arc::new));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sender.closed() => return,
                () = changes.next(RELOOK) => {}
            }
            let Some(mut state) = reader.look() else { continue };
            let current = sender.borrow().clone();
            if let Some(current) = &current {
                state = state.sharing(current);
            }
            if current.as_deref() != Some(&state) {
                sender.send_replace(Some(Arc::new(state)));
            }
        }
    });
    receiver
}

struct Reader {
    path: PathBuf,
    /// What tells the file that was read from the one that takes its place. A good one is not read twice.
    read: Option<(u64, SystemTime, (i64, i64), u64)>,
    /// What was in the log last, so that it is there once.
    last: Option<String>,
}

impl Reader {
    /// The state, if there is a good one that was not read before.
    fn look(&mut self) -> Option<State> {
        let print = fs::metadata(&self.path)
            .and_then(|metadata| {
                let changed = (metadata.ctime(), metadata.ctime_nsec());
                Ok((metadata.ino(), metadata.modified()?, changed, metadata.len()))
            })
            .ok();
        if print.is_some() && print == self.read {
            return None;
        }
        let (state, complaint) = match load(&self.path) {
            Ok(Some(state)) => (Some(state), None),
            Ok(None) => (None, Some("there is no such file".to_owned())),
            Err(error) => (None, Some(error.to_string())),
        };
        if let Some(complaint) = complaint.as_ref().filter(|complaint| self.last.as_ref() != Some(complaint))
        {
            tracing::warn!(path = %self.path.display(), reason = %complaint, "no state to read");
        }
        self.read = print.filter(|_| state.is_some());
        self.last = complaint;
        state
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn state() -> State {
        State::new(
            "fd12:3456:789a::/48".parse().unwrap(),
            "198.18.0.0/16".parse().unwrap(),
            "198.19.0.0/16".parse().unwrap(),
        )
    }

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("enforcer-state-{}-{name}.json", std::process::id()))
    }

    #[test]
    fn what_is_saved_is_what_is_loaded_and_nobody_else_reads_it() {
        let path = path("saved");
        save(&path, &state()).unwrap();
        save(&path, &state()).unwrap();
        assert_eq!(load(&path).unwrap(), Some(state()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(&path).unwrap();
        assert_eq!(load(&path).unwrap(), None);
    }

    #[test]
    fn a_file_of_another_kind_is_refused_by_name() {
        let path = path("refused");
        let name = path.display();
        let good = serde_json::to_string_pretty(&state()).unwrap();
        let table = [
            (
                "{\n\"version\": 1,\n\"ula",
                format!(
                    "state file {name}, line 3: damaged, expected what enforcer controller wrote; restore it"
                ),
            ),
            (
                "",
                format!(
                    "state file {name}, line 1: damaged, expected what enforcer controller wrote; restore it"
                ),
            ),
            ("{\"version\": 2, \"new\": true}", format!("state file {name}: version 2, expected 1")),
            (
                &good.replace("/48", "/64"),
                format!("state file {name}: ula fd12:3456:789a::/64, expected a /48"),
            ),
        ];
        for (text, message) in table {
            fs::write(&path, text).unwrap();
            assert_eq!(load(&path).unwrap_err().to_string(), message, "{text}");
        }
        fs::remove_file(&path).unwrap();
    }

    #[tokio::test]
    async fn the_last_good_state_outlives_its_file() {
        let path = path("followed");
        let mut receiver = watch_state(&path);
        assert_eq!(*receiver.borrow_and_update(), None);
        save(&path, &state()).unwrap();
        let wait = Duration::from_secs(20);
        tokio::time::timeout(wait, receiver.changed()).await.unwrap().unwrap();
        assert_eq!(receiver.borrow_and_update().as_deref(), Some(&state()));

        fs::write(&path, "{").unwrap();
        let mut newer = state();
        newer.next.service = 9;
        fs::remove_file(&path).unwrap();
        save(&path, &newer).unwrap();
        tokio::time::timeout(wait, receiver.changed()).await.unwrap().unwrap();
        assert_eq!(receiver.borrow().as_deref(), Some(&newer));
        fs::remove_file(&path).unwrap();
    }
}
