//! The IPv4 header and its options.

use enforcer_common::{Addr, verdict::DropReason};

use super::{Bytes, Fragment, IPIP, IPV6_IN, Packet, ROUTED, Version, byte};

pub const HEADER: u32 = 20;
/// Offsets in the header.
pub const CHECKSUM_AT: u32 = 10;
pub const SOURCE_AT: u32 = 12;
pub const DESTINATION_AT: u32 = 16;

const DONT_FRAGMENT: u32 = 0x4000;
const MORE_FRAGMENTS: u32 = 0x2000;
const FRAGMENT_OFFSET: u32 = 0x1fff;

#[inline(always)]
pub fn parse<B: Bytes>(bytes: &B, l3: u32, packet: &mut Packet) -> Result<(), DropReason> {
    let header = bytes.near::<[u32; 5]>(l3).ok_or(DropReason::NotParsed)?;
    let words = u32::from_be(header[0]) >> 24;
    if !(0x45..=0x4f).contains(&words) {
        return Err(DropReason::NotParsed);
    }
    let words = words & 0xf;
    let fragment = u32::from_be(header[1]);
    packet.version = Version::V4;
    packet.source = Addr::from_v4_word(header[3]);
    packet.destination = Addr::from_v4_word(header[4]);
    packet.l3 = l3;
    packet.l4 = l3 + words * 4;
    packet.protocol = byte(header[2], 1);
    packet.fragment_id = fragment >> 16;
    packet.dont_fragment = fragment & DONT_FRAGMENT != 0;
    packet.fragment = match (fragment & FRAGMENT_OFFSET, fragment & MORE_FRAGMENTS) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First,
        // A second fragment this early would overwrite the TCP fields that the first was judged by (RFC 1858).
        (1 | 2, _) if packet.protocol == super::TCP => return Err(DropReason::NotParsed),
        _ => Fragment::Later,
    };
    packet.plain = words == 5 && packet.protocol != IPIP && packet.protocol != IPV6_IN;
    Ok(())
}

const END: u8 = 0;
const NOP: u8 = 1;
const LOOSE_ROUTE: u8 = 131;
const STRICT_ROUTE: u8 = 137;
/// 40 bytes of options, each option at least one byte.
const MOST: u32 = 40;

/// Looks for a source route that leads to a guarded address.
#[inline(always)]
pub fn options<B: Bytes>(
    bytes: &B,
    packet: &mut Packet,
    guarded: &impl Fn(&Addr) -> bool,
) -> Result<(), DropReason> {
    let mut at = packet.l3 + HEADER;
    for _ in 0..MOST {
        if at >= packet.l4 {
            break;
        }
        // The option may be a single byte at the very end of the packet, so that two cannot be read; then the
        // half-word before it holds it.
        let kind = u16::from_be(bytes.read(at - 1).ok_or(DropReason::NotParsed)?) as u8;
        if kind == END {
            break;
        }
        if kind == NOP {
            at += 1;
            continue;
        }
        let length = u32::from(u16::from_be(bytes.read(at).ok_or(DropReason::NotParsed)?) & 0xff);
        if length < 2 || at + length > packet.l4 {
            return Err(DropReason::NotParsed);
        }
        if (kind == LOOSE_ROUTE || kind == STRICT_ROUTE) && length >= 7 {
            let pointer = u32::from(u16::from_be(bytes.read(at + 1).ok_or(DropReason::NotParsed)?) & 0xff);
            // The pointer counts from 1; beyond the last address the route is used up.
            if pointer >= 4 && pointer + 3 <= length {
                let next: u32 = bytes.read(at + pointer - 1).ok_or(DropReason::NotParsed)?;
                let last: u32 = bytes.read(at + length - 4).ok_or(DropReason::NotParsed)?;
                if guarded(&packet.destination)
                    || guarded(&Addr::from_v4_word(next))
                    || guarded(&Addr::from_v4_word(last))
                {
                    packet.hidden |= ROUTED;
                }
            }
        }
        at += length;
    }
    Ok(())
}
