//! The whole status of an object in a cluster: what follows from the objects, what nodes report, what was written. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::json;

use super::documents::{self, Documents};
use crate::{
    model::{Kind, ObjectKey},
    resolve::Resolved,
    source::kubernetes::{DocumentKey, Facts, Report, Told},
    state::{Condition, ObjectStatus},
};

/// What statuses are made of, besides the object's own.
pub struct World<'a> {
    pub told: &'a Told,
    pub resolved: &'a Resolved,
    pub wanted: &'a Documents,
    /// Names that somebody else has.
    pub taken: &'a BTreeSet<DocumentKey>,
    /// What nodes say of each connection, by `namespace/name`.
    pub reports: BTreeMap<&'a str, Vec<Reported<'a>>>,
    /// RFC 3339.
    pub now: &'a str,
}

/// Why something is not made.
const NAME_TAKEN: &str = "NameTaken";
/// Pods that are named in a message.
const NAMED: usize = 3;

/// What one node says of a connection.
#[derive(Clone, Copy)]
pub struct Reported<'a> {
    node: &'a str,
    generation: i64,
    pods: u32,
    live: u32,
    not_guardable: &'a [String],
}

/// Reports of all nodes by connection.
pub fn reports(told: &Told) -> BTreeMap<&str, Vec<Reported<'_>>> {
    let mut reports: BTreeMap<&str, Vec<Reported>> = BTreeMap::new();
    for (key, facts) in &*told.facts {
        let Some(report) = facts.report.as_deref().filter(|_| key.kind == Kind::TunnelNode) else { continue };
        for one in &report.connections {
            reports.entry(&one.name).or_default().push(Reported {
                node: &key.name,
                generation: one.generation,
                pods: one.pods,
                live: one.live,
                not_guardable: &one.not_guardable,
            });
        }
    }
    reports
}

/// What the object's status is to be. `base` is what follows from the objects alone.
fn complete(key: &ObjectKey, base: &ObjectStatus, facts: &Facts, world: &World) -> ObjectStatus {
    let mut status = base.clone();
    let is_valid = status.conditions.iter().all(|condition| condition.status == "True");
    let more = match key.kind {
        Kind::ServiceConnection if is_valid => connection(key, &mut status, facts, world),
        kind if kind.is_instance() && is_valid => vec![instance(key, world)],
        Kind::Application if is_valid => application(key, world).into_iter().collect(),
        Kind::TunnelNode => node(&mut status, facts),
        _ => Vec::new(),
    };
    let is_done = more.iter().all(|condition| condition.status == "True");
    let ready = if !is_valid {
        said("Ready", false, "NotValid", "")
    } else if let Some(missing) = more.iter().find(|condition| condition.status != "True") {
        said("Ready", false, &missing.reason, &missing.message)
    } else {
        said("Ready", is_done, "Ready", "")
    };
    status.conditions.extend(more);
    status.conditions.push(ready);
    for condition in &mut status.conditions {
        let before = facts.status.conditions.iter().find(|before| before.kind == condition.kind);
        let same = before.filter(|before| before.status == condition.status);
        let since = same.and_then(|before| before.last_transition_time.clone());
        let own = condition.last_transition_time.take();
        condition.last_transition_time = since.or(own).or_else(|| Some(world.now.to_owned()));
    }
    status.fields.insert("observedGeneration".to_owned(), json!(facts.generation));
    // Servers as old as 1.20 make null of an empty list.
    status.fields.retain(|_, value| value.as_array().is_none_or(|items| !items.is_empty()));
    status
}

fn said(kind: &str, holds: bool, reason: &str, message: &str) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: None,
    }
}

