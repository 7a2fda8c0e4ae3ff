//! Programs of strangers that hang where ours do, by other means than ours: filters of clsact, programs of a cgroup.
//! They run before, beside and after ours, and no operation of ours takes one away.

use std::{fs::File, process::Command};

use aya::{
    Ebpf, EbpfLoader,
    programs::{
        CgroupAttachMode, CgroupSockAddr, SchedClassifier, TcAttachType,
        tc::{self, NlOptions, TcAttachOptions},
    },
    sys::{Stats, enable_stats},
};
use enforcer::datapath::{
    kernel::{Device, KernelNode},
    program::Program,
};
use enforcer_common::maps::name;
use enforcer_tests::ways;

use crate::harness::{Cgroup, Netns, Pins, small};

fn object() -> Ebpf {
    let mut loader = EbpfLoader::new();
    for map in name::NODE.iter().chain(name::GATEWAY).chain(name::SHARED) {
        loader.map_max_entries(map, 1);
    }
    // The size of a ring buffer is in bytes, of which it wants some.
    loader.map_max_entries(name::EVENTS, 4096).load(enforcer::BPF_OBJECT).unwrap()
}

/// A filter at the ingress of a device that passes everything on.
fn filter(netns: &Netns, device: &str, priority: u16) -> Ebpf {
    let mut stranger = object();
    let program: &mut SchedClassifier = stranger.program_mut("from_wire").unwrap().try_into().unwrap();
    program.load().unwrap();
    let options = TcAttachOptions::Netlink(NlOptions { priority, ..NlOptions::default() });
    netns.run(|| {
        let _there_already = tc::qdisc_add_clsact(device);
        program.attach_with_options(device, TcAttachType::Ingress, options).unwrap();
    });
    stranger
}

fn on_cgroup(cgroup: &Cgroup) -> Ebpf {
    let mut stranger = object();
    let program: &mut CgroupSockAddr = stranger.program_mut("connect4").unwrap().try_into().unwrap();
    program.load().unwrap();
    // A link, which is one of many whatever the mode says.
    program.attach(File::open(&cgroup.path).unwrap(), CgroupAttachMode::Single).unwrap();
    stranger
}

fn runs(stranger: &Ebpf, program: &str) -> u64 {
    stranger.program(program).unwrap().info().unwrap().run_count()
}

/// Does something and asserts that every one of these programs has run meanwhile.
fn assert_run(strangers: &[&Ebpf], program: &str, what: &str, something: impl FnOnce()) {
    let before: Vec<u64> = strangers.iter().map(|stranger| runs(stranger, program)).collect();
    something();
    for (stranger, before) in strangers.iter().zip(before) {
        assert!(runs(stranger, program) > before, "{what}: {program} of a stranger has run");
    }
}

#[test]
fn filters_of_clsact_before_and_after_ours_keep_running() {
    let _counting = enable_stats(Stats::RunTime).unwrap();
    let (pins, netns) = (Pins::new(), Netns::new());
    netns.veth("pod0", 70, "peer0");
    let pod = Device { netns: Some(netns.path()), name: "pod0".to_owned(), ifindex: 70 };
    // A protocol that nobody judges.
    let mut frame = vec![0xff; 12];
    frame.extend([0x88, 0xb5]);
    frame.resize(64, 0);
    let send = || netns.run(|| ways::inject("peer0", &frame, false).unwrap());

    let early = filter(&netns, "pod0", 1);
    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    node.attach(Program::FromPod, &pod).unwrap();
    let late = filter(&netns, "pod0", 9);
    assert_run(&[&early, &late], "from_wire", "attached", send);
    drop(node);
    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    node.attach(Program::FromPod, &pod).unwrap();
    assert_run(&[&early, &late], "from_wire", "restarted", send);
    node.attach(Program::FromWire, &pod).unwrap();
    node.detach(Program::FromPod, &pod).unwrap();
    assert_run(&[&early, &late], "from_wire", "another part", send);
    node.detach(Program::FromWire, &pod).unwrap();
    node.collect_links().unwrap();
    assert_run(&[&early, &late], "from_wire", "detached", send);
}

#[test]
fn programs_of_a_cgroup_before_and_after_ours_keep_running() {
    let _counting = enable_stats(Stats::RunTime).unwrap();
    let (pins, cgroup, other) = (Pins::new(), Cgroup::new(), Cgroup::new());
    // Nobody listens there; that the call is made is enough.
    let connect = || {
        let line = format!(
            "echo 0 >{}/cgroup.procs && exec bash -c 'exec 3<>/dev/tcp/127.0.0.1/9' 2>/dev/null",
            cgroup.path.display()
        );
        let _refused = Command::new("sh").args(["-c", &line]).status().unwrap();
    };
    let early = on_cgroup(&cgroup);
    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    node.attach_cgroup(&cgroup.path).unwrap();
    let late = on_cgroup(&cgroup);
    assert_run(&[&early, &late], "connect4", "attached", connect);
    drop(node);
    let mut node = KernelNode::open(&pins.path, &small()).unwrap();
    node.attach_cgroup(&cgroup.path).unwrap();
    assert_run(&[&early, &late], "connect4", "restarted", connect);
    node.attach_cgroup(&other.path).unwrap();
    assert_run(&[&early, &late], "connect4", "gone to another cgroup", connect);
    let ours = node.attachments().unwrap();
    for attachment in &ours {
        node.detach_attachment(attachment).unwrap();
    }
    assert_run(&[&early, &late], "connect4", "detached", connect);
}
