//! What the files of a folder say, and what of it is to be believed yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::{LONGEST_UNREST, SETTLE, accepted::Accepted, parse};
use crate::{
    model::{Object, ObjectKey},
    store::{Problem, Snapshot},
};

/// What tells that a file is another than before: a save by renaming changes the inode, one in place the time.
type Fingerprint = (u64, Option<SystemTime>, u64);
/// `None`: the file is not there.
type Print = Option<Fingerprint>;

pub(super) struct Folder {
    dir: PathBuf,
    files: BTreeMap<String, File>,
    /// Files that are not what they were when they were read, and have not rested since. Key: their name.
    restless: BTreeMap<String, Restless>,
    /// Objects that no file has any more, until everything has rested.
    leaving: BTreeMap<ObjectKey, Leaving>,
    /// When a file was taken over last that had not rested.
    hurried: Option<Instant>,
    /// Why the folder could not be read.
    problem: Option<Problem>,
    /// The file that an object is taken from: the first that had it, for as long as it has it.
    owners: BTreeMap<ObjectKey, String>,
    accepted: Option<Accepted>,
}

/// What one file says.
#[derive(Default)]
struct File {
    read: Print,
    objects: parse::Objects,
    /// Objects whose document is refused, as they were before.
    kept: BTreeSet<ObjectKey>,
    problems: Vec<Problem>,
    incomplete: bool,
    /// It could not be read and is tried again at every look.
    failed: bool,
}

struct Restless {
    print: Print,
    /// When it was seen like this first.
    since: Instant,
    /// When it was seen different first.
    begin: Instant,
}

struct Leaving {
    object: Arc<Object>,
    origin: String,
}

