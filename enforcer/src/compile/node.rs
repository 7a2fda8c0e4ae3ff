//! What a node's maps hold apart from grants: ranges, tunnels, destinations, and who is where.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use enforcer_common::{
    Addr, Port,
    config::{EndpointKey, NodeConfig},
    grant::{Destination, DestinationKey},
    guard::GuardKind,
    workload::{NOT_GUARDABLE, Place, WireKey, Workload},
};

use super::{CompileProblem, Input, Location, PodGrants, offers, workload_addresses};
use crate::{datapath::Tables, resolve::Resolved};

/// `known` are the destinations, if they are what they were.
pub(super) fn compile(
    input: &Input,
    (previous, known): (&Tables, Option<&BTreeMap<DestinationKey, Destination>>),
    pods: &BTreeMap<u32, Arc<PodGrants>>,
    problems: &mut Vec<CompileProblem>,
) -> Tables {
    let mut tables = Tables {
        config: Some(NodeConfig {
            node4: Addr::v4(input.node.v4),
            node6: Addr::v6(input.node.v6),
            enforcer0: input.pair.enforcer0,
            tunnel0: input.pair.tunnel0,
            flow_quota: input.flow_quota,
            pad: 0,
        }),
        ..Tables::default()
    };
    guard(&mut tables, input.resolved);
    tunnels(&mut tables, input, previous);
    match known {
        Some(known) => tables.destinations.clone_from(known),
        None => destinations(&mut tables, input.resolved),
    }
    // The older workload comes first and keeps what two of them claim.
    for (id, grants) in pods {
        identity(&mut tables, input, *id, grants, pods, problems);
    }
    tables
}

fn guard(tables: &mut Tables, resolved: &Resolved) {
    let kinds = [
        (&resolved.listed_ranges, GuardKind::Listed),
        (&resolved.service_ranges, GuardKind::Service),
        (&resolved.workload_ranges, GuardKind::Workload),
    ];
    for (ranges, kind) in kinds {
        tables.guard.extend(ranges.iter().map(|range| (range.trunc(), kind)));
    }
}

fn tunnels(tables: &mut Tables, input: &Input, previous: &Tables) {
    for end in input.tunnels.values() {
        let Some(device) = &end.device else {
            tables.tunnels.extend(previous.tunnels.get(&end.slot).map(|tunnel| (end.slot, *tunnel)));
            tables.endpoints.extend(previous.endpoints.iter().filter(|(_, slot)| **slot == end.slot));
            continue;
        };
        tables.tunnels.insert(end.slot, device.tunnel);
        for endpoint in &device.endpoints {
            let key = EndpointKey {
                address: Addr::from(endpoint.ip()),
                port: Port::new(endpoint.port()),
                local_port: Port::new(device.local_port),
                pad: 0,
            };
            tables.endpoints.insert(key, end.slot);
        }
    }
}

fn destinations(tables: &mut Tables, resolved: &Resolved) {
    for destination in resolved.destinations.values() {
        let value = Destination { number: destination.number };
        for service in offers::addresses(destination) {
            let key = DestinationKey { service, port: Port::NONE, protocol: 0, pad: [0; 5] };
            tables.destinations.insert(key, value);
            for port in &destination.ports {
                let (protocol, port) = (port.protocol.number(), Port::new(port.port));
                tables.destinations.insert(DestinationKey { service, port, protocol, pad: [0; 5] }, value);
            }
        }
    }
}

fn identity(
    tables: &mut Tables,
    input: &Input,
    id: u32,
    grants: &PodGrants,
    pods: &BTreeMap<u32, Arc<PodGrants>>,
    problems: &mut Vec<CompileProblem>,
) {
    let Some(pod) = &grants.pod else { return };
    let [address4, address6] = workload_addresses(grants.addresses);
    let workload = Workload { address4, address6, id, flags: 0 };
    match &pod.location {
        Location::Unknown => {}
        Location::Host { cgroups } => {
            for cgroup in cgroups {
                tables.cgroups.entry(*cgroup).or_insert(workload);
            }
            let own = [IpAddr::V4(input.node.v4), IpAddr::V6(input.node.v6)];
            places(tables, &workload, 0, &own);
        }
        Location::Netns { cookie, ifindex, addresses, not_guardable } => {
            let flags = if not_guardable.is_some() { NOT_GUARDABLE } else { 0 };
            let workload = Workload { flags, ..workload };
            if let Some(holder) = tables.netns.get(cookie) {
                let holder = pods.get(&holder.id).and_then(|holder| holder.pod.as_ref());
                let holder = holder.map(|holder| holder.title()).unwrap_or_default();
                problems.push(CompileProblem::SharedNamespace { pod: pod.title(), holder });
                return;
            }
            tables.netns.insert(*cookie, workload);
            if *ifindex != 0 {
                // The interface by itself is an entry too: what else comes from it is spoofed, not unknown.
                let own = addresses.iter().map(|address| Addr::from(*address));
                for address in own.chain([Addr::NONE]) {
                    tables.wire.insert(WireKey { address, ifindex: *ifindex, pad: 0 }, workload);
                }
                places(tables, &workload, *ifindex, addresses);
            }
        }
    }
}

/// A reply finds the first pod address of its family.
fn places(tables: &mut Tables, workload: &Workload, ifindex: u32, addresses: &[IpAddr]) {
    for (own, is_v4) in [(workload.address4, true), (workload.address6, false)] {
        let first = addresses.iter().find(|address| address.is_ipv4() == is_v4);
        if let (false, Some(address)) = (own.is_none(), first) {
            tables
                .places
                .insert(own, Place { address: Addr::from(*address), ifindex, workload: workload.id });
        }
    }
}
