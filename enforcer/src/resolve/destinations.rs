//! Instances and the logical databases on them: what a connection may lead to.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{Destination, DestinationPort, Note, Refusal, Resolved, Verdict, gateways, of_kinds, references};
use crate::{
    model::{DatabaseSpec, InstanceSpec, Kind, Object, ObjectKey, Protocol, Spec},
    state::State,
    store::Snapshot,
    validate::{self, value},
};

pub(super) fn resolve(snapshot: &Snapshot, state: &State, resolved: &mut Resolved) {
    let holders = holders(state);
    for (key, object) in of_kinds(snapshot, &[Kind::KeyValueStore, Kind::MySQL, Kind::Postgres]) {
        if let Some(spec) = object.instance() {
            let verdict = instance(key, object, spec, snapshot, (state, &holders), resolved);
            resolved.conclude(key, verdict);
        }
    }
    for (key, object) in of_kinds(snapshot, &[Kind::MySQLDatabase, Kind::PostgresDatabase]) {
        if let Spec::MySQLDatabase(spec) | Spec::PostgresDatabase(spec) = &object.spec {
            let verdict = database(key, object, spec, snapshot, state, resolved);
            resolved.conclude(key, verdict);
        }
    }
}

/// Who has which service address: whoever had it first where a state file gives it twice.
type Holders<'a> = BTreeMap<IpAddr, &'a ObjectKey>;

fn holders(state: &State) -> Holders<'_> {
    let mut by_number: Vec<_> = state.services.iter().collect();
    by_number.sort_by_key(|(key, allocation)| (allocation.number, *key));
    let mut holders = Holders::new();
    for (key, allocation) in by_number {
        for address in [IpAddr::V4(allocation.v4), IpAddr::V6(allocation.v6)] {
            holders.entry(address).or_insert(key);
        }
    }
    holders
}

/// The instance that a destination of any kind means; `None` where there is none.
pub(super) fn instance_of(key: &ObjectKey, snapshot: &Snapshot) -> Option<ObjectKey> {
    let object = snapshot.objects.get(key)?;
    let (kind, name) = match &object.spec {
        Spec::KeyValueStore(_) | Spec::MySQL(_) | Spec::Postgres(_) => (key.kind, &key.name),
        Spec::MySQLDatabase(spec) => (Kind::MySQL, &spec.instance),
        Spec::PostgresDatabase(spec) => (Kind::Postgres, &spec.instance),
        _ => return None,
    };
    Some(ObjectKey::new(kind, &key.namespace, name))
}

/// `postgres-orders.shop`: what stands before `.svc.` in the DNS name.
pub(crate) fn host_name(key: &ObjectKey) -> String {
    format!("{}-{}.{}", key.kind.name().to_lowercase(), key.name, key.namespace)
}

fn instance(
    key: &ObjectKey,
    object: &Object,
    spec: &InstanceSpec,
    snapshot: &Snapshot,
    (state, holders): (&State, &Holders),
    resolved: &mut Resolved,
) -> Verdict {
    validate::object(object).map_or(Ok(()), Err)?;
    free_name(key, snapshot)?;
    let ports = ports(key.kind, spec);
    let mut usable = Vec::new();
    let mut missing = Vec::new();
    for (index, name) in spec.gateways.iter().enumerate() {
        match through(index, name, key, spec, &ports, snapshot, resolved)? {
            Through::Usable => usable.push(name.clone()),
            Through::Not(why) => missing.push(why),
        }
    }
    if usable.is_empty() {
        return Err(Refusal { reason: "GatewayNotFound", message: missing.join("; ") });
    }
    let note = if missing.is_empty() {
        Note::valid()
    } else {
        Note { reason: "SomeGatewaysNotFound", message: missing.join("; ") }
    };
    let Some(allocation) = state.services.get(key) else { return Ok(Note::waiting(key)) };
    for address in [IpAddr::V4(allocation.v4), IpAddr::V6(allocation.v6)] {
        if let Some(holder) = holders.get(&address).filter(|holder| **holder != key) {
            let message = format!("{address} is the address of {holder}, expected one of its own");
            return Err(Refusal::new("DuplicateAddress", "status.addresses", message));
        }
    }
    let endpoints: Vec<_> = spec.endpoints.iter().map(|endpoint| endpoint.address.to_canonical()).collect();
    let destination = Destination {
        key: key.clone(),
        number: allocation.number,
        v4: endpoints.iter().any(std::net::IpAddr::is_ipv4).then_some(allocation.v4),
        v6: endpoints.iter().any(std::net::IpAddr::is_ipv6).then_some(allocation.v6),
        ports,
        gateways: usable,
        endpoints,
        fqdn: format!("{}.svc.{}", host_name(key), super::CLUSTER_DOMAIN),
    };
    resolved.destinations.insert(key.clone(), Arc::new(destination));
    Ok(note)
}

/// Whether a Service may have the name of a destination, whichever there are.
pub(super) fn may_have_name(key: &ObjectKey) -> bool {
    Kind::ALL.iter().filter(|kind| kind.is_instance()).any(|kind| {
        let kind = kind.name();
        key.name.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind))
    })
}

