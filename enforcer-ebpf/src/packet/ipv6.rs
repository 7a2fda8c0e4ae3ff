//! The IPv6 header and its chain of extension headers.

use enforcer_common::{Addr, verdict::DropReason};

use crate::steps::{Steps, repeat};

use super::{Bytes, Fragment, ICMPV6, Packet, ROUTED, TCP, UDP, Version, byte};

pub const HEADER: u32 = 40;
pub const FRAGMENT_HEADER: u32 = 8;
/// Offsets in the header.
pub const SOURCE_AT: u32 = 8;
pub const DESTINATION_AT: u32 = 24;

#[inline(always)]
pub fn parse<B: Bytes>(bytes: &B, l3: u32, packet: &mut Packet) -> Result<(), DropReason> {
    let header = bytes.near::<[u32; 10]>(l3).ok_or(DropReason::NotParsed)?;
    if u32::from_be(header[0]) >> 28 != 6 {
        return Err(DropReason::NotParsed);
    }
    let protocol = byte(header[1], 2);
    let source = Addr::from_words([header[2], header[3], header[4], header[5]]);
    let destination = Addr::from_words([header[6], header[7], header[8], header[9]]);
    // Mapped addresses are for sockets; on a wire (RFC 4942, 2.2) one would pass for the IPv4 address inside it.
    if source.is_v4() || destination.is_v4() {
        return Err(DropReason::NotParsed);
    }
    *packet = Packet {
        version: Version::V6,
        source,
        destination,
        l3,
        l4: l3 + HEADER,
        protocol,
        dont_fragment: true,
        plain: matches!(protocol, TCP | UDP | ICMPV6),
        ..Packet::EMPTY
    };
    Ok(())
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
/// Headers that are followed; a sender with more of them is refused.
const MOST: u32 = 8;

/// Follows the chain to the transport header, and looks for a route that leads to a guarded address.
#[inline(always)]
pub fn extensions<B: Bytes>(
    bytes: &B,
    packet: &mut Packet,
    guarded: &impl Fn(&Addr) -> bool,
) -> Result<(), DropReason> {
    let mut chain = Chain { bytes, packet, guarded, whole: false };
    repeat(MOST, &mut chain);
    if chain.whole { Ok(()) } else { Err(DropReason::NotParsed) }
}

struct Chain<'a, B, G> {
    bytes: &'a B,
    /// `l4` and `protocol` are the header that comes next.
    packet: &'a mut Packet,
    guarded: &'a G,
    /// Whether the end of the chain was reached.
    whole: bool,
}

impl<B: Bytes, G: Fn(&Addr) -> bool> Steps for Chain<'_, B, G> {
    #[inline(always)]
    fn step(&mut self) -> bool {
        if !matches!(self.packet.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION) {
            self.whole = true;
            return false;
        }
        self.header().is_some() && !self.whole
    }
}

impl<B: Bytes, G: Fn(&Addr) -> bool> Chain<'_, B, G> {
    /// Steps over one header; `None` if it is cut off.
    #[inline(always)]
    fn header(&mut self) -> Option<()> {
        let at = self.packet.l4;
        let word: u32 = self.bytes.read(at)?;
        let length = u32::from(byte(word, 1));
        let size = match self.packet.protocol {
            FRAGMENT => {
                let id: u32 = self.bytes.read(at + 4)?;
                let offset = u32::from_be(word) & 0xffff;
                self.packet.fragment_id = u32::from_be(id);
                // As in IPv4 (RFC 1858): it would overwrite the TCP fields that the first was judged by.
                if matches!(offset >> 3, 1 | 2) && byte(word, 0) == TCP {
                    return None;
                }
                if offset >> 3 != 0 {
                    self.packet.fragment = Fragment::Later;
                    self.whole = true;
                } else if offset & 1 != 0 {
                    self.packet.fragment = Fragment::First;
                }
                FRAGMENT_HEADER
            }
            ROUTING => {
                if self.leads_to_guarded(at, word)? {
                    self.packet.hidden |= ROUTED;
                }
                8 + length * 8
            }
            AUTHENTICATION => 8 + length * 4,
            _ => 8 + length * 8,
        };
        self.packet.l4 = at + size;
        self.packet.protocol = byte(word, 0);
        Some(())
    }

    /// Whether a routing header, of whatever type, still leads to a guarded address: its first, last or next one.
    #[inline(always)]
    fn leads_to_guarded(&self, at: u32, word: u32) -> Option<bool> {
        let addresses = u32::from(byte(word, 1)) / 2;
        let left = u32::from(byte(word, 3));
        if left == 0 || addresses == 0 {
            return Some(false);
        }
        // Segment routing (type 4) counts from the end, the others from the front.
        let next = if byte(word, 2) == 4 { left - 1 } else { addresses.wrapping_sub(left) };
        let next = if next < addresses { next } else { 0 };
        Some(
            (self.guarded)(&self.packet.destination)
                || self.guarded_at(at, 0)?
                || self.guarded_at(at, addresses - 1)?
                || self.guarded_at(at, next)?,
        )
    }

    #[inline(always)]
    fn guarded_at(&self, at: u32, index: u32) -> Option<bool> {
        let words = self.bytes.read::<[u32; 4]>(at + 8 + index * 16)?;
        Some((self.guarded)(&Addr::from_words(words)))
    }
}
