//! A gateway's maps, as [`GwTables`].

use aya::Ebpf;
use enforcer_common::{
    Addr,
    config::GatewayConfig,
    flow::FlowKey,
    gateway::{
        AllowedBackend, GwBackend, GwBackendKey, GwFlow, GwGrant, GwGrantKey, GwNode, GwService,
        GwServiceKey, GwSource,
    },
    maps::name,
};

use super::{
    MapPressure, OpenError,
    table::{Hash, Slots, Trie},
};
use crate::datapath::{
    DatapathError,
    gateway::{GwOp, GwTables},
};

pub(super) struct GatewayMaps {
    config: Slots<GatewayConfig>,
    nodes: Hash<Addr, GwNode>,
    sources: Trie<GwSource>,
    allowed: Trie<AllowedBackend>,
    backends: Hash<GwBackendKey, GwBackend>,
    services: Hash<GwServiceKey, GwService>,
    grants: Hash<GwGrantKey, GwGrant>,
    pub flows: Hash<FlowKey, GwFlow>,
}

impl GatewayMaps {
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, OpenError> {
        Ok(Self {
            config: Slots::take(ebpf, name::GW_CONFIG)?,
            nodes: Hash::take(ebpf, name::GW_NODES)?,
            sources: Trie::take(ebpf, name::GW_SOURCES)?,
            allowed: Trie::take(ebpf, name::GW_ALLOWED)?,
            backends: Hash::take(ebpf, name::GW_BACKENDS)?,
            services: Hash::take(ebpf, name::GW_SERVICES)?,
            grants: Hash::take(ebpf, name::GW_GRANTS)?,
            flows: Hash::take(ebpf, name::GW_FLOWS)?,
        })
    }

    pub fn apply(&mut self, op: &GwOp) -> Result<(), DatapathError> {
        match *op {
            GwOp::SetConfig(value) => self.config.set(0, value),
            GwOp::SetNode(key, value) => self.nodes.set(key, value),
            GwOp::RemoveNode(key) => self.nodes.remove(&key),
            GwOp::SetSource(key, value) => self.sources.set(key, value),
            GwOp::RemoveSource(key) => self.sources.remove(&key),
            GwOp::SetAllowed(key, value) => self.allowed.set(key, value),
            GwOp::RemoveAllowed(key) => self.allowed.remove(&key),
            GwOp::SetBackend(key, value) => self.backends.set(key, value),
            GwOp::RemoveBackend(key) => self.backends.remove(&key),
            GwOp::SetService(key, value) => self.services.set(key, value),
            GwOp::RemoveService(key) => self.services.remove(&key),
            GwOp::SetGrant(key, value) => self.grants.set(key, value),
            GwOp::RemoveGrant(key) => self.grants.remove(&key),
        }
    }

    pub fn dump(&self) -> Result<GwTables, DatapathError> {
        Ok(GwTables {
            config: self.config.dump()?.remove(&0),
            nodes: self.nodes.dump()?,
            sources: self.sources.dump()?,
            allowed: self.allowed.dump()?,
            backends: self.backends.dump()?,
            services: self.services.dump()?,
            grants: self.grants.dump()?,
        })
    }

    pub fn pressure(&self, grants: Option<usize>) -> Result<Vec<MapPressure>, DatapathError> {
        [
            self.nodes.pressure(),
            self.sources.pressure(),
            self.allowed.pressure(),
            self.backends.pressure(),
            self.services.pressure(),
            grants.map_or_else(|| self.grants.pressure(), |entries| Ok(self.grants.pressure_of(entries))),
            self.flows.pressure(),
        ]
        .into_iter()
        .collect()
    }
}
