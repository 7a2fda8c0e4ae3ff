//! Who sends: by wire, by network namespace, by cgroup.

use aya_ebpf::helpers::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_skb_ancestor_cgroup_id, bpf_skb_cgroup_id,
};
use enforcer_common::{
    Addr,
    verdict::DropReason,
    workload::{WireKey, Workload},
};

use crate::{
    maps::{CGROUPS, NETNS, WIRE},
    skb::Skb,
};

/// Levels of the cgroup hierarchy that are looked at, deepest first. Below the root a pod's container lies four levels
/// deep, eight where the kubelet itself runs in a container.
const LEVELS: i32 = 10;

/// The workload that has this address on this wire.
///
/// # Errors
/// [`DropReason::Spoofed`] where the interface is a known pod's, which has other addresses;
/// [`DropReason::UnknownWorkload`] otherwise.
#[inline(always)]
pub fn by_wire(ifindex: u32, address: &Addr) -> Result<&'static Workload, DropReason> {
    // The entry of the interface itself is nobody's address.
    if address.is_none() {
        return Err(stranger(ifindex));
    }
    // SAFETY: the entry is replaced as a whole; one that is removed meanwhile denies at the grant.
    match unsafe { WIRE.get(WireKey::new(*address, ifindex)) } {
        Some(workload) => Ok(workload),
        None => Err(stranger(ifindex)),
    }
}

#[inline(never)]
fn stranger(ifindex: u32) -> DropReason {
    match WIRE.get_ptr(WireKey::new(Addr::NONE, ifindex)) {
        Some(_) => DropReason::Spoofed,
        None => DropReason::UnknownWorkload,
    }
}

/// The hostNetwork pod whose socket sent the packet. Fills in `cgroup`.
///
/// # Errors
/// [`DropReason::NoSocket`] for packets that somebody forwarded or translated.
#[inline(always)]
pub fn by_socket(skb: Skb, cgroup: &mut u64) -> Result<&'static Workload, DropReason> {
    // SAFETY: has no preconditions beyond a running TC program.
    *cgroup = unsafe { bpf_skb_cgroup_id(skb.raw()) };
    if *cgroup == 0 {
        return Err(DropReason::NoSocket);
    }
    for level in 0..LEVELS {
        // SAFETY: as above; a level that is too deep gives 0.
        let id = unsafe { bpf_skb_ancestor_cgroup_id(skb.raw(), LEVELS - level) };
        if id == 0 {
            continue;
        }
        // SAFETY: as in `by_wire`.
        if let Some(workload) = unsafe { CGROUPS.get(id) } {
            return Ok(workload);
        }
    }
    Err(DropReason::UnknownWorkload)
}

/// Whether the kernel itself may have sent a packet that `by_socket` knows nobody for: it has no socket, or one in the
/// root cgroup, as those that the stack answers with.
#[inline(always)]
pub fn by_kernel(skb: Skb, cgroup: u64) -> bool {
    // SAFETY: as in `by_socket`.
    cgroup == 0 || unsafe { bpf_skb_ancestor_cgroup_id(skb.raw(), 1) } == 0
}

/// The workload that the running process belongs to: a pod with a network namespace of its own, or a hostNetwork pod.
#[inline(always)]
pub fn by_process(netns: u64) -> Option<&'static Workload> {
    // SAFETY: as in `by_wire`.
    if let Some(workload) = unsafe { NETNS.get(netns) } {
        return Some(workload);
    }
    for level in 0..LEVELS {
        // SAFETY: has no preconditions; a level that is too deep gives 0.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(LEVELS - level) };
        if id == 0 {
            continue;
        }
        // SAFETY: as in `by_wire`.
        if let Some(workload) = unsafe { CGROUPS.get(id) } {
            return Some(workload);
        }
    }
    None
}

/// cgroup of the running process.
#[inline(always)]
pub fn current_cgroup() -> u64 {
    // SAFETY: has no preconditions.
    unsafe { bpf_get_current_cgroup_id() }
}
