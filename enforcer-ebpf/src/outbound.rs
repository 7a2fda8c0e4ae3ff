//! From an identified workload to the tunnel: track → decide → account. What `from_pod` and `from_host` share.

#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a map takes keys and values by reference too; by value they are copied to a stack that has no room"
)]

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use enforcer_common::{
    event::EventKind,
    flow::{Flow, FlowKey, FlowState, expired},
    grant::Grant,
    maps::counter,
    verdict::{DropReason, Verdict},
    workload::Workload,
};

use crate::{
    account::{self, Direction},
    case::{Case, now},
    decide::{self, Way},
    flow::{self, Table as _},
    hops::MOST,
    maps::{FLOWS, NODE_CONFIG, TUNNELS},
    mss, node_flows,
    packet::{Fragment, Packet, ROUTED, UDP, Version, icmp, l4},
    skb::Skb,
};

/// Key of the flow of a packet that goes out.
#[inline(always)]
pub fn key_out(packet: &Packet) -> FlowKey {
    FlowKey::new(
        packet.source,
        packet.source_port,
        packet.destination,
        packet.destination_port,
        packet.protocol,
    )
}

/// Key of the flow of a packet that comes in.
#[inline(always)]
pub fn key_in(packet: &Packet) -> FlowKey {
    FlowKey::new(
        packet.destination,
        packet.destination_port,
        packet.source,
        packet.source_port,
        packet.protocol,
    )
}

/// Decides on a packet of a workload to a guarded address. `ifindex`: where its answers go, 0 for the local stack.
///
/// # Errors
/// Why it is refused.
#[inline(always)]
pub fn run(case: &mut Case, workload: &Workload, ifindex: u32) -> Result<(), DropReason> {
    case.workload = workload.id;
    if case.packet.hidden & ROUTED != 0 {
        return Err(DropReason::SourceRouted);
    }
    l4::parse(&case.skb, case.packet)?;
    flow::fragment(case.packet, case.skb.ifindex())?;
    if icmp::is_error(case.packet) {
        return about(case.skb, case.packet, case.inner, workload.id);
    }
    if !case.packet.has_ports() {
        return Err(DropReason::NotCarried);
    }
    *case.key = key_out(case.packet);
    let (grant_key, grant) = decide::grant(workload.id, case.key);
    let Some(grant) = grant else {
        let verdict = decide::ungranted(workload, &grant_key);
        return ungranted(case, workload, verdict);
    };
    case.connection = grant.connection;
    // Before the clock, whose reading waits for every load that is on its way: grant and flow come from memory together,
    // with all that is read of them.
    let own = FLOWS.get_ptr_mut(&*case.key).filter(|flow| {
        // SAFETY: as in `live`.
        unsafe { (**flow).workload == workload.id }
    });
    let now_ns = case.time();
    let old = own.filter(|flow| {
        // SAFETY: as in `live`.
        let flow = unsafe { &**flow };
        !expired(flow.state, flow.seen_ns, now_ns)
    });
    match old {
        Some(flow) => {
            // SAFETY: as in `live`.
            let flow = unsafe { &mut *flow };
            continued(case, workload, flow, ifindex, grant)?;
        }
        None => begun(case, workload, ifindex, grant)?,
    }
    flow::first(case.packet, case.skb.ifindex())
}

/// A packet without a grant. A flow that it belongs to ends.
#[inline(always)]
fn ungranted(case: &mut Case, workload: &Workload, verdict: Verdict) -> Result<(), DropReason> {
    let Verdict::Deny(reason) = verdict else { return Err(DropReason::Internal) };
    // What opens a connection gets no reset, so that nobody need ask whether there is one already.
    if reason == DropReason::NotGuardable || case.packet.is_syn() {
        return Err(reason);
    }
    abandoned(case, workload.id, reason)
}

#[inline(never)]
fn abandoned(case: &mut Case, workload: u32, reason: DropReason) -> Result<(), DropReason> {
    let now_ns = case.time();
    let Some(flow) = FLOWS.get_ptr_mut(&*case.key) else { return Err(reason) };
    // SAFETY: as in `live`.
    let flow = unsafe { &mut *flow };
    if flow.workload != workload || expired(flow.state, flow.seen_ns, now_ns) {
        return Err(reason);
    }
    revoke(case, flow, now_ns)
}

