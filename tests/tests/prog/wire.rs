//! Nothing guarded passes a wire in clear, whoever made it.

use enforcer_common::{
    Addr, Port,
    config::{EndpointKey, TunnelSeen},
    event::Hook,
    guard::GuardFilter,
    maps::name,
    verdict::DropReason,
};
use enforcer_tests::{
    packet::{ACK, Packet, SYN, Transport, UDP},
    prog::{
        kernel::{DROP, Kernel, NEXT, Outcome},
        node::{self, Family, SLOT, families, ip, silence, v4, v6},
    },
};

use zerocopy::FromBytes as _;

const IPIP: u8 = 4;
const IPV6_IN: u8 = 41;

/// Runs a packet through the program for devices with Ethernet headers and the one for those without.
fn both(kernel: &mut Kernel, program: &str, packet: &Packet) -> [Outcome; 2] {
    [kernel.run(program, &packet.frame()), kernel.run(&format!("{program}_l3"), &packet.bare())]
}

fn passes(kernel: &mut Kernel, program: &str, packet: &Packet) {
    let expected = [packet.frame(), packet.bare()].map(|bytes| Outcome { action: NEXT, bytes });
    assert_eq!(both(kernel, program, packet), expected, "{packet:?}");
}

fn dies(kernel: &mut Kernel, program: &str, packet: &Packet, reason: DropReason) {
    let before = kernel.dropped(reason);
    let expected = [packet.frame(), packet.bare()].map(|bytes| Outcome { action: DROP, bytes });
    assert_eq!(both(kernel, program, packet), expected, "{packet:?}");
    assert_eq!(kernel.dropped(reason), before + 2);
}

fn between(source: std::net::IpAddr, destination: std::net::IpAddr) -> Packet {
    Packet::tcp((source, 1000).into(), (destination, 2000).into(), SYN)
}

#[test]
fn a_guarded_address_never_leaves_in_clear() {
    for family in families() {
        let mut kernel = node::node();
        for address in [family.service, family.free, family.inside] {
            dies(&mut kernel, "to_wire", &between(family.elsewhere, address), DropReason::ClearText);
            dies(&mut kernel, "to_wire", &between(address, family.elsewhere), DropReason::ClearText);
        }
        passes(&mut kernel, "to_wire", &between(family.pod, family.elsewhere));
        let events = kernel.events();
        assert_eq!(events.len(), 12);
        assert!(events.iter().all(|event| event.hook == Hook::ToWire as u8), "{events:?}");
    }
}

#[test]
fn a_node_without_a_filter_guards_all_the_same() {
    let mut kernel = node::node();
    let nothing = GuardFilter::read_from_bytes(&[0; size_of::<GuardFilter>()]).expect("zeros");
    kernel.put(name::GUARD_FILTER, 0, nothing);
    for family in families() {
        dies(&mut kernel, "to_wire", &between(family.pod, family.service), DropReason::ClearText);
        passes(&mut kernel, "to_wire", &between(family.pod, family.elsewhere));
    }
}

#[test]
fn a_granted_pod_has_no_exemption_on_a_wire() {
    for family in families() {
        let mut kernel = node::node();
        kernel.run("from_pod", &family.out(SYN).frame());
        dies(&mut kernel, "to_wire", &family.out(ACK), DropReason::ClearText);
    }
}

#[test]
fn a_guarded_source_never_arrives_in_clear() {
    for family in families() {
        let mut kernel = node::node();
        for address in [family.service, family.inside] {
            dies(&mut kernel, "from_wire", &between(address, family.pod), DropReason::ClearSource);
            let packet = between(address, family.pod).frame();
            assert_eq!(
                kernel.run("to_pod", &packet),
                Outcome { action: DROP, bytes: packet.clone() },
                "nor reaches a pod"
            );
        }
        passes(&mut kernel, "from_wire", &between(family.elsewhere, family.pod));
        // It dies where it would leave: its sender may be a pod that is not known yet.
        passes(&mut kernel, "from_wire", &between(family.elsewhere, family.service));
        let packet = between(family.elsewhere, family.pod).frame();
        assert_eq!(kernel.run("to_pod", &packet), Outcome { action: NEXT, bytes: packet.clone() });
    }
}

/// A packet inside another.
fn wrapped(outer: &Family, inner: &Packet) -> Packet {
    let protocol = if inner.source.is_ipv4() { IPIP } else { IPV6_IN };
    let transport = Transport::Raw { protocol, payload: inner.bare() };
    Packet::new(outer.pod, outer.elsewhere, transport)
}

#[test]
fn an_encapsulated_packet_is_judged_by_what_is_inside() {
    for outer in families() {
        for inner in [v4(), v6()] {
            let mut kernel = node::node();
            let guarded = between(inner.pod, inner.service);
            dies(&mut kernel, "to_wire", &wrapped(&outer, &guarded), DropReason::ClearText);
            let answer = between(inner.service, inner.pod);
            dies(&mut kernel, "to_wire", &wrapped(&outer, &answer), DropReason::ClearText);
            dies(&mut kernel, "from_wire", &wrapped(&outer, &answer), DropReason::ClearSource);
            let harmless = between(inner.pod, inner.elsewhere);
            passes(&mut kernel, "to_wire", &wrapped(&outer, &harmless));
            passes(&mut kernel, "from_wire", &wrapped(&outer, &harmless));
        }
    }
}

#[test]
fn what_claims_to_be_ip_and_is_not_dies_on_every_wire() {
    for family in families() {
        let mut kernel = node::node();
        let mut frame = between(family.pod, family.elsewhere).frame();
        // A version that no such EtherType carries.
        frame[14] = 0x75;
        for program in ["to_wire", "from_wire", "from_pod", "to_pod", "from_host"] {
            assert_eq!(kernel.run(program, &frame).action, DROP, "{program}");
        }
        assert_eq!(kernel.dropped(DropReason::NotParsed), 5);
    }
}

#[test]
fn a_gateways_datagrams_show_that_its_tunnel_answers() {
    for family in families() {
        let mut kernel = node::node();
        silence(&mut kernel, true);
        let silent: TunnelSeen = kernel.at(name::TUNNEL_SEEN, SLOT);
        let endpoint = family.elsewhere;
        let key = EndpointKey {
            address: Addr::from(endpoint),
            port: Port::new(51_820),
            local_port: Port::new(30_000),
            pad: 0,
        };
        kernel.set(name::ENDPOINTS, key, SLOT);
        let other = if family.pod.is_ipv4() { ip("203.0.113.10") } else { ip("2001:db8::10") };
        for (source, port, local) in
            [(other, 51_820, 30_000), (endpoint, 51_821, 30_000), (endpoint, 51_820, 30_001)]
        {
            let packet = Packet::udp((source, port).into(), (family.pod, local).into(), 32);
            passes(&mut kernel, "from_wire", &packet);
            assert_eq!(kernel.at::<TunnelSeen>(name::TUNNEL_SEEN, SLOT), silent, "{packet:?}");
        }
        let packet = Packet::udp((endpoint, 51_820).into(), (family.pod, 30_000).into(), 32);
        passes(&mut kernel, "from_wire", &packet);
        let heard: TunnelSeen = kernel.at(name::TUNNEL_SEEN, SLOT);
        assert!(heard.seen_ns > silent.seen_ns + 5_000_000_000, "{heard:?}");
        assert_eq!(heard.probe_ns, silent.probe_ns);
    }
    assert_eq!(UDP, 17);
}
