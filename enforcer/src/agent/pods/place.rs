//! From a visit and the host's devices to a place: which veth is the pod's, and whether anything can pass it by.

use std::{collections::BTreeMap, net::IpAddr};

use super::Sight;
use crate::{
    compile::Location,
    netlink::{Interface, Link, Visit},
};

/// `patience` is over when devices that the host does not have will not come any more.
pub(super) fn locate(
    visit: &Visit,
    links: &BTreeMap<u32, Link>,
    promised: &[IpAddr],
    patience_over: bool,
) -> Location {
    let joined: Vec<(&Interface, u32)> = visit
        .interfaces
        .iter()
        .filter_map(|interface| Some((interface, host_side(interface, links)?)))
        .collect();
    let leads_out = |interface: &Interface| visit.ways_out.contains(&interface.ifindex);
    let passing_by = visit.interfaces.iter().find(|interface| {
        leads_out(interface) && !joined.iter().any(|(other, _)| other.ifindex == interface.ifindex)
    });
    if passing_by.is_some_and(|interface| interface.peer.is_some()) && !patience_over {
        // A veth whose host side was not reported yet.
        return Location::Unknown;
    }
    let main = joined.iter().find(|(interface, _)| leads_out(interface)).or(joined.first());
    let mut addresses = main.map_or_else(Vec::new, |(interface, _)| global(interface));
    addresses.sort_by_key(|address| {
        promised.iter().position(|promised| promised == address).unwrap_or(usize::MAX)
    });
    Location::Netns {
        cookie: visit.cookie,
        ifindex: main.map_or(0, |(_, ifindex)| *ifindex),
        addresses,
        not_guardable: passing_by.map(|interface| {
            let kind = if interface.kind.is_empty() { "device" } else { &interface.kind };
            format!("its way to the services is the {kind} {}, expected a veth of this node", interface.name)
        }),
    }
}

/// Whether a visit has seen all that the pod will have, as far as one can know.
pub(super) fn is_complete(sight: &Sight, promised: &[IpAddr]) -> bool {
    match sight {
        Sight::Cgroup(_) => true,
        Sight::Netns(visit) => {
            let seen: Vec<IpAddr> = visit.interfaces.iter().flat_map(global).collect();
            !seen.is_empty()
                && !visit.ways_out.is_empty()
                && promised.iter().all(|address| seen.contains(address))
        }
    }
}

/// Index of the veth on the host that the interface ends at. Both ends have to say so: indices of different
/// namespaces are equal by chance all the time.
fn host_side(interface: &Interface, links: &BTreeMap<u32, Link>) -> Option<u32> {
    let link = links.get(&interface.peer?)?;
    (link.kind == "veth" && link.peer == Some(interface.ifindex)).then_some(link.ifindex)
}

/// Addresses that can be a source beyond the link.
fn global(interface: &Interface) -> Vec<IpAddr> {
    let beyond_the_link = |address: &IpAddr| match address {
        IpAddr::V4(address) => !address.is_link_local() && !address.is_loopback(),
        IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_loopback(),
    };
    interface.addresses.iter().copied().filter(beyond_the_link).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(ifindex: u32, kind: &str, peer: Option<u32>, address: &str) -> Interface {
        let addresses = vec![address.parse().unwrap(), "fe80::1".parse().unwrap()];
        Interface { ifindex, name: format!("eth{ifindex}"), kind: kind.to_owned(), peer, addresses }
    }

    fn visit(interfaces: Vec<Interface>, ways_out: Vec<u32>) -> Visit {
        Visit { netns: "/run/netns/p".into(), cookie: 7, interfaces, ways_out }
    }

    fn links(pairs: &[(u32, u32)]) -> BTreeMap<u32, Link> {
        let link = |ifindex, peer| Link {
            ifindex,
            name: format!("veth{ifindex}"),
            kind: "veth".to_owned(),
            mac: Vec::new(),
            mtu: 1500,
            up: true,
            loopback: false,
            l3: false,
            peer: Some(peer),
        };
        pairs.iter().map(|(ifindex, peer)| (*ifindex, link(*ifindex, *peer))).collect()
    }

    #[test]
    fn a_pod_is_behind_the_veth_that_leads_to_the_services() {
        let visit = visit(
            vec![interface(2, "veth", Some(20), "10.0.0.2"), interface(3, "veth", Some(30), "10.1.0.2")],
            vec![3],
        );
        assert_eq!(
            locate(&visit, &links(&[(20, 2), (30, 3)]), &[], true),
            Location::Netns {
                cookie: 7,
                ifindex: 30,
                addresses: vec!["10.1.0.2".parse().unwrap()],
                not_guardable: None,
            }
        );
    }

    #[test]
    fn a_way_past_the_hooks_makes_it_not_guardable() {
        let visit = visit(
            vec![interface(2, "veth", Some(20), "10.0.0.2"), interface(3, "macvlan", None, "10.1.0.2")],
            vec![2, 3],
        );
        assert_eq!(
            locate(&visit, &links(&[(20, 2)]), &[], false),
            Location::Netns {
                cookie: 7,
                ifindex: 20,
                addresses: vec!["10.0.0.2".parse().unwrap()],
                not_guardable: Some(
                    "its way to the services is the macvlan eth3, expected a veth of this node".to_owned()
                ),
            }
        );
    }

    #[test]
    fn a_veth_that_the_host_has_not_reported_is_waited_for() {
        let visit = visit(vec![interface(2, "veth", Some(20), "10.0.0.2")], vec![2]);
        assert_eq!(locate(&visit, &links(&[]), &[], false), Location::Unknown);
        let in_another_namespace = links(&[(20, 9)]);
        assert!(matches!(
            locate(&visit, &in_another_namespace, &[], true),
            Location::Netns { ifindex: 0, not_guardable: Some(_), .. }
        ));
    }
}
