//! Workloads: who sends.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use crate::{Addr, addr::join};

/// Key of `WIRE`: who speaks on a host-side interface with this source address.
///
/// With [`Addr::NONE`]: the interface is a known pod's. Without this entry a strange source is `UnknownWorkload`, with
/// it `Spoofed`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, Ord, PartialEq, PartialOrd,
)]
pub struct WireKey {
    pub address: Addr,
    /// Host side of the pod's veth, in the host's network namespace.
    pub ifindex: u32,
    pub pad: u32,
}
abi!(WireKey, 24);

impl WireKey {
    #[inline(always)]
    pub const fn new(address: Addr, ifindex: u32) -> Self {
        let [address, address_end] = address.halves();
        // Whole halves, see `Addr`.
        transmute!([address, address_end, join(ifindex, 0)])
    }
}

/// Value of `WIRE`, `NETNS` and `CGROUPS`. What every packet needs comes first: beside the key, in its cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct Workload {
    /// Unique for the life of the pins, never given to another pod.
    pub id: u32,
    /// [`NOT_GUARDABLE`] or 0.
    pub flags: u32,
    /// Workload address of each family; [`Addr::NONE`] while none is assigned (no grant).
    pub address4: Addr,
    pub address6: Addr,
}
abi!(Workload, 40);

/// The pod has a way out that no wire hook sees: refused everything.
pub const NOT_GUARDABLE: u32 = 1;

impl Workload {
    /// Workload address for a packet of the family of `like`.
    #[inline(always)]
    pub const fn address_like(&self, like: &Addr) -> Addr {
        if like.is_v4() { self.address4 } else { self.address6 }
    }
}

/// Value of `PLACES` (key: workload address): where the pod behind a workload address is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
pub struct Place {
    /// Pod address; the node's tunnel address for hostNetwork pods.
    pub address: Addr,
    /// Host side of the pod's veth; 0 for hostNetwork pods (deliver to the local stack).
    pub ifindex: u32,
    pub workload: u32,
}
abi!(Place, 24);
