//! Links: pinned, replaced in place, in front of strangers' programs and never in their way. What is tested here needs a
//! kernel with tcx.

use aya::{
    Ebpf, EbpfLoader,
    programs::{LinkOrder, SchedClassifier, TcAttachType, tc::TcAttachOptions},
};
use enforcer::datapath::{
    kernel::{Device, Hooks, KernelNode, Options, Target},
    program::Program,
};
use enforcer_common::maps::name;

use crate::{
    filters,
    harness::{Cgroup, Netns, Pins, small},
};

fn device(netns: &Netns, name: &str, ifindex: u32) -> Device {
    Device { netns: Some(netns.path()), name: name.to_owned(), ifindex }
}

/// Ids of the programs at the ingress of a device, in order.
fn ingress(netns: &Netns, name: &str) -> Vec<u32> {
    netns.run(|| {
        let (_, programs) = SchedClassifier::query_tcx(name, TcAttachType::Ingress).unwrap();
        programs.iter().map(aya::programs::ProgramInfo::id).collect()
    })
}

fn id_of(node: &KernelNode, program: Program) -> u32 {
    node.programs().unwrap().into_iter().find(|status| status.program == program).unwrap().id
}

/// Somebody else with a program of their own.
struct Stranger {
    ebpf: Ebpf,
}

impl Stranger {
    fn attach(netns: &Netns, name: &str, order: LinkOrder) -> (Self, u32) {
        let mut loader = EbpfLoader::new();
        for map in name::NODE.iter().chain(name::GATEWAY) {
            loader.map_max_entries(map, 1);
        }
        let mut stranger = Self { ebpf: loader.load(enforcer::BPF_OBJECT).unwrap() };
        let program: &mut SchedClassifier =
            stranger.ebpf.program_mut("from_wire").unwrap().try_into().unwrap();
        program.load().unwrap();
        let options = TcAttachOptions::TcxOrder(order);
        netns.run(|| program.attach_with_options(name, TcAttachType::Ingress, options).unwrap());
        let id = program.info().unwrap().id();
        (stranger, id)
    }
}

#[test]
fn a_restart_puts_the_new_program_into_the_link_that_is_there() {
    let (pins, netns, cgroup) = (Pins::new(), Netns::new(), Cgroup::new());
    netns.veth("pod0", 70, "peer0");
    let pod = device(&netns, "pod0", 70);
    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    node.attach(Program::FromPod, &pod).unwrap();
    node.attach(Program::ToPod, &pod).unwrap();
    node.attach_cgroup(&cgroup.path).unwrap();
    let before = node.attachments().unwrap();
    assert_eq!(before.len(), 6);
    let old = id_of(&node, Program::FromPod);
    assert_eq!(ingress(&netns, "pod0"), [old]);
    drop(node);
    assert_eq!(ingress(&netns, "pod0"), [old], "the program outlives its process");

    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    let new = id_of(&node, Program::FromPod);
    assert_ne!(new, old);
    assert_eq!(ingress(&netns, "pod0"), [new], "adopted when opened");
    let links = |attachments: &[enforcer::datapath::kernel::Attachment]| {
        attachments.iter().map(|attachment| attachment.holder.clone()).collect::<Vec<_>>()
    };
    assert_eq!(links(&node.attachments().unwrap()), links(&before), "no link was made anew");
    node.attach(Program::FromPod, &pod).unwrap();
    node.attach_cgroup(&cgroup.path).unwrap();
    assert_eq!(links(&node.attachments().unwrap()), links(&before), "attaching twice changes nothing");
}

#[test]
fn strangers_programs_before_and_after_ours_stay() {
    let (pins, netns) = (Pins::new(), Netns::new());
    netns.veth("pod0", 70, "peer0");
    let pod = device(&netns, "pod0", 70);
    let (_early, early) = Stranger::attach(&netns, "pod0", LinkOrder::last());
    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    node.attach(Program::FromPod, &pod).unwrap();
    let ours = id_of(&node, Program::FromPod);
    assert_eq!(ingress(&netns, "pod0"), [ours, early], "ours goes in front");
    let (_late, late) = Stranger::attach(&netns, "pod0", LinkOrder::first());
    drop(node);
    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    node.attach(Program::FromPod, &pod).unwrap();
    let ours = id_of(&node, Program::FromPod);
    assert_eq!(ingress(&netns, "pod0"), [late, ours, early], "a restart keeps the order");
    node.detach(Program::FromPod, &pod).unwrap();
    assert_eq!(ingress(&netns, "pod0"), [late, early]);
    node.detach(Program::FromPod, &pod).unwrap();
}

#[test]
fn an_index_that_is_used_again_is_another_device() {
    let (pins, netns) = (Pins::new(), Netns::new());
    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    netns.veth("pod0", 70, "peer0");
    node.attach(Program::FromPod, &device(&netns, "pod0", 70)).unwrap();
    let first = node.attachments().unwrap();
    netns.ip(&["link", "del", "pod0"]);
    assert_eq!(node.attachments().unwrap(), [], "what is gone is not listed");
    netns.veth("pod1", 70, "peer1");
    node.attach(Program::FromPod, &device(&netns, "pod1", 70)).unwrap();
    assert_eq!(ingress(&netns, "pod1"), [id_of(&node, Program::FromPod)]);
    let second = node.attachments().unwrap();
    assert_eq!(second.len(), 1);
    assert_ne!(second[0].holder, first[0].holder);
    let pins_left = std::fs::read_dir(pins.path.join("links")).unwrap().count();
    assert_eq!(pins_left, 1, "the pin of the gone device is collected");
}

