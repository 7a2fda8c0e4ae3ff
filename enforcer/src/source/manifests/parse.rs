//! Text of one file to objects and refusals. Pure: no file is opened here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_norway::Value;

use crate::{
    model::{Object, ObjectKey},
    source::document::{Complaint, Identity, Refusal, object},
    store::Problem,
    validate,
};

pub(super) type Objects = BTreeMap<ObjectKey, Arc<Object>>;

pub(super) struct Content {
    pub objects: Objects,
    /// Those that are what they were before, because their document is refused.
    pub kept: BTreeSet<ObjectKey>,
    pub problems: Vec<Problem>,
    /// See [`crate::store::Snapshot`].
    pub incomplete: bool,
}

/// What one file says, where `previous` is what it said when it was last good.
///
/// An object that cannot be taken over keeps its previous state; one that is gone from a file is gone, unless the file
/// has parts of which it cannot be told which object they mean.
pub(super) fn file(origin: &str, text: &str, previous: &Objects) -> Content {
    let mut reader = Reader {
        origin,
        previous,
        objects: Objects::new(),
        kept: BTreeSet::new(),
        problems: Vec::new(),
        lost: false,
        missed: false,
    };
    if has_extension(origin, "json") {
        match serde_json::from_str::<Value>(text) {
            Ok(value) => reader.document("document 1", &value),
            Err(error) => reader.unreadable("document 1", &error.to_string()),
        }
    } else {
        for (index, document) in serde_norway::Deserializer::from_str(text).enumerate() {
            let name = format!("document {}", index + 1);
            match <Value as serde::Deserialize>::deserialize(document) {
                Ok(value) => reader.document(&name, &value),
                Err(error) => {
                    reader.unreadable(&name, &error.to_string());
                    break;
                }
            }
        }
    }
    reader.finish()
}

pub(super) fn has_extension(name: &str, extension: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, found)| found.eq_ignore_ascii_case(extension))
}

struct Reader<'a> {
    origin: &'a str,
    previous: &'a Objects,
    objects: Objects,
    kept: BTreeSet<ObjectKey>,
    problems: Vec<Problem>,
    /// Part of the file is of no known object: nothing that stood in it before may be taken as removed.
    lost: bool,
    /// An object is refused that has no good state.
    missed: bool,
}

impl Reader<'_> {
    fn document(&mut self, name: &str, value: &Value) {
        if value.is_null() {
            return;
        }
        if let Some(items) = list_items(value) {
            for (index, item) in items.iter().enumerate() {
                self.one(&format!("{name}, item {}", index + 1), item);
            }
        } else {
            self.one(name, value);
        }
    }

    fn one(&mut self, name: &str, value: &Value) {
        match object(value) {
            Ok(object) => self.take(object),
            Err(Refusal { identity, complaint }) => {
                let object = match identity {
                    Identity::Unknown => {
                        self.lost = true;
                        name.to_owned()
                    }
                    Identity::Foreign(title) => title,
                    Identity::Object(key) => {
                        self.missed |= !self.keep(&key);
                        key.to_string()
                    }
                };
                self.refuse(object, complaint);
            }
        }
    }

    fn take(&mut self, object: Object) {
        let key = object.key();
        if self.objects.contains_key(&key) {
            let message = "stands twice in this file, the first is used".to_owned();
            self.refuse(key.to_string(), Complaint { field: String::new(), message });
            return;
        }
        if let Some(mistake) = validate::object(&object) {
            self.refuse(key.to_string(), Complaint { field: mistake.field, message: mistake.message });
            // Without a good state before it, the object goes on as it is: its status will say the same.
            if self.keep(&key) {
                return;
            }
        }
        self.objects.insert(key, Arc::new(object));
    }

    /// Takes the last good state; false where there is none.
    fn keep(&mut self, key: &ObjectKey) -> bool {
        let Some(object) = self.previous.get(key) else { return false };
        self.hold(key, object);
        true
    }

    fn hold(&mut self, key: &ObjectKey, object: &Arc<Object>) {
        if !self.objects.contains_key(key) {
            self.objects.insert(key.clone(), object.clone());
            self.kept.insert(key.clone());
        }
    }

    fn unreadable(&mut self, name: &str, error: &str) {
        self.lost = true;
        let message = format!("does not parse: {error}");
        self.refuse(name.to_owned(), Complaint { field: String::new(), message });
    }

    fn refuse(&mut self, object: String, complaint: Complaint) {
        self.problems.push(Problem {
            origin: self.origin.to_owned(),
            object,
            field: complaint.field,
            message: complaint.message,
        });
    }

    fn finish(mut self) -> Content {
        if self.lost {
            for (key, object) in self.previous {
                self.hold(key, object);
            }
        }
        Content {
            objects: self.objects,
            kept: self.kept,
            problems: self.problems,
            incomplete: self.lost || self.missed,
        }
    }
}

/// `kubectl get -o yaml` of several objects is a `List`.
pub(super) fn list_items(value: &Value) -> Option<&Vec<Value>> {
    (value.get("apiVersion")?.as_str()? == "v1" && value.get("kind")?.as_str()? == "List")
        .then(|| value.get("items")?.as_sequence())?
}
