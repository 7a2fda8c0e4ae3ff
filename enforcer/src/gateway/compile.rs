//! From objects, announcements, routes and health to what the gateway's maps should hold. Pure.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use enforcer_common::{
    Addr, Port,
    config::GatewayConfig,
    gateway::{GwNode, GwServiceKey, GwSource},
    maps::size,
};
use ipnet::IpNet;

use super::{allowed, claims::Pods, health::Health, numbers::Numbers, registry, registry::Registry};
use crate::{
    compile::{matching, offers, table::differ},
    datapath::gateway::GwTables,
    model::ObjectKey,
    resolve::{Destination, DestinationPort, Gateway, Node, Resolved},
};

mod backends;
mod grants;

pub use backends::{EndpointView, Way, targets};
pub use grants::Granted;

/// Most flows that one node may have here: no node can take the table from the others.
const NODE_FLOWS: u32 = size::FLOWS / 4;

/// Everything that the tables follow from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// This gateway.
    pub gateway: &'a Gateway,
    pub resolved: &'a Arc<Resolved>,
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
    /// Everything but the grants.
    pub tables: GwTables,
    /// Grants of each accepted binding. Key: node, uid.
    pub grants: BTreeMap<(String, String), Arc<Granted>>,
    /// Bindings that are not taken over, and why. Key: node, uid.
    pub refused: BTreeMap<(String, String), String>,
    /// Endpoints of each destination that uses this gateway.
    pub endpoints: BTreeMap<ObjectKey, Vec<EndpointView>>,
    pub(super) memo: matching::Memo<Terms>,
}

/// What every binding's grants depend on besides the objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Terms {
    gateway: String,
    boot_time_unix_ns: u64,
}

impl Compiled {
    /// Everything in one.
    pub fn whole(&self) -> GwTables {
        let mut tables = self.tables.clone();
        tables.grants = self.grants.values().flat_map(|granted| granted.grants.iter().copied()).collect();
        tables
    }

    /// The part of both that differs, as two tables for `plan_gateway`: grants that are the same are in neither.
    pub fn difference(&self, then: &Self) -> (GwTables, GwTables) {
        let (mut have, mut want) = if self.tables == then.tables {
            (GwTables::default(), GwTables::default())
        } else {
            (self.tables.clone(), then.tables.clone())
        };
        for (id, granted) in &self.grants {
            let other = then.grants.get(id);
            if !other.is_some_and(|other| Arc::ptr_eq(granted, other)) {
                let other = other.map_or(&[][..], |other| &other.grants);
                differ(&granted.grants, other, &mut have.grants, &mut want.grants);
            }
        }
        for (_, granted) in then.grants.iter().filter(|(id, _)| !self.grants.contains_key(*id)) {
            differ(&[], &granted.grants, &mut have.grants, &mut want.grants);
        }
        (have, want)
    }
}

/// Compiles the tables. `actual` is what the kernel holds: numbers of sets and grants that are there are kept. The
/// previous result is only a store of work already done: with or without it the outcome gives the same.
pub fn compile(
    inputs: &Inputs<'_>,
    actual: &GwTables,
    numbers: &mut Numbers,
    previous: &Compiled,
) -> Compiled {
    let mut compiled = Compiled::default();
    compiled.tables.config = Some(inputs.config);
    compiled.tables.allowed.clone_from(&inputs.allowed.prefixes);
    for node in inputs.resolved.nodes.values() {
        add_node(&mut compiled.tables, node);
    }
    backends::add(&mut compiled, inputs, actual);
    let terms = Terms { gateway: inputs.gateway.name.clone(), boot_time_unix_ns: inputs.boot_time_unix_ns };
    let index = matching::Index::new(inputs.resolved, |key| numbers.connection(key), terms, &previous.memo);
    let mut shared = offers::Shared::default();
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
            let (work, old) = ((&index, &mut shared), previous.grants.get(&id));
            let granted = grants::compile(inputs, work, (actual, &mut *numbers), (node, binding), old);
            compiled.grants.insert(id, granted);
        }
    }
    compiled.memo = index.into_memo();
    compiled
}

/// Destinations that go through this gateway.
fn destinations<'a>(inputs: &Inputs<'a>) -> impl Iterator<Item = &'a Destination> {
    let name = &inputs.gateway.name;
    let all = inputs.resolved.destinations.values().map(|destination| &**destination);
    all.filter(move |destination| destination.gateways.contains(name))
}

fn add_node(tables: &mut GwTables, node: &Node) {
    let value = GwNode { number: node.number };
    tables.nodes.insert(Addr::v4(node.v4), value);
    tables.nodes.insert(Addr::v6(node.v6), value);
    let source = GwSource { node: node.number, flow_quota: NODE_FLOWS };
    let blocks = node.blocks.iter().map(|block| IpNet::V4(*block));
    tables.sources.extend(blocks.chain([IpNet::V6(node.subnet)]).map(|block| (block, source)));
}

fn service_key(service: IpAddr, port: DestinationPort) -> GwServiceKey {
    GwServiceKey {
        service: service.into(),
        port: Port::new(port.port),
        protocol: port.protocol.number(),
        pad: [0; 5],
    }
}

#[cfg(test)]
mod tests;
