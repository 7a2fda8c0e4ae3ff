//! What the controller writes below `status`: conditions, addresses, names, how many pods a selector matches. Pure.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use serde_json::{Value, json};

use super::allocate::Shortages;
use crate::{
    model::{Kind, Labels, Metadata, Object, ObjectKey, PodSpec, Spec},
    resolve::{self, Connection, Resolved, match_pod},
    state::{self, Condition, ObjectStatus, State},
    store::Snapshot,
};

/// A pod as connections see it.
struct Pod<'a> {
    namespace: &'a str,
    labels: &'a Labels,
    namespace_labels: &'a Labels,
    /// Its TunnelNode's name and cluster; `None` for a pod of a node that is no TunnelNode.
    node: Option<(&'a str, &'a str)>,
}

impl Pod<'_> {
    /// Where nobody says which cluster the pod is in, every one may be meant.
    fn is_meant_by(&self, connection: &Connection) -> bool {
        let any = connection.cluster.as_deref().unwrap_or_default();
        let cluster =
            self.node.map(|(_, cluster)| cluster).filter(|cluster| !cluster.is_empty()).unwrap_or(any);
        match_pod(connection, cluster, self.namespace, self.labels, self.namespace_labels).is_ok()
    }
}

fn pods(snapshot: &Snapshot) -> Vec<Pod<'_>> {
    static NO_LABELS: Labels = Labels::new();
    let nodes = nodes(snapshot);
    let pod = |metadata: &'_ Metadata, spec: &PodSpec| {
        let namespace = ObjectKey::new(Kind::Namespace, "", metadata.namespace.as_str());
        let labels = snapshot.objects.get(&namespace).map(|object| &object.metadata.labels);
        (labels, nodes.get(spec.node_name.as_str()).copied())
    };
    let all = snapshot.objects.values().filter_map(|object| match &object.spec {
        // A pod that has ended has no sockets left.
        Spec::Pod(spec, status) if !matches!(status.phase.as_str(), "Succeeded" | "Failed") => {
            let (namespace_labels, node) = pod(&object.metadata, spec);
            Some(Pod {
                namespace: &object.metadata.namespace,
                labels: &object.metadata.labels,
                namespace_labels: namespace_labels.unwrap_or(&NO_LABELS),
                node,
            })
        }
        _ => None,
    });
    all.collect()
}

/// Kubernetes' name of each node: its TunnelNode's name and cluster.
fn nodes(snapshot: &Snapshot) -> BTreeMap<&str, (&str, &str)> {
    snapshot
        .objects
        .values()
        .filter_map(|object| match &object.spec {
            Spec::TunnelNode(spec) => {
                let name = object.metadata.name.as_str();
                let node = if spec.node.is_empty() { name } else { spec.node.as_str() };
                Some((node, (name, spec.cluster.as_str())))
            }
            _ => None,
        })
        .collect()
}

/// Granted pods of each TunnelNode.
pub fn workloads(snapshot: &Snapshot, resolved: &Resolved) -> BTreeMap<String, u32> {
    let mut workloads = BTreeMap::new();
    for pod in pods(snapshot) {
        if let Some((node, _)) = pod.node
            && resolved.connections.iter().any(|connection| pod.is_meant_by(connection))
        {
            *workloads.entry(node.to_owned()).or_default() += 1;
        }
    }
    workloads
}

/// How many pods each connection selected at the last turn.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// What selectors were held against: pods, namespaces, nodes.
    against: Vec<Arc<Object>>,
    counts: BTreeMap<ObjectKey, (Connection, usize)>,
}

impl Counted {
    /// Counts what is not known to be as it was.
    fn update(&mut self, snapshot: &Snapshot, resolved: &Resolved) {
        let matters = |kind| matches!(kind, Kind::Pod | Kind::Namespace | Kind::TunnelNode);
        let against = snapshot.objects.iter().filter(|(key, _)| matters(key.kind));
        let against: Vec<Arc<Object>> = against.map(|(_, object)| Arc::clone(object)).collect();
        let mut known = std::mem::take(&mut self.counts);
        if against != self.against {
            known.clear();
        }
        self.against = against;
        let pods = pods(snapshot);
        for connection in &resolved.connections {
            let (key, counted) = known
                .remove_entry(&connection.key)
                .filter(|(_, (before, _))| before == connection)
                .unwrap_or_else(|| {
                    let count = pods.iter().filter(|pod| pod.is_meant_by(connection)).count();
                    (connection.key.clone(), (connection.clone(), count))
                });
            self.counts.insert(key, counted);
        }
    }
}

