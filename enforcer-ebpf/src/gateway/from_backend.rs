//! From a backend's side, back into the tunnel.
//!
//! ```text
//!   parse -> ICMP error?  -> translation of the embedded packet -> translate -> tunnel
//!         -> TCP, UDP     -> translation -> grant -> size       -> translate -> tunnel
//! ```
//!
//! What belongs to no flow is none of ours: it goes on to the next program, and the host answers it as it always did.

use enforcer_common::{
    flow::{FlowKey, FlowState},
    gateway::{GwFlow, NatKey},
    verdict::DropReason,
};

use super::{
    from_tunnel,
    maps::{self, GW_CONFIG, GW_NAT, Scratch},
    track,
};
use crate::{
    account::{self, Direction},
    case::{Action, Case, now},
    flow, hops,
    icmp::{self, Translated},
    mss,
    nat::{self, End},
    packet::{self, Fragment, Layer, Packet, eth, l4},
    skb::Skb,
};

#[inline(always)]
pub fn run(case: &mut Case) -> Result<Action, DropReason> {
    // What cannot be parsed belongs to no flow either, and there is nothing to guard here.
    let Ok(true) = parse(case.skb, case.packet, case.inner) else { return Ok(Action::Next) };
    // A network of its own, whose backends answer on the device of its tag. The tunnel has no tags: it would get garbage.
    if case.skb.is_tagged() || case.packet.l3 != eth::HEADER {
        return Ok(Action::Next);
    }
    let scratch = maps::scratch()?;
    if packet::icmp::is_error(case.packet) {
        return error(case, scratch);
    }
    if !case.packet.has_ports() {
        return Ok(Action::Next);
    }
    if case.packet.fragment == Fragment::Later && flow::fragment(case.packet, case.skb.ifindex()).is_err() {
        return Ok(Action::Next);
    }
    let now_ns = now();
    scratch.translation = reply(case.packet);
    let Some(flow) = find(scratch, now_ns) else { return Ok(Action::Next) };
    back(case, &scratch.key, flow, now_ns)
}

/// `Ok(false)`: not IP.
#[inline(never)]
fn parse(skb: Skb, packet: &mut Packet, inner: &mut Packet) -> Result<bool, DropReason> {
    *packet = Packet::EMPTY;
    if !packet::parse(&skb, Layer::Frame, packet)? {
        return Ok(false);
    }
    if !packet.plain {
        packet::unfold(&skb, packet, inner, |_| false)?;
    }
    l4::parse(&skb, packet)?;
    Ok(true)
}

/// How a backend sees the flow that this packet is from.
#[inline(always)]
fn reply(packet: &Packet) -> NatKey {
    NatKey {
        backend: packet.source,
        source: packet.destination,
        backend_port: packet.source_port,
        source_port: packet.destination_port,
        protocol: packet.protocol,
        pad: [0; 3],
    }
}

/// The live flow that the translation in the scratch belongs to; its key is written there.
#[expect(clippy::needless_borrows_for_generic_args, reason = "by value it would be copied to the stack")]
#[inline(never)]
fn find(scratch: &mut Scratch, now_ns: u64) -> Option<*mut GwFlow> {
    let found = GW_NAT.get_ptr(&scratch.translation)?;
    // SAFETY: a value of the map, copied because an entry that is taken over changes.
    scratch.key = unsafe { *found };
    let flow = track::live(&scratch.key, now_ns)?;
    // SAFETY: a value of the map. A translation that was taken from its flow leads to a flow with another one.
    if unsafe { track::translation(&*flow, scratch.key.protocol) } == scratch.translation {
        Some(flow)
    } else {
        None
    }
}

#[inline(always)]
fn back(case: &mut Case, key: &FlowKey, flow: *mut GwFlow, now_ns: u64) -> Result<Action, DropReason> {
    let config = GW_CONFIG.get(0).ok_or(DropReason::Internal)?;
    let grant = track::grant(key);
    case.connection = grant.map_or(0, |grant| grant.connection);
    // SAFETY: a value of the map.
    let revoking = unsafe { (*flow).state } == FlowState::Revoking as u8;
    match track::refusal(key, grant, now_ns) {
        Some(reason) => track::revoke(case, flow, reason, now_ns)?,
        None if revoking && !case.packet.has(l4::RST) => return Err(DropReason::Revoked),
        None => {}
    }
    // What may be fragmented is, outside the tunnel.
    if case.packet.dont_fragment || case.skb.len() - case.packet.l3 > hops::MOST {
        hops::fits(case, config.tunnel_mtu)?;
    }
    if let Some(grant) = grant {
        account::charge(grant.id, Direction::In, case.skb.len() - case.packet.l3, false, now_ns);
    }
    track::touch(flow, case.packet, Direction::In, now_ns);
    flow::first(case.packet, case.skb.ifindex())?;
    hops::spend(case.skb, case.packet)?;
    mss::clamp(case.skb, case.packet, config.tunnel_mtu)?;
    nat::rewrite(case.skb, case.packet, End::Source, &key.service, key.service_port)?;
    nat::rewrite(case.skb, case.packet, End::Destination, &key.client, key.client_port)?;
    // The device has no Ethernet: the kernel takes the header away.
    Ok(Action::Out(config.tunnel_ifindex))
}

/// An ICMP error about a packet to the backend, from the backend or from a router on the way there. The workload
/// learns it from the only address that it knows.
#[inline(always)]
fn error(case: &mut Case, scratch: &mut Scratch) -> Result<Action, DropReason> {
    if from_tunnel::embedded(case.skb, case.packet, case.inner).is_err() {
        return Ok(Action::Next);
    }
    let inner = &*case.inner;
    scratch.translation = NatKey {
        backend: inner.destination,
        source: inner.source,
        backend_port: inner.destination_port,
        source_port: inner.source_port,
        protocol: inner.protocol,
        pad: [0; 3],
    };
    if case.packet.destination != inner.source || find(scratch, now()).is_none() {
        return Ok(Action::Next);
    }
    let config = GW_CONFIG.get(0).ok_or(DropReason::Internal)?;
    let key = &scratch.key;
    hops::spend(case.skb, case.packet)?;
    icmp::translate(
        case.skb,
        case.packet,
        case.inner,
        &Translated {
            reporter: key.service,
            receiver: key.client,
            source: key.client,
            source_port: key.client_port,
            destination: key.service,
            destination_port: key.service_port,
        },
    )?;
    Ok(Action::Out(config.tunnel_ifindex))
}
