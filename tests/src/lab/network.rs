//! Namespaces, devices, addresses and routes of the lab.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use anyhow::{Context, Result};

use super::{
    Id,
    command::run,
    manifests::{GRANTED, PROJECT},
    wait,
};

pub const NODE4: &str = "192.0.2.11";
pub const NODE6: &str = "2001:db8:1::11";
pub const GATEWAY4: &str = "192.0.2.1";
pub const GATEWAY6: &str = "2001:db8:1::1";
/// The gateway on the services' network.
pub const BACKEND_SIDE4: &str = "203.0.113.1";
pub const BACKEND_SIDE6: &str = "2001:db8:2::1";
pub const SERVER4: &str = "203.0.113.10";
pub const SERVER6: &str = "2001:db8:2::10";
/// A second address of the server, for destinations with two endpoints.
pub const SECOND_SERVER4: &str = "203.0.113.11";
/// Where `enforcer dns` listens on the node.
pub const DNS4: &str = "10.244.0.1";
pub const DNS6: &str = "fd00:10:244::1";
/// Port of the gateway's tunnel.
pub const TUNNEL_PORT: u16 = 51820;
/// Device on the bridge that leads to the node: whatever the node sends or gets passes here.
pub const NODE_PORT: &str = "node0";

/// A pod of the lab, as its manifest will say.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    pub name: String,
    pub namespace: String,
    pub labels: Vec<(String, String)>,
    pub host_network: bool,
    /// Last number of its addresses; 0 for hostNetwork.
    pub number: u8,
    /// Its network namespace: its own, or the node's.
    pub netns: String,
    pub cgroup: PathBuf,
}

impl Pod {
    pub fn new(namespace: &str, name: &str, labels: &[(&str, &str)]) -> Self {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { name: name.into(), namespace: namespace.into(), labels, ..Self::default() }
    }

    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self
    }

    /// Whether the lab's connections select it.
    pub fn is_granted(&self) -> bool {
        let (key, value) = GRANTED;
        self.namespace == PROJECT && self.labels.iter().any(|label| label.0 == key && label.1 == value)
    }

    /// Addresses that its status shows.
    pub fn addresses(&self) -> [String; 2] {
        if self.host_network {
            return [NODE4.into(), NODE6.into()];
        }
        let n = self.number;
        [
            Ipv4Addr::new(10, 244, 0, n).to_string(),
            Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, n.into()).to_string(),
        ]
    }
}

/// What stands after [`Network::build`].
#[derive(Clone, Debug, Default)]
pub struct Network {
    pub pods: Vec<Pod>,
}

impl Network {
    pub fn build(id: &Id, pods: &[Pod]) -> Result<Self> {
        for part in ["node", "lan", "gw", "svc"] {
            add_netns(&id.netns(part))?;
        }
        underlay(id)?;
        services(id)?;
        node(id)?;
        let mut network = Self::default();
        for pod in pods {
            network.add_pod(id, pod.clone())?;
        }
        settle(id)?;
        Ok(network)
    }

    /// Joins one more pod to the node.
    pub fn add_pod(&mut self, id: &Id, mut pod: Pod) -> Result<()> {
        pod.cgroup = id.kube().join(&pod.name);
        fs::create_dir_all(&pod.cgroup).with_context(|| format!("cannot make {}", pod.cgroup.display()))?;
        if pod.host_network {
            pod.netns = id.netns("node");
        } else {
            pod.number = self.pods.iter().map(|pod| pod.number).max().unwrap_or(0).max(9) + 1;
            pod.netns = id.netns(&pod.name);
            join_pod(id, &pod)?;
        }
        self.pods.push(pod);
        Ok(())
    }
}

/// Runs lines of `ip` in a namespace.
pub fn ip(netns: &str, lines: &str) -> Result<()> {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = ["-n", netns].into_iter().chain(line.split_whitespace()).collect();
        run("ip", &words)?;
    }
    Ok(())
}

/// Sets kernel parameters in a namespace.
pub fn sysctl(netns: &str, settings: &[&str]) -> Result<()> {
    let args: Vec<&str> =
        ["netns", "exec", netns, "sysctl", "-qw"].into_iter().chain(settings.iter().copied()).collect();
    run("ip", &args).map(drop)
}

/// Makes a namespace that says nothing on its own.
pub fn add_netns(name: &str) -> Result<()> {
    run("ip", &["netns", "add", name])?;
    // No duplicate address detection, no generated addresses: what is on the wire is what the lab sends. Devices
    // without an IPv6 address join no group but all-nodes, which is never reported.
    sysctl(
        name,
        &[
            "net.ipv6.conf.default.accept_dad=0",
            "net.ipv6.conf.default.dad_transmits=0",
            "net.ipv6.conf.default.accept_ra=0",
            "net.ipv6.conf.default.router_solicitations=0",
            "net.ipv6.conf.default.addr_gen_mode=1",
            "net.ipv4.ping_group_range=0 2147483647",
        ],
    )?;
    ip(name, "link set lo up")
}

