//! Paths behind the gateway that carry less than the tunnel does.

use std::net::SocketAddr;

use enforcer_tests::lab::{
    Lab,
    destination::Destination,
    network::{SERVER4, SERVER6, add_netns, ip, sysctl},
    wait,
};

use crate::{
    links::{Offloads, PROBE, forget, learn, set, transfer},
    shared::lab,
};

const PORT: u16 = 9996;
const FAR4: &str = "203.0.113.130";
const FAR6: &str = "2001:db8:2:0:f::2";
const BYTES: usize = 200_000;

/// One more host behind that of the services, which becomes its router, over a link of 1300 bytes. It claims to take
/// larger segments than that. A router asks for its neighbours from an address of the link.
fn add_far(lab: &Lab) {
    let (services, far) = (lab.id.netns("svc"), lab.id.netns("far"));
    add_netns(&far).expect("the namespace is made");
    sysctl(&services, &["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]).expect("it routes");
    let lines = format!(
        "link add far0 mtu 1300 type veth peer name eth0 mtu 1300 netns {far}
         addr add 203.0.113.129/25 dev far0
         addr add 2001:db8:2:0:f::1/80 dev far0 nodad
         addr add fe80::1/64 dev far0 nodad
         addr add fe80::10/64 dev eth0 nodad
         link set far0 up"
    );
    ip(&services, &lines).expect("the router's end is made");
    let lines = format!(
        "addr add {FAR4}/25 dev eth0
         addr add {FAR6}/80 dev eth0 nodad
         link set eth0 up
         route add default via 203.0.113.129 advmss 1460
         -6 route add default via 2001:db8:2:0:f::1 advmss 1440"
    );
    ip(&far, &lines).expect("the far end is made");
    route(lab, "add", "");
}

/// The gateway's routes there.
fn route(lab: &Lab, what: &str, more: &str) {
    let lines = format!(
        "route {what} 203.0.113.128/25 via {SERVER4} {more}
         -6 route {what} 2001:db8:2:0:f::/80 via {SERVER6} {more}"
    );
    ip(&lab.id.netns("gw"), &lines).expect("the gateway has a route");
}

/// What the pod is told, and what its segments come to.
fn assert_learnt(lab: &Lab, targets: [SocketAddr; 2], mtu: u32) {
    for (to, headers) in targets.into_iter().zip([52, 72]) {
        forget(lab);
        assert_eq!(learn(lab, "cart", to, 1350), mtu, "{to}");
        forget(lab);
        let segments = format!("{0} {0}", mtu - headers);
        assert_eq!(transfer(lab, "cart", to, BYTES), segments, "{to}");
    }
}

#[test]
fn what_a_router_behind_the_gateway_says_reaches_the_pod() {
    let mut lab = lab();
    set(&lab, 1500, Offloads::On);
    add_far(&lab);
    let port = PORT.to_string();
    let destination = Destination { name: "far", port: PORT, endpoints: [FAR4, FAR6] };
    let targets = lab.serve(&destination, "far", PROBE, &["bulk-serve", &port], &["cart"]);
    let targets = targets.expect("the destination is there");
    assert_learnt(&lab, targets, 1300);
    // The gateway's own route may carry less; it finds out by itself.
    route(&lab, "change", "mtu 1290");
    for to in targets {
        wait::for_true("the gateway has read its route", || {
            forget(&lab);
            learn(&lab, "cart", to, 1350) == 1290
        })
        .unwrap_or_else(|err| panic!("{to}: {err:#}"));
    }
    assert_learnt(&lab, targets, 1290);
}
