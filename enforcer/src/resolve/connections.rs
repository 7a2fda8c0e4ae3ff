//! ServiceConnections, and those that follow from Applications' service references.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Before, Connection, DestinationPort, Note, Refusal, Resolved, Verdict, age, destinations, of_kinds,
    references,
};
use crate::{
    model::{
        APPLICATION_LABEL, ApplicationSpec, ConnectionSource, DestinationRef, Kind, LabelSelector, Object,
        ObjectKey, PortRef, ServiceConnectionSpec, SourceKind, Spec,
    },
    state::State,
    store::Snapshot,
    validate::{self, value},
};

/// All of them; the rest is resolved.
pub(super) fn resolve(snapshot: &Snapshot, state: &State, resolved: &mut Resolved) {
    let all = of_kinds(snapshot, &[Kind::ServiceConnection]).map(|(key, _)| key).collect();
    declared(all, snapshot, state, resolved);
    managed(snapshot, resolved);
    resolved.connections.sort_by(|left, right| left.rank().cmp(&right.rank()));
    for (key, object) in of_kinds(snapshot, &[Kind::KubernetesCluster]) {
        let mistake = validate::object(object).map_or(Ok(Note::valid()), |mistake| Err(mistake.into()));
        resolved.conclude(key, mistake);
    }
}

/// The last outcome with those anew that are not what they were. `before` holds for everything else.
pub(super) fn resolve_after(snapshot: &Snapshot, state: &State, before: &Before) -> Resolved {
    let changes = snapshot.since(before.snapshot);
    let of = |kind| changes.iter().filter(move |change| change.key.kind == kind);
    let mut due: BTreeSet<&ObjectKey> = of(Kind::ServiceConnection).map(|change| change.key).collect();
    let applications_changed = of(Kind::Application).next().is_some();
    // An Application decides what its own connections mean, and a name that is taken is not its own.
    let taken = of(Kind::ServiceConnection).any(|change| change.was.is_none() || change.is.is_none());
    let applications_due = applications_changed || taken;
    if applications_changed {
        let declared = of_kinds(snapshot, &[Kind::ServiceConnection]);
        due.extend(declared.filter(|(_, object)| is_of_application(object)).map(|(key, _)| key));
    }
    let mut resolved = before.resolved.clone();
    resolved.connections.retain(|connection| {
        let is_declared = before.snapshot.objects.contains_key(&connection.key);
        !due.contains(&connection.key) && (is_declared || !applications_due)
    });
    for gone in due.iter().copied().chain(of(Kind::Application).map(|change| change.key)) {
        resolved.conditions.remove(gone);
    }
    declared(due, snapshot, state, &mut resolved);
    if applications_due {
        managed(snapshot, &mut resolved);
    }
    resolved.connections.sort_by(|left, right| left.rank().cmp(&right.rank()));
    resolved
}

fn is_of_application(object: &Object) -> bool {
    matches!(&object.spec, Spec::ServiceConnection(spec) if spec.source.kind == SourceKind::Application)
}

/// ServiceConnections of these keys, as far as they are there.
fn declared(keys: BTreeSet<&ObjectKey>, snapshot: &Snapshot, state: &State, resolved: &mut Resolved) {
    for key in keys {
        let Some(object) = snapshot.objects.get(key) else { continue };
        let Spec::ServiceConnection(spec) = &object.spec else { continue };
        let verdict = connection(key, object, spec, snapshot, state, resolved);
        let verdict = verdict.map(|(note, connection)| {
            resolved.connections.extend(connection.map(Arc::new));
            note
        });
        resolved.conclude(key, verdict);
    }
}

/// What follows from the Applications. A name that two of them want is the older one's.
fn managed(snapshot: &Snapshot, resolved: &mut Resolved) {
    let mut managed = BTreeSet::new();
    let mut applications: Vec<_> = of_kinds(snapshot, &[Kind::Application]).collect();
    applications.sort_by_key(|(key, object)| (age(object), *key));
    for (key, object) in applications {
        let Spec::Application(spec) = &object.spec else { continue };
        let mut connections = Vec::new();
        let verdict = application(key, object, spec, snapshot, resolved, &mut managed, &mut connections);
        resolved.connections.extend(connections.into_iter().map(Arc::new));
        resolved.conclude(key, verdict);
    }
}

