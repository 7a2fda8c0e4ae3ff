//! Who may not, and what it is called.

use enforcer_common::{
    event::{Event, EventKind, Hook},
    flow::FlowKey,
    gateway::{AllowedBackend, GwFlow},
    grant::FOREVER,
    maps::name,
    verdict::DropReason,
};
use enforcer_tests::prog::{
    Action,
    wire::{self, ACK, Body, SYN, TCP, UDP, Wire},
};

use crate::world::{CLIENT_PORT, CONNECTION, Family, TCP_PORT, UDP_PORT, V4, V6, World, addr};

/// Checks that a packet is dropped in silence for one reason, and told once.
fn refused(world: &mut World, packet: &Wire, reason: DropReason) {
    let before = world.programs.refused(reason);
    world.programs.events();
    let ran = world.out(packet);
    assert_eq!(ran.action, Action::Drop, "{packet:?}");
    assert_eq!(world.programs.refused(reason), before + 1, "{reason:?}: {:?}", world.programs.refusals());
    let events = world.programs.events();
    let told: Vec<_> = events.iter().map(|event| (event.kind, event.hook, event.reason)).collect();
    assert_eq!(told, [(EventKind::Denied as u8, Hook::GwFromTunnel as u8, reason as u8)]);
    assert_eq!(events[0].source.ip(), packet.source);
}

#[test]
fn a_source_that_no_node_owns_is_unknown() {
    for (family, stranger) in [(&V4, "198.19.1.5"), (&V6, "fd00:1:1001::5")] {
        let mut world = World::new();
        let packet =
            wire::tcp(&Family::at(stranger, CLIENT_PORT), &Family::at(family.service, TCP_PORT), SYN);
        refused(&mut world, &packet, DropReason::UnknownNode);
    }
}

#[test]
fn a_workload_that_another_node_announced_is_unknown() {
    for (family, block) in [(&V4, "198.19.0.0/26"), (&V6, "fd00:1:1000::/64")] {
        let mut world = World::new();
        world.own(block, 8, 100);
        refused(&mut world, &family.segment(SYN), DropReason::UnknownNode);
    }
}

#[test]
fn the_ladder_is_the_nodes() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        let to =
            |port| wire::tcp(&Family::at(family.client, CLIENT_PORT), &Family::at(family.service, port), SYN);
        refused(&mut world, &to(99), DropReason::PortNotOffered);
        refused(&mut world, &to(UDP_PORT), DropReason::PortNotOffered);
        let free = if family.client.contains(':') { "fd00:1:2::99" } else { "198.18.0.99" };
        let nowhere = wire::tcp(&Family::at(family.client, CLIENT_PORT), &Family::at(free, TCP_PORT), SYN);
        refused(&mut world, &nowhere, DropReason::NoDestination);
        world.revoke(family, TCP);
        refused(&mut world, &family.segment(SYN), DropReason::NoGrant);
        world.grant(family, TCP, 1);
        refused(&mut world, &family.segment(SYN), DropReason::Expired);
        world.grant(family, TCP, FOREVER);
        world.forwarded_after_refusals(&family.segment(SYN));
    }
}

impl World {
    fn forwarded_after_refusals(&self, packet: &Wire) {
        assert_eq!(self.out(packet).action, Action::Redirect);
    }
}

#[test]
fn a_service_without_a_healthy_backend_has_none() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        world.serve(family, TCP, 50, &[]);
        refused(&mut world, &family.segment(SYN), DropReason::NoBackend);
    }
}

#[test]
fn a_backend_that_no_administrator_allowed_is_refused() {
    for (family, prefix, around) in
        [(&V4, "192.0.2.0/24", "192.0.0.0/16"), (&V6, "2001:db8::/64", "2001:db8::/32")]
    {
        let mut world = World::new();
        world.allow(prefix, &[(1, TCP), (15_432, UDP)]);
        refused(&mut world, &family.segment(SYN), DropReason::BackendNotAllowed);
        world.programs.remove_prefix::<AllowedBackend>(name::GW_ALLOWED, prefix);
        refused(&mut world, &family.segment(SYN), DropReason::BackendNotAllowed);
        world.allow(around, &[(15_432, TCP)]);
        world.forwarded_after_refusals(&family.segment(SYN));
        world.allow(around, &[]);
        let ran = world.out(&family.segment(ACK));
        assert_eq!(ran.action, Action::Redirect, "a live flow is reset");
        assert_eq!(world.programs.refused(DropReason::Revoked), 1);
        let events = world.programs.events();
        let told: Vec<_> = events.iter().rev().take(2).map(|event| (event.kind, event.reason)).collect();
        assert_eq!(
            told,
            [
                (EventKind::Denied as u8, DropReason::Revoked as u8),
                (EventKind::Reset as u8, DropReason::BackendNotAllowed as u8),
            ]
        );
    }
}

