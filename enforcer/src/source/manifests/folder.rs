//! What the files of a folder say, and what of it is to be believed yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    LONGEST_UNREST, RESCAN, SETTLE,
    accepted::Accepted,
    parse::{self, Objects},
};
use crate::{
    changes::Hints,
    model::{Object, ObjectKey},
    store::{Problem, Snapshot},
};

mod file;
mod owners;
mod prints;
#[cfg(test)]
mod tests;
mod view;

use file::File;
use owners::Owners;
use prints::{Print, Prints};

pub(super) struct Folder {
    dir: PathBuf,
    files: BTreeMap<Arc<str>, File>,
    /// Files that are not what they were when they were read, and have not rested since. Key: their name.
    restless: BTreeMap<Arc<str>, Restless>,
    /// Objects that no file has any more, until everything has rested.
    leaving: BTreeMap<ObjectKey, Leaving>,
    /// When a file was taken over last that had not rested.
    hurried: Option<Instant>,
    /// The moment of this look.
    now: Instant,
    /// When every file was looked at last.
    looked: Option<Instant>,
    /// See [`Prints`].
    linked: bool,
    /// Why the folder could not be read.
    problem: Option<Problem>,
    owners: Owners,
    /// The last view, and the objects that may be different by now.
    told: Option<Arc<Snapshot>>,
    touched: BTreeSet<ObjectKey>,
    accepted: Option<Accepted>,
    /// Files of which it may be different what is accepted.
    stale: BTreeSet<Arc<str>>,
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
    origin: Arc<str>,
    /// When it was found in no file first.
    since: Instant,
}

