//! The gateway's network: its own addresses, the ways to the backends, and what leads into the tunnel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::compile::Way;
use crate::{
    netlink::{Link, Netlink, NetlinkError, Route, RouteKind},
    resolve::{Gateway, Resolved},
};
use ipnet::IpNet;

/// What the tunnel device needs so that this host's own packets go in and out of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TunnelNetwork {
    pub ifindex: u32,
    pub mtu: u32,
    pub addresses: Vec<IpNet>,
    /// The workload ranges: nodes and workloads are behind the tunnel.
    pub routes: Vec<IpNet>,
}

impl TunnelNetwork {
    pub fn of(gateway: &Gateway, resolved: &Resolved, ifindex: u32) -> Self {
        Self {
            ifindex,
            mtu: gateway.mtu,
            addresses: vec![IpAddr::V4(gateway.v4).into(), IpAddr::V6(gateway.v6).into()],
            routes: resolved.workload_ranges.clone(),
        }
    }

    /// Brings it about. Doing it twice is fine.
    pub async fn apply(&self, netlink: &Netlink) -> Result<(), NetlinkError> {
        for address in &self.addresses {
            netlink.add_address(self.ifindex, *address).await?;
        }
        for destination in &self.routes {
            let kind = RouteKind::Device { ifindex: self.ifindex, source: None, mtu: Some(self.mtu) };
            netlink.set_route(&Route { destination: *destination, metric: 0, kind }).await?;
        }
        Ok(())
    }
}

/// The ways to the backends, and the devices that they lead through.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ways {
    pub ways: BTreeMap<IpAddr, Way>,
    /// Index → name.
    pub devices: BTreeMap<u32, String>,
}

/// How packets get to each backend; one without a route is left out. Never into the tunnel: what is behind it is no
/// backend.
pub async fn ways(netlink: &Netlink, backends: &BTreeSet<IpAddr>, tunnel: u32) -> Result<Ways, NetlinkError> {
    let links: BTreeMap<u32, Link> =
        netlink.links().await?.into_iter().map(|link| (link.ifindex, link)).collect();
    let mut found = Ways::default();
    for backend in backends {
        let Some(route) = netlink.route_to(*backend).await? else { continue };
        let Some(link) = links.get(&route.ifindex).filter(|link| link.ifindex != tunnel) else { continue };
        let way = Way {
            ifindex: route.ifindex,
            source: route.source,
            next_hop: route.next_hop,
            mtu: route.mtu.unwrap_or(link.mtu),
            local: route.local || link.loopback,
            ethernet: !link.l3,
        };
        if !way.local && way.ethernet {
            found.devices.insert(link.ifindex, link.name.clone());
        }
        found.ways.insert(*backend, way);
    }
    Ok(found)
}

/// Addresses that are never a backend here: those of this host and of the cluster's nodes, API server and DNS, and our
/// ranges.
pub async fn own(netlink: &Netlink, resolved: &Resolved) -> Result<BTreeSet<IpNet>, NetlinkError> {
    let addresses = netlink.addresses(None).await?;
    let addresses = addresses.into_iter().map(|(_, address)| IpNet::from(address.addr()));
    let guarded = resolved.service_ranges.iter().chain(&resolved.workload_ranges).copied();
    let cluster = resolved.infrastructure.keys().map(|address| IpNet::from(*address));
    Ok(addresses.chain(guarded).chain(cluster).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gateway::allowed,
        model::{AllowedBackend, AllowedPorts, Protocol},
    };

    #[tokio::test]
    async fn where_the_cluster_and_its_guarded_addresses_are_is_no_backend_whatever_is_allowed() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let never = ["192.0.2.5", "192.0.2.11", "10.96.0.10", "fd00:10:96::1"];
        let resolved = Resolved {
            infrastructure: never.map(|address| (ip(address), "of the cluster".to_owned())).into(),
            service_ranges: vec!["198.18.0.0/16".parse().unwrap(), "fd00:1:2::/64".parse().unwrap()],
            workload_ranges: vec!["198.19.0.0/16".parse().unwrap()],
            ..Resolved::default()
        };
        let netlink = Netlink::open(None).unwrap();
        let own = own(&netlink, &resolved).await.unwrap();
        let this_host = netlink.addresses(None).await.unwrap();
        let wide = ["0.0.0.0/0", "10.96.0.0/12", "192.0.2.11/32", "::/0"].map(|cidr| {
            let ports = vec![AllowedPorts { port: 1, end_port: Some(65_535), protocol: Protocol::Tcp }];
            AllowedBackend { cidr: cidr.into(), ports }
        });
        let allowed = allowed::compile(&wide, &own);
        let guarded = ["198.18.7.7", "198.19.0.1", "fd00:1:2::7"];
        let this_host = this_host.iter().map(|(_, address)| address.addr());
        for address in never.into_iter().chain(guarded).map(ip).chain(this_host) {
            assert!(!allowed.admits(address, 5432, 6), "{address}");
        }
        for address in ["192.0.2.6", "192.0.2.12", "10.96.0.11", "198.17.0.1", "fd00:10:96::2"].map(ip) {
            assert!(allowed.admits(address, 5432, 6), "{address} lies beside it");
        }
        assert_eq!(
            allowed.problems,
            ["allowedBackends 192.0.2.11/32: is within 192.0.2.11/32, which is never a backend"]
        );
    }
}