impl Folder {
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            files: BTreeMap::new(),
            restless: BTreeMap::new(),
            leaving: BTreeMap::new(),
            hurried: None,
            problem: None,
            owners: BTreeMap::new(),
            accepted: None,
        }
    }

    /// Takes over what was accepted before this process began.
    pub fn remembering(mut self, accepted: Accepted) -> Self {
        for (name, objects) in accepted.all() {
            self.owners.extend(objects.keys().map(|key| (key.clone(), name.clone())));
        }
        self.accepted = Some(accepted);
        self
    }

    /// Keeps what is accepted for the next process. A folder that cannot be read says nothing about its files.
    pub fn keep(&mut self) {
        let (Some(accepted), None) = (&mut self.accepted, &self.problem) else { return };
        let owners = &self.owners;
        let own = |(name, file): (&String, &File)| {
            let own = file.objects.iter().filter(|(key, _)| owners.get(*key) == Some(name));
            (name.clone(), own.map(|(key, object)| (key.clone(), Arc::clone(object))).collect())
        };
        accepted.keep(&self.files.iter().map(own).collect());
    }

    pub fn of_text(name: &str, text: &str) -> Self {
        let mut folder = Self::new(Path::new(""));
        let mut file = File::default();
        file.take(name, text);
        folder.files.insert(name.to_owned(), file);
        folder
    }

    /// Takes everything as it is.
    pub fn read_all(&mut self) {
        match self.prints() {
            Ok(prints) => {
                for (name, print) in prints {
                    self.read(&name, Some(print));
                }
            }
            Err(error) => self.problem = Some(self.unreadable(&error)),
        }
        // What was taken away while nobody looked has rested.
        self.leaving.clear();
    }

    /// Nothing waits until it is believed.
    pub fn rests(&self) -> bool {
        self.restless.is_empty() && self.leaving.is_empty()
    }

    /// Looks at every file, reads those that are whole (`renamed` has their names) or have rested, and returns
    /// whether anything may be different now.
    pub fn look(&mut self, now: Instant, renamed: &BTreeSet<String>) -> bool {
        let prints = match self.prints() {
            Ok(prints) => prints,
            Err(error) => {
                let problem = Some(self.unreadable(&error));
                let news = self.problem != problem;
                self.problem = problem;
                return news;
            }
        };
        let mut news = self.problem.take().is_some();
        let names: BTreeSet<String> = prints.keys().chain(self.files.keys()).cloned().collect();
        for name in names {
            let print = prints.get(&name).copied();
            let file = self.files.get(&name).filter(|file| file.read == print);
            if let Some(file) = file {
                self.restless.remove(&name);
                if file.failed {
                    self.read(&name, print);
                    news = true;
                }
            } else {
                let whole = is_whole(print, renamed.contains(&name));
                if whole || self.has_rested(&name, print, now) {
                    self.restless.remove(&name);
                    self.read(&name, print);
                    news = true;
                }
                if whole {
                    self.hurried = Some(now);
                }
            }
        }
        news | self.let_go(now)
    }

    /// Remembers a file that changes, and says whether it has stopped, or never will.
    fn has_rested(&mut self, name: &str, print: Print, now: Instant) -> bool {
        let fresh = Restless { print, since: now, begin: now };
        let restless = self.restless.entry(name.to_owned()).or_insert(fresh);
        if restless.print != print {
            (restless.print, restless.since) = (print, now);
        }
        now.duration_since(restless.since) >= SETTLE || now.duration_since(restless.begin) >= LONGEST_UNREST
    }

    /// What no file has any more is gone when nothing moves.
    fn let_go(&mut self, now: Instant) -> bool {
        let at_rest = self.hurried.is_none_or(|hurried| now.duration_since(hurried) >= SETTLE);
        if self.leaving.is_empty() || !self.restless.is_empty() || !at_rest {
            return false;
        }
        self.leaving.clear();
        true
    }

    fn prints(&self) -> io::Result<BTreeMap<String, Fingerprint>> {
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

    fn unreadable(&self, error: &io::Error) -> Problem {
        Problem {
            origin: self.dir.display().to_string(),
            object: "folder".to_owned(),
            field: String::new(),
            message: format!("cannot be read: {error}"),
        }
    }

    /// Takes one file over as it is.
    fn read(&mut self, name: &str, print: Print) {
        let before = self.files.get(name).map(|file| file.objects.clone()).unwrap_or_default();
        if print.is_none() {
            self.files.remove(name);
        } else {
            let accepted = &self.accepted;
            let file = self.files.entry(name.to_owned()).or_insert_with(|| File {
                objects: accepted.as_ref().map(|accepted| accepted.of(name)).unwrap_or_default(),
                ..File::default()
            });
            file.read = print;
            file.read_from(&self.dir.join(name), name);
        }
        let after = self.files.get(name).map(|file| &file.objects);
        for (key, object) in before {
            if after.is_none_or(|after| !after.contains_key(&key)) {
                self.leaving.insert(key, Leaving { object, origin: name.to_owned() });
            }
        }
    }

    pub fn snapshot(&mut self, revision: u64) -> Snapshot {
        let mut snapshot = Snapshot { revision, ..Snapshot::default() };
        snapshot.problems.extend(self.problem.clone());
        snapshot.incomplete = self.problem.is_some() || self.files.values().any(|file| file.incomplete);
        let files = &self.files;
        self.owners.retain(|key, name| files.get(name).is_some_and(|file| file.objects.contains_key(key)));
        for (name, file) in files {
            snapshot.problems.extend(file.problems.iter().cloned());
            for (key, object) in &file.objects {
                let owner = self.owners.entry(key.clone()).or_insert_with(|| name.clone());
                if owner != name {
                    snapshot.problems.push(Problem {
                        origin: name.clone(),
                        object: key.to_string(),
                        field: String::new(),
                        message: format!("stands in {owner} already, which is used"),
                    });
                    continue;
                }
                snapshot.origins.insert(key.clone(), name.clone());
                snapshot.objects.insert(key.clone(), object.clone());
            }
            let why = || file.problems.first().map(ToString::to_string).unwrap_or_default();
            let kept = file.kept.iter().filter(|key| self.owners.get(*key) == Some(name));
            snapshot.kept.extend(kept.map(|key| (key.clone(), why())));
        }
        for (key, Leaving { object, origin }) in &self.leaving {
            if !snapshot.objects.contains_key(key) {
                snapshot.origins.insert(key.clone(), origin.clone());
                snapshot.objects.insert(key.clone(), object.clone());
            }
        }
        snapshot
    }
}

/// A rename puts a whole file in place. One that is empty is about to be written.
fn is_whole(print: Print, renamed: bool) -> bool {
    renamed && print.is_some_and(|(length, ..)| length > 0)
}

impl File {
    fn take(&mut self, name: &str, text: &str) {
        let content = parse::file(name, text, &self.objects);
        self.objects = content.objects;
        self.kept = content.kept;
        self.problems = content.problems;
        self.incomplete = content.incomplete;
    }

    fn read_from(&mut self, path: &Path, name: &str) {
        let text = fs::read_to_string(path);
        self.failed = text.is_err();
        match text {
            Ok(text) => self.take(name, &text),
            Err(error) => {
                self.problems = vec![Problem {
                    origin: name.to_owned(),
                    object: "file".to_owned(),
                    field: String::new(),
                    message: format!("cannot be read: {error}"),
                }];
                self.kept = self.objects.keys().cloned().collect();
                self.incomplete = true;
            }
        }
    }
}

fn is_manifest(name: &str) -> bool {
    !name.starts_with(['.', '#'])
        && ["yaml", "yml", "json"].iter().any(|extension| parse::has_extension(name, extension))
}
