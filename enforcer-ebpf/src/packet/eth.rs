//! Ethernet and up to two VLAN tags: where the IP header starts.

use super::{Bytes, Layer};

pub const HEADER: u32 = 14;
pub const TYPE_AT: u32 = 12;
const TAG: u32 = 4;

pub const IPV4: u16 = 0x0800_u16.to_be();
pub const IPV6: u16 = 0x86dd_u16.to_be();
const VLAN: u16 = 0x8100_u16.to_be();
const QINQ: u16 = 0x88a8_u16.to_be();

/// What a frame carries, and where it starts.
pub enum Network {
    V4(u32),
    V6(u32),
    /// Not IP: nothing that could reach a guarded address.
    Other,
}

#[inline(always)]
pub fn network<B: Bytes>(bytes: &B, layer: Layer) -> Network {
    match layer {
        Layer::Bare => match bytes.near::<u16>(0).map(|word| u16::from_be(word) >> 12) {
            Some(4) => Network::V4(0),
            Some(6) => Network::V6(0),
            _ => Network::Other,
        },
        Layer::Frame => match bytes.near::<u16>(TYPE_AT) {
            Some(IPV4) => Network::V4(HEADER),
            Some(IPV6) => Network::V6(HEADER),
            Some(VLAN | QINQ) => tagged(bytes),
            _ => Network::Other,
        },
    }
}

#[inline(always)]
fn tagged<B: Bytes>(bytes: &B) -> Network {
    let mut at = TYPE_AT + TAG;
    let mut kind = bytes.read::<u16>(at);
    if matches!(kind, Some(VLAN | QINQ)) {
        at += TAG;
        kind = bytes.read::<u16>(at);
    }
    match kind {
        Some(IPV4) => Network::V4(at + 2),
        Some(IPV6) => Network::V6(at + 2),
        _ => Network::Other,
    }
}
