//! One packet on its way through a pipeline, and what the pipeline makes of it.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use enforcer_common::{
    Addr,
    event::Hook,
    flow::{Flow, FlowKey},
    guard::GuardFilter,
    verdict::DropReason,
};

use crate::{
    maps::{Answer, GUARD, GUARD_FILTER, SCRATCH, Scratch},
    packet::{self, Layer, Packet},
    skb::Skb,
    steps::opaque,
};

/// What is known of the packet so far. Pipelines fill it in, verdict and event read it.
pub struct Case {
    pub skb: Skb,
    pub packet: &'static mut Packet,
    /// The packet inside an ICMP error, or an encapsulated one.
    pub inner: &'static mut Packet,
    /// Key of the packet's flow.
    pub key: &'static mut FlowKey,
    pub flow: &'static mut Flow,
    pub answer: &'static mut Answer,
    /// 0: unknown.
    pub workload: u32,
    /// Number of the connection that is charged; 0: none.
    pub connection: u32,
    /// cgroup of the sending socket; 0: unknown.
    pub cgroup: u64,
    /// The clock, read once; 0: not yet.
    pub now_ns: u64,
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
    /// `None` never happens: the scratch map has this entry on every CPU.
    #[inline(always)]
    pub fn new(skb: Skb, hook: Hook) -> Option<Self> {
        // SAFETY: the entry is this CPU's own, and no other program runs on it before this one has ended.
        let Scratch { packet, inner, key, flow, answer, .. } = unsafe { &mut *SCRATCH.get_ptr_mut(0)? };
        Some(Self {
            skb,
            packet,
            inner,
            key,
            flow,
            answer,
            workload: 0,
            connection: 0,
            cgroup: 0,
            now_ns: 0,
            mtu: 0,
            hook,
        })
    }

    /// Reads the clock for everything that follows.
    #[inline(always)]
    pub fn time(&mut self) -> u64 {
        self.now_ns = now();
        self.now_ns
    }

    /// The same reason, but any as far as the verifier knows. It must not be a constant while a function is called.
    ///
    /// Where the verifier of Linux 6.1 has been through the rest of a called function before, it takes the function's
    /// use of a register for the caller's, and forgets that a constant of the caller's in this register leads somewhere
    /// else. It takes out what only this constant would have led to: all resets were gone.
    #[inline(always)]
    pub fn forget(reason: DropReason) -> DropReason {
        let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return DropReason::Internal };
        // SAFETY: the entry is this CPU's own; what is read is what was written, which the compiler must not know.
        unsafe {
            let room = &raw mut (*scratch).reason;
            room.write_volatile(MaybeUninit::new(reason));
            room.read_volatile().assume_init()
        }
    }

    /// First step of every pipeline. `Ok(false)`: not IP.
    #[inline(always)]
    pub fn parse(&mut self, layer: Layer) -> Result<bool, DropReason> {
        match packet::parse(&self.skb, layer, self.packet) {
            Ok(true) if !self.packet.plain => unfold(self.skb, self.packet, self.inner).map(|()| true),
            Err(reason) => {
                // The event must not tell of the packet before this one.
                *self.packet = Packet::EMPTY;
                Err(reason)
            }
            result => result,
        }
    }
}

/// Rare, and large: a subprogram of its own.
#[inline(never)]
fn unfold(skb: Skb, packet: &mut Packet, inner: &mut Packet) -> Result<(), DropReason> {
    // The compiler would join two answers into one comparison: "R7 pointer |= pointer prohibited".
    packet::unfold(&skb, packet, inner, |address| opaque(guarded(address).into()) != 0)
}

/// Whether an address is guarded: the first question that every packet is asked.
#[inline(always)]
pub fn guarded(address: &Addr) -> bool {
    guarded_by(filter(), address)
}

/// What answers for most addresses whether they are guarded, for who asks about two.
#[inline(always)]
pub fn filter() -> Option<&'static GuardFilter> {
    GUARD_FILTER.get(0)
}

/// As [`guarded`].
#[inline(always)]
pub fn guarded_by(filter: Option<&GuardFilter>, address: &Addr) -> bool {
    if let Some(filter) = filter {
        if filter.misses(address) {
            return false;
        }
        if filter.covers(address) {
            return true;
        }
    }
    let key = aya_ebpf::maps::lpm_trie::Key::new(128, *address);
    GUARD.get(&key).is_some()
}

/// Nanoseconds of `CLOCK_BOOTTIME`: goes on while the machine sleeps, as `validUntil` does.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}
