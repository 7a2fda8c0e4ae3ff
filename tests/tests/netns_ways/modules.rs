//! Ways that only kernels with certain modules have. Not every machine's kernel has them; those that the tier `vm` boots
//! do, and it runs what is ignored here.

use enforcer_tests::{
    lab::{Lab, network::ip},
    ways::Way,
};

use crate::{
    instrument::Watch,
    outbound::{Detour, OTHERS, ready, with_others},
    places::{self, Spot},
};

/// The tags are put in by the devices, or by the uplink for them: both are hooked.
#[test]
#[ignore = "vm: needs 8021q"]
fn vlan_devices_lead_nowhere() {
    let mut lab = ready();
    let node = lab.id.netns("node");
    let mut watch = Watch::start(&lab, "vlan");
    // One within the other: frames of `inner0` have two tags.
    let lines = "link add link eth0 name outer0 type vlan proto 802.1ad id 7
         link add link outer0 name inner0 type vlan id 8
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
    let targets = watch.guarded.targets.clone();
    // SYNs would not be found again behind a tag: they carry nothing to be known by.
    let ways = Way::LOCAL.split_first().expect("there are ways").1;
    for (device, routers) in [("outer0", ["10.94.0.2", "fd94::2"]), ("inner0", ["10.93.0.2", "fd93::2"])] {
        places::wait_guarded(&lab, device);
        let detour = Detour::make(&lab, &with_others(&targets), device, routers);
        for spot in [Spot::system(&lab), Spot::elsewhere(&lab, "beside"), Spot::without_hooks(&lab, "plain")]
        {
            watch.attempt_at(&lab, &spot, ways, targets.clone(), OTHERS);
        }
        drop(detour);
    }
    watch.finish(&mut lab);
    ip(&node, "link delete outer0").expect("the devices are removed");
}

/// From every place whose sockets can be of any protocol.
fn attempt_with_sockets(lab: &Lab, watch: &mut Watch) {
    let uplink = Spot { title: "bound to the uplink", device: Some("eth0"), ..Spot::system(lab) };
    let second =
        Spot { title: "second interface", device: Some("eth1"), ..Spot::without_hooks(lab, "plain") };
    for spot in [
        Spot::pod(lab, "audit"),
        Spot::without_hooks(lab, "audit"),
        // What is granted to these two, they ask for in other protocols.
        Spot::pod(lab, "cart"),
        Spot::pod(lab, "hostnet"),
        Spot::system(lab),
        uplink,
        Spot::elsewhere(lab, "beside"),
        Spot::elsewhere(lab, "macvlan"),
        second,
    ] {
        watch.attempt(lab, &spot, Way::MODULES);
    }
}

#[test]
#[ignore = "vm: needs sctp and dccp"]
fn sockets_of_sctp_and_dccp_lead_nowhere() {
    let mut lab = ready();
    let mut watch = Watch::start(&lab, "modules");
    attempt_with_sockets(&lab, &mut watch);
    let detour = Detour::by_uplink(&lab, &watch.guarded.targets);
    attempt_with_sockets(&lab, &mut watch);
    drop(detour);
    watch.finish(&mut lab);
}