fn underlay(id: &Id) -> Result<()> {
    let (lan, node, gateway) = (id.netns("lan"), id.netns("node"), id.netns("gw"));
    ip(
        &lan,
        &format!(
            "link add br0 type bridge mcast_snooping 0
             link add {NODE_PORT} type veth peer name eth0 netns {node}
             link add gw0 type veth peer name eth0 netns {gateway}
             link set {NODE_PORT} master br0 up
             link set gw0 master br0 up
             link set br0 up"
        ),
    )?;
    // The bridge forwards; it says nothing itself.
    sysctl(&lan, &["net.ipv6.conf.all.disable_ipv6=1"])?;
    ip(
        &node,
        &format!("addr add {NODE4}/24 dev eth0\naddr add {NODE6}/64 dev eth0 nodad\nlink set eth0 up"),
    )?;
    ip(
        &gateway,
        &format!("addr add {GATEWAY4}/24 dev eth0\naddr add {GATEWAY6}/64 dev eth0 nodad\nlink set eth0 up"),
    )
}

fn services(id: &Id) -> Result<()> {
    let (gateway, services) = (id.netns("gw"), id.netns("svc"));
    ip(
        &gateway,
        &format!(
            "link add svc0 type veth peer name eth0 netns {services}
             addr add {BACKEND_SIDE4}/24 dev svc0
             addr add {BACKEND_SIDE6}/64 dev svc0 nodad
             link set svc0 up"
        ),
    )?;
    ip(
        &services,
        &format!(
            "addr add {SERVER4}/24 dev eth0
             addr add {SECOND_SERVER4}/24 dev eth0
             addr add {SERVER6}/64 dev eth0 nodad
             link set eth0 up"
        ),
    )
}

fn node(id: &Id) -> Result<()> {
    let node = id.netns("node");
    sysctl(&node, &["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])?;
    // A node forwards what is not for it: without this default nothing of a pod could ever leave in clear text, and
    // the demo's capture would prove nothing.
    ip(
        &node,
        &format!(
            "addr add {DNS4}/32 dev lo
             addr add {DNS6}/128 dev lo nodad
             route add default via {GATEWAY4}
             -6 route add default via {GATEWAY6}"
        ),
    )?;
    resolver(&node)
}

/// Clients in this namespace ask the lab's DNS server (see ip-netns(8)).
fn resolver(netns: &str) -> Result<()> {
    let dir = PathBuf::from("/etc/netns").join(netns);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    fs::write(dir.join("resolv.conf"), format!("nameserver {DNS4}\noptions timeout:2 attempts:3\n"))
        .with_context(|| format!("cannot write into {}", dir.display()))
}

/// Routed, as most network plugins do it: a host route to the pod, and in the pod a default route to an address that
/// every host end has.
fn join_pod(id: &Id, pod: &Pod) -> Result<()> {
    let (node, netns, host_end) = (id.netns("node"), &pod.netns, host_end(pod));
    let [v4, v6] = pod.addresses();
    add_netns(netns)?;
    resolver(netns)?;
    ip(
        &node,
        &format!(
            "link add {host_end} type veth peer name eth0 netns {netns}
             addr add 169.254.1.1/32 dev {host_end}
             addr add fe80::1/64 dev {host_end} nodad
             link set {host_end} up"
        ),
    )?;
    ip(
        netns,
        &format!(
            "addr add {v4}/32 dev eth0
             addr add {v6}/128 dev eth0 nodad
             addr add fe80::2/64 dev eth0 nodad
             link set eth0 up
             route add 169.254.1.1 dev eth0
             route add default via 169.254.1.1 dev eth0
             -6 route add default via fe80::1 dev eth0"
        ),
    )?;
    ip(&node, &format!("route add {v4}/32 dev {host_end}\n-6 route add {v6}/128 via fe80::2 dev {host_end}"))
}

/// Name of the node's end of a pod's veth.
pub fn host_end(pod: &Pod) -> String {
    format!("pod{}", pod.number)
}

/// Waits until neighbours know each other, and until the kernel has said all that it says on its own about new
/// addresses: reports of multicast groups, repeated for a second or two. They would be in a capture otherwise.
fn settle(id: &Id) -> Result<()> {
    for (from, to) in [("node", GATEWAY4), ("node", GATEWAY6), ("gw", SERVER4), ("gw", SERVER6)] {
        let netns = id.netns(from);
        wait::for_true("neighbours answer", || {
            run("ip", &["netns", "exec", &netns, "ping", "-q", "-c1", "-W1", to]).is_ok()
        })?;
    }
    for part in ["node", "gw"] {
        let netns = id.netns(part);
        wait::for_true("multicast reports end", || {
            let groups = run("ip", &["netns", "exec", &netns, "cat", "/proc/net/igmp6"]).unwrap_or_default();
            // The sixth column is the timer of a report that is still to be sent.
            groups
                .lines()
                .filter(|line| line.contains(" eth0 "))
                .all(|line| line.split_whitespace().nth(5).is_some_and(|timer| timer.parse() == Ok(0)))
        })?;
    }
    Ok(())
}
