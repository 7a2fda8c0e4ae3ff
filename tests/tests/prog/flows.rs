//! Fragments and ICMP errors find the flow they belong to.

use enforcer_common::{
    flow::{Flow, FragmentKey, FragmentPorts},
    grant::Grant,
    maps::name,
    verdict::DropReason,
};
use enforcer_tests::{
    packet::{ACK, Fragment, Packet, SYN, TCP, UDP},
    prog::{
        kernel::{DROP, Outcome, REDIRECT},
        node::{self, Family, families, flow},
    },
};

fn fragments(family: &Family, id: u32) -> [Packet; 2] {
    let part = |offset, length, more| {
        let mut packet = Packet::udp(family.client(), family.server(), 1000);
        packet.fragment = Some(Fragment { id, offset, length, more });
        packet
    };
    [part(0, 800, true), part(800, 208, false)]
}

#[test]
fn later_fragments_follow_the_first() {
    for family in families() {
        let mut kernel = node::node();
        for packet in fragments(&family, 99) {
            assert_eq!(kernel.run("from_pod", &packet.frame()).action, REDIRECT);
            let mut inside = packet.clone();
            inside.source = family.inside;
            // The checksum in the first fragment covers the whole datagram, under its new address.
            let expected = Outcome { action: REDIRECT, bytes: inside.frame() };
            assert_eq!(kernel.run("into_tunnel", &packet.frame()), expected);
        }
        assert_eq!(flow(&mut kernel, &family, UDP).expect("a flow").packets_out, 2);
    }
}

#[test]
fn replies_may_be_fragments() {
    for family in families() {
        let mut kernel = node::node();
        let request = Packet::udp(family.client(), family.server(), 10);
        assert_eq!(kernel.run("from_pod", &request.frame()).action, REDIRECT);
        for (offset, length, more) in [(0, 800, true), (800, 208, false)] {
            let mut packet = Packet::udp(family.server(), family.tunnelled(), 1000);
            packet.fragment = Some(Fragment { id: 5, offset, length, more });
            let mut delivered = packet.clone();
            delivered.destination = family.pod;
            let expected = Outcome { action: REDIRECT, bytes: delivered.bare() };
            assert_eq!(kernel.run("out_of_tunnel", &packet.bare()), expected);
            assert_eq!(kernel.run("to_workload", &delivered.bare()), expected);
        }
    }
}

#[test]
fn a_first_fragment_of_a_forged_reply_opens_nothing() {
    for family in families() {
        let mut kernel = node::node();
        let mut packet = Packet::udp(family.server(), family.tunnelled(), 1000);
        packet.fragment = Some(Fragment { id: 5, offset: 0, length: 800, more: true });
        let mut delivered = packet.clone();
        delivered.destination = family.pod;
        assert_eq!(kernel.run("out_of_tunnel", &packet.bare()).action, DROP);
        assert_eq!(kernel.run("to_workload", &delivered.bare()).action, DROP);
        assert_eq!(kernel.count::<FragmentKey, FragmentPorts>(name::FRAGMENTS), 0);
    }
}

#[test]
fn a_denied_first_fragment_does_not_take_the_place_of_an_allowed_one() {
    for family in families() {
        let mut kernel = node::node();
        let [first, later] = fragments(&family, 8);
        assert_eq!(kernel.run("from_pod", &first.frame()).action, REDIRECT);
        let mut other = Packet::udp(family.client(), (family.service, node::OFFERED).into(), 1000);
        other.fragment = first.fragment;
        assert_eq!(kernel.run("from_pod", &other.frame()).action, DROP);
        assert_eq!(kernel.run("from_pod", &later.frame()).action, REDIRECT, "still the allowed one's");
    }
}

#[test]
fn a_later_fragment_without_a_first_is_refused() {
    for family in families() {
        let mut kernel = node::node();
        let [first, later] = fragments(&family, 1);
        assert_eq!(kernel.run("from_pod", &first.frame()).action, REDIRECT);
        let mut stranger = later;
        stranger.fragment.as_mut().expect("a fragment").id = 2;
        let frame = stranger.frame();
        assert_eq!(kernel.run("from_pod", &frame), Outcome { action: DROP, bytes: frame });
        assert_eq!(kernel.dropped(DropReason::LateFragment), 1);
    }
}