/// What the administrator allowed may have the cluster inside of it, where nobody is allowed anything.
#[test]
fn a_hole_in_what_is_allowed_is_no_backend() {
    for (family, backend, beside) in
        [(&V4, "192.0.2.10/32", "192.0.2.11/32"), (&V6, "2001:db8::10/128", "2001:db8::11/128")]
    {
        let mut world = World::new();
        world.allow(beside, &[]);
        world.forwarded_after_refusals(&family.segment(SYN));
        world.allow(backend, &[]);
        assert_eq!(world.out(&family.segment(ACK)).action, Action::Redirect, "what is open gets a reset");
        assert_eq!(world.programs.refused(DropReason::Revoked), 1);
        let mut world = World::new();
        world.allow(backend, &[]);
        refused(&mut world, &family.segment(SYN), DropReason::BackendNotAllowed);
        refused(&mut world, &family.datagram(8), DropReason::BackendNotAllowed);
    }
}

#[test]
fn only_the_announce_connection_reaches_the_gateway_itself() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        let to = |from: &str, port, flags| {
            wire::tcp(&Family::at(from, 50_000), &Family::at(family.gateway, port), flags)
        };
        let announce = to(family.node, 7118, SYN);
        let ran = world.out(&announce);
        assert_eq!((ran.action, ran.bytes), (Action::Next, announce.bare()));
        refused(&mut world, &to(family.node, 22, SYN), DropReason::NotCarried);
        refused(&mut world, &to(family.client, 7118, SYN), DropReason::UnknownNode);
        let datagram = wire::udp(&Family::at(family.node, 50_000), &Family::at(family.gateway, 7118), 4);
        refused(&mut world, &datagram, DropReason::NotCarried);
        let ping = Wire::new(
            family.node.parse().expect("an address"),
            family.gateway.parse().expect("an address"),
            Body::Icmp {
                kind: if family.node.contains(':') { 128 } else { 8 },
                code: 0,
                rest: 1,
                payload: vec![],
            },
        );
        refused(&mut world, &ping, DropReason::NotCarried);
    }
}

#[test]
fn what_is_neither_tcp_nor_udp_is_not_carried() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        let mut packet = family.segment(SYN);
        packet.body = Body::Raw { protocol: 47, payload: vec![0; 16] };
        refused(&mut world, &packet, DropReason::NotCarried);
        packet.body = Body::Icmp { kind: 8, code: 0, rest: 1, payload: vec![1, 2, 3, 4] };
        refused(&mut world, &packet, DropReason::NotCarried);
    }
}

#[test]
fn a_packet_without_hops_left_goes_nowhere() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        world.forwarded(&family.segment(SYN));
        world.programs.events();
        let spent = Wire { ttl: 1, ..family.segment(ACK) };
        refused(&mut world, &spent, DropReason::NotCarried);
    }
}

#[test]
fn later_fragments_without_a_first_and_garbage_are_refused() {
    let mut world = World::new();
    for family in [&V4, &V6] {
        let later = Wire {
            fragment: Some((99, 80, false)),
            body: Body::Raw { protocol: UDP, payload: vec![0; 24] },
            ..family.datagram(8)
        };
        refused(&mut world, &later, DropReason::LateFragment);
    }
    let mut cut = V4.segment(SYN).bare();
    cut.truncate(34);
    assert_eq!(world.programs.run("gw_from_tunnel", &cut).action, Action::Drop);
    assert_eq!(world.programs.refused(DropReason::NotParsed), 1);
}

#[test]
fn a_source_route_is_refused() {
    let mut world = World::new();
    let packet = V4.segment(SYN).bare();
    let mut routed = packet[..20].to_vec();
    routed.extend([131, 7, 4, 10, 0, 0, 1, 0]);
    routed.extend(&packet[20..]);
    routed[0] = 0x47;
    let length = routed.len() as u16;
    routed[2..4].copy_from_slice(&length.to_be_bytes());
    assert_eq!(world.programs.run("gw_from_tunnel", &routed).action, Action::Drop);
    assert_eq!(world.programs.refusals(), [("SourceRouted", 1)]);
    world.programs.events();
}

#[test]
fn a_new_flow_is_told_with_its_connection_and_charged_to_its_grant() {
    let mut world = World::new();
    world.forwarded(&V4.segment(SYN));
    world.forwarded(&V4.segment(ACK).with_payload(100));
    let port = world.port(&V4.flow(TCP));
    world.returned(&V4.reply(port, ACK).with_payload(60));
    let opened: Vec<Event> = world.programs.events();
    assert_eq!(opened.len(), 1);
    let event = &opened[0];
    assert_eq!(
        (event.kind, event.connection, event.source, event.destination_port.get()),
        (EventKind::Opened as u8, CONNECTION, addr(V4.client), TCP_PORT)
    );
    let stats = world.programs.stats(u32::from(TCP));
    assert_eq!(
        (stats.packets_out, stats.bytes_out, stats.packets_in, stats.bytes_in, stats.flows),
        (2, 40 + 140, 1, 100, 1)
    );
    let flow: GwFlow = world.flow(&V4.flow(TCP)).expect("a flow");
    assert_eq!((flow.client_ack, flow.backend_ack, flow.seen_acks), (2000, 2000, 3));
    let _: FlowKey = V4.flow(TCP);
}
