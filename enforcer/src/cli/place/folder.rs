//! Objects in a folder of YAML, with what the controller says of them in its state file.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::{Place, key_of};
use crate::{
    control::{self, View},
    model::{Kind, Object, ObjectKey},
    resolve,
    source::manifests::{self, edit},
    state::{self, State},
    store::Snapshot,
};

pub struct Folder {
    dir: PathBuf,
    state: PathBuf,
}

/// What folder and state file say at one moment.
struct Look {
    view: View,
    /// Documents that are no object as they are, with the reason in their status.
    refused: BTreeMap<ObjectKey, Value>,
    /// Why the controller has said nothing of an object.
    unseen: String,
}

impl Look {
    /// In the order of their keys.
    fn objects(&self) -> BTreeMap<ObjectKey, Value> {
        let mut all = self.refused.clone();
        let good = self.view.snapshot.objects.iter();
        all.extend(good.map(|(key, object)| (key.clone(), self.render(key, object))));
        all
    }

    /// As the controller's status has it, but for what it has not seen yet.
    fn render(&self, key: &ObjectKey, object: &Object) -> Value {
        let mut document = control::render(&self.view, key, object);
        let Some(now) = self.view.resolved.conditions.get(key) else { return document };
        let is_seen = self.view.state.as_ref().is_some_and(|state| state.status.contains_key(key));
        for condition in now.iter() {
            let conditions = document["status"]["conditions"].as_array_mut();
            let said = conditions
                .and_then(|conditions| conditions.iter_mut().find(|found| found["type"] == *condition.kind));
            match said {
                // A mistake is one before anybody has seen it.
                Some(said) if condition.status == "False" && said["status"] != "False" => {
                    *said = json!(condition);
                }
                Some(said) if !is_seen && condition.status != "False" => {
                    *said = json!({
                        "type": condition.kind, "status": "Unknown", "reason": "NotSeen", "message": self.unseen,
                    });
                }
                _ => {}
            }
        }
        document
    }
}

impl Folder {
    pub fn open(dir: PathBuf, state: PathBuf) -> anyhow::Result<Self> {
        let metadata =
            fs::metadata(&dir).with_context(|| format!("cannot read --manifests {}", dir.display()))?;
        ensure!(metadata.is_dir(), "--manifests {}: expected a folder", dir.display());
        Ok(Self { dir, state })
    }

    fn look(&self) -> anyhow::Result<Look> {
        let snapshot = Arc::new(manifests::load(&self.dir));
        let path = self.state.display();
        let (state, unseen) = match state::load(&self.state) {
            Ok(Some(state)) => (Some(state), format!("no controller has seen it yet, says {path}")),
            Ok(None) => (None, format!("no controller has seen it yet: there is no {path}")),
            // Whoever writes objects may not be allowed to read what the controller keeps.
            Err(error) => (None, format!("{:#}", anyhow::Error::new(error))),
        };
        // Without a controller nothing has an address; what is valid can be told all the same.
        let nothing = || {
            let [v4, v6] = ["198.18.0.0/16", "198.19.0.0/16"].map(str::parse);
            anyhow::Ok(State::new("fd00::/48".parse()?, v4?, v6?))
        };
        let resolved = match &state {
            Some(state) => resolve::resolve(&snapshot, state),
            None => resolve::resolve(&snapshot, &nothing()?),
        };
        let (resolved, state) = (Arc::new(resolved), state.map(Arc::new));
        let view = View { snapshot, resolved, state, ..View::default() };
        Ok(Look { view, refused: self.refused()?, unseen })
    }

    fn refused(&self) -> anyhow::Result<BTreeMap<ObjectKey, Value>> {
        let mut all = BTreeMap::new();
        for (name, text) in self.files()? {
            for (key, mut document, why) in edit::refused(&name, &text) {
                document["status"] = json!({ "conditions": [{
                    "type": "Valid", "status": "False", "reason": "NotAccepted",
                    "message": format!("{}: {why}", self.path(&name)),
                }] });
                all.insert(key, document);
            }
        }
        Ok(all)
    }

    /// Files of the folder, by name, with their text; what cannot be read is told by `notes`.
    fn files(&self) -> anyhow::Result<Vec<(String, String)>> {
        let names = manifests::file_names(&self.dir)
            .with_context(|| format!("cannot read --manifests {}", self.dir.display()))?;
        let read = |name: String| fs::read_to_string(self.dir.join(&name)).ok().map(|text| (name, text));
        Ok(names.into_iter().filter_map(read).collect())
    }

