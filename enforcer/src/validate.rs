//! What a valid object is beyond its shape, as far as the object alone tells. What depends on other objects is
//! decided in `resolve`.

use std::collections::BTreeSet;

use crate::model::{
    AllowedPorts, ApplicationSpec, ConnectionSource, DatabaseSpec, DestinationRef, InstanceSpec,
    KubernetesClusterSpec, LabelSelector, Object, Operator, Protocol, ServiceConnectionSpec, SourceKind,
    Spec, TunnelGatewaySpec, TunnelNodeSpec,
};

pub mod value;

/// The first thing that is wrong with an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mistake {
    /// Path of the field, `spec.ports[0].port`.
    pub field: String,
    /// What is there and what was expected.
    pub message: String,
}

type Checked = Result<(), Mistake>;

/// `None`: nothing is wrong.
pub fn object(object: &Object) -> Option<Mistake> {
    check(object).err()
}

fn check(object: &Object) -> Checked {
    let kind = object.kind();
    if kind.is_ours() {
        names(object)?;
    }
    let namespace = &object.metadata.namespace;
    match &object.spec {
        Spec::Namespace | Spec::Node(_) | Spec::Pod(..) | Spec::Service(_) | Spec::EndpointSlice(_) => Ok(()),
        Spec::ServiceConnection(spec) => connection(namespace, spec),
        Spec::KeyValueStore(spec) | Spec::MySQL(spec) | Spec::Postgres(spec) => instance(spec),
        Spec::MySQLDatabase(spec) | Spec::PostgresDatabase(spec) => database(spec),
        Spec::Application(spec) => application(namespace, spec),
        Spec::KubernetesCluster(spec) => cluster(spec),
        Spec::TunnelGateway(spec) => gateway(spec),
        Spec::TunnelNode(spec) => node(spec),
    }
}

fn mistake(field: impl Into<String>, message: impl Into<String>) -> Mistake {
    Mistake { field: field.into(), message: message.into() }
}

/// Gives a value's refusal its field.
fn at<T>(field: impl Into<String>, result: Result<T, String>) -> Result<T, Mistake> {
    result.map_err(|message| mistake(field, message))
}

fn names(object: &Object) -> Checked {
    let name = &object.metadata.name;
    let kind = object.kind();
    if kind.namespaced() {
        at("metadata.namespace", value::dns_label(&object.metadata.namespace))?;
    }
    if !kind.is_instance() {
        return at("metadata.name", value::dns_subdomain(name));
    }
    at("metadata.name", value::dns_label(name))?;
    // Kind and name become one label of the DNS name.
    let longest = 63 - kind.name().len() - 1;
    if name.len() > longest {
        let message = format!(
            "\"{name}\" has {} characters, expected at most {longest}: a {kind}'s DNS name would be too long",
            name.len()
        );
        return Err(mistake("metadata.name", message));
    }
    Ok(())
}

fn instance(spec: &InstanceSpec) -> Checked {
    if spec.gateways.is_empty() {
        return Err(mistake("spec.gateways", "empty, expected the name of a TunnelGateway"));
    }
    unique("spec.gateways", spec.gateways.iter(), |name| format!("\"{name}\""))?;
    if spec.endpoints.is_empty() {
        return Err(mistake("spec.endpoints", "empty, expected the address of a backend"));
    }
    for (index, port) in spec.ports.iter().enumerate() {
        at(format!("spec.ports[{index}].port"), value::port(port.port))?;
        if let Some(target) = port.target_port {
            at(format!("spec.ports[{index}].targetPort"), value::port(target))?;
        }
    }
    unique("spec.ports", spec.ports.iter().map(|port| (port.port, port.protocol)), show_port)?;
    let named = spec.ports.iter().map(|port| &port.name).filter(|name| !name.is_empty());
    unique("spec.ports", named, |name| format!("the name \"{name}\""))?;
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        at(format!("spec.endpoints[{index}].address"), value::backend(endpoint.address))?;
    }
    unique("spec.endpoints", spec.endpoints.iter().map(|endpoint| endpoint.address), |ip| ip.to_string())
}

fn show_port((port, protocol): (u16, Protocol)) -> String {
    format!("{}/{port}", value::protocol_name(protocol))
}

fn unique<T: Ord + Copy>(field: &str, items: impl Iterator<Item = T>, show: impl Fn(T) -> String) -> Checked {
    let mut seen = BTreeSet::new();
    for item in items {
        if !seen.insert(item) {
            return Err(mistake(field, format!("{} stands twice, expected once", show(item))));
        }
    }
    Ok(())
}

fn database(spec: &DatabaseSpec) -> Checked {
    at("spec.instance", value::dns_label(&spec.instance))?;
    if spec.database.is_empty() {
        return Err(mistake("spec.database", "empty, expected the name of a database on the instance"));
    }
    Ok(())
}

fn connection(namespace: &str, spec: &ServiceConnectionSpec) -> Checked {
    source(&spec.source)?;
    destination("spec.destination", namespace, &spec.destination)?;
    for (index, port) in spec.ports.iter().enumerate() {
        at(format!("spec.ports[{index}].port"), value::port(port.port))?;
    }
    unique("spec.ports", spec.ports.iter().map(|port| (port.port, port.protocol)), show_port)?;
    if let Some(time) = &spec.valid_until {
        at("spec.validUntil", value::unix_ns(time))?;
    }
    Ok(())
}

