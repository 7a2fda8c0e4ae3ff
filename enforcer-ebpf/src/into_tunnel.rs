//! Ingress of `tunnel0`, in the tunnel netns: the last guard before the tunnel.
//!
//! Only packets of a live flow pass; they leave with the workload's address as their source.

use enforcer_common::{Port, flow::Flow, verdict::DropReason};

use crate::{
    case::{Action, Case, now},
    flow,
    maps::TUNNELS,
    nat::{self, Embedded, End},
    node_flows, outbound,
    packet::{Layer, Packet, icmp, l4},
    skb::Skb,
};

#[inline(always)]
pub fn run(case: &mut Case) -> Result<Action, DropReason> {
    // Nothing but IP has business here, and nothing here is to be passed on.
    if !case.parse(Layer::Frame)? {
        return Err(DropReason::NoFlow);
    }
    l4::parse(&case.skb, case.packet)?;
    flow::fragment(case.packet, case.skb.ifindex())?;
    if icmp::is_error(case.packet) {
        return about(case.skb, case.packet, case.inner).map(Action::Out);
    }
    let flow = node_flows::live(&outbound::key_out(case.packet), case.packet, now())?;
    case.workload = flow.workload;
    let tunnel = TUNNELS.get(flow.tunnel.into()).ok_or(DropReason::Internal)?;
    if outbound::too_big(case.skb, case.packet, tunnel.mtu) {
        return Err(DropReason::TooBig);
    }
    flow::first(case.packet, case.skb.ifindex())?;
    let port = case.packet.source_port;
    nat::rewrite(case.skb, case.packet, End::Source, &flow.workload_address, port)?;
    Ok(Action::Out(tunnel.ifindex))
}

/// An ICMP error about a packet that came in: both the error's source and its subject's destination are the pod.
#[inline(never)]
fn about(skb: Skb, packet: &mut Packet, inner: &mut Packet) -> Result<u32, DropReason> {
    icmp::embedded(&skb, packet, inner)?;
    if inner.destination != packet.source {
        return Err(DropReason::NoFlow);
    }
    let flow: &Flow = node_flows::live(&outbound::key_in(inner), inner, now())?;
    let tunnel = TUNNELS.get(flow.tunnel.into()).ok_or(DropReason::Internal)?;
    let new = Embedded { address: flow.workload_address, port: inner.destination_port };
    nat::rewrite_embedded(skb, packet, inner, End::Destination, &new)?;
    nat::rewrite(skb, packet, End::Source, &new.address, Port::NONE)?;
    Ok(tunnel.ifindex)
}
