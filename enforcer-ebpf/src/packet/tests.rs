//! The parser against bytes: every header, truncated at every byte.

use std::net::IpAddr;

use enforcer_common::{Addr, verdict::DropReason};

use super::{
    Bytes, Fragment, ICMP, ICMPV6, INNER, Layer, Packet, Plain, ROUTED, TCP, UDP, Version, icmp, l4, parse,
    unfold,
};

impl Bytes for &[u8] {
    fn near<T: Plain>(&self, offset: u32) -> Option<T> {
        self.read(offset)
    }

    fn read<T: Plain>(&self, offset: u32) -> Option<T> {
        let bytes = self.get(offset as usize..)?.get(..size_of::<T>())?;
        // SAFETY: the slice has as many bytes as a `T`, and every bit pattern is one.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }
}

fn addr(text: &str) -> Addr {
    Addr::from(text.parse::<IpAddr>().unwrap())
}

/// Everything there is to know of a packet, or why it is refused. `None`: not IP.
fn read(bytes: &[u8], layer: Layer, guarded: &[&str]) -> Result<Option<Packet>, DropReason> {
    let mut packet = Packet::EMPTY;
    if !parse(&bytes, layer, &mut packet)? {
        return Ok(None);
    }
    if !packet.plain {
        let guarded: Vec<Addr> = guarded.iter().map(|text| addr(text)).collect();
        let mut inner = Packet::EMPTY;
        unfold(&bytes, &mut packet, &mut inner, |address| guarded.contains(address))?;
    }
    l4::parse(&bytes, &mut packet)?;
    Ok(Some(packet))
}

fn bare(bytes: &[u8]) -> Result<Option<Packet>, DropReason> {
    read(bytes, Layer::Bare, &[])
}

const CLIENT: [u8; 4] = [10, 0, 0, 5];
const SERVICE: [u8; 4] = [198, 18, 0, 7];

fn ipv4(options: &[u8], fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45 + (options.len() / 4) as u8, 0];
    bytes.extend(((20 + options.len() + payload.len()) as u16).to_be_bytes());
    bytes.extend([0x12, 0x34]);
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(CLIENT);
    bytes.extend(SERVICE);
    bytes.extend(options);
    bytes.extend(payload);
    bytes
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend([next, 64]);
    bytes.extend(octets("fd10::5"));
    bytes.extend(octets("fd00::7"));
    bytes.extend(payload);
    bytes
}

fn octets(text: &str) -> [u8; 16] {
    let address: std::net::Ipv6Addr = text.parse().unwrap();
    address.octets()
}

fn tcp() -> Vec<u8> {
    let mut bytes = vec![0x9c, 0x40, 0x15, 0x38];
    bytes.extend(1000_u32.to_be_bytes());
    bytes.extend(2000_u32.to_be_bytes());
    bytes.extend([0x50, l4::SYN | l4::ACK, 0x02, 0x00, 0, 0, 0, 0]);
    bytes
}

fn udp() -> Vec<u8> {
    vec![0x9c, 0x40, 0x15, 0x38, 0, 8, 0, 0]
}

#[test]
fn both_families_become_the_same() {
    let v4 = bare(&ipv4(&[], 0x4000, TCP, &tcp())).unwrap().unwrap();
    let v6 = bare(&ipv6(TCP, &tcp())).unwrap().unwrap();
    assert_eq!(
        v4,
        Packet {
            source: addr("10.0.0.5"),
            destination: addr("198.18.0.7"),
            l4: 20,
            fragment_id: 0x1234,
            sequence: 1000,
            acknowledgement: 2000,
            source_port: enforcer_common::Port::new(40_000),
            destination_port: enforcer_common::Port::new(5432),
            protocol: TCP,
            flags: l4::SYN | l4::ACK,
            tcp_header: 20,
            dont_fragment: true,
            ..Packet::EMPTY
        }
    );
    let same = Packet {
        source: addr("fd10::5"),
        destination: addr("fd00::7"),
        l4: 40,
        version: Version::V6,
        fragment_id: 0,
        ..v4
    };
    assert_eq!(v6, same);
}

