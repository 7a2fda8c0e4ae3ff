//! Answers to a pod: resets with the exact sequence number, ICMP errors with the packet they are about.

use std::net::IpAddr;

use enforcer_common::{
    Addr,
    config::{Tunnel, TunnelSeen},
    event::EventKind,
    flow::{Flow, FlowState},
    grant::Grant,
    maps::name,
    verdict::DropReason,
};
use enforcer_tests::{
    packet::{ACK, Fragment, Packet, RST, SYN, TCP, Transport, UDP},
    prog::{
        kernel::{DROP, Outcome, REDIRECT},
        node::{self, Family, MTU, SLOT, families, flow, grant, silence, v4, v6},
    },
};

/// The answer to a packet: back to its sender, with fresh headers.
fn answer(mut packet: Packet) -> Vec<u8> {
    packet.mac.reverse();
    packet.id = 0;
    packet.frame()
}

fn reset(family: &Family) -> Vec<u8> {
    let mut reset = Packet::tcp(family.server(), family.client(), RST);
    if let Transport::Tcp { seq, ack, .. } = &mut reset.transport {
        (*seq, *ack) = (2000, 0);
    }
    answer(reset)
}

/// ICMP error numbers of both families: (kind, code) for IPv4 and IPv6.
const UNREACHABLE: [(u8, u8); 2] = [(3, 1), (1, 3)];
const PROHIBITED: [(u8, u8); 2] = [(3, 13), (1, 1)];
const TOO_BIG: [(u8, u8); 2] = [(3, 4), (2, 0)];

/// An ICMP error about `subject`, as `from_pod` builds it.
fn error(subject: &Packet, numbers: [(u8, u8); 2], rest: u32) -> Vec<u8> {
    let (numbers, header) = match subject.source {
        IpAddr::V4(_) => (numbers[0], 20),
        IpAddr::V6(_) => (numbers[1], 40),
    };
    let transport = if matches!(subject.transport, Transport::Udp { .. }) { 8 } else { 20 };
    let mut embedded = subject.bare();
    embedded.truncate(header + transport);
    embedded.resize(header + 20, 0);
    let message = Packet::icmp(subject.destination, subject.source, numbers.0, numbers.1, rest, embedded);
    answer(message)
}

#[test]
fn the_next_packet_of_a_revoked_connection_is_answered_with_an_exact_reset() {
    for family in families() {
        for expire in [false, true] {
            let mut kernel = node::node();
            assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
            kernel.events();
            if expire {
                kernel.set(name::GRANTS, family.grant_key(TCP), Grant { valid_until_ns: 1, ..grant() });
            } else {
                kernel.remove::<_, Grant>(name::GRANTS, &family.grant_key(TCP));
            }
            for packet in [family.out(ACK), family.out(ACK).payload(700)] {
                let expected = Outcome { action: REDIRECT, bytes: reset(&family) };
                assert_eq!(kernel.run("from_pod", &packet.frame()), expected);
            }
            let flow = flow(&mut kernel, &family, TCP).expect("a flow");
            assert_eq!(flow.state, FlowState::Revoking as u8);
            assert_eq!(kernel.dropped(DropReason::Revoked), 2);
            let kinds: Vec<u8> = kernel.events().iter().map(|event| event.kind).collect();
            let pair = [EventKind::Denied as u8, EventKind::Reset as u8];
            assert_eq!(kinds, [pair, pair].concat());
        }
    }
}

#[test]
fn a_revoked_connection_comes_back_only_with_a_syn() {
    let family = v4();
    let mut kernel = node::node();
    assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
    kernel.remove::<_, Grant>(name::GRANTS, &family.grant_key(TCP));
    assert_eq!(kernel.run("from_pod", &family.out(ACK).frame()).bytes, reset(&family));
    kernel.set(name::GRANTS, family.grant_key(TCP), grant());
    assert_eq!(kernel.run("from_pod", &family.out(ACK).frame()).bytes, reset(&family));
    let syn = family.out(SYN).frame();
    assert_eq!(kernel.run("from_pod", &syn), Outcome { action: REDIRECT, bytes: syn });
    assert_eq!(flow(&mut kernel, &family, TCP).expect("a flow").state, FlowState::HalfOpen as u8);
}

#[test]
fn datagrams_of_a_revoked_flow_are_answered_with_prohibited() {
    for family in families() {
        let mut kernel = node::node();
        let packet = Packet::udp(family.client(), family.server(), 100);
        assert_eq!(kernel.run("from_pod", &packet.frame()).action, REDIRECT);
        kernel.remove::<_, Grant>(name::GRANTS, &family.grant_key(UDP));
        let expected = Outcome { action: REDIRECT, bytes: error(&packet, PROHIBITED, 0) };
        assert_eq!(kernel.run("from_pod", &packet.frame()), expected);
    }
}

#[test]
fn a_silent_tunnel_is_told_as_host_unreachable() {
    for family in families() {
        let mut kernel = node::node();
        silence(&mut kernel, true);
        for packet in [family.out(SYN).payload(60), Packet::udp(family.client(), family.server(), 300)] {
            let expected = Outcome { action: REDIRECT, bytes: error(&packet, UNREACHABLE, 0) };
            assert_eq!(kernel.run("from_pod", &packet.frame()), expected);
        }
        assert_eq!(kernel.dropped(DropReason::TunnelDown), 2);
        assert_eq!(flow(&mut kernel, &family, TCP), None, "no flow begins");
    }
}

