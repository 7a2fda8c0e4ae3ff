//! Source ports towards a backend: who owns which is decided by one insert into `GW_NAT`.

use core::ffi::c_void;

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_loop};
use enforcer_common::{
    Port,
    flow::FlowKey,
    gateway::{MASQUERADE_FIRST, MASQUERADE_LAST, NatKey},
    verdict::DropReason,
};

use super::{
    maps::{self, GW_NAT, Scratch},
    track,
};

/// Ports of the range: each is tried once, so that the last free one is found.
const PORTS: u32 = (MASQUERADE_LAST - MASQUERADE_FIRST) as u32 + 1;

/// State of one search. On the stack, because the kernel passes nothing else to the callback; the rest is in the
/// scratch.
struct Search {
    now_ns: u64,
    start: u32,
    found: u32,
}

/// Takes a free port of the masquerade range for the flow in the scratch, and writes it to the translation there.
///
/// The search starts where the flow's hash points: neighbours in time do not meet.
///
/// # Errors
/// [`DropReason::PortsExhausted`] after every port was tried.
#[inline(always)]
pub fn masquerade(hash: u32, now_ns: u64) -> Result<(), DropReason> {
    let mut search = Search { now_ns, start: hash % PORTS, found: 0 };
    // SAFETY: the callback has the signature that the helper wants, and `search` outlives the call.
    unsafe {
        bpf_loop(PORTS, try_port as *mut c_void, (&raw mut search).cast(), 0);
    }
    if search.found == 0 { Err(DropReason::PortsExhausted) } else { Ok(()) }
}

/// Takes the port that the workload itself uses: there is no other.
///
/// # Errors
/// [`DropReason::PortsExhausted`] where another flow has it.
#[inline(always)]
pub fn preserve(scratch: &Scratch, now_ns: u64) -> Result<(), DropReason> {
    if take(&scratch.translation, &scratch.key, now_ns) { Ok(()) } else { Err(DropReason::PortsExhausted) }
}

/// One step of the search: 0 goes on, 1 ends it.
extern "C" fn try_port(index: u64, search: *mut c_void) -> i64 {
    let Ok(scratch) = maps::scratch() else { return 1 };
    // SAFETY: the kernel hands back the pointer that `masquerade` gave it.
    let search = unsafe { &mut *search.cast::<Search>() };
    let port = MASQUERADE_FIRST + ((search.start + index as u32) % PORTS) as u16;
    scratch.translation.source_port = Port::new(port);
    if take(&scratch.translation, &scratch.key, search.now_ns) {
        search.found = 1;
        return 1;
    }
    0
}

/// Whether the translation now belongs to this flow. One whose flow is over is taken from it.
#[inline(always)]
fn take(key: &NatKey, flow: &FlowKey, now_ns: u64) -> bool {
    if GW_NAT.insert(key, flow, u64::from(BPF_NOEXIST)).is_ok() {
        return true;
    }
    let Some(holder) = GW_NAT.get_ptr(key) else { return false };
    // SAFETY: a value of the map, copied because an entry that is taken over changes.
    let holder = unsafe { *holder };
    if track::live(&holder, now_ns).is_some() {
        return false;
    }
    track::end(&holder);
    // Its flow may have had another translation by then.
    let _ = GW_NAT.remove(key);
    GW_NAT.insert(key, flow, u64::from(BPF_NOEXIST)).is_ok()
}
