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

/// Value of `GUARD`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct Guard {
    /// A [`GuardKind`].
    pub kind: u32,
}
abi!(Guard, 4);
