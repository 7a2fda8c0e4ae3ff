//! What the programs are told once: single-entry maps, written before anything is attached.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr, Port};

/// Port of the announce connection on the gateway, TCP.
pub const ANNOUNCE_PORT: u16 = 7118;

/// Value of `NODE_CONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct NodeConfig {
    /// The node's own addresses inside the tunnel.
    pub node4: Addr,
    pub node6: Addr,
    /// Host end of the pair, in the host's namespace.
    pub enforcer0: u32,
    /// Far end of the pair, in the tunnel netns.
    pub tunnel0: u32,
    /// Most flows of one workload.
    pub flow_quota: u32,
    pub pad: u32,
}
abi!(NodeConfig, 48);

/// Value of `TUNNELS` (array, key: tunnel slot); all zero: no tunnel in this slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct Tunnel {
    /// The gateway's addresses inside the tunnel: the far end of the announce connection.
    pub gateway4: Addr,
    pub gateway6: Addr,
    /// Tunnel device, in the tunnel netns.
    pub ifindex: u32,
    pub mtu: u32,
}
abi!(Tunnel, 40);

/// Value of `TUNNEL_SEEN` (array, key: tunnel slot). Written by the kernel only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct TunnelSeen {
    /// Last datagram from the gateway's endpoint, nanoseconds of `CLOCK_BOOTTIME`.
    pub seen_ns: u64,
    /// Last packet that was let through as a probe while the tunnel was silent.
    pub probe_ns: u64,
}
abi!(TunnelSeen, 16);

/// A tunnel that has been silent for so long is not answering.
pub const SILENCE_NS: u64 = 6_000_000_000;
/// While a tunnel is silent one packet passes in this time.
pub const PROBE_NS: u64 = 1_000_000_000;

/// Key of `ENDPOINTS`: a datagram of a gateway's tunnel as it comes in. The value is the tunnel slot (`u32`).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, Ord, PartialEq, PartialOrd,
)]
pub struct EndpointKey {
    pub address: Addr,
    pub port: Port,
    /// The tunnel's own UDP port on this node.
    pub local_port: Port,
    pub pad: u32,
}
abi!(EndpointKey, 24);

/// Value of `GW_CONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct GatewayConfig {
    /// The gateway's own addresses inside the tunnel.
    pub gateway4: Addr,
    pub gateway6: Addr,
    pub tunnel_ifindex: u32,
    pub tunnel_mtu: u32,
}
abi!(GatewayConfig, 40);
