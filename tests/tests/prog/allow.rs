//! What is granted goes into the tunnel, translated, and comes back as it was.

use enforcer_common::{
    event::{EventKind, Hook},
    flow::{FlowState, SECOND},
    grant::{Grant, GrantStats},
    maps::{counter, name},
};
use enforcer_tests::{
    packet::{ACK, FIN, Packet, SYN, TCP, Transport, UDP},
    prog::{
        kernel::{NEXT, Outcome, REDIRECT, boot_ns},
        node::{self, CONNECTION, GRANT, MTU, PORT, SLOT, WORKLOAD, families, flow, grant, v4},
    },
};

#[test]
fn unguarded_packets_leave_untouched() {
    let mut kernel = node::node();
    for family in families() {
        for protocol in [TCP, UDP] {
            let elsewhere = (family.elsewhere, PORT).into();
            let packet = match protocol {
                TCP => Packet::tcp(family.client(), elsewhere, SYN).tcp_options(&[2, 4, 0x05, 0xb4]),
                _ => Packet::udp(family.client(), elsewhere, 100),
            };
            let frame = packet.frame();
            assert_eq!(kernel.run("from_pod", &frame), Outcome { action: NEXT, bytes: frame });
        }
    }
    assert_eq!(kernel.counter(counter::ALLOWED), 0);
    assert_eq!(kernel.events(), []);
}

#[test]
fn frames_that_are_not_ip_leave_untouched() {
    let mut kernel = node::node();
    let arp = [vec![0xff; 12], vec![0x08, 0x06], vec![0; 46]].concat();
    for program in ["from_pod", "to_pod", "to_wire", "from_wire", "from_host", "to_workload"] {
        assert_eq!(kernel.run(program, &arp), Outcome { action: NEXT, bytes: arp.clone() }, "{program}");
    }
}

#[test]
fn a_granted_packet_is_redirected_and_opens_a_flow() {
    for family in families() {
        for protocol in [TCP, UDP] {
            let mut kernel = node::node();
            let packet = match protocol {
                TCP => family.out(SYN),
                _ => Packet::udp(family.client(), family.server(), 32),
            };
            let frame = packet.frame();
            let before = boot_ns();
            assert_eq!(kernel.run("from_pod", &frame), Outcome { action: REDIRECT, bytes: frame.clone() });

            let flow = flow(&mut kernel, &family, protocol).expect("a flow");
            let bytes = (frame.len() - 14) as u64;
            assert_eq!(flow.workload_address.ip(), family.inside);
            assert_eq!((flow.workload, flow.ifindex, u32::from(flow.tunnel)), (WORKLOAD, 1, SLOT));
            assert_eq!((flow.packets_out, flow.bytes_out, flow.packets_in), (1, bytes, 0));
            let state = if protocol == TCP { FlowState::HalfOpen } else { FlowState::Udp };
            assert_eq!(flow.state, state as u8);
            assert!(flow.seen_ns >= before, "stamped with the clock of boot time");

            let stats = kernel.stats(GRANT);
            let expected = GrantStats { packets_out: 1, bytes_out: bytes, flows: 1, ..GrantStats::default() };
            assert_eq!(stats, expected);
            assert_eq!(kernel.counter(counter::ALLOWED), 1);

            let events = kernel.events();
            let [event] = events.as_slice() else { panic!("one event: {events:?}") };
            assert_eq!(
                (event.kind, event.hook, event.reason, event.workload, event.connection, event.protocol),
                (EventKind::Opened as u8, Hook::FromPod as u8, 0, WORKLOAD, CONNECTION, protocol)
            );
            assert_eq!((event.source.ip(), event.destination.ip()), (family.pod, family.service));
            assert_eq!((event.source_port.get(), event.destination_port.get()), (40_000, PORT));
        }
    }
}

