//! The gateway: grants are checked again, and packets go on to a healthy backend and back.
//!
//! ```text
//!   tunnel device   gw_from_tunnel   source owned by a node? -> grant -> flow, or backend + source port -> translate
//!                                      -> neighbour on the backend's interface
//!   backend's side  gw_from_backend  translation known? -> grant -> translate back -> tunnel device
//! ```
//!
//! Needs neither `ip_forward` nor netfilter: nothing that comes out of the tunnel reaches the local stack but the
//! announce connection, and nothing enters the tunnel but packets of flows that came out of it.
//!
//! A flow carries no authority: its grant is looked up for every packet, in both directions.

mod from_backend;
mod from_tunnel;
mod maps;
mod open;
mod port;
mod send;
mod track;

use aya_ebpf::{macros::classifier, programs::TcContext};
use enforcer_common::{event::Hook, verdict::DropReason};

use crate::{
    account,
    case::{Action, Case},
    reject::{self, Error},
    skb::Skb,
};

#[expect(clippy::needless_pass_by_value, reason = "the attribute calls it so")]
#[classifier]
pub fn gw_from_tunnel(ctx: TcContext) -> i32 {
    let Some(mut case) = Case::new(Skb::new(&ctx), Hook::GwFromTunnel) else { return send::act(None) };
    let mut action = Action::Next;
    let result = out_of_tunnel(&mut case, &mut action);
    send::act(settle(&mut case, result.map(|()| action)))
}

#[expect(clippy::needless_pass_by_value, reason = "the attribute calls it so")]
#[classifier]
pub fn gw_from_backend(ctx: TcContext) -> i32 {
    let Some(mut case) = Case::new(Skb::new(&ctx), Hook::GwFromBackend) else { return send::act(None) };
    let mut action = Action::Next;
    let result = into_tunnel(&mut case, &mut action);
    send::act(settle(&mut case, result.map(|()| action)))
}

/// A subprogram, so that its stack is free again when a refused packet is answered.
#[inline(never)]
fn out_of_tunnel(case: &mut Case, action: &mut Action) -> Result<(), DropReason> {
    *action = from_tunnel::run(case)?;
    Ok(())
}

/// As [`out_of_tunnel`].
#[inline(never)]
fn into_tunnel(case: &mut Case, action: &mut Action) -> Result<(), DropReason> {
    *action = from_backend::run(case)?;
    Ok(())
}

/// What becomes of a packet: `None` is dropped. A refused packet is counted and told, and its sender gets an answer
/// where that is better than silence: a reset for what TCP believes to be an open connection, "prohibited" for a
/// datagram of a flow that was ended, the size for what is too large.
#[inline(always)]
fn settle(case: &mut Case, result: Result<Action, DropReason>) -> Option<Action> {
    let reason = match result {
        Ok(action) => return Some(action),
        Err(reason) => Case::forget(reason),
    };
    account::refuse(case, reason);
    let answered = match reason {
        DropReason::TooBig => reject::error(case.skb, case.packet, Error::TooBig(case.mtu), case.answer),
        DropReason::Revoked if !case.packet.is_tcp() => {
            reject::error(case.skb, case.packet, Error::Prohibited, case.answer)
        }
        DropReason::NoDestination
        | DropReason::PortNotOffered
        | DropReason::NoGrant
        | DropReason::Expired
        | DropReason::NoFlow
        | DropReason::Revoked
        | DropReason::BackendNotAllowed => reject::reset(case.skb, case.packet, case.answer),
        DropReason::NotParsed
        | DropReason::LateFragment
        | DropReason::SourceRouted
        | DropReason::UnknownWorkload
        | DropReason::Spoofed
        | DropReason::NotGuardable
        | DropReason::Pending
        | DropReason::TunnelDown
        | DropReason::FlowTableFull
        | DropReason::QuotaExceeded
        | DropReason::ClearText
        | DropReason::ClearSource
        | DropReason::NoSocket
        | DropReason::NotCarried
        | DropReason::NoBackend
        | DropReason::PortsExhausted
        | DropReason::UnknownNode
        | DropReason::Internal => return None,
    };
    // Both ends of a gateway are left by the way that the packet came.
    answered.is_ok().then(|| Action::Out(case.skb.ifindex()))
}
