//! Packets that lie about themselves, through both programs of the gateway.

use std::net::SocketAddr;

use enforcer_common::verdict::DropReason;
use enforcer_tests::{
    packet::{ACK, Fragment, Packet, SYN, TCP, Transport, UDP, extensions},
    prog::{Action, Ran},
};

use crate::world::{CLIENT_PORT, Family, TCP_PORT, TCP_TARGET, UDP_PORT, UDP_TARGET, V4, V6, World, addr};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(addr(address).ip(), port)
}

fn ip_header(family: &Family) -> usize {
    if addr(family.client).is_v4() { 20 } else { 40 }
}

/// One of the two programs, with a packet of a flow that is open and what it becomes.
#[derive(Clone, Debug)]
struct Case {
    program: &'static str,
    packet: Packet,
    becomes: Packet,
}

/// A gateway on which a flow of each protocol is open, and a packet of each either way.
fn open(family: &Family) -> (World, Vec<Case>) {
    let mut world = World::new();
    world.forwarded(&family.segment(SYN));
    world.forwarded(&family.datagram(8));
    let mut cases = Vec::new();
    for (protocol, port, target) in [(TCP, TCP_PORT, TCP_TARGET), (UDP, UDP_PORT, UDP_TARGET)] {
        let own = at(family.source, world.port(&family.flow(protocol)));
        let (client, service) = (at(family.client, CLIENT_PORT), at(family.service, port));
        let backend = at(family.backend, target);
        let packet = |source, destination, length| match protocol {
            TCP => Packet::tcp(source, destination, ACK).payload(length),
            _ => Packet::udp(source, destination, length),
        };
        for (program, there, here) in [
            ("gw_from_tunnel", (client, service), (own, backend)),
            ("gw_from_backend", (backend, own), (service, client)),
        ] {
            let becomes = Packet { ttl: 63, ..packet(here.0, here.1, 35) };
            cases.push(Case { program, packet: packet(there.0, there.1, 35), becomes });
        }
    }
    (world, cases)
}

impl Case {
    fn is_udp(&self) -> bool {
        matches!(self.packet.transport, Transport::Udp { .. })
    }

    fn is_tunnels(&self) -> bool {
        self.program == "gw_from_tunnel"
    }

    /// What the program gets: frames come from a backend only.
    fn bytes(&self) -> Vec<u8> {
        if self.is_tunnels() { self.packet.bare() } else { self.packet.frame() }
    }

    /// Where the IP header of that begins.
    fn l3(&self) -> usize {
        if self.is_tunnels() { 0 } else { ETHERNET }
    }

    /// The same with both packets changed.
    fn with(&self, change: impl Fn(&mut Packet)) -> Self {
        let mut case = self.clone();
        change(&mut case.packet);
        change(&mut case.becomes);
        case
    }

    /// The packet goes on as it has to become.
    fn passes(&self, world: &World) {
        let ran = world.programs.run(self.program, &self.bytes());
        assert_eq!(ran.action, Action::Redirect, "{self:?}: {:?}", world.programs.refusals());
        assert_eq!(ran.bytes[ETHERNET..], self.becomes.bare(), "{self:?}");
    }

    /// The packet is dropped on the tunnel's side, and on the other left to the host; as it is, either way.
    fn is_nobodys(&self, world: &World, bytes: &[u8]) {
        let ran = world.programs.run(self.program, bytes);
        let action = if self.is_tunnels() { Action::Drop } else { Action::Next };
        assert_eq!((ran.action, &ran.bytes[..]), (action, bytes), "{self:?}: {} bytes", bytes.len());
    }
}

/// Places at which two packets differ.
fn differing(one: &Ran, other: &Ran) -> Vec<usize> {
    assert_eq!(one.bytes.len(), other.bytes.len());
    (0..one.bytes.len()).filter(|index| one.bytes[*index] != other.bytes[*index]).collect()
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    for family in [&V4, &V6] {
        let (world, cases) = open(family);
        for case in cases {
            let right = world.programs.run(case.program, &case.bytes());
            let mut places = vec![ip_header(family) + if case.is_udp() { 6 } else { 16 }];
            if addr(family.client).is_v4() {
                places.push(10);
            }
            for place in places {
                let mut wrong = case.bytes();
                wrong[case.l3() + place] ^= 0x55;
                let found = world.programs.run(case.program, &wrong);
                assert_eq!(found.action, Action::Redirect);
                let (differing, place) = (differing(&right, &found), ETHERNET + place);
                assert!(!differing.is_empty(), "{case:?} is repaired");
                assert!(differing.iter().all(|index| [place, place + 1].contains(index)), "{differing:?}");
            }
        }
    }
}

