//! One packet on its way through a pipeline, and what the pipeline makes of it.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use enforcer_common::{Addr, event::Hook, guard::Guard, verdict::DropReason};

use crate::{
    maps::GUARD,
    packet::{self, Layer, Packet},
    skb::Skb,
};

/// What is known of the packet so far. Pipelines fill it in, verdict and event read it.
pub struct Case {
    pub skb: Skb,
    pub packet: Packet,
    /// 0: unknown.
    pub workload: u32,
    /// Number of the connection that is charged; 0: none.
    pub connection: u32,
    /// cgroup of the sending socket; 0: unknown.
    pub cgroup: u64,
    /// What the tunnel carries, for answers that say so.
    pub mtu: u32,
    pub hook: Hook,
}

/// What becomes of a packet that is not dropped.
#[derive(Clone, Copy)]
pub enum Action {
    /// Not ours, or for the local stack: on to the next program.
    Next,
    /// To the far end of this veth, in the far end's network namespace.
    Peer(u32),
    /// Out of this device.
    Out(u32),
    /// Out of this device to a neighbour that the stack resolves; the frame has its Ethernet header already.
    Sent(i32),
}

impl Case {
    #[inline(always)]
    pub fn new(skb: Skb, hook: Hook) -> Self {
        Self { skb, packet: Packet::EMPTY, workload: 0, connection: 0, cgroup: 0, mtu: 0, hook }
    }

    /// First step of every pipeline. `Ok(false)`: not IP.
    #[inline(always)]
    pub fn parse(&mut self, layer: Layer) -> Result<bool, DropReason> {
        if !packet::parse(&self.skb, layer, &mut self.packet)? {
            return Ok(false);
        }
        if !self.packet.plain {
            unfold(self.skb, &mut self.packet)?;
        }
        Ok(true)
    }
}

/// Rare, and large once the loops are unrolled: a subprogram of its own.
#[inline(never)]
fn unfold(skb: Skb, packet: &mut Packet) -> Result<(), DropReason> {
    packet::unfold(&skb, packet, |address| guarded(address).is_some())
}

/// The guard that covers an address: the first question that every packet is asked.
#[inline(always)]
pub fn guarded(address: &Addr) -> Option<&'static Guard> {
    let key = aya_ebpf::maps::lpm_trie::Key::new(128, *address);
    GUARD.get(&key)
}

/// Nanoseconds of `CLOCK_BOOTTIME`: goes on while the machine sleeps, as `validUntil` does.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}
