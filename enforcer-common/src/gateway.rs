//! The gateway's side: grants checked again, backends, translated flows.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr, Port};

/// Key of `GW_GRANTS`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, Ord, PartialEq, PartialOrd,
)]
pub struct GwGrantKey {
    /// Workload address.
    pub client: Addr,
    pub service: Addr,
    pub port: Port,
    pub protocol: u8,
    pub pad: [u8; 5],
}
abi!(GwGrantKey, 40);

/// Value of `GW_GRANTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct GwGrant {
    /// Nanoseconds of `CLOCK_BOOTTIME`, or `FOREVER`.
    pub valid_until_ns: u64,
    /// Key of `GRANT_STATS`.
    pub id: u32,
    /// Number of the connection that is charged.
    pub connection: u32,
    /// Number of the node that announced the workload; flows are counted per node.
    pub node: u32,
    pub pad: u32,
}
abi!(GwGrant, 24);

/// Key of `GW_SERVICES`. With port and protocol 0: the address is allocated.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, Ord, PartialEq, PartialOrd,
)]
pub struct GwServiceKey {
    pub service: Addr,
    pub port: Port,
    pub protocol: u8,
    pub pad: [u8; 5],
}
abi!(GwServiceKey, 24);

/// Value of `GW_SERVICES`: the healthy backends are `GW_BACKENDS[(set, 0..count)]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct GwService {
    pub set: u32,
    pub count: u32,
}
abi!(GwService, 8);

/// Key of `GW_BACKENDS`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, Ord, PartialEq, PartialOrd,
)]
pub struct GwBackendKey {
    pub set: u32,
    pub index: u32,
}
abi!(GwBackendKey, 8);

/// Value of `GW_BACKENDS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct GwBackend {
    pub address: Addr,
    /// Source address to use (the route's), or [`Addr::NONE`]: preserve the workload address and its port.
    pub source: Addr,
    /// Next hop: the backend itself or the router on the way.
    pub next_hop: Addr,
    /// Interface that leads there.
    pub ifindex: u32,
    pub mtu: u32,
    pub port: Port,
    pub pad: [u8; 6],
}
abi!(GwBackend, 64);

/// First and last port that masquerading uses.
pub const MASQUERADE_FIRST: u16 = 61_000;
pub const MASQUERADE_LAST: u16 = 65_535;

/// Value of `GW_FLOWS` (key: `FlowKey` with the workload address as client).
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct GwFlow {
    pub backend: Addr,
    /// Source address towards the backend.
    pub source: Addr,
    pub next_hop: Addr,
    pub seen_ns: u64,
    pub ifindex: u32,
    pub mtu: u32,
    pub node: u32,
    pub connection: u32,
    /// Last acknowledgement number that the client and the backend sent; machine order.
    pub client_ack: u32,
    pub backend_ack: u32,
    pub backend_port: Port,
    pub source_port: Port,
    /// A `FlowState`.
    pub state: u8,
    /// `ACK_CLIENT` and `ACK_SERVER`: which acknowledgement numbers have been seen.
    pub seen_acks: u8,
    pub pad: [u8; 2],
}
abi!(GwFlow, 88);

/// Key of `GW_NAT`: a reply as it comes from the backend. The value is the flow's `FlowKey`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, Ord, PartialEq, PartialOrd,
)]
pub struct NatKey {
    pub backend: Addr,
    pub source: Addr,
    pub backend_port: Port,
    pub source_port: Port,
    pub protocol: u8,
    pub pad: [u8; 3],
}
abi!(NatKey, 40);

/// Most port ranges one `allowedBackends` prefix can have, those of the prefixes around it included.
pub const MAX_PORT_RANGES: usize = 16;

/// One range of an [`AllowedBackend`], machine order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
    /// IP protocol number.
    pub protocol: u8,
    pub pad: u8,
}
abi!(PortRange, 6);

/// Value of `GW_ALLOWED` (LPM over the backend address; prefix lengths as in `GUARD`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct AllowedBackend {
    pub count: u32,
    pub ranges: [PortRange; MAX_PORT_RANGES],
}
abi!(AllowedBackend, 100);

impl AllowedBackend {
    /// Whether a backend port is within one of the ranges.
    #[inline(always)]
    pub fn admits(&self, port: u16, protocol: u8) -> bool {
        let mut index = 0;
        while index < MAX_PORT_RANGES {
            let range = &self.ranges[index];
            if (index as u32) < self.count
                && range.protocol == protocol
                && range.first <= port
                && port <= range.last
            {
                return true;
            }
            index += 1;
        }
        false
    }
}

/// Value of `GW_NODES` (key: a node's tunnel address): who may announce.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct GwNode {
    pub number: u32,
}
abi!(GwNode, 4);

/// Value of `GW_SOURCES` (LPM over the workload address): which node owns the block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct GwSource {
    pub node: u32,
    /// Most flows the node may have at this gateway; the same in all its blocks. Here, because the packet of a
    /// workload leads to its block and not to the address of its node.
    pub flow_quota: u32,
}
abi!(GwSource, 8);
