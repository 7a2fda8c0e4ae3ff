//! `allowedBackends` as the kernel looks it up: the longest prefix decides alone, so every prefix carries the port
//! ranges of those around it, and what is never a backend is carved out with no range at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use enforcer_common::gateway::{AllowedBackend, MAX_PORT_RANGES, PortRange};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model;

/// The compiled list, and what of it was not taken over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allowed {
    pub prefixes: BTreeMap<IpNet, AllowedBackend>,
    /// For a person.
    pub problems: Vec<String>,
}

impl Allowed {
    /// Whether the kernel will admit this backend.
    pub fn admits(&self, address: IpAddr, port: u16, protocol: u8) -> bool {
        let covering = self.prefixes.iter().filter(|(prefix, _)| prefix.contains(&address));
        covering
            .max_by_key(|(prefix, _)| prefix.prefix_len())
            .is_some_and(|(_, allowed)| allowed.admits(port, protocol))
    }
}

const NOTHING: AllowedBackend = AllowedBackend {
    count: 0,
    ranges: [PortRange { first: 0, last: 0, protocol: 0, pad: 0 }; MAX_PORT_RANGES],
};

/// Prefixes that are never a backend, whatever the administrator wrote: this host, its links, groups.
fn never() -> Vec<IpNet> {
    let v4 = |a, b, length| Ipv4Net::new(Ipv4Addr::new(a, b, 0, 0), length).map(IpNet::V4);
    let v6 = |first, length| Ipv6Net::new(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), length).map(IpNet::V6);
    [
        v4(0, 0, 8),
        v4(127, 0, 8),
        v4(169, 254, 16),
        v4(224, 0, 4),
        Ipv4Net::new(Ipv4Addr::BROADCAST, 32).map(IpNet::V4),
        Ipv6Net::new(Ipv6Addr::UNSPECIFIED, 128).map(IpNet::V6),
        Ipv6Net::new(Ipv6Addr::LOCALHOST, 128).map(IpNet::V6),
        v6(0xfe80, 10),
        v6(0xff00, 8),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Compiles the list. `own`: addresses of the gateway's host and the guarded ranges, refused like loopback is.
pub fn compile(written: &[model::AllowedBackend], own: &BTreeSet<IpNet>) -> Allowed {
    let refused: Vec<IpNet> = never().into_iter().chain(own.iter().copied()).collect();
    let mut problems = Vec::new();
    let mut parsed: Vec<(IpNet, Vec<PortRange>)> = Vec::new();
    for entry in written {
        // Checked when the object was validated; what slipped through allows nothing.
        let Ok(prefix) =
            entry.cidr.parse::<IpNet>().or_else(|_| entry.cidr.parse::<IpAddr>().map(IpNet::from))
        else {
            problems.push(format!("allowedBackends {}: not a prefix", entry.cidr));
            continue;
        };
        let prefix = prefix.trunc();
        if let Some(inside) = refused.iter().find(|refused| refused.contains(&prefix)) {
            problems.push(format!("allowedBackends {prefix}: is within {inside}, which is never a backend"));
            continue;
        }
        parsed.push((prefix, entry.ports.iter().map(range_of).collect()));
    }
    let mut prefixes = BTreeMap::new();
    for (prefix, _) in &parsed {
        let around = parsed.iter().filter(|(outer, _)| outer.contains(prefix));
        let ranges = merge(around.flat_map(|(_, ranges)| ranges.iter().copied()));
        if ranges.len() > MAX_PORT_RANGES && !prefixes.contains_key(prefix) {
            problems.push(format!(
                "allowedBackends {prefix}: {} port ranges with those around it, expected at most {MAX_PORT_RANGES}: \
                 the highest are left out",
                ranges.len()
            ));
        }
        prefixes.insert(*prefix, entry_of(&ranges));
    }
    for hole in holes(&parsed, &refused) {
        prefixes.insert(hole, NOTHING);
    }
    Allowed { prefixes, problems }
}

/// What an allowed prefix contains and must not give away.
fn holes(parsed: &[(IpNet, Vec<PortRange>)], refused: &[IpNet]) -> Vec<IpNet> {
    let mut holes: Vec<IpNet> = refused
        .iter()
        .filter(|hole| parsed.iter().any(|(prefix, _)| prefix.contains(*hole)))
        .copied()
        .collect();
    // In the map IPv4 lies inside of `::/0`: a wide IPv6 prefix says nothing about it.
    let everything = IpNet::V4(Ipv4Net::default());
    let mapped = IpNet::V6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().into());
    let listed = |prefix: IpNet| parsed.iter().any(|(listed, _)| *listed == prefix);
    if parsed.iter().any(|(prefix, _)| prefix.contains(&mapped)) && !listed(everything) {
        holes.push(everything);
    }
    holes
}

