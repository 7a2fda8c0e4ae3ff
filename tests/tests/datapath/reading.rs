//! Events and counters as the programs write them.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use aya::maps::{HashMap, Map, MapData};
use enforcer::datapath::{
    Datapath, Op,
    kernel::{Device, KernelNode},
    program::Program,
};
use enforcer_common::{
    Addr,
    config::NodeConfig,
    event::{EventKind, Hook},
    guard::GuardKind,
    maps::name,
    verdict::DropReason,
};

use crate::harness::{Netns, Pins, small};

#[test]
fn a_refused_packet_is_an_event_and_a_count() {
    let (pins, netns, pod) = (Pins::new(), Netns::new(), Netns::new());
    netns.veth("pod0", 70, "eth0");
    netns.ip(&["link", "set", "eth0", "netns", &pod.name]);
    pod.ip(&["addr", "add", "10.9.0.2/24", "dev", "eth0"]);
    pod.ip(&["link", "set", "eth0", "up", "arp", "off"]);
    pod.ip(&["route", "add", "default", "dev", "eth0"]);
    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    let config = NodeConfig {
        node4: Addr::v4(Ipv4Addr::new(198, 19, 0, 1)),
        node6: Addr::NONE,
        enforcer0: 1,
        tunnel0: 1,
        flow_quota: 10,
        pad: 0,
    };
    node.apply(&Op::SetConfig(config)).unwrap();
    node.apply(&Op::SetGuard("198.18.0.0/16".parse().unwrap(), GuardKind::Service)).unwrap();
    let device = Device { netns: Some(netns.path()), name: "pod0".into(), ifindex: 70 };
    node.attach(Program::FromPod, &device).unwrap();

    let socket = pod.run(|| UdpSocket::bind("10.9.0.2:4000").unwrap());
    socket.send_to(b"to an unguarded address", "10.8.0.1:9").unwrap();
    socket.send_to(b"to a guarded one", "198.18.0.7:5432").unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let event = runtime.block_on(async {
        let mut events = node.take_events().unwrap().expect("they are taken once");
        tokio::time::timeout(Duration::from_secs(20), events.next()).await.expect("an event").unwrap()
    });
    assert_eq!(event.source, Addr::v4(Ipv4Addr::new(10, 9, 0, 2)));
    assert_eq!(event.destination, Addr::v4(Ipv4Addr::new(198, 18, 0, 7)));
    assert_eq!((event.source_port.get(), event.destination_port.get()), (4000, 5432));
    assert_eq!(EventKind::from_raw(event.kind), Some(EventKind::Denied));
    assert_eq!(Hook::from_raw(event.hook), Some(Hook::FromPod));
    assert_eq!(DropReason::from_raw(event.reason), Some(DropReason::UnknownWorkload));
    let counters = node.counters().unwrap();
    assert_eq!(counters.drops.get(&DropReason::UnknownWorkload), Some(&1));
    assert_eq!((counters.allowed, counters.events_lost), (0, 0));
    assert!(node.accounts().unwrap().read().unwrap().is_empty());
    assert!(node.flows().unwrap().is_empty());
    assert!(node.take_events().unwrap().is_none());
}

#[test]
fn counts_of_workloads_that_are_gone_make_room_for_others() {
    let pins = Pins::new();
    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    let pinned = MapData::from_pin(pins.path.join("maps").join(name::FLOW_COUNTS)).unwrap();
    let mut counts: HashMap<_, u32, u32> = Map::HashMap(pinned).try_into().unwrap();
    for (workload, flows) in [(1, 5), (2, 0), (3, 7)] {
        counts.insert(workload, flows, 0).unwrap();
    }
    node.forget_workloads(|workload| workload == 3).unwrap();
    let left: Vec<(u32, u32)> = counts.iter().map(Result::unwrap).collect();
    assert_eq!(left, [(3, 7)]);
}
