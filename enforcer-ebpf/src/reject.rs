//! Answers: a packet becomes a reset or an ICMP error to whoever sent it.
//!
//! The answer is written over the packet, and the caller sends it back. Packets with IP options or extension headers,
//! later fragments and resets get no answer.

use enforcer_common::verdict::DropReason;

use crate::{
    csum,
    packet::{Bytes as _, Fragment, ICMP, ICMPV6, Packet, TCP, UDP, Version, eth, icmp, ipv4, ipv6, l4},
    skb::Skb,
};

/// What an ICMP error says, in both families.
#[derive(Clone, Copy)]
pub enum Error {
    HostUnreachable,
    Prohibited,
    /// With the MTU that would fit.
    TooBig(u32),
}

/// Time to live of an answer.
const TTL: u32 = 64;

/// Answers a TCP segment with the reset that its sender must believe (RFC 5961): its sequence number is the one that
/// was acknowledged last.
///
/// # Errors
/// [`DropReason::NotCarried`] for what cannot be answered, [`DropReason::Internal`] where a helper fails.
#[inline(never)]
pub fn reset(skb: Skb, packet: &Packet) -> Result<(), DropReason> {
    if !packet.has(l4::ACK) || packet.flags & l4::RST != 0 || packet.fragment == Fragment::Later {
        return Err(DropReason::NotCarried);
    }
    swap_ethernet(skb, packet)?;
    let ports = u32::from(packet.destination_port.get()) << 16 | u32::from(packet.source_port.get());
    let mut tcp = [
        ports.to_be(),
        packet.acknowledgement.to_be(),
        0,
        ((l4::TCP_HEADER / 4) << 28 | u32::from(l4::RST) << 16).to_be(),
        0,
    ];
    match packet.version {
        Version::V4 => {
            let mut ip = ipv4_header(packet, l4::TCP_HEADER, TCP);
            let seed = csum::sum(&mut ip[3..], 2, pseudo(l4::TCP_HEADER, TCP));
            tcp[4] = checksum_high(csum::sum(&mut tcp, 5, seed));
            skb.resize(packet.l3 + ipv4::HEADER + l4::TCP_HEADER)?;
            skb.store(packet.l3, &ip, 0)?;
            skb.store(packet.l3 + ipv4::HEADER, &tcp, 0)
        }
        Version::V6 => {
            let mut ip = ipv6_header(packet, l4::TCP_HEADER, TCP);
            let seed = csum::sum(&mut ip[2..], 8, pseudo(l4::TCP_HEADER, TCP));
            tcp[4] = checksum_high(csum::sum(&mut tcp, 5, seed));
            skb.resize(packet.l3 + ipv6::HEADER + l4::TCP_HEADER)?;
            skb.store(packet.l3, &ip, 0)?;
            skb.store(packet.l3 + ipv6::HEADER, &tcp, 0)
        }
    }
}

/// Answers with an ICMP error about the packet.
///
/// # Errors
/// As [`reset`].
#[inline(never)]
pub fn error(skb: Skb, packet: &Packet, error: &Error) -> Result<(), DropReason> {
    if !packet.plain || !packet.has_ports() || packet.fragment == Fragment::Later {
        return Err(DropReason::NotCarried);
    }
    match packet.version {
        Version::V4 => error_v4(skb, packet, error),
        Version::V6 => error_v6(skb, packet, error),
    }
}

/// Words of the embedded headers: IP, and TCP or UDP.
const TCP_V4: usize = 10;
const UDP_V4: usize = 7;
const TCP_V6: usize = 15;
const UDP_V6: usize = 12;

#[inline(always)]
fn error_v4(skb: Skb, packet: &Packet, error: &Error) -> Result<(), DropReason> {
    let (kind, code, rest): (u32, u32, u32) = match error {
        Error::HostUnreachable => (3, 1, 0),
        Error::Prohibited => (3, 13, 0),
        Error::TooBig(mtu) => (3, 4, mtu & 0xffff),
    };
    let mut message = [0_u32; 2 + TCP_V4];
    message[0] = (kind << 24 | code << 16).to_be();
    message[1] = rest.to_be();
    if packet.protocol == UDP {
        let embedded: [u32; UDP_V4] = skb.read(packet.l3).ok_or(DropReason::NotCarried)?;
        message[2..2 + UDP_V4].copy_from_slice(&embedded);
    } else {
        let embedded: [u32; TCP_V4] = skb.read(packet.l3).ok_or(DropReason::NotCarried)?;
        message[2..].copy_from_slice(&embedded);
    }
    message[0] |= checksum_low(csum::sum(&mut message, 2 + TCP_V4, 0));
    // Twelve words at most; behind a UDP header the rest of them is zero, which sums to nothing.
    let length = (2 + TCP_V4 as u32) * 4;
    let ip = ipv4_header(packet, length, ICMP);
    swap_ethernet(skb, packet)?;
    skb.resize(packet.l3 + ipv4::HEADER + length)?;
    skb.store(packet.l3, &ip, 0)?;
    skb.store(packet.l3 + ipv4::HEADER, &message, 0)
}

