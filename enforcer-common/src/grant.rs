//! Grants and destinations: what a workload may reach.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use crate::{Addr, Port, addr::join, flow::Flow};

/// `validUntil` of a grant without an end, and the answer of a clock that cannot expire anything.
pub const FOREVER: u64 = u64::MAX;

/// Tunnels a node can have: the bits of [`Grant::gateways`].
pub const MAX_TUNNELS: u32 = 64;

/// Key of `GRANTS`: workload × destination × protocol × port.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, Ord, PartialEq, PartialOrd,
)]
pub struct GrantKey {
    pub service: Addr,
    pub workload: u32,
    pub port: Port,
    /// IP protocol number, 6 or 17.
    pub protocol: u8,
    pub pad: u8,
}
abi!(GrantKey, 24);

impl GrantKey {
    #[inline(always)]
    pub const fn new(service: Addr, workload: u32, port: Port, protocol: u8) -> Self {
        let [service, service_end] = service.halves();
        // Whole halves, see `Addr`.
        transmute!([service, service_end, join(workload, offer(port, protocol))])
    }
}

/// Port and protocol as they lie in memory.
const fn offer(port: Port, protocol: u8) -> u32 {
    let [first, second] = port.network().to_ne_bytes();
    u32::from_ne_bytes([first, second, protocol, 0])
}

/// Value of `GRANTS`. Present with no gateway: *pending*.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct Grant {
    /// Nanoseconds of `CLOCK_BOOTTIME`; [`FOREVER`] where the connection has no `validUntil`.
    pub valid_until_ns: u64,
    /// Bit n: the gateway behind tunnel slot n has acknowledged this grant.
    pub gateways: u64,
    /// Key of `GRANT_STATS`. Unique for the life of the pins.
    pub id: u32,
    /// Number of the connection that is charged; user space knows its name.
    pub connection: u32,
}
abi!(Grant, 24);

/// Value of `GRANT_STATS`, per CPU. Made by the kernel with the grant's first flow.
///
/// On a node it holds what ended flows have carried; what live ones have is in their `FLOWS` entries. At the gateway
/// every packet is counted here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct GrantStats {
    pub packets_out: u64,
    pub bytes_out: u64,
    pub packets_in: u64,
    pub bytes_in: u64,
    pub flows: u64,
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    pub last_ns: u64,
}
abi!(GrantStats, 48);

impl GrantStats {
    /// Adds what a flow has carried since its grant is the one that is charged.
    #[inline(always)]
    pub fn add_flow(&mut self, flow: &Flow) {
        self.packets_out += flow.packets_out;
        self.bytes_out += flow.bytes_out;
        self.packets_in += flow.packets_in;
        self.bytes_in += flow.bytes_in;
        if flow.seen_ns > self.last_ns {
            self.last_ns = flow.seen_ns;
        }
    }

    /// Adds what another CPU has counted.
    pub fn add(&mut self, other: &Self) {
        self.packets_out += other.packets_out;
        self.bytes_out += other.bytes_out;
        self.packets_in += other.packets_in;
        self.bytes_in += other.bytes_in;
        self.flows += other.flows;
        self.last_ns = self.last_ns.max(other.last_ns);
    }
}

/// Key of `DESTINATIONS`. With port and protocol 0: the address is allocated; else: the port is offered.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, Ord, PartialEq, PartialOrd,
)]
pub struct DestinationKey {
    pub service: Addr,
    pub port: Port,
    pub protocol: u8,
    pub pad: [u8; 5],
}
abi!(DestinationKey, 24);

impl DestinationKey {
    #[inline(always)]
    pub const fn new(service: Addr, port: Port, protocol: u8) -> Self {
        let [service, service_end] = service.halves();
        // Whole halves, see `Addr`.
        transmute!([service, service_end, join(offer(port, protocol), 0)])
    }
}

/// Value of `DESTINATIONS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct Destination {
    /// Number of the destination; user space knows its name.
    pub number: u32,
}
abi!(Destination, 4);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{flow::FlowKey, workload::WireKey};

    #[test]
    fn a_key_that_is_made_of_halves_is_the_one_of_its_fields() {
        let (service, client) = (Addr::from_words([3, 4, 5, 6]), Addr::from_words([7, 8, 9, 10]));
        let (port, client_port) = (Port::new(0x1234), Port::new(0x5678));
        let (workload, ifindex, protocol) = (0x9abc_def0, 0x1357_9bdf, 17);
        assert_eq!(
            GrantKey::new(service, workload, port, protocol),
            GrantKey { service, workload, port, protocol, pad: 0 }
        );
        assert_eq!(
            DestinationKey::new(service, port, protocol),
            DestinationKey { service, port, protocol, pad: [0; 5] }
        );
        assert_eq!(WireKey::new(client, ifindex), WireKey { address: client, ifindex, pad: 0 });
        let (service_port, pad) = (port, [0; 3]);
        assert_eq!(
            FlowKey::new(client, client_port, service, service_port, protocol),
            FlowKey { client, service, client_port, service_port, protocol, pad }
        );
    }
}
