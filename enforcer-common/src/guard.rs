//! Guarded addresses: the first question that every packet is asked.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Addr;

/// What a guarded prefix is for.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum GuardKind {
    /// The service range: destinations live here.
    Service = 1,
    /// The workload range: sources of granted workloads inside the tunnel. Never a valid destination on a node.
    Workload = 2,
    /// An administrator's `guardedCIDRs`: denied, never carried.
    Listed = 3,
}

impl GuardKind {
    #[inline(always)]
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Service),
            2 => Some(Self::Workload),
            3 => Some(Self::Listed),
            _ => None,
        }
    }
}

/// The data part of an LPM key; the prefix length in front of it counts the 96 bits of a mapped IPv4 address.
pub type GuardData = Addr;

/// Bits that a mapped IPv4 prefix is longer than its own length.
pub const V4_BITS: u32 = 96;

/// Those of them that lie in the second half of an address.
const MAPPED_BITS: u32 = V4_BITS - 64;

/// Value of `GUARD`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct Guard {
    /// A [`GuardKind`].
    pub kind: u32,
}
abi!(Guard, 4);

/// Value of `GUARD_FILTER` (array of one): a cheap *surely not guarded* for the many packets that are none of ours, and
/// a cheap *surely guarded* for those of a few prefixes.
///
/// A bit for each first octet of an IPv4 address, and for each sum over the first six octets of an IPv6 address. All
/// zero (`ready` too) says nothing: `GUARD` is asked. Written before a prefix is added to `GUARD` and after one was
/// removed, so that it never says less than `GUARD`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct GuardFilter {
    v4: [u32; 8],
    v6: [u32; 8],
    /// Some prefixes: by the half of an address that tells its network, the second of a mapped IPv4 address.
    near4: [Masked; NEAR],
    near6: [Masked; NEAR],
    ready: u64,
}
abi!(GuardFilter, 200);

/// Prefixes of each family that are compared with: the ranges, and two that an administrator listed.
const NEAR: usize = 4;

/// Half an address under a mask. A bit outside the mask: matches nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
struct Masked {
    value: u64,
    mask: u64,
}

impl Masked {
    const NOTHING: Self = Self { value: 1, mask: 0 };

    /// The first `bits` of half an address.
    fn first(bits: u32, half: u64) -> Self {
        let mask = u64::MAX.checked_shl(64 - bits).unwrap_or(0).to_be();
        Self { value: half & mask, mask }
    }

    #[inline(always)]
    fn covers(&self, half: u64) -> bool {
        half & self.mask == self.value
    }
}

impl GuardFilter {
    /// Of a `GUARD` without prefixes.
    pub const EMPTY: Self = Self {
        v4: [0; 8],
        v6: [0; 8],
        near4: [Masked::NOTHING; NEAR],
        near6: [Masked::NOTHING; NEAR],
        ready: 1,
    };

    /// Adds a prefix, whose length counts the [`V4_BITS`] of a mapped one. Host bits are ignored.
    pub fn admit(&mut self, prefix: &Addr, bits: u32) {
        if prefix.is_v4() && bits >= V4_BITS {
            if let Some(near) = self.near4.iter_mut().find(|near| **near == Masked::NOTHING) {
                *near = Masked::first(bits - V4_BITS + MAPPED_BITS, prefix.halves()[1]);
            }
            let first = prefix.v4_octet();
            let free = 8_u32.saturating_sub(bits - V4_BITS);
            for octet in 0..=u8::MAX {
                if u32::from(octet) >> free == u32::from(first) >> free {
                    self.v4[usize::from(octet >> 5)] |= 1 << (octet & 31);
                }
            }
            return;
        }
        let [first, second, ..] = prefix.words();
        if (SUMMED_BITS..=64).contains(&bits)
            && let Some(near) = self.near6.iter_mut().find(|near| **near == Masked::NOTHING)
        {
            *near = Masked::first(bits, prefix.halves()[0]);
        }
        if bits >= SUMMED_BITS {
            let sum = prefix.v6_sum();
            self.v6[usize::from(sum >> 5)] |= 1 << (sum & 31);
        } else {
            self.v6 = [u32::MAX; 8];
        }
        // A short prefix around the mapped addresses covers them too.
        if bits < SUMMED_BITS || first == 0 && u32::from_be(second) >> 16 == 0 {
            self.v4 = [u32::MAX; 8];
        }
    }

