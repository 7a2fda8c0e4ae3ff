//! What is believed of a FIN or a reset, and of the first fragment of a datagram that is refused.

use enforcer_common::{
    flow::{FlowState, FragmentKey, FragmentPorts},
    maps::name,
};
use enforcer_tests::prog::{
    Action,
    wire::{ACK, FIN, RST, SYN, TCP, UDP},
};

use crate::world::{Family, V4, V6, World};

/// Opens a connection, anew where it was closed: each side has acknowledged 2000. Gives the source port that the backend
/// sees.
fn open(world: &mut World, family: &Family) -> u16 {
    world.forwarded(&family.segment(SYN));
    let port = world.port(&family.flow(TCP));
    world.returned(&family.reply(port, SYN | ACK));
    world.forwarded(&family.segment(ACK));
    assert_eq!(state(world, family), FlowState::Established as u8);
    port
}

fn state(world: &mut World, family: &Family) -> u8 {
    world.flow(&family.flow(TCP)).expect("a flow").state
}

#[test]
fn an_end_outside_the_window_is_not_believed() {
    let mut world = World::new();
    for family in [&V4, &V6] {
        for from_backend in [true, false] {
            for flags in [RST, RST | ACK, FIN | ACK] {
                let port = open(&mut world, family);
                let send = |world: &World, seq| {
                    let ack = if flags & ACK == 0 { 0 } else { 2000 };
                    if from_backend {
                        world.returned(&family.reply(port, flags).numbered(seq, ack))
                    } else {
                        world.forwarded(&family.segment(flags).numbered(seq, ack))
                    };
                };
                for seq in [1999, 1000, 0, 2000 + (1 << 30)] {
                    send(&world, seq);
                    assert_eq!(state(&mut world, family), FlowState::Established as u8, "{flags} at {seq}");
                }
                send(&world, 2000);
                assert_eq!(state(&mut world, family), FlowState::Closing as u8);
            }
        }
    }
}

#[test]
fn an_acknowledgement_that_was_overtaken_takes_no_number_back() {
    let mut world = World::new();
    for family in [&V4, &V6] {
        let port = open(&mut world, family);
        for last in [3000, 1 << 24, 1 << 31, u32::MAX - 5, 10, 1 << 30] {
            for late in [0, 1, 1448, 1 << 20] {
                for number in [last, last.wrapping_sub(late)] {
                    world.forwarded(&family.segment(ACK).numbered(1000, number));
                    world.returned(&family.reply(port, ACK).numbered(1000, number));
                }
                let flow = world.flow(&family.flow(TCP)).expect("a flow");
                assert_eq!([flow.client_ack, flow.backend_ack], [last; 2], "{late} behind");
            }
        }
    }
}

#[test]
fn a_reset_that_its_receiver_does_not_believe_ends_nothing() {
    let mut world = World::new();
    for family in [&V4, &V6] {
        let port = open(&mut world, family);
        world.returned(&family.reply(port, RST).numbered(62_000, 0));
        assert_eq!(state(&mut world, family), FlowState::Closing as u8);
        world.forwarded(&family.segment(ACK));
        assert_eq!(state(&mut world, family), FlowState::Established as u8, "it answered (RFC 5961)");
    }
}

#[test]
fn a_first_fragment_that_is_refused_opens_nothing() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        world.revoke(family, UDP);
        let mut first = family.datagram(40);
        first.fragment = Some((77, 0, true));
        assert_eq!(world.out(&first).action, Action::Drop);
        let fragments = world.programs.hash::<FragmentKey, FragmentPorts>(name::FRAGMENTS).keys().count();
        assert_eq!(fragments, 0);
    }
}
