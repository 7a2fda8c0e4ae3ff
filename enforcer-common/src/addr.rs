//! Addresses and ports as the maps hold them: one type for both families.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IPv6 address, or an IPv4 address in its mapped form (`::ffff:a.b.c.d`).
///
/// Four words in network order: the verifier and the compiler handle words better than sixteen bytes.
#[repr(C)]
#[derive(Clone, Copy, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, Ord, PartialEq, PartialOrd)]
pub struct Addr {
    words: [u32; 4],
}
abi!(Addr, 16);

/// The third word of every IPv4-mapped address.
const MAPPED: u32 = 0xffff_u32.to_be();

impl Addr {
    /// `::`: no address.
    pub const NONE: Self = Self { words: [0; 4] };

    /// From the four words of an IPv6 address as they lie in memory.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self { words }
    }

    /// From the word of an IPv4 address as it lies in memory.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self { words: [0, 0, MAPPED, word] }
    }

    pub const fn v4(address: Ipv4Addr) -> Self {
        Self::from_v4_word(u32::from_ne_bytes(address.octets()))
    }

    pub const fn v6(address: Ipv6Addr) -> Self {
        let o = address.octets();
        Self {
            words: [
                u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
                u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
                u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
                u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
            ],
        }
    }

    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }

    #[inline(always)]
    pub const fn is_none(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == 0 && self.words[3] == 0
    }

    /// The words as they lie in memory; an IPv4 address is the last of them.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        self.words
    }

    /// First octet of an IPv4 address.
    #[inline(always)]
    pub const fn v4_octet(&self) -> u8 {
        (u32::from_be(self.words[3]) >> 24) as u8
    }

    /// A sum over the first six octets of an IPv6 address: tells prefixes of 48 bits and more apart, mostly.
    #[inline(always)]
    pub const fn v6_sum(&self) -> u8 {
        let sum = u32::from_be(self.words[0]) ^ (u32::from_be(self.words[1]) >> 16);
        let sum = sum ^ (sum >> 16);
        (sum ^ (sum >> 8)) as u8
    }

    pub fn ip(&self) -> IpAddr {
        let mut octets = [0_u8; 16];
        for (chunk, word) in octets.chunks_exact_mut(4).zip(self.words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
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
