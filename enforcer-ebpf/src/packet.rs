//! Parsing: from bytes to a [`Packet`], where IPv4 and IPv6 have become the same thing.
//!
//! Pure functions over [`Bytes`], so that the host's unit tests run the code that the kernel runs. Parsing goes in
//! three steps, because most packets leave after the first: [`parse`] reads the fixed IP header, [`unfold`] walks
//! options, extension headers and one level of encapsulation, [`l4::parse`] reads ports and TCP fields.

pub mod eth;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod l4;

use enforcer_common::{Addr, Port, verdict::DropReason};

/// Where the bytes of a packet come from: the socket buffer, or a slice in a test.
pub trait Bytes {
    /// The `T` at `offset`, `None` beyond the end. For the headers that every packet has: takes the short way to
    /// the linear part where it can.
    fn near<T: Plain>(&self, offset: u32) -> Option<T>;

    /// The `T` at `offset`, `None` beyond the end. For rare headers: small code, any part of the packet.
    fn read<T: Plain>(&self, offset: u32) -> Option<T>;
}

/// What can be read from a packet: words and half-words, because BPF has no load that takes more and LLVM makes
/// four loads of every word that it believes to be misaligned.
///
/// # Safety
/// Every bit pattern is a value.
pub unsafe trait Plain: Copy {}

// SAFETY: integers and arrays of them have no invalid bit pattern.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl<const N: usize> Plain for [u32; N] {}

/// What a device hands to a program. Decided by the program that is attached, never guessed from the bytes.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Layer {
    /// Ethernet frames.
    Frame,
    /// IP packets.
    Bare,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fragment {
    /// Not a fragment.
    Whole,
    First,
    Later,
}

pub const ICMP: u8 = 1;
pub const IPIP: u8 = 4;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const IPV6_IN: u8 = 41;
pub const ICMPV6: u8 = 58;

/// One packet after parsing. Offsets count from the start of the packet's bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Packet {
    pub source: Addr,
    pub destination: Addr,
    /// Start of the IP header.
    pub l3: u32,
    /// Start of what follows the IP header: extension headers before [`unfold`], the transport header after it.
    pub l4: u32,
    /// Identification of the datagram that a fragment belongs to; machine order.
    pub fragment_id: u32,
    /// TCP, machine order.
    pub sequence: u32,
    pub acknowledgement: u32,
    pub source_port: Port,
    pub destination_port: Port,
    pub version: Version,
    pub fragment: Fragment,
    /// The next header before [`unfold`], the transport protocol after it.
    pub protocol: u8,
    /// TCP flags (`l4::SYN` …) or the type of an ICMP message.
    pub flags: u8,
    /// Length of the TCP header in bytes.
    pub tcp_header: u8,
    /// Whether there is nothing between the fixed IP header and the transport header.
    pub plain: bool,
    /// IPv4 only; a router never fragments IPv6.
    pub dont_fragment: bool,
    /// What [`unfold`] found to lead to a guarded address behind the packet's own: [`ROUTED`], [`INNER`].
    pub hidden: u8,
}

/// A source route.
pub const ROUTED: u8 = 1;
/// The addresses of an encapsulated packet.
pub const INNER: u8 = 2;

impl Packet {
    pub const EMPTY: Self = Self {
        source: Addr::NONE,
        destination: Addr::NONE,
        l3: 0,
        l4: 0,
        fragment_id: 0,
        sequence: 0,
        acknowledgement: 0,
        source_port: Port::NONE,
        destination_port: Port::NONE,
        version: Version::V4,
        fragment: Fragment::Whole,
        protocol: 0,
        flags: 0,
        tcp_header: 0,
        plain: true,
        dont_fragment: false,
        hidden: 0,
    };

    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.protocol == TCP
    }

    /// Whether all of these TCP flags are set.
    #[inline(always)]
    pub fn has(&self, flags: u8) -> bool {
        self.protocol == TCP && self.flags & flags == flags
    }

    /// Whether this opens a TCP connection.
    #[inline(always)]
    pub fn is_syn(&self) -> bool {
        self.protocol == TCP && self.flags & (l4::SYN | l4::ACK) == l4::SYN
    }

    /// Whether flows carry this protocol.
    #[inline(always)]
    pub fn has_ports(&self) -> bool {
        self.protocol == TCP || self.protocol == UDP
    }
}

/// First step: the fixed IP header. `Ok(false)`: not IP.
///
/// # Errors
/// [`DropReason::NotParsed`] where the packet says that it is IP and is not.
#[inline(always)]
pub fn parse<B: Bytes>(bytes: &B, layer: Layer, packet: &mut Packet) -> Result<bool, DropReason> {
    match eth::network(bytes, layer) {
        eth::Network::Other => Ok(false),
        eth::Network::V4(l3) => ipv4::parse(bytes, l3, packet).map(|()| true),
        eth::Network::V6(l3) => ipv6::parse(bytes, l3, packet).map(|()| true),
    }
}

/// Second step, for packets that are not `plain`: options, extension headers, encapsulation. `guarded` is asked
/// about every address that the packet leads to beside its destination, and about an inner source. `inner` is room for
/// an encapsulated packet.
///
/// # Errors
/// [`DropReason::NotParsed`] for headers that are cut off or too many.
#[inline(always)]
pub fn unfold<B: Bytes>(
    bytes: &B,
    packet: &mut Packet,
    inner: &mut Packet,
    guarded: impl Fn(&Addr) -> bool,
) -> Result<(), DropReason> {
    match packet.version {
        Version::V4 => ipv4::options(bytes, packet, &guarded)?,
        Version::V6 => ipv6::extensions(bytes, packet, &guarded)?,
    }
    if (packet.protocol == IPIP || packet.protocol == IPV6_IN) && packet.fragment != Fragment::Later {
        if packet.protocol == IPIP {
            ipv4::parse(bytes, packet.l4, inner)?;
        } else {
            ipv6::parse(bytes, packet.l4, inner)?;
        }
        if guarded(&inner.destination) || guarded(&inner.source) {
            packet.hidden |= INNER;
        }
    }
    Ok(())
}

/// Bytes 0 (most significant) to 3 of a word as it lies in memory.
#[inline(always)]
const fn byte(word: u32, index: u32) -> u8 {
    (u32::from_be(word) >> (24 - 8 * index)) as u8
}

#[cfg(test)]
mod tests;
