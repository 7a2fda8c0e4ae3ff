//! Ranges that an install may have: apart from each other and from everything that the machine uses already. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::allocate::{LONGEST_SERVICE_PREFIX, LONGEST_WORKLOAD_PREFIX};
use crate::state::State;

/// Shorter prefixes would be a good part of the Internet.
const SHORTEST_PREFIX: u8 = 8;

#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum RangeError {
    #[error("{range} has bits behind its prefix, expected {expected}", expected = .range.trunc())]
    HostBits { range: Ipv4Net },
    #[error("{name} range {range}: expected a prefix of /{SHORTEST_PREFIX} to /{longest}")]
    Length { name: &'static str, range: Ipv4Net, longest: u8 },
    #[error("{name} range {range} overlaps {other_name} {other}, expected a range of its own")]
    Overlap { name: &'static str, range: IpNet, other_name: String, other: IpNet },
}

/// A range that is in use, with words that say by what: `route of eth0`.
pub type Taken = (String, IpNet);

/// Refuses ranges that cannot work, naming both where two collide.
pub fn check(state: &State, taken: &[Taken]) -> Result<(), RangeError> {
    length("service", state.service_range, LONGEST_SERVICE_PREFIX)?;
    length("workload", state.workload_range, LONGEST_WORKLOAD_PREFIX)?;
    let workload = IpNet::from(state.workload_range);
    let own = [
        ("service", IpNet::from(state.service_range)),
        ("workload", workload),
        ("IPv6", IpNet::from(state.ula)),
    ];
    let special = special().map(|(name, range)| (name.to_owned(), range));
    let workload = [("workload range".to_owned(), workload)];
    for (name, range) in own {
        let beside = if name == "service" { workload.as_slice() } else { &[] };
        let mut others = beside.iter().chain(&special).chain(taken);
        if let Some((other_name, other)) = others.find(|(_, other)| overlap(range, *other)) {
            return Err(RangeError::Overlap { name, range, other_name: other_name.clone(), other: *other });
        }
    }
    Ok(())
}

fn length(name: &'static str, range: Ipv4Net, longest: u8) -> Result<(), RangeError> {
    if range != range.trunc() {
        return Err(RangeError::HostBits { range });
    }
    if (SHORTEST_PREFIX..=longest).contains(&range.prefix_len()) {
        Ok(())
    } else {
        Err(RangeError::Length { name, range, longest })
    }
}

fn overlap(left: IpNet, right: IpNet) -> bool {
    left.contains(&right) || right.contains(&left)
}

/// What no unicast service can have.
fn special() -> [(&'static str, IpNet); 6] {
    let v4 = |a, b, length| IpNet::from(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), length));
    let v6 =
        |first, length| IpNet::from(Ipv6Net::new_assert(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), length));
    [
        ("this network", v4(0, 0, 8)),
        ("loopback", v4(127, 0, 8)),
        ("link-local", v4(169, 254, 16)),
        ("multicast and reserved", v4(224, 0, 3)),
        ("link-local", v6(0xfe80, 10)),
        ("multicast", v6(0xff00, 8)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(service: &str, workload: &str, taken: &[(&str, &str)]) -> String {
        let state =
            State::new("fd00:1:2::/48".parse().unwrap(), service.parse().unwrap(), workload.parse().unwrap());
        let taken: Vec<Taken> =
            taken.iter().map(|(name, range)| ((*name).to_owned(), range.parse().unwrap())).collect();
        check(&state, &taken).map_or_else(|error| error.to_string(), |()| "fine".to_owned())
    }

    #[test]
    fn collisions_name_both_sides() {
        let (service, workload) = ("198.18.0.0/16", "198.19.0.0/16");
        let table = [
            (said(service, workload, &[("route of eth0", "192.0.2.0/24")]), "fine"),
            (
                said(service, "198.18.128.0/17", &[]),
                "service range 198.18.0.0/16 overlaps workload range 198.18.128.0/17, expected a range of its own",
            ),
            (
                said(service, workload, &[("route of eth0", "198.18.7.0/24")]),
                "service range 198.18.0.0/16 overlaps route of eth0 198.18.7.0/24, expected a range of its own",
            ),
            (
                said(service, workload, &[("address of eth1", "198.19.0.9/32")]),
                "workload range 198.19.0.0/16 overlaps address of eth1 198.19.0.9/32, expected a range of its own",
            ),
            (
                said(service, workload, &[("route of eth0", "fd00::/16")]),
                "IPv6 range fd00:1:2::/48 overlaps route of eth0 fd00::/16, expected a range of its own",
            ),
            (
                said("127.1.0.0/16", workload, &[]),
                "service range 127.1.0.0/16 overlaps loopback 127.0.0.0/8, expected a range of its own",
            ),
            (
                said("198.18.0.1/16", workload, &[]),
                "198.18.0.1/16 has bits behind its prefix, expected 198.18.0.0/16",
            ),
            (
                said("198.18.0.0/31", workload, &[]),
                "service range 198.18.0.0/31: expected a prefix of /8 to /30",
            ),
            (
                said(service, "198.19.0.0/24", &[]),
                "workload range 198.19.0.0/24: expected a prefix of /8 to /23",
            ),
        ];
        for (found, expected) in table {
            assert_eq!(found, expected);
        }
    }
}
