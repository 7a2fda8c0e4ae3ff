//! The gateway's maps. Flows, translations and counters are the kernel's; everything else is written by the
//! gateway's user side and only read here.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray},
};
use enforcer_common::{
    Addr,
    config::GatewayConfig,
    flow::FlowKey,
    gateway::{
        AllowedBackend, GwBackend, GwBackendKey, GwFlow, GwGrant, GwGrantKey, GwNode, GwService,
        GwServiceKey, GwSource, NatKey,
    },
    maps::size,
    verdict::DropReason,
};

/// The gateway's own addresses and its tunnel device. One entry, written before anything is attached.
#[map]
pub static GW_CONFIG: Array<GatewayConfig> = Array::with_max_entries(1, 0);

/// Tunnel address of a node → the node: who may announce, and how many flows it may have.
/// Full: the new node is not registered and its objects say so.
#[map]
pub static GW_NODES: HashMap<Addr, GwNode> = HashMap::with_max_entries(size::GW_NODES, 0);

/// Block of workload addresses → the node that owns it. Full: the node's new block is refused, so its
/// workloads are denied as `UnknownNode`.
#[map]
pub static GW_SOURCES: LpmTrie<Addr, GwSource> = LpmTrie::with_max_entries(size::GW_SOURCES, 0);

/// Workload address × service × protocol × port → grant. Full: the grant is not acknowledged, so it never
/// goes live on the node.
#[map]
pub static GW_GRANTS: HashMap<GwGrantKey, GwGrant> =
    HashMap::with_max_entries(size::GW_GRANTS, BPF_F_NO_PREALLOC);

/// Service address × protocol × port → its set of healthy backends. With port and protocol 0 an empty set: the address
/// is allocated. Full: the destination is not programmed.
#[map]
pub static GW_SERVICES: HashMap<GwServiceKey, GwService> = HashMap::with_max_entries(size::GW_SERVICES, 0);

/// Set × index → backend. A new set is complete before a service names it. Full: the service keeps its
/// previous set.
#[map]
pub static GW_BACKENDS: HashMap<GwBackendKey, GwBackend> =
    HashMap::with_max_entries(size::GW_BACKENDS, BPF_F_NO_PREALLOC);

/// Prefix of backend addresses → ports an administrator allows there. Full: what is not in it is denied.
#[map]
pub static GW_ALLOWED: LpmTrie<Addr, AllowedBackend> = LpmTrie::with_max_entries(size::GW_ALLOWED, 0);

/// Flow as the workload sees it → where it goes. Written here only; user space may mark or remove entries.
/// Full: `FlowTableFull` for new flows, live ones stay.
#[map]
pub static GW_FLOWS: HashMap<FlowKey, GwFlow> = HashMap::with_max_entries(size::FLOWS, 0);

/// Flow as the backend sees it → its key in `GW_FLOWS`: every flow has one entry in each. Full: as `GW_FLOWS`.
#[map]
pub static GW_NAT: HashMap<NatKey, FlowKey> = HashMap::with_max_entries(size::FLOWS, 0);

/// The flow that a CPU is at, beside the packet in `SCRATCH` and for the same reasons. Key: 0. Kernel only. No part of
/// the pinned state: the underscore keeps it out of the pins.
#[map(name = "_GW_SCRATCH")]
pub static GW_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Value of [`GW_SCRATCH`].
#[repr(C)]
pub struct Scratch {
    pub key: FlowKey,
    pub flow: GwFlow,
    pub translation: NatKey,
    /// Of the key.
    pub hash: u32,
}

/// The scratch of this run.
///
/// # Errors
/// [`DropReason::Internal`], which never happens: the entry is there on every CPU.
#[inline(always)]
pub fn scratch() -> Result<&'static mut Scratch, DropReason> {
    let scratch = GW_SCRATCH.get_ptr_mut(0).ok_or(DropReason::Internal)?;
    // SAFETY: the entry is this CPU's own, and no other program runs on it before this one has ended.
    Ok(unsafe { &mut *scratch })
}
