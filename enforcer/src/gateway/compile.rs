//! From objects, announcements, routes and health to what the gateway's maps should hold. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use enforcer_common::{
    Addr, Port,
    config::GatewayConfig,
    gateway::{GwGrant, GwGrantKey, GwNode, GwServiceKey, GwSource},
    grant::FOREVER,
    maps::size,
};
use ipnet::IpNet;

use super::{allowed, claims::Pods, health::Health, numbers::Numbers, registry, registry::Registry};
use crate::{
    announce::{Binding, LiveGrant},
    datapath::gateway::GwTables,
    model::ObjectKey,
    resolve::{Connection, Destination, DestinationPort, Gateway, Node, Resolved, match_pod},
};

mod backends;

pub use backends::{EndpointView, Way, targets};

/// Most flows that one node may have here: no node can take the table from the others.
const NODE_FLOWS: u32 = size::FLOWS / 4;

/// Everything that the tables follow from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// This gateway.
    pub gateway: &'a Gateway,
    pub resolved: &'a Resolved,
    pub registry: &'a Registry,
    /// What can be read of the nodes' pods.
    pub pods: &'a Pods,
    pub allowed: &'a allowed::Allowed,
    /// Routes to the backends.
    pub ways: &'a BTreeMap<IpAddr, Way>,
    pub health: &'a Health,
    pub config: GatewayConfig,
    /// `CLOCK_REALTIME` − `CLOCK_BOOTTIME` in nanoseconds.
    pub boot_time_unix_ns: u64,
}

/// What the kernel should hold, and what is to be said about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    pub tables: GwTables,
    /// Grants of each accepted binding. Key: node, uid.
    pub grants: BTreeMap<(String, String), Granted>,
    /// Bindings that are not taken over, and why. Key: node, uid.
    pub refused: BTreeMap<(String, String), String>,
    /// Endpoints of each destination that uses this gateway.
    pub endpoints: BTreeMap<ObjectKey, Vec<EndpointView>>,
}

/// Grants of one binding.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Granted {
    pub generation: u64,
    pub grants: BTreeMap<LiveGrant, GwGrantKey>,
}

/// Compiles the tables. `actual` is what the kernel holds: numbers of sets and grants that are there are kept.
pub fn compile(inputs: &Inputs<'_>, actual: &GwTables, numbers: &mut Numbers) -> Compiled {
    let mut compiled = Compiled::default();
    compiled.tables.config = Some(inputs.config);
    compiled.tables.allowed.clone_from(&inputs.allowed.prefixes);
    for node in inputs.resolved.nodes.values() {
        add_node(&mut compiled.tables, node);
    }
    backends::add(&mut compiled, inputs, actual);
    for (name, announced) in &inputs.registry.nodes {
        // A node that is not (or no longer) valid may say nothing; what it said is kept in case it returns.
        let Some(node) = inputs.resolved.nodes.get(name) else { continue };
        let mut taken = BTreeMap::new();
        for (uid, binding) in &announced.bindings {
            let id = (name.clone(), uid.clone());
            let refusal = registry::refusal(node, binding, &taken);
            if let Some(message) = refusal.or_else(|| inputs.pods.contradiction(node, binding)) {
                compiled.refused.insert(id, message);
                continue;
            }
            taken.extend(binding.addresses().map(|address| (address, uid.clone())));
            let granted = grant(&mut compiled.tables, inputs, (actual, &mut *numbers), node, binding);
            compiled.grants.insert(id, granted);
        }
    }
    compiled
}

/// Destinations that go through this gateway.
fn destinations<'a>(inputs: &Inputs<'a>) -> impl Iterator<Item = &'a Destination> {
    let name = &inputs.gateway.name;
    inputs.resolved.destinations.values().filter(move |destination| destination.gateways.contains(name))
}

fn add_node(tables: &mut GwTables, node: &Node) {
    let value = GwNode { number: node.number };
    tables.nodes.insert(Addr::v4(node.v4), value);
    tables.nodes.insert(Addr::v6(node.v6), value);
    let source = GwSource { node: node.number, flow_quota: NODE_FLOWS };
    let blocks = node.blocks.iter().map(|block| IpNet::V4(*block));
    tables.sources.extend(blocks.chain([IpNet::V6(node.subnet)]).map(|block| (block, source)));
}

/// Adds the grants of one binding. The first connection in the order of `resolved` is charged; the grant lasts as long
/// as the last one of those that give it.
fn grant(
    tables: &mut GwTables,
    inputs: &Inputs<'_>,
    (actual, numbers): (&GwTables, &mut Numbers),
    node: &Node,
    binding: &Binding,
) -> Granted {
    let mut granted = Granted { generation: binding.generation, grants: BTreeMap::new() };
    let meant = inputs.resolved.connections.iter().filter(|connection| means(connection, binding));
    for connection in meant {
        let Some(destination) = inputs.resolved.destinations.get(&connection.destination) else { continue };
        if !destination.gateways.contains(&inputs.gateway.name) {
            continue;
        }
        let number = numbers.connection(&connection.key);
        let valid_until_ns = connection
            .valid_until_unix_ns
            .map_or(FOREVER, |unix_ns| unix_ns.saturating_sub(inputs.boot_time_unix_ns));
        for port in &connection.ports {
            for (client, service) in pairs(binding, destination) {
                let key = GwGrantKey {
                    client: client.into(),
                    service: service.into(),
                    port: Port::new(port.port),
                    protocol: port.protocol.number(),
                    pad: 0,
                };
                let live = LiveGrant { service, protocol: port.protocol, port: port.port };
                granted.grants.insert(live, key);
                if let Some(earlier) = tables.grants.get_mut(&key) {
                    earlier.valid_until_ns = earlier.valid_until_ns.max(valid_until_ns);
                    continue;
                }
                let id = match actual.grants.get(&key) {
                    Some(there) if there.connection == number => there.id,
                    _ => numbers.next_grant(),
                };
                let value = GwGrant { valid_until_ns, id, connection: number, node: node.number, pad: 0 };
                tables.grants.insert(key, value);
            }
        }
    }
    granted
}

fn means(connection: &Connection, binding: &Binding) -> bool {
    match_pod(connection, &binding.cluster, &binding.namespace, &binding.labels, &binding.namespace_labels)
        .is_ok()
}

/// Workload address and service address of each family that both have.
fn pairs(binding: &Binding, destination: &Destination) -> impl Iterator<Item = (IpAddr, IpAddr)> + use<> {
    let v4 = binding.v4.zip(destination.v4).map(|(client, service)| (client.into(), service.into()));
    let v6 = binding.v6.zip(destination.v6).map(|(client, service)| (client.into(), service.into()));
    v4.into_iter().chain(v6)
}

fn service_key(service: IpAddr, port: DestinationPort) -> GwServiceKey {
    GwServiceKey {
        service: service.into(),
        port: Port::new(port.port),
        protocol: port.protocol.number(),
        pad: 0,
    }
}

impl Granted {
    /// The grants that the kernel really holds.
    pub fn live(&self, actual: &GwTables) -> BTreeSet<LiveGrant> {
        self.grants.iter().filter(|(_, key)| actual.grants.contains_key(key)).map(|(live, _)| *live).collect()
    }
}

#[cfg(test)]
mod tests;