#[inline(always)]
fn error_v6(skb: Skb, packet: &Packet, error: &Error) -> Result<(), DropReason> {
    let (kind, code, rest): (u32, u32, u32) = match error {
        Error::HostUnreachable => (1, 3, 0),
        Error::Prohibited => (1, 1, 0),
        Error::TooBig(mtu) => (2, 0, *mtu),
    };
    let mut message = [0_u32; 2 + TCP_V6];
    message[0] = (kind << 24 | code << 16).to_be();
    message[1] = rest.to_be();
    if packet.protocol == UDP {
        let embedded: [u32; UDP_V6] = skb.read(packet.l3).ok_or(DropReason::NotCarried)?;
        message[2..2 + UDP_V6].copy_from_slice(&embedded);
    } else {
        let embedded: [u32; TCP_V6] = skb.read(packet.l3).ok_or(DropReason::NotCarried)?;
        message[2..].copy_from_slice(&embedded);
    }
    let length = (2 + TCP_V6 as u32) * 4;
    let mut ip = ipv6_header(packet, length, ICMPV6);
    let seed = csum::sum(&mut ip[2..], 8, pseudo(length, ICMPV6));
    message[0] |= checksum_low(csum::sum(&mut message, 2 + TCP_V6, seed));
    swap_ethernet(skb, packet)?;
    skb.resize(packet.l3 + ipv6::HEADER + length)?;
    skb.store(packet.l3, &ip, 0)?;
    skb.store(packet.l3 + ipv6::HEADER, &message, 0)
}

/// Header of the answer: from whom the packet was for, to whom it came from.
#[inline(always)]
fn ipv4_header(packet: &Packet, payload: u32, protocol: u8) -> [u32; 5] {
    let mut header = [
        (0x4500_0000 | (ipv4::HEADER + payload)).to_be(),
        0x4000_u32.to_be(),
        (TTL << 24 | u32::from(protocol) << 16).to_be(),
        packet.destination.words()[3],
        packet.source.words()[3],
    ];
    header[2] |= checksum_low(csum::sum(&mut header, 5, 0));
    header
}

#[inline(always)]
fn ipv6_header(packet: &Packet, payload: u32, protocol: u8) -> [u32; 10] {
    let (from, to) = (packet.destination.words(), packet.source.words());
    [
        0x6000_0000_u32.to_be(),
        (payload << 16 | u32::from(protocol) << 8 | TTL).to_be(),
        from[0],
        from[1],
        from[2],
        from[3],
        to[0],
        to[1],
        to[2],
        to[3],
    ]
}

/// What a pseudo header adds beside the addresses.
#[inline(always)]
fn pseudo(length: u32, protocol: u8) -> u32 {
    (length + u32::from(protocol)).to_be()
}

/// The checksum of a sum as the first half of a word.
#[inline(always)]
fn checksum_high(sum: u32) -> u32 {
    (u32::from(u16::from_be(csum::fold(sum))) << 16).to_be()
}

/// The checksum of a sum as the second half of a word.
#[inline(always)]
fn checksum_low(sum: u32) -> u32 {
    u32::from(u16::from_be(csum::fold(sum))).to_be()
}

#[inline(always)]
fn swap_ethernet(skb: Skb, packet: &Packet) -> Result<(), DropReason> {
    if packet.l3 < eth::HEADER {
        return Ok(());
    }
    let words: [u32; 3] = skb.read(0).ok_or(DropReason::NotCarried)?;
    let [a, b, c] = words.map(u32::from_be);
    skb.store(0, &[b << 16 | c >> 16, c << 16 | a >> 16, a << 16 | b >> 16].map(u32::to_be), 0)
}
