//! Flows: backends, source ports, room, and their end.

use std::collections::BTreeSet;

use enforcer_common::{
    Port,
    flow::{FlowKey, FlowState, SECOND},
    gateway::{MASQUERADE_FIRST, MASQUERADE_LAST, NatKey},
    maps::{counter, name},
};
use enforcer_tests::prog::{
    Action,
    wire::{self, ACK, FIN, RST, SYN, TCP, UDP, Wire},
};

use crate::world::{
    CLIENT_PORT, Family, NODE, TCP_PORT, TCP_TARGET, UDP_TARGET, V4, V6, World, addr, backend,
};

/// A SYN of the workload from another port, and the key of its flow.
fn another(family: &Family, port: u16) -> (Wire, FlowKey) {
    let syn = wire::tcp(&Family::at(family.client, port), &Family::at(family.service, TCP_PORT), SYN);
    let key = FlowKey { client_port: Port::new(port), ..family.flow(TCP) };
    (syn, key)
}

fn translation(family: &Family, port: u16, protocol: u8) -> NatKey {
    NatKey {
        backend: addr(family.backend),
        source: addr(family.source),
        backend_port: Port::new(if protocol == TCP { TCP_TARGET } else { UDP_TARGET }),
        source_port: Port::new(port),
        protocol,
        pad: [0; 3],
    }
}

#[test]
fn no_two_flows_share_a_source_port() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        let mut ports = BTreeSet::new();
        for client_port in 1000..1090 {
            let (syn, key) = another(family, client_port);
            world.forwarded(&syn);
            assert!(ports.insert(world.port(&key)), "port of {client_port}");
        }
        assert_eq!(world.programs.counter(counter::ALLOWED), 90, "each of them is counted");
        let all: BTreeSet<_> = (MASQUERADE_FIRST..=MASQUERADE_LAST).collect();
        assert!(ports.is_subset(&all));
    }
}

/// Fills every port of the range but `spared` with translations of live flows of somebody else.
fn crowd(world: &mut World, family: &Family, spared: &[u16]) -> FlowKey {
    let (_, holder) = another(family, 1);
    world.forwarded(&another(family, 1).0);
    let held = world.port(&holder);
    for port in (MASQUERADE_FIRST..=MASQUERADE_LAST).filter(|port| *port != held) {
        let mut translations = world.programs.hash::<NatKey, FlowKey>(name::GW_NAT);
        if spared.contains(&port) {
            let _ = translations.remove(&translation(family, port, TCP));
        } else {
            translations.insert(translation(family, port, TCP), holder, 0).expect("room");
        }
    }
    holder
}

#[test]
fn the_last_free_port_is_found_and_then_there_is_none() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        let (_, holder) = another(family, 1);
        world.forwarded(&another(family, 1).0);
        let spared = if world.port(&holder) == 63_333 { 63_334 } else { 63_333 };
        crowd(&mut world, family, &[spared]);
        let (syn, key) = another(family, 2);
        world.forwarded(&syn);
        assert_eq!(world.port(&key), spared);
        let (syn, key) = another(family, 3);
        assert_eq!(world.out(&syn).action, Action::Drop);
        assert_eq!(world.programs.refusals(), [("PortsExhausted", 1)]);
        assert_eq!(world.flow(&key), None, "nothing is left behind");
        let count = world.programs.hash::<u32, u32>(name::FLOW_COUNTS).get(&NODE, 0).expect("a count");
        assert_eq!(count, 2, "and nothing is charged");
        world.out(&another(family, 2).0);
        assert_eq!(world.programs.refusals(), [("PortsExhausted", 1)], "old flows go on");
    }
}

#[test]
fn the_port_of_a_flow_that_is_over_is_taken_again() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        let holder = crowd(&mut world, family, &[]);
        world.age(&holder, 31 * SECOND);
        let (syn, key) = another(family, 2);
        world.forwarded(&syn);
        assert_ne!(world.port(&key), 0);
        assert_eq!(world.flow(&holder), None);
    }
}

#[test]
fn preserve_refuses_a_port_that_is_taken() {
    let mut world = World::new();
    world.serve(&V4, TCP, 60, &[backend(&V4, TCP, false)]);
    let mut taken = translation(&V4, CLIENT_PORT, TCP);
    taken.source = addr(V4.client);
    let (syn, holder) = another(&V4, 1);
    world.forwarded(&syn);
    world.programs.hash(name::GW_NAT).insert(taken, holder, 0).expect("room");
    assert_eq!(world.out(&V4.segment(SYN)).action, Action::Drop);
    assert_eq!(world.programs.refusals(), [("PortsExhausted", 1)]);
}

#[test]
fn new_flows_are_spread_and_old_ones_stay_where_they_are() {
    for (family, others) in [
        (&V4, ["192.0.2.11", "192.0.2.12", "192.0.2.13"]),
        (&V6, ["2001:db8::11", "2001:db8::12", "2001:db8::13"]),
    ] {
        let mut world = World::new();
        let backends = others.map(|address| {
            let mut backend = backend(family, TCP, true);
            backend.address = addr(address);
            backend
        });
        world.serve(family, TCP, 20, &backends);
        let mut flows = Vec::new();
        for port in 2000..2060 {
            let (syn, key) = another(family, port);
            let there = world.forwarded(&syn);
            flows.push((key, there.destination));
        }
        for address in others {
            let count = flows.iter().filter(|(_, to)| to.to_string() == address).count();
            assert!(count >= 8, "{address} got {count} of 60 flows");
        }
        world.serve(family, TCP, 21, &backends[..1]);
        for (key, to) in flows {
            let (mut packet, _) = another(family, key.client_port.get());
            packet = packet.numbered(1001, 2001);
            if let wire::Body::Tcp { flags, .. } = &mut packet.body {
                *flags = ACK;
            }
            assert_eq!(world.forwarded(&packet).destination, to, "an old flow stays");
        }
    }
}

