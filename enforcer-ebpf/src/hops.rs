//! What whoever forwards has to see to: a hop less, so that no packet circles for ever, and a size that fits.

use aya_ebpf::bindings::BPF_F_RECOMPUTE_CSUM;
use enforcer_common::verdict::DropReason;

use crate::{
    case::Case,
    packet::{Bytes as _, Packet, Version, ipv4, l4},
    skb::Skb,
};

/// Offset of the half-word with time to live and protocol, or next header and hop limit.
const V4_AT: u32 = 8;
const V6_AT: u32 = 6;

/// What the tunnel takes of an IPv4 packet that may be fragmented outside of it. Buffers of the user-space tunnel hold
/// 4096 bytes, and its own header adds 32.
pub const MOST: u32 = 4000;

/// Lowers the packet's hop limit by one.
///
/// # Errors
/// [`DropReason::NotCarried`] where none is left.
#[inline(never)]
pub fn spend(skb: Skb, packet: &Packet) -> Result<(), DropReason> {
    match packet.version {
        Version::V4 => {
            let old: u16 = skb.read(packet.l3 + V4_AT).ok_or(DropReason::Internal)?;
            let new = lower(u16::from_be(old), 8)?.to_be();
            skb.l3_checksum(packet.l3 + ipv4::CHECKSUM_AT, old.into(), new.into(), 2)?;
            skb.store(packet.l3 + V4_AT, &new, 0)
        }
        Version::V6 => {
            let old: u16 = skb.read(packet.l3 + V6_AT).ok_or(DropReason::Internal)?;
            let new = lower(u16::from_be(old), 0)?.to_be();
            // No checksum covers it but the one that a device may have made of the whole packet.
            skb.store(packet.l3 + V6_AT, &new, BPF_F_RECOMPUTE_CSUM.into())
        }
    }
}

/// One hop less in the byte of a half-word that begins at this bit.
#[inline(always)]
fn lower(word: u16, at: u32) -> Result<u16, DropReason> {
    if (word >> at) & 0xff <= 1 { Err(DropReason::NotCarried) } else { Ok(word - (1 << at)) }
}

/// Whether the way out carries a packet of this size: a redirect asks nobody, and the sender must learn it.
///
/// # Errors
/// [`DropReason::TooBig`], after `mtu` was noted for the answer.
#[inline(always)]
pub fn fits(case: &mut Case, mtu: u32) -> Result<(), DropReason> {
    let packet = &*case.packet;
    let length = match case.skb.gso_size() {
        0 => case.skb.len() - packet.l3,
        // Each segment gets the headers of the whole.
        payload => {
            let header = if packet.is_tcp() { u32::from(packet.tcp_header) } else { l4::UDP_HEADER };
            packet.l4 - packet.l3 + header + payload
        }
    };
    case.mtu = mtu;
    if length > mtu { Err(DropReason::TooBig) } else { Ok(()) }
}
