//! Tricks with frames: headers outside of the linear part, jumbo links, VLAN tags.

use enforcer_tests::{
    lab::{
        Lab,
        network::{GATEWAY4, NODE_PORT, host_end, ip},
    },
    ways::Way,
};

use crate::{instrument::Watch, outbound::ready, places::Spot};

/// Every link from two pods to the gateway.
fn set_mtu(lab: &Lab, mtu: u32) {
    let (node, lan, audit) = (lab.id.netns("node"), lab.id.netns("lan"), lab.pod("audit"));
    let host_end = host_end(audit);
    let links = [
        (&lan, NODE_PORT),
        (&lan, "gw0"),
        (&lan, "br0"),
        (&lab.id.netns("gw"), "eth0"),
        (&node, "eth0"),
        (&node, &host_end),
        (&audit.netns, "eth0"),
        (&node, "beside0"),
        (&lab.id.netns("beside"), "eth0"),
    ];
    for (netns, device) in links {
        ip(netns, &format!("link set {device} mtu {mtu}")).expect("the MTU is set");
    }
}

#[test]
fn headers_outside_of_the_linear_part_are_found() {
    let mut lab = ready();
    set_mtu(&lab, 9000);
    let mut watch = Watch::start(&lab, "non-linear");
    for spot in [Spot::pod(&lab, "audit"), Spot::elsewhere(&lab, "beside"), Spot::system(&lab)] {
        // So that the hardware address of its router is known.
        let _ = spot.place.run("ping", &["-c1", "-W1", GATEWAY4]);
        watch.attempt(&lab, &spot, Way::JUMBO);
    }
    watch.finish(&mut lab);
    set_mtu(&lab, 1500);
}

#[test]
fn tagged_frames_leave_the_node_for_nobody_who_is_guarded() {
    let mut lab = ready();
    let mut watch = Watch::start(&lab, "tagged");
    watch.attempt(&lab, &Spot::system(&lab), Way::UPLINK);
    watch.finish(&mut lab);
}