#[test]
fn a_node_has_no_more_flows_than_its_quota() {
    for (family, block) in [(&V4, "198.19.0.0/26"), (&V6, "fd00:1:1000::/64")] {
        let mut world = World::new();
        world.own(block, NODE, 3);
        let keys: Vec<_> = (0..3)
            .map(|port| {
                let (syn, key) = another(family, 3000 + port);
                world.forwarded(&syn);
                key
            })
            .collect();
        let (syn, key) = another(family, 4000);
        assert_eq!(world.out(&syn).action, Action::Drop);
        assert_eq!(world.programs.refusals(), [("QuotaExceeded", 1)]);
        assert_eq!(world.flow(&key), None);
        assert_eq!(world.out(&another(family, 3000).0).action, Action::Redirect, "old flows go on");
        world.age(&keys[1], 31 * SECOND);
        for _ in 0..FLOWS_LOOKED_THROUGH {
            if world.out(&syn).action == Action::Redirect {
                break;
            }
        }
        assert!(world.flow(&key).is_some(), "room that an old flow left is found");
        assert_eq!(world.flow(&keys[1]), None);
    }
}

/// Attempts after which the whole ring of a table has been looked through.
const FLOWS_LOOKED_THROUGH: u32 = enforcer_tests::prog::pool::FLOWS / 32 + 1;

const SMALL: [(&str, u32); 3] = [(name::GW_FLOWS, 4), (name::GW_NAT, 64), (name::FLOW_RING, 4)];

#[test]
fn a_full_table_denies_new_flows_and_keeps_old_ones() {
    let mut world = World::with_sizes(&SMALL);
    for port in 0..4 {
        world.forwarded(&another(&V4, 3000 + port).0);
    }
    let (syn, key) = another(&V4, 4000);
    assert_eq!(world.out(&syn).action, Action::Drop);
    assert_eq!(world.programs.refusals(), [("FlowTableFull", 1)]);
    assert_eq!(world.flow(&key), None);
    for port in 0..4 {
        assert!(world.flow(&another(&V4, 3000 + port).1).is_some());
    }
}

#[test]
fn a_connection_that_begins_anew_takes_no_room_from_others() {
    for masquerade in [true, false] {
        let mut world = World::with_sizes(&SMALL);
        world.serve(&V4, TCP, 60, &[backend(&V4, TCP, masquerade)]);
        for _ in 0..8 {
            world.forwarded(&V4.segment(SYN));
            world.forwarded(&V4.segment(RST));
        }
        for port in 0..3 {
            world.forwarded(&another(&V4, 3000 + port).0);
        }
        let count = world.programs.hash::<u32, u32>(name::FLOW_COUNTS).get(&NODE, 0).expect("a count");
        assert_eq!(count, 4);
        assert_eq!(world.programs.hash::<NatKey, FlowKey>(name::GW_NAT).keys().count(), 4);
    }
}

#[test]
fn what_is_over_is_reclaimed_with_its_translation() {
    let mut world = World::with_sizes(&SMALL);
    for port in 0..4 {
        world.forwarded(&another(&V4, 3000 + port).0);
    }
    let (_, old) = another(&V4, 3002);
    let port = world.port(&old);
    world.age(&old, 31 * SECOND);
    let (syn, key) = another(&V4, 4000);
    world.forwarded(&syn);
    assert!(world.flow(&key).is_some());
    assert_eq!(world.flow(&old), None);
    let translations = world.programs.hash::<NatKey, FlowKey>(name::GW_NAT);
    let holder = translations.get(&translation(&V4, port, TCP), 0).ok();
    assert!(holder.is_none_or(|holder| holder == key), "the old flow has no translation");
    assert_eq!(translations.keys().count(), 4);
    let count = world.programs.hash::<u32, u32>(name::FLOW_COUNTS).get(&NODE, 0).expect("a count");
    assert_eq!(count, 4);
}

#[test]
fn states_follow_the_connection() {
    let mut world = World::new();
    let key = V4.flow(TCP);
    let state = |world: &mut World| FlowState::from_raw(world.flow(&key).expect("a flow").state);
    world.forwarded(&V4.segment(SYN));
    assert_eq!(state(&mut world), Some(FlowState::HalfOpen));
    let port = world.port(&key);
    world.returned(&V4.reply(port, SYN | ACK));
    world.forwarded(&V4.segment(ACK));
    assert_eq!(state(&mut world), Some(FlowState::Established));
    world.forwarded(&V4.segment(FIN | ACK).numbered(2000, 2000));
    assert_eq!(state(&mut world), Some(FlowState::Closing));
    world.forwarded(&V4.segment(SYN));
    assert_eq!(state(&mut world), Some(FlowState::HalfOpen), "the port is used again");
    world.returned_by(&key, RST | ACK);
    assert_eq!(state(&mut world), Some(FlowState::Closing));
    world.forwarded(&V4.datagram(1));
    let udp = world.flow(&V4.flow(UDP)).expect("a flow");
    assert_eq!(FlowState::from_raw(udp.state), Some(FlowState::Udp));
}

impl World {
    fn returned_by(&mut self, key: &FlowKey, flags: u8) {
        let port = self.port(key);
        self.returned(&V4.reply(port, flags));
    }
}
