//! Packets that are hard to read: tags, options, extension headers, truncation.

use std::net::IpAddr;

use enforcer_common::{grant::Grant, maps::name, verdict::DropReason};
use enforcer_tests::{
    packet::{Packet, SYN, TCP, Transport},
    prog::{
        kernel::{DROP, NEXT, Outcome, REDIRECT},
        node::{self, families, flow, v4, v6},
    },
};

const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;

#[test]
fn up_to_two_vlan_tags_hide_nothing() {
    for family in families() {
        for tags in [vec![VLAN], vec![QINQ, VLAN], vec![VLAN, VLAN]] {
            let mut kernel = node::node();
            let mut packet = family.out(SYN).tcp_options(&[2, 4, 0x05, 0xb4]);
            packet.tags.clone_from(&tags);
            let mut wanted = packet.clone();
            let mss = (node::MTU as u16 - family.headers).to_be_bytes();
            wanted = wanted.tcp_options(&[2, 4, mss[0], mss[1]]);
            let expected = Outcome { action: REDIRECT, bytes: wanted.frame() };
            assert_eq!(kernel.run("from_pod", &packet.frame()), expected);
            wanted.source = family.inside;
            let expected = Outcome { action: REDIRECT, bytes: wanted.frame() };
            packet = packet.tcp_options(&[2, 4, mss[0], mss[1]]);
            assert_eq!(kernel.run("into_tunnel", &packet.frame()), expected);
            assert_eq!(kernel.run("to_wire", &packet.frame()).action, DROP);
            packet.destination = family.elsewhere;
            let frame = packet.frame();
            assert_eq!(kernel.run("from_pod", &frame), Outcome { action: NEXT, bytes: frame.clone() });
        }
    }
}

#[test]
fn ipv4_options_are_stepped_over() {
    let family = v4();
    // No-operations, a timestamp, router alert, the end of the list.
    for options in [
        vec![1, 1, 1, 1],
        vec![68, 8, 5, 0, 0, 0, 0, 0],
        vec![1, 148, 4, 0, 0, 0, 0, 0],
        vec![1; 40],
        vec![0, 0xff, 0xff, 0xff],
    ] {
        let mut kernel = node::node();
        let mut packet = family.out(SYN);
        packet.options.clone_from(&options);
        assert_eq!(kernel.run("from_pod", &packet.frame()).action, REDIRECT, "{options:?}");
        let mut inside = packet.clone();
        inside.source = family.inside;
        let expected = Outcome { action: REDIRECT, bytes: inside.frame() };
        assert_eq!(kernel.run("into_tunnel", &packet.frame()), expected);
    }
}