fn connection(key: &ObjectKey, status: &mut ObjectStatus, facts: &Facts, world: &World) -> Vec<Condition> {
    let matched = status.fields.get("matchedPods").and_then(serde_json::Value::as_u64).unwrap_or_default();
    let name = format!("{}/{}", key.namespace, key.name);
    let reports = world.reports.get(name.as_str()).map(Vec::as_slice).unwrap_or_default();
    let current = reports.iter().filter(|report| report.generation == facts.generation);
    let (mut pods, mut live, mut nodes, mut not_guardable) = (0, 0, Vec::new(), Vec::new());
    for report in current {
        not_guardable.extend(report.not_guardable.iter().map(String::as_str));
        pods += u64::from(report.pods);
        live += u64::from(report.live);
        nodes.push(report.node);
    }
    // Pods of other clusters are known by what their nodes report.
    let matched = matched.max(pods);
    status.fields.insert("matchedPods".to_owned(), json!(matched));
    status.fields.insert("activePods".to_owned(), json!(live));
    status.fields.insert("nodes".to_owned(), json!(nodes));
    let waiting = format!("nodes report {pods} of {matched} pods");
    let pending = format!("{live} of {matched} pods have a gateway's answer");
    let programmed = if pods >= matched {
        said("Programmed", true, "Programmed", "")
    } else {
        said("Programmed", false, "WaitingForNodes", &waiting)
    };
    let mut all = vec![programmed];
    if !not_guardable.is_empty() {
        all.push(said("Guardable", false, "NotGuardable", &denied(&not_guardable)));
    }
    if pods >= matched && live < matched {
        all.push(said("Acknowledged", false, "WaitingForGateway", &pending));
    }
    all
}

/// Of pods that cannot be guarded: some, and how many more there are.
fn denied(pods: &[&str]) -> String {
    let some = pods.iter().take(NAMED).copied().collect::<Vec<_>>().join("; ");
    let more = pods.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    format!("denied, because they have another way out: {some}{more}")
}

/// Names that a predecessor has found to be somebody else's, as the statuses have them: until a try has shown whether
/// they are free by now, they count as that.
pub fn taken(told: &Told, wanted: &Documents) -> BTreeSet<DocumentKey> {
    let messages: Vec<(&str, &str)> = told
        .facts
        .iter()
        .flat_map(|(key, facts)| facts.status.conditions.iter().map(|condition| (&*key.namespace, condition)))
        .filter(|(_, condition)| condition.reason == NAME_TAKEN)
        .map(|(namespace, condition)| (namespace, condition.message.as_str()))
        .collect();
    let is_named = |key: &&DocumentKey| {
        messages
            .iter()
            .any(|(namespace, message)| key.namespace == *namespace && message.contains(&title(key)))
    };
    wanted.keys().filter(is_named).filter(|key| !told.documents.contains_key(key)).cloned().collect()
}

/// With a character behind the name that is a part of none.
fn title(key: &DocumentKey) -> String {
    format!("{} {}/{}:", key.kind, key.namespace, key.name)
}

/// Names of an Application's ConfigMap and connections that somebody else has.
fn application(key: &ObjectKey, world: &World) -> Option<Condition> {
    let is_own = |taken: &&DocumentKey| {
        let owner = &world.wanted.get(*taken)?["metadata"]["ownerReferences"][0];
        (taken.namespace == key.namespace && owner["kind"] == key.kind.name() && owner["name"] == *key.name)
            .then_some(())
    };
    let taken: Vec<String> = world.taken.iter().filter(|taken| is_own(taken).is_some()).map(title).collect();
    let message = format!("{} not ours, expected the name to be free", taken.join(" "));
    (!taken.is_empty()).then(|| said("Programmed", false, NAME_TAKEN, &message))
}

