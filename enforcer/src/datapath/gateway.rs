//! Content of a gateway's maps, and the operations that bring them there.

use std::collections::BTreeMap;

use enforcer_common::{
    Addr,
    config::GatewayConfig,
    gateway::{
        AllowedBackend, GwBackend, GwBackendKey, GwGrant, GwGrantKey, GwNode, GwService, GwServiceKey,
        GwSource,
    },
};
use ipnet::IpNet;

use super::DatapathError;

/// Content of a gateway's maps. Flows and translations belong to the kernel and are no part of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GwTables {
    pub config: Option<GatewayConfig>,
    /// Key: a node's address inside the tunnel.
    pub nodes: BTreeMap<Addr, GwNode>,
    /// Key: a block of workload addresses.
    pub sources: BTreeMap<IpNet, GwSource>,
    /// Key: prefix of backend addresses.
    pub allowed: BTreeMap<IpNet, AllowedBackend>,
    /// Members of the sets that `services` names.
    pub backends: BTreeMap<GwBackendKey, GwBackend>,
    pub services: BTreeMap<GwServiceKey, GwService>,
    pub grants: BTreeMap<GwGrantKey, GwGrant>,
}

/// One change of one entry. Setting what is there and removing what is not are both fine.
#[derive(Clone, Debug, PartialEq)]
pub enum GwOp {
    SetConfig(GatewayConfig),
    SetNode(Addr, GwNode),
    RemoveNode(Addr),
    SetSource(IpNet, GwSource),
    RemoveSource(IpNet),
    SetAllowed(IpNet, AllowedBackend),
    RemoveAllowed(IpNet),
    SetBackend(GwBackendKey, GwBackend),
    RemoveBackend(GwBackendKey),
    SetService(GwServiceKey, GwService),
    RemoveService(GwServiceKey),
    SetGrant(GwGrantKey, GwGrant),
    RemoveGrant(GwGrantKey),
}

impl GwOp {
    /// Whether it takes something away: held back until every source has given its initial list.
    pub const fn is_removal(&self) -> bool {
        match self {
            Self::SetConfig(..)
            | Self::SetNode(..)
            | Self::SetSource(..)
            | Self::SetAllowed(..)
            | Self::SetBackend(..)
            | Self::SetService(..)
            | Self::SetGrant(..) => false,
            Self::RemoveNode(..)
            | Self::RemoveSource(..)
            | Self::RemoveAllowed(..)
            | Self::RemoveBackend(..)
            | Self::RemoveService(..)
            | Self::RemoveGrant(..) => true,
        }
    }
}

/// A gateway's maps.
pub trait GatewayDatapath {
    /// Carries one change out.
    fn apply(&mut self, op: &GwOp) -> Result<(), DatapathError>;

    /// Reads everything back, as after a restart.
    fn dump(&self) -> Result<GwTables, DatapathError>;
}