#[test]
fn a_packet_cut_off_anywhere_is_nobodys() {
    for family in [&V4, &V6] {
        let (mut world, cases) = open(family);
        for case in cases {
            let whole = case.bytes();
            let headers = ip_header(family) + if case.is_udp() { 8 } else { 20 };
            // The test call wants a whole Ethernet and IP header's worth; the parser's unit tests cut those.
            let shortest = if case.is_tunnels() {
                (ip_header(family) + ETHERNET).max(34)
            } else {
                ETHERNET + ip_header(family)
            };
            for length in shortest..case.l3() + headers {
                case.is_nobodys(&world, &whole[..length]);
            }
        }
        for protocol in [TCP, UDP] {
            let flow = world.flow(&family.flow(protocol)).expect("a flow");
            assert_eq!(flow.seen_acks, 0, "none was of the flow");
        }
    }
}

#[test]
fn wrong_lengths_change_no_verdict_and_are_passed_on_as_they_are() {
    for family in [&V4, &V6] {
        let (world, cases) = open(family);
        let mut nowhere = World::new();
        for protocol in [TCP, UDP] {
            nowhere.revoke(family, protocol);
        }
        for case in cases {
            let mut places = vec![if addr(family.client).is_v4() { 2 } else { 4 }];
            if case.is_udp() {
                places.push(ip_header(family) + 4);
            }
            for place in places {
                for value in [0_u16, 1, 19, 40, 0xffff].map(u16::to_be_bytes) {
                    let mut bytes = case.bytes();
                    bytes[case.l3() + place..case.l3() + place + 2].copy_from_slice(&value);
                    let ran = world.programs.run(case.program, &bytes);
                    assert_eq!(ran.action, Action::Redirect, "{case:?}");
                    assert_eq!(ran.bytes[ETHERNET + place..ETHERNET + place + 2], value);
                    // Nor do they open anything.
                    let ran = nowhere.programs.run(case.program, &bytes);
                    if case.is_tunnels() {
                        assert_eq!(
                            nowhere.programs.refusals().last().map(|(name, _)| *name),
                            Some("NoGrant")
                        );
                    } else {
                        assert_eq!((ran.action, ran.bytes), (Action::Next, bytes));
                    }
                }
            }
        }
    }
}

#[test]
fn ipv6_extension_headers_in_any_order_are_passed_on() {
    let (world, cases) = open(&V6);
    for case in &cases {
        for first in extensions() {
            for second in extensions() {
                let chain = [first.clone(), second];
                case.with(|packet| packet.extensions = chain.to_vec()).passes(&world);
            }
        }
        let long = case.with(|packet| packet.extensions = extensions());
        long.passes(&world);
        let whole = long.bytes();
        let headers = whole.len() - 35;
        for length in case.l3() + ip_header(&V6) + ETHERNET..headers {
            case.is_nobodys(&world, &whole[..length]);
        }
        // More than are followed.
        let endless = case.with(|packet| packet.extensions = vec![(60, vec![0, 1, 4, 0, 0, 0, 0]); 9]);
        case.is_nobodys(&world, &endless.bytes());
    }
}