#[test]
fn a_first_fragment_of_a_denied_datagram_opens_nothing() {
    for family in families() {
        let mut kernel = node::node();
        kernel.remove::<_, Grant>(name::GRANTS, &family.grant_key(UDP));
        for packet in fragments(&family, 3) {
            assert_eq!(kernel.run("from_pod", &packet.frame()).action, DROP);
            assert_eq!(kernel.run("into_tunnel", &packet.frame()).action, DROP);
        }
        let dropped = [DropReason::NoGrant, DropReason::NoFlow, DropReason::LateFragment];
        assert_eq!(dropped.map(|reason| kernel.dropped(reason)), [1, 1, 2]);
        assert_eq!(kernel.get::<_, Flow>(name::FLOWS, &family.key(UDP)), None);
        assert_eq!(kernel.count::<FragmentKey, FragmentPorts>(name::FRAGMENTS), 0, "no room is taken");
    }
}

/// Kind and code of "port unreachable".
fn unreachable(family: &Family) -> (u8, u8) {
    if family.pod.is_ipv4() { (3, 3) } else { (1, 4) }
}

/// The start of a packet, as an error carries it.
fn start(packet: &Packet) -> Vec<u8> {
    let mut bytes = packet.bare();
    bytes.truncate(if packet.source.is_ipv4() { 28 } else { 48 });
    bytes
}

#[test]
fn a_pods_icmp_error_about_its_flow_is_translated_inside_and_out() {
    for family in families() {
        let mut kernel = node::node();
        let request = Packet::udp(family.client(), family.server(), 10);
        assert_eq!(kernel.run("from_pod", &request.frame()).action, REDIRECT);
        let (kind, code) = unreachable(&family);
        let reply = Packet::udp(family.server(), family.client(), 10);
        let error = Packet::icmp(family.pod, family.service, kind, code, 0, start(&reply));
        assert_eq!(
            kernel.run("from_pod", &error.frame()),
            Outcome { action: REDIRECT, bytes: error.frame() }
        );
        // The embedded transport checksum stays as it was: build the embedded header for the new address, and put
        // the old bytes of the transport header behind it.
        let inside = Packet::udp(family.server(), family.tunnelled(), 10);
        let header = start(&reply).len() - 8;
        let embedded = [&start(&inside)[..header], &start(&reply)[header..]].concat();
        let expected = Packet::icmp(family.inside, family.service, kind, code, 0, embedded);
        assert_eq!(
            kernel.run("into_tunnel", &error.frame()),
            Outcome { action: REDIRECT, bytes: expected.frame() }
        );
    }
}

#[test]
fn an_icmp_error_about_a_flow_reaches_the_pod() {
    for family in families() {
        let mut kernel = node::node();
        assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
        let (kind, code) = unreachable(&family);
        let mut inside = family.out(SYN);
        inside.source = family.inside;
        let error = Packet::icmp(family.service, family.inside, kind, code, 0, start(&inside));
        let header = start(&inside).len() - 8;
        let embedded = [&start(&family.out(SYN))[..header], &start(&inside)[header..]].concat();
        let delivered = Packet::icmp(family.service, family.pod, kind, code, 0, embedded);
        let expected = Outcome { action: REDIRECT, bytes: delivered.bare() };
        assert_eq!(kernel.run("out_of_tunnel", &error.bare()), expected);
        assert_eq!(kernel.run("to_workload", &delivered.bare()), expected);
    }
}

#[test]
fn an_icmp_error_about_nothing_is_refused() {
    for family in families() {
        let mut kernel = node::node();
        let (kind, code) = unreachable(&family);
        let reply = Packet::tcp(family.server(), family.client(), ACK);
        let error = Packet::icmp(family.pod, family.service, kind, code, 0, start(&reply));
        assert_eq!(kernel.run("from_pod", &error.frame()).action, DROP);
        assert_eq!(kernel.run("into_tunnel", &error.frame()).action, DROP);
        let mut inside = family.out(SYN);
        inside.source = family.inside;
        let error = Packet::icmp(family.service, family.inside, kind, code, 0, start(&inside));
        assert_eq!(kernel.run("out_of_tunnel", &error.bare()).action, DROP);
        assert_eq!(kernel.dropped(DropReason::NoFlow), 3);
        assert_eq!(flow(&mut kernel, &family, TCP), None);
    }
}
