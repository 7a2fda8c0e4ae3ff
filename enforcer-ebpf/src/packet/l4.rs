//! Third step: the transport header.

use enforcer_common::{Port, verdict::DropReason};

use super::{Bytes, Fragment, ICMP, ICMPV6, Packet, TCP, UDP, byte};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

pub const TCP_HEADER: u32 = 20;
pub const UDP_HEADER: u32 = 8;

/// Offsets of the checksums in their headers.
pub const TCP_CHECKSUM_AT: u32 = 16;
const UDP_CHECKSUM_AT: u32 = 6;
const ICMP_CHECKSUM_AT: u32 = 2;

/// Reads ports, and what tracking needs of TCP. A later fragment has neither; its ports are the caller's to find.
#[inline(always)]
pub fn parse<B: Bytes>(bytes: &B, packet: &mut Packet) -> Result<(), DropReason> {
    if packet.fragment == Fragment::Later {
        return Ok(());
    }
    match packet.protocol {
        TCP => {
            let header = bytes.near::<[u32; 5]>(packet.l4).ok_or(DropReason::NotParsed)?;
            ports(packet, header[0]);
            packet.sequence = u32::from_be(header[1]);
            packet.acknowledgement = u32::from_be(header[2]);
            packet.tcp_header = (byte(header[3], 0) >> 4) * 4;
            packet.flags = byte(header[3], 1);
            if u32::from(packet.tcp_header) < TCP_HEADER {
                return Err(DropReason::NotParsed);
            }
        }
        UDP => {
            let header = bytes.near::<[u32; 2]>(packet.l4).ok_or(DropReason::NotParsed)?;
            ports(packet, header[0]);
        }
        ICMP | ICMPV6 => {
            let header = bytes.near::<[u32; 2]>(packet.l4).ok_or(DropReason::NotParsed)?;
            packet.flags = byte(header[0], 0);
        }
        _ => {}
    }
    Ok(())
}

/// Source and destination port from the first word of a TCP or UDP header.
#[inline(always)]
pub fn ports(packet: &mut Packet, word: u32) {
    (packet.source_port, packet.destination_port) = split(word);
}

/// The two ports in the first word of a TCP or UDP header.
#[inline(always)]
pub fn split(word: u32) -> (Port, Port) {
    (Port::new((u32::from_be(word) >> 16) as u16), Port::new(u32::from_be(word) as u16))
}

/// Where the checksum that covers the addresses is, counted from the start of the packet's bytes.
#[inline(always)]
pub fn checksum_at(packet: &Packet) -> Option<u32> {
    if packet.fragment == Fragment::Later {
        return None;
    }
    match packet.protocol {
        TCP => Some(packet.l4 + TCP_CHECKSUM_AT),
        UDP => Some(packet.l4 + UDP_CHECKSUM_AT),
        // ICMP's own covers no address.
        ICMPV6 => Some(packet.l4 + ICMP_CHECKSUM_AT),
        _ => None,
    }
}