#[test]
fn ipv4_options_that_are_cut_short_are_refused() {
    let family = v4();
    for options in
        [vec![68, 0, 0, 0], vec![68, 1, 0, 0], vec![1, 1, 1, 68], vec![68, 5, 0, 0], vec![7, 255, 4, 0]]
    {
        let mut kernel = node::node();
        for destination in [family.service, family.elsewhere] {
            let mut packet = family.out(SYN);
            packet.destination = destination;
            packet.options.clone_from(&options);
            assert_eq!(kernel.run("from_pod", &packet.frame()).action, DROP, "{options:?}");
        }
        assert_eq!(kernel.dropped(DropReason::NotParsed), 2, "{options:?}");
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[test]
fn an_ipv4_source_route_to_a_guarded_address_is_refused() {
    let family = v4();
    let hop = [192, 0, 2, 1];
    let guarded = octets(family.service);
    for kind in [131, 137] {
        // As the next hop, as the last one, and as the header's own destination.
        for route in [[guarded.clone(), hop.to_vec()], [hop.to_vec(), guarded.clone()]] {
            let mut kernel = node::node();
            let mut packet = family.out(SYN);
            packet.destination = family.elsewhere;
            packet.options = [vec![1, kind, 11, 4], route.concat()].concat();
            assert_eq!(kernel.run("from_pod", &packet.frame()).action, DROP);
            assert_eq!(kernel.dropped(DropReason::SourceRouted), 1);
            assert_eq!(kernel.run("to_wire", &packet.frame()).action, DROP);
            assert_eq!(kernel.dropped(DropReason::ClearText), 1);
        }
        let mut kernel = node::node();
        let mut packet = family.out(SYN);
        packet.options = [vec![1, kind, 7, 4], hop.to_vec()].concat();
        assert_eq!(kernel.run("from_pod", &packet.frame()).action, DROP, "by way of the service");
        packet.destination = family.elsewhere;
        assert_eq!(kernel.run("from_pod", &packet.frame()).action, NEXT, "nothing guarded on it");
        packet.options = [vec![1, kind, 7, 8], guarded.clone()].concat();
        assert_eq!(kernel.run("from_pod", &packet.frame()).action, NEXT, "the route is used up");
    }
}

/// Hop-by-hop and destination options, padded to eight bytes.
fn padding() -> Vec<u8> {
    vec![0, 1, 4, 0, 0, 0, 0]
}

#[test]
fn ipv6_extension_headers_are_stepped_over() {
    let family = v6();
    let authentication = vec![4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for extensions in [
        vec![(0, padding())],
        vec![(60, padding())],
        vec![(0, padding()), (60, padding())],
        vec![(51, authentication)],
        vec![(60, padding()); 7],
    ] {
        let mut kernel = node::node();
        let mut packet = family.out(SYN).tcp_options(&[2, 4, 2, 0]);
        packet.extensions.clone_from(&extensions);
        assert_eq!(kernel.run("from_pod", &packet.frame()).action, REDIRECT, "{extensions:?}");
        let mut inside = packet.clone();
        inside.source = family.inside;
        let expected = Outcome { action: REDIRECT, bytes: inside.frame() };
        assert_eq!(kernel.run("into_tunnel", &packet.frame()), expected);
        packet.destination = family.elsewhere;
        let frame = packet.frame();
        assert_eq!(kernel.run("from_pod", &frame), Outcome { action: NEXT, bytes: frame.clone() });
    }
}

#[test]
fn an_ipv6_chain_that_does_not_end_is_refused() {
    let family = v6();
    let mut kernel = node::node();
    let mut packet = family.out(SYN);
    packet.extensions = vec![(60, padding()); 9];
    assert_eq!(kernel.run("from_pod", &packet.frame()).action, DROP);
    packet.extensions = vec![(60, vec![255, 0, 0, 0, 0, 0, 0])];
    assert_eq!(kernel.run("from_pod", &packet.frame()).action, DROP);
    assert_eq!(kernel.dropped(DropReason::NotParsed), 2);
}

#[test]
fn an_ipv6_route_to_a_guarded_address_is_refused() {
    let family = v6();
    let hop = octets(node::ip("2001:db8::1"));
    let guarded = octets(family.service);
    let header = |kind: u8, left: u8, route: &[&[u8]]| {
        let mut body = vec![route.len() as u8 * 2, kind, left, 0, 0, 0, 0];
        body.extend(route.concat());
        vec![(43, body)]
    };
    for kind in [0, 2, 3, 4] {
        for route in [[&guarded[..], &hop, &hop], [&hop, &hop, &guarded]] {
            let mut kernel = node::node();
            let mut packet = family.out(SYN);
            packet.destination = family.elsewhere;
            packet.extensions = header(kind, 2, &route);
            assert_eq!(kernel.run("from_pod", &packet.frame()).action, DROP);
            assert_eq!(kernel.dropped(DropReason::SourceRouted), 1);
            assert_eq!(kernel.run("to_wire", &packet.frame()).action, DROP);
            packet.extensions = header(kind, 0, &route);
            assert_eq!(kernel.run("from_pod", &packet.frame()).action, NEXT, "nothing left of it");
        }
        let mut kernel = node::node();
        let mut packet = family.out(SYN);
        packet.extensions = header(kind, 1, &[&hop]);
        assert_eq!(kernel.run("from_pod", &packet.frame()).action, DROP, "by way of the service");
        // The next segment lies in the middle: counted from the front, or from the end (type 4).
        packet.destination = family.elsewhere;
        packet.extensions = header(kind, 2, &[&hop, &guarded, &hop]);
        assert_eq!(kernel.run("from_pod", &packet.frame()).action, DROP);
    }
}

#[test]
fn a_packet_cut_off_anywhere_is_refused_or_passed_by_its_destination() {
    for family in families() {
        let mut kernel = node::node();
        let ip = if family.pod.is_ipv4() { 20 } else { 40 };
        // Shorter IP packets are refused by the test call itself; the parser's unit tests cut those.
        let shortest = 14 + ip;
        let whole = family.out(SYN).tcp_options(&[2, 4, 2, 0]).frame();
        for length in shortest..14 + ip + 20 {
            assert_eq!(kernel.run("from_pod", &whole[..length]).action, DROP, "{length} bytes");
        }
        let mut elsewhere = family.out(SYN);
        elsewhere.destination = family.elsewhere;
        let elsewhere = elsewhere.frame();
        for length in shortest..elsewhere.len() {
            assert_eq!(kernel.run("from_pod", &elsewhere[..length]).action, NEXT, "{length} bytes");
        }
        assert_eq!(flow(&mut kernel, &family, TCP), None);
    }
}

#[test]
fn a_tcp_header_shorter_than_it_says_is_refused() {
    for family in families() {
        let mut kernel = node::node();
        let mut frame = family.out(SYN).frame();
        let offset = frame.len() - 8;
        frame[offset] = 0x40;
        assert_eq!(kernel.run("from_pod", &frame).action, DROP);
        assert_eq!(kernel.dropped(DropReason::NotParsed), 1);
    }
}

#[test]
fn a_second_fragment_that_would_overwrite_the_first_is_refused() {
    for family in families() {
        let mut kernel = node::node();
        let mut packet = family.out(SYN).payload(100);
        let mut part = |offset, length, more| {
            packet.fragment = Some(enforcer_tests::packet::Fragment { id: 1, offset, length, more });
            packet.frame()
        };
        assert_eq!(kernel.run("from_pod", &part(0, 32, true)).action, REDIRECT);
        for offset in [8, 16] {
            assert_eq!(kernel.run("from_pod", &part(offset, 40, false)).action, DROP, "at {offset}");
        }
        assert_eq!(kernel.dropped(DropReason::NotParsed), 2);
        // What lies behind the header cannot change what was judged; the receiver drops what overlaps.
        assert_eq!(kernel.run("from_pod", &part(24, 40, false)).action, REDIRECT);
        // A first fragment too short for the header that it is judged by.
        assert_eq!(kernel.run("from_pod", &part(0, 16, true)).action, DROP);
        assert_eq!(kernel.dropped(DropReason::NotParsed), 3);
    }
}

#[test]
fn unguarded_protocols_of_any_kind_pass() {
    for family in families() {
        let mut kernel = node::node();
        for protocol in [0, 2, 47, 50, 59, 132, 253] {
            if protocol == 0 && !family.pod.is_ipv4() {
                continue;
            }
            let transport = Transport::Raw { protocol, payload: vec![0xa5; 40] };
            let frame = Packet::new(family.pod, family.elsewhere, transport).frame();
            assert_eq!(
                kernel.run("from_pod", &frame),
                Outcome { action: NEXT, bytes: frame.clone() },
                "protocol {protocol}"
            );
        }
        kernel.remove::<_, Grant>(name::GRANTS, &family.grant_key(TCP));
        assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, DROP);
    }
}
