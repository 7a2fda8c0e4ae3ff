//! Loading, and what a packet costs.

use enforcer_tests::{
    packet::{ACK, Packet},
    prog::{
        kernel::Kernel,
        node::{self, families, v4},
    },
};

#[test]
fn every_program_loads() {
    let mut kernel = Kernel::with_flows(64);
    let mut programs = kernel.names();
    programs.sort();
    for program in [
        "connect4",
        "connect6",
        "from_host",
        "from_pod",
        "from_wire",
        "from_wire_l3",
        "into_tunnel",
        "out_of_tunnel",
        "sendmsg4",
        "sendmsg6",
        "to_pod",
        "to_wire",
        "to_wire_l3",
        "to_workload",
    ] {
        assert!(programs.iter().any(|name| name == program), "{program} is in the object: {programs:?}");
    }
    for program in programs {
        if let Err(error) = kernel.load(&program) {
            panic!("{program}: {error:#}");
        }
    }
}

/// Prints times; asserts none, because a busy machine is not a defect.
#[test]
fn what_a_packet_costs() {
    const REPEAT: u32 = 200_000;
    let mut kernel = node::node();
    for family in families() {
        let name = if family.pod.is_ipv4() { "IPv4" } else { "IPv6" };
        let mut elsewhere = family.out(ACK);
        elsewhere.destination = family.elsewhere;
        let stranger = Packet::tcp(family.client(), (family.service, node::OFFERED).into(), ACK);
        let mut spoofed = family.out(ACK);
        spoofed.source = family.elsewhere;
        for (what, packet) in [
            ("unguarded", elsewhere),
            ("denied", stranger),
            ("spoofed", spoofed),
            ("allowed", family.out(ACK).payload(1000)),
        ] {
            let frame = packet.frame();
            kernel.run("from_pod", &frame);
            let nanoseconds = kernel.time("from_pod", &frame, REPEAT);
            println!("from_pod {name} {what}: {nanoseconds} ns");
        }
        for program in ["to_wire", "from_wire", "to_pod"] {
            let mut packet = family.out(ACK);
            packet.destination = family.elsewhere;
            let nanoseconds = kernel.time(program, &packet.frame(), REPEAT);
            println!("{program} {name} unguarded: {nanoseconds} ns");
        }
    }
    let arp = [vec![0xff; 12], vec![0x08, 0x06], vec![0; 46]].concat();
    println!("from_pod ARP: {} ns", kernel.time("from_pod", &arp, REPEAT));
    assert!(v4().pod.is_ipv4());
}
