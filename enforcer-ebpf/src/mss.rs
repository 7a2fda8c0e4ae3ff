//! MSS clamp: both ends of a TCP connection learn from its SYNs what the tunnel carries.

use enforcer_common::verdict::DropReason;

use crate::{
    packet::{Bytes as _, Fragment, Packet, Version, l4},
    skb::Skb,
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
    let mut at = l4 + l4::TCP_HEADER;
    for _ in 0..MOST {
        if at + 4 > end {
            break;
        }
        let Some(word) = skb.read::<u32>(at).map(u32::from_be) else { break };
        let (kind, length) = ((word >> 24) as u8, (word >> 16) & 0xff);
        match kind {
            END => break,
            NOP => at += 1,
            MSS if length == 4 => {
                if word & 0xffff > most {
                    return store(skb, l4, at + 2, (word as u16).to_be(), (most as u16).to_be());
                }
                break;
            }
            _ if length < 2 => break,
            _ => at += length,
        }
    }
    Ok(())
}

#[inline(always)]
fn store(skb: Skb, l4: u32, at: u32, old: u16, new: u16) -> Result<(), DropReason> {
    // A half-word at an odd offset reaches the sum with its bytes swapped.
    let (from, to) =
        if (at - l4).is_multiple_of(2) { (old, new) } else { (old.swap_bytes(), new.swap_bytes()) };
    skb.l4_checksum(l4 + l4::TCP_CHECKSUM_AT, from.into(), to.into(), 2)?;
    skb.store(at, &new, 0)
}
