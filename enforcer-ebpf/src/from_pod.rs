//! Ingress of a pod's veth: every packet that a pod sends.
//!
//! parse → guard → identify → track → decide → account. What goes nowhere guarded leaves after the guard, untouched.
//! *translate* (Services) will stand before the guard, *policy* (NetworkPolicy) after the verdict.

use enforcer_common::verdict::DropReason;

use crate::{
    case::{Action, Case, filter, guarded_by},
    identify,
    maps::NODE_CONFIG,
    outbound,
    packet::Layer,
};

#[inline(always)]
pub fn run(case: &mut Case) -> Result<Action, DropReason> {
    if !case.parse(Layer::Frame)? {
        return Ok(Action::Next);
    }
    let filter = filter();
    if !guarded_by(filter, &case.packet.destination) && case.packet.hidden == 0 {
        // The node's own stack, to which it may be, is behind no other hook of ours.
        return if guarded_by(filter, &case.packet.source) {
            Err(DropReason::ClearSource)
        } else {
            Ok(Action::Next)
        };
    }
    let ifindex = case.skb.ifindex();
    let workload = identify::by_wire(ifindex, &case.packet.source)?;
    outbound::run(case, workload, ifindex)?;
    let config = NODE_CONFIG.get(0).ok_or(DropReason::Internal)?;
    Ok(Action::Peer(config.enforcer0))
}
