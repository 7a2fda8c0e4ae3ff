//! Entry points: every program maps its pipeline's result to an action in one exhaustive match.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

// The parser is the same on the host, where its tests run.
#[cfg(any(target_arch = "bpf", test))]
#[cfg_attr(test, expect(dead_code, reason = "the tests call what they test"))]
mod packet;
#[cfg(any(target_arch = "bpf", test))]
mod steps;

/// Everything that only the kernel runs.
macro_rules! kernel_modules {
    ($($name:ident)+) => { $(#[cfg(target_arch = "bpf")] mod $name;)+ };
}

kernel_modules! {
    connect from_pod to_pod from_host wire into_tunnel out_of_tunnel to_workload
    outbound node_flows identify decide flow case nat csum mss reject account maps skb atomic
    gateway hops icmp
}

#[cfg(target_arch = "bpf")]
#[expect(clippy::needless_pass_by_value, reason = "aya's macros pass the context by value")]
mod programs {
    use aya_ebpf::{
        bindings::{BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC},
        helpers::{bpf_redirect, bpf_redirect_peer, bpf_skb_change_type},
        macros::{cgroup_sock_addr, classifier},
        programs::{SockAddrContext, TcContext},
    };
    use aya_log_ebpf::debug;
    use enforcer_common::{
        event::{EventKind, Hook},
        verdict::DropReason,
    };

    use crate::{
        account,
        case::{Action, Case},
        connect, from_host, from_pod, into_tunnel,
        maps::LOG,
        out_of_tunnel,
        packet::{Layer, Version},
        reject,
        skb::Skb,
        to_pod, to_workload, wire,
    };

    #[classifier]
    pub fn from_pod(ctx: TcContext) -> i32 {
        run(&ctx, Hook::FromPod, Back::Pod, from_pod::run)
    }

    #[classifier]
    pub fn to_pod(ctx: TcContext) -> i32 {
        run(&ctx, Hook::ToPod, Back::Nobody, to_pod::run)
    }

    #[classifier]
    pub fn from_host(ctx: TcContext) -> i32 {
        run(&ctx, Hook::FromHost, Back::Stack, from_host::run)
    }

    #[classifier]
    pub fn to_workload(ctx: TcContext) -> i32 {
        run(&ctx, Hook::ToWorkload, Back::Nobody, to_workload::run)
    }

    #[classifier]
    pub fn to_wire(ctx: TcContext) -> i32 {
        run(&ctx, Hook::ToWire, Back::Nobody, |case| wire::to(case, Layer::Frame))
    }

    #[classifier]
    pub fn to_wire_l3(ctx: TcContext) -> i32 {
        run(&ctx, Hook::ToWire, Back::Nobody, |case| wire::to(case, Layer::Bare))
    }

    #[classifier]
    pub fn from_wire(ctx: TcContext) -> i32 {
        run(&ctx, Hook::FromWire, Back::Nobody, |case| wire::from(case, Layer::Frame))
    }

    #[classifier]
    pub fn from_wire_l3(ctx: TcContext) -> i32 {
        run(&ctx, Hook::FromWire, Back::Nobody, |case| wire::from(case, Layer::Bare))
    }

    #[classifier]
    pub fn into_tunnel(ctx: TcContext) -> i32 {
        run(&ctx, Hook::IntoTunnel, Back::Nobody, into_tunnel::run)
    }

    #[classifier]
    pub fn out_of_tunnel(ctx: TcContext) -> i32 {
        run(&ctx, Hook::OutOfTunnel, Back::Nobody, out_of_tunnel::run)
    }

    #[cgroup_sock_addr(connect4)]
    pub fn connect4(ctx: SockAddrContext) -> i32 {
        allow(&ctx, connect::run(&ctx, Hook::Connect, Version::V4))
    }

    #[cgroup_sock_addr(connect6)]
    pub fn connect6(ctx: SockAddrContext) -> i32 {
        allow(&ctx, connect::run(&ctx, Hook::Connect, Version::V6))
    }

    #[cgroup_sock_addr(sendmsg4)]
    pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
        allow(&ctx, connect::run(&ctx, Hook::Sendmsg, Version::V4))
    }

    #[cgroup_sock_addr(sendmsg6)]
    pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
        allow(&ctx, connect::run(&ctx, Hook::Sendmsg, Version::V6))
    }

    /// Who can be answered from a hook.
    #[derive(Clone, Copy, Eq, PartialEq)]
    enum Back {
        /// The pod behind this veth.
        Pod,
        /// The local stack.
        Stack,
        Nobody,
    }

    const PROCEED: i32 = 1;
    const REFUSE: i32 = 0;

    #[inline(always)]
    fn allow(ctx: &SockAddrContext, refusal: Option<connect::Refusal>) -> i32 {
        match refusal {
            None => PROCEED,
            Some(refusal) => {
                refusal.carry_out(ctx);
                REFUSE
            }
        }
    }

    #[inline(always)]
    fn run(
        ctx: &TcContext,
        hook: Hook,
        back: Back,
        pipeline: impl FnOnce(&mut Case) -> Result<Action, DropReason>,
    ) -> i32 {
        let Some(mut case) = Case::new(Skb::new(ctx), hook) else { return TC_ACT_SHOT };
        let result = pipeline(&mut case);
        finish(ctx, &mut case, result, back)
    }

    /// The action of a classifier.
    #[inline(always)]
    fn finish(ctx: &TcContext, case: &mut Case, result: Result<Action, DropReason>, back: Back) -> i32 {
        match result {
            Ok(Action::Next) => TC_ACT_UNSPEC,
            // SAFETY: redirects have no preconditions in a TC program.
            Ok(Action::Peer(ifindex)) => unsafe { bpf_redirect_peer(ifindex, 0) as i32 },
            // SAFETY: as above.
            Ok(Action::Out(ifindex)) => unsafe { bpf_redirect(ifindex, 0) as i32 },
            Ok(Action::Sent(action)) => action,
            Err(reason) => {
                let reason = Case::forget(reason);
                let told = refuse(ctx, case, reason);
                match reason {
                    DropReason::TunnelDown => error(case, back, reject::Error::HostUnreachable),
                    DropReason::TooBig => error(case, back, reject::Error::TooBig(case.mtu)),
                    DropReason::Revoked => revoked(case, back),
                    // A connection that nobody remembers, of a workload that is not allowed it any longer.
                    DropReason::NoDestination
                    | DropReason::PortNotOffered
                    | DropReason::NoGrant
                    | DropReason::Expired
                        if told && case.packet.is_tcp() =>
                    {
                        reset(case, back)
                    }
                    DropReason::NotParsed
                    | DropReason::LateFragment
                    | DropReason::SourceRouted
                    | DropReason::UnknownWorkload
                    | DropReason::Spoofed
                    | DropReason::NotGuardable
                    | DropReason::NoDestination
                    | DropReason::PortNotOffered
                    | DropReason::NoGrant
                    | DropReason::Expired
                    | DropReason::Pending
                    | DropReason::FlowTableFull
                    | DropReason::QuotaExceeded
                    | DropReason::ClearText
                    | DropReason::ClearSource
                    | DropReason::NoSocket
                    | DropReason::NoFlow
                    | DropReason::NotCarried
                    | DropReason::NoBackend
                    | DropReason::PortsExhausted
                    | DropReason::BackendNotAllowed
                    | DropReason::UnknownNode
                    | DropReason::Internal => TC_ACT_SHOT,
                }
            }
        }
    }

    #[inline(always)]
    fn refuse(ctx: &TcContext, case: &Case, reason: DropReason) -> bool {
        if LOG.load() != 0 {
            debug!(
                ctx,
                "hook {} workload {} port {}: denied, reason {}",
                case.hook as u8,
                case.workload,
                case.packet.destination_port.get(),
                reason as u8
            );
        }
        // Last, so that no function is called while its answer is a constant: see `Case::forget`.
        account::refuse(case, reason)
    }

    #[inline(always)]
    fn error(case: &mut Case, back: Back, error: reject::Error) -> i32 {
        if back == Back::Nobody || reject::error(case.skb, case.packet, error, case.answer).is_err() {
            return TC_ACT_SHOT;
        }
        answer(case, back)
    }

    #[inline(always)]
    fn revoked(case: &mut Case, back: Back) -> i32 {
        if !case.packet.is_tcp() {
            return error(case, back, reject::Error::Prohibited);
        }
        let action = reset(case, back);
        if action != TC_ACT_SHOT {
            account::tell(case, EventKind::Reset, DropReason::Revoked as u8);
        }
        action
    }

    #[inline(always)]
    fn reset(case: &mut Case, back: Back) -> i32 {
        if back == Back::Nobody || reject::reset(case.skb, case.packet, case.answer).is_err() {
            return TC_ACT_SHOT;
        }
        answer(case, back)
    }

    /// Sends what the packet has become to where the packet came from.
    #[inline(always)]
    fn answer(case: &Case, back: Back) -> i32 {
        const PACKET_HOST: u32 = 0;
        // SAFETY: has no preconditions; where it fails the type is right already.
        unsafe { bpf_skb_change_type(case.skb.raw(), PACKET_HOST) };
        match back {
            // SAFETY: redirects have no preconditions in a TC program.
            Back::Pod => unsafe { bpf_redirect_peer(case.skb.ifindex(), 0) as i32 },
            // SAFETY: as above.
            Back::Stack => unsafe { bpf_redirect(case.skb.ifindex(), BPF_F_INGRESS.into()) as i32 },
            Back::Nobody => TC_ACT_SHOT,
        }
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    #[unsafe(no_mangle)]
    #[unsafe(link_section = "license")]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}
