//! Routes: the two that lead traffic to us, the blackholes below them, and the way to a backend.

use std::net::IpAddr;

use futures::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteType,
    },
};

use super::{Netlink, NetlinkError, failed};

/// Who set a route, as `ip route` shows it (`proto 239`): how an enforcer knows what an earlier one left.
const OURS: RouteProtocol = RouteProtocol::Other(239);

/// A route of the main table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    pub destination: IpNet,
    /// Lower wins; 0: the family's default.
    pub metric: u32,
    pub kind: RouteKind,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RouteKind {
    Device {
        ifindex: u32,
        source: Option<IpAddr>,
        mtu: Option<u32>,
    },
    /// Whatever goes there dies here.
    Blackhole,
}

/// Answer to "how does a packet get there".
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RouteInfo {
    pub ifindex: u32,
    /// Source address that the kernel would take.
    pub source: Option<IpAddr>,
    /// The router; the destination itself where there is none.
    pub next_hop: IpAddr,
    /// MTU of the route, where it has one of its own.
    pub mtu: Option<u32>,
    /// Delivered to this machine.
    pub local: bool,
}

impl Netlink {
    /// Adds or replaces a route.
    pub async fn set_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let action = format!("set the route to {}", route.destination);
        self.handle.route().add(message_of(route)).replace().execute().await.map_err(failed(action))
    }

    /// Removes routes that an enforcer set, whoever of them it was, to destinations that are not to be kept. Routes of
    /// others are never looked at.
    pub async fn prune_routes(&self, keep: impl Fn(&IpNet) -> bool) -> Result<(), NetlinkError> {
        for route in self.main_table().await? {
            if route.header.protocol != OURS {
                continue;
            }
            let Some((destination, _)) = prefix_of(&route).filter(|(destination, _)| !keep(destination))
            else {
                continue;
            };
            let action = format!("remove the route to {destination}");
            match self.handle.route().del(route).execute().await.map_err(failed(action)) {
                // It went by itself, with its device for one.
                Err(error) if matches!(error.errno(), Some(libc::ESRCH | libc::ENOENT | libc::ENODEV)) => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Destinations of all routes of the main table that are not defaults, with the device they lead to.
    pub async fn routed_prefixes(&self) -> Result<Vec<(IpNet, Option<u32>)>, NetlinkError> {
        Ok(self.main_table().await?.iter().filter_map(prefix_of).collect())
    }

    async fn main_table(&self) -> Result<Vec<RouteMessage>, NetlinkError> {
        let mut table = Vec::new();
        for message in [
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ] {
            let routes: Vec<RouteMessage> = self
                .handle
                .route()
                .get(message)
                .execute()
                .try_collect()
                .await
                .map_err(failed("list routes"))?;
            table.extend(routes.into_iter().filter(|route| route.header.table == RouteHeader::RT_TABLE_MAIN));
        }
        Ok(table)
    }

    /// Asks the kernel how a packet would get to `destination`; `None` where it has no route.
    pub async fn route_to(&self, destination: IpAddr) -> Result<Option<RouteInfo>, NetlinkError> {
        let length = if destination.is_ipv4() { 32 } else { 128 };
        let message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination, length)
            .map_err(|error| NetlinkError::Request {
                action: format!("ask for the route to {destination}"),
                source: std::io::Error::other(error),
            })?
            .build();
        let answer: Result<Vec<_>, _> = self.handle.route().get(message).execute().try_collect().await;
        match answer.map_err(failed(format!("ask for the route to {destination}"))) {
            Ok(routes) => Ok(routes.first().and_then(|route| info_of(route, destination))),
            // A blackhole answers with an error of its own.
            Err(error)
                if matches!(
                    error.errno(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES)
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn message_of(route: &Route) -> RouteMessage {
    let mut message = match route.destination {
        IpNet::V4(net) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .build(),
        IpNet::V6(net) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .build(),
    };
    message.header.protocol = OURS;
    if route.metric != 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    match &route.kind {
        RouteKind::Device { ifindex, source, mtu } => {
            message.attributes.push(RouteAttribute::Oif(*ifindex));
            if let Some(source) = source {
                message.attributes.push(RouteAttribute::PrefSource((*source).into()));
            }
            if let Some(mtu) = mtu {
                message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(*mtu)]));
            }
        }
        RouteKind::Blackhole => message.header.kind = RouteType::BlackHole,
    }
    message
}

fn address_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn prefix_of(route: &RouteMessage) -> Option<(IpNet, Option<u32>)> {
    let device = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(ifindex) => Some(*ifindex),
        _ => None,
    });
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => {
            Some((IpNet::new(address_of(address)?, route.header.destination_prefix_length).ok()?, device))
        }
        _ => None,
    })
}

fn info_of(route: &RouteMessage, destination: IpAddr) -> Option<RouteInfo> {
    let mut info = RouteInfo {
        ifindex: 0,
        source: None,
        next_hop: destination,
        mtu: None,
        local: route.header.kind == RouteType::Local,
    };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => info.ifindex = *ifindex,
            RouteAttribute::PrefSource(address) => info.source = address_of(address),
            RouteAttribute::Gateway(address) => info.next_hop = address_of(address)?,
            RouteAttribute::Metrics(metrics) => {
                info.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (info.ifindex != 0 && !matches!(route.header.kind, RouteType::BlackHole | RouteType::Unreachable))
        .then_some(info)
}
