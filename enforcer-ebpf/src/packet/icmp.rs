//! ICMP errors: the packet that an error is about.

use enforcer_common::verdict::DropReason;

use super::{Bytes, Fragment, ICMP, ICMPV6, Packet, Version, ipv4, ipv6, l4};

/// Length of the header in front of the embedded packet, both families.
pub const HEADER: u32 = 8;
pub const CHECKSUM_AT: u32 = 2;

/// Whether the message carries the packet that it is about.
#[inline(always)]
pub fn is_error(packet: &Packet) -> bool {
    if packet.fragment == Fragment::Later {
        return false;
    }
    match (packet.version, packet.protocol) {
        (Version::V4, ICMP) => matches!(packet.flags, 3 | 11 | 12),
        (Version::V6, ICMPV6) => matches!(packet.flags, 1..=4),
        _ => false,
    }
}

/// The packet inside an error: addresses, ports and offsets. Only the first eight bytes of its transport header
/// are sure to be there.
///
/// # Errors
/// [`DropReason::NotParsed`] where it is cut off before the ports; [`DropReason::NotCarried`] where it belongs to no
/// protocol that flows carry.
#[inline(always)]
pub fn embedded<B: Bytes>(bytes: &B, outer: &Packet, inner: &mut Packet) -> Result<(), DropReason> {
    let l3 = outer.l4 + HEADER;
    match outer.version {
        Version::V4 => ipv4::parse(bytes, l3, inner)?,
        Version::V6 => ipv6::parse(bytes, l3, inner)?,
    }
    if !inner.has_ports() || inner.fragment == Fragment::Later {
        return Err(DropReason::NotCarried);
    }
    let word: u32 = bytes.read(inner.l4).ok_or(DropReason::NotParsed)?;
    l4::ports(inner, word);
    Ok(())
}