fn range_of(ports: &model::AllowedPorts) -> PortRange {
    let last = ports.end_port.unwrap_or(ports.port);
    PortRange { first: ports.port, last, protocol: ports.protocol.number(), pad: 0 }
}

/// Sorted, and without overlaps.
fn merge(ranges: impl Iterator<Item = PortRange>) -> Vec<PortRange> {
    let mut sorted: Vec<PortRange> = ranges.collect();
    sorted.sort_by_key(|range| (range.protocol, range.first, range.last));
    let mut merged: Vec<PortRange> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if last.protocol == range.protocol && range.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged
}

fn entry_of(ranges: &[PortRange]) -> AllowedBackend {
    let mut entry = NOTHING;
    for (slot, range) in entry.ranges.iter_mut().zip(ranges) {
        *slot = *range;
        entry.count += 1;
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AllowedPorts, Protocol};

    fn allow(cidr: &str, ports: &[(u16, Option<u16>)]) -> model::AllowedBackend {
        let ports = ports
            .iter()
            .map(|(port, end_port)| AllowedPorts {
                port: *port,
                end_port: *end_port,
                protocol: Protocol::Tcp,
            })
            .collect();
        model::AllowedBackend { cidr: cidr.into(), ports }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn entry(ranges: &[(u16, u16)]) -> AllowedBackend {
        let ranges: Vec<_> = ranges
            .iter()
            .map(|(first, last)| PortRange { first: *first, last: *last, protocol: 6, pad: 0 })
            .collect();
        entry_of(&ranges)
    }

    #[test]
    fn an_inner_prefix_keeps_what_the_outer_allows() {
        let written = [
            allow("10.0.0.0/8", &[(5432, None), (6379, Some(6380))]),
            allow("10.1.0.0/16", &[(3306, None), (6380, Some(6390))]),
        ];
        let prefixes = BTreeMap::from([
            ("10.0.0.0/8".parse().unwrap(), entry(&[(5432, 5432), (6379, 6380)])),
            ("10.1.0.0/16".parse().unwrap(), entry(&[(3306, 3306), (5432, 5432), (6379, 6390)])),
        ]);
        assert_eq!(compile(&written, &BTreeSet::new()), Allowed { prefixes, problems: Vec::new() });
    }

    #[test]
    fn the_gateway_itself_loopback_links_and_groups_are_never_backends() {
        let own = BTreeSet::from([ip("192.0.2.1").into()]);
        let allowed =
            compile(&[allow("0.0.0.0/0", &[(1, Some(65_535))]), allow("::/0", &[(5432, None)])], &own);
        for (address, admitted) in [
            ("192.0.2.2", true),
            ("192.0.2.1", false),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("224.0.0.1", false),
            ("2001:db8::1", true),
            ("::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(allowed.admits(ip(address), 5432, 6), admitted, "{address}");
        }
        let allowed = compile(&[allow("127.0.0.1/32", &[(5432, None)])], &own);
        assert_eq!(allowed.prefixes, BTreeMap::new());
        assert_eq!(
            allowed.problems,
            ["allowedBackends 127.0.0.1/32: is within 127.0.0.0/8, which is never a backend"]
        );
    }

    #[test]
    fn every_ipv6_address_is_not_every_ipv4_address() {
        let allowed = compile(&[allow("::/0", &[(5432, None)])], &BTreeSet::new());
        assert_eq!(allowed.prefixes[&"0.0.0.0/0".parse().unwrap()], NOTHING);
    }

    #[test]
    fn ports_and_protocols_are_exact() {
        let allowed = compile(&[allow("192.0.2.0/24", &[(5432, None)])], &BTreeSet::new());
        assert!(allowed.admits(ip("192.0.2.10"), 5432, 6));
        assert!(!allowed.admits(ip("192.0.2.10"), 5433, 6));
        assert!(!allowed.admits(ip("192.0.2.10"), 5432, 17));
        assert!(!allowed.admits(ip("192.0.3.10"), 5432, 6));
    }

    #[test]
    fn too_many_ranges_are_cut_and_said() {
        let ports: Vec<_> = (0..17).map(|index| (index * 10 + 1, None)).collect();
        let allowed = compile(&[allow("192.0.2.0/24", &ports)], &BTreeSet::new());
        assert!(allowed.admits(ip("192.0.2.1"), 151, 6));
        assert!(!allowed.admits(ip("192.0.2.1"), 161, 6));
        assert_eq!(
            allowed.problems,
            [
                "allowedBackends 192.0.2.0/24: 17 port ranges with those around it, expected at most 16: the highest are left out"
            ]
        );
    }
}