/// What the host's stack says for a socket that is gone: an acknowledgement in TIME_WAIT, a reset. It passes where it is
/// of a live flow of the host's, to the last number of the tuple, and carries nothing.
///
/// # Errors
/// `reason`, for everything else.
#[inline(never)]
pub fn end(case: &mut Case, reason: DropReason) -> Result<(), DropReason> {
    if !case.packet.plain || !case.packet.is_tcp() || case.packet.fragment != Fragment::Whole {
        return Err(reason);
    }
    l4::parse(&case.skb, case.packet)?;
    let headers = case.packet.l4 + u32::from(case.packet.tcp_header);
    if case.packet.flags & (l4::SYN | l4::FIN) != 0 || case.skb.len() != headers {
        return Err(reason);
    }
    let now_ns = case.time();
    *case.key = key_out(case.packet);
    let Ok(flow) = node_flows::live(case.key, case.packet, now_ns) else { return Err(reason) };
    let (_, grant) = decide::grant(flow.workload, case.key);
    let granted = grant.is_some_and(|grant| grant.valid_until_ns > now_ns);
    if flow.ifindex != 0 || !granted && !case.packet.has(l4::RST) {
        return Err(reason);
    }
    case.workload = flow.workload;
    if granted && flow.state != FlowState::Revoking as u8 {
        let bytes = case.skb.len() - case.packet.l3;
        node_flows::touch(flow, case.packet, Direction::Out, bytes, now_ns);
    }
    Ok(())
}

/// A packet of a flow that the table knows.
#[inline(always)]
fn continued(
    case: &mut Case,
    workload: &Workload,
    flow: &mut Flow,
    ifindex: u32,
    grant: &Grant,
) -> Result<(), DropReason> {
    let now_ns = case.now_ns;
    // The gateway was taken away: another knows nothing of the connection, so that only a new one can go on.
    let gone = TUNNELS.get(flow.tunnel.into()).is_none_or(|tunnel| tunnel.ifindex == 0);
    let answering = gone || decide::answering(flow.tunnel.into(), now_ns);
    let way = Way { acknowledged: true, answering };
    match decide::granted(workload, grant, way, now_ns) {
        Verdict::Allow => {}
        Verdict::Deny(DropReason::TunnelDown) if decide::probe(flow.tunnel.into(), now_ns) => {}
        Verdict::Deny(DropReason::TunnelDown) => return Err(DropReason::TunnelDown),
        Verdict::Deny(DropReason::Expired) => return revoke(case, flow, now_ns),
        Verdict::Deny(reason) => return Err(reason),
        Verdict::Pass => return Err(DropReason::Internal),
    }
    let ended = gone || flow.state == FlowState::Revoking as u8;
    let over = ended || flow.state == FlowState::Closing as u8;
    if over && (case.packet.is_syn() || case.packet.protocol == UDP) {
        return begun(case, workload, ifindex, grant);
    }
    if ended {
        return revoke(case, flow, now_ns);
    }
    fit(case, flow.tunnel.into())?;
    node_flows::carry(flow, grant.id);
    let bytes = case.skb.len() - case.packet.l3;
    node_flows::touch(flow, case.packet, Direction::Out, bytes, now_ns);
    account::count(counter::ALLOWED);
    Ok(())
}

/// A flow whose grant is gone ends: only its own resets still pass.
#[inline(always)]
fn revoke(case: &Case, flow: &mut Flow, now_ns: u64) -> Result<(), DropReason> {
    if flow.state != FlowState::Revoking as u8 {
        flow.state = FlowState::Revoking as u8;
        flow.seen_ns = now_ns;
    }
    if case.packet.has(l4::RST) { Ok(()) } else { Err(DropReason::Revoked) }
}

/// A packet that begins a flow, or continues one that was forgotten.
#[inline(never)]
fn begun(
    case: &mut Case,
    workload: &Workload,
    ifindex: u32,
    grant: &Grant,
) -> Result<(), DropReason> {
    let now_ns = case.now_ns;
    let gateways = grant.gateways;
    let answering = decide::answering_of(gateways, now_ns);
    let way = Way { acknowledged: gateways != 0, answering: answering != 0 };
    let tunnel = match decide::granted(workload, grant, way, now_ns) {
        Verdict::Allow => decide::choose(answering, case.key, now_ns),
        Verdict::Deny(DropReason::TunnelDown) => {
            let tunnel = decide::choose(gateways, case.key, now_ns);
            if !decide::probe(tunnel, now_ns) {
                return Err(DropReason::TunnelDown);
            }
            tunnel
        }
        Verdict::Deny(reason) => return Err(reason),
        Verdict::Pass => return Err(DropReason::Internal),
    };
    fit(case, tunnel)?;
    open(case, workload, grant, &Route { tunnel, ifindex, now_ns })
}