/// Status of every object of ours. `now` is RFC 3339.
pub fn write(
    snapshot: &Snapshot,
    resolved: &Resolved,
    shortages: &Shortages,
    now: &str,
    state: &mut State,
    counted: &mut Counted,
) {
    counted.update(snapshot, resolved);
    for (key, valid) in &resolved.conditions {
        let Some(object) = snapshot.objects.get(key) else { continue };
        let text = state::text_key(key);
        let before = state.status.remove(&text).unwrap_or_default();
        let mut conditions = valid.clone();
        conditions.extend(shortages.get(key).map(|message| exhausted(message)));
        conditions.extend(snapshot.kept.get(key).map(|why| last_good(why)));
        for condition in &mut conditions {
            let last = before.conditions.iter().find(|last| last.kind == condition.kind);
            let same = last.filter(|last| last.status == condition.status);
            let since = same.and_then(|last| last.last_transition_time.clone());
            condition.last_transition_time = Some(since.unwrap_or_else(|| now.to_owned()));
        }
        let is_valid = valid.iter().all(|condition| condition.status == "True");
        let mut fields = fields(key, object, resolved, state, &counted.counts);
        if let Some(now) = resolve::references(&object.spec) {
            let first = before.fields.get(resolve::REFERENCES).cloned();
            let references = first.or_else(|| is_valid.then(|| now.into()));
            fields.extend(references.map(|references| (resolve::REFERENCES.to_owned(), references)));
        }
        state.status.insert(text, ObjectStatus { conditions, fields });
    }
}

/// Only there while it is false: what is in force is not what is written.
fn last_good(why: &str) -> Condition {
    Condition {
        kind: "Accepted".to_owned(),
        status: "False".to_owned(),
        reason: "LastGoodState".to_owned(),
        message: format!("{why}; what it said last is in force until it is repaired or deleted"),
        last_transition_time: None,
    }
}

fn exhausted(message: &str) -> Condition {
    Condition {
        kind: "Programmed".to_owned(),
        status: "False".to_owned(),
        reason: "RangeExhausted".to_owned(),
        message: message.to_owned(),
        last_transition_time: None,
    }
}

type Fields = BTreeMap<String, Value>;

fn fields(
    key: &ObjectKey,
    object: &Object,
    resolved: &Resolved,
    state: &State,
    counts: &BTreeMap<ObjectKey, (Connection, usize)>,
) -> Fields {
    let fields = match &object.spec {
        Spec::KeyValueStore(_) | Spec::MySQL(_) | Spec::Postgres(_) => instance(key, resolved),
        Spec::MySQLDatabase(spec) => instance(&beside(key, Kind::MySQL, &spec.instance), resolved),
        Spec::PostgresDatabase(spec) => instance(&beside(key, Kind::Postgres, &spec.instance), resolved),
        Spec::ServiceConnection(_) => {
            let found = counts.get(key);
            let destination = found.and_then(|(of, _)| resolved.destinations.get(&of.destination));
            let mut fields = vec![("matchedPods", json!(found.map_or(0, |(_, count)| *count)))];
            fields.extend(destination.map(|destination| ("destinationDNS", json!(destination.fqdn))));
            fields
        }
        Spec::Application(spec) => {
            let name =
                |service: &str| beside(key, Kind::ServiceConnection, &format!("{}-{service}", key.name));
            let own: Vec<_> = spec.services.iter().map(|service| name(&service.name)).collect();
            let live: Vec<_> = own.iter().filter(|own| counts.contains_key(own)).collect();
            let counted = live.iter().filter_map(|own| counts.get(own)).map(|(_, count)| *count);
            let most = counted.max().unwrap_or_default();
            let names: Vec<_> = live.iter().map(|own| &own.name).collect();
            vec![("matchedPods", json!(most)), ("connections", json!(names))]
        }
        Spec::TunnelGateway(_) => match state.gateways.get(&key.name) {
            Some(a) => vec![("number", json!(a.number)), ("addresses", addresses(Some(a.v4), Some(a.v6)))],
            None => Vec::new(),
        },
        Spec::TunnelNode(_) => state.nodes.get(&key.name).map_or_else(Vec::new, |node| {
            let mut ranges: Vec<_> = node.blocks.iter().map(ToString::to_string).collect();
            ranges.push(node.subnet.to_string());
            vec![
                ("number", json!(node.number)),
                ("addresses", addresses(Some(node.v4), Some(node.v6))),
                ("ranges", json!(ranges)),
            ]
        }),
        Spec::Namespace | Spec::Node(_) | Spec::Pod(..) | Spec::Service(_) | Spec::EndpointSlice(_) => {
            Vec::new()
        }
    };
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn beside(key: &ObjectKey, kind: Kind, name: &str) -> ObjectKey {
    ObjectKey::new(kind, key.namespace.as_str(), name)
}

fn instance(key: &ObjectKey, resolved: &Resolved) -> Vec<(&'static str, Value)> {
    let Some(destination) = resolved.destinations.get(key) else { return Vec::new() };
    vec![
        ("privateNetworkingFQDN", json!(destination.fqdn)),
        ("addresses", addresses(destination.v4, destination.v6)),
    ]
}

fn addresses(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Value {
    let texts = [v4.map(|address| address.to_string()), v6.map(|address| address.to_string())];
    json!(texts.into_iter().flatten().collect::<Vec<_>>())
}
