//! The node's flows: the table, and what packets leave behind in an entry.

use enforcer_common::{
    flow::{Flow, FlowKey, FlowState, expired},
    verdict::DropReason,
};

use crate::{
    account::{self, Direction},
    atomic,
    flow::{self, Life, Table},
    maps::FLOWS,
    packet::{Packet, l4},
};

/// The node's flow table.
pub struct NodeFlows;

impl Table for NodeFlows {
    #[inline(always)]
    fn life(key: &FlowKey) -> Option<Life> {
        // SAFETY: words that are read once; an entry that is reused meanwhile belongs to a younger flow, which is live.
        let flow = unsafe { FLOWS.get(key) }?;
        Some(Life { state: flow.state, seen_ns: flow.seen_ns, owner: flow.workload })
    }

    #[inline(always)]
    fn remove(key: &FlowKey) -> bool {
        let flow = FLOWS.get_ptr(key);
        let removed = FLOWS.remove(key).is_ok();
        if removed && let Some(flow) = flow {
            // SAFETY: the memory stays a flow until the program ends; it is on this CPU's list of free ones, so that
            // nobody has made another flow of it yet.
            account::settle(unsafe { &*flow });
        }
        removed
    }
}

/// The flow that an outbound packet belongs to, as the tunnel's side sees it: alive, and passing this packet.
///
/// # Errors
/// [`DropReason::NoFlow`], or [`DropReason::Revoked`] for anything but a reset of a flow that revocation ended.
#[inline(always)]
pub fn live(key: &FlowKey, packet: &Packet, now_ns: u64) -> Result<&'static mut Flow, DropReason> {
    let flow = FLOWS.get_ptr_mut(key).ok_or(DropReason::NoFlow)?;
    // SAFETY: the memory stays a flow until the program ends, even if the entry is removed; other CPUs write single
    // words of it, none of which is a pointer or a length.
    let flow = unsafe { &mut *flow };
    if expired(flow.state, flow.seen_ns, now_ns) {
        return Err(DropReason::NoFlow);
    }
    if flow.state == FlowState::Revoking as u8 && !packet.has(l4::RST) {
        return Err(DropReason::Revoked);
    }
    Ok(flow)
}

/// Settles the account of a flow that another one with the same key takes the place of.
#[inline(never)]
pub fn replaced(key: &FlowKey) {
    if let Some(flow) = FLOWS.get_ptr(key) {
        // SAFETY: as in `live`.
        account::settle(unsafe { &*flow });
    }
}

/// Charges a flow to a grant from here on.
#[inline(always)]
pub fn carry(flow: &mut Flow, grant: u32) {
    if flow.grant != grant {
        transfer(flow, grant);
    }
}

/// Another connection is charged from now on: what was carried so far stays the earlier one's.
#[inline(never)]
fn transfer(flow: &mut Flow, grant: u32) {
    account::settle(flow);
    (flow.packets_out, flow.bytes_out, flow.packets_in, flow.bytes_in) = (0, 0, 0, 0);
    flow.grant = grant;
    account::ready(grant);
}

/// Brings a flow up to date with a packet that passes.
#[inline(always)]
pub fn touch(flow: &mut Flow, packet: &Packet, direction: Direction, bytes: u32, now_ns: u64) {
    flow.seen_ns = now_ns;
    let mut trace = flow::Trace {
        state: &mut flow.state,
        client_ack: &mut flow.client_ack,
        server_ack: &mut flow.server_ack,
        seen_acks: &mut flow.seen_acks,
    };
    trace.follow(packet, direction);
    match direction {
        Direction::Out => carried(&mut flow.packets_out, &mut flow.bytes_out, bytes),
        Direction::In => carried(&mut flow.packets_in, &mut flow.bytes_in, bytes),
    }
}

/// Counts a packet. Those of one flow may be on two CPUs at once.
#[inline(always)]
fn carried(packets: &mut u64, bytes: &mut u64, length: u32) {
    // SAFETY: words of a map value, which other CPUs touch atomically as well.
    unsafe {
        atomic::add_word(packets, 1);
        atomic::add_word(bytes, length.into());
    }
}
