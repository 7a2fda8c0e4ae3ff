//! Flows: room for them, and the states they go through. The node's and the gateway's tables share all of it.
//!
//! No live flow is ever evicted. Whoever inserts takes the next slot of a ring that remembers the order in which
//! flows were made, and may use it if the flow it names is over.

use core::marker::PhantomData;

use enforcer_common::{
    flow::{ACK_CLIENT, ACK_SERVER, DOUBT_IN, DOUBT_OUT, FlowKey, FlowState, FragmentKey, FragmentPorts, expired},
    verdict::DropReason,
};

use crate::{
    account::Direction,
    atomic,
    maps::{FLOW_CAPACITY, FLOW_COUNTS, FLOW_CURSOR, FLOW_RING, FRAGMENTS},
    packet::{Fragment, Packet, Version, l4},
    steps::{Steps, repeat},
};

/// What the ring must know of a flow.
pub struct Life {
    pub state: u8,
    pub seen_ns: u64,
    /// Whose quota it counts against.
    pub owner: u32,
}

/// A flow table.
pub trait Table {
    fn life(key: &FlowKey) -> Option<Life>;
    /// Whether it was there, and so is this CPU's to uncount: two may see the same flow over.
    fn remove(key: &FlowKey) -> bool;
}

/// Slots that an insert looks at.
const LOOK: u32 = 8;
/// Slots that are looked at before an owner is told that it has all it may have: its own flows may be over.
const SWEEP: u32 = 32;

/// Makes room for a new flow `key` of `owner`, who may have `quota` of them. The caller inserts it next.
///
/// # Errors
/// [`DropReason::FlowTableFull`] or [`DropReason::QuotaExceeded`].
#[inline(always)]
pub fn reserve<T: Table>(key: &FlowKey, owner: u32, quota: u32, now_ns: u64) -> Result<(), DropReason> {
    if owned(owner) >= quota {
        repeat(SWEEP, &mut Sweep::<T> { now_ns, table: PhantomData });
        if owned(owner) >= quota {
            return Err(DropReason::QuotaExceeded);
        }
    }
    let mut search = Search::<T> { key, now_ns, found: false, table: PhantomData };
    repeat(LOOK, &mut search);
    if search.found { own(owner) } else { Err(DropReason::FlowTableFull) }
}

/// Removes flows that are over.
struct Sweep<T> {
    now_ns: u64,
    table: PhantomData<T>,
}

impl<T: Table> Steps for Sweep<T> {
    #[inline(always)]
    fn step(&mut self) -> bool {
        if let Some(slot) = FLOW_RING.get_ptr_mut(next_slot()) {
            // SAFETY: the ring is an array, whose slots exist for ever. A key that is being written names no flow yet.
            reclaim::<T>(unsafe { &*slot }, self.now_ns);
        }
        true
    }
}

/// Looks for a slot whose flow is over, and gives it to the key.
struct Search<'a, T> {
    key: &'a FlowKey,
    now_ns: u64,
    found: bool,
    table: PhantomData<T>,
}

impl<T: Table> Steps for Search<'_, T> {
    #[inline(always)]
    fn step(&mut self) -> bool {
        let Some(slot) = FLOW_RING.get_ptr_mut(next_slot()) else { return true };
        // SAFETY: as in `Sweep`.
        if reclaim::<T>(unsafe { &*slot }, self.now_ns) {
            // SAFETY: as in `Sweep`; the cursor gave this slot to no other CPU.
            unsafe { *slot = *self.key };
            self.found = true;
        }
        !self.found
    }
}

/// Whether a slot is free, after the flow it names was removed if it is over.
#[inline(always)]
fn reclaim<T: Table>(key: &FlowKey, now_ns: u64) -> bool {
    // A copy, because the slot may be written while the helpers read the key.
    let key = *key;
    let Some(life) = T::life(&key) else { return true };
    if !expired(life.state, life.seen_ns, now_ns) {
        return false;
    }
    if T::remove(&key) {
        disown(life.owner);
    }
    true
}

