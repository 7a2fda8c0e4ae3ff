//! The border to the kernel: what the maps should hold, and the operations that bring them there.
//!
//! Behind [`Datapath`] stand the real maps (`kernel`), a fake, and one that injects faults. Only `datapath/` names
//! `aya`.

pub mod fake;
pub mod faulty;
pub mod gateway;
pub mod kernel;
pub mod load;
pub mod program;

use std::collections::BTreeMap;

use enforcer_common::{
    Addr,
    config::{EndpointKey, NodeConfig, Tunnel},
    grant::{Destination, DestinationKey, Grant, GrantKey},
    guard::GuardKind,
    workload::{Place, WireKey, Workload},
};
use ipnet::IpNet;

/// Content of a node's maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    pub config: Option<NodeConfig>,
    pub guard: BTreeMap<IpNet, GuardKind>,
    /// Key: tunnel slot.
    pub tunnels: BTreeMap<u32, Tunnel>,
    /// Value: tunnel slot.
    pub endpoints: BTreeMap<EndpointKey, u32>,
    pub destinations: BTreeMap<DestinationKey, Destination>,
    pub grants: BTreeMap<GrantKey, Grant>,
    /// Key: workload address.
    pub places: BTreeMap<Addr, Place>,
    pub wire: BTreeMap<WireKey, Workload>,
    /// Key: network namespace cookie.
    pub netns: BTreeMap<u64, Workload>,
    /// Key: cgroup id.
    pub cgroups: BTreeMap<u64, Workload>,
}

/// One change of one entry. Setting what is there and removing what is not are both fine.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    SetConfig(NodeConfig),
    SetGuard(IpNet, GuardKind),
    RemoveGuard(IpNet),
    SetTunnel(u32, Tunnel),
    RemoveTunnel(u32),
    SetEndpoint(EndpointKey, u32),
    RemoveEndpoint(EndpointKey),
    SetDestination(DestinationKey, Destination),
    RemoveDestination(DestinationKey),
    SetGrant(GrantKey, Grant),
    RemoveGrant(GrantKey),
    SetPlace(Addr, Place),
    RemovePlace(Addr),
    SetWire(WireKey, Workload),
    RemoveWire(WireKey),
    SetNetns(u64, Workload),
    RemoveNetns(u64),
    SetCgroup(u64, Workload),
    RemoveCgroup(u64),
}

impl Op {
    /// Whether it takes something away: held back until every source has given its initial list.
    pub const fn is_removal(&self) -> bool {
        match self {
            Self::SetConfig(..)
            | Self::SetGuard(..)
            | Self::SetTunnel(..)
            | Self::SetEndpoint(..)
            | Self::SetDestination(..)
            | Self::SetGrant(..)
            | Self::SetPlace(..)
            | Self::SetWire(..)
            | Self::SetNetns(..)
            | Self::SetCgroup(..) => false,
            Self::RemoveGuard(..)
            | Self::RemoveTunnel(..)
            | Self::RemoveEndpoint(..)
            | Self::RemoveDestination(..)
            | Self::RemoveGrant(..)
            | Self::RemovePlace(..)
            | Self::RemoveWire(..)
            | Self::RemoveNetns(..)
            | Self::RemoveCgroup(..) => true,
        }
    }
}

/// A node's maps.
pub trait Datapath {
    /// Carries one change out.
    fn apply(&mut self, op: &Op) -> Result<(), DatapathError>;

    /// Reads everything back, as after a restart.
    fn dump(&self) -> Result<Tables, DatapathError>;
}

#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    #[error("map {map} is full ({capacity} of {capacity})")]
    Full { map: &'static str, capacity: u32 },
    #[error("map {map}: cannot {action} {entry}")]
    Map {
        map: &'static str,
        /// `set`, `remove` or `read`
        action: &'static str,
        entry: String,
        #[source]
        source: std::io::Error,
    },
}
