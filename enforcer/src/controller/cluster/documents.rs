//! What the controller keeps beside status: names in the cluster's DNS, and what Applications need. Pure.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use serde_json::{Map, Value, json};

use crate::{
    model::{APPLICATION_LABEL, ApplicationSpec, Kind, ObjectKey, Protocol, ServiceReference, Spec},
    resolve::{Destination, Resolved},
    source::kubernetes::{DocumentKey, Facts, MANAGED_BY, Resource, Told},
    validate::value::protocol_name,
};

pub type Documents = BTreeMap<DocumentKey, Value>;

/// Everything that has to be there. An owner takes what is its own with it when it goes.
pub fn wanted(told: &Told, resolved: &Resolved, slices: Resource) -> Documents {
    let mut documents = Vec::new();
    for (key, destination) in &resolved.destinations {
        if let Some(facts) = told.facts.get(key) {
            documents.extend(name(key, destination, facts, slices));
        }
    }
    for (key, object) in &told.snapshot.objects {
        if let (Spec::Application(spec), Some(facts)) = (&object.spec, told.facts.get(key)) {
            let is_valid = told.snapshot.kept.contains_key(key) || crate::validate::object(object).is_none();
            if is_valid {
                documents.extend(connections(key, spec, facts));
                documents.push(services(key, spec, facts, told, resolved));
            }
        }
    }
    documents.into_iter().map(|document| (DocumentKey::of(&document), document)).collect()
}

fn metadata(owner: &ObjectKey, facts: &Facts, name: &str) -> Value {
    json!({
        "namespace": owner.namespace,
        "name": name,
        "labels": { MANAGED_BY.0: MANAGED_BY.1 },
        "ownerReferences": [{
            "apiVersion": owner.kind.api_version(),
            "kind": owner.kind.name(),
            "name": owner.name,
            "uid": facts.uid,
            "controller": true,
            "blockOwnerDeletion": false,
        }],
    })
}

/// First label of a destination's name.
pub fn host(destination: &Destination) -> &str {
    destination.fqdn.split('.').next().unwrap_or_default()
}

/// A headless Service without selector, and a slice of each family: what cluster DNS answers from. kube-proxy ignores
/// headless Services.
fn name(key: &ObjectKey, destination: &Destination, facts: &Facts, slices: Resource) -> Vec<Value> {
    let host = host(destination);
    let service_ports: Vec<_> = destination
        .ports
        .iter()
        .map(|port| json!({ "name": port.name(), "port": port.port, "protocol": protocol_name(port.protocol) }))
        .collect();
    let mut documents = vec![json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(key, facts, host),
        "spec": { "type": "ClusterIP", "clusterIP": "None", "ports": service_ports },
    })];
    let families =
        [("IPv4", "v4", destination.v4.map(IpAddr::V4)), ("IPv6", "v6", destination.v6.map(IpAddr::V6))];
    for (family, suffix, address) in families {
        let Some(address) = address else { continue };
        let mut metadata = metadata(key, facts, &format!("{host}-{suffix}"));
        metadata["labels"]["kubernetes.io/service-name"] = host.into();
        metadata["labels"]["endpointslice.kubernetes.io/managed-by"] = "enforcer.dev".into();
        documents.push(json!({
            "apiVersion": slices.api_version(),
            "kind": "EndpointSlice",
            "metadata": metadata,
            "addressType": family,
            "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
            "ports": service_ports,
        }));
    }
    documents
}

/// A ServiceConnection for each reference.
fn connections(key: &ObjectKey, spec: &ApplicationSpec, facts: &Facts) -> Vec<Value> {
    let connection = |service: &ServiceReference| {
        let mut metadata = metadata(key, facts, &format!("{}-{}", key.name, service.name));
        metadata["labels"][APPLICATION_LABEL] = key.name.as_str().into();
        json!({
            "apiVersion": Kind::ServiceConnection.api_version(),
            "kind": Kind::ServiceConnection.name(),
            "metadata": metadata,
            "spec": {
                "source": { "kind": "Application", "name": key.name },
                "destination": { "kind": service.target.kind, "name": service.target.name },
            },
        })
    };
    spec.services.iter().map(connection).collect()
}

/// What a pod takes with `envFrom`: host, port and URL of each reference. No secret is in it: passwords are not ours.
fn services(
    key: &ObjectKey,
    spec: &ApplicationSpec,
    facts: &Facts,
    told: &Told,
    resolved: &Resolved,
) -> Value {
    let mut data = Map::new();
    for service in &spec.services {
        let target =
            ObjectKey::new(service.target.kind, key.namespace.as_str(), service.target.name.as_str());
        let object = told.snapshot.objects.get(&target).map(|object| &object.spec);
        let (instance, database) = match object {
            Some(Spec::PostgresDatabase(spec)) => {
                (beside(&target, Kind::Postgres, &spec.instance), &*spec.database)
            }
            Some(Spec::MySQLDatabase(spec)) => {
                (beside(&target, Kind::MySQL, &spec.instance), &*spec.database)
            }
            _ => (target, ""),
        };
        let Some(destination) = resolved.destinations.get(&instance) else { continue };
        let Some(port) = first_port(destination) else { continue };
        let prefix = service.name.to_ascii_uppercase().replace('-', "_");
        let url = url(instance.kind, &destination.fqdn, port, database);
        data.insert(format!("{prefix}_HOST"), destination.fqdn.as_str().into());
        data.insert(format!("{prefix}_PORT"), port.to_string().into());
        data.insert(format!("{prefix}_URL"), url.into());
        if !database.is_empty() {
            data.insert(format!("{prefix}_DATABASE"), database.into());
        }
    }
    let mut metadata = metadata(key, facts, &format!("{}-services", key.name));
    metadata["labels"][APPLICATION_LABEL] = key.name.as_str().into();
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data })
}

fn beside(key: &ObjectKey, kind: Kind, name: &str) -> ObjectKey {
    ObjectKey::new(kind, key.namespace.as_str(), name)
}

/// A destination's port is what its author wrote first.
fn first_port(destination: &Destination) -> Option<u16> {
    let tcp = destination.ports.iter().find(|port| port.protocol == Protocol::Tcp);
    tcp.or(destination.ports.first()).map(|port| port.port)
}

fn url(kind: Kind, host: &str, port: u16, database: &str) -> String {
    let scheme = match kind {
        Kind::Postgres => "postgresql",
        Kind::MySQL => "mysql",
        _ => "redis",
    };
    let path = if database.is_empty() { String::new() } else { format!("/{}", escaped(database)) };
    format!("{scheme}://{host}:{port}{path}")
}

/// Percent-encoding of a path segment (RFC 3986): all but unreserved characters.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => _ = write!(escaped, "%{byte:02X}"),
        }
    }
    escaped
}

/// Whether what is there says everything that is wanted; servers fill in defaults.
pub fn says(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| there.get(name).is_some_and(|there| says(there, wanted)))
        }
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len() && there.iter().zip(wanted).all(|(there, wanted)| says(there, wanted))
        }
        (there, wanted) => there == wanted,
    }
}