#[test]
fn what_the_tunnel_does_not_carry_is_told_with_its_mtu() {
    for family in families() {
        let mut kernel = node::node();
        let headers = usize::from(family.headers) - 12;
        let fits = Packet::udp(family.client(), family.server(), MTU as usize - headers);
        assert_eq!(kernel.run("from_pod", &fits.frame()).action, REDIRECT);
        assert_eq!(kernel.dropped(DropReason::TooBig), 0);
        let large = Packet::udp(family.client(), family.server(), MTU as usize - headers + 1);
        let expected = Outcome { action: REDIRECT, bytes: error(&large, TOO_BIG, MTU) };
        assert_eq!(kernel.run("from_pod", &large.frame()), expected);
        assert_eq!(kernel.dropped(DropReason::TooBig), 1);
        let frame = large.frame();
        assert_eq!(
            kernel.run("into_tunnel", &frame),
            Outcome { action: DROP, bytes: frame.clone() },
            "and does not get past the last guard"
        );
    }
}

/// Its sender has fragmented to the size of its link, and would go on for ever without an answer.
#[test]
fn the_first_fragment_of_ipv6_is_told_what_the_tunnel_carries() {
    let family = v6();
    let mut kernel = node::node();
    let mut first = Packet::udp(family.client(), family.server(), 4000);
    first.fragment = Some(Fragment { id: 7, offset: 0, length: 1448, more: true });
    let mut embedded = first.bare();
    embedded.truncate(60);
    let message = Packet::icmp(first.destination, first.source, TOO_BIG[1].0, TOO_BIG[1].1, MTU, embedded);
    let expected = Outcome { action: REDIRECT, bytes: answer(message) };
    assert_eq!(kernel.run("from_pod", &first.frame()), expected);
    assert_eq!(kernel.dropped(DropReason::TooBig), 1);
}

#[test]
fn ipv4_that_may_be_fragmented_passes_whole() {
    let family = v4();
    let mut kernel = node::node();
    let mut packet = Packet::udp(family.client(), family.server(), 1450);
    packet.dont_fragment = false;
    assert_eq!(kernel.run("from_pod", &packet.frame()).action, REDIRECT);
    assert_eq!(kernel.dropped(DropReason::TooBig), 0);
}

#[test]
fn segments_are_measured_as_they_will_be_sent() {
    for family in families() {
        let mut kernel = node::node();
        let frame = family.out(ACK).payload(3000).frame();
        let fits = MTU - u32::from(family.headers);
        assert_eq!(kernel.run_gso("from_pod", &frame, fits).action, REDIRECT);
        assert_eq!(kernel.dropped(DropReason::TooBig), 0);
        kernel.run_gso("from_pod", &frame, fits + 1);
        assert_eq!(kernel.dropped(DropReason::TooBig), 1);
    }
}

#[test]
fn resets_are_never_answered() {
    let family = v4();
    let mut kernel = node::node();
    silence(&mut kernel, true);
    assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
    // A reset without a flow is nobody's, and dies as any other packet.
    kernel.remove::<_, Grant>(name::GRANTS, &family.grant_key(TCP));
    let packet = family.out(RST).frame();
    assert_eq!(kernel.run("from_pod", &packet), Outcome { action: DROP, bytes: packet });
    assert_eq!(kernel.get::<_, Flow>(name::FLOWS, &family.key(TCP)), None);
}

#[test]
fn a_connection_whose_gateway_was_taken_away_is_reset() {
    for family in families() {
        let mut kernel = node::node();
        assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
        let seen: TunnelSeen = kernel.at(name::TUNNEL_SEEN, SLOT);
        kernel.put(name::TUNNELS, SLOT, NO_TUNNEL);
        for seen in [seen, TunnelSeen { seen_ns: 0, probe_ns: 0 }] {
            kernel.put(name::TUNNEL_SEEN, SLOT, seen);
            let expected = Outcome { action: REDIRECT, bytes: reset(&family) };
            assert_eq!(kernel.run("from_pod", &family.out(ACK).frame()), expected);
        }
        assert_eq!(kernel.dropped(DropReason::Revoked), 2);
    }
}

#[test]
fn a_connection_goes_on_through_another_gateway_only_from_its_beginning() {
    for family in families() {
        let mut kernel = node::node();
        let datagram = Packet::udp(family.client(), family.server(), 10);
        for packet in [family.out(SYN), datagram.clone()] {
            assert_eq!(kernel.run("from_pod", &packet.frame()).action, REDIRECT);
        }
        let tunnel: Tunnel = kernel.at(name::TUNNELS, SLOT);
        let seen: TunnelSeen = kernel.at(name::TUNNEL_SEEN, SLOT);
        kernel.put(name::TUNNELS, SLOT, NO_TUNNEL);
        kernel.put(name::TUNNELS, SLOT + 1, tunnel);
        kernel.put(name::TUNNEL_SEEN, SLOT + 1, seen);
        for protocol in [TCP, UDP] {
            let other = Grant { gateways: 1 << (SLOT + 1), ..grant() };
            kernel.set(name::GRANTS, family.grant_key(protocol), other);
        }
        for (packet, protocol) in [(family.out(SYN), TCP), (datagram, UDP)] {
            assert_eq!(kernel.run("from_pod", &packet.frame()).bytes, packet.frame());
            let tunnel = flow(&mut kernel, &family, protocol).expect("a flow").tunnel;
            assert_eq!(u32::from(tunnel), SLOT + 1);
        }
    }
}

/// A slot without a tunnel.
const NO_TUNNEL: Tunnel = Tunnel { gateway4: Addr::NONE, gateway6: Addr::NONE, ifindex: 0, mtu: 0 };
