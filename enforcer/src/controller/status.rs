//! What the controller writes below `status`: conditions, addresses, names, how many pods a selector matches. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use serde_json::{Value, json};

use super::allocate::Shortages;
use crate::{
    model::{DatabaseSpec, Kind, Labels, Object, ObjectKey, Spec},
    resolve::{self, Before, Connection, Resolved, match_pod},
    state::{Condition, ObjectStatus, REFERENCES, State},
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

/// Pods that are alike in this are meant by the same connections: namespace, cluster and labels. The replicas of one
/// workload are, so that thousands of pods are a few hundred.
type Likeness<'a> = (&'a str, Option<&'a str>, &'a Labels);

impl<'a> Pod<'a> {
    fn likeness(&self) -> Likeness<'a> {
        (self.namespace, self.node.map(|(_, cluster)| cluster), self.labels)
    }

    /// Where nobody says which cluster the pod is in, every one may be meant.
    fn is_meant_by(&self, connection: &Connection) -> bool {
        let any = connection.cluster.as_deref().unwrap_or_default();
        let cluster =
            self.node.map(|(_, cluster)| cluster).filter(|cluster| !cluster.is_empty()).unwrap_or(any);
        match_pod(connection, cluster, self.namespace, self.labels, self.namespace_labels).is_ok()
    }
}

/// What pods are seen with.
struct Pods<'a> {
    snapshot: &'a Snapshot,
    /// Name and cluster of each TunnelNode. Key: Kubernetes' name of the node.
    nodes: BTreeMap<&'a str, (&'a str, &'a str)>,
}

impl<'a> Pods<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let end = |object: &'a Arc<Object>| match &object.spec {
            Spec::TunnelNode(spec) => {
                let name = object.metadata.name.as_str();
                let node = if spec.node.is_empty() { name } else { spec.node.as_str() };
                Some((node, (name, spec.cluster.as_str())))
            }
            _ => None,
        };
        Self { snapshot, nodes: snapshot.objects.values().filter_map(end).collect() }
    }

    /// One pod of each likeness, and how many there are.
    fn alike(&self) -> Vec<(Pod<'_>, usize)> {
        let mut alike: BTreeMap<Likeness, (Pod, usize)> = BTreeMap::new();
        for pod in self.snapshot.objects.values().filter_map(|object| self.pod(object)) {
            alike.entry(pod.likeness()).or_insert((pod, 0)).1 += 1;
        }
        alike.into_values().collect()
    }

    /// The object if it is a pod. One that has ended has no sockets left.
    fn pod<'b>(&'b self, object: &'b Object) -> Option<Pod<'b>> {
        static NO_LABELS: Labels = Labels::new();
        let Spec::Pod(spec, status) = &object.spec else { return None };
        if matches!(status.phase.as_str(), "Succeeded" | "Failed") {
            return None;
        }
        let namespace = object.metadata.namespace.as_str();
        let labels = self.snapshot.objects.get(&ObjectKey::new(Kind::Namespace, "", namespace));
        Some(Pod {
            namespace,
            labels: &object.metadata.labels,
            namespace_labels: labels.map_or(&NO_LABELS, |namespace| &namespace.metadata.labels),
            node: self.nodes.get(spec.node_name.as_str()).copied(),
        })
    }
}

/// Granted pods of each TunnelNode.
pub fn workloads(snapshot: &Snapshot, resolved: &Resolved) -> BTreeMap<String, u32> {
    let mut workloads = BTreeMap::new();
    let pods = Pods::of(snapshot);
    let mut known: BTreeMap<Likeness, bool> = BTreeMap::new();
    for pod in snapshot.objects.values().filter_map(|object| pods.pod(object)) {
        let Some((node, _)) = pod.node else { continue };
        let meant = || resolved.connections.iter().any(|connection| pod.is_meant_by(connection));
        if *known.entry(pod.likeness()).or_insert_with(meant) {
            *workloads.entry(node.to_owned()).or_default() += 1;
        }
    }
    workloads
}

