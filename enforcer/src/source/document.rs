//! One document to one object, or to the reason why it is none. Pure.
//!
//! Our own kinds are taken strictly (a field that we do not know is a mistake of the author), Kubernetes' own leniently
//! (they have many fields that do not concern us).

use serde::de::DeserializeOwned;
use serde_norway::{Mapping, Value};

use crate::model::{EndpointSlice, Kind, Metadata, Object, ObjectKey, Spec};

mod message;

pub(super) use message::Complaint;
use message::{MISSING, choices, complaint, show};

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

/// Why one document is not taken over.
pub(super) struct Refusal {
    pub identity: Identity,
    pub complaint: Complaint,
}

pub(super) enum Identity {
    /// It could mean any object.
    Unknown,
    /// Not a kind of ours, and meant as none.
    Foreign(String),
    Object(ObjectKey),
}

/// What the document says.
pub(super) fn object(value: &Value) -> Result<Object, Refusal> {
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
        Some(kind) if version == expected || kind.older_api_version() == Some(version) => Ok(kind),
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
        Kind::EndpointSlice => Ok(Spec::EndpointSlice(EndpointSlice {
            address_type: optional("addressType", document)?,
            endpoints: optional("endpoints", document)?,
            ports: optional("ports", document)?,
        })),
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
