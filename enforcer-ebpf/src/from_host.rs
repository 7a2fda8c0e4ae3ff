//! Egress of `enforcer0`: what sockets of the host send to guarded addresses.
//!
//! parse → guard → identify → track → decide → account. Passing means crossing the pair to `into_tunnel`.

use enforcer_common::verdict::DropReason;

use crate::{
    case::{Action, Case, guarded},
    identify,
    maps::PLACES,
    outbound,
    packet::Layer,
};

#[inline(always)]
pub fn run(case: &mut Case) -> Result<Action, DropReason> {
    if !case.parse(Layer::Frame)? {
        return Ok(Action::Next);
    }
    // The kernel's own multicast, which the tunnel's side drops.
    if !guarded(&case.packet.destination) && case.packet.hidden == 0 {
        return Ok(Action::Next);
    }
    let workload = match identify::by_socket(case.skb, &mut case.cgroup) {
        Ok(workload) => workload,
        Err(reason) if identify::by_kernel(case.skb, case.cgroup) => {
            return outbound::end(case, reason).map(|()| Action::Next);
        }
        Err(reason) => return Err(reason),
    };
    case.workload = workload.id;
    let inside = workload.address_like(&case.packet.source);
    // SAFETY: the entry is replaced as a whole; one that is removed meanwhile denies.
    let place = unsafe { PLACES.get(inside) };
    // A workload without a grant has no address yet; the ladder says why it is refused.
    if !inside.is_none() && place.is_none_or(|place| place.address != case.packet.source) {
        return Err(DropReason::Spoofed);
    }
    outbound::run(case, workload, 0)?;
    Ok(Action::Next)
}
