//! Every other device of the host: nothing guarded passes in clear, whoever made it.

use enforcer_common::{config::EndpointKey, verdict::DropReason};

use crate::{
    case::{Action, Case, filter, guarded, guarded_by, now},
    maps::{ENDPOINTS, TUNNEL_SEEN},
    packet::{Fragment, INNER, Layer, UDP, l4},
};

/// Egress.
#[inline(always)]
pub fn to(case: &mut Case, layer: Layer) -> Result<Action, DropReason> {
    if !case.parse(layer)? {
        return Ok(Action::Next);
    }
    let filter = filter();
    if guarded_by(filter, &case.packet.destination)
        || guarded_by(filter, &case.packet.source)
        || case.packet.hidden != 0
    {
        return Err(DropReason::ClearText);
    }
    Ok(Action::Next)
}

/// Ingress. Packets to a guarded address go on: they die where they would leave, and the sender may be a pod that is
/// not known yet.
#[inline(always)]
pub fn from(case: &mut Case, layer: Layer) -> Result<Action, DropReason> {
    if !case.parse(layer)? {
        return Ok(Action::Next);
    }
    if case.packet.protocol == UDP && case.packet.fragment == Fragment::Whole {
        stamp(case);
    }
    if guarded(&case.packet.source) || case.packet.hidden & INNER != 0 {
        return Err(DropReason::ClearSource);
    }
    Ok(Action::Next)
}

/// Remembers that a gateway was heard.
#[inline(always)]
fn stamp(case: &mut Case) {
    // Not ours to judge: a datagram that cannot be parsed is no tunnel's.
    if l4::parse(&case.skb, case.packet).is_err() {
        return;
    }
    let key = EndpointKey {
        address: case.packet.source,
        port: case.packet.source_port,
        local_port: case.packet.destination_port,
        pad: 0,
    };
    // SAFETY: one word.
    if let Some(slot) = unsafe { ENDPOINTS.get(key) }
        && let Some(seen) = TUNNEL_SEEN.get_ptr_mut(*slot)
    {
        // SAFETY: slots of an array exist for ever; one word is written.
        unsafe { (*seen).seen_ns = now() };
    }
}
