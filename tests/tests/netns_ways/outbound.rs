//! Everything that a pod, a neighbour or the node itself can try, on the node's routes and on routes around them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use enforcer_tests::{
    lab::{
        Lab, Role,
        network::{GATEWAY4, GATEWAY6, NODE4, ip},
    },
    ways::Way,
};

use crate::{
    instrument::Watch,
    places::{self, Spot},
    shared::{Turn, lab},
};

/// The lab with every place in it.
pub fn ready() -> Turn {
    let lab = lab();
    places::add_once(&lab);
    lab
}

/// From every place, all that can be tried there.
fn attempt_everything(lab: &Lab, watch: &mut Watch) {
    watch.attempt(lab, &Spot::pod(lab, "audit"), Way::ALL);
    watch.attempt(lab, &Spot::without_hooks(lab, "audit"), Way::LOCAL);
    // What is granted to these two, they ask for in other protocols and at other ports.
    watch.attempt(lab, &Spot::pod(lab, "cart"), Way::LOCAL);
    watch.attempt(lab, &Spot::pod(lab, "hostnet"), Way::LOCAL);
    watch.attempt(lab, &Spot::system(lab), Way::LOCAL);
    // Sockets that take no other device than the uplink, whatever the routes are.
    for spot in [Spot::system(lab), Spot::pod(lab, "hostnet")] {
        let bound = Spot { title: "bound to the uplink", device: Some("eth0"), ..spot };
        watch.attempt(lab, &bound, Way::LOCAL);
    }
    watch.attempt(lab, &Spot::elsewhere(lab, "beside"), Way::ALL);
    watch.attempt(lab, &Spot::elsewhere(lab, "macvlan"), Way::BESIDE);
    let second =
        Spot { title: "second interface", device: Some("eth1"), ..Spot::without_hooks(lab, "plain") };
    watch.attempt(lab, &second, Way::ALL);
}

/// Where other devices lead beside guarded addresses: nobody has them, but frames to them are seen.
pub const OTHERS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 50)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x50))];

pub fn with_others(targets: &[SocketAddr]) -> Vec<SocketAddr> {
    targets.iter().copied().chain(OTHERS.map(|ip| SocketAddr::new(ip, 5432))).collect()
}

/// Leads guarded addresses of the table around `enforcer0`, as a mistaken administrator or another agent might.
pub struct Detour {
    node: String,
    targets: Vec<SocketAddr>,
    device: &'static str,
    /// Routers that are reached through the device.
    routers: [&'static str; 2],
}

impl Detour {
    /// By the uplink that the node has.
    pub fn by_uplink(lab: &Lab, targets: &[SocketAddr]) -> Self {
        Self::make(lab, targets, "eth0", [GATEWAY4, GATEWAY6])
    }

    pub fn make(lab: &Lab, targets: &[SocketAddr], device: &'static str, routers: [&'static str; 2]) -> Self {
        let detour = Self { node: lab.id.netns("node"), targets: targets.to_vec(), device, routers };
        detour.routes("add").expect("the routes are made");
        detour
    }

    fn routes(&self, what: &str) -> anyhow::Result<()> {
        self.targets.iter().try_for_each(|target| {
            let (family, length) = if target.is_ipv4() { ("-4", 32) } else { ("-6", 128) };
            let router = self.routers[usize::from(target.is_ipv6())];
            let line =
                format!("{family} route {what} {}/{length} via {router} dev {}", target.ip(), self.device);
            ip(&self.node, &line)
        })
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        if let Err(err) = self.routes("delete") {
            eprintln!("a detour stays: {err:#}");
        }
    }
}

#[test]
fn no_way_out_of_the_node_is_in_clear() {
    let mut lab = ready();
    let mut watch = Watch::start(&lab, "ways");
    attempt_everything(&lab, &mut watch);
    watch.finish(&mut lab);
}

#[test]
fn routes_around_enforcer_lead_nowhere() {
    let mut lab = ready();
    let mut watch = Watch::start(&lab, "detours");
    let detour = Detour::by_uplink(&lab, &watch.guarded.targets);
    attempt_everything(&lab, &mut watch);
    drop(detour);
    watch.finish(&mut lab);
}

#[test]
fn nothing_opens_when_the_agent_is_killed_and_while_it_starts() {
    let mut lab = ready();
    let mut watch = Watch::start(&lab, "killed");
    lab.kill(Role::Agent).expect("the agent is killed");
    attempt_everything(&lab, &mut watch);
    let detour = Detour::by_uplink(&lab, &watch.guarded.targets);
    attempt_everything(&lab, &mut watch);
    lab.start(Role::Agent).expect("the agent starts");
    // It is not waited for: these meet it in the middle of what it does first.
    attempt_everything(&lab, &mut watch);
    drop(detour);
    lab.wait_ready().expect("the agent is ready again");
    watch.finish(&mut lab);
}

