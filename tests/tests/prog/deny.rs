//! Every reason that `from_pod` and `from_host` have to refuse a packet, in both families.

use enforcer_common::{
    Addr, Port,
    config::NodeConfig,
    event::{EVENTS_PER_WINDOW, EventKind, Hook},
    flow::{Flow, FlowKey, FlowState},
    grant::Grant,
    maps::{counter, name},
    verdict::DropReason,
    workload::{NOT_GUARDABLE, WireKey, Workload},
};
use enforcer_tests::{
    packet::{ACK, Packet, SYN, TCP, Transport},
    prog::{
        kernel::{DROP, Kernel, LOOPBACK, Outcome, REDIRECT},
        node::{self, Family, OFFERED, PORT, QUOTA, WORKLOAD, families, grant, ip, silence, v4, workload},
    },
};

/// A SYN is refused, silently, with one event and one count.
fn refused(kernel: &mut Kernel, packet: &Packet, reason: DropReason) {
    let frame = packet.frame();
    let before = kernel.dropped(reason);
    kernel.events();
    assert_eq!(
        kernel.run("from_pod", &frame),
        Outcome { action: DROP, bytes: frame },
        "{} of {packet:?}",
        reason.name()
    );
    assert_eq!(kernel.dropped(reason), before + 1, "{} is counted for {packet:?}", reason.name());
    let events = kernel.events();
    let [event] = events.as_slice() else { panic!("one event: {events:?}") };
    assert_eq!(
        (event.kind, event.hook, event.reason, event.destination.ip()),
        (EventKind::Denied as u8, Hook::FromPod as u8, reason as u8, packet.destination)
    );
}

fn wire(family: &Family) -> WireKey {
    WireKey { address: Addr::from(family.pod), ifindex: LOOPBACK, pad: 0 }
}

#[test]
fn a_pod_nobody_knows_is_refused() {
    for family in families() {
        let mut kernel = node::node();
        kernel.remove::<_, Workload>(name::WIRE, &wire(&family));
        kernel.remove::<_, Workload>(name::WIRE, &WireKey { address: Addr::NONE, ifindex: LOOPBACK, pad: 0 });
        refused(&mut kernel, &family.out(SYN), DropReason::UnknownWorkload);
    }
}

#[test]
fn another_pods_address_is_spoofed() {
    for family in families() {
        let mut kernel = node::node();
        let mut packet = family.out(SYN);
        packet.source = if packet.source.is_ipv4() { ip("10.0.0.6") } else { ip("fd10::6") };
        refused(&mut kernel, &packet, DropReason::Spoofed);
        packet.source = family.inside;
        refused(&mut kernel, &packet, DropReason::Spoofed);
        packet.source = if packet.source.is_ipv4() { ip("0.0.0.0") } else { ip("::") };
        refused(&mut kernel, &packet, DropReason::Spoofed);
    }
}

#[test]
fn a_guarded_source_is_refused_wherever_it_goes() {
    for family in families() {
        let mut kernel = node::node();
        for source in [family.service, family.free, family.inside] {
            // To the node's own stack, which no other hook of ours sees.
            let packet = Packet::tcp((source, PORT).into(), (family.elsewhere, 22).into(), SYN);
            refused(&mut kernel, &packet, DropReason::ClearSource);
        }
    }
}

#[test]
fn a_pod_that_cannot_be_guarded_is_refused_what_it_is_granted() {
    for family in families() {
        let mut kernel = node::node();
        kernel.set(name::WIRE, wire(&family), Workload { flags: NOT_GUARDABLE, ..workload() });
        refused(&mut kernel, &family.out(SYN), DropReason::NotGuardable);
    }
}

#[test]
fn grants_are_exact() {
    for family in families() {
        let mut kernel = node::node();
        let to = |address, port| Packet::tcp(family.client(), (address, port).into(), SYN);
        refused(&mut kernel, &to(family.free, PORT), DropReason::NoDestination);
        refused(&mut kernel, &to(family.inside, PORT), DropReason::NoDestination);
        refused(&mut kernel, &to(family.service, 1), DropReason::PortNotOffered);
        refused(&mut kernel, &to(family.service, OFFERED), DropReason::NoGrant);
        let datagram = Packet::udp(family.client(), (family.service, OFFERED).into(), 1);
        refused(&mut kernel, &datagram, DropReason::PortNotOffered);
        kernel.remove::<_, Grant>(name::GRANTS, &family.grant_key(TCP));
        refused(&mut kernel, &family.out(SYN), DropReason::NoGrant);
    }
}

