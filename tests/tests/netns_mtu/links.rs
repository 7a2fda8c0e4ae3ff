//! The lab's links as a test wants them: MTU and offloads, between a pod and the host that serves it.

use std::net::SocketAddr;

use enforcer_tests::lab::{
    Lab, Outcome,
    command::run,
    destination::Destination,
    network::{host_end, ip},
};

use crate::shared::{Turn, lab, probe};

pub const PROBE: &str = env!("CARGO_BIN_EXE_enforcer-lab");
pub const PORT: u16 = 9997;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Offloads {
    /// Devices get large segments with half a checksum.
    On,
    /// Nothing leaves the stack but whole packets.
    Off,
}

/// The lab with a destination that checks every byte.
pub fn ready(mtu: u32, offloads: Offloads) -> (Turn, [SocketAddr; 2]) {
    let mut lab = lab();
    set(&lab, mtu, offloads);
    let port = PORT.to_string();
    let (destination, pods) = (Destination::new("bulk", PORT), ["cart", "hostnet"]);
    let targets = lab.serve(&destination, "svc", PROBE, &["bulk-serve", &port], &pods);
    (lab, targets.expect("the destination is there"))
}

/// What leads from the pod and from the node to the tunnel, and from the tunnel to the server.
pub fn set(lab: &Lab, mtu: u32, offloads: Offloads) {
    let (node, cart) = (lab.id.netns("node"), lab.pod("cart"));
    let own = [
        (cart.netns.clone(), "eth0".to_owned()),
        (node.clone(), host_end(cart)),
        (lab.id.netns("gw"), "svc0".into()),
        (lab.id.netns("svc"), "eth0".into()),
    ];
    for (netns, device) in &own {
        ip(netns, &format!("link set {device} mtu {mtu}")).expect("the MTU is set");
    }
    forget(lab);
    let ours = [(node, "enforcer0".to_owned()), (lab.tunnel_netns(), "tunnel0".into())];
    let word = if offloads == Offloads::On { "on" } else { "off" };
    for (netns, device) in own.iter().chain(&ours) {
        let line = format!(
            "netns exec {netns} ethtool -K {device} tx {word} sg {word} tso {word} gso {word} \
             tx-udp-segmentation {word}"
        );
        run("ip", &line.split_whitespace().collect::<Vec<_>>()).expect("the offloads are set");
    }
}

/// Takes away what pods and servers have learnt of paths.
pub fn forget(lab: &Lab) {
    for netns in [&lab.pod("cart").netns, &lab.id.netns("node"), &lab.id.netns("svc"), &lab.id.netns("gw")] {
        ip(netns, "-4 route flush cache\n-6 route flush cache").expect("the caches are emptied");
    }
}

/// A transfer in both directions: the largest segments, there and back.
pub fn transfer(lab: &Lab, pod: &str, to: SocketAddr, bytes: usize) -> String {
    let outcome = probe(lab, pod, &["bulk-tcp", &to.to_string(), &bytes.to_string()]);
    said(&outcome, &format!("{pod} to {to}"))
}

/// Datagrams of a length and their replies. Returns the MTU that was learnt.
pub fn datagrams(lab: &Lab, pod: &str, to: SocketAddr, [length, count]: [usize; 2], discovery: i32) -> u32 {
    let [length, count, discovery] = [length.to_string(), count.to_string(), discovery.to_string()];
    let outcome = probe(lab, pod, &["bulk-udp", &to.to_string(), &length, &count, &discovery]);
    let said = said(&outcome, &format!("{pod} to {to}, {count} of {length} bytes"));
    let (_attempts, mtu) = said.split_once(' ').expect("attempts and MTU");
    mtu.parse().expect("a number")
}

/// The MTU that the sender of a datagram is told, which must not be fragmented.
pub fn learn(lab: &Lab, pod: &str, to: SocketAddr, length: usize) -> u32 {
    let outcome = probe(lab, pod, &["learn-mtu", &to.to_string(), &length.to_string()]);
    said(&outcome, &format!("{pod} to {to}, {length} bytes")).parse().expect("a number")
}

fn said(outcome: &Outcome, what: &str) -> String {
    assert!(outcome.success, "{what}: {}", outcome.said());
    outcome.stdout.trim().to_owned()
}