#[test]
fn devices_that_appear_later_lead_nowhere() {
    let mut lab = ready();
    let (node, lan) = (lab.id.netns("node"), lab.id.netns("lan"));
    let mut watch = Watch::start(&lab, "late");
    places::add_forwarded(&lab, "late", 97);
    let uplink = format!(
        "link add uplink1 type veth peer name node1 netns {lan}
         addr add 192.0.2.12/32 dev uplink1
         addr add 2001:db8:1::12/128 dev uplink1 nodad
         link set uplink1 up
         route add 192.0.2.2/32 dev uplink1
         -6 route add 2001:db8:1::2/128 dev uplink1"
    );
    ip(&node, &uplink).expect("a second uplink is made");
    ip(&lan, "link set node1 master br0 up").expect("it is joined to the underlay");
    let router = "addr add 192.0.2.2/32 dev eth0\naddr add 2001:db8:1::2/128 dev eth0 nodad";
    ip(&lab.id.netns("gw"), router).expect("there is a router behind it");
    watch.also(&lab, &lan, "node1");
    for device in ["late0", "uplink1"] {
        places::wait_guarded(&lab, device);
    }
    let late = Spot::elsewhere(&lab, "late");
    watch.attempt(&lab, &late, Way::ALL);
    let targets = watch.guarded.targets.clone();
    let detour = Detour::make(&lab, &with_others(&targets), "uplink1", ["192.0.2.2", "2001:db8:1::2"]);
    watch.attempt_at(&lab, &late, Way::ALL, targets.clone(), OTHERS);
    watch.attempt_at(&lab, &Spot::system(&lab), Way::LOCAL, targets, OTHERS);
    drop(detour);
    watch.finish(&mut lab);
    ip(&node, "link delete uplink1\nlink delete late0").expect("the devices are removed");
    let router = "addr delete 192.0.2.2/32 dev eth0\naddr delete 2001:db8:1::2/128 dev eth0";
    ip(&lab.id.netns("gw"), router).expect("the router is removed");
}

/// Outside, its packets are between the node and a stranger, and the guarded address is deeper than any hook looks: what
/// must stop them is the guard of the overlay's own device.
#[test]
fn an_overlay_that_appears_later_leads_nowhere() {
    let mut lab = ready();
    let node = lab.id.netns("node");
    let mut watch = Watch::start(&lab, "overlay");
    let overlay = format!(
        "link add overlay0 type vxlan id 7 local {NODE4} remote {GATEWAY4} dstport 4789 dev eth0
         addr add 10.95.0.1/24 dev overlay0
         addr add fd95::1/64 dev overlay0 nodad
         link set overlay0 up
         neigh add 10.95.0.2 lladdr 02:00:00:00:00:02 dev overlay0
         neigh add fd95::2 lladdr 02:00:00:00:00:02 dev overlay0"
    );
    ip(&node, &overlay).expect("an overlay is made");
    places::wait_guarded(&lab, "overlay0");
    let targets = watch.guarded.targets.clone();
    let detour = Detour::make(&lab, &with_others(&targets), "overlay0", ["10.95.0.2", "fd95::2"]);
    // SYNs would not be found again in there: they carry nothing to be known by.
    let ways = Way::LOCAL.split_first().expect("there are ways").1;
    for spot in [Spot::system(&lab), Spot::elsewhere(&lab, "beside"), Spot::without_hooks(&lab, "plain")] {
        watch.attempt_at(&lab, &spot, ways, targets.clone(), OTHERS);
    }
    drop(detour);
    watch.finish(&mut lab);
    ip(&node, "link delete overlay0").expect("the overlay is removed");
}

/// ClusterIPs, one that leads to a service and one that leads to an address that nobody guards.
const CLUSTER: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x10))];
const CLUSTER_OTHER: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 96, 0, 11)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x11))];

/// As kube-proxy does it, for pods and for the node itself.
fn translate(lab: &Lab, from: IpAddr, to: IpAddr) {
    let program = if from.is_ipv4() { "iptables-legacy" } else { "ip6tables-legacy" };
    for chain in ["PREROUTING", "OUTPUT"] {
        let line = format!("-t nat -A {chain} -d {from} -j DNAT --to-destination {to}");
        let words: Vec<&str> = line.split(' ').collect();
        let outcome = lab.elsewhere("node").run(program, &words).expect("iptables starts");
        assert!(outcome.success, "{program} {line}: {}", outcome.said());
    }
}

#[test]
fn a_service_that_the_node_translates_to_a_guarded_address_leads_nowhere() {
    let mut lab = ready();
    let mut watch = Watch::start(&lab, "translated");
    let guarded = watch.guarded.targets.clone();
    let gateway = [GATEWAY4, GATEWAY6].map(|ip| ip.parse().expect("an address"));
    for family in 0..2 {
        translate(&lab, CLUSTER[family], guarded[family].ip());
        translate(&lab, CLUSTER_OTHER[family], gateway[family]);
    }
    let targets = CLUSTER.map(|ip| SocketAddr::new(ip, 5432)).to_vec();
    let ways = [Way::Tcp, Way::Udp, Way::UdpConnected, Way::Ping, Way::RawUnknown];
    let attempt = |watch: &mut Watch| {
        // Also the granted pod: whose packet it was cannot be told any more.
        for pod in ["audit", "cart", "hostnet"] {
            watch.attempt_at(&lab, &Spot::pod(&lab, pod), &ways, targets.clone(), CLUSTER_OTHER);
        }
        let others = [Spot::system(&lab), Spot::elsewhere(&lab, "beside")];
        for spot in others {
            watch.attempt_at(&lab, &spot, &ways, targets.clone(), CLUSTER_OTHER);
        }
    };
    attempt(&mut watch);
    let detour = Detour::by_uplink(&lab, &guarded);
    attempt(&mut watch);
    drop(detour);
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        let outcome = lab.elsewhere("node").run(program, &["-t", "nat", "-F"]).expect("iptables starts");
        assert!(outcome.success, "{}", outcome.said());
    }
    watch.finish(&mut lab);
}