impl Folder {
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            files: BTreeMap::new(),
            restless: BTreeMap::new(),
            leaving: BTreeMap::new(),
            hurried: None,
            now: Instant::now(),
            looked: None,
            linked: false,
            problem: None,
            owners: Owners::default(),
            told: None,
            touched: BTreeSet::new(),
            accepted: None,
            stale: BTreeSet::new(),
        }
    }

    /// Takes over what was accepted before this process began.
    pub fn remembering(mut self, accepted: Accepted) -> Self {
        for (name, objects) in accepted.all() {
            for key in objects.keys() {
                self.owners.remember(key, name);
                self.touched.insert(key.clone());
            }
            self.stale.insert(Arc::clone(name));
        }
        self.accepted = Some(accepted);
        self
    }

    pub fn of_text(name: &str, text: &str) -> Self {
        let mut folder = Self::new(Path::new(""));
        let (name, mut file) = (Arc::from(name), File::default());
        file.take(&name, text);
        folder.files.insert(Arc::clone(&name), file);
        folder.compare(&name, &Objects::new());
        folder
    }

    /// The view of somebody who does not look again.
    pub fn last(mut self) -> Snapshot {
        let last = self.snapshot();
        drop(self);
        Arc::unwrap_or_clone(last)
    }

    /// Takes everything as it is.
    pub fn read_all(&mut self) {
        self.looked = Some(Instant::now());
        match Prints::all(&self.dir) {
            Ok(prints) => {
                self.linked = prints.linked;
                for (name, print) in prints.of {
                    self.read(&name, print);
                }
            }
            Err(error) => self.problem = Some(self.unreadable(&error)),
        }
        // What was taken away while nobody looked has rested.
        self.leaving.clear();
    }

    /// How long nobody has to look without a hint.
    pub fn wait(&self, now: Instant) -> Duration {
        let full =
            self.looked.map_or(Duration::ZERO, |looked| RESCAN.saturating_sub(now.duration_since(looked)));
        if self.rests() { full } else { full.min(SETTLE) }
    }

    /// Nothing waits until it is believed.
    pub fn rests(&self) -> bool {
        self.restless.is_empty() && self.leaving.is_empty()
    }

    /// Looks at the files that may have changed, reads those that are whole or have rested, and returns whether
    /// anything may be different now.
    ///
    /// Hints are enough to add and to replace. Every now and then, in doubt, and before anything is taken away, every
    /// file is looked at.
    pub fn look(&mut self, now: Instant, hints: &Hints) -> bool {
        self.now = now;
        let due = self.looked.is_none_or(|looked| now.duration_since(looked) >= RESCAN);
        let elsewhere = self.linked && !hints.names.is_empty();
        if hints.all || due || elsewhere || self.problem.is_some() {
            return self.look_at_all(now, hints);
        }
        let hinted = hints.names.keys().filter(|name| is_manifest(name)).map(|name| Arc::from(&**name));
        let failed = self.files.iter().filter(|(_, file)| file.failed).map(|(name, _)| Arc::clone(name));
        let names: BTreeSet<Arc<str>> = hinted.chain(failed).chain(self.restless.keys().cloned()).collect();
        let mut prints = Prints::default();
        for name in names {
            prints.add(&self.dir, name);
        }
        self.linked |= prints.linked;
        let gone = |(name, print): (&Arc<str>, &Print)| {
            print.is_none() && self.restless.get(name).is_some_and(|restless| restless.rests(None, now))
        };
        if prints.of.iter().any(gone) {
            return self.look_at_all(now, hints);
        }
        let news = self.judge(prints, now, hints);
        // A file that changed after those hints may be anything but whole.
        news | (self.lets_go(now) && self.look_at_all(now, &Hints::default()))
    }

    fn look_at_all(&mut self, now: Instant, hints: &Hints) -> bool {
        self.looked = Some(now);
        let mut prints = match Prints::all(&self.dir) {
            Ok(prints) => prints,
            Err(error) => {
                let problem = Some(self.unreadable(&error));
                let news = self.problem != problem;
                self.problem = problem;
                return news;
            }
        };
        let news = self.problem.take().is_some();
        self.linked = prints.linked;
        for name in self.files.keys().chain(self.restless.keys()) {
            if !prints.of.contains_key(name) {
                prints.of.insert(Arc::clone(name), None);
            }
        }
        news | self.judge(prints, now, hints) | self.let_go(now)
    }

    /// Reads what is to be read of these files.
    fn judge(&mut self, prints: Prints, now: Instant, hints: &Hints) -> bool {
        let mut news = false;
        for (name, print) in prints.of {
            let file = self.files.get(&name);
            if file.map_or(print.is_none(), |file| file.read == print) {
                self.restless.remove(&name);
                if file.is_some_and(|file| file.failed) {
                    self.read(&name, print);
                    news = true;
                }
            } else if prints::is_whole(print, hints.renamed(&name)) {
                self.restless.remove(&name);
                self.read(&name, print);
                self.hurried = Some(now);
                news = true;
            } else if self.has_rested(&name, print, now) {
                self.restless.remove(&name);
                self.read(&name, print);
                news = true;
            }
        }
        news
    }

    /// Remembers a file that changes, and says whether it has stopped, or never will.
    fn has_rested(&mut self, name: &Arc<str>, print: Print, now: Instant) -> bool {
        let fresh = Restless { print, since: now, begin: now };
        let restless = self.restless.entry(Arc::clone(name)).or_insert(fresh);
        let rests = restless.rests(print, now);
        if restless.print != print {
            (restless.print, restless.since) = (print, now);
        }
        rests
    }

    /// What no file has any more is gone when nothing moves, and at the latest after [`LONGEST_UNREST`]: other files may
    /// come and change for ever.
    fn lets_go(&self, now: Instant) -> bool {
        !self.leaving.is_empty() && self.is_at_rest(now) || self.leaving.values().any(|one| one.is_over(now))
    }

    fn let_go(&mut self, now: Instant) -> bool {
        let at_rest = self.is_at_rest(now);
        let gone: Vec<_> =
            self.leaving.extract_if(.., |_, one| at_rest || one.is_over(now)).map(|(key, _)| key).collect();
        let news = !gone.is_empty();
        self.touched.extend(gone);
        news
    }

    fn is_at_rest(&self, now: Instant) -> bool {
        let hurries = self.hurried.is_some_and(|hurried| now.duration_since(hurried) < SETTLE);
        self.restless.is_empty() && !hurries
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
    fn read(&mut self, name: &Arc<str>, print: Print) {
        let before = self.files.get(name).map(|file| file.objects.clone()).unwrap_or_default();
        if print.is_none() {
            self.files.remove(name);
        } else {
            let accepted = &self.accepted;
            let file = self.files.entry(Arc::clone(name)).or_insert_with(|| File {
                objects: accepted.as_ref().map(|accepted| accepted.of(name)).unwrap_or_default(),
                ..File::default()
            });
            file.read = print;
            file.read_from(&self.dir.join(&**name), name);
        }
        self.compare(name, &before);
    }
}

impl Restless {
    /// Whether the file, as it is found now, is to be believed. One that is empty is about to be written, and one that is
    /// taken away again and again is not gone.
    fn rests(&self, print: Print, now: Instant) -> bool {
        let settle = if prints::is_empty(print) { LONGEST_UNREST } else { SETTLE };
        self.print == print && now.duration_since(self.since) >= settle
            || print.is_some() && now.duration_since(self.begin) >= LONGEST_UNREST
    }
}

impl Leaving {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= LONGEST_UNREST
    }
}

pub(super) fn is_manifest(name: &str) -> bool {
    !name.starts_with(['.', '#'])
        && ["yaml", "yml", "json"].iter().any(|extension| parse::has_extension(name, extension))
}