#[inline(always)]
fn next_slot() -> u32 {
    let Some(cursor) = FLOW_CURSOR.get_ptr_mut(0) else { return 0 };
    // SAFETY: an aligned word of an array map, touched by nothing but this atomic addition.
    let turn = unsafe { atomic::fetch_add(cursor, 1) };
    (turn % u64::from(FLOW_CAPACITY.load().max(1))) as u32
}

#[inline(always)]
fn owned(owner: u32) -> u32 {
    // SAFETY: the value is a word; what another CPU does to it at the same time changes the answer by one flow.
    unsafe { FLOW_COUNTS.get(owner) }.copied().unwrap_or(0)
}

/// Counts a flow for its owner.
///
/// # Errors
/// [`DropReason::FlowTableFull`] where there is no room for another owner.
#[inline(always)]
pub fn own(owner: u32) -> Result<(), DropReason> {
    if let Some(count) = FLOW_COUNTS.get_ptr_mut(owner) {
        // SAFETY: an aligned word of a map that is never removed by the kernel, touched atomically.
        unsafe { atomic::add(count, 1) };
        return Ok(());
    }
    FLOW_COUNTS.insert(owner, 1, 0).map_err(|_| DropReason::FlowTableFull)
}

/// The flow of an owner is gone, or another's.
#[inline(always)]
pub fn disown(owner: u32) {
    if let Some(count) = FLOW_COUNTS.get_ptr_mut(owner) {
        // The agent may have forgotten the count in between; zero is where counting ends.
        // SAFETY: as in `own`.
        if unsafe { *count } > 0 {
            // SAFETY: as in `own`.
            unsafe { atomic::add(count, -1) };
        }
    }
}

/// State of a flow that begins with this packet. A mid-flow packet continues one that was forgotten.
#[inline(always)]
pub fn first_state(packet: &Packet) -> FlowState {
    if !packet.is_tcp() {
        FlowState::Udp
    } else if packet.is_syn() {
        FlowState::HalfOpen
    } else if packet.flags & (l4::FIN | l4::RST) != 0 {
        FlowState::Closing
    } else {
        FlowState::Established
    }
}

/// What packets leave behind in a flow of either table.
pub struct Trace<'a> {
    pub state: &'a mut u8,
    pub client_ack: &'a mut u32,
    pub server_ack: &'a mut u32,
    pub seen_acks: &'a mut u8,
}

/// Most bytes that a sender has on the way: Linux' own limit of a receive buffer (6 MiB), and room.
const IN_FLIGHT: u32 = 8 << 20;

