//! What the files say together. Only what was touched since the last view is looked at; the rest is shared with it.

use std::{collections::BTreeMap, sync::Arc};

use super::{Folder, Leaving, Objects};
use crate::{
    model::{Object, ObjectKey},
    store::{Problem, Snapshot},
};

/// An object and the file it is taken from.
type Place = (Arc<Object>, Arc<str>);

impl Folder {
    /// What is true now. It is the same view as before if nothing is different, else its revision is the next.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        let told = self.told.take();
        let news = self.news(told.as_deref());
        let problems = self.problems();
        let kept = self.kept();
        let incomplete = self.problem.is_some() || self.files.values().any(|file| file.incomplete);
        let next = match told {
            Some(told)
                if news.is_empty()
                    && told.problems == problems
                    && told.kept == kept
                    && told.incomplete == incomplete =>
            {
                told
            }
            told => {
                let (revision, mut objects, mut origins) = told.map_or_else(
                    || (1, BTreeMap::new(), BTreeMap::new()),
                    |told| (told.revision + 1, told.objects.clone(), told.origins.clone()),
                );
                for (key, place) in news {
                    if let Some((object, origin)) = place {
                        objects.insert(key.clone(), object);
                        origins.insert(key, origin);
                    } else {
                        objects.remove(&key);
                        origins.remove(&key);
                    }
                }
                Arc::new(Snapshot { revision, objects, origins, problems, kept, incomplete })
            }
        };
        self.told = Some(Arc::clone(&next));
        next
    }

    /// What is different of the objects that were touched; `None`: it is gone.
    fn news(&mut self, told: Option<&Snapshot>) -> Vec<(ObjectKey, Option<Place>)> {
        let mut news = Vec::new();
        for key in std::mem::take(&mut self.touched) {
            let files = &self.files;
            let moved = self
                .owners
                .settle(&key, |name| files.get(name).is_some_and(|file| file.objects.contains_key(&key)));
            self.stale.extend(moved.into_iter().flatten());
            let place = self.place(&key);
            let before = told.and_then(|told| Some((told.objects.get(&key)?, told.origins.get(&key)?)));
            let same = match (&place, before) {
                // What says the same is the same object, see `File::take`; what is compared here moved.
                (Some((object, origin)), Some((old, place))) => {
                    origin == place && (Arc::ptr_eq(object, old) || object == old)
                }
                (place, before) => place.is_none() && before.is_none(),
            };
            if !same {
                news.push((key, place));
            }
        }
        news
    }

    fn place(&self, key: &ObjectKey) -> Option<Place> {
        let owned = self.owners.of(key).and_then(|name| {
            let object = self.files.get(name)?.objects.get(key)?;
            Some((Arc::clone(object), Arc::clone(name)))
        });
        owned.or_else(|| {
            let Leaving { object, origin, .. } = self.leaving.get(key)?;
            Some((Arc::clone(object), Arc::clone(origin)))
        })
    }

    fn problems(&self) -> Vec<Problem> {
        let mut twice = BTreeMap::<&str, Vec<Problem>>::new();
        for (key, owner, other) in self.owners.twice() {
            twice.entry(other).or_default().push(Problem {
                origin: other.to_string(),
                object: key.to_string(),
                field: String::new(),
                message: format!("stands in {owner} already, which is used"),
            });
        }
        let mut problems = Vec::from_iter(self.problem.clone());
        for (name, file) in &self.files {
            problems.extend(file.problems.iter().cloned());
            problems.extend(twice.remove(&**name).into_iter().flatten());
        }
        problems
    }

    fn kept(&self) -> BTreeMap<ObjectKey, String> {
        let mut kept = BTreeMap::new();
        for (name, file) in self.files.iter().filter(|(_, file)| !file.kept.is_empty()) {
            let why = file.problems.first().map(ToString::to_string).unwrap_or_default();
            let owned = file.kept.iter().filter(|key| self.owners.owns(key, name));
            kept.extend(owned.map(|key| (key.clone(), why.clone())));
        }
        kept
    }

    /// Keeps what is accepted for the next process: of the files of which it may be different. A folder that cannot
    /// be read says nothing about its files.
    pub fn keep(&mut self) {
        let (Some(accepted), None) = (&mut self.accepted, &self.problem) else { return };
        let (files, owners) = (&self.files, &self.owners);
        let now = |name: &str| {
            let own = files.get(name)?.objects.iter().filter(|(key, _)| owners.owns(key, name));
            Some(own.map(|(key, object)| (key.clone(), Arc::clone(object))).collect())
        };
        accepted.keep(&mut self.stale, now);
    }

    /// Notes what a file had `before` and has now.
    pub(super) fn compare(&mut self, name: &Arc<str>, before: &Objects) {
        let nothing = Objects::new();
        let after = self.files.get(name).map_or(&nothing, |file| &file.objects);
        for (key, object) in before {
            match after.get(key) {
                Some(other) if Arc::ptr_eq(object, other) => {}
                Some(_) => drop(self.touched.insert(key.clone())),
                None => {
                    // Another's version of it was never in force.
                    if self.owners.of(key).is_none_or(|owner| owner == name) {
                        let since = self.leaving.get(key).map_or(self.now, |known| known.since);
                        let (object, origin) = (Arc::clone(object), Arc::clone(name));
                        self.leaving.insert(key.clone(), Leaving { object, origin, since });
                    }
                    self.owners.lose(key, name);
                    self.touched.insert(key.clone());
                }
            }
        }
        for key in after.keys().filter(|key| !before.contains_key(*key)) {
            self.owners.gain(key, name);
            self.touched.insert(key.clone());
        }
        self.stale.insert(Arc::clone(name));
    }
}
