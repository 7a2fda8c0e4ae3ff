//! A node's maps, as [`Tables`].

use aya::Ebpf;
use enforcer_common::{
    Addr,
    config::{EndpointKey, NodeConfig, Tunnel, TunnelSeen},
    flow::{Flow, FlowKey},
    grant::{Destination, DestinationKey, Grant, GrantKey},
    guard::{Guard, GuardFilter, GuardKind},
    maps::name,
    workload::{Place, WireKey, Workload},
};
use ipnet::IpNet;
use tracing::warn;

use super::{
    MapPressure, OpenError,
    table::{Hash, Slots, Trie, trie_key},
};
use crate::datapath::{DatapathError, Op, Tables};

pub(super) struct NodeMaps {
    config: Slots<NodeConfig>,
    guard: Trie<Guard>,
    filter: Slots<GuardFilter>,
    tunnels: Slots<Tunnel>,
    pub seen: Slots<TunnelSeen>,
    endpoints: Hash<EndpointKey, u32>,
    destinations: Hash<DestinationKey, Destination>,
    grants: Hash<GrantKey, Grant>,
    places: Hash<Addr, Place>,
    wire: Hash<WireKey, Workload>,
    netns: Hash<u64, Workload>,
    cgroups: Hash<u64, Workload>,
    pub flows: Hash<FlowKey, Flow>,
    /// Key: workload id.
    pub flow_counts: Hash<u32, u32>,
}

impl NodeMaps {
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, OpenError> {
        let mut maps = Self {
            config: Slots::take(ebpf, name::NODE_CONFIG)?,
            guard: Trie::take(ebpf, name::GUARD)?,
            filter: Slots::take(ebpf, name::GUARD_FILTER)?,
            tunnels: Slots::take(ebpf, name::TUNNELS)?,
            seen: Slots::take(ebpf, name::TUNNEL_SEEN)?,
            endpoints: Hash::take(ebpf, name::ENDPOINTS)?,
            destinations: Hash::take(ebpf, name::DESTINATIONS)?,
            grants: Hash::take(ebpf, name::GRANTS)?,
            places: Hash::take(ebpf, name::PLACES)?,
            wire: Hash::take(ebpf, name::WIRE)?,
            netns: Hash::take(ebpf, name::NETNS)?,
            cgroups: Hash::take(ebpf, name::CGROUPS)?,
            flows: Hash::take(ebpf, name::FLOWS)?,
            flow_counts: Hash::take(ebpf, name::FLOW_COUNTS)?,
        };
        // Without it every packet asks the trie, which is slower and as right.
        if let Err(error) = maps.filter_guard(None) {
            warn!(%error, "cannot write the filter of guarded prefixes");
        }
        Ok(maps)
    }

    /// Makes the filter of what is guarded, and of a prefix that is about to be.
    fn filter_guard(&mut self, new: Option<IpNet>) -> Result<(), DatapathError> {
        let mut filter = GuardFilter::EMPTY;
        for prefix in self.guard.dump()?.into_keys().chain(new) {
            let key = trie_key(prefix);
            filter.admit(&key.data(), key.prefix_len());
        }
        self.filter.set(0, filter)
    }

    pub fn apply(&mut self, op: &Op) -> Result<(), DatapathError> {
        match *op {
            Op::SetConfig(value) => self.config.set(0, value),
            Op::SetGuard(key, value) => {
                self.filter_guard(Some(key))?;
                self.guard.set(key, Guard { kind: value as u32 })
            }
            Op::RemoveGuard(key) => {
                self.guard.remove(&key)?;
                self.filter_guard(None)
            }
            Op::SetTunnel(slot, value) => self.tunnels.set(slot, value),
            Op::RemoveTunnel(slot) => {
                self.tunnels.remove(slot)?;
                // The next tunnel in this slot must not seem to have been heard already.
                self.seen.remove(slot)
            }
            Op::SetEndpoint(key, value) => self.endpoints.set(key, value),
            Op::RemoveEndpoint(key) => self.endpoints.remove(&key),
            Op::SetDestination(key, value) => self.destinations.set(key, value),
            Op::RemoveDestination(key) => self.destinations.remove(&key),
            Op::SetGrant(key, value) => self.grants.set(key, value),
            Op::RemoveGrant(key) => self.grants.remove(&key),
            Op::SetPlace(key, value) => self.places.set(key, value),
            Op::RemovePlace(key) => self.places.remove(&key),
            Op::SetWire(key, value) => self.wire.set(key, value),
            Op::RemoveWire(key) => self.wire.remove(&key),
            Op::SetNetns(key, value) => self.netns.set(key, value),
            Op::RemoveNetns(key) => self.netns.remove(&key),
            Op::SetCgroup(key, value) => self.cgroups.set(key, value),
            Op::RemoveCgroup(key) => self.cgroups.remove(&key),
        }
    }

    pub fn dump(&self) -> Result<Tables, DatapathError> {
        // An unknown kind is what a later version wrote; denied all the same, and the plan sets it right.
        let kind = |guard: &Guard| GuardKind::from_raw(guard.kind).unwrap_or(GuardKind::Listed);
        Ok(Tables {
            config: self.config.dump()?.remove(&0),
            guard: self.guard.dump()?.iter().map(|(prefix, guard)| (*prefix, kind(guard))).collect(),
            tunnels: self.tunnels.dump()?,
            endpoints: self.endpoints.dump()?,
            destinations: self.destinations.dump()?,
            grants: self.grants.dump()?,
            places: self.places.dump()?,
            wire: self.wire.dump()?,
            netns: self.netns.dump()?,
            cgroups: self.cgroups.dump()?,
        })
    }

    pub fn pressure(&self, grants: Option<usize>) -> Result<Vec<MapPressure>, DatapathError> {
        [
            self.guard.pressure(),
            self.endpoints.pressure(),
            self.destinations.pressure(),
            grants.map_or_else(|| self.grants.pressure(), |entries| Ok(self.grants.pressure_of(entries))),
            self.places.pressure(),
            self.wire.pressure(),
            self.netns.pressure(),
            self.cgroups.pressure(),
            self.flows.pressure(),
            self.flow_counts.pressure(),
        ]
        .into_iter()
        .collect()
    }
}
