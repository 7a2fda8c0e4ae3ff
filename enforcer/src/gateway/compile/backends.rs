//! Which endpoints new flows of a service are spread over.
//!
//! A set is never changed: other members make another set, and the service turns to it when all of it is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use enforcer_common::{
    Addr, Port,
    gateway::{GwBackend, GwBackendKey, GwService, GwServiceKey},
};

use super::{Compiled, Inputs, destinations, service_key};
use crate::{
    datapath::gateway::GwTables,
    gateway::allowed::Allowed,
    model::{Protocol, SourceMode},
    resolve::{Destination, DestinationPort, Resolved},
};

/// How packets get to a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Way {
    pub ifindex: u32,
    /// Source address that the route prefers.
    pub source: Option<IpAddr>,
    /// The backend itself or the router on the way.
    pub next_hop: IpAddr,
    pub mtu: u32,
    /// The address is one of this host's own.
    pub local: bool,
    /// The device has Ethernet headers; the programs translate nothing on others.
    pub ethernet: bool,
}

/// One endpoint of a destination, for status.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointView {
    pub address: SocketAddr,
    pub protocol: Protocol,
    /// Whether new flows go there.
    pub used: bool,
    /// `healthy`, or why it is not used.
    pub state: &'static str,
}

/// The endpoints that are probed: TCP, and only what the administrator allows, or a tenant could have the gateway
/// knock on any door.
pub fn targets(gateway: &str, resolved: &Resolved, allowed: &Allowed) -> BTreeSet<SocketAddr> {
    let ours = resolved
        .destinations
        .values()
        .filter(|destination| destination.gateways.iter().any(|name| name == gateway));
    ours.flat_map(|destination| {
        let ports = destination.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
        ports.flat_map(|port| {
            destination.endpoints.iter().map(|address| SocketAddr::new(*address, port.target_port))
        })
    })
    .filter(|target| allowed.admits(target.ip(), target.port(), Protocol::Tcp.number()))
    .collect()
}

/// Adds services, backends and the endpoints' views.
pub(super) fn add(compiled: &mut Compiled, inputs: &Inputs<'_>, actual: &GwTables) {
    let mut wanted = BTreeMap::new();
    for destination in destinations(inputs) {
        let mut views = Vec::new();
        let addresses = destination.v4.map(IpAddr::from).into_iter().chain(destination.v6.map(IpAddr::from));
        wanted.extend(addresses.map(|service| (allocated(service), Vec::new())));
        for port in &destination.ports {
            for (service, members) in services(inputs, destination, *port, &mut views) {
                wanted.insert(service, members);
            }
        }
        compiled.endpoints.insert(destination.key.clone(), views);
    }
    number_sets(&mut compiled.tables, wanted, actual);
}

/// The entry that says that an address is a destination's, whatever the port.
fn allocated(service: IpAddr) -> GwServiceKey {
    GwServiceKey { service: service.into(), port: Port::NONE, protocol: 0, pad: [0; 5] }
}

/// The service entries of one port, one per family, each with its members.
fn services(
    inputs: &Inputs<'_>,
    destination: &Destination,
    port: DestinationPort,
    views: &mut Vec<EndpointView>,
) -> Vec<(GwServiceKey, Vec<GwBackend>)> {
    let mut v4 = Vec::new();
    let mut v6 = Vec::new();
    for endpoint in destination.endpoints.iter().collect::<BTreeSet<_>>() {
        let address = SocketAddr::new(*endpoint, port.target_port);
        let (state, backend) = judge(inputs, address, port.protocol);
        views.push(EndpointView { address, protocol: port.protocol, used: backend.is_some(), state });
        if endpoint.is_ipv4() { &mut v4 } else { &mut v6 }.extend(backend);
    }
    let v4 = destination.v4.map(|service| (service_key(service.into(), port), v4));
    let v6 = destination.v6.map(|service| (service_key(service.into(), port), v6));
    v4.into_iter().chain(v6).collect()
}

fn judge(inputs: &Inputs<'_>, address: SocketAddr, protocol: Protocol) -> (&'static str, Option<GwBackend>) {
    if !inputs.allowed.admits(address.ip(), address.port(), protocol.number()) {
        return ("not in allowedBackends", None);
    }
    let Some(way) = inputs.ways.get(&address.ip()) else { return ("no route", None) };
    if way.local {
        return ("an address of the gateway itself", None);
    }
    if !way.ethernet {
        return ("route through a device without Ethernet headers", None);
    }
    let source = match (inputs.gateway.source_mode, way.source) {
        (SourceMode::Preserve, _) => Addr::NONE,
        (SourceMode::Masquerade, Some(source)) => source.into(),
        (SourceMode::Masquerade, None) => return ("route without a source address", None),
    };
    // There is no general way to ask a UDP service how it is.
    let (state, used) = match protocol {
        Protocol::Tcp => (inputs.health.word(address), inputs.health.is_healthy(address)),
        Protocol::Udp => ("healthy", true),
    };
    let backend = GwBackend {
        address: address.ip().into(),
        source,
        next_hop: way.next_hop.into(),
        ifindex: way.ifindex,
        mtu: way.mtu,
        port: Port::new(address.port()),
        pad: [0; 6],
    };
    (state, used.then_some(backend))
}

/// Gives every set a number: the one it has in the kernel if it has the same members there, else one that nothing in
/// the kernel uses.
fn number_sets(tables: &mut GwTables, wanted: BTreeMap<GwServiceKey, Vec<GwBackend>>, actual: &GwTables) {
    let in_kernel: BTreeSet<u32> = actual.backends.keys().map(|key| key.set).collect();
    let mut free = (1..).filter(|set| !in_kernel.contains(set));
    for (service, members) in wanted {
        let kept = actual
            .services
            .get(&service)
            .filter(|there| members_of(actual, **there) == Some(members.clone()));
        let value = match kept {
            Some(there) => *there,
            None if members.is_empty() => GwService { set: 0, count: 0 },
            None => GwService { set: free.next().unwrap_or_default(), count: members.len() as u32 },
        };
        tables.services.insert(service, value);
        let keys = (0..).map(|index| GwBackendKey { set: value.set, index });
        tables.backends.extend(keys.zip(members));
    }
}

/// Members of a set in the kernel; `None` where one is missing.
fn members_of(actual: &GwTables, service: GwService) -> Option<Vec<GwBackend>> {
    (0..service.count)
        .map(|index| actual.backends.get(&GwBackendKey { set: service.set, index }).copied())
        .collect()
}
