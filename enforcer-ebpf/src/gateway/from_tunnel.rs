//! Out of the tunnel, towards a backend.
//!
//! ```text
//!   parse -> announce? -> owner -> ICMP error?  -> flow of the embedded packet -> translate -> neighbour
//!                               -> TCP, UDP     -> grant -> flow or new flow   -> translate -> neighbour
//! ```

use aya_ebpf::maps::lpm_trie::Key;
use enforcer_common::{
    Addr,
    config::{ANNOUNCE_PORT, GatewayConfig},
    event::EventKind,
    flow::{FlowKey, FlowState},
    gateway::{GwFlow, GwGrant, GwSource},
    maps::counter,
    verdict::DropReason,
};

use super::{
    maps::{self, GW_CONFIG, GW_NODES, GW_SOURCES, Scratch},
    open, send, track,
};
use crate::{
    account::{self, Direction},
    case::{Action, Case, now},
    flow, hops,
    icmp::{self, Translated},
    mss,
    nat::{self, End},
    packet::{self, Fragment, Layer, Packet, l4},
    skb::Skb,
};

#[inline(always)]
pub fn run(case: &mut Case) -> Result<Action, DropReason> {
    parse(case.skb, case.packet, case.inner)?;
    let scratch = maps::scratch()?;
    let config = GW_CONFIG.get(0).ok_or(DropReason::Internal)?;
    if case.packet.destination == config.gateway4 || case.packet.destination == config.gateway6 {
        return announce(case.packet);
    }
    let owner = owner(&case.packet.source)?;
    if packet::icmp::is_error(case.packet) {
        return error(case, scratch, owner);
    }
    if !case.packet.has_ports() {
        return Err(DropReason::NotCarried);
    }
    flow::fragment(case.packet, case.skb.ifindex())?;
    forward(case, scratch, config, owner)
}

/// Nothing but IP is in a tunnel. Whoever routes by options or extension headers would pass the backend that was
/// chosen.
#[inline(never)]
fn parse(skb: Skb, packet: &mut Packet, inner: &mut Packet) -> Result<(), DropReason> {
    *packet = Packet::EMPTY;
    if !packet::parse(&skb, Layer::Bare, packet)? {
        return Err(DropReason::NotParsed);
    }
    if !packet.plain {
        packet::unfold(&skb, packet, inner, |_| true)?;
        if packet.hidden & packet::ROUTED != 0 {
            return Err(DropReason::SourceRouted);
        }
    }
    l4::parse(&skb, packet)
}

/// The one thing that a node may say to the gateway itself.
#[inline(always)]
fn announce(packet: &Packet) -> Result<Action, DropReason> {
    if GW_NODES.get_ptr(packet.source).is_none() {
        return Err(DropReason::UnknownNode);
    }
    if packet.is_tcp() && packet.fragment == Fragment::Whole && packet.destination_port.get() == ANNOUNCE_PORT
    {
        return Ok(Action::Next);
    }
    Err(DropReason::NotCarried)
}

/// The node that owns a source address. The tunnel ties the block to the node's key.
#[inline(always)]
fn owner(source: &Addr) -> Result<GwSource, DropReason> {
    let key = Key::new(128, *source);
    GW_SOURCES.get(&key).copied().ok_or(DropReason::UnknownNode)
}

