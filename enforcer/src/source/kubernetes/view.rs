//! What the watches have said so far, and what it means together. Pure: no server is asked here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;

use super::{Facts, Told, allocations};
use crate::{
    model::{Kind, Metadata, Object, ObjectKey, Spec},
    source::document,
    store::{Problem, Snapshot},
    validate,
};

/// Annotations that are kept; others are of no use here, and often the largest part of an object.
const OUR_ANNOTATIONS: &str = "enforcer.dev/";

/// What one watch says.
#[derive(Debug)]
pub(super) enum Event {
    /// A list begins: what it does not have is gone when it is complete.
    Begin,
    Put(Box<Taken>),
    Gone(ObjectKey),
    /// A document that a controller wrote, as it is now.
    Document(DocumentKey, Box<Value>),
    NoDocument(DocumentKey),
    Complete,
}

/// Names a document of any kind.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct DocumentKey {
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl DocumentKey {
    /// Of a document that says what it is.
    pub fn of(document: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &document["metadata"];
        Self {
            kind: text(&document["kind"]),
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"]),
        }
    }
}

/// One object, cut down to what is used.
#[derive(Debug)]
pub(super) struct Taken {
    pub key: ObjectKey,
    pub object: Result<Object, Problem>,
    /// Of objects of ours.
    pub facts: Option<Facts>,
}

impl Taken {
    /// What a document of this kind says; `None` if it has no name.
    pub fn of(kind: Kind, mut value: Value) -> Option<Self> {
        let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        if name.is_empty() {
            return None;
        }
        let key = ObjectKey::new(kind, namespace, name);
        // Items of a list do not say what they are, and of an EndpointSlice all versions are read alike.
        value["kind"] = kind.name().into();
        let facts = (kind.is_ours() || kind == Kind::Node).then(|| Facts::of(&value));
        value["apiVersion"] = kind.api_version().into();
        if let Some(fields) = value.as_object_mut().filter(|_| kind.is_ours()) {
            fields.remove("status");
            fields.remove("report");
        }
        let read = serde_norway::to_value(&value).map_err(|error| error.to_string());
        let object = match read.as_ref().map(document::object) {
            Ok(Ok(object)) => Ok(object),
            Ok(Err(refusal)) => Err(problem(&key, refusal.complaint.field, refusal.complaint.message)),
            Err(message) => Err(problem(&key, String::new(), message.clone())),
        };
        let mut taken = Self { key, object, facts };
        taken.trim();
        Some(taken)
    }

    fn trim(&mut self) {
        let is_ours = self.key.kind.is_ours();
        let Ok(object) = &mut self.object else { return };
        let Metadata { annotations, .. } = &mut object.metadata;
        // Where a pod is, is for its node to find out: whoever may write a Pod could name another's namespace.
        annotations.retain(|name, _| is_ours && name.starts_with(OUR_ANNOTATIONS));
        let (Spec::TunnelNode(spec), Some(facts)) = (&mut object.spec, &mut self.facts) else { return };
        // What counts is what the controller has accepted: any agent may write any spec.
        facts.asked = Some(spec.clone());
        if let Some(accepted) = facts.accepted() {
            *spec = accepted;
        }
    }
}

/// A problem without the object's name.
fn words(problem: &Problem) -> String {
    if problem.field.is_empty() {
        problem.message.clone()
    } else {
        format!("{}: {}", problem.field, problem.message)
    }
}

fn problem(key: &ObjectKey, field: String, message: String) -> Problem {
    Problem { origin: String::new(), object: key.to_string(), field, message }
}

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Key {
    Object(ObjectKey),
    Document(DocumentKey),
}

/// What one watch has told.
#[derive(Debug, Default)]
struct Scope {
    keys: BTreeSet<Key>,
    /// Keys of the list that is not complete yet.
    fresh: Option<BTreeSet<Key>>,
    complete: bool,
}

impl Scope {
    fn add(&mut self, key: Key) {
        if let Some(fresh) = &mut self.fresh {
            fresh.insert(key.clone());
        }
        self.keys.insert(key);
    }
}

/// All of it.
#[derive(Debug)]
pub(super) struct View {
    scopes: Vec<Scope>,
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    facts: BTreeMap<ObjectKey, Arc<Facts>>,
    /// What is wrong with objects.
    refused: BTreeMap<ObjectKey, Problem>,
    /// Those of them that are what they said last.
    kept: BTreeSet<ObjectKey>,
    documents: BTreeMap<DocumentKey, Arc<Value>>,
    changed: bool,
    facts_changed: bool,
    documents_changed: bool,
    told: Option<Told>,
}

impl View {
    /// Of so many watches.
    pub fn new(watches: usize) -> Self {
        Self {
            scopes: (0..watches).map(|_| Scope::default()).collect(),
            objects: BTreeMap::new(),
            facts: BTreeMap::new(),
            refused: BTreeMap::new(),
            kept: BTreeSet::new(),
            documents: BTreeMap::new(),
            changed: false,
            facts_changed: false,
            documents_changed: false,
            told: None,
        }
    }