fn connection(
    key: &ObjectKey,
    object: &Object,
    spec: &ServiceConnectionSpec,
    snapshot: &Snapshot,
    state: &State,
    resolved: &Resolved,
) -> Result<(Note, Option<Connection>), Refusal> {
    validate::object(object).map_or(Ok(()), Err)?;
    references::unchanged(key, &object.spec, state)?;
    let instance = target("spec.destination", &key.namespace, &spec.destination, snapshot, resolved)?;
    let source = source(key, &spec.source, &instance, snapshot, resolved)?;
    let Some(destination) = resolved.destinations.get(&instance) else {
        return Ok((Note::waiting(&instance), None));
    };
    let connection = Connection {
        key: key.clone(),
        created_unix_ns: age(object),
        destination: instance,
        cluster: source.cluster,
        pod_selector: source.pod_selector,
        namespace_selector: source.namespace_selector,
        only_namespace: source.only_namespace,
        ports: ports(&spec.ports, &destination.ports, &spec.destination)?,
        valid_until_unix_ns: spec.valid_until.as_deref().and_then(|time| value::unix_ns(time).ok()),
    };
    Ok((source.note, Some(connection)))
}

/// The instance behind a reference.
fn target(
    field: &str,
    namespace: &str,
    reference: &DestinationRef,
    snapshot: &Snapshot,
    resolved: &Resolved,
) -> Result<ObjectKey, Refusal> {
    let key = ObjectKey::new(reference.kind, namespace, &reference.name);
    destinations::usable(field, &key, resolved)?;
    destinations::instance_of(&key, snapshot).ok_or_else(|| {
        Refusal::new("DestinationNotFound", field, format!("no {key}, expected one that exists"))
    })
}

/// Terms of a source.
struct Source {
    cluster: Option<String>,
    pod_selector: LabelSelector,
    namespace_selector: Option<LabelSelector>,
    only_namespace: Option<String>,
    note: Note,
}

fn source(
    key: &ObjectKey,
    source: &ConnectionSource,
    instance: &ObjectKey,
    snapshot: &Snapshot,
    resolved: &Resolved,
) -> Result<Source, Refusal> {
    match source.kind {
        SourceKind::KubernetesCluster => {
            let name = cluster_name(key, source, snapshot)?;
            Ok(Source { cluster: Some(name), ..cluster(key, source, instance, snapshot, resolved) })
        }
        SourceKind::Application => {
            let application = ObjectKey::new(Kind::Application, &key.namespace, &source.name);
            let field = "spec.source.name";
            let object = snapshot.objects.get(&application);
            let Some((object, Spec::Application(spec))) = object.map(|object| (object, &object.spec)) else {
                let message = format!("no {application}, expected one that exists");
                return Err(Refusal::new("SourceNotFound", field, message));
            };
            if let Some(mistake) = validate::object(object) {
                let message = format!("{application} is not valid: {}: {}", mistake.field, mistake.message);
                return Err(Refusal::new("SourceNotValid", field, message));
            }
            Ok(application_source(&key.namespace, spec))
        }
    }
}

fn application_source(namespace: &str, spec: &ApplicationSpec) -> Source {
    Source {
        cluster: None,
        pod_selector: spec.pod_selector.clone(),
        namespace_selector: None,
        only_namespace: Some(namespace.to_owned()),
        note: Note::valid(),
    }
}

/// What the agents of the cluster have as their `--cluster-name`. The object may be absent.
fn cluster_name(key: &ObjectKey, source: &ConnectionSource, snapshot: &Snapshot) -> Result<String, Refusal> {
    let cluster = ObjectKey::new(Kind::KubernetesCluster, &key.namespace, &source.name);
    let Some(object) = snapshot.objects.get(&cluster) else { return Ok(source.name.clone()) };
    if let Some(mistake) = validate::object(object) {
        let message = format!("{cluster} is not valid: {}: {}", mistake.field, mistake.message);
        return Err(Refusal::new("SourceNotValid", "spec.source.name", message));
    }
    let given = match &object.spec {
        Spec::KubernetesCluster(spec) => spec.cluster_name.clone(),
        _ => None,
    };
    Ok(given.unwrap_or_else(|| source.name.clone()))
}

/// Pods of other namespaces count only where the administrator of every gateway on the way says so.
fn cluster(
    key: &ObjectKey,
    source: &ConnectionSource,
    instance: &ObjectKey,
    snapshot: &Snapshot,
    resolved: &Resolved,
) -> Source {
    let gateways = resolved.destinations.get(instance).map(|destination| destination.gateways.as_slice());
    let own_only = gateways.unwrap_or_default().iter().find(|name| {
        let gateway = snapshot.objects.get(&ObjectKey::new(Kind::TunnelGateway, "", name.as_str()));
        !matches!(gateway.map(|object| &object.spec), Some(Spec::TunnelGateway(spec)) if spec.cross_namespace_sources)
    });
    let note = match own_only {
        Some(gateway) if !only_own(source.namespace_selector.as_ref(), &key.namespace) => Note {
            reason: "OwnNamespaceOnly",
            message: format!(
                "only pods of namespace \"{}\" are meant: TunnelGateway {gateway} has no crossNamespaceSources",
                key.namespace
            ),
        },
        _ => Note::valid(),
    };
    Source {
        cluster: None,
        pod_selector: source.pod_selector.clone().unwrap_or_default(),
        namespace_selector: source.namespace_selector.clone(),
        only_namespace: own_only.map(|_| key.namespace.clone()),
        note,
    }
}