#[test]
fn a_packet_cut_off_at_any_byte_is_refused_and_never_read_beyond() {
    let route = [1, 131, 11, 4, 192, 0, 2, 1, 198, 18, 0, 9];
    let extensions = {
        let mut bytes = vec![60, 0, 1, 4, 0, 0, 0, 0];
        bytes.extend([43, 0, 1, 4, 0, 0, 0, 0]);
        bytes.extend([44, 2, 0, 1, 0, 0, 0, 0]);
        bytes.extend(octets("2001:db8::1"));
        bytes.extend([TCP, 0, 0, 1, 0, 0, 0, 9]);
        bytes.extend(tcp());
        bytes
    };
    for whole in [
        ipv4(&[], 0, TCP, &tcp()),
        ipv4(&[], 0, UDP, &udp()),
        ipv4(&[], 0, ICMP, &[8, 0, 0, 0, 0, 0, 0, 0]),
        ipv4(&route, 0, TCP, &tcp()),
        ipv4(&[], 0, super::IPIP, &ipv4(&[], 0, TCP, &[])),
        ipv4(&[], 0, super::IPV6_IN, &ipv6(TCP, &[])),
        ipv6(TCP, &tcp()),
        ipv6(UDP, &udp()),
        ipv6(ICMPV6, &[128, 0, 0, 0, 0, 0, 0, 0]),
        ipv6(0, &extensions),
        ipv6(super::IPIP, &ipv4(&[], 0, TCP, &[])),
    ] {
        assert!(matches!(bare(&whole), Ok(Some(_))), "{whole:?}");
        // Two bytes tell the version; below them there is nothing that says IP.
        for length in 2..whole.len() {
            assert_eq!(bare(&whole[..length]), Err(DropReason::NotParsed), "{length} of {whole:?}");
        }
        for length in 0..2 {
            assert_eq!(bare(&whole[..length]), Ok(None));
        }
    }
}

#[test]
fn a_mapped_address_passes_for_nothing_on_a_wire() {
    for at in [8, 24] {
        let mut bytes = ipv6(TCP, &tcp());
        bytes[at..at + 16].copy_from_slice(&octets("::ffff:198.18.0.7"));
        assert_eq!(bare(&bytes), Err(DropReason::NotParsed));
    }
}

#[test]
fn frames_tell_ip_from_the_rest() {
    let packet = ipv4(&[], 0, UDP, &udp());
    let frame = |kinds: &[u8]| [&[0; 12][..], kinds, &packet].concat();
    let starts =
        |kinds: &[u8]| read(&frame(kinds), Layer::Frame, &[]).map(|packet| packet.map(|packet| packet.l3));
    assert_eq!(starts(&[0x08, 0x00]), Ok(Some(14)));
    assert_eq!(starts(&[0x81, 0x00, 0, 1, 0x08, 0x00]), Ok(Some(18)));
    assert_eq!(starts(&[0x88, 0xa8, 0, 1, 0x81, 0x00, 0, 2, 0x08, 0x00]), Ok(Some(22)));
    assert_eq!(starts(&[0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0]), Ok(None), "a third tag");
    assert_eq!(starts(&[0x08, 0x06]), Ok(None), "ARP");
    assert_eq!(starts(&[0x86, 0xdd]), Err(DropReason::NotParsed), "IPv6 by name, IPv4 by content");
    for length in 0..14 {
        assert_eq!(read(&frame(&[8, 0])[..length], Layer::Frame, &[]), Ok(None));
    }
}