/// An instance is programmed when its name is there.
fn instance(key: &ObjectKey, world: &World) -> Condition {
    let Some(destination) = world.resolved.destinations.get(key) else {
        return said("Programmed", false, "WaitingForAddress", "it has no address yet");
    };
    let service = DocumentKey {
        kind: "Service".to_owned(),
        namespace: key.namespace.clone(),
        name: documents::host(destination).to_owned(),
    };
    if world.taken.contains(&service) {
        let message = format!("{} not ours, expected the name to be free", title(&service));
        return said("Programmed", false, NAME_TAKEN, &message);
    }
    let is_there = |key: &DocumentKey| {
        let there = world.told.documents.get(key);
        there.zip(world.wanted.get(key)).is_some_and(|(there, wanted)| documents::says(there, wanted))
    };
    let own = world.wanted.keys().filter(|wanted| {
        wanted.namespace == service.namespace
            && (wanted.name == service.name
                || wanted.kind == "EndpointSlice" && is_of(&wanted.name, &service.name))
    });
    if own.into_iter().all(is_there) {
        return said("Programmed", true, "Programmed", "");
    }
    said("Programmed", false, "WaitingForName", "its Service is not written yet")
}

/// Whether a slice is one of the two of a Service.
fn is_of(slice: &str, service: &str) -> bool {
    slice.strip_prefix(service).is_some_and(|suffix| matches!(suffix, "-v4" | "-v6"))
}

/// What the agent reports, and who the node is: what it said first. Another key is no secret of the node's, for all
/// that can be told, and another name is not its own: any agent's token may write any TunnelNode where the server does
/// not look.
fn node(status: &mut ObjectStatus, facts: &Facts) -> Vec<Condition> {
    let asked = facts.asked.clone().unwrap_or_default();
    let accepted = facts.accepted().unwrap_or_else(|| asked.clone());
    let fields = [
        ("publicKey", &asked.public_key, &accepted.public_key),
        ("cluster", &asked.cluster, &accepted.cluster),
        ("node", &asked.node, &accepted.node),
    ];
    let mut differences = Vec::new();
    for (field, asked, accepted) in fields {
        if !accepted.is_empty() {
            status.fields.insert(field.to_owned(), json!(accepted));
        }
        if asked != accepted {
            differences.push(format!("spec.{field} is \"{asked}\", \"{accepted}\" is in force"));
        }
    }
    let report: Report = facts.report.as_deref().cloned().unwrap_or_default();
    if !report.boot_id.is_empty() {
        status.fields.insert("bootID".to_owned(), json!(report.boot_id));
    }
    let mut conditions = report.conditions;
    if !differences.is_empty() {
        let message =
            format!("{}: to accept what it asks for, delete the TunnelNode", differences.join(", "));
        conditions.push(said("IdentityAccepted", false, "IdentityChanged", &message));
    }
    conditions
}

/// Status of what is not an object at all: its text is refused.
fn refused(message: &str, facts: &Facts, now: &str) -> ObjectStatus {
    let mut status = ObjectStatus::clone(&facts.status);
    for (kind, reason, message) in [("Valid", "Invalid", message), ("Ready", "NotValid", "")] {
        let mut condition = said(kind, false, reason, message);
        let before = status.conditions.iter().position(|before| before.kind == kind);
        let before = before.map(|index| status.conditions.remove(index));
        let same = before.filter(|before| before.status == condition.status);
        condition.last_transition_time =
            same.and_then(|before| before.last_transition_time).or_else(|| Some(now.to_owned()));
        status.conditions.push(condition);
    }
    status.fields.insert("observedGeneration".to_owned(), json!(facts.generation));
    status
}

/// All statuses that are to be; also of what is refused as a whole and so is no object.
pub fn all(
    state: &BTreeMap<ObjectKey, Arc<ObjectStatus>>,
    world: &World,
) -> BTreeMap<ObjectKey, ObjectStatus> {
    let complete = |(key, base): (&ObjectKey, &Arc<ObjectStatus>)| {
        let facts = world.told.facts.get(key)?;
        Some((key.clone(), complete(key, base, facts, world)))
    };
    let mut statuses: BTreeMap<_, _> = state.iter().filter_map(complete).collect();
    for (key, message) in &*world.told.refused {
        if !world.told.snapshot.objects.contains_key(key)
            && let Some(facts) = world.told.facts.get(key)
        {
            statuses.insert(key.clone(), refused(message, facts, world.now));
        }
    }
    statuses
}
