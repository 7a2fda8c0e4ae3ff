//! Tricks with frames: headers outside of the linear part, jumbo links, VLAN tags and the devices that make them.

use std::io::Write as _;

use enforcer_tests::{
    lab::{
        Lab,
        network::{GATEWAY4, NODE_PORT, host_end, ip},
    },
    ways::Way,
};

use crate::{
    instrument::Watch,
    outbound::{Detour, OTHERS, ready, with_others},
    places::{self, Spot},
};

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
    if ip(&lab.id.netns("node"), "link add link eth0 name outer0 type vlan proto 802.1ad id 7").is_ok() {
        attempt_through_devices(&lab, &mut watch);
    } else {
        // Past the capture of the test harness.
        let _ = writeln!(std::io::stderr(), "part skipped: this kernel makes no VLAN devices");
    }
    watch.finish(&mut lab);
}

/// The tags are put in by the devices, or by the uplink for them: both are hooked.
fn attempt_through_devices(lab: &Lab, watch: &mut Watch) {
    let node = lab.id.netns("node");
    let targets = watch.guarded.targets.clone();
    // SYNs would not be found again behind a tag: they carry nothing to be known by.
    let ways = Way::LOCAL.split_first().expect("there are ways").1;
    let lines = "link add link outer0 name inner0 type vlan id 8
         link set outer0 up
         link set inner0 up
         addr add 10.94.0.1/24 dev outer0
         addr add fd94::1/64 dev outer0 nodad
         addr add 10.93.0.1/24 dev inner0
         addr add fd93::1/64 dev inner0 nodad
         neigh add 10.94.0.2 lladdr 02:00:00:00:00:02 dev outer0
         neigh add fd94::2 lladdr 02:00:00:00:00:02 dev outer0
         neigh add 10.93.0.2 lladdr 02:00:00:00:00:02 dev inner0
         neigh add fd93::2 lladdr 02:00:00:00:00:02 dev inner0";
    ip(&node, lines).expect("the devices are made");
    for (device, routers) in [("outer0", ["10.94.0.2", "fd94::2"]), ("inner0", ["10.93.0.2", "fd93::2"])] {
        places::wait_guarded(lab, device);
        let detour = Detour::make(lab, &with_others(&targets), device, routers);
        for spot in [Spot::system(lab), Spot::elsewhere(lab, "beside"), Spot::without_hooks(lab, "plain")] {
            watch.attempt_at(lab, &spot, ways, targets.clone(), OTHERS);
        }
        drop(detour);
    }
    ip(&node, "link delete outer0").expect("the devices are removed");
}
