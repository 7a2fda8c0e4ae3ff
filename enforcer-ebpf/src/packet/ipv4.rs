//! The IPv4 header and its options.

use enforcer_common::{Addr, verdict::DropReason};

use crate::steps::{Steps, repeat};

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
    let protocol = byte(header[2], 1);
    let state = match (fragment & FRAGMENT_OFFSET, fragment & MORE_FRAGMENTS) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First,
        // A second fragment this early would overwrite the TCP fields that the first was judged by (RFC 1858).
        (1 | 2, _) if protocol == super::TCP => return Err(DropReason::NotParsed),
        _ => Fragment::Later,
    };
    *packet = Packet {
        version: Version::V4,
        source: Addr::from_v4_word(header[3]),
        destination: Addr::from_v4_word(header[4]),
        l3,
        l4: l3 + words * 4,
        protocol,
        fragment_id: fragment >> 16,
        dont_fragment: fragment & DONT_FRAGMENT != 0,
        fragment: state,
        plain: words == 5 && protocol != IPIP && protocol != IPV6_IN,
        ..Packet::EMPTY
    };
    Ok(())
}

const END: u32 = 0;
const NOP: u32 = 1;
const LOOSE_ROUTE: u32 = 131;
const STRICT_ROUTE: u32 = 137;
/// 40 bytes of options, each option at least one byte.
const MOST: u32 = 40;

/// Looks for a source route that leads to a guarded address.
#[inline(always)]
pub fn options<B: Bytes>(
    bytes: &B,
    packet: &mut Packet,
    guarded: &impl Fn(&Addr) -> bool,
) -> Result<(), DropReason> {
    let at = packet.l3 + HEADER;
    let mut options = Options { bytes, packet, guarded, at, cut: false };
    repeat(MOST, &mut options);
    if options.cut { Err(DropReason::NotParsed) } else { Ok(()) }
}

struct Options<'a, B, G> {
    bytes: &'a B,
    packet: &'a mut Packet,
    guarded: &'a G,
    at: u32,
    /// Whether an option was cut off.
    cut: bool,
}

impl<B: Bytes, G: Fn(&Addr) -> bool> Steps for Options<'_, B, G> {
    #[inline(always)]
    fn step(&mut self) -> bool {
        if self.at >= self.packet.l4 {
            return false;
        }
        match self.option() {
            Some(END) => false,
            Some(length) => {
                self.at += length;
                true
            }
            None => {
                self.cut = true;
                false
            }
        }
    }
}

impl<B: Bytes, G: Fn(&Addr) -> bool> Options<'_, B, G> {
    /// Length of the option at `at`, [`END`] after the last one, `None` if it is cut off.
    #[inline(always)]
    fn option(&mut self) -> Option<u32> {
        // The option may be the packet's last byte, where a half-word cannot be read; the one before it can.
        let kind = u32::from(u16::from_be(self.bytes.read(self.at - 1)?)) & 0xff;
        if kind == END || kind == NOP {
            return Some(kind);
        }
        let length = u32::from(u16::from_be(self.bytes.read(self.at)?)) & 0xff;
        if length < 2 || self.at + length > self.packet.l4 {
            return None;
        }
        if (kind == LOOSE_ROUTE || kind == STRICT_ROUTE) && length >= 7 {
            let pointer = u32::from(u16::from_be(self.bytes.read(self.at + 1)?)) & 0xff;
            // It counts from 1; beyond the last address the route is used up.
            if pointer >= 4 && pointer + 3 <= length {
                let next = self.leads_to_guarded(self.at + pointer - 1)?;
                let last = self.leads_to_guarded(self.at + length - 4)?;
                if next || last || (self.guarded)(&self.packet.destination) {
                    self.packet.hidden |= ROUTED;
                }
            }
        }
        Some(length)
    }

    #[inline(always)]
    fn leads_to_guarded(&self, at: u32) -> Option<bool> {
        let word: u32 = self.bytes.read(at)?;
        Some((self.guarded)(&Addr::from_v4_word(word)))
    }
}