#[test]
fn a_grant_that_no_gateway_acknowledged_is_pending() {
    for family in families() {
        let mut kernel = node::node();
        kernel.set(name::GRANTS, family.grant_key(TCP), Grant { gateways: 0, ..grant() });
        refused(&mut kernel, &family.out(SYN), DropReason::Pending);
        kernel.set(name::GRANTS, family.grant_key(TCP), grant());
        assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT, "the retransmission");
    }
}

#[test]
fn a_workload_without_an_address_inside_is_pending() {
    let family = v4();
    let mut kernel = node::node();
    kernel.set(name::WIRE, wire(&family), Workload { address4: Addr::NONE, ..workload() });
    refused(&mut kernel, &family.out(SYN), DropReason::Pending);
}

#[test]
fn other_protocols_are_not_carried() {
    for family in families() {
        let mut kernel = node::node();
        let kind = if family.pod.is_ipv4() { 8 } else { 128 };
        let echo = Packet::icmp(family.pod, family.service, kind, 0, 0x1_0001, vec![0; 16]);
        refused(&mut kernel, &echo, DropReason::NotCarried);
        for protocol in [47, 50, 132, 136] {
            let transport = Transport::Raw { protocol, payload: vec![0; 32] };
            let packet = Packet::new(family.pod, family.service, transport);
            refused(&mut kernel, &packet, DropReason::NotCarried);
        }
    }
}

#[test]
fn a_workload_has_a_quota_and_keeps_what_it_has() {
    for family in families() {
        let mut kernel = node::node();
        let from = |port| Packet::tcp((family.pod, port).into(), family.server(), SYN);
        for port in 1..=QUOTA as u16 {
            assert_eq!(kernel.run("from_pod", &from(port).frame()).action, REDIRECT);
        }
        refused(&mut kernel, &from(1000), DropReason::QuotaExceeded);
        assert_eq!(kernel.run("from_pod", &from(1).frame()).action, REDIRECT, "an old flow goes on");
        assert_eq!(kernel.get::<u32, u32>(name::FLOW_COUNTS, &WORKLOAD), Some(QUOTA));
    }
}

#[test]
fn a_full_table_denies_what_is_new_and_reclaims_what_is_over() {
    const FLOWS: u32 = 8;
    let family = v4();
    let mut kernel = node::node_with_flows(FLOWS);
    let from = |port| Packet::tcp((family.pod, port).into(), family.server(), SYN);
    for port in 1..=FLOWS as u16 {
        assert_eq!(kernel.run("from_pod", &from(port).frame()).action, REDIRECT);
    }
    refused(&mut kernel, &from(1000), DropReason::FlowTableFull);
    for port in 1..=FLOWS as u16 {
        assert_eq!(kernel.run("from_pod", &from(port).frame()).action, REDIRECT, "flow {port} goes on");
    }

    let mut key = family.key(TCP);
    key.client_port = Port::new(3);
    let flow: Flow = kernel.get(name::FLOWS, &key).expect("a flow");
    kernel.set(name::FLOWS, key, node::over(flow));
    assert_eq!(kernel.run("from_pod", &from(1000).frame()).action, REDIRECT);
    assert_eq!(kernel.get::<FlowKey, Flow>(name::FLOWS, &key), None, "it was reclaimed");
    assert_eq!(kernel.get::<u32, u32>(name::FLOW_COUNTS, &WORKLOAD), Some(FLOWS));
    refused(&mut kernel, &from(3), DropReason::FlowTableFull);
}

#[test]
fn a_workload_at_its_quota_gets_back_what_is_over() {
    let family = v4();
    let mut kernel = node::node();
    let from = |port| Packet::tcp((family.pod, port).into(), family.server(), SYN);
    for port in 1..=QUOTA as u16 {
        assert_eq!(kernel.run("from_pod", &from(port).frame()).action, REDIRECT);
    }
    let mut key = family.key(TCP);
    key.client_port = Port::new(5);
    let flow: Flow = kernel.get(name::FLOWS, &key).expect("a flow");
    kernel.set(name::FLOWS, key, node::over(flow));
    // Two looks at half of a ring of 64 slots see all of it.
    let actions = [1000, 1000].map(|port| kernel.run("from_pod", &from(port).frame()).action);
    assert_eq!(actions[1], REDIRECT, "{actions:?}");
}

