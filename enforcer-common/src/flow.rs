//! Flows of a node: one entry for both directions.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use crate::{Addr, Port, addr::join};

/// Key of `FLOWS` and `GW_FLOWS`, always seen from the client.
///
/// On a node `client` is the pod's own address, at the gateway the workload address.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, Ord, PartialEq, PartialOrd,
)]
pub struct FlowKey {
    pub client: Addr,
    pub service: Addr,
    pub client_port: Port,
    pub service_port: Port,
    pub protocol: u8,
    pub pad: [u8; 3],
}
abi!(FlowKey, 40);

/// Two ports as they lie in memory.
const fn ports(first: Port, second: Port) -> [u8; 4] {
    let ([a, b], [c, d]) = (first.network().to_ne_bytes(), second.network().to_ne_bytes());
    [a, b, c, d]
}

impl FlowKey {
    #[inline(always)]
    pub const fn new(
        client: Addr,
        client_port: Port,
        service: Addr,
        service_port: Port,
        protocol: u8,
    ) -> Self {
        let ([client, client_end], [service, service_end]) = (client.halves(), service.halves());
        let ports = u32::from_ne_bytes(ports(client_port, service_port));
        let tail = join(ports, u32::from_ne_bytes([protocol, 0, 0, 0]));
        // Whole halves, see `Addr`.
        transmute!([client, client_end, service, service_end, tail])
    }
}

/// Value of `FLOWS`. The grant is looked up for every packet: a flow carries no authority of its own. It carries the
/// grant's account: the entry is in the CPU's caches already, one of `GRANT_STATS` would have to be fetched.
///
/// What a packet from the client reads and writes comes first: with most of the key it fills one cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct Flow {
    /// Nanoseconds of `CLOCK_BOOTTIME`, either direction.
    pub seen_ns: u64,
    /// Since `grant` is charged, as the other three; with [`GrantStats`](crate::grant::GrantStats) they are the sum.
    pub packets_out: u64,
    pub bytes_out: u64,
    /// Only packets of this workload belong to the flow; another pod that took the address starts anew.
    pub workload: u32,
    /// Last acknowledgement number that the client sent; machine order. What an exact reset (RFC 5961) of either end
    /// needs, as `server_ack`.
    pub client_ack: u32,
    /// Id of the grant that is charged.
    pub grant: u32,
    /// Tunnel slot.
    pub tunnel: u8,
    /// A `FlowState`.
    pub state: u8,
    /// [`ACK_CLIENT`] and [`ACK_SERVER`]: which acknowledgement numbers have been seen. [`DOUBT_OUT`] and [`DOUBT_IN`]:
    /// whose reset closed the flow without being exact.
    pub seen_acks: u8,
    pub pad: u8,
    pub packets_in: u64,
    pub bytes_in: u64,
    /// Client address inside the tunnel.
    pub workload_address: Addr,
    /// Last acknowledgement number that the client received.
    pub server_ack: u32,
    /// Host side of the pod's veth; 0: the local stack.
    pub ifindex: u32,
}
abi!(Flow, 80);

pub const ACK_CLIENT: u8 = 1;
pub const ACK_SERVER: u8 = 2;
pub const DOUBT_OUT: u8 = 4;
pub const DOUBT_IN: u8 = 8;

/// State of a flow. A flow that revocation ended passes resets only.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FlowState {
    /// TCP before the handshake is complete.
    HalfOpen = 1,
    Established = 2,
    /// TCP after a FIN or a reset.
    Closing = 3,
    Udp = 4,
    Revoking = 5,
}

impl FlowState {
    #[inline(always)]
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            1 => Some(Self::HalfOpen),
            2 => Some(Self::Established),
            3 => Some(Self::Closing),
            4 => Some(Self::Udp),
            5 => Some(Self::Revoking),
            _ => None,
        }
    }

    /// How long the flow lives without a packet.
    #[inline(always)]
    pub const fn lifetime_ns(self) -> u64 {
        match self {
            Self::HalfOpen | Self::Revoking => 30 * SECOND,
            Self::Established => 26 * 3600 * SECOND,
            Self::Closing => 120 * SECOND,
            Self::Udp => 180 * SECOND,
        }
    }
}

pub const SECOND: u64 = 1_000_000_000;

/// Whether a flow with this raw state, last seen then, is over. An unknown state is over.
#[inline(always)]
pub const fn expired(state: u8, seen_ns: u64, now_ns: u64) -> bool {
    match FlowState::from_raw(state) {
        Some(state) => now_ns.saturating_sub(seen_ns) > state.lifetime_ns(),
        None => true,
    }
}

/// Key of `FRAGMENTS`: the datagram that a later fragment belongs to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct FragmentKey {
    pub source: Addr,
    pub destination: Addr,
    pub id: u32,
    /// Interface it came in on: a neighbour cannot speak for a pod's datagram.
    pub ifindex: u32,
    pub protocol: u8,
    pub pad: [u8; 7],
}
abi!(FragmentKey, 48);

/// Value of `FRAGMENTS`: the ports of the first fragment.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct FragmentPorts {
    pub source: Port,
    pub destination: Port,
}
abi!(FragmentPorts, 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_over_only_after_its_lifetime() {
        assert!(!expired(FlowState::HalfOpen as u8, 0, 30 * SECOND));
        assert!(expired(FlowState::HalfOpen as u8, 0, 30 * SECOND + 1));
        assert!(
            !expired(FlowState::Established as u8, 5, 0),
            "a clock read earlier on another CPU expires nothing"
        );
        assert!(expired(0, 0, 0), "an unknown state is over");
    }
}
