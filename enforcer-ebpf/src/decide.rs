//! From maps to the facts that the ladder in `enforcer_common::verdict` wants, and which tunnel to take.

#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a map takes keys and values by reference too; by value they are copied to a stack that has no room"
)]

use enforcer_common::{
    Port,
    config::{PROBE_NS, SILENCE_NS},
    flow::FlowKey,
    grant::{DestinationKey, Grant, GrantKey, MAX_TUNNELS},
    verdict::{self, Facts, GrantFacts, Verdict},
    workload::{NOT_GUARDABLE, Workload},
};

use crate::{
    atomic,
    maps::{DESTINATIONS, GRANTS, TUNNEL_SEEN},
    steps::{Steps, opaque, repeat, unknown_zero},
};

#[inline(always)]
/// The grant that covers a workload's flow.
pub fn grant(workload: u32, flow: &FlowKey) -> (GrantKey, Option<&'static Grant>) {
    let key = GrantKey::new(flow.service, workload, flow.service_port, flow.protocol);
    // SAFETY: the entry is replaced as a whole, and memory of a removed one stays a grant until the program ends.
    let grant = unsafe { GRANTS.get(key) };
    (key, grant)
}

/// How the tunnels stand for a packet or call.
#[derive(Clone, Copy)]
pub struct Way {
    pub acknowledged: bool,
    pub answering: bool,
}

/// The verdict on a guarded destination that is granted.
#[inline(always)]
pub fn granted(workload: &Workload, grant: &Grant, way: Way, now_ns: u64) -> Verdict {
    let facts = Facts {
        guarded: true,
        not_guardable: workload.flags & NOT_GUARDABLE != 0,
        workload_known: true,
        destination_known: true,
        port_offered: true,
        grant: Some(GrantFacts {
            valid_until_ns: grant.valid_until_ns,
            acknowledged: way.acknowledged,
            answering: way.answering,
        }),
    };
    verdict::decide(&facts, now_ns)
}

/// The verdict on a guarded destination that is not granted. No clock has a say in it, and what is offered only tells
/// denials apart.
#[inline(always)]
pub fn ungranted(workload: &Workload, key: &GrantKey) -> Verdict {
    let (destination_known, port_offered) = offered(key);
    let facts = Facts {
        guarded: true,
        not_guardable: workload.flags & NOT_GUARDABLE != 0,
        workload_known: true,
        destination_known,
        port_offered,
        grant: None,
    };
    verdict::decide(&facts, 0)
}

/// Whether a destination has the address, and whether it offers the port.
#[inline(always)]
fn offered(key: &GrantKey) -> (bool, bool) {
    let mut entry = DestinationKey::new(key.service, key.port, key.protocol);
    if DESTINATIONS.get_ptr(&entry).is_some() {
        return (true, true);
    }
    entry = DestinationKey::new(key.service, Port::NONE, 0);
    (DESTINATIONS.get_ptr(&entry).is_some(), false)
}

/// Whether the tunnel in a slot has been heard lately. One that never was counts as heard when the machine started.
#[inline(always)]
pub fn answering(slot: u32, now_ns: u64) -> bool {
    // Another CPU may have stamped it after this one read the clock.
    TUNNEL_SEEN.get(slot).is_some_and(|seen| now_ns.saturating_sub(seen.seen_ns) <= SILENCE_NS)
}

/// Those of some tunnels (bits are slots) that are answering.
#[inline(always)]
pub fn answering_of(gateways: u64, now_ns: u64) -> u64 {
    if gateways == 0 { 0 } else { search(gateways, now_ns) }
}

#[inline(never)]
fn search(gateways: u64, now_ns: u64) -> u64 {
    let mut search = Search { left: gateways, slot: 0, now_ns, found: unknown_zero(now_ns) };
    repeat(MAX_TUNNELS, &mut search);
    search.found
}

struct Search {
    /// Tunnels from `slot` on.
    left: u64,
    slot: u32,
    now_ns: u64,
    found: u64,
}

impl Steps for Search {
    #[inline(always)]
    fn step(&mut self) -> bool {
        if let Some(seen) = TUNNEL_SEEN.get(self.slot) {
            // Sums instead of branches, so that the verifier sees one unknown bit and not two known ways.
            let age = opaque(self.now_ns.saturating_sub(seen.seen_ns));
            let heard = opaque(age.wrapping_sub(SILENCE_NS + 1)) >> 63;
            self.found |= (opaque(self.left) & heard & 1) << (self.slot & 63);
        }
        self.left >>= 1;
        self.slot += 1;
        self.left != 0
    }
}

/// One of some tunnels, the same for the same flow. `slots` is not 0.
#[inline(never)]
pub fn choose(slots: u64, key: &FlowKey, now_ns: u64) -> u32 {
    let turn = hash(key) % slots.count_ones().max(1);
    let mut choice = Choice { left: slots, slot: unknown_zero(now_ns) as u32, turn };
    repeat(MAX_TUNNELS, &mut choice);
    choice.slot
}

struct Choice {
    /// Tunnels from `slot` on.
    left: u64,
    slot: u32,
    /// Tunnels to skip.
    turn: u32,
}

impl Steps for Choice {
    #[inline(always)]
    fn step(&mut self) -> bool {
        if self.left & 1 == 1 {
            if self.turn == 0 {
                return false;
            }
            self.turn -= 1;
        }
        self.left >>= 1;
        self.slot += 1;
        true
    }
}

/// Whether a silent tunnel may have a packet now, to find out whether it still is. One a second.
#[inline(always)]
pub fn may_probe(slot: u32, now_ns: u64) -> bool {
    TUNNEL_SEEN.get(slot).is_some_and(|seen| now_ns.saturating_sub(seen.probe_ns) >= PROBE_NS)
}

/// Takes the probe of this second, on one CPU.
#[inline(always)]
pub fn probe(slot: u32, now_ns: u64) -> bool {
    let Some(seen) = TUNNEL_SEEN.get_ptr_mut(slot) else { return false };
    // SAFETY: slots of an array exist for ever.
    let word = unsafe { &raw mut (*seen).probe_ns };
    // SAFETY: an aligned word of the slot.
    let before = unsafe { word.read_volatile() };
    if now_ns.saturating_sub(before) < PROBE_NS {
        return false;
    }
    // SAFETY: a word of a map value.
    unsafe { atomic::replace(word, before, now_ns) }
}

/// Hash of a flow, for spreading only.
#[inline(always)]
fn hash(key: &FlowKey) -> u32 {
    let mut hash = u32::from(key.client_port.network()) << 16 | u32::from(key.service_port.network());
    let (client, service) = (key.client.words(), key.service.words());
    // One array: as a chain of two it becomes a loop that verifiers before 6.2 refuse.
    for word in [client[0], client[1], client[2], client[3], service[0], service[1], service[2], service[3]] {
        hash = (hash ^ word).wrapping_mul(0x9e37_79b1);
        hash ^= hash >> 15;
    }
    hash
}