    /// Takes over what the watch of this number says.
    pub fn take(&mut self, watch: usize, event: Event) {
        let Some(scope) = self.scopes.get_mut(watch) else { return };
        match event {
            Event::Begin => scope.fresh = Some(BTreeSet::new()),
            Event::Put(taken) => {
                scope.add(Key::Object(taken.key.clone()));
                self.put(*taken);
            }
            Event::Document(key, document) => {
                scope.add(Key::Document(key.clone()));
                self.documents.insert(key, Arc::new(*document));
                self.documents_changed = true;
            }
            Event::Gone(key) => self.gone(watch, &Key::Object(key)),
            Event::NoDocument(key) => self.gone(watch, &Key::Document(key)),
            Event::Complete => {
                scope.complete = true;
                let Some(fresh) = scope.fresh.take() else { return };
                let gone: Vec<_> = scope.keys.difference(&fresh).cloned().collect();
                scope.keys = fresh;
                for key in gone {
                    self.remove(&key);
                }
            }
        }
    }

    fn gone(&mut self, watch: usize, key: &Key) {
        if let Some(scope) = self.scopes.get_mut(watch) {
            scope.keys.remove(key);
            scope.fresh.iter_mut().for_each(|fresh| _ = fresh.remove(key));
        }
        self.remove(key);
    }

    fn put(&mut self, taken: Taken) {
        let Taken { key, object, facts } = taken;
        if let Some(facts) = facts
            && self.facts.get(&key).is_none_or(|known| **known != facts)
        {
            self.facts.insert(key.clone(), Arc::new(facts));
            self.facts_changed = true;
        }
        let uid = self.facts.get(&key).map(|facts| facts.uid.as_str());
        // What another object of the name said is not this one's last word.
        let last = self.objects.get(&key).filter(|last| last.metadata.uid.as_deref() == uid || uid.is_none());
        let (problem, object) = match object {
            Ok(object) => {
                let mistake = validate::object(&object);
                (mistake.map(|mistake| problem(&key, mistake.field, mistake.message)), Some(object))
            }
            Err(problem) => (Some(problem), None),
        };
        match (problem, object, last) {
            (None, Some(object), last) => {
                self.changed |= self.refused.remove(&key).is_some() | self.kept.remove(&key);
                if last.is_none_or(|last| **last != object) {
                    self.objects.insert(key, Arc::new(object));
                    self.changed = true;
                }
            }
            (Some(problem), object, last) => {
                self.changed = true;
                if last.is_some() {
                    self.kept.insert(key.clone());
                } else {
                    // Without a good state before it, the object goes on as it is: its status will say the same.
                    self.objects.remove(&key);
                    self.kept.remove(&key);
                    self.objects.extend(object.map(|object| (key.clone(), Arc::new(object))));
                }
                self.refused.insert(key, problem);
            }
            (None, None, _) => {}
        }
    }

    fn remove(&mut self, key: &Key) {
        let key = match key {
            Key::Object(key) => key,
            Key::Document(key) => {
                self.documents_changed |= self.documents.remove(key).is_some();
                return;
            }
        };
        self.changed |= self.objects.remove(key).is_some() | self.refused.remove(key).is_some();
        self.kept.remove(key);
        self.facts_changed |= self.facts.remove(key).is_some();
    }

    /// What is to be told now, if it is anything new. Nothing before every list has been complete once.
    pub fn tell(&mut self) -> Option<Told> {
        if !self.scopes.iter().all(|scope| scope.complete) {
            return None;
        }
        let first = self.told.is_none();
        let mut told = self.told.clone().unwrap_or_default();
        if !(first || self.changed || self.facts_changed || self.documents_changed) {
            return None;
        }
        if std::mem::take(&mut self.documents_changed) {
            told.documents = Arc::new(self.documents.clone());
        }
        if std::mem::take(&mut self.changed) || first {
            told.snapshot = Arc::new(self.snapshot(told.snapshot.revision + 1));
            let lost = self.refused.iter().filter(|(key, _)| !self.objects.contains_key(key));
            told.refused = Arc::new(lost.map(|(key, problem)| (key.clone(), words(problem))).collect());
        }
        if std::mem::take(&mut self.facts_changed) || first {
            told.facts = Arc::new(self.facts.clone());
            let state = allocations::state(&told.facts);
            if told.state.as_deref() != state.as_ref() {
                told.state = state.map(Arc::new);
            }
        }
        self.told = Some(told.clone());
        Some(told)
    }

    fn snapshot(&self, revision: u64) -> Snapshot {
        let why = |key: &ObjectKey| self.refused.get(key).map(ToString::to_string).unwrap_or_default();
        Snapshot {
            revision,
            objects: self.objects.clone(),
            origins: BTreeMap::new(),
            problems: self.refused.values().cloned().collect(),
            kept: self.kept.iter().map(|key| (key.clone(), why(key))).collect(),
            incomplete: self.refused.keys().any(|key| !self.objects.contains_key(key)),
        }
    }
}

#[cfg(test)]
mod tests;
