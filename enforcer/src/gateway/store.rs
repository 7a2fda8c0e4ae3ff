//! `RUN_DIR/bindings.json`: what must survive the process, because the kernel goes on with it.

use std::{
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{numbers::Numbers, registry::Registry};

/// Version of the file that this code writes.
const VERSION: u32 = 1;

/// Content of the file.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Kept {
    version: u32,
    pub registry: Registry,
    pub numbers: Numbers,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("bindings {}: cannot {action}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("bindings {}: not what a gateway wrote", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("bindings {}: version {found}, expected {VERSION}", path.display())]
    Version { path: PathBuf, found: u32 },
}

/// Reads the file; `None` where there is none.
pub fn load(path: &Path) -> Result<Option<Kept>, StoreError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::File { action: "read", path: path.into(), source }),
    };
    let kept: Kept =
        serde_json::from_slice(&text).map_err(|source| StoreError::Damaged { path: path.into(), source })?;
    if kept.version != VERSION {
        return Err(StoreError::Version { path: path.into(), found: kept.version });
    }
    Ok(Some(kept))
}

/// Writes the file beside its place and moves it there.
pub fn save(path: &Path, registry: &Registry, numbers: &Numbers) -> Result<(), StoreError> {
    let failed = |action| move |source| StoreError::File { action, path: path.into(), source };
    let kept = Kept { version: VERSION, registry: registry.clone(), numbers: numbers.clone() };
    let text = serde_json::to_vec(&kept).map_err(io::Error::other).map_err(failed("encode"))?;
    let beside = path.with_extension("json.new");
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&text)?;
        file.sync_data()?;
        std::fs::rename(&beside, path)
    };
    // A half of it would take the last of the room from everybody.
    write().inspect_err(|_| drop(std::fs::remove_file(&beside))).map_err(failed("write"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announce::Binding;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("enforcer-bindings-{}-{name}.json", std::process::id()))
    }

    #[test]
    fn what_is_kept_comes_back() {
        let path = path("kept");
        assert_eq!(load(&path).unwrap(), None);
        let mut registry = Registry::default();
        registry
            .upsert("n", Binding { uid: "a".into(), v4: Some([198, 19, 0, 2].into()), ..Binding::default() });
        registry.remove("n", "b");
        let mut numbers = Numbers::default();
        numbers.next_grant();
        save(&path, &registry, &numbers).unwrap();
        let kept = load(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(kept, Some(Kept { version: 1, registry, numbers }));
    }

    #[test]
    fn a_damaged_or_newer_file_is_an_error() {
        let path = path("damaged");
        std::fs::write(&path, "{").unwrap();
        let damaged = load(&path).unwrap_err().to_string();
        std::fs::write(&path, r#"{"version":2,"registry":{},"numbers":{}}"#).unwrap();
        let newer = load(&path).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(damaged, format!("bindings {}: not what a gateway wrote", path.display()));
        assert_eq!(newer, format!("bindings {}: version 2, expected 1", path.display()));
    }
}