fn source(source: &ConnectionSource) -> Checked {
    if source.name.is_empty() {
        let what = match source.kind {
            SourceKind::KubernetesCluster => "the name of a cluster",
            SourceKind::Application => "the name of an Application",
        };
        return Err(mistake("spec.source.name", format!("empty, expected {what}")));
    }
    let selectors =
        [("podSelector", &source.pod_selector), ("namespaceSelector", &source.namespace_selector)];
    for (name, selector) in selectors {
        let Some(given) = selector else { continue };
        let field = format!("spec.source.{name}");
        if source.kind == SourceKind::Application {
            return Err(mistake(
                field,
                "not for an Application, which has its own podSelector and namespace",
            ));
        }
        requirements(&field, given)?;
    }
    Ok(())
}

/// What no label can be would select nothing, or with `NotIn` everything, and nobody would be told.
fn requirements(field: &str, selector: &LabelSelector) -> Checked {
    for (key, text) in &selector.match_labels {
        at(format!("{field}.matchLabels"), value::label_key(key))?;
        at(format!("{field}.matchLabels.{key}"), value::label_value(text))?;
    }
    for (index, requirement) in selector.match_expressions.iter().enumerate() {
        let field = format!("{field}.matchExpressions[{index}]");
        at(format!("{field}.key"), value::label_key(&requirement.key))?;
        for (number, text) in requirement.values.iter().enumerate() {
            at(format!("{field}.values[{number}]"), value::label_value(text))?;
        }
        let given = requirement.values.len();
        match requirement.operator {
            Operator::In | Operator::NotIn if given == 0 => {
                let message = "empty, expected at least one value for In and NotIn";
                return Err(mistake(format!("{field}.values"), message));
            }
            Operator::Exists | Operator::DoesNotExist if given > 0 => {
                let message = format!("{given} given, expected none for Exists and DoesNotExist");
                return Err(mistake(format!("{field}.values"), message));
            }
            Operator::In | Operator::NotIn | Operator::Exists | Operator::DoesNotExist => {}
        }
    }
    Ok(())
}

fn destination(field: &str, namespace: &str, destination: &DestinationRef) -> Checked {
    if !destination.kind.is_destination() {
        let message = format!(
            "\"{}\", expected KeyValueStore, MySQL, MySQLDatabase, Postgres or PostgresDatabase",
            destination.kind
        );
        return Err(mistake(format!("{field}.kind"), message));
    }
    if destination.name.is_empty() {
        return Err(mistake(
            format!("{field}.name"),
            format!("empty, expected the name of a {}", destination.kind),
        ));
    }
    match destination.namespace.as_deref() {
        Some(other) if other != namespace => {
            let message = format!(
                "\"{other}\", expected \"{namespace}\": a destination is in the object's own namespace"
            );
            Err(mistake(format!("{field}.namespace"), message))
        }
        _ => Ok(()),
    }
}

fn application(namespace: &str, spec: &ApplicationSpec) -> Checked {
    requirements("spec.podSelector", &spec.pod_selector)?;
    for (index, service) in spec.services.iter().enumerate() {
        let field = format!("spec.services[{index}]");
        at(format!("{field}.name"), value::dns_label(&service.name))?;
        destination(&format!("{field}.target"), namespace, &service.target)?;
    }
    unique("spec.services", spec.services.iter().map(|service| &service.name), |name| format!("\"{name}\""))
}

fn cluster(spec: &KubernetesClusterSpec) -> Checked {
    match &spec.cluster_name {
        Some(name) if name.is_empty() => {
            Err(mistake("spec.clusterName", "empty, expected the agents' --cluster-name"))
        }
        _ => Ok(()),
    }
}

fn gateway(spec: &TunnelGatewaySpec) -> Checked {
    at("spec.publicKey", value::public_key(&spec.public_key))?;
    if spec.endpoints.is_empty() {
        return Err(mistake("spec.endpoints", "empty, expected ADDRESS:PORT of the tunnel's UDP socket"));
    }
    let mut endpoints = Vec::new();
    for (index, text) in spec.endpoints.iter().enumerate() {
        endpoints.push(at(format!("spec.endpoints[{index}]"), value::endpoint(text))?);
    }
    if let Some(mtu) = spec.mtu.filter(|mtu| !(1280..=65_455).contains(mtu)) {
        return Err(mistake("spec.mtu", format!("{mtu}, expected 1280 to 65455")));
    }
    for (index, backend) in spec.allowed_backends.iter().enumerate() {
        let field = format!("spec.allowedBackends[{index}]");
        at(format!("{field}.cidr"), value::cidr(&backend.cidr))?;
        if backend.ports.is_empty() {
            return Err(mistake(format!("{field}.ports"), "empty, expected at least one port"));
        }
        for (number, ports) in backend.ports.iter().enumerate() {
            port_range(&format!("{field}.ports[{number}]"), ports)?;
        }
    }
    for (index, text) in spec.guarded_cidrs.iter().enumerate() {
        let field = format!("spec.guardedCIDRs[{index}]");
        let range = at(&field, value::cidr(text))?;
        if let Some(endpoint) = endpoints.iter().find(|endpoint| range.contains(&endpoint.ip())) {
            let message =
                format!("{range} contains this gateway's endpoint {endpoint}, expected a range without it");
            return Err(mistake(field, message));
        }
    }
    Ok(())
}

fn port_range(field: &str, ports: &AllowedPorts) -> Checked {
    at(format!("{field}.port"), value::port(ports.port))?;
    match ports.end_port {
        Some(end) if end < ports.port => Err(mistake(
            format!("{field}.endPort"),
            format!("{end}, expected at least {} (port)", ports.port),
        )),
        _ => Ok(()),
    }
}

fn node(spec: &TunnelNodeSpec) -> Checked {
    at("spec.publicKey", value::public_key(&spec.public_key)).map(|_| ())
}
