//! ICMP errors on both sides of the translation.

use enforcer_tests::prog::{
    Action,
    wire::{self, ACK, Body, SYN, TCP, UDP, Wire},
};

use crate::world::{CLIENT_PORT, Family, TCP_PORT, TCP_TARGET, UDP_PORT, UDP_TARGET, V4, V6, World};

/// Types, codes and second words of the errors that are carried: unreachable, too big, time exceeded.
fn kinds(family: &Family) -> [(u8, u8, u32); 3] {
    if family.client.contains(':') {
        [(1, 4, 0), (2, 0, 1280), (3, 0, 0)]
    } else {
        [(3, 3, 0), (3, 4, 1200), (11, 0, 0)]
    }
}

/// The packet inside an error: ends with ports. The embedded header's own checksum is proven.
fn inside(error: &Wire) -> ((String, u16), (String, u16)) {
    let Body::Icmp { payload, .. } = &error.body else { panic!("ICMP: {error:?}") };
    let half = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
    let (at, size) = if payload[0] >> 4 == 4 { (12, 4) } else { (8, 16) };
    let address = |at: usize| match size {
        4 => std::net::IpAddr::from(<[u8; 4]>::try_from(&payload[at..at + 4]).expect("four")),
        _ => std::net::IpAddr::from(<[u8; 16]>::try_from(&payload[at..at + 16]).expect("sixteen")),
    };
    if size == 4 {
        let sum: u32 =
            payload[..20].chunks(2).map(|pair| (u32::from(pair[0]) << 8) | u32::from(pair[1])).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the embedded header's checksum is right");
    }
    let ports = at + 2 * size;
    ((address(at).to_string(), half(ports)), (address(at + size).to_string(), half(ports + 2)))
}

fn end(address: &str, port: u16) -> (String, u16) {
    (address.to_owned(), port)
}

/// The head of a packet, as errors carry it: without the later part of a TCP header, or with more.
fn head(packet: &[u8], headers: usize, l4: usize) -> &[u8] {
    &packet[..(headers + l4).min(packet.len())]
}

fn header(family: &Family) -> usize {
    if family.client.contains(':') { 40 } else { 20 }
}

#[test]
fn errors_from_the_backends_side_reach_the_workload_as_from_the_service() {
    for family in [&V4, &V6] {
        for reporter in [family.backend, family.router] {
            for kind in kinds(family) {
                for l4 in [8, 20, 60] {
                    let mut world = World::new();
                    world.forwarded(&family.segment(SYN));
                    let sent = world.out(&family.segment(ACK).with_payload(200)).bytes[14..].to_vec();
                    let port = world.port(&family.flow(TCP));
                    let about = head(&sent, header(family), l4);
                    let here = world.returned(&wire::error(reporter, family.source, kind, about));
                    assert_eq!(here.source.to_string(), family.service);
                    assert_eq!(here.destination.to_string(), family.client);
                    let Body::Icmp { kind: is, code, rest, .. } = here.body else { panic!("ICMP") };
                    assert_eq!((is, code, rest), kind);
                    assert_eq!(
                        inside(&here),
                        (end(family.client, CLIENT_PORT), end(family.service, TCP_PORT)),
                        "port {port}, {l4} bytes"
                    );
                }
            }
        }
    }
}

#[test]
fn errors_about_datagrams_are_translated_too() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        let sent = world.out(&family.datagram(100)).bytes[14..].to_vec();
        let about = head(&sent, header(family), 8);
        let here = world.returned(&wire::error(family.backend, family.source, kinds(family)[0], about));
        assert_eq!(inside(&here), (end(family.client, CLIENT_PORT), end(family.service, UDP_PORT)));
        let port = world.port(&family.flow(UDP));
        let reply = world.returned(&family.udp_reply(port, 100)).bare();
        let about = head(&reply, header(family), 8);
        let there = world.forwarded(&wire::error(family.client, family.service, kinds(family)[0], about));
        assert_eq!(inside(&there), (end(family.backend, UDP_TARGET), end(family.source, port)));
    }
}

#[test]
fn errors_from_the_workload_reach_the_backend_as_from_the_gateway() {
    for family in [&V4, &V6] {
        for kind in kinds(family) {
            let mut world = World::new();
            world.forwarded(&family.segment(SYN));
            let port = world.port(&family.flow(TCP));
            let reply = world.returned(&family.reply(port, SYN | ACK)).bare();
            let about = head(&reply, header(family), 20);
            let there = world.forwarded(&wire::error(family.client, family.service, kind, about));
            assert_eq!(there.source.to_string(), family.source);
            assert_eq!(there.destination.to_string(), family.backend);
            assert_eq!(inside(&there), (end(family.backend, TCP_TARGET), end(family.source, port)));
        }
    }
}

#[test]
fn errors_about_nothing_known_are_dropped_on_one_side_and_left_alone_on_the_other() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        world.forwarded(&family.segment(SYN));
        let port = world.port(&family.flow(TCP));
        let stranger = wire::tcp(&Family::at(family.source, 1), &Family::at(family.backend, 2), ACK).bare();
        let kind = kinds(family)[0];
        let from_backend = wire::error(family.backend, family.source, kind, &stranger);
        let ran = world.back(&from_backend);
        assert_eq!((ran.action, ran.bytes), (Action::Next, from_backend.frame()));
        let from_tunnel = wire::error(family.client, family.service, kind, &stranger);
        assert_eq!(world.out(&from_tunnel).action, Action::Drop);
        assert_eq!(world.programs.refusals(), [("NoFlow", 1)]);
        let reply =
            wire::tcp(&Family::at(family.service, TCP_PORT), &Family::at(family.client, CLIENT_PORT), ACK)
                .bare();
        let elsewhere = wire::error(family.client, family.gateway, kind, &reply);
        assert_eq!(world.out(&elsewhere).action, Action::Drop, "port {port}");
        let redirect = wire::error(family.client, family.service, (5, 1, 0), &reply);
        assert_eq!(world.out(&redirect).action, Action::Drop);
    }
}

#[test]
fn another_node_cannot_speak_about_a_flow() {
    for (family, stranger, block) in
        [(&V4, "198.19.9.5", "198.19.9.0/26"), (&V6, "fd00:1:1009::5", "fd00:1:1009::/64")]
    {
        let mut world = World::new();
        world.own(block, 9, 10);
        world.forwarded(&family.segment(SYN));
        let reply =
            wire::tcp(&Family::at(family.service, TCP_PORT), &Family::at(family.client, CLIENT_PORT), ACK)
                .bare();
        let error = wire::error(stranger, family.service, kinds(family)[0], &reply);
        assert_eq!(world.out(&error).action, Action::Drop);
        assert_eq!(world.programs.refusals(), [("NoFlow", 1)]);
    }
}
