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

use std::{cmp::Ordering, collections::BTreeMap};

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

impl Tables {
    /// The part of both that differs. A change of one pod among thousands leaves little of either.
    pub fn difference(&self, then: &Self) -> (Self, Self) {
        let (mut have, mut want) = (Self::default(), Self::default());
        if self.config != then.config {
            (have.config, want.config) = (self.config, then.config);
        }
        differ((&self.guard, &then.guard), (&mut have.guard, &mut want.guard));
        differ((&self.tunnels, &then.tunnels), (&mut have.tunnels, &mut want.tunnels));
        differ((&self.endpoints, &then.endpoints), (&mut have.endpoints, &mut want.endpoints));
        differ((&self.destinations, &then.destinations), (&mut have.destinations, &mut want.destinations));
        differ((&self.grants, &then.grants), (&mut have.grants, &mut want.grants));
        differ((&self.places, &then.places), (&mut have.places, &mut want.places));
        differ((&self.wire, &then.wire), (&mut have.wire, &mut want.wire));
        differ((&self.netns, &then.netns), (&mut have.netns, &mut want.netns));
        differ((&self.cgroups, &then.cgroups), (&mut have.cgroups, &mut want.cgroups));
        (have, want)
    }
}

/// Puts what only one of two maps says into that one's part. Both are walked through side by side.
fn differ<K: Copy + Ord, V: Copy + PartialEq>(
    (one, other): (&BTreeMap<K, V>, &BTreeMap<K, V>),
    (only_one, only_other): (&mut BTreeMap<K, V>, &mut BTreeMap<K, V>),
) {
    let (mut left, mut right) = (one.iter().peekable(), other.iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (Some((one, _)), Some((other, _))) => one.cmp(other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        let one = if order == Ordering::Greater { None } else { left.next() };
        let other = if order == Ordering::Less { None } else { right.next() };
        if one != other {
            only_one.extend(one);
            only_other.extend(other);
        }
    }
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
