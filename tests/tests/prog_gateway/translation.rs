//! Addresses, ports and sizes on the way to a backend and back.

use enforcer_common::flow::SECOND;
use enforcer_tests::prog::{
    Action,
    wire::{self, ACK, Body, PSH, SYN, TCP, UDP, Wire},
};

use crate::world::{CLIENT_PORT, Family, TCP_PORT, TCP_TARGET, UDP_PORT, UDP_TARGET, V4, V6, World, backend};

/// What a packet becomes: other ends, and one hop less.
fn moved(packet: &Wire, source: (&str, u16), destination: (&str, u16)) -> Wire {
    let mut packet = packet.clone();
    packet.source = source.0.parse().expect("an address");
    packet.destination = destination.0.parse().expect("an address");
    packet.ttl -= 1;
    match &mut packet.body {
        Body::Tcp { ports, .. } | Body::Udp { ports, .. } => *ports = (source.1, destination.1),
        Body::Icmp { .. } | Body::Raw { .. } => {}
    }
    packet
}

#[test]
fn tcp_goes_to_the_backend_and_comes_back_with_the_services_address() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        let syn = family.segment(SYN);
        let there = world.forwarded(&syn);
        let port = world.port(&family.flow(TCP));
        assert!((61_000..=65_535).contains(&port), "{port} is one of the gateway's own");
        assert_eq!(there, moved(&syn, (family.source, port), (family.backend, TCP_TARGET)));
        let answer = family.reply(port, SYN | ACK);
        let here = world.returned(&answer);
        assert_eq!(here, moved(&answer, (family.service, TCP_PORT), (family.client, CLIENT_PORT)));
        let data = family.segment(ACK | PSH).with_payload(333);
        let there = world.forwarded(&data);
        assert_eq!(there, moved(&data, (family.source, port), (family.backend, TCP_TARGET)));
    }
}

#[test]
fn udp_goes_to_the_backend_and_comes_back_with_the_services_address() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        let question = family.datagram(77);
        let there = world.forwarded(&question);
        let port = world.port(&family.flow(UDP));
        assert_eq!(there, moved(&question, (family.source, port), (family.backend, UDP_TARGET)));
        let answer = family.udp_reply(port, 512);
        let here = world.returned(&answer);
        assert_eq!(here, moved(&answer, (family.service, UDP_PORT), (family.client, CLIENT_PORT)));
    }
}

#[test]
fn a_udp_checksum_of_none_stays_none() {
    let mut world = World::new();
    let mut bytes = V4.datagram(8).bare();
    bytes[26..28].fill(0);
    let ran = world.programs.run("gw_from_tunnel", &bytes);
    assert_eq!(ran.action, Action::Redirect);
    assert_eq!(ran.bytes[14 + 26..14 + 28], [0, 0], "nobody has made a checksum up");
    assert_ne!(world.port(&V4.flow(UDP)), 0);
}

#[test]
fn preserve_keeps_the_workloads_address_and_port() {
    for family in [&V4, &V6] {
        let world = {
            let mut world = World::new();
            world.serve(family, TCP, 77, &[backend(family, TCP, false)]);
            world
        };
        let syn = family.segment(SYN);
        let there = world.forwarded(&syn);
        assert_eq!(there, moved(&syn, (family.client, CLIENT_PORT), (family.backend, TCP_TARGET)));
        let answer = enforcer_tests::prog::wire::tcp(
            &Family::at(family.backend, TCP_TARGET),
            &Family::at(family.client, CLIENT_PORT),
            SYN | ACK,
        );
        let here = world.returned(&answer);
        assert_eq!(here, moved(&answer, (family.service, TCP_PORT), (family.client, CLIENT_PORT)));
    }
}

/// A SYN's options: MSS behind two NOPs, so that it is found by walking.
fn mss(value: u16) -> Vec<u8> {
    let mut options = vec![1, 1, 2, 4];
    options.extend(value.to_be_bytes());
    options.extend([1, 0]);
    options
}

