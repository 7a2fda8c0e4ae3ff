//! Text of one file to objects and refusals. Pure: no file is opened here.
//!
//! Our own kinds are taken strictly (a field that we do not know is a mistake of the author), Namespace and Pod
//! leniently (they are Kubernetes' and have many fields that do not concern us).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::de::DeserializeOwned;
use serde_norway::{Mapping, Value};

use super::message::{Complaint, MISSING, choices, complaint, show};
use crate::{
    model::{EndpointSlice, Kind, Metadata, Object, ObjectKey, Spec},
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

/// Fields of Kubernetes' ObjectMeta: a copy of a live object has them and is no mistake.
const METADATA_FIELDS: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

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

/// Why one document is not taken over.
struct Refusal {
    identity: Identity,
    complaint: Complaint,
}

enum Identity {
    /// It could mean any object.
    Unknown,
    /// Not a kind of ours, and meant as none.
    Foreign(String),
    Object(ObjectKey),
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
fn list_items(value: &Value) -> Option<&Vec<Value>> {
    (value.get("apiVersion")?.as_str()? == "v1" && value.get("kind")?.as_str()? == "List")
        .then(|| value.get("items")?.as_sequence())?
}

fn object(value: &Value) -> Result<Object, Refusal> {
    let Value::Mapping(document) = value else {
        return Err(unknown("", format!("{}, expected apiVersion, kind, metadata and spec", show(value))));
    };
    let kind = kind(document)?;
    let metadata = metadata(kind, document)?;
    let key = ObjectKey::new(kind, &metadata.namespace, &metadata.name);
    let refuse = |complaint| Refusal { identity: Identity::Object(key.clone()), complaint };
    if kind.is_ours() {
        let fields = ["apiVersion", "kind", "metadata", "spec", "status"];
        known_fields("", document, &fields).map_err(refuse)?;
    }
    let spec = spec(kind, document).map_err(refuse)?;
    Ok(Object { metadata, spec })
}

fn unknown(field: &str, message: String) -> Refusal {
    Refusal { identity: Identity::Unknown, complaint: Complaint { field: field.to_owned(), message } }
}

fn kind(document: &Mapping) -> Result<Kind, Refusal> {
    let text = |field: &str| match document.get(field) {
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(other) => Err(unknown(field, format!("{}, expected a string", show(other)))),
        None => Err(unknown(field, MISSING.to_owned())),
    };
    let (version, name) = (text("apiVersion")?, text("kind")?);
    let kind = Kind::ALL.iter().copied().find(|kind| kind.name() == name);
    let expected = match kind {
        Some(kind) => kind.api_version(),
        None if version.starts_with("enforcer.dev") => {
            let kinds: Vec<_> =
                Kind::ALL.iter().filter(|kind| kind.is_ours()).map(|kind| kind.name()).collect();
            return Err(unknown("kind", format!("\"{name}\", {}", choices(name, &kinds))));
        }
        None => return Err(foreign(name, version, document)),
    };
    match kind {
        Some(kind) if version == expected => Ok(kind),
        // Others have a Service and a Node, too.
        Some(kind) if !kind.is_ours() && version != "v1" => Err(foreign(name, version, document)),
        _ => Err(unknown("apiVersion", format!("\"{version}\", expected \"{expected}\" for a {name}"))),
    }
}

fn foreign(kind: &str, version: &str, document: &Mapping) -> Refusal {
    let message = format!("\"{kind}\" of {version} is not used here");
    let complaint = Complaint { field: "kind".to_owned(), message };
    Refusal { identity: Identity::Foreign(title(kind, document)), complaint }
}

/// `Deployment shop/web`, as far as the document says.
fn title(kind: &str, document: &Mapping) -> String {
    let part =
        |field: &str| document.get("metadata").and_then(|value| value.get(field)).and_then(Value::as_str);
    match (part("namespace"), part("name")) {
        (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
        (None, Some(name)) => format!("{kind} {name}"),
        (_, None) => kind.to_owned(),
    }
}

fn metadata(kind: Kind, document: &Mapping) -> Result<Metadata, Refusal> {
    let foreign = |complaint| Refusal { identity: Identity::Unknown, complaint };
    let value = document.get("metadata").ok_or_else(|| unknown("metadata", MISSING.to_owned()))?;
    let metadata: Metadata = read("metadata", value).map_err(foreign)?;
    if metadata.name.is_empty() {
        return Err(unknown("metadata.name", "empty, expected the object's name".to_owned()));
    }
    // Elsewhere a slash is what parts them.
    for (field, value) in [("metadata.name", &metadata.name), ("metadata.namespace", &metadata.namespace)] {
        if value.contains('/') {
            return Err(unknown(field, format!("\"{value}\", expected a name without a slash")));
        }
    }
    let key = ObjectKey::new(kind, &metadata.namespace, &metadata.name);
    let refuse = |complaint| Refusal { identity: Identity::Object(key.clone()), complaint };
    if let (true, Value::Mapping(fields)) = (kind.is_ours(), value) {
        known_fields("metadata", fields, METADATA_FIELDS).map_err(refuse)?;
    }
    if kind.namespaced() && metadata.namespace.is_empty() {
        return Err(unknown("metadata.namespace", format!("missing, expected the namespace of the {kind}")));
    }
    if !kind.namespaced() && !metadata.namespace.is_empty() {
        let message = format!("\"{}\", expected none: a {kind} belongs to no namespace", metadata.namespace);
        return Err(unknown("metadata.namespace", message));
    }
    Ok(metadata)
}

fn known_fields(prefix: &str, mapping: &Mapping, known: &[&str]) -> Result<(), Complaint> {
    for field in mapping.keys() {
        let Some(name) = field.as_str() else {
            let message = format!("{} as a field, expected a string", show(field));
            return Err(Complaint { field: prefix.to_owned(), message });
        };
        if !known.contains(&name) {
            let field = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            return Err(Complaint { field, message: format!("unknown field, {}", choices(name, known)) });
        }
    }
    Ok(())
}

fn spec(kind: Kind, document: &Mapping) -> Result<Spec, Complaint> {
    match kind {
        Kind::Namespace => Ok(Spec::Namespace),
        Kind::Node => optional("status", document).map(Spec::Node),
        Kind::Pod => Ok(Spec::Pod(optional("spec", document)?, optional("status", document)?)),
        Kind::Service => optional("spec", document).map(Spec::Service),
        Kind::EndpointSlice => {
            optional("endpoints", document).map(|endpoints| Spec::EndpointSlice(EndpointSlice { endpoints }))
        }
        Kind::ServiceConnection => required(document).map(Spec::ServiceConnection),
        Kind::KeyValueStore => required(document).map(Spec::KeyValueStore),
        Kind::MySQL => required(document).map(Spec::MySQL),
        Kind::Postgres => required(document).map(Spec::Postgres),
        Kind::MySQLDatabase => required(document).map(Spec::MySQLDatabase),
        Kind::PostgresDatabase => required(document).map(Spec::PostgresDatabase),
        Kind::Application => required(document).map(Spec::Application),
        // It may be no more than a name.
        Kind::KubernetesCluster => optional("spec", document).map(Spec::KubernetesCluster),
        Kind::TunnelGateway => required(document).map(Spec::TunnelGateway),
        Kind::TunnelNode => required(document).map(Spec::TunnelNode),
    }
}

fn required<T: DeserializeOwned>(document: &Mapping) -> Result<T, Complaint> {
    let missing = || Complaint { field: "spec".to_owned(), message: MISSING.to_owned() };
    read("spec", document.get("spec").ok_or_else(missing)?)
}

fn optional<T: DeserializeOwned + Default>(field: &str, document: &Mapping) -> Result<T, Complaint> {
    match document.get(field) {
        None | Some(Value::Null) => Ok(T::default()),
        Some(value) => read(field, value),
    }
}

fn read<T: DeserializeOwned>(prefix: &str, value: &Value) -> Result<T, Complaint> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| complaint(prefix, value, error.path(), &error.inner().to_string()))
}
