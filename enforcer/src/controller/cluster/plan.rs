//! The difference between what is to be and what is there, as writes. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::documents::{Documents, says};
use crate::{
    model::{Kind, ObjectKey},
    source::kubernetes::{DocumentKey, Resource, Told},
    state::ObjectStatus,
};

/// Taint of a node whose agent has not guarded it yet.
pub const NOT_READY: &str = "enforcer.dev/not-ready";

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    Status {
        key: ObjectKey,
        status: ObjectStatus,
        /// A condition: the version of the object. Only where something is given out.
        version: Option<u64>,
        /// A condition becomes another one, or something is given out: more than a count or a message.
        tells: bool,
    },
    /// Must not be there yet: what is there and not ours stays as it is.
    Create(Value),
    /// A merge patch. What was made with a request of its own keeps the fields of that for ever where it is applied
    /// later: what is to go has to be named.
    Change(Value),
    Delete(DocumentKey),
    Untaint {
        node: String,
        taints: Vec<Value>,
        version: u64,
    },
}

impl Write {
    /// What it is about: two writes of the same thing are never under way together.
    pub fn target(&self) -> Target {
        match self {
            Self::Status { key, .. } => Target::Status(key.clone()),
            Self::Create(document) | Self::Change(document) => Target::Document(DocumentKey::of(document)),
            Self::Delete(key) => Target::Document(key.clone()),
            Self::Untaint { node, .. } => Target::Status(ObjectKey::new(Kind::Node, "", node.as_str())),
        }
    }

    /// The document of a status. Empty texts are left out: servers as old as 1.20 make null of them.
    pub fn status_document(key: &ObjectKey, status: &ObjectStatus, version: Option<u64>) -> Value {
        let mut document = json!({
            "apiVersion": key.kind.api_version(),
            "kind": key.kind.name(),
            "metadata": { "name": key.name },
            "status": status,
        });
        if !key.namespace.is_empty() {
            document["metadata"]["namespace"] = key.namespace.as_str().into();
        }
        for condition in document["status"]["conditions"].as_array_mut().into_iter().flatten() {
            if let Some(fields) = condition.as_object_mut() {
                fields.retain(|_, value| value.as_str() != Some(""));
            }
        }
        if let Some(version) = version {
            document["metadata"]["resourceVersion"] = version.to_string().into();
        }
        document
    }
}

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Target {
    Status(ObjectKey),
    Document(DocumentKey),
}

/// Statuses that are not what they are to be; those that give something out come first.
pub fn statuses(told: &Told, wanted: BTreeMap<ObjectKey, ObjectStatus>) -> Vec<Write> {
    let mut writes: Vec<(bool, Write)> = Vec::new();
    for (key, status) in wanted {
        let Some(facts) = told.facts.get(&key) else { continue };
        if *facts.status == status {
            continue;
        }
        let gives = given(&facts.status) != given(&status);
        let version = (gives && facts.version != 0).then_some(facts.version);
        let tells = gives || conditions(&facts.status) != conditions(&status);
        writes.push((!gives, Write::Status { key, status, version, tells }));
    }
    writes.sort_by_key(|(late, _)| *late);
    writes.into_iter().map(|(_, write)| write).collect()
}

/// What the controller gives out with a status.
fn given(status: &ObjectStatus) -> Vec<Option<&Value>> {
    ["number", "ranges", "publicKey"].iter().map(|field| status.fields.get(*field)).collect()
}

fn conditions(status: &ObjectStatus) -> Vec<[&str; 3]> {
    let said = status.conditions.iter();
    said.map(|condition| [&condition.kind, &condition.status, &condition.reason].map(String::as_str))
        .collect()
}

/// Documents that are not as they are to be, and those that are to go.
pub fn documents(told: &Told, wanted: &Documents) -> Vec<Write> {
    let mut writes = Vec::new();
    for (key, document) in wanted {
        match told.documents.get(key) {
            None => writes.push(Write::Create(document.clone())),
            Some(there) if says(there, document) && there.get("data") == document.get("data") => {}
            // Where a connection leads cannot be changed.
            Some(there) if key.kind == Kind::ServiceConnection.name() && !same_reference(there, document) => {
                writes.push(Write::Delete(key.clone()));
            }
            Some(there) => writes.push(Write::Change(change(there, document))),
        }
    }
    let gone = told.documents.keys().filter(|key| !wanted.contains_key(key));
    writes.extend(gone.cloned().map(Write::Delete));
    writes
}

/// From what is there to what is wanted: entries of a ConfigMap go by their names, lists as a whole.
fn change(there: &Value, wanted: &Value) -> Value {
    let mut change = wanted.clone();
    if let (Some(there), Some(data)) = (there["data"].as_object(), change["data"].as_object_mut()) {
        for name in there.keys() {
            data.entry(name.as_str()).or_insert(Value::Null);
        }
    }
    change
}

fn same_reference(there: &Value, wanted: &Value) -> bool {
    let reference = |document: &Value| {
        let spec = &document["spec"];
        [&spec["source"], &spec["destination"]].map(|end| (end["kind"].clone(), end["name"].clone()))
    };
    reference(there) == reference(wanted)
}

/// Nodes that are guarded since they booted and still have the taint; those of the cluster of this name, if there may be
/// others that are called alike.
pub fn untaint(told: &Told, cluster: Option<&str>) -> Vec<Write> {
    let mut guarded = BTreeSet::new();
    for (key, object) in &told.snapshot.objects {
        let crate::model::Spec::TunnelNode(spec) = &object.spec else { continue };
        if cluster.is_some_and(|cluster| cluster != spec.cluster) {
            continue;
        }
        let Some(report) = told.facts.get(key).and_then(|facts| facts.report.as_deref()) else { continue };
        let is_guarded = report
            .conditions
            .iter()
            .any(|condition| condition.kind == "Guarded" && condition.status == "True");
        if is_guarded {
            let node = if spec.node.is_empty() { key.name.as_str() } else { spec.node.as_str() };
            guarded.insert((node, report.boot_id.as_str()));
        }
    }
    let tainted = |(key, facts): (&ObjectKey, &std::sync::Arc<crate::source::kubernetes::Facts>)| {
        let node = facts.node.as_ref()?;
        let is_ours = |taint: &Value| taint["key"] == NOT_READY;
        let due =
            node.taints.iter().any(is_ours) && guarded.contains(&(key.name.as_str(), node.boot_id.as_str()));
        due.then(|| Write::Untaint {
            node: key.name.clone(),
            taints: node.taints.iter().filter(|taint| !is_ours(taint)).cloned().collect(),
            version: facts.version,
        })
    };
    told.facts.iter().filter(|(key, _)| key.kind == Kind::Node).filter_map(tainted).collect()
}

/// The kind that a document is of.
pub fn resource(kind: &str, slices: Resource) -> Resource {
    match kind {
        "EndpointSlice" => slices,
        "ConfigMap" => Resource::CONFIG_MAP,
        "Service" => Resource::of(Kind::Service),
        _ => Resource::of(Kind::ServiceConnection),
    }
}
