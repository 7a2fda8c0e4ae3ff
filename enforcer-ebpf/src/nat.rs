//! Translation: one end of a packet gets another address and port, checksums included.
//!
//! Checksums are changed by differences, through helpers that know about checksums that the device has yet to
//! compute, so segments of any size and unfinished checksums survive.

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM};
use enforcer_common::{Addr, Port, verdict::DropReason};

use crate::{
    csum,
    packet::{Fragment, Packet, UDP, Version, icmp, ipv4, ipv6, l4},
    skb::Skb,
};

#[derive(Clone, Copy, Eq, PartialEq)]
#[repr(u8)]
pub enum End {
    Source,
    Destination,
}

/// Gives the packet's `end` another address and port. ICMP and later fragments have no port: theirs is ignored.
///
/// # Errors
/// [`DropReason::Internal`] where a helper fails; the packet must not be sent.
#[inline(never)]
pub fn rewrite(
    skb: Skb,
    packet: &mut Packet,
    end: End,
    address: &Addr,
    port: Port,
) -> Result<(), DropReason> {
    let (old, old_port) = match end {
        End::Source => (packet.source, packet.source_port),
        End::Destination => (packet.destination, packet.destination_port),
    };
    let checksum = l4::checksum_at(packet);
    // An IPv4 UDP checksum of zero says "none" and stays zero.
    let udp = if packet.protocol == UDP { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
    let pseudo = u64::from(BPF_F_PSEUDO_HDR) | udp;
    if old != *address {
        match packet.version {
            Version::V4 => {
                let (from, to) = (u64::from(old.words()[3]), u64::from(address.words()[3]));
                if let Some(at) = checksum {
                    skb.l4_checksum(at, from, to, pseudo | 4)?;
                }
                skb.l3_checksum(packet.l3 + ipv4::CHECKSUM_AT, from, to, 4)?;
                store_v4(skb, packet.l3, end, address)?;
            }
            Version::V6 => {
                if let Some(at) = checksum {
                    skb.l4_checksum(at, 0, csum::difference(&old, address), pseudo)?;
                }
                store_v6(skb, packet.l3, end, address)?;
            }
        }
    }
    if packet.has_ports() && packet.fragment != Fragment::Later && old_port != port {
        if let Some(at) = checksum {
            skb.l4_checksum(at, old_port.network().into(), port.network().into(), udp | 2)?;
        }
        store_port(skb, packet.l4, end, port)?;
    }
    match end {
        End::Source => (packet.source, packet.source_port) = (*address, port),
        End::Destination => (packet.destination, packet.destination_port) = (*address, port),
    }
    Ok(())
}

/// The same for the packet inside an ICMP error; the checksum is the error's. The embedded transport checksum is left
/// alone: most errors do not carry it, and nobody checks it.
///
/// # Errors
/// As [`rewrite`].
#[inline(never)]
pub fn rewrite_embedded(
    skb: Skb,
    outer: &Packet,
    inner: &mut Packet,
    end: End,
    new: &Embedded,
) -> Result<(), DropReason> {
    let (old, old_port) = match end {
        End::Source => (inner.source, inner.source_port),
        End::Destination => (inner.destination, inner.destination_port),
    };
    let checksum = outer.l4 + icmp::CHECKSUM_AT;
    if old != new.address {
        match inner.version {
            // The embedded header's own checksum takes up the difference: the error's sum stays the same.
            Version::V4 => {
                let (from, to) = (u64::from(old.words()[3]), u64::from(new.address.words()[3]));
                skb.l3_checksum(inner.l3 + ipv4::CHECKSUM_AT, from, to, 4)?;
                store_v4(skb, inner.l3, end, &new.address)?;
            }
            Version::V6 => {
                skb.l4_checksum(checksum, 0, csum::difference(&old, &new.address), 0)?;
                store_v6(skb, inner.l3, end, &new.address)?;
            }
        }
    }
    if old_port != new.port {
        skb.l4_checksum(checksum, old_port.network().into(), new.port.network().into(), 2)?;
        store_port(skb, inner.l4, end, new.port)?;
    }
    match end {
        End::Source => (inner.source, inner.source_port) = (new.address, new.port),
        End::Destination => (inner.destination, inner.destination_port) = (new.address, new.port),
    }
    Ok(())
}

/// What an end of an embedded packet becomes. A BPF call takes five arguments.
pub struct Embedded {
    pub address: Addr,
    pub port: Port,
}

#[inline(always)]
fn store_v4(skb: Skb, l3: u32, end: End, address: &Addr) -> Result<(), DropReason> {
    let at = match end {
        End::Source => ipv4::SOURCE_AT,
        End::Destination => ipv4::DESTINATION_AT,
    };
    // No recomputation: the header's checksum has taken up the difference already.
    skb.store(l3 + at, &address.words()[3], 0)
}

#[inline(always)]
fn store_v6(skb: Skb, l3: u32, end: End, address: &Addr) -> Result<(), DropReason> {
    let at = match end {
        End::Source => ipv6::SOURCE_AT,
        End::Destination => ipv6::DESTINATION_AT,
    };
    // The header has no checksum, so where a device summed the whole packet its sum must learn of the address here.
    skb.store(l3 + at, &address.words(), BPF_F_RECOMPUTE_CSUM.into())
}

#[inline(always)]
fn store_port(skb: Skb, l4: u32, end: End, port: Port) -> Result<(), DropReason> {
    let at = match end {
        End::Source => 0,
        End::Destination => 2,
    };
    skb.store(l4 + at, &port.network(), 0)
}
