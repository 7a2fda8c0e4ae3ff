//! Packets that lie about themselves, through every program that looks at them.

use std::net::IpAddr;

use enforcer_common::{
    flow::{Flow, FlowKey},
    maps::name,
    verdict::DropReason,
};
use enforcer_tests::{
    packet::{ACK, Fragment, Packet, SYN, TCP, Transport, UDP, extensions},
    prog::{
        kernel::{DROP, Kernel, NEXT, Outcome, REDIRECT},
        node::{self, Family, families, flow, v6},
    },
};

fn ip_header(family: &Family) -> usize {
    if family.pod.is_ipv4() { 20 } else { 40 }
}

/// A node on which both flows of a family are open.
fn open(family: &Family) -> Kernel {
    let mut kernel = node::node();
    for frame in [family.out(SYN).frame(), Packet::udp(family.client(), family.server(), 8).frame()] {
        assert_eq!(kernel.run("from_pod", &frame).action, REDIRECT);
    }
    kernel
}

/// A packet out and a reply, each with where its transport checksum is (counted from the IP header).
fn pairs(family: &Family) -> [(Packet, Packet, usize); 2] {
    let header = ip_header(family);
    [
        (family.out(ACK).payload(33), family.back(ACK).payload(34), header + 16),
        (
            Packet::udp(family.client(), family.server(), 35),
            Packet::udp(family.server(), family.tunnelled(), 36),
            header + 6,
        ),
    ]
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    for family in families() {
        let mut kernel = open(&family);
        for (out, back, at) in pairs(&family) {
            for (program, bytes, l3) in [("into_tunnel", out.frame(), 14), ("out_of_tunnel", back.bare(), 0)]
            {
                let right = kernel.run(program, &bytes);
                let mut places = vec![l3 + at];
                if family.pod.is_ipv4() {
                    places.push(l3 + 10);
                }
                for place in places {
                    let mut wrong = bytes.clone();
                    wrong[place] ^= 0x55;
                    let found = kernel.run(program, &wrong);
                    assert_eq!(found.action, REDIRECT);
                    let differing: Vec<_> = (0..right.bytes.len())
                        .filter(|index| found.bytes[*index] != right.bytes[*index])
                        .collect();
                    assert!(!differing.is_empty(), "{program} repaired it");
                    assert!(
                        differing.iter().all(|index| *index == place || *index == place + 1),
                        "{differing:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_packet_cut_off_anywhere_passes_no_guard() {
    for family in families() {
        let mut kernel = open(&family);
        let l4 = ip_header(&family);
        for (out, back, _) in pairs(&family) {
            let needed = if matches!(out.transport, Transport::Udp { .. }) { 8 } else { 20 };
            let (frame, bare) = (out.frame(), back.bare());
            for length in 14 + l4..14 + l4 + needed {
                for program in ["from_pod", "from_host", "to_wire", "into_tunnel"] {
                    let cut = frame[..length].to_vec();
                    let expected = Outcome { action: DROP, bytes: cut.clone() };
                    assert_eq!(kernel.run(program, &cut), expected, "{program}: {length} bytes");
                }
            }
            // The test call wants a whole Ethernet and IP header's worth.
            for length in (l4 + 14).max(34)..l4 + needed {
                let cut = bare[..length].to_vec();
                let expected = Outcome { action: DROP, bytes: cut.clone() };
                assert_eq!(kernel.run("out_of_tunnel", &cut), expected, "{length} bytes");
            }
        }
        for protocol in [TCP, UDP] {
            let flow = flow(&mut kernel, &family, protocol).expect("a flow");
            assert_eq!((flow.packets_out, flow.packets_in), (1, 0), "none was counted");
        }
    }
}

#[test]
fn wrong_lengths_change_no_verdict_and_are_passed_on_as_they_are() {
    for family in families() {
        let mut kernel = open(&family);
        // Total length, or payload length; and that of UDP.
        let length_at = if family.pod.is_ipv4() { 2 } else { 4 };
        for (out, _, _) in pairs(&family) {
            let mut places = vec![14 + length_at];
            if matches!(out.transport, Transport::Udp { .. }) {
                places.push(14 + ip_header(&family) + 4);
            }
            for place in places {
                for value in [0_u16, 1, 19, 40, 0xffff] {
                    let mut frame = out.frame();
                    frame[place..place + 2].copy_from_slice(&value.to_be_bytes());
                    let expected = Outcome { action: REDIRECT, bytes: frame.clone() };
                    assert_eq!(kernel.run("from_pod", &frame), expected, "{value} at {place}");
                    let translated = kernel.run("into_tunnel", &frame);
                    assert_eq!(translated.action, REDIRECT);
                    assert_eq!(translated.bytes[place..place + 2], value.to_be_bytes());
                    assert_eq!(kernel.run("to_wire", &frame).action, DROP);
                    let mut denied = out.clone();
                    denied.destination = family.free;
                    let mut frame = denied.frame();
                    frame[place..place + 2].copy_from_slice(&value.to_be_bytes());
                    assert_ne!(kernel.run("from_pod", &frame).action, NEXT);
                    assert_eq!(kernel.run("into_tunnel", &frame).action, DROP);
                }
            }
        }
    }
}

#[test]
fn ipv6_extension_headers_in_any_order_hide_nothing_anywhere() {
    let family = v6();
    let mut kernel = open(&family);
    for first in extensions() {
        for second in extensions() {
            let chain = vec![first.clone(), second];
            let extended = |mut packet: Packet| {
                packet.extensions.clone_from(&chain);
                packet
            };
            let out = extended(family.out(ACK));
            assert_eq!(kernel.run("from_pod", &out.frame()).action, REDIRECT, "{chain:?}");
            let mut inside = out.clone();
            inside.source = family.inside;
            let expected = Outcome { action: REDIRECT, bytes: inside.frame() };
            assert_eq!(kernel.run("into_tunnel", &out.frame()), expected, "{chain:?}");
            let back = extended(family.back(ACK));
            let mut delivered = back.clone();
            delivered.destination = family.pod;
            let expected = Outcome { action: REDIRECT, bytes: delivered.bare() };
            assert_eq!(kernel.run("out_of_tunnel", &back.bare()), expected, "{chain:?}");
            assert_eq!(kernel.run("to_wire", &out.frame()).action, DROP);
            assert_eq!(kernel.run("to_wire_l3", &out.bare()).action, DROP);
            let denied = extended(Packet::tcp(family.client(), (family.free, 5432).into(), SYN));
            assert_eq!(kernel.run("from_pod", &denied.frame()).action, DROP);
        }
    }
    // Cut off in the middle of the chain, which is no shorter than it says.
    let whole = {
        let mut packet = family.out(ACK);
        packet.extensions = extensions();
        packet.frame()
    };
    for length in 54..whole.len() {
        for program in ["from_pod", "from_host", "into_tunnel", "to_wire"] {
            assert_eq!(kernel.run(program, &whole[..length]).action, DROP, "{program}: {length} bytes");
        }
    }
}

/// Which bytes win is its receiver's to say (nobody takes such a datagram since RFC 5722); whose it is, is not.
#[test]
fn fragments_that_overlap_belong_to_whom_the_first_did() {
    for family in families() {
        for udp in [false, true] {
            let mut kernel = open(&family);
            let whole = if udp {
                Packet::udp(family.client(), family.server(), 120)
            } else {
                family.out(ACK).payload(108)
            };
            let part = |packet: &Packet, id, (offset, length, more)| {
                let fragment = Some(Fragment { id, offset, length, more });
                Packet { fragment, ..packet.clone() }.frame()
            };
            let passes = |kernel: &mut Kernel, frame: &[u8]| {
                let as_it_is = Outcome { action: REDIRECT, bytes: frame.to_vec() };
                assert_eq!(kernel.run("from_pod", frame), as_it_is);
                assert_eq!(kernel.run("into_tunnel", frame).action, REDIRECT);
            };
            passes(&mut kernel, &part(&whole, 1, (0, 64, true)));
            // Into the first, into each other, the same again, and past the end of the last.
            let over = [
                (24, 48, true),
                (32, 8, true),
                (64, 64, false),
                (64, 64, false),
                (96, 32, false),
                (120, 8, true),
            ];
            for place in over {
                passes(&mut kernel, &part(&whole, 1, place));
            }
            // Another first of the same datagram that leads where nothing is granted changes nobody's mind.
            let mut other = whole.clone();
            match &mut other.transport {
                Transport::Tcp { destination, .. } | Transport::Udp { destination, .. } => *destination = 1,
                _ => unreachable!("neither of the two"),
            }
            let other = part(&other, 1, (0, 64, true));
            let passed = Outcome { action: REDIRECT, bytes: other.clone() };
            assert_ne!(kernel.run("from_pod", &other), passed, "at most answered");
            passes(&mut kernel, &part(&whole, 1, (64, 64, false)));
            assert_eq!(kernel.dropped(DropReason::LateFragment), 0);
            for program in ["from_pod", "into_tunnel"] {
                assert_eq!(kernel.run(program, &part(&whole, 2, (24, 48, true))).action, DROP);
            }
            assert_eq!(kernel.dropped(DropReason::LateFragment), 2, "nobody has seen its first");
            assert_eq!(kernel.count::<FlowKey, Flow>(name::FLOWS), 2, "and nothing was opened");
        }
    }
}

#[test]
fn tags_deeper_than_two_are_no_way_around_a_wire() {
    for family in families() {
        let mut kernel = open(&family);
        let tagged = |tags: &[u16], destination: IpAddr| {
            let mut packet = family.out(ACK);
            packet.tags = tags.to_vec();
            packet.destination = destination;
            packet.frame()
        };
        for tags in [&[0x8100][..], &[0x88a8, 0x8100], &[0x8100, 0x8100], &[0x88a8, 0x88a8]] {
            for program in ["from_pod", "from_host", "to_wire"] {
                let frame = tagged(tags, family.free);
                assert_ne!(kernel.run(program, &frame).action, NEXT, "{program} {tags:x?}");
                let frame = tagged(tags, family.elsewhere);
                assert_eq!(kernel.run(program, &frame), Outcome { action: NEXT, bytes: frame.clone() });
            }
        }
        // Three are what no stack here unpacks: not IP, like any other protocol.
        let frame = tagged(&[0x88a8, 0x8100, 0x8100], family.free);
        assert_eq!(kernel.run("from_pod", &frame).action, NEXT);
        assert_eq!(kernel.run("into_tunnel", &frame).action, DROP);
        assert_eq!(kernel.dropped(DropReason::NotParsed), 0);
    }
}