impl Trace<'_> {
    /// Brings the flow up to date with a packet that passes. A flow that is being revoked stays so.
    #[inline(always)]
    pub fn follow(&mut self, packet: &Packet, direction: Direction) {
        if !packet.is_tcp() || packet.fragment == Fragment::Later {
            return;
        }
        if *self.state != FlowState::Revoking as u8 {
            self.step(packet, direction);
        }
        self.remember_ack(packet, direction);
    }

    #[inline(always)]
    fn step(&mut self, packet: &Packet, direction: Direction) {
        let (closing, established) = (FlowState::Closing as u8, FlowState::Established as u8);
        let (doubt, answer) = match direction {
            Direction::Out => (DOUBT_OUT, DOUBT_IN),
            Direction::In => (DOUBT_IN, DOUBT_OUT),
        };
        if packet.flags & (l4::FIN | l4::RST) != 0 {
            // Who is not on the way of the packets does not know the number. It has no say: its receiver would not
            // believe it either.
            let ahead = self.ahead(packet, direction);
            if ahead == 0 {
                *self.seen_acks &= !(DOUBT_OUT | DOUBT_IN);
                *self.state = closing;
            } else if ahead < IN_FLIGHT && *self.state != closing {
                if packet.flags & l4::RST != 0 {
                    *self.seen_acks |= doubt;
                }
                *self.state = closing;
            }
        } else if packet.flags & l4::ACK != 0 {
            if *self.seen_acks & answer != 0 {
                // The receiver of that reset goes on: it knew better (RFC 5961). One that does not is silent, or what it
                // had on the way is answered with an exact reset.
                *self.seen_acks &= !answer;
                *self.state = established;
            } else if *self.state == FlowState::HalfOpen as u8
                // The client's first packet has no ACK; the server's first has, and so the handshake is past its half.
                && (direction == Direction::In || packet.flags & l4::SYN == 0)
            {
                *self.state = established;
            }
        }
    }

    /// How far the packet lies behind what its receiver has acknowledged; 0 also where that is not known.
    #[inline(always)]
    fn ahead(&self, packet: &Packet, direction: Direction) -> u32 {
        let (expected, known) = match direction {
            Direction::Out => (*self.server_ack, ACK_SERVER),
            Direction::In => (*self.client_ack, ACK_CLIENT),
        };
        if *self.seen_acks & known == 0 { 0 } else { packet.sequence.wrapping_sub(expected) }
    }

    /// Remembers the acknowledgement number that an exact reset needs.
    #[inline(always)]
    fn remember_ack(&mut self, packet: &Packet, direction: Direction) {
        if packet.flags & l4::ACK == 0 {
            return;
        }
        let (last, known) = match direction {
            Direction::Out => (&mut *self.client_ack, ACK_CLIENT),
            Direction::In => (&mut *self.server_ack, ACK_SERVER),
        };
        // A reader's acknowledgements come from two CPUs, its own and the network's, and overtake each other. A reset with
        // the number of the one that came late would be older than what its receiver has said: ignored without a word.
        let late = last.wrapping_sub(packet.acknowledgement);
        if *self.seen_acks & known == 0 || late == 0 || late > IN_FLIGHT {
            *last = packet.acknowledgement;
            *self.seen_acks |= known;
        }
    }
}

/// Gives a later fragment the ports of its datagram's first one.
///
/// # Errors
/// [`DropReason::LateFragment`] where no first fragment was allowed.
#[inline(always)]
pub fn fragment(packet: &mut Packet, ifindex: u32) -> Result<(), DropReason> {
    if packet.fragment == Fragment::Later { later(packet, ifindex) } else { Ok(()) }
}

/// Opens the way for the later fragments of a datagram whose first one is allowed. Called after the verdict, or who may
/// not send could fill the table for those who may.
///
/// # Errors
/// [`DropReason::Internal`] where a helper fails.
#[inline(always)]
pub fn first(packet: &Packet, ifindex: u32) -> Result<(), DropReason> {
    if packet.fragment == Fragment::First { remember(packet, ifindex) } else { Ok(()) }
}

#[inline(always)]
fn datagram(packet: &Packet, ifindex: u32) -> FragmentKey {
    FragmentKey {
        source: packet.source,
        destination: packet.destination,
        id: packet.fragment_id,
        ifindex,
        // IPv6 tells datagrams apart by addresses and identification alone (RFC 8200).
        protocol: match packet.version {
            Version::V4 => packet.protocol,
            Version::V6 => 0,
        },
        pad: [0; 7],
    }
}

#[inline(never)]
fn remember(packet: &Packet, ifindex: u32) -> Result<(), DropReason> {
    let ports = FragmentPorts { source: packet.source_port, destination: packet.destination_port };
    FRAGMENTS.insert(datagram(packet, ifindex), ports, 0).map_err(|_| DropReason::Internal)
}

#[inline(never)]
fn later(packet: &mut Packet, ifindex: u32) -> Result<(), DropReason> {
    let key = datagram(packet, ifindex);
    // SAFETY: two half-words that are written once; an entry that is reused meanwhile gives ports of another
    // datagram, whose flow must exist all the same.
    let ports = unsafe { FRAGMENTS.get(key) }.ok_or(DropReason::LateFragment)?;
    packet.source_port = ports.source;
    packet.destination_port = ports.destination;
    Ok(())
}