#[inline(always)]
fn forward(
    case: &mut Case,
    scratch: &mut Scratch,
    config: &GatewayConfig,
    owner: GwSource,
) -> Result<Action, DropReason> {
    let now_ns = now();
    let packet = &*case.packet;
    scratch.key = FlowKey::new(
        packet.source,
        packet.source_port,
        packet.destination,
        packet.destination_port,
        packet.protocol,
    );
    let key = &scratch.key;
    let grant = track::grant(key);
    if let Some(grant) = grant {
        // The announced workload is another node's: somebody speaks from a block that changed hands.
        if grant.node != owner.node {
            return Err(DropReason::UnknownNode);
        }
        case.connection = grant.connection;
    }
    let refusal = track::refusal(key, grant, now_ns);
    let mut flow = track::live(key, now_ns);
    if let Some(known) = flow {
        if let Some(reason) = refusal.or_else(|| open::withdrawn(known, key.protocol)) {
            track::revoke(case, known, reason, now_ns)?;
        } else if case.packet.is_syn() && starts_anew(known) {
            // Its end is the new one's beginning.
            flow = None;
        } else if revoking(known) && !case.packet.has(l4::RST) {
            return Err(DropReason::Revoked);
        }
    }
    let (flow, opened) = match (flow, refusal, grant) {
        (Some(flow), ..) => (flow, false),
        (None, Some(reason), _) => return Err(reason),
        (None, None, None) => return Err(DropReason::NoGrant),
        (None, None, Some(_)) => (begin(case, scratch, owner, now_ns)?, true),
    };
    // Nobody fragments behind the neighbour that the packet is handed to.
    // SAFETY: a value of the map.
    hops::fits(case, unsafe { (*flow).mtu })?;
    if let Some(grant) = grant {
        charge(case, grant, opened, now_ns);
    }
    track::touch(flow, case.packet, Direction::Out, now_ns);
    flow::first(case.packet, case.skb.ifindex())?;
    // SAFETY: as above.
    let flow = unsafe { &*flow };
    hops::spend(case.skb, case.packet)?;
    mss::clamp(case.skb, case.packet, config.tunnel_mtu.min(flow.mtu))?;
    nat::rewrite(case.skb, case.packet, End::Source, &flow.source, flow.source_port)?;
    nat::rewrite(case.skb, case.packet, End::Destination, &flow.backend, flow.backend_port)?;
    send::to_neighbour(case.skb, flow.ifindex, &flow.next_hop)
}

/// A new flow. Only a SYN opens one in TCP: the middle of a connection that the gateway does not know cannot be sent
/// to the backend that it began with.
#[inline(always)]
fn begin(
    case: &Case,
    scratch: &mut Scratch,
    owner: GwSource,
    now_ns: u64,
) -> Result<*mut GwFlow, DropReason> {
    if case.packet.is_tcp() && !case.packet.is_syn() {
        return Err(DropReason::NoFlow);
    }
    open::open(scratch, owner, case.connection, now_ns)?;
    account::tell(case, EventKind::Opened, 0);
    track::live(&scratch.key, now_ns).ok_or(DropReason::Internal)
}

#[inline(always)]
fn charge(case: &Case, grant: &GwGrant, opened: bool, now_ns: u64) {
    account::charge(grant.id, Direction::Out, case.skb.len() - case.packet.l3, opened, now_ns);
    account::count(counter::ALLOWED);
}

/// Whether a SYN may take the place of this flow: its connection is over.
#[inline(always)]
fn starts_anew(flow: *mut GwFlow) -> bool {
    // SAFETY: a value of the map.
    let state = unsafe { (*flow).state };
    state == FlowState::Closing as u8 || state == FlowState::Revoking as u8
}

#[inline(always)]
fn revoking(flow: *mut GwFlow) -> bool {
    // SAFETY: a value of the map.
    unsafe { (*flow).state == FlowState::Revoking as u8 }
}

/// Reads the packet inside an error.
#[inline(never)]
pub fn embedded(skb: Skb, packet: &Packet, inner: &mut Packet) -> Result<(), DropReason> {
    packet::icmp::embedded(&skb, packet, inner)
}

/// An ICMP error about a reply: what the backend sees of the workload is the gateway.
#[inline(always)]
fn error(case: &mut Case, scratch: &mut Scratch, owner: GwSource) -> Result<Action, DropReason> {
    embedded(case.skb, case.packet, case.inner)?;
    let inner = &*case.inner;
    scratch.key = FlowKey::new(
        inner.destination,
        inner.destination_port,
        inner.source,
        inner.source_port,
        inner.protocol,
    );
    let flow = track::live(&scratch.key, now()).ok_or(DropReason::NoFlow)?;
    // SAFETY: a value of the map.
    let flow = unsafe { &*flow };
    // A workload, or its node, may complain about its own flows only.
    if flow.node != owner.node || case.packet.destination != inner.source {
        return Err(DropReason::NoFlow);
    }
    if flow.state == FlowState::Revoking as u8 {
        return Err(DropReason::Revoked);
    }
    hops::spend(case.skb, case.packet)?;
    icmp::translate(
        case.skb,
        case.packet,
        case.inner,
        &Translated {
            reporter: flow.source,
            receiver: flow.backend,
            source: flow.backend,
            source_port: flow.backend_port,
            destination: flow.source,
            destination_port: flow.source_port,
        },
    )?;
    send::to_neighbour(case.skb, flow.ifindex, &flow.next_hop)
}