    /// Whether surely no prefix covers the address.
    #[inline(always)]
    pub fn misses(&self, address: &Addr) -> bool {
        let (bits, at) =
            if address.is_v4() { (&self.v4, address.v4_octet()) } else { (&self.v6, address.v6_sum()) };
        self.ready != 0 && bits[usize::from(at >> 5)] & (1 << (at & 31)) == 0
    }
}

impl GuardFilter {
    /// Whether surely a prefix covers the address.
    #[inline(always)]
    pub fn covers(&self, address: &Addr) -> bool {
        let [first, second] = address.halves();
        let (near, half) = if address.is_v4() { (&self.near4, second) } else { (&self.near6, first) };
        let mut covered = false;
        let mut index = 0;
        while index < NEAR {
            covered |= near[index].covers(half);
            index += 1;
        }
        covered && self.ready != 0
    }
}

/// Bits of an address that [`GuardFilter`] sums over: no prefix of a ULA is shorter.
const SUMMED_BITS: u32 = 48;

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, vec::Vec};

    use super::*;

    fn filter(prefixes: &[(&str, u32)]) -> GuardFilter {
        let mut filter = GuardFilter::EMPTY;
        for (prefix, length) in prefixes {
            let prefix: IpAddr = prefix.parse().unwrap();
            let bits = length + if prefix.is_ipv4() { V4_BITS } else { 0 };
            filter.admit(&prefix.into(), bits);
        }
        filter
    }

    fn missed(filter: &GuardFilter, addresses: &[&'static str]) -> Vec<&'static str> {
        let misses = |text: &&str| filter.misses(&Addr::from(text.parse::<IpAddr>().unwrap()));
        addresses.iter().copied().filter(misses).collect()
    }

    #[test]
    fn a_filter_misses_nothing_that_a_prefix_covers() {
        for (prefix, length, inside) in [
            ("198.18.0.0", 15, ["198.18.0.1", "198.19.255.255"]),
            ("10.0.0.0", 8, ["10.0.0.0", "10.255.255.255"]),
            ("8.0.0.0", 5, ["8.0.0.0", "15.255.255.255"]),
            ("0.0.0.0", 0, ["0.0.0.0", "255.255.255.255"]),
            ("203.0.113.9", 32, ["203.0.113.9", "203.0.113.9"]),
            ("fd00:1:2::", 48, ["fd00:1:2::", "fd00:1:2:ffff:ffff:ffff:ffff:ffff"]),
            ("fd00:1:2:3::4", 128, ["fd00:1:2:3::4", "fd00:1:2:3::4"]),
            ("2001:db8::", 32, ["2001:db8::1", "2001:db8:ffff::1"]),
            ("::", 0, ["::", "1.2.3.4"]),
            ("::", 80, ["::1", "1.2.3.4"]),
        ] {
            assert_eq!(
                missed(&filter(&[(prefix, length)]), &inside),
                Vec::<&str>::new(),
                "{prefix}/{length}"
            );
        }
    }

    #[test]
    fn a_filter_covers_what_its_prefixes_do_and_nothing_else() {
        let covered = |prefixes: &[(&str, u32)], address: &str| {
            filter(prefixes).covers(&Addr::from(address.parse::<IpAddr>().unwrap()))
        };
        for (prefix, length, inside, outside) in [
            ("198.18.0.0", 15, "198.19.255.255", "198.20.0.0"),
            ("203.0.113.9", 32, "203.0.113.9", "203.0.113.8"),
            ("0.0.0.0", 0, "1.2.3.4", "::1"),
            ("128.0.0.0", 1, "255.0.0.1", "127.0.0.1"),
            ("fd00:1:2::", 48, "fd00:1:2:ffff::1", "fd00:1:3::"),
            ("fd00:1:2:4::", 62, "fd00:1:2:7::1", "fd00:1:2:8::"),
            ("fd00:1:2:4::", 64, "fd00:1:2:4::1", "fd00:1:2:5::"),
        ] {
            assert!(covered(&[(prefix, length)], inside), "{prefix}/{length}");
            assert!(!covered(&[(prefix, length)], outside), "{prefix}/{length}");
        }
        // The trie knows the others.
        let many = [("10.1.0.0", 16), ("10.2.0.0", 16), ("10.3.0.0", 16), ("10.4.0.0", 16), ("10.5.0.0", 16)];
        assert!(covered(&many, "10.4.0.1") && !covered(&many, "10.5.0.1"));
        for address in ["0.0.0.0", "0.0.0.1", "::", "::1", "0:1::", "0:1:0:1::"] {
            assert!(!covered(&[], address), "{address}");
        }
    }

    #[test]
    fn a_filter_misses_most_of_the_rest_but_only_once_it_is_ready() {
        let addresses = ["10.0.0.5", "203.0.113.9", "fd10::5", "2001:db8::9", "198.18.0.1", "fd00:1:2::1"];
        let ranges = filter(&[("198.18.0.0", 16), ("fd00:1:2::", 48)]);
        assert_eq!(missed(&ranges, &addresses), addresses[..4]);
        assert_eq!(missed(&GuardFilter::EMPTY, &addresses), addresses);
        assert_eq!(missed(&GuardFilter { ready: 0, ..GuardFilter::EMPTY }, &addresses), Vec::<&str>::new());
    }

    /// xorshift: the same sequence every time.
    fn dice(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    /// An address of either family whose first bits are often those of others.
    fn any(state: &mut u64) -> u128 {
        let low = u128::from(dice(state)) & 0x0303_0303;
        match dice(state) % 3 {
            0 => 0xffff << 32 | low << 6,
            1 => 0xfd00 << 112 | low << 64 | u128::from(dice(state) % 4) << 60,
            _ => low << 96 | u128::from(dice(state)),
        }
    }

    #[test]
    fn a_filter_never_says_otherwise_than_the_prefixes_bit_by_bit() {
        let mut state = 0x9e37_79b9_7f4a_7c15;
        let mut told = [0; 2];
        for _ in 0..4_000 {
            let mut filter = GuardFilter::EMPTY;
            let mut prefixes = Vec::new();
            for _ in 0..dice(&mut state) % 7 {
                let (prefix, bits) = (any(&mut state), (dice(&mut state) % 129) as u32);
                filter.admit(&Addr::from(IpAddr::from(prefix.to_be_bytes())), bits);
                prefixes.push((prefix, bits));
            }
            for _ in 0..20 {
                // Half of them differ from a prefix in one bit only.
                let near = prefixes.get(dice(&mut state) as usize % 8).map(|(prefix, _)| *prefix);
                let (other, bit) = (any(&mut state), dice(&mut state) % 128);
                let address = near.map_or(other, |near| near ^ 1 << bit);
                let inside = |(prefix, bits): &(u128, u32)| (prefix ^ address).leading_zeros() >= *bits;
                let is_guarded = prefixes.iter().any(inside);
                let tested = Addr::from(IpAddr::from(address.to_be_bytes()));
                let (covers, misses) = (filter.covers(&tested), filter.misses(&tested));
                assert!(!covers || is_guarded, "{prefixes:x?} cover {address:x}");
                assert!(!misses || !is_guarded, "{prefixes:x?} miss {address:x}");
                told[0] += u32::from(covers);
                told[1] += u32::from(misses);
            }
        }
        assert!(told.iter().all(|times| *times > 1_000), "it says something: {told:?}");
    }
}
