//! Answers: resets with the numbers that their receiver must believe, and sizes.

use enforcer_common::{
    flow::{FlowState, SECOND},
    gateway::GwBackend,
    verdict::DropReason,
};
use enforcer_tests::prog::{
    Action, Ran,
    wire::{self, ACK, Body, FIN, FROM_MAC, RST, SYN, TCP, TO_MAC, UDP, Wire},
};

use crate::world::{CLIENT_PORT, Family, TCP_PORT, TCP_TARGET, TUNNEL_MTU, V4, V6, World, backend};

/// Checks that an answer is a reset between these ends with this sequence number, and nothing else.
fn is_reset(answer: &Wire, source: (&str, u16), destination: (&str, u16), seq: u32) {
    assert_eq!(answer.source.to_string(), source.0);
    assert_eq!(answer.destination.to_string(), destination.0);
    let Body::Tcp { ports, seq: sent, flags, options, payload, .. } = &answer.body else {
        panic!("TCP: {answer:?}")
    };
    assert_eq!((*ports, *sent, *flags), ((source.1, destination.1), seq, RST));
    assert_eq!((options.len(), payload.len()), (0, 0));
}

/// Checks the reset that the client gets for its packet.
fn client_is_reset(family: &Family, ran: &Ran, seq: u32) {
    assert_eq!(ran.action, Action::Redirect);
    let answer = wire::read(&ran.bytes);
    is_reset(&answer, (family.service, TCP_PORT), (family.client, CLIENT_PORT), seq);
}

#[test]
fn the_middle_of_an_unknown_connection_is_reset() {
    for family in [&V4, &V6] {
        let world = World::new();
        for (flags, ack) in [(ACK, 7_000_001), (FIN | ACK, 0xffff_fff0), (SYN | ACK, 1)] {
            let packet = family.segment(flags).with_payload(99).numbered(5, ack);
            client_is_reset(family, &world.out(&packet), ack);
        }
        assert_eq!(world.programs.refusals(), [("NoFlow", 3)]);
        assert_eq!(world.out(&family.segment(RST | ACK)).action, Action::Drop, "a reset gets no answer");
        assert_eq!(world.out(&family.segment(RST)).action, Action::Drop, "a reset gets no answer");
    }
}

#[test]
fn a_flow_without_its_grant_ends_with_a_reset_and_passes_resets_only() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        world.forwarded(&family.segment(SYN));
        let port = world.port(&family.flow(TCP));
        world.returned(&family.reply(port, SYN | ACK));
        world.forwarded(&family.segment(ACK));
        world.revoke(family, TCP);
        let data = family.segment(ACK).with_payload(50).numbered(1001, 424_242);
        client_is_reset(family, &world.out(&data), 424_242);
        let flow = world.flow(&family.flow(TCP)).expect("a flow");
        assert_eq!(FlowState::from_raw(flow.state), Some(FlowState::Revoking));
        client_is_reset(family, &world.out(&data), 424_242);
        let ran = world.back(&family.reply(port, ACK).with_payload(20).numbered(9, 1051));
        assert_eq!(ran.action, Action::Redirect);
        assert_eq!((&ran.bytes[..6], &ran.bytes[6..12]), (&FROM_MAC[..], &TO_MAC[..]), "back to its sender");
        let answer = wire::read_frame(&ran.bytes);
        is_reset(&answer, (family.source, port), (family.backend, TCP_TARGET), 1051);
        assert_eq!(world.programs.refusals(), [("Revoked", 3)]);
        let from_client = world.out(&family.segment(RST).numbered(1001, 0));
        assert_eq!(from_client.action, Action::Redirect);
        let there = wire::read_frame(&from_client.bytes);
        assert_eq!(there.destination.to_string(), family.backend, "the client's reset passes");
        let from_backend = world.back(&family.reply(port, RST).numbered(2000, 0));
        assert_eq!(from_backend.action, Action::Redirect);
        let here = wire::read_frame(&from_backend.bytes);
        assert_eq!(here.destination.to_string(), family.client, "the backend's reset passes");
        assert_eq!(world.programs.refusals(), [("Revoked", 3)]);
        assert_eq!(world.out(&family.segment(SYN)).action, Action::Drop, "a SYN has nothing to reset");
        world.grant(family, TCP, u64::MAX);
        client_is_reset(family, &world.out(&data), 424_242);
        let ran = world.out(&family.segment(SYN));
        assert_eq!(ran.action, Action::Redirect, "a new connection may begin when it is granted again");
    }
}

