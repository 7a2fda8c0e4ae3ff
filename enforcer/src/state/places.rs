//! Which addresses follow from a number. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::{Allocation, NodeAllocation, State};

/// Addresses at the end of the workload range that are the gateways'.
pub const GATEWAY_SIZE: u32 = 256;

/// Addresses of the service of this number; `None` if the range has no such number. The first address is the range's
/// name and the last its broadcast address.
pub fn service_at(state: &State, number: u32) -> Option<Allocation> {
    let is_in_range = (1..=range_size(state.service_range) - 2).contains(&number);
    is_in_range.then(|| Allocation {
        number,
        v4: nth4(state.service_range.network(), number),
        v6: nth6(service_subnet(state.ula), number),
    })
}

/// Addresses of the gateway of this number; `None` if there can be no such gateway.
pub fn gateway_at(state: &State, number: u32) -> Option<Allocation> {
    let first = range_size(state.workload_range).checked_sub(GATEWAY_SIZE)?;
    let first = nth4(state.workload_range.network(), first);
    (1..GATEWAY_SIZE - 1).contains(&number).then(|| Allocation {
        number,
        v4: nth4(first, number),
        v6: nth6(gateway_subnet(state.ula), number),
    })
}

/// Addresses of the node of this number; `None` without a block, or if there can be no such node.
pub fn node_at(state: &State, number: u32, blocks: Vec<Ipv4Net>) -> Option<NodeAllocation> {
    let subnet = node_subnet(state.ula, number).filter(|_| number > 0)?;
    let first = blocks.first()?;
    Some(NodeAllocation { number, v4: nth4(first.network(), 1), v6: nth6(subnet, 1), blocks, subnet })
}

/// Addresses of a range; a /0 is refused long before.
pub const fn range_size(range: Ipv4Net) -> u32 {
    1 << (32 - range.prefix_len())
}

pub fn nth4(first: Ipv4Addr, number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(first) + number)
}

fn nth6(subnet: Ipv6Net, number: u32) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(subnet.network()) + u128::from(number))
}

/// Services' addresses of an install: subnet 2 of its /48.
pub fn service_subnet(ula: Ipv6Net) -> Ipv6Net {
    subnet(ula, 0x2, 64)
}

/// Gateways' addresses: subnet 3.
pub fn gateway_subnet(ula: Ipv6Net) -> Ipv6Net {
    subnet(ula, 0x3, 64)
}

/// What the nodes' /64s are taken from: subnets 0x1000 to 0x1fff.
pub fn node_subnets(ula: Ipv6Net) -> Ipv6Net {
    subnet(ula, 0x1000, 52)
}

/// The /64 of one node; numbers beyond 4095 have none.
pub fn node_subnet(ula: Ipv6Net, number: u32) -> Option<Ipv6Net> {
    let number = u16::try_from(number).ok().filter(|number| *number < 0x1000)?;
    Some(subnet(ula, 0x1000 + number, 64))
}

fn subnet(ula: Ipv6Net, subnet: u16, length: u8) -> Ipv6Net {
    let mut segments = ula.network().segments();
    segments[3] = subnet;
    Ipv6Net::new_assert(segments.into(), length)
}