#[test]
fn a_renamed_device_keeps_its_link_and_a_dot_in_its_name() {
    let (pins, netns) = (Pins::new(), Netns::new());
    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    netns.veth("pod0", 70, "peer0");
    node.attach(Program::FromPod, &device(&netns, "pod0", 70)).unwrap();
    let before = node.attachments().unwrap();
    netns.ip(&["link", "set", "pod0", "name", "eth0.100"]);
    node.attach(Program::FromPod, &device(&netns, "eth0.100", 70)).unwrap();
    let after = node.attachments().unwrap();
    assert_eq!(after.len(), 1);
    assert_eq!(after[0].holder, before[0].holder);
    assert!(matches!(&after[0].target, Target::Device { name, .. } if name == "eth0.100"));
}

#[test]
fn a_device_that_was_moved_away_gives_its_program_back() {
    let (pins, netns, other) = (Pins::new(), Netns::new(), Netns::new());
    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    netns.veth("veth0", 70, "peer0");
    node.attach(Program::FromWire, &device(&netns, "veth0", 70)).unwrap();
    netns.ip(&["link", "set", "veth0", "netns", &other.name]);
    // The kernel keeps the program on the device; who sees it leave takes it off.
    node.detach(Program::FromWire, &device(&netns, "veth0", 70)).unwrap();
    assert_eq!(ingress(&other, "veth0"), Vec::<u32>::new());
    // The same after its index was given to another device.
    netns.veth("veth1", 71, "peer1");
    node.attach(Program::FromWire, &device(&netns, "veth1", 71)).unwrap();
    netns.ip(&["link", "set", "veth1", "netns", &other.name]);
    netns.veth("veth2", 71, "peer2");
    node.attach(Program::FromWire, &device(&netns, "veth2", 71)).unwrap();
    assert_eq!(ingress(&netns, "veth2"), [id_of(&node, Program::FromWire)]);
    assert_eq!(ingress(&other, "veth1"), Vec::<u32>::new());
}

#[test]
fn another_cgroup_root_replaces_the_one_before() {
    let (pins, first, second) = (Pins::new(), Cgroup::new(), Cgroup::new());
    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    node.attach_cgroup(&first.path).unwrap();
    node.attach_cgroup(&second.path).unwrap();
    let id = enforcer::cgroup::id(&second.path).unwrap();
    let targets: Vec<_> = node.attachments().unwrap().into_iter().map(|one| one.target).collect();
    assert_eq!(targets, vec![Target::Cgroup { id }; 4]);
    drop(second);
    // The kernel lets go of a cgroup's links some time after the cgroup went.
    let pins_left = || std::fs::read_dir(pins.path.join("links")).unwrap().count();
    for _ in 0..500 {
        node.collect_links().unwrap();
        if pins_left() == 0 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("{} pins of a cgroup that is gone are left", pins_left());
}

#[test]
fn a_device_that_becomes_a_pods_keeps_its_links() {
    let (pins, netns) = (Pins::new(), Netns::new());
    netns.veth("pod0", 70, "peer0");
    let pod = device(&netns, "pod0", 70);
    let (_stranger, stranger) = Stranger::attach(&netns, "pod0", LinkOrder::last());
    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    node.attach(Program::FromWire, &pod).unwrap();
    node.attach(Program::ToWire, &pod).unwrap();
    let links = |node: &KernelNode| {
        let attached = node.attachments().unwrap();
        attached
            .iter()
            .map(|one| (one.holder.clone(), one.program))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let before = links(&node);
    node.attach(Program::FromPod, &pod).unwrap();
    assert_eq!(ingress(&netns, "pod0"), [id_of(&node, Program::FromPod), stranger]);
    node.attach(Program::ToPod, &pod).unwrap();
    let after = links(&node);
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "no link was made anew");
    assert_eq!(after.values().copied().collect::<Vec<_>>(), [Program::FromPod, Program::ToPod]);
    drop(node);
    let node = KernelNode::open(&pins.path, &small()).unwrap();
    assert_eq!(links(&node), after, "the pins say what the links hold");
    assert_eq!(ingress(&netns, "pod0"), [id_of(&node, Program::FromPod), stranger]);
}

#[test]
fn a_node_that_is_told_to_attach_the_other_way_leaves_nothing_behind() {
    let (pins, netns) = (Pins::new(), Netns::new());
    netns.veth("pod0", 70, "peer0");
    let pod = device(&netns, "pod0", 70);
    for (hooks, filters) in [(Hooks::Tcx, 0), (Hooks::Clsact, 1), (Hooks::Tcx, 0)] {
        let options = Options { hooks: Some(hooks), ..small() };
        let mut node = KernelNode::open(&pins.path, &options).unwrap();
        node.attach(Program::FromPod, &pod).unwrap();
        assert_eq!(node.attachments().unwrap().len(), 1, "{hooks:?}");
        assert_eq!(filters::ingress(&netns, 70).len(), filters, "{hooks:?}");
    }
}
