//! The programs that ask whose socket it is, on real sockets: in a cgroup of the test's own and in network namespaces
//! without a single device that is up, so that no packet can leave whatever is decided. Needs root.

#[path = "prog_socket/place.rs"]
mod place;

use enforcer_common::{
    event::{EventKind, Hook},
    grant::Grant,
    maps::name,
    verdict::DropReason,
    workload::{NOT_GUARDABLE, Workload},
};
use enforcer_tests::{
    packet::{ACK, FIN, Packet, RST, SYN, TCP, UDP},
    prog::{
        kernel::{DROP, Kernel, NEXT, Outcome, REDIRECT},
        node::{self, CONNECTION, Family, OFFERED, PORT, WORKLOAD, families, grant, silence, workload},
    },
};
use place::{Call, Place, attempt};

/// What a call that passes the hook comes to where there is no route.
const PASSED: i32 = libc::ENETUNREACH;

fn calls(place: &Place, family: &Family, port: u16, wanted: [i32; 3]) {
    let [tcp, udp_connect, udp_send] = wanted;
    for (call, wanted) in
        [(Call::TcpConnect, tcp), (Call::UdpConnect, udp_connect), (Call::UdpSend, udp_send)]
    {
        for mapped in [false, true] {
            if mapped && !family.service.is_ipv4() {
                continue;
            }
            let got = match place.run(move |to| attempt(call, to, mapped), (family.service, port).into()) {
                // IPv6 misses its own address before it misses the route.
                libc::EADDRNOTAVAIL => PASSED,
                got => got,
            };
            assert_eq!(got, wanted, "{call:?} to {} port {port}, mapped: {mapped}", family.service);
        }
    }
}

fn ready(place: &mut Place) -> Kernel {
    let mut kernel = node::node();
    for program in ["connect4", "connect6", "sendmsg4", "sendmsg6"] {
        kernel.attach(program, &place.cgroup).expect("the program attaches");
    }
    kernel
}

#[test]
fn sockets_are_told_apart() {
    let mut place = Place::new();
    a_process_is_refused_what_its_pod_is_not_granted(&mut place);
    what_the_wire_decides_passes(&mut place);
    a_silent_tunnel_is_host_unreachable(&mut place);
    a_pod_that_cannot_be_guarded_is_refused_every_call(&mut place);
    pods_of_the_hosts_namespace_are_told_apart_by_cgroup(&mut place);
    packets_of_host_sockets_are_told_apart_by_cgroup(&place);
    the_stacks_own_packets_pass_where_they_end_a_flow(&place);
}

fn a_process_is_refused_what_its_pod_is_not_granted(place: &mut Place) {
    let mut kernel = ready(place);
    kernel.set(name::NETNS, place.cookie, workload());
    for family in families() {
        calls(place, &family, PORT, [PASSED; 3]);
        assert_eq!(kernel.events(), [], "what is granted is no news");
        calls(place, &family, OFFERED, [libc::EPERM, PASSED, libc::EPERM]);
        let events = kernel.events();
        let mapped = if family.service.is_ipv4() { 2 } else { 1 };
        assert_eq!(events.len(), 2 * mapped, "TCP and the datagram: {events:?}");
        for event in events {
            assert_eq!(event.destination.ip(), family.service);
            assert_eq!((event.workload, event.kind), (WORKLOAD, EventKind::Denied as u8));
            assert_eq!((event.netns, event.pid), (place.cookie, std::process::id()));
            let (hook, reason) = match event.protocol {
                TCP => (Hook::Connect, DropReason::NoGrant),
                _ => (Hook::Sendmsg, DropReason::PortNotOffered),
            };
            assert_eq!((event.hook, event.reason), (hook as u8, reason as u8));
            assert_ne!(event.comm, [0; 16]);
        }
        kernel.set(name::GRANTS, family.grant_key(TCP), Grant { valid_until_ns: 1, ..grant() });
        calls(place, &family, PORT, [libc::EPERM, PASSED, PASSED]);
        let events = kernel.events();
        let expired = (DropReason::Expired as u8, CONNECTION);
        assert!(events.iter().all(|event| (event.reason, event.connection) == expired), "{events:?}");
    }
}

fn what_the_wire_decides_passes(place: &mut Place) {
    let mut kernel = ready(place);
    for family in families() {
        // Nobody knows the process.
        calls(place, &family, OFFERED, [PASSED; 3]);
    }
    kernel.set(name::NETNS, place.cookie, workload());
    for family in families() {
        for protocol in [TCP, UDP] {
            kernel.set(name::GRANTS, family.grant_key(protocol), Grant { gateways: 0, ..grant() });
        }
        calls(place, &family, PORT, [PASSED; 3]);
        let elsewhere = Family { service: family.elsewhere, ..family };
        calls(place, &elsewhere, PORT, [PASSED; 3]);
    }
    assert_eq!(kernel.events(), []);
}

fn a_silent_tunnel_is_host_unreachable(place: &mut Place) {
    let mut kernel = ready(place);
    kernel.set(name::NETNS, place.cookie, workload());
    for family in families() {
        silence(&mut kernel, true);
        calls(place, &family, PORT, [libc::EHOSTUNREACH, PASSED, libc::EHOSTUNREACH]);
        silence(&mut kernel, false);
        calls(place, &family, PORT, [PASSED; 3]);
    }
    assert_eq!(kernel.dropped(DropReason::TunnelDown), 6);
}