/// The name in DNS is that of a Service. One that somebody else made is never taken over.
fn free_name(key: &ObjectKey, snapshot: &Snapshot) -> Result<(), Refusal> {
    let host = host_name(key);
    let name = host.split('.').next().unwrap_or_default();
    let service = ObjectKey::new(Kind::Service, &key.namespace, name);
    if snapshot.objects.contains_key(&service) {
        let message =
            format!("{service} exists already and is not of this {}, expected a free name", key.kind);
        return Err(Refusal::new("NameTaken", "metadata.name", message));
    }
    Ok(())
}

fn ports(kind: Kind, spec: &InstanceSpec) -> Vec<DestinationPort> {
    if spec.ports.is_empty() {
        let port = match kind {
            Kind::KeyValueStore => 6379,
            Kind::MySQL => 3306,
            _ => 5432,
        };
        return vec![DestinationPort { protocol: Protocol::Tcp, port, target_port: port }];
    }
    let port = |port: &crate::model::ServicePort| DestinationPort {
        protocol: port.protocol,
        port: port.port,
        target_port: port.target_port.unwrap_or(port.port),
    };
    spec.ports.iter().map(port).collect()
}

enum Through {
    Usable,
    /// It is not there (yet, or any more); the other gateways go on.
    Not(String),
}

/// Whether the instance may be reached through this gateway. Without the administrator's leave at one gateway, the
/// instance is refused at all of them: its author has to change it anyway.
fn through(
    index: usize,
    name: &str,
    key: &ObjectKey,
    spec: &InstanceSpec,
    ports: &[DestinationPort],
    snapshot: &Snapshot,
    resolved: &Resolved,
) -> Result<Through, Refusal> {
    let field = format!("spec.gateways[{index}]");
    let gateway_key = ObjectKey::new(Kind::TunnelGateway, "", name);
    let Some(Spec::TunnelGateway(gateway_spec)) =
        snapshot.objects.get(&gateway_key).map(|object| &object.spec)
    else {
        return Ok(Through::Not(format!("{field}: no TunnelGateway \"{name}\", expected one that exists")));
    };
    if !gateway_spec.allowed_namespaces.contains(&key.namespace) {
        let message = format!(
            "TunnelGateway {name} does not allow namespace \"{}\", expected it in its allowedNamespaces",
            key.namespace
        );
        return Err(Refusal::new("NamespaceNotAllowed", &field, message));
    }
    let Some(gateway) = resolved.gateways.get(name) else {
        return Ok(Through::Not(format!("{field}: TunnelGateway {name} is not valid, expected one that is")));
    };
    for (number, endpoint) in spec.endpoints.iter().enumerate() {
        let address = endpoint.address.to_canonical();
        let field = format!("spec.endpoints[{number}].address");
        if let Some(other) =
            resolved.gateways.values().find(|other| gateways::is_gateway_itself(other, address))
        {
            let message =
                format!("{address} is TunnelGateway {} itself, expected a host behind a gateway", other.name);
            return Err(Refusal::new("BackendNotAllowed", &field, message));
        }
        if let Some(whose) = resolved.infrastructure.get(&address) {
            let message = format!("{address} is an address {whose}, expected a host behind the gateway");
            return Err(Refusal::new("BackendNotAllowed", &field, message));
        }
        if let Some(range) = resolved.own_range(address) {
            let message = format!("{address} lies in our range {range}, expected a host behind the gateway");
            return Err(Refusal::new("BackendNotAllowed", &field, message));
        }
        if let Some(port) = ports.iter().find(|port| !gateways::allows(gateway, address, **port)) {
            let message = format!(
                "{address} with port {}/{} is not in the allowedBackends of TunnelGateway {name}, expected one that is",
                value::protocol_name(port.protocol),
                port.target_port
            );
            return Err(Refusal::new("BackendNotAllowed", &field, message));
        }
    }
    Ok(Through::Usable)
}

fn database(
    key: &ObjectKey,
    object: &Object,
    spec: &DatabaseSpec,
    snapshot: &Snapshot,
    state: &State,
    resolved: &Resolved,
) -> Verdict {
    validate::object(object).map_or(Ok(()), Err)?;
    references::unchanged(key, &object.spec, state)?;
    let Some(instance) = instance_of(key, snapshot) else { return Ok(Note::valid()) };
    usable("spec.instance", &instance, resolved)
        .map(|()| {
            if resolved.destinations.contains_key(&instance) {
                Note::valid()
            } else {
                Note::waiting(&instance)
            }
        })
        .map_err(|mut refusal| {
            if !snapshot.objects.contains_key(&instance) {
                let message = format!(
                    "\"{}\", expected the name of a {} in {}",
                    spec.instance, instance.kind, key.namespace
                );
                refusal = Refusal::new("InstanceNotFound", "spec.instance", message);
            }
            refusal
        })
}

/// Whether something valid stands behind a reference.
pub(super) fn usable(field: &str, target: &ObjectKey, resolved: &Resolved) -> Result<(), Refusal> {
    let valid =
        resolved.conditions.get(target).and_then(|conditions| conditions.first()).ok_or_else(|| {
            Refusal::new("DestinationNotFound", field, format!("no {target}, expected one that exists"))
        })?;
    if valid.status == "True" {
        Ok(())
    } else {
        Err(Refusal::new("DestinationNotValid", field, format!("{target} is not valid: {}", valid.message)))
    }
}