/// Whether the selector itself means no other namespace.
fn only_own(selector: Option<&LabelSelector>, namespace: &str) -> bool {
    let name = selector.and_then(|selector| selector.match_labels.get("kubernetes.io/metadata.name"));
    name.is_some_and(|name| name == namespace)
}

fn ports(
    wanted: &[PortRef],
    offered: &[DestinationPort],
    destination: &DestinationRef,
) -> Result<Vec<DestinationPort>, Refusal> {
    if wanted.is_empty() {
        return Ok(offered.to_vec());
    }
    let mut ports = Vec::new();
    for (index, port) in wanted.iter().enumerate() {
        let same = |offer: &&DestinationPort| (offer.port, offer.protocol) == (port.port, port.protocol);
        let Some(offer) = offered.iter().find(same) else {
            let names: Vec<_> = offered
                .iter()
                .map(|offer| format!("{}/{}", value::protocol_name(offer.protocol), offer.port))
                .collect();
            let message = format!(
                "{}/{} is not offered by {} {}, expected one of {}",
                value::protocol_name(port.protocol),
                port.port,
                destination.kind,
                destination.name,
                names.join(", ")
            );
            return Err(Refusal::new("PortNotOffered", &format!("spec.ports[{index}]"), message));
        };
        ports.push(*offer);
    }
    Ok(ports)
}

/// Whether there is a connection of this name that was not written for the Application.
fn is_of_another(connection: &ObjectKey, application: &ObjectKey, snapshot: &Snapshot) -> bool {
    snapshot
        .objects
        .get(connection)
        .is_some_and(|object| object.metadata.labels.get(APPLICATION_LABEL) != Some(&application.name))
}

/// Connections of the references that hold; the verdict speaks of the first that does not.
fn application(
    key: &ObjectKey,
    object: &Object,
    spec: &ApplicationSpec,
    snapshot: &Snapshot,
    resolved: &Resolved,
    managed: &mut BTreeSet<ObjectKey>,
    connections: &mut Vec<Connection>,
) -> Verdict {
    validate::object(object).map_or(Ok(()), Err)?;
    let mut verdict = Ok(Note::valid());
    for (index, service) in spec.services.iter().enumerate() {
        let field = format!("spec.services[{index}]");
        let name = format!("{}-{}", key.name, service.name);
        let own = ObjectKey::new(Kind::ServiceConnection, &key.namespace, name);
        let too_long = value::dns_subdomain(&own.name).err();
        let reference = if let Some(message) = too_long {
            Err(Refusal::new(
                "Invalid",
                &format!("{field}.name"),
                format!("its connection would be {message}"),
            ))
        } else if is_of_another(&own, key, snapshot) || !managed.insert(own.clone()) {
            let message =
                format!("{own} exists already and is not of this Application, expected a free name");
            Err(Refusal::new("NameTaken", &format!("{field}.name"), message))
        } else {
            target(&format!("{field}.target"), &key.namespace, &service.target, snapshot, resolved)
        };
        match reference {
            // In a cluster the controller writes it as an object of its own, which says the same.
            Ok(_) if snapshot.objects.contains_key(&own) => {}
            Ok(instance) => {
                connections.extend(managed_connection(own, instance, (key, object), spec, resolved));
            }
            Err(refusal) if verdict.is_ok() => verdict = Err(refusal),
            Err(_) => {}
        }
    }
    verdict
}

/// `None` while the destination has no address.
fn managed_connection(
    own: ObjectKey,
    instance: ObjectKey,
    (application, object): (&ObjectKey, &Object),
    spec: &ApplicationSpec,
    resolved: &Resolved,
) -> Option<Connection> {
    let ports = resolved.destinations.get(&instance)?.ports.clone();
    let source = application_source(&application.namespace, spec);
    Some(Connection {
        key: own,
        created_unix_ns: age(object),
        destination: instance,
        cluster: source.cluster,
        pod_selector: source.pod_selector,
        namespace_selector: source.namespace_selector,
        only_namespace: source.only_namespace,
        ports,
        valid_until_unix_ns: None,
    })
}
