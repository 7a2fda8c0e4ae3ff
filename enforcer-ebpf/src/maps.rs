//! Every map: what it holds, who writes and who reads it, why it is as large as it is, what happens when it is full.
//!
//! Names and sizes are `enforcer_common::maps`'; the roles can load with other sizes. "Agent" stands for the node's
//! agent, "kernel" for these programs.

use core::mem::MaybeUninit;

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
};
use enforcer_common::{
    Addr,
    config::{EndpointKey, NodeConfig, Tunnel, TunnelSeen},
    event::EventBudget,
    flow::{Flow, FlowKey, FragmentKey, FragmentPorts},
    grant::{Destination, DestinationKey, Grant, GrantKey, GrantStats, MAX_TUNNELS},
    guard::{Guard, GuardData, GuardFilter},
    maps::{counter, size},
    verdict::DropReason,
    workload::{Place, WireKey, Workload},
};

use crate::packet::Packet;

/// Non-zero: log a line for every verdict. Set when the programs are loaded.
#[unsafe(no_mangle)]
pub static LOG: Global<u8> = Global::new(0);

/// Slots of [`FLOW_RING`]. Whoever loads the flow tables with another size sets this to the same.
#[unsafe(no_mangle)]
pub static FLOW_CAPACITY: Global<u32> = Global::new(size::FLOWS);

/// What the node is. Key: 0. Written by the agent before anything is attached; read by every program of the node.
#[map]
pub static NODE_CONFIG: Array<NodeConfig> = Array::with_max_entries(1, 0);

/// Guarded prefixes. Key: prefix over an address (IPv4 mapped). Written by the agent before the first name is
/// published; read by every program first. A few ranges and what administrators list. Full: the agent refuses the
/// prefix and says so; nothing that is guarded stops being it.
#[map]
pub static GUARD: LpmTrie<GuardData, Guard> = LpmTrie::with_max_entries(size::GUARD, 0);

/// What is surely not guarded, without a look into [`GUARD`]. Key: 0. Written by the agent with every change of `GUARD`,
/// on the safe side of it; read by every program of the node.
#[map]
pub static GUARD_FILTER: Array<GuardFilter> = Array::with_max_entries(1, 0);

/// Who speaks on a wire. Key: host side of a pod's veth and a source address; the address `Addr::NONE` stands for
/// "this interface is a known pod's". Written by the agent; read by `from_pod`. A few entries for each pod.
/// Full: the pod is unknown, which denies.
#[map]
pub static WIRE: HashMap<WireKey, Workload> = HashMap::with_max_entries(size::WIRE, 0);

/// Who speaks from a network namespace. Key: its cookie. Written by the agent; read by the connect hooks.
/// One entry for each pod. Full: the connect hooks let pass, the wire decides.
#[map]
pub static NETNS: HashMap<u64, Workload> = HashMap::with_max_entries(size::NETNS, 0);

/// Who speaks from a cgroup: hostNetwork pods. Key: cgroup id. Written by the agent; read by the connect hooks and
/// `from_host`. Full: the pod is unknown, which denies.
#[map]
pub static CGROUPS: HashMap<u64, Workload> = HashMap::with_max_entries(size::CGROUPS, 0);

/// Where the pod behind a workload address is. Key: workload address. Written by the agent; read by `out_of_tunnel`
/// and `from_host`. Full: replies are dropped.
#[map]
pub static PLACES: HashMap<Addr, Place> = HashMap::with_max_entries(size::PLACES, 0);

/// What is granted. Written by the agent; read for every packet to and from a destination. Grown on demand: few
/// nodes come near the size. Full: the agent keeps the connection's earlier grants and reports it; what is missing
/// is denied.
#[map]
pub static GRANTS: HashMap<GrantKey, Grant> = HashMap::with_max_entries(size::GRANTS, BPF_F_NO_PREALLOC);

