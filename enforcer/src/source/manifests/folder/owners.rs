//! Which file an object is taken from: the first that had it, for as long as it has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::model::ObjectKey;

/// Files are told apart by their names.
#[derive(Default)]
pub(super) struct Owners {
    owners: BTreeMap<ObjectKey, Arc<str>>,
    /// Files that have an object and are not its owner.
    others: BTreeMap<ObjectKey, BTreeSet<Arc<str>>>,
}

impl Owners {
    /// An owner from before this process began, whether its file is still there or not.
    pub fn remember(&mut self, key: &ObjectKey, name: &Arc<str>) {
        self.owners.insert(key.clone(), Arc::clone(name));
    }

    pub fn owns(&self, key: &ObjectKey, name: &str) -> bool {
        self.owners.get(key).is_some_and(|owner| **owner == *name)
    }

    /// The file has the object now. It is not the owner before [`Owners::settle`].
    pub fn gain(&mut self, key: &ObjectKey, name: &Arc<str>) {
        if !self.owns(key, name) {
            self.others.entry(key.clone()).or_default().insert(Arc::clone(name));
        }
    }

    /// The file does not have the object any more. If it owns it, it does so until [`Owners::settle`].
    pub fn lose(&mut self, key: &ObjectKey, name: &str) {
        if let Some(others) = self.others.get_mut(key) {
            others.remove(name);
            if others.is_empty() {
                self.others.remove(key);
            }
        }
    }

    /// Finds the owner, the last one if it `has` the object still, else the first of the others. Returns the files
    /// that it went to and from, where it did.
    pub fn settle(&mut self, key: &ObjectKey, has: impl Fn(&str) -> bool) -> [Option<Arc<str>>; 2] {
        let before = self.owners.get(key).cloned();
        if before.as_deref().is_some_and(has) {
            return [None, None];
        }
        let after = self.others.get_mut(key).and_then(BTreeSet::pop_first);
        match &after {
            Some(after) => {
                self.owners.insert(key.clone(), Arc::clone(after));
                self.lose(key, after);
            }
            None => drop(self.owners.remove(key)),
        }
        [before, after]
    }

    pub fn of(&self, key: &ObjectKey) -> Option<&Arc<str>> {
        self.owners.get(key)
    }

    /// Everything that stands in more than one file: object, owner, another file; in the order of the objects.
    pub fn twice(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<str>, &Arc<str>)> {
        self.others.iter().flat_map(|(key, others)| {
            let owner = self.owners.get(key);
            others.iter().filter_map(move |other| Some((key, owner?, other)))
        })
    }
}