/// The last turn.
#[derive(Clone, Copy, Debug)]
pub struct Last<'a> {
    pub snapshot: &'a Snapshot,
    pub resolved: &'a Resolved,
    pub shortages: &'a Shortages,
}

impl<'a> Last<'a> {
    /// What to resolve after; `state` is the turn's outcome.
    pub const fn followed_from(self, state: &'a State) -> Before<'a> {
        Before { snapshot: self.snapshot, state, resolved: self.resolved }
    }
}

/// How many pods each connection selected at the last turn.
#[derive(Clone, Debug, Default)]
pub struct Counted(BTreeMap<ObjectKey, (Arc<Connection>, usize)>);

impl Counted {
    /// Counts what is not known to be as it was. Returns the connections of which that changed anything.
    fn update(
        &mut self,
        snapshot: &Snapshot,
        resolved: &Resolved,
        last: Option<&Snapshot>,
    ) -> BTreeSet<ObjectKey> {
        let changes = last.map_or_else(Vec::new, |last| snapshot.since(last));
        let terms = |kind| matches!(kind, Kind::Namespace | Kind::TunnelNode);
        if last.is_none() || changes.iter().any(|change| terms(change.key.kind)) {
            self.0.clear();
        }
        let pods = Pods::of(snapshot);
        let count = |objects: &mut dyn Iterator<Item = &Arc<Object>>, connection: &Connection| {
            objects.filter_map(|object| pods.pod(object)).filter(|pod| pod.is_meant_by(connection)).count()
        };
        let moved: Vec<_> = changes.iter().filter(|change| change.key.kind == Kind::Pod).collect();
        let mut alike = None;
        let mut known = std::mem::take(&mut self.0);
        let mut news = BTreeSet::new();
        for connection in &resolved.connections {
            let (key, counted) = match known.remove_entry(&connection.key) {
                Some((key, (before, counted))) if before == *connection => {
                    let gone = count(&mut moved.iter().filter_map(|change| change.was), connection);
                    let come = count(&mut moved.iter().filter_map(|change| change.is), connection);
                    if gone != come {
                        news.insert(key.clone());
                    }
                    (key, (before, (counted + come).saturating_sub(gone)))
                }
                _ => {
                    news.insert(connection.key.clone());
                    let alike = alike.get_or_insert_with(|| pods.alike());
                    let meant = alike.iter().filter(|(pod, _)| pod.is_meant_by(connection));
                    let all = meant.map(|(_, count)| count).sum();
                    (connection.key.clone(), (Arc::clone(connection), all))
                }
            };
            self.0.insert(key, counted);
        }
        news.extend(known.into_keys());
        news
    }
}

/// Status of every object of ours. `now` is RFC 3339. `last` and `counted` are only stores of work already done; `last`
/// is there if all but the connections means what it meant then.
pub fn write(
    snapshot: &Snapshot,
    (resolved, shortages): (&Resolved, &Shortages),
    now: &str,
    state: &mut State,
    counted: &mut Counted,
    last: Option<Last>,
) {
    let counts = counted.update(snapshot, resolved, last.map(|last| last.snapshot));
    let due: BTreeSet<&ObjectKey> = match last {
        None => resolved.conditions.keys().collect(),
        Some(last) => due(snapshot, resolved, shortages, last).chain(&counts).collect(),
    };
    for key in due {
        let (Some(valid), Some(object)) = (resolved.conditions.get(key), snapshot.objects.get(key)) else {
            continue;
        };
        let before = state.status.remove(key).unwrap_or_default();
        let mut conditions = valid.to_vec();
        conditions.extend(shortages.get(key).map(|message| exhausted(message)));
        conditions.extend(snapshot.kept.get(key).map(|why| last_good(why)));
        for condition in &mut conditions {
            let last = before.conditions.iter().find(|last| last.kind == condition.kind);
            let same = last.filter(|last| last.status == condition.status);
            let since = same.and_then(|last| last.last_transition_time.clone());
            condition.last_transition_time = Some(since.unwrap_or_else(|| now.to_owned()));
        }
        let is_valid = valid.iter().all(|condition| condition.status == "True");
        let mut fields = fields(key, object, resolved, state, &counted.0);
        if let Some(now) = resolve::references(&object.spec) {
            let first = before.fields.get(REFERENCES).cloned();
            let references = first.or_else(|| is_valid.then(|| now.into()));
            fields.extend(references.map(|references| (REFERENCES.to_owned(), references)));
        }
        let status = ObjectStatus { conditions, fields };
        let status = if *before == status { before } else { Arc::new(status) };
        state.status.insert(key.clone(), status);
    }
}

/// Objects of which something else may have to be said now, but for how many pods they select.
fn due<'a>(
    snapshot: &'a Snapshot,
    resolved: &'a Resolved,
    shortages: &'a Shortages,
    last: Last<'a>,
) -> impl Iterator<Item = &'a ObjectKey> {
    // These tell of allocations, or of other objects; there are few of them.
    let always = |kind| matches!(kind, Kind::Application | Kind::TunnelGateway | Kind::TunnelNode);
    let changed = snapshot.since(last.snapshot).into_iter().map(|change| change.key);
    // Those that are the same are shared, so that comparing them all costs little.
    let concluded =
        resolved.conditions.iter().filter(move |(key, now)| last.resolved.conditions.get(*key) != Some(*now));
    changed
        .chain(concluded.map(|(key, _)| key))
        .chain(resolved.conditions.keys().filter(move |key| always(key.kind)))
        .chain(snapshot.kept.keys().chain(last.snapshot.kept.keys()))
        .chain(shortages.keys().chain(last.shortages.keys()))
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
    counts: &BTreeMap<ObjectKey, (Arc<Connection>, usize)>,
) -> Fields {
    let fields = match &object.spec {
        Spec::KeyValueStore(_) | Spec::MySQL(_) | Spec::Postgres(_) => {
            let mut fields = instance(key, resolved);
            fields.extend(state.services.get(key).map(|allocation| ("number", json!(allocation.number))));
            fields
        }
        Spec::MySQLDatabase(spec) => database(key, Kind::MySQL, spec, resolved),
        Spec::PostgresDatabase(spec) => database(key, Kind::Postgres, spec, resolved),
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
        Spec::TunnelGateway(_) => gateway(key, state),
        Spec::TunnelNode(_) => node(key, state),
        Spec::Namespace
        | Spec::Node(_)
        | Spec::Pod(..)
        | Spec::Service(_)
        | Spec::EndpointSlice(_)
        | Spec::KubernetesCluster(_) => Vec::new(),
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

/// The name of its instance leads to a database, too.
fn database(
    key: &ObjectKey,
    kind: Kind,
    spec: &DatabaseSpec,
    resolved: &Resolved,
) -> Vec<(&'static str, Value)> {
    let mut fields = instance(&beside(key, kind, &spec.instance), resolved);
    fields.push(("database", json!(spec.database)));
    fields
}

fn gateway(key: &ObjectKey, state: &State) -> Vec<(&'static str, Value)> {
    let Some(gateway) = state.gateways.get(&key.name) else { return Vec::new() };
    let mut ranges = install(state);
    ranges["next"] = json!(state.next);
    vec![
        ("number", json!(gateway.number)),
        ("addresses", addresses(Some(gateway.v4), Some(gateway.v6))),
        ("ranges", ranges),
    ]
}

fn node(key: &ObjectKey, state: &State) -> Vec<(&'static str, Value)> {
    let Some(node) = state.nodes.get(&key.name) else { return Vec::new() };
    let mut ranges = install(state);
    ranges["blocks"] = json!(node.blocks);
    ranges["subnet"] = json!(node.subnet);
    vec![
        ("number", json!(node.number)),
        ("addresses", addresses(Some(node.v4), Some(node.v6))),
        ("ranges", ranges),
    ]
}

/// Ranges that the install has for good.
fn install(state: &State) -> Value {
    json!({ "ula": state.ula, "service": state.service_range, "workload": state.workload_range })
}

fn addresses(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Value {
    let texts = [v4.map(|address| address.to_string()), v6.map(|address| address.to_string())];
    json!(texts.into_iter().flatten().collect::<Vec<_>>())
}