#[test]
fn fragments_are_told_apart() {
    let part = |fragment| bare(&ipv4(&[], fragment, UDP, &udp())).map(|packet| packet.unwrap().fragment);
    assert_eq!(part(0), Ok(Fragment::Whole));
    assert_eq!(part(0x2000), Ok(Fragment::First));
    assert_eq!(part(0x2064), Ok(Fragment::Later));
    assert_eq!(part(0x0064), Ok(Fragment::Later));
    assert_eq!(bare(&ipv4(&[], 1, TCP, &tcp())), Err(DropReason::NotParsed), "over the first one's flags");
    let part6 = |offset: u16| {
        let mut bytes = vec![UDP, 0];
        bytes.extend(offset.to_be_bytes());
        bytes.extend([0, 0, 0, 9]);
        bytes.extend(udp());
        let packet = bare(&ipv6(44, &bytes)).unwrap().unwrap();
        (packet.fragment, packet.fragment_id, packet.protocol, packet.l4)
    };
    assert_eq!(part6(0), (Fragment::Whole, 9, UDP, 48), "an atomic fragment");
    assert_eq!(part6(1), (Fragment::First, 9, UDP, 48));
    assert_eq!(part6(0x0321), (Fragment::Later, 9, UDP, 48));
}

#[test]
fn what_lies_behind_a_packets_own_addresses_is_found() {
    let hidden = |bytes: &[u8], guarded: &[&str]| {
        read(bytes, Layer::Bare, guarded).map(|packet| packet.unwrap().hidden)
    };
    let route = |pointer| ipv4(&[131, 11, pointer, 192, 0, 2, 1, 192, 0, 2, 9, 0], 0, TCP, &tcp());
    assert_eq!(hidden(&route(4), &["192.0.2.1"]), Ok(ROUTED));
    assert_eq!(hidden(&route(4), &["192.0.2.9"]), Ok(ROUTED));
    assert_eq!(hidden(&route(4), &["198.18.0.7"]), Ok(ROUTED), "the next hop is guarded itself");
    assert_eq!(hidden(&route(8), &["192.0.2.1"]), Ok(0), "that hop lies behind");
    assert_eq!(hidden(&route(12), &["192.0.2.9"]), Ok(0), "the route is used up");
    assert_eq!(hidden(&route(4), &["192.0.2.2"]), Ok(0));

    let inside = ipv4(&[], 0, super::IPV6_IN, &ipv6(TCP, &tcp()));
    assert_eq!(hidden(&inside, &["fd00::7"]), Ok(INNER));
    assert_eq!(hidden(&inside, &["fd10::5"]), Ok(INNER));
    assert_eq!(hidden(&inside, &["fd10::6"]), Ok(0));
    let later = ipv4(&[], 0x0064, super::IPIP, &[0; 40]);
    assert_eq!(hidden(&later, &["fd00::7"]), Ok(0), "a later fragment has no header inside");
}

#[test]
fn options_end_where_the_header_ends() {
    for options in [vec![1; 40], vec![0; 4], vec![1, 1, 1, 0], vec![7, 4, 0, 0]] {
        let packet = bare(&ipv4(&options, 0, TCP, &tcp())).unwrap().unwrap();
        assert_eq!(packet.l4, 20 + options.len() as u32);
    }
    for options in [vec![7, 0, 0, 0], vec![7, 1, 0, 0], vec![7, 5, 0, 0], vec![1, 1, 1, 7]] {
        assert_eq!(bare(&ipv4(&options, 0, TCP, &tcp())), Err(DropReason::NotParsed), "{options:?}");
    }
}

#[test]
fn an_errors_subject_is_read() {
    let subject = ipv4(&[], 0, UDP, &udp());
    let error = ipv4(&[], 0, ICMP, &[&[3, 3, 0, 0, 0, 0, 0, 0], &subject[..]].concat());
    let outer = bare(&error).unwrap().unwrap();
    assert!(icmp::is_error(&outer));
    let mut inner = Packet::EMPTY;
    icmp::embedded(&&error[..], &outer, &mut inner).unwrap();
    assert_eq!(
        (inner.l3, inner.l4, inner.source_port.get(), inner.destination_port.get()),
        (28, 48, 40_000, 5432)
    );
    for length in 28..52 {
        let mut cut = Packet::EMPTY;
        assert_eq!(
            icmp::embedded(&&error[..length], &outer, &mut cut),
            Err(DropReason::NotParsed),
            "{length}"
        );
    }
    let echo = bare(&ipv4(&[], 0, ICMP, &[8, 0, 0, 0, 0, 0, 0, 0])).unwrap().unwrap();
    assert!(!icmp::is_error(&echo));
}
