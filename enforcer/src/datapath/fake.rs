//! Maps in memory, for everything that is tested without a kernel.

use super::{
    Datapath, DatapathError, Op, Tables,
    gateway::{GatewayDatapath, GwOp, GwTables},
};

/// A node's maps in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fake {
    pub tables: Tables,
}

impl Datapath for Fake {
    fn apply(&mut self, op: &Op) -> Result<(), DatapathError> {
        let tables = &mut self.tables;
        match op.clone() {
            Op::SetConfig(value) => tables.config = Some(value),
            Op::SetGuard(key, value) => drop(tables.guard.insert(key, value)),
            Op::RemoveGuard(key) => drop(tables.guard.remove(&key)),
            Op::SetTunnel(key, value) => drop(tables.tunnels.insert(key, value)),
            Op::RemoveTunnel(key) => drop(tables.tunnels.remove(&key)),
            Op::SetEndpoint(key, value) => drop(tables.endpoints.insert(key, value)),
            Op::RemoveEndpoint(key) => drop(tables.endpoints.remove(&key)),
            Op::SetDestination(key, value) => drop(tables.destinations.insert(key, value)),
            Op::RemoveDestination(key) => drop(tables.destinations.remove(&key)),
            Op::SetGrant(key, value) => drop(tables.grants.insert(key, value)),
            Op::RemoveGrant(key) => drop(tables.grants.remove(&key)),
            Op::SetPlace(key, value) => drop(tables.places.insert(key, value)),
            Op::RemovePlace(key) => drop(tables.places.remove(&key)),
            Op::SetWire(key, value) => drop(tables.wire.insert(key, value)),
            Op::RemoveWire(key) => drop(tables.wire.remove(&key)),
            Op::SetNetns(key, value) => drop(tables.netns.insert(key, value)),
            Op::RemoveNetns(key) => drop(tables.netns.remove(&key)),
            Op::SetCgroup(key, value) => drop(tables.cgroups.insert(key, value)),
            Op::RemoveCgroup(key) => drop(tables.cgroups.remove(&key)),
        }
        Ok(())
    }

    fn dump(&self) -> Result<Tables, DatapathError> {
        Ok(self.tables.clone())
    }
}

/// A gateway's maps in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FakeGateway {
    pub tables: GwTables,
}

impl GatewayDatapath for FakeGateway {
    fn apply(&mut self, op: &GwOp) -> Result<(), DatapathError> {
        let tables = &mut self.tables;
        match op.clone() {
            GwOp::SetConfig(value) => tables.config = Some(value),
            GwOp::SetNode(key, value) => drop(tables.nodes.insert(key, value)),
            GwOp::RemoveNode(key) => drop(tables.nodes.remove(&key)),
            GwOp::SetSource(key, value) => drop(tables.sources.insert(key, value)),
            GwOp::RemoveSource(key) => drop(tables.sources.remove(&key)),
            GwOp::SetAllowed(key, value) => drop(tables.allowed.insert(key, value)),
            GwOp::RemoveAllowed(key) => drop(tables.allowed.remove(&key)),
            GwOp::SetBackend(key, value) => drop(tables.backends.insert(key, value)),
            GwOp::RemoveBackend(key) => drop(tables.backends.remove(&key)),
            GwOp::SetService(key, value) => drop(tables.services.insert(key, value)),
            GwOp::RemoveService(key) => drop(tables.services.remove(&key)),
            GwOp::SetGrant(key, value) => drop(tables.grants.insert(key, value)),
            GwOp::RemoveGrant(key) => drop(tables.grants.remove(&key)),
        }
        Ok(())
    }

    fn dump(&self) -> Result<GwTables, DatapathError> {
        Ok(self.tables.clone())
    }
}