fn a_pod_that_cannot_be_guarded_is_refused_every_call(place: &mut Place) {
    let mut kernel = ready(place);
    kernel.set(name::NETNS, place.cookie, Workload { flags: NOT_GUARDABLE, ..workload() });
    for family in families() {
        calls(place, &family, PORT, [libc::EPERM; 3]);
        let elsewhere = Family { service: family.elsewhere, ..family };
        calls(place, &elsewhere, PORT, [PASSED; 3]);
    }
}

fn pods_of_the_hosts_namespace_are_told_apart_by_cgroup(place: &mut Place) {
    let mut kernel = ready(place);
    // The process lies deeper than the cgroup that was written down.
    kernel.set(name::CGROUPS, place.pod_cgroup, workload());
    for family in families() {
        calls(place, &family, PORT, [PASSED; 3]);
        calls(place, &family, OFFERED, [libc::EPERM, PASSED, libc::EPERM]);
    }
    // The deepest one counts.
    kernel.set(name::CGROUPS, place.container_cgroup, Workload { id: WORKLOAD + 1, ..workload() });
    for family in families() {
        calls(place, &family, PORT, [libc::EPERM, PASSED, libc::EPERM]);
    }
    let events = kernel.events();
    assert!(events.iter().all(|event| event.cgroup == place.container_cgroup), "{events:?}");
}

/// What the stack sends for sockets that are gone has no cgroup, or that of the stack's own sockets: the root.
fn the_stacks_own_packets_pass_where_they_end_a_flow(place: &Place) {
    for family in families() {
        let mut kernel = node::node();
        kernel.set(name::CGROUPS, place.pod_cgroup, workload());
        assert_eq!(kernel.run("from_host", &family.out(SYN).frame()).action, NEXT);
        kernel.remove::<_, Workload>(name::CGROUPS, &place.pod_cgroup);
        for flags in [ACK, RST, RST | ACK] {
            let frame = family.out(flags).frame();
            let expected = Outcome { action: DROP, bytes: frame.clone() };
            assert_eq!(
                kernel.run("from_host", &frame),
                expected,
                "a process of another cgroup is not the stack"
            );
        }
        place.in_root(|| {
            let mut pass = |packet: &Packet, action| {
                let frame = packet.frame();
                let expected = Outcome { action, bytes: frame.clone() };
                assert_eq!(kernel.run("from_host", &frame), expected, "{packet:?}");
            };
            pass(&family.out(ACK), NEXT);
            pass(&family.out(ACK).payload(1), DROP);
            pass(&family.out(SYN), DROP);
            pass(&family.out(FIN | ACK), DROP);
            pass(&Packet::udp(family.client(), family.server(), 1), DROP);
            pass(&Packet::tcp((family.pod, 40_001).into(), family.server(), ACK), DROP);
            pass(&Packet::tcp(family.client(), (family.service, OFFERED).into(), RST), DROP);
            pass(&family.out(RST), NEXT);
            kernel.remove::<_, Grant>(name::GRANTS, &family.grant_key(TCP));
            let mut pass = |packet: &Packet, action| {
                assert_eq!(kernel.run("from_host", &packet.frame()).action, action, "{packet:?}");
            };
            pass(&family.out(ACK), DROP);
            pass(&family.out(RST), NEXT);
        });
        // A pod's flow is none of the host's.
        let mut kernel = node::node();
        assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
        place.in_root(|| assert_eq!(kernel.run("from_host", &family.out(ACK).frame()).action, DROP));
    }
}

/// A test run's packets have a socket of the calling process.
fn packets_of_host_sockets_are_told_apart_by_cgroup(place: &Place) {
    for family in families() {
        let mut kernel = node::node();
        let frame = family.out(SYN).frame();
        assert_eq!(
            kernel.run("from_host", &frame),
            Outcome { action: DROP, bytes: frame.clone() },
            "nobody knows the cgroup"
        );
        assert_eq!(kernel.dropped(DropReason::UnknownWorkload), 1);
        kernel.set(name::CGROUPS, place.pod_cgroup, workload());
        assert_eq!(kernel.run("from_host", &frame), Outcome { action: NEXT, bytes: frame.clone() });
        let flow = node::flow(&mut kernel, &family, TCP).expect("a flow");
        assert_eq!((flow.workload, flow.ifindex), (WORKLOAD, 0), "its replies are the local stack's");

        let mut spoofed = family.out(SYN);
        spoofed.source = family.elsewhere;
        assert_eq!(kernel.run("from_host", &spoofed.frame()).action, DROP);
        assert_eq!(kernel.dropped(DropReason::Spoofed), 1);
        let denied = Packet::tcp(family.client(), (family.service, OFFERED).into(), SYN);
        assert_eq!(kernel.run("from_host", &denied.frame()).action, DROP);
        assert_eq!(kernel.dropped(DropReason::NoGrant), 1);
        let event = kernel.events().pop().expect("an event");
        assert_eq!((event.workload, event.cgroup), (WORKLOAD, place.container_cgroup));

        let elsewhere = Packet::tcp(family.client(), (family.elsewhere, PORT).into(), ACK).frame();
        let expected = Outcome { action: NEXT, bytes: elsewhere.clone() };
        assert_eq!(kernel.run("from_host", &elsewhere), expected);
    }
}
