//! TunnelGateways and TunnelNodes: both ends of the tunnels, each with a key that nobody else has.

use std::{
    collections::BTreeMap,
    fmt::Display,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

use super::{Gateway, Node, Note, Refusal, Resolved, Verdict, of_kinds};
use crate::{
    model::{Kind, Object, ObjectKey, Spec, TunnelGatewaySpec, TunnelNodeSpec},
    state::State,
    store::Snapshot,
    validate::{self, value},
};

/// MTU of a tunnel where the administrator gives none.
const DEFAULT_MTU: u32 = 1420;

pub(super) fn resolve(snapshot: &Snapshot, state: &State, resolved: &mut Resolved) {
    let endpoints = all_endpoints(snapshot);
    let mut owners = Owners::default();
    for (key, object) in in_precedence(snapshot, state) {
        let verdict = match &object.spec {
            Spec::TunnelGateway(spec) => gateway(key, object, spec, state, &endpoints, &mut owners, resolved),
            Spec::TunnelNode(spec) => node(key, object, spec, state, &mut owners, resolved),
            _ => continue,
        };
        resolved.conclude(key, verdict);
    }
    resolved.listed_ranges.sort();
    resolved.listed_ranges.dedup();
}

/// Who has what only one may have.
#[derive(Default)]
struct Owners {
    /// Public keys.
    keys: BTreeMap<[u8; 32], ObjectKey>,
    /// Where the tunnels' datagrams go.
    endpoints: BTreeMap<SocketAddr, ObjectKey>,
    /// Addresses and blocks of the workload ranges.
    addresses: BTreeMap<IpNet, ObjectKey>,
    /// Cluster and Kubernetes' name of a node.
    nodes: BTreeMap<(String, String), ObjectKey>,
}

/// Takes all of it for the object, or nothing where somebody has a part of it.
fn take<T: Ord + Clone + Display>(
    owned: &mut BTreeMap<T, ObjectKey>,
    wanted: &[T],
    key: &ObjectKey,
    (reason, field, what): (&'static str, &str, &str),
) -> Result<(), Refusal> {
    if let Some((thing, owner)) = wanted.iter().find_map(|thing| Some((thing, owned.get(thing)?))) {
        let message = format!("{thing} is {what} of {owner}, expected one of its own");
        return Err(Refusal::new(reason, field, message));
    }
    owned.extend(wanted.iter().map(|thing| (thing.clone(), key.clone())));
    Ok(())
}

fn in_precedence<'a>(snapshot: &'a Snapshot, state: &State) -> Vec<(&'a ObjectKey, &'a Object)> {
    let number = |key: &ObjectKey| match key.kind {
        Kind::TunnelGateway => state.gateways.get(&key.name).map(|allocation| allocation.number),
        _ => state.nodes.get(&key.name).map(|allocation| allocation.number),
    };
    let mut ends: Vec<_> = of_kinds(snapshot, &[Kind::TunnelGateway, Kind::TunnelNode]).collect();
    ends.sort_by_key(|(key, _)| (key.kind, number(key).unwrap_or(u32::MAX), &key.name));
    ends
}

fn all_endpoints(snapshot: &Snapshot) -> Vec<(String, SocketAddr)> {
    let mut endpoints = Vec::new();
    for (key, object) in of_kinds(snapshot, &[Kind::TunnelGateway]) {
        if let Spec::TunnelGateway(spec) = &object.spec {
            let parsed = spec.endpoints.iter().filter_map(|text| value::endpoint(text).ok());
            endpoints.extend(parsed.map(|endpoint| (key.name.clone(), endpoint)));
        }
    }
    endpoints
}

fn gateway(
    key: &ObjectKey,
    object: &Object,
    spec: &TunnelGatewaySpec,
    state: &State,
    all_endpoints: &[(String, SocketAddr)],
    owners: &mut Owners,
    resolved: &mut Resolved,
) -> Verdict {
    validate::object(object).map_or(Ok(()), Err)?;
    let endpoints: Vec<_> = spec.endpoints.iter().filter_map(|text| value::endpoint(text).ok()).collect();
    for (index, endpoint) in endpoints.iter().enumerate() {
        if let Some(range) = resolved.own_range(endpoint.ip()) {
            let field = format!("spec.endpoints[{index}]");
            let message =
                format!("{endpoint} lies in our range {range}, expected an address of the underlay");
            return Err(Refusal::new("Invalid", &field, message));
        }
    }
    // Guarded only denies: a range holds as soon as it is right, whatever else is wrong with the gateway.
    let mut wrong = None;
    for (index, range) in spec.guarded_cidrs.iter().filter_map(|text| value::cidr(text).ok()).enumerate() {
        match guardable(range, all_endpoints, resolved) {
            Ok(()) => resolved.listed_ranges.push(range),
            Err((reason, message)) => {
                let field = format!("spec.guardedCIDRs[{index}]");
                wrong = wrong.or_else(|| Some(Refusal::new(reason, &field, message)));
            }
        }
    }
    wrong.map_or(Ok(()), Err)?;
    let public_key = own_key(key, &spec.public_key, owners)?;
    let taken = ("DuplicateEndpoint", "spec.endpoints", "the endpoint");
    take(&mut owners.endpoints, &endpoints, key, taken)?;
    let Some(allocation) = state.gateways.get(&key.name) else { return Ok(Note::waiting(key)) };
    let addresses = [IpAddr::V4(allocation.v4).into(), IpAddr::V6(allocation.v6).into()];
    take(&mut owners.addresses, &addresses, key, ADDRESS)?;
    let gateway = Gateway {
        name: key.name.clone(),
        number: allocation.number,
        v4: allocation.v4,
        v6: allocation.v6,
        public_key,
        endpoints,
        mtu: spec.mtu.unwrap_or(DEFAULT_MTU),
        source_mode: spec.source_mode,
        allowed_backends: spec.allowed_backends.clone(),
    };
    resolved.gateways.insert(key.name.clone(), gateway);
    Ok(Note::valid())
}

const ADDRESS: (&str, &str, &str) = ("DuplicateAddress", "status.addresses", "the address");

/// Whether a range may be denied to everybody: the nodes themselves must go on reaching gateways, each other, the API
/// server and DNS, and our own ranges are guarded in their own way.
fn guardable(
    range: IpNet,
    endpoints: &[(String, SocketAddr)],
    resolved: &Resolved,
) -> Result<(), (&'static str, String)> {
    if let Some((name, endpoint)) = endpoints.iter().find(|(_, end)| range.contains(&end.ip())) {
        let message = format!(
            "{range} contains endpoint {endpoint} of TunnelGateway {name}, expected a range without it"
        );
        return Err(("GuardedEndpoint", message));
    }
    let inside = resolved.infrastructure.iter().find(|(address, _)| range.contains(*address));
    if let Some((address, whose)) = inside {
        let message = format!("{range} contains {address}, an address {whose}, expected a range without it");
        return Err(("GuardedInfrastructure", message));
    }
    if range.contains(&value::mapped()) {
        return Err((
            "Invalid",
            format!("{range} contains all of IPv4 (::ffff:0:0/96), expected a range without it"),
        ));
    }
    let own = resolved.service_ranges.iter().chain(&resolved.workload_ranges);
    if let Some(own) = own.copied().find(|own| own.contains(&range)) {
        return Err((
            "Invalid",
            format!(
                "{range} lies in our range {own}, which is guarded anyway, expected a range outside of it"
            ),
        ));
    }
    Ok(())
}

fn node(
    key: &ObjectKey,
    object: &Object,
    spec: &TunnelNodeSpec,
    state: &State,
    owners: &mut Owners,
    resolved: &mut Resolved,
) -> Verdict {
    validate::object(object).map_or(Ok(()), Err)?;
    let public_key = own_key(key, &spec.public_key, owners)?;
    let name = if spec.node.is_empty() { &key.name } else { &spec.node };
    let node = (spec.cluster.clone(), name.clone());
    if let Some(owner) = owners.nodes.get(&node) {
        let message = format!(
            "\"{name}\" of cluster \"{}\" is the node of {owner} already, expected a node of its own",
            spec.cluster
        );
        return Err(Refusal::new("DuplicateNode", "spec.node", message));
    }
    owners.nodes.insert(node, key.clone());
    let Some(allocation) = state.nodes.get(&key.name) else { return Ok(Note::waiting(key)) };
    let blocks = allocation.blocks.iter().map(|block| IpNet::V4(*block));
    let own = [IpAddr::V4(allocation.v4).into(), IpAddr::V6(allocation.v6).into(), allocation.subnet.into()];
    let addresses: Vec<IpNet> = blocks.chain(own).collect();
    take(&mut owners.addresses, &addresses, key, ADDRESS)?;
    let node = Node {
        name: key.name.clone(),
        number: allocation.number,
        v4: allocation.v4,
        v6: allocation.v6,
        blocks: allocation.blocks.clone(),
        subnet: allocation.subnet,
        public_key,
        cluster: spec.cluster.clone(),
    };
    resolved.nodes.insert(key.name.clone(), node);
    Ok(Note::valid())
}

/// A tunnel's peer is its key: two objects with the same one would be one peer with the rights of both.
fn own_key(key: &ObjectKey, text: &str, owners: &mut Owners) -> Result<[u8; 32], Refusal> {
    let field = "spec.publicKey";
    let public_key = value::public_key(text).map_err(|message| Refusal::new("Invalid", field, message))?;
    if let Some(owner) = owners.keys.get(&public_key) {
        let message = format!("\"{text}\" is the key of {owner}, expected a key of its own");
        return Err(Refusal::new("DuplicateKey", field, message));
    }
    owners.keys.insert(public_key, key.clone());
    Ok(public_key)
}

/// What of a gateway a backend must not be.
pub(super) fn is_gateway_itself(gateway: &Gateway, address: IpAddr) -> bool {
    let address = address.to_canonical();
    address == IpAddr::V4(gateway.v4)
        || address == IpAddr::V6(gateway.v6)
        || gateway.endpoints.iter().any(|endpoint| endpoint.ip().to_canonical() == address)
}

/// Whether the administrator allows this backend.
pub(super) fn allows(gateway: &Gateway, address: IpAddr, port: super::DestinationPort) -> bool {
    let address = IpNet::from(address.to_canonical());
    gateway.allowed_backends.iter().any(|backend| {
        value::cidr(&backend.cidr).is_ok_and(|range| range.contains(&address))
            && backend.ports.iter().any(|allowed| {
                let last = allowed.end_port.unwrap_or(allowed.port);
                allowed.protocol == port.protocol && (allowed.port..=last).contains(&port.target_port)
            })
    })
}