#[test]
fn the_flow_of_a_pod_that_is_gone_is_taken_over() {
    let family = v4();
    let mut kernel = node::node();
    assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
    let other = Workload { id: WORKLOAD + 1, ..workload() };
    kernel.set(name::WIRE, wire(&family), other);
    refused(&mut kernel, &family.out(SYN), DropReason::NoGrant);
    let mut key = family.grant_key(TCP);
    key.workload = other.id;
    kernel.set(name::GRANTS, key, grant());
    assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
    let flow = node::flow(&mut kernel, &family, TCP).expect("a flow");
    assert_eq!((flow.workload, flow.packets_out), (other.id, 1));
    let counts = [WORKLOAD, other.id].map(|id| kernel.get::<u32, u32>(name::FLOW_COUNTS, &id));
    assert_eq!(counts, [Some(0), Some(1)]);
}

#[test]
fn without_configuration_nothing_guarded_passes() {
    let family = v4();
    let mut kernel = node::node();
    kernel.put(name::NODE_CONFIG, 0, NodeConfig { flow_quota: 0, ..kernel_config(&family) });
    refused(&mut kernel, &family.out(SYN), DropReason::QuotaExceeded);
}

fn kernel_config(family: &Family) -> NodeConfig {
    NodeConfig {
        node4: Addr::from(family.node),
        node6: Addr::NONE,
        enforcer0: 0,
        tunnel0: 0,
        flow_quota: 0,
        pad: 0,
    }
}

#[test]
fn a_silent_tunnel_denies_and_one_probe_a_second_passes() {
    for family in families() {
        let mut kernel = node::node();
        silence(&mut kernel, false);
        assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT, "the probe");
        let other = Packet::tcp((family.pod, 40_001).into(), family.server(), SYN);
        assert_eq!(kernel.run("from_pod", &other.frame()).action, REDIRECT, "its answer is a redirect");
        assert_eq!(kernel.dropped(DropReason::TunnelDown), 1);
        assert_eq!(kernel.counter(counter::ALLOWED), 1);
        assert_eq!(kernel.run("from_pod", &family.out(ACK).frame()).action, REDIRECT);
        assert_eq!(kernel.dropped(DropReason::TunnelDown), 2, "a flow of that tunnel is told too");
    }
}

#[test]
fn a_flood_of_denials_is_told_of_within_limits_and_counted_beyond() {
    let family = v4();
    let mut kernel = node::node();
    let frame = Packet::tcp(family.client(), (family.free, PORT).into(), SYN).frame();
    let flood = EVENTS_PER_WINDOW * 3;
    kernel.run("from_pod", &frame);
    kernel.time("from_pod", &frame, flood);
    let counted = kernel.dropped(DropReason::NoDestination);
    assert_eq!(counted, u64::from(flood) + 1);
    let told = kernel.events().len() as u64;
    let limited = kernel.counter(counter::EVENTS_LIMITED);
    assert_eq!(told + limited + kernel.counter(counter::EVENTS_LOST), counted, "each is told or counted");
    assert!(limited > 0, "{told} told");
}

#[test]
fn revoked_flows_let_resets_pass() {
    for family in families() {
        let mut kernel = node::node();
        assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
        kernel.remove::<_, Grant>(name::GRANTS, &family.grant_key(TCP));
        let reset = family.out(enforcer_tests::packet::RST | ACK).frame();
        assert_eq!(kernel.run("from_pod", &reset), Outcome { action: REDIRECT, bytes: reset.clone() });
        let flow = node::flow(&mut kernel, &family, TCP).expect("a flow");
        assert_eq!(flow.state, FlowState::Revoking as u8);
        assert_eq!(kernel.run("into_tunnel", &reset).action, REDIRECT);
        let segment = family.out(ACK).frame();
        assert_eq!(
            kernel.run("into_tunnel", &segment),
            Outcome { action: DROP, bytes: segment.clone() },
            "nothing else gets past the last guard"
        );
        assert_eq!(kernel.dropped(DropReason::Revoked), 1);
    }
}
