//! Addresses and ports as the maps hold them: one type for both families.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IPv6 address, or an IPv4 address in its mapped form (`::ffff:a.b.c.d`).
///
/// Two halves in network order, because the kernel compares keys in pieces of eight bytes: what was written in smaller
/// ones it gets only after they have gone to the cache, which is after everything before them.
#[repr(C)]
#[derive(Clone, Copy, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, Ord, PartialEq, PartialOrd)]
pub struct Addr {
    halves: [u64; 2],
}
abi!(Addr, 16);

/// The third word of every IPv4-mapped address.
const MAPPED: u32 = 0xffff_u32.to_be();

/// Two words as they lie in memory, as one.
#[inline(always)]
pub(crate) const fn join(first: u32, second: u32) -> u64 {
    if cfg!(target_endian = "little") {
        first as u64 | (second as u64) << 32
    } else {
        (first as u64) << 32 | second as u64
    }
}

#[inline(always)]
const fn split(half: u64) -> [u32; 2] {
    let (low, high) = (half as u32, (half >> 32) as u32);
    if cfg!(target_endian = "little") { [low, high] } else { [high, low] }
}

impl Addr {
    /// `::`: no address.
    pub const NONE: Self = Self { halves: [0; 2] };

    /// From the four words of an IPv6 address as they lie in memory.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self { halves: [join(words[0], words[1]), join(words[2], words[3])] }
    }

    /// From the word of an IPv4 address as it lies in memory.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self { halves: [0, join(MAPPED, word)] }
    }

    pub const fn v4(address: Ipv4Addr) -> Self {
        Self::from_v4_word(u32::from_ne_bytes(address.octets()))
    }

    pub const fn v6(address: Ipv6Addr) -> Self {
        let o = address.octets();
        Self {
            halves: [
                u64::from_ne_bytes([o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7]]),
                u64::from_ne_bytes([o[8], o[9], o[10], o[11], o[12], o[13], o[14], o[15]]),
            ],
        }
    }

    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.halves[0] == 0 && split(self.halves[1])[0] == MAPPED
    }

    #[inline(always)]
    pub const fn is_none(&self) -> bool {
        self.halves[0] | self.halves[1] == 0
    }

    /// The words as they lie in memory; an IPv4 address is the last of them.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        let ([first, second], [third, fourth]) = (split(self.halves[0]), split(self.halves[1]));
        [first, second, third, fourth]
    }

    /// The halves as they lie in memory; an IPv4 address is in the second.
    #[inline(always)]
    pub const fn halves(&self) -> [u64; 2] {
        self.halves
    }

    /// First octet of an IPv4 address.
    #[inline(always)]
    pub const fn v4_octet(&self) -> u8 {
        (u32::from_be(split(self.halves[1])[1]) >> 24) as u8
    }

    /// A sum over the first six octets of an IPv6 address: tells prefixes of 48 bits and more apart, mostly.
    #[inline(always)]
    pub const fn v6_sum(&self) -> u8 {
        let sum = u64::from_be(self.halves[0]) >> 16;
        let sum = sum ^ (sum >> 32);
        let sum = sum ^ (sum >> 16);
        (sum ^ (sum >> 8)) as u8
    }

    pub fn ip(&self) -> IpAddr {
        let mut octets = [0_u8; 16];
        for (chunk, half) in octets.chunks_exact_mut(8).zip(self.halves) {
            chunk.copy_from_slice(&half.to_ne_bytes());
        }
        Ipv6Addr::from(octets).to_canonical()
    }
}

impl From<IpAddr> for Addr {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::v4(address),
            IpAddr::V6(address) => Self::v6(address),
        }
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.ip(), f)
    }
}

/// A port in network order.
#[repr(transparent)]
#[derive(Clone, Copy, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, Ord, PartialEq, PartialOrd)]
pub struct Port(u16);
abi!(Port, 2);

impl Port {
    pub const NONE: Self = Self(0);

    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// From the half-word as it lies in a header.
    #[inline(always)]
    pub const fn from_network(word: u16) -> Self {
        Self(word)
    }

    /// The half-word as it lies in a header.
    #[inline(always)]
    pub const fn network(self) -> u16 {
        self.0
    }

    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.get(), f)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.get(), f)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString as _;

    use super::*;

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        for text in ["198.18.0.7", "fd00:1:2::7", "::", "255.255.255.255"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(Addr::from(ip).ip(), ip);
            assert_eq!(Addr::from(ip).to_string(), text);
        }
    }

    #[test]
    fn memory_holds_network_order() {
        let v4 = Addr::v4(Ipv4Addr::new(198, 18, 0, 7));
        assert_eq!(v4.as_bytes(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 18, 0, 7]);
        assert!(v4.is_v4());
        assert_eq!(Port::new(5432).as_bytes(), 5432_u16.to_be_bytes());
    }
}
