//! Programs in filters of `clsact`, as kernels without tcx have them: replaced in place, in front of strangers'.

use enforcer::{
    datapath::{
        kernel::{Device, Hooks, KernelNode, Options},
        program::Program,
    },
    netlink::filters::{self, Filter, Hook},
};

use crate::harness::{Netns, Pins, small};

fn with_filters() -> Options {
    Options { hooks: Some(Hooks::Clsact), ..small() }
}

fn device(netns: &Netns, name: &str, ifindex: u32) -> Device {
    Device { netns: Some(netns.path()), name: name.to_owned(), ifindex }
}

/// Filters of what comes in on a device.
pub fn ingress(netns: &Netns, ifindex: u32) -> Vec<Filter> {
    netns.run(|| filters::filters(ifindex, Hook::Ingress).unwrap())
}

/// Names and programs, in the order in which they run.
fn programs(netns: &Netns, ifindex: u32) -> Vec<(String, u32)> {
    ingress(netns, ifindex).into_iter().map(|filter| (filter.name, filter.program_id)).collect()
}

fn id_of(node: &KernelNode, program: Program) -> u32 {
    node.programs().unwrap().into_iter().find(|status| status.program == program).unwrap().id
}

#[test]
fn a_restart_puts_the_new_program_into_the_filter_that_is_there() {
    let (pins, netns) = (Pins::new(), Netns::new());
    netns.veth("pod0", 70, "peer0");
    let pod = device(&netns, "pod0", 70);
    let mut node = KernelNode::open(&pins.path, &with_filters()).unwrap();
    node.attach(Program::FromPod, &pod).unwrap();
    node.attach(Program::ToPod, &pod).unwrap();
    let before = ingress(&netns, 70);
    let old = id_of(&node, Program::FromPod);
    assert_eq!(programs(&netns, 70), [("enforcer".to_owned(), old)]);
    drop(node);
    assert_eq!(ingress(&netns, 70), before, "the program outlives its process");

    let mut node = KernelNode::open(&pins.path, &with_filters()).unwrap();
    let new = id_of(&node, Program::FromPod);
    assert_ne!(new, old);
    let adopted = Filter { program_id: new, ..before[0].clone() };
    assert_eq!(ingress(&netns, 70), std::slice::from_ref(&adopted), "adopted when opened, in its old place");
    node.attach(Program::FromPod, &pod).unwrap();
    assert_eq!(ingress(&netns, 70), [adopted], "attaching twice changes nothing");
    let attached: Vec<_> = node.attachments().unwrap().into_iter().map(|one| one.program).collect();
    assert_eq!(attached, [Program::FromPod, Program::ToPod]);
}

#[test]
fn strangers_filters_before_and_after_ours_stay() {
    let (pins, strange, netns) = (Pins::new(), Pins::new(), Netns::new());
    netns.veth("pod0", 70, "peer0");
    let pod = device(&netns, "pod0", 70);
    // A program that was pinned by somebody else stands for any program of theirs.
    let stranger = KernelNode::open(&strange.path, &small()).unwrap();
    let pinned = strange.path.join("progs/to_pod");
    let add = |priority: &str| {
        netns.tc(&["qdisc", "replace", "dev", "pod0", "clsact"]);
        let pinned = pinned.to_str().unwrap();
        netns.tc(&[
            "filter", "add", "dev", "pod0", "ingress", "prio", priority, "bpf", "da", "pinned", pinned,
        ]);
    };
    add("1");
    add("7");
    let theirs = ingress(&netns, 70);
    assert_eq!(theirs.len(), 2);
    let mut node = KernelNode::open(&pins.path, &with_filters()).unwrap();
    node.attach(Program::FromPod, &pod).unwrap();
    let ours = id_of(&node, Program::FromPod);
    let all = programs(&netns, 70);
    assert_eq!(all.first(), Some(&("enforcer".to_owned(), ours)), "ours goes in front");
    assert_eq!(ingress(&netns, 70)[1..], theirs);
    drop(node);
    let mut node = KernelNode::open(&pins.path, &with_filters()).unwrap();
    assert_eq!(ingress(&netns, 70)[1..], theirs, "a restart leaves them alone");
    node.detach(Program::FromPod, &pod).unwrap();
    assert_eq!(ingress(&netns, 70), theirs);
    node.detach(Program::FromPod, &pod).unwrap();
    drop(stranger);
}

#[test]
fn a_device_that_becomes_a_pods_gets_the_other_program_in_the_same_filter() {
    let (pins, netns) = (Pins::new(), Netns::new());
    netns.veth("veth0", 70, "peer0");
    let veth = device(&netns, "veth0", 70);
    let mut node = KernelNode::open(&pins.path, &with_filters()).unwrap();
    node.attach(Program::FromWire, &veth).unwrap();
    let wire = ingress(&netns, 70);
    node.attach(Program::FromPod, &veth).unwrap();
    let pod = Filter { program_id: id_of(&node, Program::FromPod), ..wire[0].clone() };
    assert_eq!(ingress(&netns, 70), [pod]);
    let attached: Vec<_> = node.attachments().unwrap().into_iter().map(|one| one.program).collect();
    assert_eq!(attached, [Program::FromPod]);
}

#[test]
fn pins_of_devices_that_are_gone_are_collected() {
    let (pins, netns) = (Pins::new(), Netns::new());
    let mut node = KernelNode::open(&pins.path, &with_filters()).unwrap();
    netns.veth("pod0", 70, "peer0");
    node.attach(Program::FromPod, &device(&netns, "pod0", 70)).unwrap();
    netns.ip(&["link", "del", "pod0"]);
    assert_eq!(node.attachments().unwrap(), [], "what is gone is not listed");
    netns.veth("pod1", 70, "peer1");
    node.attach(Program::FromPod, &device(&netns, "pod1", 70)).unwrap();
    let names: Vec<_> = node.attachments().unwrap().into_iter().map(|one| one.target.to_string()).collect();
    assert_eq!(names.len(), 1);
    assert!(names[0].starts_with("device pod1 "), "{names:?}");
    netns.ip(&["link", "del", "pod1"]);
    node.collect_links().unwrap();
    let pins_left = std::fs::read_dir(pins.path.join("filters")).unwrap().count();
    assert_eq!(pins_left, 0);
}