    /// Others who write through this are waited for: what was looked at is still true when it is written.
    fn lock(&self) -> anyhow::Result<fs::File> {
        let failed = || format!("cannot lock {}", self.dir.display());
        let dir = fs::File::open(&self.dir).with_context(failed)?;
        dir.lock().with_context(failed)?;
        Ok(dir)
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

impl Place for Folder {
    fn home(&self) -> &'static str {
        "default"
    }

    fn list(&self, kind: Kind, project: Option<&str>) -> anyhow::Result<Vec<Value>> {
        let wanted =
            self.look()?.objects().into_iter().filter(|(key, _)| {
                key.kind == kind && project.is_none_or(|project| project == key.namespace)
            });
        Ok(wanted.map(|(_, document)| document).collect())
    }

    fn get(&self, key: &ObjectKey) -> anyhow::Result<Option<Value>> {
        Ok(self.look()?.objects().remove(key))
    }

    fn create(&self, document: &Value) -> anyhow::Result<String> {
        let key = key_of(document)?;
        let lock = self.lock()?;
        let files = self.files()?;
        if let Some((name, _)) = files.iter().find(|(name, text)| edit::holds(name, text, &key)) {
            bail!("{key} exists already, in {}: delete it first, or change it there", self.path(name));
        }
        let name = free_name(&key, |name| self.dir.join(name).symlink_metadata().is_ok());
        let text = serde_norway::to_string(document)?;
        write(&self.dir.join(&name), &text, 0o644, &lock)
            .with_context(|| format!("cannot write {}", self.path(&name)))?;
        Ok(format!(" in {}", self.path(&name)))
    }

    fn delete(&self, key: &ObjectKey) -> anyhow::Result<String> {
        let lock = self.lock()?;
        let files = self.files()?;
        let mut holding: Vec<_> = files.iter().filter(|(name, text)| edit::holds(name, text, key)).collect();
        ensure!(!holding.is_empty(), "{key} is in no file of {} any more", self.dir.display());
        // The one that is in force goes last: another one must not take its place in between.
        holding.reverse();
        let mut rests = Vec::new();
        for (name, text) in holding {
            rests.push((name, edit::without(&self.path(name), text, key)?));
        }
        let mut remarks = Vec::new();
        for (name, rest) in rests {
            let path = self.dir.join(name);
            let failed = || format!("cannot write {}", self.path(name));
            match &rest.text {
                None => fs::remove_file(&path).with_context(failed)?,
                Some(text) => {
                    // Behind a link is where the file is.
                    let path = path.canonicalize().with_context(failed)?;
                    let mode = fs::metadata(&path).with_context(failed)?.permissions().mode();
                    write(&path, text, mode, &lock).with_context(failed)?;
                }
            }
            remarks.push(match (&rest.text, rest.rewritten) {
                (None, _) => format!(" with its file {}", self.path(name)),
                (Some(_), false) => format!(" from {}", self.path(name)),
                (Some(_), true) => {
                    format!(" from {}, whose list was written anew without its comments", self.path(name))
                }
            });
        }
        Ok(remarks.join(","))
    }

    /// Here the controller's word is the last; who is connected is the agents' to say.
    fn last_condition(&self, _kind: Kind) -> &'static str {
        "Valid"
    }

    fn remains(&self, key: &ObjectKey) -> anyhow::Result<Option<String>> {
        let Look { view, .. } = self.look()?;
        if view.snapshot.objects.contains_key(key) {
            return Ok(Some("it is still there".to_owned()));
        }
        let known = view.state.as_ref().is_some_and(|state| state.status.contains_key(key));
        Ok(known.then(|| format!("no controller has seen it go yet, says {}", self.state.display())))
    }

    fn notes(&self, kinds: &[Kind]) -> Vec<String> {
        let Snapshot { problems, .. } = manifests::load(&self.dir);
        let concerns = |object: &str| {
            let other = Kind::ALL.iter().any(|kind| {
                !kinds.contains(kind)
                    && object.strip_prefix(kind.name()).is_some_and(|rest| rest.starts_with(' '))
            });
            !other
        };
        problems.iter().filter(|problem| concerns(&problem.object)).map(ToString::to_string).collect()
    }
}

/// `postgres-shop-orders.yaml`; with a number behind where that is another object's: dashes may stand anywhere.
fn free_name(key: &ObjectKey, is_taken: impl Fn(&str) -> bool) -> String {
    let kind = super::super::kinds::word(key.kind);
    let parts = [kind.as_str(), &key.namespace, &key.name];
    let stem = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    let numbered = (2_u32..).map(|number| format!("{stem}-{number}.yaml"));
    std::iter::once(format!("{stem}.yaml")).chain(numbered).find(|name| !is_taken(name)).unwrap_or_default()
}

/// Beside its place under a name that no reader takes for an object's, then there: a reader finds the old or the new.
fn write(path: &Path, text: &str, mode: u32, dir: &fs::File) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    let beside = path.with_file_name(hidden);
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        dir.sync_all()
    };
    write().inspect_err(|_| drop(fs::remove_file(&beside)))
}
