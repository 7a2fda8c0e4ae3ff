//! Answers: a packet becomes a reset or an ICMP error to whoever sent it.
//!
//! The answer is written over the packet, and the caller sends it back. Packets with IP options or with other
//! extension headers than that of a first fragment, later fragments and resets get no answer. It is put together in
//! room of the caller's.

use enforcer_common::verdict::DropReason;

use crate::{
    csum,
    maps::Answer,
    packet::{Bytes as _, Fragment, ICMP, ICMPV6, Packet, TCP, UDP, Version, eth, ipv4, ipv6, l4},
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
pub fn reset(skb: Skb, packet: &Packet, answer: &mut Answer) -> Result<(), DropReason> {
    if !packet.has(l4::ACK) || packet.flags & l4::RST != 0 || packet.fragment == Fragment::Later {
        return Err(DropReason::NotCarried);
    }
    match packet.version {
        Version::V4 => {
            ipv4_header(answer, packet, l4::TCP_HEADER, TCP);
            tcp_header(answer, 5, packet);
            let seed = csum::sum(answer, 3, 2, pseudo(l4::TCP_HEADER, TCP));
            answer[9] = checksum_high(csum::sum(answer, 5, 5, seed));
            send::<10>(skb, packet, answer)
        }
        Version::V6 => {
            ipv6_header(answer, packet, l4::TCP_HEADER, TCP);
            tcp_header(answer, 10, packet);
            let seed = csum::sum(answer, 2, 8, pseudo(l4::TCP_HEADER, TCP));
            answer[14] = checksum_high(csum::sum(answer, 10, 5, seed));
            send::<15>(skb, packet, answer)
        }
    }
}

/// Writes the TCP header of a reset at a word of the answer, without its checksum.
#[inline(always)]
fn tcp_header(answer: &mut Answer, at: usize, packet: &Packet) {
    let ports = u32::from(packet.destination_port.get()) << 16 | u32::from(packet.source_port.get());
    answer[at] = ports.to_be();
    answer[at + 1] = packet.acknowledgement.to_be();
    answer[at + 2] = 0;
    answer[at + 3] = ((l4::TCP_HEADER / 4) << 28 | u32::from(l4::RST) << 16).to_be();
    answer[at + 4] = 0;
}

/// Answers with an ICMP error about the packet, or about the first fragment of a larger one: whoever fragments IPv6 to
/// the size of its link learns in no other way that the tunnel carries less.
///
/// # Errors
/// As [`reset`].
#[inline(never)]
pub fn error(skb: Skb, packet: &Packet, error: Error, answer: &mut Answer) -> Result<(), DropReason> {
    if !packet.plain && !is_fragment_alone(packet) || !packet.has_ports() || packet.fragment == Fragment::Later {
        return Err(DropReason::NotCarried);
    }
    match packet.version {
        Version::V4 => error_v4(skb, packet, error, answer),
        Version::V6 => error_v6(skb, packet, error, answer),
    }
}

/// Whether a first fragment of IPv6 has no other extension header than that.
#[inline(always)]
fn is_fragment_alone(packet: &Packet) -> bool {
    packet.version == Version::V6
        && packet.fragment == Fragment::First
        && packet.l4 - packet.l3 == ipv6::HEADER + ipv6::FRAGMENT_HEADER
}

/// Words of an ICMP header, and of the headers that it embeds: IP, and TCP or UDP.
const ICMP_WORDS: usize = 2;
const TCP_V4: usize = 10;
const UDP_V4: usize = 7;
const TCP_V6: usize = 15;
const UDP_V6: usize = 12;
/// Words of an error and its IP header. Behind an embedded UDP header some of them are zero.
const ERROR_V4: usize = 5 + ICMP_WORDS + TCP_V4;
const ERROR_V6: usize = 10 + ICMP_WORDS + TCP_V6;

#[inline(always)]
fn error_v4(skb: Skb, packet: &Packet, error: Error, answer: &mut Answer) -> Result<(), DropReason> {
    let (kind, code, rest): (u32, u32, u32) = match error {
        Error::HostUnreachable => (3, 1, 0),
        Error::Prohibited => (3, 13, 0),
        Error::TooBig(mtu) => (3, 4, mtu & 0xffff),
    };
    let length = ((ICMP_WORDS + TCP_V4) * 4) as u32;
    ipv4_header(answer, packet, length, ICMP);
    answer[5] = (kind << 24 | code << 16).to_be();
    answer[6] = rest.to_be();
    if packet.protocol == UDP {
        skb.copy(packet.l3, &mut answer[7..7 + UDP_V4])?;
        answer[7 + UDP_V4..ERROR_V4].fill(0);
    } else {
        skb.copy(packet.l3, &mut answer[7..7 + TCP_V4])?;
    }
    answer[5] |= checksum_low(csum::sum(answer, 5, ICMP_WORDS + TCP_V4, 0));
    send::<ERROR_V4>(skb, packet, answer)
}

#[inline(always)]
fn error_v6(skb: Skb, packet: &Packet, error: Error, answer: &mut Answer) -> Result<(), DropReason> {
    let (kind, code, rest): (u32, u32, u32) = match error {
        Error::HostUnreachable => (1, 3, 0),
        Error::Prohibited => (1, 1, 0),
        Error::TooBig(mtu) => (2, 0, mtu),
    };
    let length = ((ICMP_WORDS + TCP_V6) * 4) as u32;
    ipv6_header(answer, packet, length, ICMPV6);
    answer[10] = (kind << 24 | code << 16).to_be();
    answer[11] = rest.to_be();
    // Behind a fragment header there is room for UDP's, and for as much of TCP's as its sender looks at.
    if packet.protocol == UDP && packet.plain {
        skb.copy(packet.l3, &mut answer[12..12 + UDP_V6])?;
        answer[12 + UDP_V6..ERROR_V6].fill(0);
    } else {
        skb.copy(packet.l3, &mut answer[12..12 + TCP_V6])?;
    }
    let seed = csum::sum(answer, 2, 8, pseudo(length, ICMPV6));
    answer[10] |= checksum_low(csum::sum(answer, 10, ICMP_WORDS + TCP_V6, seed));
    send::<ERROR_V6>(skb, packet, answer)
}

/// Puts the answer in the packet's place.
#[inline(always)]
fn send<const WORDS: usize>(skb: Skb, packet: &Packet, answer: &Answer) -> Result<(), DropReason> {
    swap_ethernet(skb, packet)?;
    skb.resize(packet.l3 + (WORDS * 4) as u32)?;
    let words: &[u32; WORDS] = answer.first_chunk().ok_or(DropReason::Internal)?;
    skb.store(packet.l3, words, 0)
}

/// Header of the answer: from whom the packet was for, to whom it came from.
#[inline(always)]
fn ipv4_header(answer: &mut Answer, packet: &Packet, payload: u32, protocol: u8) {
    answer[0] = (0x4500_0000 | (ipv4::HEADER + payload)).to_be();
    answer[1] = 0x4000_u32.to_be();
    answer[2] = (TTL << 24 | u32::from(protocol) << 16).to_be();
    answer[3] = packet.destination.words()[3];
    answer[4] = packet.source.words()[3];
    answer[2] |= checksum_low(csum::sum(answer, 0, 5, 0));
}

#[inline(always)]
fn ipv6_header(answer: &mut Answer, packet: &Packet, payload: u32, protocol: u8) {
    answer[0] = 0x6000_0000_u32.to_be();
    answer[1] = (payload << 16 | u32::from(protocol) << 8 | TTL).to_be();
    answer[2..6].copy_from_slice(&packet.destination.words());
    answer[6..10].copy_from_slice(&packet.source.words());
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