#[test]
fn a_route_inside_of_a_packet_is_not_followed() {
    let hop = [0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    for kind in [0, 2, 3, 4] {
        let (world, cases) = open(&V6);
        for case in cases.iter().filter(|case| case.is_tunnels()) {
            let routed = case.with(|packet| {
                packet.extensions = vec![(43, [&[2, kind, 1, 0, 0, 0, 0][..], &hop].concat())];
            });
            case.is_nobodys(&world, &routed.bytes());
        }
        assert_eq!(world.programs.refusals(), [("SourceRouted", 2)]);
    }
    for kind in [131, 137] {
        let (world, cases) = open(&V4);
        for case in cases.iter().filter(|case| case.is_tunnels()) {
            let routed = case.with(|packet| packet.options = vec![1, kind, 7, 4, 203, 0, 113, 9]);
            case.is_nobodys(&world, &routed.bytes());
            case.with(|packet| packet.options = vec![1, kind, 7, 8, 203, 0, 113, 9]).passes(&world);
        }
        assert_eq!(world.programs.refusals(), [("SourceRouted", 2)]);
    }
}

#[test]
fn ipv4_options_are_passed_on_and_cut_ones_are_nobodys() {
    let (world, cases) = open(&V4);
    for case in &cases {
        for options in [
            vec![1, 1, 1, 0],
            vec![148, 4, 0, 0],
            vec![7, 7, 4, 0, 0, 0, 0, 0],
            vec![68, 8, 5, 0, 0, 0, 0, 0],
            vec![1; 40],
        ] {
            case.with(|packet| packet.options.clone_from(&options)).passes(&world);
        }
        for options in [vec![148, 0, 0, 0], vec![148, 1, 0, 0], vec![7, 9, 4, 0], vec![1, 1, 1, 7]] {
            let cut = case.with(|packet| packet.options.clone_from(&options));
            case.is_nobodys(&world, &cut.bytes());
        }
        // A header that says that it is longer than the packet, and one shorter than a header.
        for words in [0x44, 0x40] {
            let mut bytes = case.bytes();
            bytes[case.l3()] = words;
            case.is_nobodys(&world, &bytes);
        }
    }
}

#[test]
fn fragments_follow_their_first_and_nothing_else() {
    for family in [&V4, &V6] {
        let (world, cases) = open(family);
        for (case, id) in cases.iter().zip(1..) {
            let long = case.with(|packet| *packet = packet.clone().payload(100));
            let part = |id, offset, length, more| {
                long.with(|packet| packet.fragment = Some(Fragment { id, offset, length, more }))
            };
            let (first, second, last) =
                (part(id, 0, 48, true), part(id, 48, 24, true), part(id, 72, 36, false));
            for early in [&second, &last] {
                case.is_nobodys(&world, &early.bytes());
            }
            // In any order behind the first, and again.
            for fragment in [&first, &last, &second, &last] {
                fragment.passes(&world);
            }
            case.is_nobodys(&world, &part(id + 100, 48, 24, true).bytes());
            // What overlaps is its receiver's to throw away, as long as it leaves alone what the first was judged by.
            part(id, 24, 48, true).passes(&world);
            for offset in [8, 16] {
                let over = part(id, offset, 40, false);
                if case.is_udp() {
                    over.passes(&world);
                } else {
                    case.is_nobodys(&world, &over.bytes());
                }
            }
            // Too short for the header that it would be judged by.
            if !case.is_udp() {
                case.is_nobodys(&world, &part(id, 0, 16, true).bytes());
            }
        }
    }
}

#[test]
fn a_first_fragment_of_another_flow_takes_later_ones_along_only_where_that_is_granted() {
    for family in [&V4, &V6] {
        let (mut world, cases) = open(family);
        let case = cases.iter().find(|case| case.is_tunnels() && case.is_udp()).expect("one").clone();
        let long = case.with(|packet| *packet = packet.clone().payload(100));
        let part = |offset, length, more| {
            long.with(|packet| packet.fragment = Some(Fragment { id: 9, offset, length, more }))
        };
        part(0, 48, true).passes(&world);
        // The same datagram begins once more, to a port that nobody offers.
        let mut other = part(0, 48, true);
        if let Transport::Udp { destination, .. } = &mut other.packet.transport {
            *destination = 99;
        }
        case.is_nobodys(&world, &other.bytes());
        assert_eq!(world.programs.refused(DropReason::PortNotOffered), 1);
        // The later ones are still the granted one's, and go with its grant.
        part(48, 60, false).passes(&world);
        world.revoke(family, UDP);
        let ran = world.programs.run(case.program, &part(48, 60, false).bytes());
        assert_ne!(ran.bytes.get(ETHERNET..), Some(&part(48, 60, false).becomes.bare()[..]));
        assert_eq!(world.programs.refused(DropReason::Revoked), 1);
    }
}

#[test]
fn a_frame_of_another_vlan_is_no_backends() {
    for family in [&V4, &V6] {
        let (world, cases) = open(family);
        for case in cases.iter().filter(|case| !case.is_tunnels()) {
            for tags in [&[0x8100][..], &[0x88a8, 0x8100], &[0x88a8, 0x8100, 0x8100]] {
                let tagged = case.with(|packet| packet.tags = tags.to_vec());
                case.is_nobodys(&world, &tagged.bytes());
            }
        }
    }
}
