//! Counters, and events for user space.

use aya_ebpf::helpers::{bpf_get_current_comm, bpf_jiffies64, bpf_ktime_get_coarse_ns};
use enforcer_common::{
    Port,
    event::{EVENTS_PER_WINDOW, Event, EventBudget, EventKind, WINDOW_NS},
    flow::Flow,
    grant::GrantStats,
    maps::counter,
    verdict::DropReason,
};

use crate::{
    case::{Case, now},
    maps::{COUNTERS, EVENT_BUDGET, EVENTS, GRANT_STATS},
    packet::{Bytes as _, Fragment, l4},
};

/// Adds one to a counter of `enforcer_common::maps::counter`, or to that of a drop reason.
#[inline(always)]
pub fn count(index: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: the slot is this CPU's own.
        unsafe { *counter += 1 };
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Direction {
    Out,
    In,
}

/// Charges a packet to a grant of the gateway's; `opened`: it began a flow.
#[inline(always)]
pub fn charge(grant: u32, direction: Direction, bytes: u32, opened: bool, now_ns: u64) {
    let Some(stats) = stats(grant) else { return };
    match direction {
        Direction::Out => {
            stats.packets_out += 1;
            stats.bytes_out += u64::from(bytes);
        }
        Direction::In => {
            stats.packets_in += 1;
            stats.bytes_in += u64::from(bytes);
        }
    }
    stats.flows += u64::from(opened);
    stats.last_ns = now_ns;
}

/// A grant has another flow of the node's.
#[inline(always)]
pub fn opened(grant: u32, now_ns: u64) {
    if let Some(stats) = stats(grant) {
        stats.flows += 1;
        stats.last_ns = now_ns;
    }
}

/// What a flow that ends has carried becomes its grant's. One that is no grant any more has no account.
#[inline(always)]
pub fn settle(flow: &Flow) {
    if let Some(stats) = GRANT_STATS.get_ptr_mut(flow.grant) {
        // SAFETY: as in `stats`.
        unsafe { (*stats).add_flow(flow) };
    }
}

/// Makes an account for a grant, that a flow may be settled with.
#[inline(always)]
pub fn ready(grant: u32) {
    let _full_or_made = stats(grant);
}

/// Account of a grant. `None`: it has none yet, and the map is full; its packets pass uncounted.
#[expect(clippy::needless_borrows_for_generic_args, reason = "by value it would be copied to the stack")]
#[inline(always)]
fn stats(grant: u32) -> Option<&'static mut GrantStats> {
    /// Not on the stack, where there is no room for it.
    static NOTHING: GrantStats =
        GrantStats { packets_out: 0, bytes_out: 0, packets_in: 0, bytes_in: 0, flows: 0, last_ns: 0 };
    let stats = if let Some(stats) = GRANT_STATS.get_ptr_mut(grant) {
        stats
    } else {
        GRANT_STATS.insert(grant, &NOTHING, 0).ok()?;
        GRANT_STATS.get_ptr_mut(grant)?
    };
    // SAFETY: a value of a per-CPU map is this CPU's own, and stays readable until the program ends.
    Some(unsafe { &mut *stats })
}

/// Tells user space about a packet, and whether this CPU might.
#[inline(never)]
pub fn tell(case: &Case, kind: EventKind, reason: u8) -> bool {
    send(|event| {
        let (source_port, destination_port) = ports(case);
        *event = Event {
            time_ns: if case.now_ns == 0 { now() } else { case.now_ns },
            netns: 0,
            cgroup: case.cgroup,
            source: case.packet.source,
            destination: case.packet.destination,
            ifindex: case.skb.ifindex(),
            pid: 0,
            workload: case.workload,
            connection: case.connection,
            source_port,
            destination_port,
            protocol: case.packet.protocol,
            kind: kind as u8,
            hook: case.hook as u8,
            reason,
            comm: [0; 16],
        };
    })
}

/// Ports of the packet, also of one that was refused before anybody asked for them.
#[inline(always)]
fn ports(case: &Case) -> (Port, Port) {
    let packet = &case.packet;
    let known = (packet.source_port, packet.destination_port);
    if known != (Port::NONE, Port::NONE) || !packet.has_ports() || packet.fragment == Fragment::Later {
        return known;
    }
    case.skb.read(packet.l4).map_or(known, l4::split)
}

/// Counts a refusal, and tells user space. `false`: too many have been told of lately, and nobody is to be answered.
#[inline(always)]
pub fn refuse(case: &Case, reason: DropReason) -> bool {
    count(reason as u32);
    // In a flood most denials end here.
    if own_budget().is_some_and(|budget| spent(budget)) {
        count(counter::EVENTS_LIMITED);
        return false;
    }
    tell(case, EventKind::Denied, reason as u8)
}

/// Sends an event, filled in where it lies in the ring, if this CPU may still send one; and says whether it may.
#[inline(always)]
pub fn send(fill: impl FnOnce(&mut Event)) -> bool {
    if !budget() {
        count(counter::EVENTS_LIMITED);
        return false;
    }
    if let Some(mut entry) = EVENTS.reserve::<Event>(0) {
        // SAFETY: the entry has room for an event, and every bit pattern of it is one.
        fill(unsafe { entry.assume_init_mut() });
        entry.submit(0);
    } else {
        count(counter::EVENTS_LOST);
    }
    true
}

#[inline(always)]
fn own_budget() -> Option<&'static mut EventBudget> {
    // SAFETY: the slot is this CPU's own; a connect hook that is preempted here miscounts by one event.
    EVENT_BUDGET.get_ptr_mut(0).map(|budget| unsafe { &mut *budget })
}

/// Whether nothing is left for this tick.
#[inline(always)]
fn spent(budget: &EventBudget) -> bool {
    budget.sent >= EVENTS_PER_WINDOW && budget.tick == tick()
}

#[inline(always)]
fn tick() -> u32 {
    // SAFETY: has no preconditions; the JIT makes one load of it.
    unsafe { bpf_jiffies64() as u32 }
}

#[inline(always)]
fn budget() -> bool {
    let Some(budget) = own_budget() else { return false };
    if spent(budget) {
        return false;
    }
    budget.tick = tick();
    // Good to a tick, and next to free.
    // SAFETY: has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    if now_ns.saturating_sub(budget.window_ns) >= WINDOW_NS {
        budget.window_ns = now_ns;
        budget.sent = 0;
    }
    if budget.sent >= EVENTS_PER_WINDOW {
        return false;
    }
    budget.sent += 1;
    true
}

/// Name of the running process.
#[inline(always)]
pub fn comm() -> [u8; 16] {
    bpf_get_current_comm().unwrap_or([0; 16])
}
