//! A visit to a pod's namespace: what it looks like from inside.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::{Netlink, NetlinkError};
use crate::netns;

/// What a visit found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Visit {
    pub netns: PathBuf,
    /// Network namespace cookie.
    pub cookie: u64,
    /// Every device but `lo`.
    pub interfaces: Vec<Interface>,
    /// Devices (own index) that the pod would use for the addresses that were asked for.
    pub ways_out: Vec<u32>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Index inside the pod.
    pub ifindex: u32,
    pub name: String,
    pub kind: String,
    /// Index of the far end, for a veth, in the far end's namespace.
    pub peer: Option<u32>,
    pub addresses: Vec<IpAddr>,
}

/// Visits the namespace once; `targets` are the addresses whose way out is asked for.
pub async fn visit(path: &Path, targets: &[IpAddr]) -> Result<Visit, NetlinkError> {
    let cookie = netns::cookie(Some(path))
        .map_err(|source| NetlinkError::Open { netns: Some(path.into()), source })?;
    let netlink = Netlink::open(Some(path))?;
    let addresses = netlink.addresses(None).await?;
    let interfaces = netlink
        .links()
        .await?
        .into_iter()
        .filter(|link| !link.loopback)
        .map(|link| Interface {
            addresses: addresses
                .iter()
                .filter(|(ifindex, _)| *ifindex == link.ifindex)
                .map(|(_, net)| net.addr())
                .collect(),
            ifindex: link.ifindex,
            name: link.name,
            peer: link.peer.filter(|_| link.kind == "veth"),
            kind: link.kind,
        })
        .collect();
    let mut ways_out = Vec::new();
    for target in targets {
        if let Some(route) = netlink.route_to(*target).await?
            && !ways_out.contains(&route.ifindex)
        {
            ways_out.push(route.ifindex);
        }
    }
    Ok(Visit { netns: path.into(), cookie, interfaces, ways_out })
}
