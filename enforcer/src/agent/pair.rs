//! The tunnel netns and the pair of devices that joins it to the host, with addresses and routes. Idempotent: what
//! is right already is not touched, so that a restart disturbs no packet.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::Path,
};

use ipnet::IpNet;

use crate::{
    compile::Pair,
    mounts,
    netlink::{Netlink, NetlinkError, Route, RouteKind},
    netns,
    resolve::{Node, Resolved},
};

/// On the host.
pub const ENFORCER0: &str = "enforcer0";
/// In the tunnel netns.
pub const TUNNEL0: &str = "tunnel0";

/// The first nibble is 0, so that no frame between them is ever taken for a bare IP packet.
pub const ENFORCER0_MAC: [u8; 6] = [0x02, 0xef, 0, 0, 0, 1];
pub const TUNNEL0_MAC: [u8; 6] = [0x02, 0xef, 0, 0, 0, 2];

/// Below every other route: what finds no way into the tunnel dies here, also while `enforcer0` is missing.
const LAST_METRIC: u32 = u32::MAX - 1;

#[derive(Debug, thiserror::Error)]
pub enum PairError {
    #[error("tunnel netns {path}: cannot {action}")]
    Netns {
        path: String,
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("sysctl {name}: cannot be set to {value}")]
    Sysctl {
        name: String,
        value: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Makes sure of everything. `mtu` is that of the tunnels.
pub async fn ensure(netns: &Path, node: &Node, resolved: &Resolved, mtu: u32) -> Result<Pair, PairError> {
    let failed =
        |action| move |source| PairError::Netns { path: netns.display().to_string(), action, source };
    netns::ensure(netns).map_err(failed("make it"))?;
    let host = Netlink::open(None)?;
    let inside = Netlink::open(Some(netns))?;
    let pair = ensure_devices(&host, &inside, &File::open(netns).map_err(failed("open it"))?).await?;
    set_sysctls(None, ENFORCER0)?;
    set_sysctls(Some(netns), TUNNEL0)?;

    host.set_up(pair.enforcer0, mtu, false).await?;
    inside.set_up(pair.tunnel0, mtu, false).await?;
    let own = [IpNet::from(std::net::IpAddr::V4(node.v4)), IpNet::from(std::net::IpAddr::V6(node.v6))];
    if let Some(lo) = inside.link("lo").await? {
        inside.up(lo.ifindex).await?;
        // For the announce connection only.
        for address in own {
            inside.add_address(lo.ifindex, address).await?;
        }
    }
    for address in own {
        host.add_address(pair.enforcer0, address).await?;
    }
    set_routes(&host, pair.enforcer0, node, resolved, mtu).await?;
    Ok(pair)
}

async fn ensure_devices(host: &Netlink, inside: &Netlink, netns: &File) -> Result<Pair, PairError> {
    let (outer, inner) = (host.link(ENFORCER0).await?, inside.link(TUNNEL0).await?);
    match (outer, inner) {
        (Some(outer), Some(inner))
            if outer.peer == Some(inner.ifindex) && inner.peer == Some(outer.ifindex) =>
        {
            return Ok(Pair { enforcer0: outer.ifindex, tunnel0: inner.ifindex });
        }
        // Half of another pair: the namespace was made anew, or somebody else has the name.
        (outer, inner) => {
            if let Some(outer) = outer {
                host.remove_device(outer.ifindex).await?;
            }
            if let Some(inner) = inner {
                inside.remove_device(inner.ifindex).await?;
            }
        }
    }
    host.add_veth((ENFORCER0, ENFORCER0_MAC), (TUNNEL0, TUNNEL0_MAC), netns).await?;
    let missing = |name: &str| NetlinkError::NoDevice(name.to_owned());
    let outer = host.link(ENFORCER0).await?.ok_or_else(|| missing(ENFORCER0))?;
    let inner = inside.link(TUNNEL0).await?.ok_or_else(|| missing(TUNNEL0))?;
    Ok(Pair { enforcer0: outer.ifindex, tunnel0: inner.ifindex })
}

async fn set_routes(
    host: &Netlink,
    enforcer0: u32,
    node: &Node,
    resolved: &Resolved,
    mtu: u32,
) -> Result<(), NetlinkError> {
    let guarded = resolved.guarded();
    set_blackholes(host, &guarded).await?;
    for range in &resolved.service_ranges {
        let source = Some(match range {
            IpNet::V4(_) => node.v4.into(),
            IpNet::V6(_) => node.v6.into(),
        });
        let kind = RouteKind::Device { ifindex: enforcer0, source, mtu: Some(mtu) };
        host.set_route(&Route { destination: range.trunc(), metric: 0, kind }).await?;
    }
    // Ranges that were ours once are somebody else's now.
    host.prune_routes(|destination| guarded.contains(destination)).await
}

/// Leads everything guarded nowhere, unless a route with a better metric knows more.
pub async fn set_blackholes(host: &Netlink, guarded: &BTreeSet<IpNet>) -> Result<(), NetlinkError> {
    for destination in guarded {
        let route = Route { destination: *destination, metric: LAST_METRIC, kind: RouteKind::Blackhole };
        host.set_route(&route).await?;
    }
    Ok(())
}

/// Neither end speaks ARP or neighbour discovery, and replies come in where their sources are routed to.
fn set_sysctls(netns: Option<&Path>, device: &str) -> Result<(), PairError> {
    let settings = [
        (format!("ipv4/conf/{device}/rp_filter"), "0"),
        (format!("ipv4/conf/{device}/accept_local"), "1"),
        (format!("ipv6/conf/{device}/disable_ipv6"), "0"),
        (format!("ipv6/conf/{device}/accept_ra"), "0"),
        (format!("ipv6/conf/{device}/accept_dad"), "0"),
        (format!("ipv6/conf/{device}/addr_gen_mode"), "1"),
    ];
    for (name, value) in settings {
        let path = format!("/proc/sys/net/{name}");
        let write = || {
            let right = fs::read_to_string(&path).is_ok_and(|text| text.trim() == value);
            if right { Ok(()) } else { fs::write(&path, value) }
        };
        // `/proc/sys/net` is that of the thread's own namespace, which is also that of threads that it starts.
        netns::run_in_or_here(netns, || mounts::on_host(write))
            .flatten()
            .map_err(|source| PairError::Sysctl { name: name.replace('/', "."), value, source })?;
    }
    Ok(())
}