/// Where a new flow goes and comes from. A BPF call takes five arguments.
struct Route {
    tunnel: u32,
    ifindex: u32,
    now_ns: u64,
}

#[inline(always)]
fn open(
    case: &mut Case,
    workload: &Workload,
    grant: &Grant,
    route: &Route,
) -> Result<(), DropReason> {
    let Some(config) = NODE_CONFIG.get(0) else { return Err(DropReason::Internal) };
    let workload_address = workload.address_like(&case.key.client);
    if workload_address.is_none() {
        return Err(DropReason::Pending);
    }
    let flags = match node_flows::NodeFlows::life(case.key) {
        Some(life) if life.owner == workload.id => {
            node_flows::replaced(case.key);
            BPF_ANY
        }
        // The slot in the ring stays: it names the same key.
        Some(life) => {
            flow::own(workload.id)?;
            flow::disown(life.owner);
            node_flows::replaced(case.key);
            BPF_ANY
        }
        None => {
            flow::reserve::<node_flows::NodeFlows>(case.key, workload.id, config.flow_quota, route.now_ns)?;
            BPF_NOEXIST
        }
    };
    *case.flow = Flow {
        workload_address,
        seen_ns: route.now_ns,
        packets_out: 0,
        bytes_out: 0,
        packets_in: 0,
        bytes_in: 0,
        workload: workload.id,
        ifindex: route.ifindex,
        client_ack: 0,
        server_ack: 0,
        grant: grant.id,
        tunnel: route.tunnel as u8,
        state: flow::first_state(case.packet) as u8,
        seen_acks: 0,
        pad: 0,
    };
    let bytes = case.skb.len() - case.packet.l3;
    node_flows::touch(case.flow, case.packet, Direction::Out, bytes, route.now_ns);
    if FLOWS.insert(&*case.key, &*case.flow, flags.into()).is_err() {
        flow::disown(workload.id);
        // Another CPU began it with the packet beside this one: counted twice, it would be uncounted once.
        let begun = FLOWS.get_ptr(&*case.key).is_some();
        return if begun { Ok(()) } else { Err(DropReason::FlowTableFull) };
    }
    account::opened(grant.id, route.now_ns);
    account::count(counter::ALLOWED);
    account::tell(case, EventKind::Opened, 0);
    Ok(())
}

/// Makes the packet fit the tunnel, or refuses it: a redirect checks no MTU.
#[inline(always)]
fn fit(case: &mut Case, tunnel: u32) -> Result<(), DropReason> {
    // A tunnel that is being taken away carries nothing; its MTU of zero must not be told to anybody.
    let Some(tunnel) = TUNNELS.get(tunnel).filter(|tunnel| tunnel.ifindex != 0) else {
        return Err(DropReason::TunnelDown);
    };
    case.mtu = tunnel.mtu;
    if too_big(case.skb, case.packet, tunnel.mtu) {
        return Err(DropReason::TooBig);
    }
    mss::clamp(case.skb, case.packet, tunnel.mtu)
}

/// Whether a packet, or the segments it will become, is larger than the MTU and may not be fragmented.
#[inline(always)]
pub fn too_big(skb: Skb, packet: &Packet, mtu: u32) -> bool {
    let length = match skb.gso_size() {
        0 => skb.len() - packet.l3,
        payload => {
            let header = if packet.is_tcp() { packet.tcp_header.into() } else { l4::UDP_HEADER };
            packet.l4 - packet.l3 + header + payload
        }
    };
    // An IPv4 packet that may be fragmented is, outside the tunnel.
    length > mtu && (packet.version == Version::V6 || packet.dont_fragment || length > MOST)
}

/// An ICMP error of a workload about a packet that came in: passes if that packet belongs to a live flow.
#[inline(never)]
fn about(skb: Skb, packet: &Packet, inner: &mut Packet, workload: u32) -> Result<(), DropReason> {
    let now_ns = now();
    icmp::embedded(&skb, packet, inner)?;
    if inner.source != packet.destination || inner.destination != packet.source {
        return Err(DropReason::NotCarried);
    }
    let key = key_in(inner);
    let flow = node_flows::live(&key, inner, now_ns)?;
    let (_, grant) = decide::grant(workload, &key);
    match grant {
        Some(grant) if flow.workload == workload && grant.valid_until_ns > now_ns => Ok(()),
        _ => Err(DropReason::NoFlow),
    }
}
