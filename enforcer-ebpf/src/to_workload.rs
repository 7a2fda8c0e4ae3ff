//! Ingress of `enforcer0`: the way back from the tunnel netns to the workload.
//!
//! Replies come from `out_of_tunnel` as bare IP packets, what user space says to a client whose session ends as frames.
//! The MAC addresses of the pair begin with a zero, so that the first half-byte tells the two apart.

use enforcer_common::{Addr, flow::FlowKey, verdict::DropReason};

use crate::{
    case::{Action, Case, now},
    flow,
    maps::{FLOWS, NODE_CONFIG},
    node_flows, outbound,
    packet::{Bytes as _, Layer, Packet, icmp, l4},
    skb::Skb,
};

#[inline(always)]
pub fn run(case: &mut Case) -> Result<Action, DropReason> {
    let layer = match case.skb.near::<u16>(0).map(|word| u16::from_be(word) >> 12) {
        Some(4 | 6) => Layer::Bare,
        _ => Layer::Frame,
    };
    if !case.parse(layer)? {
        return Ok(Action::Next);
    }
    l4::parse(&case.skb, case.packet)?;
    flow::fragment(case.packet, case.skb.ifindex())?;
    let ifindex = if icmp::is_error(case.packet) {
        // What `from_host` answers comes by here, often about a packet that opened no flow. Nothing out of a tunnel
        // is a frame.
        if layer == Layer::Frame && own(&case.packet.destination) {
            return Ok(Action::Next);
        }
        about(case.skb, case.packet, case.inner)?
    } else {
        let key = outbound::key_in(case.packet);
        let (workload, ifindex) = match node_flows::live(&key, case.packet, now()) {
            Ok(flow) => (flow.workload, flow.ifindex),
            // A question is no reset, and yet part of an end.
            Err(DropReason::Revoked) if layer == Layer::Frame => ended(&key)?,
            Err(reason) => return Err(reason),
        };
        case.workload = workload;
        flow::first(case.packet, case.skb.ifindex())?;
        ifindex
    };
    Ok(if ifindex == 0 { Action::Next } else { Action::Peer(ifindex) })
}

/// Workload and interface of a flow that revocation ended.
#[inline(always)]
fn ended(key: &FlowKey) -> Result<(u32, u32), DropReason> {
    // SAFETY: as in `node_flows::live`.
    let flow = unsafe { FLOWS.get(key) }.ok_or(DropReason::NoFlow)?;
    Ok((flow.workload, flow.ifindex))
}

/// Whether an address is that of the host's own sockets.
#[inline(always)]
fn own(address: &Addr) -> bool {
    NODE_CONFIG.get(0).is_some_and(|config| *address == config.node4 || *address == config.node6)
}

/// Where the subject of an ICMP error came from.
#[inline(never)]
fn about(skb: Skb, packet: &Packet, inner: &mut Packet) -> Result<u32, DropReason> {
    icmp::embedded(&skb, packet, inner)?;
    if inner.source != packet.destination {
        return Err(DropReason::NoFlow);
    }
    Ok(node_flows::live(&outbound::key_out(inner), inner, now())?.ifindex)
}
