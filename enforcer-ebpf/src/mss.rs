//! MSS clamp: both ends of a TCP connection learn from its SYNs what the tunnel carries.

use enforcer_common::verdict::DropReason;

use crate::{
    packet::{Bytes as _, Fragment, Packet, Version, l4},
    skb::Skb,
    steps::{Steps, repeat},
};

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
/// Forty bytes of options; every one that is not a NOP has at least two.
const MOST: u32 = 40;

/// Lowers the MSS option of a SYN to what fits the MTU. A SYN without the option is left alone: its MSS is 536.
///
/// # Errors
/// [`DropReason::Internal`] where a helper fails.
#[inline(always)]
pub fn clamp(skb: Skb, packet: &Packet, mtu: u32) -> Result<(), DropReason> {
    if !packet.has(l4::SYN) || packet.fragment == Fragment::Later || mtu == 0 {
        return Ok(());
    }
    let headers = match packet.version {
        Version::V4 => 40,
        Version::V6 => 60,
    };
    let end = packet.l4 + u32::from(packet.tcp_header);
    lower(skb, packet.l4, end, mtu.saturating_sub(headers))
}

#[inline(never)]
fn lower(skb: Skb, l4: u32, end: u32, most: u32) -> Result<(), DropReason> {
    let mut options = Options { skb, at: l4 + l4::TCP_HEADER, end, found: 0 };
    repeat(MOST, &mut options);
    if options.found == 0 {
        return Ok(());
    }
    let Some(old) = skb.read::<u16>(options.found) else { return Ok(()) };
    if u32::from(u16::from_be(old)) <= most {
        return Ok(());
    }
    store(skb, l4, options.found, old, (most as u16).to_be())
}

struct Options {
    skb: Skb,
    at: u32,
    end: u32,
    /// Where the value is; 0: nowhere.
    found: u32,
}

impl Steps for Options {
    #[inline(always)]
    fn step(&mut self) -> bool {
        if self.at + 4 > self.end {
            return false;
        }
        let Some(word) = self.skb.read::<u16>(self.at).map(u16::from_be) else { return false };
        let (kind, length) = ((word >> 8) as u8, u32::from(word & 0xff));
        match kind {
            END => return false,
            NOP => self.at += 1,
            MSS if length == 4 => {
                self.found = self.at + 2;
                return false;
            }
            _ if length < 2 => return false,
            _ => self.at += length,
        }
        true
    }
}

#[inline(always)]
fn store(skb: Skb, l4: u32, at: u32, old: u16, new: u16) -> Result<(), DropReason> {
    // A half-word at an odd offset reaches the sum with its bytes swapped.
    let (from, to) =
        if (at - l4).is_multiple_of(2) { (old, new) } else { (old.swap_bytes(), new.swap_bytes()) };
    skb.l4_checksum(l4 + l4::TCP_CHECKSUM_AT, from.into(), to.into(), 2)?;
    skb.store(at, &new, 0)
}