#[test]
fn both_ends_learn_an_mss_that_fits_the_tunnel() {
    for (family, fits) in [(&V4, 1380), (&V6, 1360)] {
        let mut world = World::new();
        let options = |packet: Wire| match packet.body {
            Body::Tcp { options, .. } => options,
            Body::Udp { .. } | Body::Icmp { .. } | Body::Raw { .. } => panic!("TCP"),
        };
        let there = world.forwarded(&family.segment(SYN).with_options(&mss(8960)));
        assert_eq!(options(there), mss(fits));
        let port = world.port(&family.flow(TCP));
        let here = world.returned(&family.reply(port, SYN | ACK).with_options(&mss(1460)));
        assert_eq!(options(here), mss(fits));
        let small = world.returned(&family.reply(port, SYN | ACK).with_options(&mss(900)));
        assert_eq!(options(small), mss(900), "a smaller one is nobody's business");
    }
}

#[test]
fn a_mss_at_an_odd_offset_is_lowered_with_its_checksum() {
    let world = World::new();
    let there = world.forwarded(&V4.segment(SYN).with_options(&[1, 2, 4, 0x22, 0x40, 1, 1, 0]));
    let Body::Tcp { options, .. } = there.body else { panic!("TCP") };
    assert_eq!(options, [1, 2, 4, 0x05, 0x64, 1, 1, 0]);
}

#[test]
fn fragments_follow_their_first_one() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        let mut first = family.datagram(64);
        first.df = family.client.contains(':');
        first.fragment = Some((77, 0, true));
        let there = world.forwarded(&first);
        let port = world.port(&family.flow(UDP));
        assert_eq!(there, moved(&first, (family.source, port), (family.backend, UDP_TARGET)));
        let body = Body::Raw { protocol: UDP, payload: vec![9; 40] };
        let later = Wire { fragment: Some((77, 72, false)), body, ..first };
        let there = world.forwarded(&later);
        assert_eq!(there, moved(&later, (family.source, 0), (family.backend, 0)));
    }
}

#[test]
fn fragments_of_a_reply_follow_their_first_one() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        world.forwarded(&family.datagram(10));
        let port = world.port(&family.flow(UDP));
        let mut first = family.udp_reply(port, 64);
        first.df = family.client.contains(':');
        first.fragment = Some((78, 0, true));
        let here = world.returned(&first);
        assert_eq!(here, moved(&first, (family.service, UDP_PORT), (family.client, CLIENT_PORT)));
        let body = Body::Raw { protocol: UDP, payload: vec![9; 40] };
        let later = Wire { fragment: Some((78, 72, false)), body, ..first };
        let here = world.returned(&later);
        assert_eq!(here, moved(&later, (family.service, 0), (family.client, 0)));
    }
}

#[test]
fn traffic_of_nobody_here_passes_untouched() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        world.forwarded(&family.segment(SYN));
        let port = world.port(&family.flow(TCP));
        let strangers = [
            family.reply(port + 1, ACK),
            family.udp_reply(port, 4),
            wire::tcp(&Family::at(family.router, TCP_TARGET), &Family::at(family.source, port), ACK),
            Wire { fragment: Some((5, 80, false)), ..family.reply(port, ACK) },
        ];
        for packet in strangers {
            let ran = world.back(&packet);
            assert_eq!((ran.action, ran.bytes), (Action::Next, packet.frame()));
        }
        world.age(&family.flow(TCP), 31 * SECOND);
        let late = family.reply(port, ACK);
        let ran = world.back(&late);
        assert_eq!((ran.action, ran.bytes), (Action::Next, late.frame()), "the flow is over");
        assert_eq!(world.programs.refusals(), []);
    }
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 6], &[0; 46]].concat();
    assert_eq!(World::new().programs.run("gw_from_backend", &arp).action, Action::Next);
}

#[test]
fn what_cannot_be_parsed_belongs_to_no_flow_and_passes_untouched() {
    for family in [&V4, &V6] {
        let whole = wire::tcp(&Family::at(family.router, 1000), &Family::at(family.source, 22), ACK).frame();
        let l4 = if family.client.contains(':') { 54 } else { 34 };
        // The TCP header is cut off, or says that it is shorter than it can be.
        let cut = whole[..l4 + 12].to_vec();
        let mut short = whole;
        short[l4 + 12] = 0x10;
        for frame in [cut, short] {
            let world = World::new();
            let ran = world.programs.run("gw_from_backend", &frame);
            assert_eq!((ran.action, ran.bytes, world.programs.refusals()), (Action::Next, frame, Vec::new()));
        }
    }
}
