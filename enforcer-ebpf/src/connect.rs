//! The connect and sendmsg hooks: a process that may not is told at once, with an event that names it.
//!
//! guard → identify → decide. The wire decides again: what is unknown or pending passes here. *translate* (Services)
//! will stand before the guard.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock_addr,
    helpers::{bpf_get_netns_cookie, bpf_set_retval},
    programs::SockAddrContext,
};
use enforcer_common::{
    Addr, Port,
    event::{Event, EventKind, Hook},
    flow::FlowKey,
    grant::Grant,
    verdict::{DropReason, Verdict},
    workload::{NOT_GUARDABLE, Workload},
};

use crate::{
    account,
    case::{guarded, now},
    decide::{self, Way},
    identify,
    packet::{TCP, UDP, Version},
};

/// A call to a guarded address that is refused.
pub struct Refusal {
    reason: DropReason,
    hook: Hook,
    destination: Addr,
    netns: u64,
    workload: u32,
    connection: u32,
    port: Port,
    protocol: u8,
}

const MPTCP: u32 = 262;
/// Generic Linux; architectures that differ are not supported.
const EHOSTUNREACH: i32 = 113;

/// Decides on a call. `None`: it goes on.
#[inline(always)]
pub fn run(ctx: &SockAddrContext, hook: Hook, version: Version) -> Option<Refusal> {
    let call = ctx.sock_addr;
    let destination = destination(call, version);
    if !guarded(&destination) {
        return None;
    }
    let protocol = protocol(call);
    // SAFETY: the context is the running program's.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let workload = identify::by_process(netns)?;
    // SAFETY: the context of a running program is readable; the verifier admits this field. A port fills the low half.
    let port = Port::from_network(unsafe { (*call).user_port } as u16);
    // Resolvers probe with it, and no packet leaves: only pods whose packets no hook sees are refused.
    let probes = hook == Hook::Connect && protocol == UDP;
    if probes && workload.flags & NOT_GUARDABLE == 0 {
        return None;
    }
    let (reason, grant) = judge(workload, &destination, port, protocol)?;
    let connection = grant.map_or(0, |grant| grant.connection);
    Some(Refusal { reason, hook, destination, netns, workload: workload.id, connection, port, protocol })
}

#[inline(always)]
fn judge(
    workload: &Workload,
    destination: &Addr,
    port: Port,
    protocol: u8,
) -> Option<(DropReason, Option<&'static Grant>)> {
    let flow = FlowKey::new(Addr::NONE, Port::NONE, *destination, port, protocol);
    let (key, grant) = decide::grant(workload.id, &flow);
    let Some(grant) = grant else {
        return match decide::ungranted(workload, &key) {
            Verdict::Deny(reason) => Some((reason, None)),
            Verdict::Pass | Verdict::Allow => None,
        };
    };
    let now_ns = now();
    let gateways = grant.gateways;
    let way = Way {
        acknowledged: gateways != 0,
        // The packet that follows is the probe, so that it must not be used up here.
        answering: decide::answering_of(gateways, now_ns) != 0
            || gateways != 0 && decide::may_probe(gateways.trailing_zeros(), now_ns),
    };
    match decide::granted(workload, grant, way, now_ns) {
        // The wire drops what is pending; a retransmission finds the grant live.
        Verdict::Pass | Verdict::Allow | Verdict::Deny(DropReason::Pending) => None,
        Verdict::Deny(reason) => Some((reason, Some(grant))),
    }
}

impl Refusal {
    /// Counts the refusal, tells user space, and sets the error that the caller gets if it is not `EPERM`.
    #[inline(always)]
    pub fn carry_out(&self, ctx: &SockAddrContext) {
        account::count(self.reason as u32);
        self.tell(ctx);
        if self.reason == DropReason::TunnelDown {
            // SAFETY: has no preconditions in this kind of program.
            unsafe { bpf_set_retval(-EHOSTUNREACH) };
        }
    }

    #[inline(always)]
    fn tell(&self, ctx: &SockAddrContext) {
        account::send(|event| {
            *event = Event {
                time_ns: now(),
                netns: self.netns,
                cgroup: identify::current_cgroup(),
                source: Addr::NONE,
                destination: self.destination,
                ifindex: 0,
                pid: ctx.tgid(),
                workload: self.workload,
                connection: self.connection,
                source_port: Port::NONE,
                destination_port: self.port,
                protocol: self.protocol,
                kind: EventKind::Denied as u8,
                hook: self.hook as u8,
                reason: self.reason as u8,
                comm: account::comm(),
            };
        });
    }
}

#[inline(always)]
fn destination(call: *const bpf_sock_addr, version: Version) -> Addr {
    // SAFETY: the context of a running program is readable; the verifier admits word-sized reads of these fields.
    unsafe {
        match version {
            Version::V4 => Addr::from_v4_word((*call).user_ip4),
            Version::V6 => Addr::from_words([
                (&raw const (*call).user_ip6[0]).read_volatile(),
                (&raw const (*call).user_ip6[1]).read_volatile(),
                (&raw const (*call).user_ip6[2]).read_volatile(),
                (&raw const (*call).user_ip6[3]).read_volatile(),
            ]),
        }
    }
}

/// Protocol on the wire: multipath TCP is TCP there.
#[inline(always)]
fn protocol(call: *const bpf_sock_addr) -> u8 {
    // SAFETY: as in `destination`.
    match unsafe { (*call).protocol } {
        MPTCP => TCP,
        protocol => protocol as u8,
    }
}
