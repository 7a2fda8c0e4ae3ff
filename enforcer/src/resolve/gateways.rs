//! TunnelGateways and TunnelNodes: both ends of the tunnels, each with a key that nobody else has.

use std::{
    collections::BTreeMap,
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
    let mut owners = BTreeMap::new();
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

/// Who has which public key.
type Owners = BTreeMap<[u8; 32], ObjectKey>;

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
    let mut guarded = Vec::new();
    for (index, range) in spec.guarded_cidrs.iter().filter_map(|text| value::cidr(text).ok()).enumerate() {
        if let Some((name, endpoint)) = all_endpoints.iter().find(|(_, end)| range.contains(&end.ip())) {
            let field = format!("spec.guardedCIDRs[{index}]");
            let message =
                format!("{range} contains endpoint {endpoint} of TunnelGateway {name}, expected none");
            return Err(Refusal::new("GuardedEndpoint", &field, message));
        }
        guarded.push(range);
    }
    let public_key = own_key(key, &spec.public_key, owners)?;
    // Guarded only denies: it holds as soon as it is valid, whether or not the gateway has its address.
    resolved.listed_ranges.extend(guarded);
    let Some(allocation) = state.gateways.get(&key.name) else { return Ok(Note::waiting(key)) };
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
    let Some(allocation) = state.nodes.get(&key.name) else { return Ok(Note::waiting(key)) };
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
    if let Some(owner) = owners.get(&public_key) {
        let message = format!("\"{text}\" is the key of {owner}, expected a key of its own");
        return Err(Refusal::new("DuplicateKey", field, message));
    }
    owners.insert(public_key, key.clone());
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
