//! From what the maps hold to what they should: the ordered operations, and carrying them out.
//!
//! The plan is pure. Its order is the contract: what denies comes before what allows, and a grant before the identity
//! that could use it, so that an interrupted plan leaves something refused, never something open.

use std::collections::BTreeMap;

use crate::datapath::{
    Datapath, DatapathError, Op, Tables,
    gateway::{GatewayDatapath, GwOp, GwTables},
};

/// What brings a node's maps from `actual` to `desired`.
///
/// Guard; tunnels and destinations; grants taken away; grants given; places; identities given; identities taken away;
/// the rest of what goes. A configuration that is not desired (yet) stays: there is no state without one.
pub fn plan(actual: &Tables, desired: &Tables) -> Vec<Op> {
    let mut ops = Vec::new();
    if let Some(config) = desired.config
        && actual.config != desired.config
    {
        ops.push(Op::SetConfig(config));
    }
    set(&mut ops, &actual.guard, &desired.guard, Op::SetGuard);
    set(&mut ops, &actual.tunnels, &desired.tunnels, Op::SetTunnel);
    set(&mut ops, &actual.endpoints, &desired.endpoints, Op::SetEndpoint);
    set(&mut ops, &actual.destinations, &desired.destinations, Op::SetDestination);
    remove(&mut ops, &actual.grants, &desired.grants, Op::RemoveGrant);
    set(&mut ops, &actual.grants, &desired.grants, Op::SetGrant);
    set(&mut ops, &actual.places, &desired.places, Op::SetPlace);
    set(&mut ops, &actual.wire, &desired.wire, Op::SetWire);
    set(&mut ops, &actual.netns, &desired.netns, Op::SetNetns);
    set(&mut ops, &actual.cgroups, &desired.cgroups, Op::SetCgroup);
    remove(&mut ops, &actual.wire, &desired.wire, Op::RemoveWire);
    remove(&mut ops, &actual.netns, &desired.netns, Op::RemoveNetns);
    remove(&mut ops, &actual.cgroups, &desired.cgroups, Op::RemoveCgroup);
    remove(&mut ops, &actual.places, &desired.places, Op::RemovePlace);
    remove(&mut ops, &actual.destinations, &desired.destinations, Op::RemoveDestination);
    remove(&mut ops, &actual.endpoints, &desired.endpoints, Op::RemoveEndpoint);
    remove(&mut ops, &actual.tunnels, &desired.tunnels, Op::RemoveTunnel);
    remove(&mut ops, &actual.guard, &desired.guard, Op::RemoveGuard);
    ops
}

/// What brings a gateway's maps from `actual` to `desired`.
///
/// What is refused (grants, prefixes, nodes that go) comes before what is allowed, backends before the services that
/// name them, services before the grants that use them, and a backend goes only after no service counts it.
pub fn plan_gateway(actual: &GwTables, desired: &GwTables) -> Vec<GwOp> {
    let mut ops = Vec::new();
    if let Some(config) = desired.config
        && actual.config != desired.config
    {
        ops.push(GwOp::SetConfig(config));
    }
    remove(&mut ops, &actual.grants, &desired.grants, GwOp::RemoveGrant);
    // A longer prefix that goes would hand its addresses to the shorter one around it, so the set comes first.
    set(&mut ops, &actual.allowed, &desired.allowed, GwOp::SetAllowed);
    remove(&mut ops, &actual.allowed, &desired.allowed, GwOp::RemoveAllowed);
    set(&mut ops, &actual.sources, &desired.sources, GwOp::SetSource);
    remove(&mut ops, &actual.sources, &desired.sources, GwOp::RemoveSource);
    set(&mut ops, &actual.nodes, &desired.nodes, GwOp::SetNode);
    remove(&mut ops, &actual.nodes, &desired.nodes, GwOp::RemoveNode);
    set(&mut ops, &actual.backends, &desired.backends, GwOp::SetBackend);
    set(&mut ops, &actual.services, &desired.services, GwOp::SetService);
    remove(&mut ops, &actual.services, &desired.services, GwOp::RemoveService);
    remove(&mut ops, &actual.backends, &desired.backends, GwOp::RemoveBackend);
    set(&mut ops, &actual.grants, &desired.grants, GwOp::SetGrant);
    ops
}

/// Entries that are missing or different.
fn set<K, V, O>(ops: &mut Vec<O>, actual: &BTreeMap<K, V>, desired: &BTreeMap<K, V>, op: impl Fn(K, V) -> O)
where
    K: Copy + Ord,
    V: Copy + PartialEq,
{
    let changed = desired.iter().filter(|(key, value)| actual.get(key) != Some(value));
    ops.extend(changed.map(|(key, value)| op(*key, *value)));
}

/// Entries that should not be there.
fn remove<K, V, O>(ops: &mut Vec<O>, actual: &BTreeMap<K, V>, desired: &BTreeMap<K, V>, op: impl Fn(K) -> O)
where
    K: Copy + Ord,
{
    ops.extend(actual.keys().filter(|key| !desired.contains_key(key)).map(|key| op(*key)));
}

/// Carries a plan out, all of it, and says what failed: a full map of one kind must not keep a revocation of another
/// from happening. The next plan, made from what the maps then hold, is the retry.
pub fn carry_out(datapath: &mut impl Datapath, plan: &[Op]) -> Vec<(Op, DatapathError)> {
    plan.iter().filter_map(|op| datapath.apply(op).err().map(|error| (op.clone(), error))).collect()
}

/// The same for a gateway.
pub fn carry_out_gateway(datapath: &mut impl GatewayDatapath, plan: &[GwOp]) -> Vec<(GwOp, DatapathError)> {
    plan.iter().filter_map(|op| datapath.apply(op).err().map(|error| (op.clone(), error))).collect()
}

#[cfg(test)]
mod tests;
