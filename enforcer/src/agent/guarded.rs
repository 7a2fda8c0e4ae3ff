//! What is guarded, kept in a file: after a boot there is nobody to ask before pods start.
//!
//! Versioned JSON, replaced by rename. Where the objects are a folder, the controller's state file says the same.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::state;

const VERSION: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum GuardedError {
    #[error("{path}: cannot be {action}")]
    Io {
        path: PathBuf,
        /// `read` or `written`
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{path} is missing, expected what an agent with --guarded keeps: what it would name stays open")]
    Missing { path: PathBuf },
    #[error("{path}: damaged, expected what an agent with --guarded wrote: what it would name stays open")]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path}: version {found}, expected {VERSION}")]
    Version { path: PathBuf, found: u32 },
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    guarded: BTreeSet<IpNet>,
}

/// What the file says.
pub fn load(path: &Path) -> Result<BTreeSet<IpNet>, GuardedError> {
    let text = fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => GuardedError::Missing { path: path.to_owned() },
        _ => GuardedError::Io { path: path.to_owned(), action: "read", source },
    })?;
    let damaged = |source| GuardedError::Damaged { path: path.to_owned(), source };
    // Of another version nothing else is known.
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(damaged)?;
    if let Some(found) = value["version"].as_u64().filter(|found| *found != u64::from(VERSION)) {
        let found = u32::try_from(found).unwrap_or(u32::MAX);
        return Err(GuardedError::Version { path: path.to_owned(), found });
    }
    Ok(serde_json::from_value::<File>(value).map_err(damaged)?.guarded)
}

/// The file that an agent keeps.
#[derive(Debug, Default)]
pub struct Kept {
    path: Option<PathBuf>,
    /// What it says.
    last: Option<BTreeSet<IpNet>>,
    /// Why it says less than is guarded.
    problem: Option<String>,
}

impl Kept {
    pub fn at(path: Option<PathBuf>) -> Self {
        Self { path, ..Self::default() }
    }

    /// Writes it if it says something else. That it cannot be written stops nothing: it is for the next boot.
    pub fn keep(&mut self, guarded: BTreeSet<IpNet>) {
        let Some(path) = &self.path else { return };
        // Somebody may have taken it away.
        if self.last.as_ref() == Some(&guarded) && path.exists() {
            return;
        }
        let file = File { version: VERSION, guarded };
        let written = serde_json::to_vec(&file)
            .map_err(io::Error::from)
            .and_then(|text| state::replace(path, &text))
            .map_err(|source| GuardedError::Io { path: path.clone(), action: "written", source });
        let problem = written.err().map(|error| format!("{:#}", anyhow::Error::from(error)));
        if let Some(problem) = problem.as_ref().filter(|_| self.problem != problem) {
            tracing::warn!(problem, "the next boot is guarded as the last one was");
        }
        self.last = problem.is_none().then_some(file.guarded);
        self.problem = problem;
    }

    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("enforcer-guarded-{}-{name}.json", std::process::id()))
    }

    fn nets(nets: &[&str]) -> BTreeSet<IpNet> {
        nets.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn what_is_guarded_now_is_what_a_boot_guards_and_nobody_else_reads_it() {
        let path = path("kept");
        let mut kept = Kept::at(Some(path.clone()));
        for guarded in [nets(&["198.18.0.0/16", "fd00::/64"]), nets(&["198.18.0.0/16"])] {
            kept.keep(guarded.clone());
            assert_eq!(kept.problem(), None);
            assert_eq!(load(&path).unwrap(), guarded);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::remove_file(&path).unwrap();
        kept.keep(nets(&["198.18.0.0/16"]));
        assert_eq!(load(&path).unwrap(), nets(&["198.18.0.0/16"]), "it was taken away");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_written_is_said_and_tried_again() {
        let folder = path("folder");
        let path = folder.join("guarded.json");
        let mut kept = Kept::at(Some(path.clone()));
        kept.keep(nets(&["198.18.0.0/16"]));
        assert!(kept.problem().unwrap().starts_with(&format!("{}: cannot be written", path.display())));
        fs::create_dir(&folder).unwrap();
        kept.keep(nets(&["198.18.0.0/16"]));
        assert_eq!((kept.problem(), load(&path).unwrap()), (None, nets(&["198.18.0.0/16"])));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_guards_nothing_is_refused_by_name() {
        let path = path("refused");
        let name = path.display();
        let said = |path: &Path| load(path).unwrap_err().to_string();
        let missing =
            "is missing, expected what an agent with --guarded keeps: what it would name stays open";
        assert_eq!(said(&path), format!("{name} {missing}"));
        let damaged = format!(
            "{name}: damaged, expected what an agent with --guarded wrote: what it would name stays open"
        );
        for (text, message) in [
            ("", damaged.clone()),
            (r#"{"version":1,"guarded":["198.18.0.0/16""#, damaged.clone()),
            (r#"{"version":1}"#, damaged.clone()),
            (r#"{"version":1,"guarded":["nowhere"]}"#, damaged),
            (r#"{"version":2,"routes":[]}"#, format!("{name}: version 2, expected 1")),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(said(&path), message, "{text}");
        }
        fs::remove_file(&path).unwrap();
    }
}
