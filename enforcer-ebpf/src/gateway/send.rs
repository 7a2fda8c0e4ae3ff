//! The way out of a gateway's program.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1},
    helpers::{
        bpf_redirect,
        generated::{bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_change_head},
    },
};
use enforcer_common::{Addr, verdict::DropReason};

use crate::{case::Action, packet::eth, skb::Skb};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// The action as the kernel wants it; `None` drops.
#[inline(always)]
pub fn act(action: Option<Action>) -> i32 {
    match action {
        None => TC_ACT_SHOT,
        Some(Action::Next) => TC_ACT_UNSPEC,
        Some(Action::Sent(action)) => action,
        // SAFETY: the helpers take any interface number; one that does not exist drops the packet.
        Some(Action::Out(ifindex)) => unsafe { bpf_redirect(ifindex, 0) as i32 },
        // SAFETY: as above.
        Some(Action::Peer(ifindex)) => unsafe { bpf_redirect_peer(ifindex, 0) as i32 },
    }
}

/// From a device without Ethernet to a neighbour on one with it.
///
/// The kernel resolves the neighbour, but only for a frame: without room for its header in front, the packet is lost
/// without a trace.
#[inline(always)]
pub fn to_neighbour(skb: Skb, ifindex: u32, next_hop: &Addr) -> Result<Action, DropReason> {
    // SAFETY: the kernel checks the length.
    if unsafe { bpf_skb_change_head(skb.raw(), eth::HEADER, 0) } != 0 {
        return Err(DropReason::Internal);
    }
    let words = next_hop.words();
    let (family, ethertype, address) = if next_hop.is_v4() {
        (AF_INET, eth::IPV4, bpf_redir_neigh__bindgen_ty_1 { ipv4_nh: words[3] })
    } else {
        (AF_INET6, eth::IPV6, bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: words })
    };
    skb.store(eth::TYPE_AT, &ethertype, 0)?;
    let mut neighbour = bpf_redir_neigh { nh_family: family, __bindgen_anon_1: address };
    let length = (size_of::<bpf_redir_neigh>() as u32).cast_signed();
    // SAFETY: `neighbour` is readable and as long as is said.
    let action = unsafe { bpf_redirect_neigh(ifindex, &raw mut neighbour, length, 0) };
    Ok(Action::Sent(action as i32))
}
