//! The IPv6 header and its chain of extension headers.

use enforcer_common::{Addr, verdict::DropReason};

use super::{Bytes, Fragment, ICMPV6, Packet, ROUTED, TCP, UDP, Version, byte};

pub const HEADER: u32 = 40;
/// Offsets in the header.
pub const SOURCE_AT: u32 = 8;
pub const DESTINATION_AT: u32 = 24;

#[inline(always)]
pub fn parse<B: Bytes>(bytes: &B, l3: u32, packet: &mut Packet) -> Result<(), DropReason> {
    let header = bytes.near::<[u32; 10]>(l3).ok_or(DropReason::NotParsed)?;
    if u32::from_be(header[0]) >> 28 != 6 {
        return Err(DropReason::NotParsed);
    }
    packet.version = Version::V6;
    packet.source = Addr::from_words([header[2], header[3], header[4], header[5]]);
    packet.destination = Addr::from_words([header[6], header[7], header[8], header[9]]);
    packet.l3 = l3;
    packet.l4 = l3 + HEADER;
    packet.protocol = byte(header[1], 2);
    packet.fragment_id = 0;
    packet.fragment = Fragment::Whole;
    packet.dont_fragment = true;
    packet.plain = matches!(packet.protocol, TCP | UDP | ICMPV6);
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
    let mut at = packet.l4;
    let mut kind = packet.protocol;
    for _ in 0..MOST {
        if !matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION) {
            packet.l4 = at;
            packet.protocol = kind;
            return Ok(());
        }
        let word: u32 = bytes.read(at).ok_or(DropReason::NotParsed)?;
        let length = u32::from(byte(word, 1));
        match kind {
            FRAGMENT => {
                let id: u32 = bytes.read(at + 4).ok_or(DropReason::NotParsed)?;
                let offset = u32::from_be(word) & 0xffff;
                packet.fragment_id = u32::from_be(id);
                if offset >> 3 != 0 {
                    packet.fragment = Fragment::Later;
                    packet.l4 = at + 8;
                    packet.protocol = byte(word, 0);
                    return Ok(());
                }
                if offset & 1 != 0 {
                    packet.fragment = Fragment::First;
                }
                at += 8;
            }
            ROUTING => {
                if route(bytes, at, word, packet, guarded)? {
                    packet.hidden |= ROUTED;
                }
                at += 8 + length * 8;
            }
            AUTHENTICATION => at += 8 + length * 4,
            _ => at += 8 + length * 8,
        }
        kind = byte(word, 0);
    }
    Err(DropReason::NotParsed)
}

/// Whether a routing header, of whatever type, still leads to a guarded address: its first, last or next one.
#[inline(always)]
fn route<B: Bytes>(
    bytes: &B,
    at: u32,
    word: u32,
    packet: &Packet,
    guarded: &impl Fn(&Addr) -> bool,
) -> Result<bool, DropReason> {
    let addresses = u32::from(byte(word, 1)) / 2;
    let left = u32::from(byte(word, 3));
    if left == 0 || addresses == 0 {
        return Ok(false);
    }
    let address = |index: u32| -> Result<bool, DropReason> {
        let words = bytes.read::<[u32; 4]>(at + 8 + index * 16).ok_or(DropReason::NotParsed)?;
        Ok(guarded(&Addr::from_words(words)))
    };
    // Segment routing (type 4) counts from the end, the others from the front.
    let next = if byte(word, 2) == 4 { left - 1 } else { addresses.wrapping_sub(left) };
    Ok(guarded(&packet.destination)
        || address(0)?
        || address(addresses - 1)?
        || (next < addresses && address(next)?))
}