/// Account of each grant. Key: grant id. Made by the kernel with the grant's first flow, removed by the agent with the
/// grant. On a node the flows have their part until they end. Full: packets pass uncounted.
#[map]
pub static GRANT_STATS: PerCpuHashMap<u32, GrantStats> =
    PerCpuHashMap::with_max_entries(size::GRANT_STATS, BPF_F_NO_PREALLOC);

/// Allocated service addresses and offered ports: tells a wrong address from a missing grant. Written by the agent;
/// read when there is no grant. Full: the reason of a denial is less exact.
#[map]
pub static DESTINATIONS: HashMap<DestinationKey, Destination> =
    HashMap::with_max_entries(size::DESTINATIONS, BPF_F_NO_PREALLOC);

/// Flows of the node, one entry for both directions. Written by the kernel; read by the agent, which also ends flows
/// for which it sends the resets. Grown on demand: entries that are allocated one by one lie in large pages, the block
/// that the kernel would set aside for all of them does not, and a packet of a cold flow pays for each of its pages.
/// Full: what is over is reclaimed, else new flows are denied and old ones stay.
#[map]
pub static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(size::FLOWS, BPF_F_NO_PREALLOC);

/// The order in which flows were made, as a ring with a slot for each entry of the flow table: where an insert looks
/// for a flow that is over. Kernel only.
#[map]
pub static FLOW_RING: Array<FlowKey> = Array::with_max_entries(size::FLOWS, 0);

/// Next slot of [`FLOW_RING`]; only ever grows. Key: 0. Kernel only.
#[map]
pub static FLOW_CURSOR: Array<u64> = Array::with_max_entries(1, 0);

/// Flows of each owner: a workload on a node, a node at a gateway. Written by the kernel; the agent removes the counts of
/// workloads that are gone. Full: new owners get no flow.
#[map]
pub static FLOW_COUNTS: HashMap<u32, u32> = HashMap::with_max_entries(size::FLOW_COUNTS, 0);

/// Ports of first fragments. Kernel only. Full: the datagram that was seen least recently is forgotten, and its
/// later fragments are dropped.
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts> =
    LruHashMap::with_max_entries(size::FRAGMENTS, 0);

/// Tunnels of the node. Key: slot. Written by the agent.
#[map]
pub static TUNNELS: Array<Tunnel> = Array::with_max_entries(MAX_TUNNELS, 0);

/// When each tunnel was last heard. Key: slot. Written by `from_wire`, read by whoever decides.
#[map]
pub static TUNNEL_SEEN: Array<TunnelSeen> = Array::with_max_entries(MAX_TUNNELS, 0);

/// Tunnel datagrams: from which gateway's endpoint to which of our ports; value: the slot. Written by the agent; read
/// by `from_wire`. Full: the tunnel counts as silent, which denies.
#[map]
pub static ENDPOINTS: HashMap<EndpointKey, u32> = HashMap::with_max_entries(size::ENDPOINTS, 0);

/// Counters, by `enforcer_common::maps::counter`. Written by the kernel, read by everyone.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// Events for user space. Full: the event is lost and counted.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(size::EVENTS, 0);

/// The packet that a CPU is at, and the one inside it. Key: 0. Kernel only. TC programs run with softirqs off, one after
/// the other; here because the stack has 512 bytes, and because the verifier follows what lies on the stack value by
/// value, but not what lies here.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Value of [`SCRATCH`].
pub struct Scratch {
    pub packet: Packet,
    pub inner: Packet,
    pub key: FlowKey,
    /// A flow that is about to begin.
    pub flow: Flow,
    /// An answer while it is put together: IP header, then what it carries.
    pub answer: Answer,
    /// Why the packet is refused, once it is.
    pub reason: MaybeUninit<DropReason>,
}

/// Words of an answer, at most: IPv6 and ICMPv6 headers, and embedded IPv6 and TCP headers.
pub type Answer = [u32; 27];

/// Events that each CPU may still send. Key: 0. Kernel only.
#[map]
pub static EVENT_BUDGET: PerCpuArray<EventBudget> = PerCpuArray::with_max_entries(1, 0);
