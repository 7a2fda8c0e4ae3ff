//! Ingress of a tunnel device, in the tunnel netns: replies of live flows, and the announce connection.
//!
//! A reply gets the pod's address back and goes to `to_workload`; the announce connection is the local stack's.

use enforcer_common::{
    Addr,
    config::ANNOUNCE_PORT,
    flow::{Flow, FlowState},
    grant::MAX_TUNNELS,
    verdict::DropReason,
    workload::Place,
};

use crate::{
    account::Direction,
    case::{Action, Case, now},
    decide, flow,
    maps::{NODE_CONFIG, PLACES, TUNNELS},
    mss,
    nat::{self, Embedded, End},
    node_flows, outbound,
    packet::{Layer, Packet, TCP, icmp, l4},
    skb::Skb,
};

#[inline(always)]
pub fn run(case: &mut Case) -> Result<Action, DropReason> {
    if !case.parse(Layer::Bare)? {
        return Err(DropReason::NotParsed);
    }
    l4::parse(&case.skb, case.packet)?;
    let config = NODE_CONFIG.get(0).ok_or(DropReason::Internal)?;
    if case.packet.destination == config.node4 || case.packet.destination == config.node6 {
        return announce(case);
    }
    flow::fragment(case.packet, case.skb.ifindex())?;
    // SAFETY: the entry is replaced as a whole; the flow decides.
    let place = unsafe { PLACES.get(case.packet.destination) }.ok_or(DropReason::NoFlow)?;
    case.workload = place.workload;
    if icmp::is_error(case.packet) {
        about(case.skb, case.packet, case.inner, place)?;
        return Ok(Action::Peer(config.tunnel0));
    }
    reply(case, place)?;
    Ok(Action::Peer(config.tunnel0))
}

#[inline(always)]
fn reply(case: &mut Case, place: &Place) -> Result<(), DropReason> {
    let now_ns = case.time();
    *case.key = outbound::key_in(case.packet);
    case.key.client = place.address;
    let flow = node_flows::live(case.key, case.packet, now_ns)?;
    let mtu = belongs(case.skb, flow, place)?;
    let (_, grant) = decide::grant(flow.workload, case.key);
    let bytes = case.skb.len() - case.packet.l3;
    match grant {
        Some(grant) if grant.valid_until_ns > now_ns => {
            case.connection = grant.connection;
            node_flows::carry(flow, grant.id);
        }
        // Resets still pass, so that both ends learn of it.
        _ if case.packet.has(l4::RST) => {}
        _ => {
            flow.state = FlowState::Revoking as u8;
            // Or a flow that was idle would be over at once, and its client's next packet die without an answer.
            flow.seen_ns = now_ns;
            return Err(DropReason::Revoked);
        }
    }
    node_flows::touch(flow, case.packet, Direction::In, bytes, now_ns);
    flow::first(case.packet, case.skb.ifindex())?;
    mss::clamp(case.skb, case.packet, mtu)?;
    let port = case.packet.destination_port;
    nat::rewrite(case.skb, case.packet, End::Destination, &place.address, port)
}

/// Whether a flow is this workload's and came through its own tunnel, whose MTU it gives.
#[inline(always)]
fn belongs(skb: Skb, flow: &Flow, place: &Place) -> Result<u32, DropReason> {
    let tunnel = TUNNELS.get(flow.tunnel.into()).ok_or(DropReason::Internal)?;
    if flow.workload == place.workload && tunnel.ifindex == skb.ifindex() {
        Ok(tunnel.mtu)
    } else {
        Err(DropReason::NoFlow)
    }
}

/// An ICMP error about a packet that went out: its destination and its subject's source are the pod.
#[inline(never)]
fn about(skb: Skb, packet: &mut Packet, inner: &mut Packet, place: &Place) -> Result<(), DropReason> {
    icmp::embedded(&skb, packet, inner)?;
    if inner.source != packet.destination {
        return Err(DropReason::NoFlow);
    }
    let mut key = outbound::key_out(inner);
    key.client = place.address;
    let flow = node_flows::live(&key, inner, now())?;
    belongs(skb, flow, place)?;
    let new = Embedded { address: place.address, port: inner.source_port };
    nat::rewrite_embedded(skb, packet, inner, End::Source, &new)?;
    nat::rewrite(skb, packet, End::Destination, &new.address, packet.destination_port)
}

/// The node's own address is for the announce connection only: from a gateway, through that gateway's tunnel.
#[inline(always)]
fn announce(case: &Case) -> Result<Action, DropReason> {
    let packet = &case.packet;
    if packet.protocol == TCP
        && packet.source_port.get() == ANNOUNCE_PORT
        && gateway_behind(case.skb.ifindex(), &packet.source)
    {
        Ok(Action::Next)
    } else {
        Err(DropReason::NoFlow)
    }
}

#[inline(never)]
fn gateway_behind(ifindex: u32, address: &Addr) -> bool {
    for slot in 0..MAX_TUNNELS {
        if let Some(tunnel) = TUNNELS.get(slot)
            && tunnel.ifindex == ifindex
        {
            return tunnel.gateway4 == *address || tunnel.gateway6 == *address;
        }
    }
    false
}