#[test]
fn out_and_back_gives_the_packet_that_was_sent() {
    for family in families() {
        let mut kernel = node::node();
        for (out, back) in [
            (family.out(SYN), family.back(SYN | ACK)),
            (family.out(ACK).payload(501), family.back(ACK).payload(1200)),
            (
                Packet::udp(family.client(), family.server(), 77),
                Packet::udp(family.server(), family.tunnelled(), 78),
            ),
        ] {
            assert_eq!(kernel.run("from_pod", &out.frame()).action, REDIRECT);

            let mut inside = out.clone();
            inside.source = family.inside;
            let expected = Outcome { action: REDIRECT, bytes: inside.frame() };
            assert_eq!(kernel.run("into_tunnel", &out.frame()), expected);

            let mut delivered = back.clone();
            delivered.destination = family.pod;
            let expected = Outcome { action: REDIRECT, bytes: delivered.bare() };
            assert_eq!(kernel.run("out_of_tunnel", &back.bare()), expected);
            assert_eq!(kernel.run("to_workload", &delivered.bare()), expected);
        }
        let flow = flow(&mut kernel, &family, TCP).expect("a flow");
        assert_eq!((flow.packets_out, flow.packets_in), (2, 2));
        assert_eq!(flow.state, FlowState::Established as u8);
        assert_eq!((flow.client_ack, flow.server_ack, flow.seen_acks), (2000, 2000, 3));
    }
}

#[test]
fn a_udp_datagram_without_checksum_stays_without() {
    let family = v4();
    let mut kernel = node::node();
    let mut packet = Packet::udp(family.client(), family.server(), 20);
    if let Transport::Udp { checksum, .. } = &mut packet.transport {
        *checksum = false;
    }
    assert_eq!(kernel.run("from_pod", &packet.frame()).action, REDIRECT);
    let mut inside = packet.clone();
    inside.source = family.inside;
    let expected = Outcome { action: REDIRECT, bytes: inside.frame() };
    assert_eq!(kernel.run("into_tunnel", &packet.frame()), expected);
}

#[test]
fn both_ends_learn_from_their_syns_what_the_tunnel_carries() {
    for family in families() {
        let fits = MTU as u16 - family.headers;
        // The option at an even and at an odd offset, absent, small already, and cut short.
        let large = 1460_u16.to_be_bytes();
        let right = fits.to_be_bytes();
        let cases: [(Vec<u8>, Vec<u8>); 5] = [
            ([&[2, 4], &large[..]].concat(), [&[2, 4], &right[..]].concat()),
            ([&[1, 2, 4], &large[..], &[1, 1, 0]].concat(), [&[1, 2, 4], &right[..], &[1, 1, 0]].concat()),
            (vec![1, 3, 3, 7], vec![1, 3, 3, 7]),
            (vec![2, 4, 2, 0], vec![2, 4, 2, 0]),
            (vec![1, 1, 1, 2], vec![1, 1, 1, 2]),
        ];
        for (given, wanted) in cases {
            let mut kernel = node::node();
            let frame = family.out(SYN).tcp_options(&given).frame();
            let expected = family.out(SYN).tcp_options(&wanted).frame();
            assert_eq!(kernel.run("from_pod", &frame), Outcome { action: REDIRECT, bytes: expected });

            let reply = family.back(SYN | ACK).tcp_options(&given).bare();
            let mut expected = family.back(SYN | ACK).tcp_options(&wanted);
            expected.destination = family.pod;
            let expected = Outcome { action: REDIRECT, bytes: expected.bare() };
            assert_eq!(kernel.run("out_of_tunnel", &reply), expected);
        }
    }
}

#[test]
fn a_segment_that_is_no_syn_keeps_its_options() {
    let family = v4();
    let mut kernel = node::node();
    let frame = family.out(ACK).tcp_options(&[2, 4, 0x05, 0xb4]).frame();
    assert_eq!(kernel.run("from_pod", &frame), Outcome { action: REDIRECT, bytes: frame });
}

#[test]
fn a_forgotten_connection_goes_on_while_it_is_granted() {
    for family in families() {
        let mut kernel = node::node();
        assert_eq!(kernel.run("from_pod", &family.out(ACK).frame()).action, REDIRECT);
        let state = flow(&mut kernel, &family, TCP).expect("a flow").state;
        assert_eq!(state, FlowState::Established as u8);
    }
}

