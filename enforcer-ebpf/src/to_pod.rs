//! Egress of a pod's veth: what reaches a pod the ordinary way. Our replies are put into the pod directly.

use enforcer_common::verdict::DropReason;

use crate::{
    case::{Action, Case, guarded},
    packet::{INNER, Layer},
};

#[inline(always)]
pub fn run(case: &mut Case) -> Result<Action, DropReason> {
    if !case.parse(Layer::Frame)? {
        return Ok(Action::Next);
    }
    if guarded(&case.packet.source) || case.packet.hidden & INNER != 0 {
        return Err(DropReason::ClearSource);
    }
    Ok(Action::Next)
}