/// Type, code and second word of an ICMP error, from whom to whom.
fn told(answer: &Wire) -> ((u8, u8), u32, String, String) {
    let Body::Icmp { kind, code, rest, .. } = answer.body else { panic!("ICMP: {answer:?}") };
    ((kind, code), rest, answer.source.to_string(), answer.destination.to_string())
}

#[test]
fn a_datagram_without_its_grant_is_prohibited_both_ways() {
    for (family, prohibited) in [(&V4, (3, 13)), (&V6, (1, 1))] {
        let mut world = World::new();
        world.forwarded(&family.datagram(5));
        let port = world.port(&family.flow(UDP));
        world.revoke(family, UDP);
        let ran = world.back(&family.udp_reply(port, 5));
        assert_eq!(ran.action, Action::Redirect);
        let to_backend = told(&wire::read_frame(&ran.bytes));
        assert_eq!(to_backend, (prohibited, 0, family.source.to_owned(), family.backend.to_owned()));
        let ran = world.out(&family.datagram(5));
        assert_eq!(ran.action, Action::Redirect);
        let to_client = told(&wire::read(&ran.bytes));
        assert_eq!(to_client, (prohibited, 0, family.service.to_owned(), family.client.to_owned()));
        assert_eq!(world.programs.refusals(), [("Revoked", 2)]);
    }
}

#[test]
fn a_packet_too_large_for_the_backends_network_is_answered_with_the_size_that_fits() {
    for (family, headers, code) in [(&V4, 28, (3, 4)), (&V6, 48, (2, 0))] {
        let mut world = World::new();
        let narrow = GwBackend { mtu: 1300, ..backend(family, UDP, true) };
        world.serve(family, UDP, 90, &[narrow]);
        world.forwarded(&family.datagram(1300 - headers));
        let ran = world.out(&family.datagram(1301 - headers));
        assert_eq!(ran.action, Action::Redirect);
        let answer = told(&wire::read(&ran.bytes));
        assert_eq!(answer, (code, 1300, family.service.to_owned(), family.client.to_owned()));
        assert_eq!(world.programs.refusals(), [("TooBig", 1)]);
    }
}

#[test]
fn a_grant_that_is_over_ends_its_flows() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        world.forwarded(&family.segment(SYN));
        let port = world.port(&family.flow(TCP));
        world.grant(family, TCP, 1);
        let ran = world.back(&family.reply(port, SYN | ACK).numbered(1, 77));
        let answer = wire::read_frame(&ran.bytes);
        is_reset(&answer, (family.source, port), (family.backend, TCP_TARGET), 77);
        assert_eq!(world.programs.refused(DropReason::Revoked), 1);
    }
}

#[test]
fn a_forgotten_flow_is_reset_and_never_sent_to_another_backend() {
    for family in [&V4, &V6] {
        let mut world = World::new();
        world.forwarded(&family.segment(SYN));
        world.age(&family.flow(TCP), 31 * SECOND);
        client_is_reset(family, &world.out(&family.segment(ACK)), 2000);
    }
}

#[test]
fn a_reply_too_large_for_the_tunnel_is_answered_with_the_size_that_fits() {
    for (family, headers, code) in [(&V4, 40, (3, 4)), (&V6, 60, (2, 0))] {
        let mut world = World::new();
        world.forwarded(&family.segment(SYN));
        let port = world.port(&family.flow(TCP));
        let fits = family.reply(port, ACK).with_payload(1420 - headers);
        world.returned(&fits);
        let large = family.reply(port, ACK).with_payload(1421 - headers);
        let ran = world.back(&large);
        assert_eq!(ran.action, Action::Redirect);
        assert_eq!(world.programs.refusals(), [("TooBig", 1)]);
        assert_eq!((&ran.bytes[..6], &ran.bytes[6..12]), (&FROM_MAC[..], &TO_MAC[..]), "back to its sender");
        let answer = wire::read_frame(&ran.bytes);
        assert_eq!(answer.source.to_string(), family.source, "from the address that the backend spoke to");
        assert_eq!(answer.destination.to_string(), family.backend);
        let Body::Icmp { kind, code: sub, rest, payload } = &answer.body else { panic!("ICMP: {answer:?}") };
        assert_eq!(((*kind, *sub), *rest), (code, TUNNEL_MTU));
        assert!(payload.len() >= headers - 12, "the backend finds its connection by the ports in it");
        assert_eq!(payload[..], large.bare()[..payload.len()]);
    }
}

#[test]
fn a_large_reply_that_may_be_fragmented_passes() {
    let mut world = World::new();
    world.forwarded(&V4.datagram(5));
    let port = world.port(&V4.flow(UDP));
    let large = Wire { df: false, ..V4.udp_reply(port, 1450) };
    let here = world.returned(&large);
    assert_eq!(here.destination.to_string(), V4.client);
}