#[test]
fn flows_go_only_to_gateways_that_acknowledged_and_answer() {
    let family = v4();
    let mut kernel = node::node();
    let both = Grant { gateways: 0b11 << SLOT, ..grant() };
    kernel.set(name::GRANTS, family.grant_key(TCP), both);
    // The second tunnel exists but was never heard.
    let tunnel: enforcer_common::config::Tunnel = kernel.at(name::TUNNELS, SLOT);
    kernel.put(name::TUNNELS, SLOT + 1, tunnel);
    let slots = |kernel: &mut enforcer_tests::prog::kernel::Kernel| {
        let mut slots = Vec::new();
        for port in 1..=16 {
            let client = (family.pod, port).into();
            let frame = Packet::tcp(client, family.server(), SYN).frame();
            assert_eq!(kernel.run("from_pod", &frame).action, REDIRECT);
            let mut key = family.key(TCP);
            key.client_port = enforcer_common::Port::new(port);
            let flow: enforcer_common::flow::Flow = kernel.get(name::FLOWS, &key).expect("a flow");
            slots.push(u32::from(flow.tunnel));
            kernel.remove::<_, enforcer_common::flow::Flow>(name::FLOWS, &key);
            kernel.remove::<u32, u32>(name::FLOW_COUNTS, &WORKLOAD);
        }
        slots.sort_unstable();
        slots.dedup();
        slots
    };
    assert_eq!(slots(&mut kernel), [SLOT]);
    let seen = enforcer_common::config::TunnelSeen { seen_ns: boot_ns(), probe_ns: 0 };
    kernel.put(name::TUNNEL_SEEN, SLOT + 1, seen);
    assert_eq!(slots(&mut kernel), [SLOT, SLOT + 1], "flows spread over both");
}

#[test]
fn a_flow_stays_with_its_tunnel_when_the_acknowledgement_is_gone() {
    let family = v4();
    let mut kernel = node::node();
    assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
    kernel.set(name::GRANTS, family.grant_key(TCP), Grant { gateways: 0, ..grant() });
    assert_eq!(kernel.run("from_pod", &family.out(ACK).frame()).action, REDIRECT);
}

#[test]
fn a_flow_that_closed_begins_anew_with_a_syn() {
    let family = v4();
    let mut kernel = node::node();
    for flags in [SYN, ACK, FIN | ACK] {
        assert_eq!(kernel.run("from_pod", &family.out(flags).frame()).action, REDIRECT);
    }
    let closed = flow(&mut kernel, &family, TCP).expect("a flow");
    assert_eq!((closed.state, closed.packets_out), (FlowState::Closing as u8, 3));
    assert_eq!(kernel.run("from_pod", &family.out(ACK).frame()).action, REDIRECT);
    assert_eq!(flow(&mut kernel, &family, TCP).expect("a flow").state, FlowState::Closing as u8);

    assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
    let anew = flow(&mut kernel, &family, TCP).expect("a flow");
    assert_eq!((anew.state, anew.packets_out), (FlowState::HalfOpen as u8, 1));
    assert_eq!(kernel.get::<u32, u32>(name::FLOW_COUNTS, &WORKLOAD), Some(1), "one flow, counted once");
}

#[test]
fn a_grant_ends_when_its_time_is_over() {
    let family = v4();
    let mut kernel = node::node();
    let soon = Grant { valid_until_ns: boot_ns() + 3600 * SECOND, ..grant() };
    kernel.set(name::GRANTS, family.grant_key(TCP), soon);
    assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
    let over = Grant { valid_until_ns: boot_ns(), ..grant() };
    kernel.set(name::GRANTS, family.grant_key(TCP), over);
    let anew = Packet::tcp((family.pod, 40_001).into(), family.server(), SYN);
    assert_eq!(
        kernel.run("from_pod", &anew.frame()),
        Outcome { action: enforcer_tests::prog::kernel::DROP, bytes: anew.frame() }
    );
    assert_eq!(kernel.dropped(enforcer_common::verdict::DropReason::Expired), 1);
}
