//! Flows of the gateway: lookup, what a packet leaves behind in them, and their end.
//!
//! A flow is two entries: `GW_FLOWS` as the workload sees it, `GW_NAT` as the backend does. The second is made first
//! and is the one that decides who owns a source port.

use enforcer_common::{
    Port,
    event::EventKind,
    flow::{FlowKey, FlowState, expired},
    gateway::{GwFlow, GwGrant, GwGrantKey, GwServiceKey, NatKey},
    verdict::{DropReason, Facts, GrantFacts, Verdict, decide},
};

use super::maps::{GW_FLOWS, GW_GRANTS, GW_NAT, GW_SERVICES};
use crate::{
    account::{self, Direction},
    case::Case,
    flow::{self, Life, Table},
    packet::{Packet, l4},
};

/// `GW_FLOWS` with its translations, for the ring.
pub struct Flows;

impl Table for Flows {
    #[inline(always)]
    fn life(key: &FlowKey) -> Option<Life> {
        let flow = GW_FLOWS.get_ptr(key)?;
        // SAFETY: a value of the map; what another CPU writes at the same time makes the flow younger at most.
        let flow = unsafe { &*flow };
        Some(Life { state: flow.state, seen_ns: flow.seen_ns, owner: flow.node })
    }

    #[inline(never)]
    fn remove(key: &FlowKey) -> bool {
        if let Some(flow) = GW_FLOWS.get_ptr(key) {
            // SAFETY: as above.
            let translation = translation(unsafe { &*flow }, key.protocol);
            // The key exists, or another CPU has removed it.
            let _ = GW_NAT.remove(translation);
        }
        GW_FLOWS.remove(key).is_ok()
    }
}

/// Key of the flow's entry in `GW_NAT`.
#[inline(always)]
pub fn translation(flow: &GwFlow, protocol: u8) -> NatKey {
    NatKey {
        backend: flow.backend,
        source: flow.source,
        backend_port: flow.backend_port,
        source_port: flow.source_port,
        protocol,
        pad: [0; 3],
    }
}

/// The flow with this key, unless it is over.
#[inline(always)]
pub fn live(key: &FlowKey, now_ns: u64) -> Option<*mut GwFlow> {
    let flow = GW_FLOWS.get_ptr_mut(key)?;
    // SAFETY: a value of the map.
    if unsafe { expired((*flow).state, (*flow).seen_ns, now_ns) } { None } else { Some(flow) }
}

/// Ends a flow that is known to be over, or to be replaced. Inline: Linux 6.1 counts at least 32 bytes for each call, and
/// this one is the seventh of a chain.
#[inline(always)]
pub fn end(key: &FlowKey) {
    if let Some(life) = Flows::life(key)
        && Flows::remove(key)
    {
        flow::disown(life.owner);
    }
}

/// The grant of a flow.
#[inline(always)]
pub fn grant(key: &FlowKey) -> Option<&'static GwGrant> {
    let key = GwGrantKey {
        client: key.client,
        service: key.service,
        port: key.service_port,
        protocol: key.protocol,
        pad: [0; 5],
    };
    let grant = GW_GRANTS.get_ptr(key)?;
    // SAFETY: the map does not reuse memory while a program reads it.
    Some(unsafe { &*grant })
}

/// The same ladder as on the node: `None` allows.
#[inline(always)]
pub fn refusal(key: &FlowKey, grant: Option<&GwGrant>, now_ns: u64) -> Option<DropReason> {
    // What is offered only tells denials apart.
    let (destination_known, port_offered) = if grant.is_some() { (true, true) } else { offered(key) };
    let facts = Facts {
        guarded: true,
        not_guardable: false,
        workload_known: true,
        destination_known,
        port_offered,
        // Having it is acknowledging it, and the packet came through the tunnel.
        grant: grant.map(|grant| GrantFacts {
            valid_until_ns: grant.valid_until_ns,
            acknowledged: true,
            answering: true,
        }),
    };
    match decide(&facts, now_ns) {
        Verdict::Deny(reason) => Some(reason),
        Verdict::Allow | Verdict::Pass => None,
    }
}

/// Whether a destination has the address, and whether it offers the port.
#[expect(clippy::needless_borrows_for_generic_args, reason = "by value it would be copied to the stack twice")]
#[inline(never)]
fn offered(key: &FlowKey) -> (bool, bool) {
    let mut service =
        GwServiceKey { service: key.service, port: key.service_port, protocol: key.protocol, pad: [0; 5] };
    if GW_SERVICES.get_ptr(&service).is_some() {
        return (true, true);
    }
    (service.port, service.protocol) = (Port::NONE, 0);
    (GW_SERVICES.get_ptr(&service).is_some(), false)
}

/// A packet of a flow that is allowed no longer: the flow turns revoking, and lets resets pass.
///
/// # Errors
/// [`DropReason::Revoked`] for everything else.
#[inline(always)]
pub fn revoke(case: &Case, flow: *mut GwFlow, reason: DropReason, now_ns: u64) -> Result<(), DropReason> {
    // SAFETY: a value of the map.
    let flow = unsafe { &mut *flow };
    if flow.state != FlowState::Revoking as u8 {
        flow.state = FlowState::Revoking as u8;
        flow.seen_ns = now_ns;
        account::tell(case, EventKind::Reset, reason as u8);
    }
    if case.packet.has(l4::RST) { Ok(()) } else { Err(DropReason::Revoked) }
}

/// Leaves the traces of a packet in its flow.
#[inline(always)]
pub fn touch(flow: *mut GwFlow, packet: &Packet, direction: Direction, now_ns: u64) {
    // SAFETY: a value of the map; packets of one flow on two CPUs leave the traces of one of them.
    let flow = unsafe { &mut *flow };
    let mut trace = flow::Trace {
        state: &mut flow.state,
        client_ack: &mut flow.client_ack,
        server_ack: &mut flow.backend_ack,
        seen_acks: &mut flow.seen_acks,
    };
    trace.follow(packet, direction);
    if flow.state != FlowState::Revoking as u8 {
        flow.seen_ns = now_ns;
    }
}
