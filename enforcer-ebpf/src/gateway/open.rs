//! A new flow: backend, source port, room for it.

use aya_ebpf::{bindings::BPF_NOEXIST, maps::lpm_trie::Key};
use enforcer_common::{
    Addr, Port,
    flow::{FlowKey, FlowState},
    gateway::{GwBackend, GwBackendKey, GwFlow, GwServiceKey, GwSource},
    verdict::DropReason,
};

use super::{
    maps::{GW_ALLOWED, GW_BACKENDS, GW_FLOWS, GW_NAT, GW_SERVICES, Scratch},
    port,
    track::{self, Flows},
};
use crate::{
    flow::{self, Table as _},
    packet::TCP,
};

/// Makes the flow of a first packet: its key is the one in the scratch.
///
/// # Errors
/// [`DropReason::NoBackend`], [`DropReason::BackendNotAllowed`], [`DropReason::QuotaExceeded`],
/// [`DropReason::FlowTableFull`] or [`DropReason::PortsExhausted`]; then there is no trace of it.
#[inline(never)]
pub fn open(scratch: &mut Scratch, owner: GwSource, connection: u32, now_ns: u64) -> Result<(), DropReason> {
    describe(scratch, owner.node, connection, now_ns)?;
    reserve(&scratch.key, owner.node, owner.flow_quota, now_ns)?;
    let made = insert(scratch, now_ns);
    if made.is_ok() {
        return made;
    }
    flow::disown(owner.node);
    // Another CPU may have begun it with the packet beside this one.
    if Flows::life(&scratch.key).is_some() { Ok(()) } else { made }
}

/// Room for the flow. One with the same key that is over leaves its own, slot in the ring and count: with a slot for
/// each of its lives, a client that connects from one port again and again would fill the ring for everybody.
#[inline(never)]
fn reserve(key: &FlowKey, owner: u32, quota: u32, now_ns: u64) -> Result<(), DropReason> {
    if Flows::life(key).is_some_and(|life| life.owner == owner) && Flows::remove(key) {
        return Ok(());
    }
    track::end(key);
    flow::reserve::<Flows>(key, owner, quota, now_ns)
}

/// Chooses the backend and writes the flow to the scratch; its source port is the workload's own until another was
/// found.
#[inline(never)]
fn describe(scratch: &mut Scratch, node: u32, connection: u32, now_ns: u64) -> Result<(), DropReason> {
    let key = &scratch.key;
    scratch.hash = hash(key);
    let backend = choose(key, scratch.hash)?;
    if !allowed(&backend.address, backend.port, key.protocol) {
        return Err(DropReason::BackendNotAllowed);
    }
    scratch.flow = GwFlow {
        backend: backend.address,
        source: if backend.source.is_none() { key.client } else { backend.source },
        next_hop: backend.next_hop,
        seen_ns: now_ns,
        ifindex: backend.ifindex,
        mtu: backend.mtu,
        node,
        connection,
        client_ack: 0,
        backend_ack: 0,
        backend_port: backend.port,
        source_port: key.client_port,
        state: if key.protocol == TCP { FlowState::HalfOpen } else { FlowState::Udp } as u8,
        seen_acks: 0,
        pad: [0; 2],
    };
    scratch.translation = track::translation(&scratch.flow, key.protocol);
    Ok(())
}

#[expect(clippy::needless_borrows_for_generic_args, reason = "by value they would be copied to the stack")]
#[inline(never)]
fn insert(scratch: &mut Scratch, now_ns: u64) -> Result<(), DropReason> {
    if scratch.flow.source == scratch.key.client {
        port::preserve(scratch, now_ns)?;
    } else {
        port::masquerade(scratch.hash, now_ns)?;
        scratch.flow.source_port = scratch.translation.source_port;
    }
    if GW_FLOWS.insert(&scratch.key, &scratch.flow, BPF_NOEXIST.into()).is_err() {
        let _ = GW_NAT.remove(&scratch.translation);
        return Err(DropReason::FlowTableFull);
    }
    Ok(())
}

/// The backend of a new flow: all packets of one flow choose the same while the set stays.
#[inline(always)]
fn choose(key: &FlowKey, hash: u32) -> Result<&'static GwBackend, DropReason> {
    let service =
        GwServiceKey { service: key.service, port: key.service_port, protocol: key.protocol, pad: [0; 5] };
    let service = GW_SERVICES.get_ptr(service).ok_or(DropReason::NoBackend)?;
    // SAFETY: a value of the map; it is replaced as a whole, and a member that is missing is no backend.
    let (set, count) = unsafe { ((*service).set, (*service).count) };
    if count == 0 {
        return Err(DropReason::NoBackend);
    }
    let backend =
        GW_BACKENDS.get_ptr(GwBackendKey { set, index: hash % count }).ok_or(DropReason::NoBackend)?;
    // SAFETY: as above.
    Ok(unsafe { &*backend })
}

/// Whether an administrator allows this backend.
#[inline(always)]
fn allowed(address: &Addr, port: Port, protocol: u8) -> bool {
    let key = Key::new(128, *address);
    GW_ALLOWED.get(&key).is_some_and(|allowed| allowed.admits(port.get(), protocol))
}

/// Why a live flow may not go on, its grant aside: an administrator took its backend from what is allowed.
#[inline(never)]
pub fn withdrawn(flow: *mut GwFlow, protocol: u8) -> Option<DropReason> {
    // SAFETY: a value of the map.
    let flow = unsafe { &*flow };
    if allowed(&flow.backend, flow.backend_port, protocol) {
        None
    } else {
        Some(DropReason::BackendNotAllowed)
    }
}

/// Spreads flows over backends and ports: FNV-1a over the words of the key, and a last mix, because neighbouring
/// ports differ in few bits.
#[inline(always)]
fn hash(key: &FlowKey) -> u32 {
    let (client, service) = (key.client.words(), key.service.words());
    let ports = u32::from(key.client_port.network()) << 16 | u32::from(key.service_port.network());
    let mut hash = 0x811c_9dc5_u32;
    for word in [
        client[0],
        client[1],
        client[2],
        client[3],
        service[0],
        service[1],
        service[2],
        service[3],
        ports,
        key.protocol.into(),
    ] {
        hash = (hash ^ word).wrapping_mul(0x0100_0193);
        hash ^= hash >> 15;
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^ hash >> 16
}
