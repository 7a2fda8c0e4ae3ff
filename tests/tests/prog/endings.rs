//! How connections end: what is believed of a FIN or a reset, and what a packet of a connection that nobody knows gets.

use enforcer_common::{
    event::EVENTS_PER_WINDOW,
    flow::FlowState,
    grant::Grant,
    maps::{counter, name},
    verdict::DropReason,
    workload::{WireKey, Workload},
};
use enforcer_tests::{
    packet::{ACK, FIN, Packet, RST, SYN, TCP, Transport},
    prog::{
        kernel::{DROP, Kernel, LOOPBACK, Outcome, REDIRECT},
        node::{self, Family, OFFERED, PORT, families, flow, grant},
    },
};

fn acknowledging(mut packet: Packet, number: u32) -> Packet {
    if let Transport::Tcp { ack, .. } = &mut packet.transport {
        *ack = number;
    }
    packet
}

fn numbered(mut packet: Packet, seq: u32) -> Packet {
    if let Transport::Tcp { seq: number, .. } = &mut packet.transport {
        *number = seq;
    }
    packet
}

/// Opens a connection, anew where it was closed: each side has acknowledged 2000.
fn open(kernel: &mut Kernel, family: &Family) {
    assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
    assert_eq!(kernel.run("out_of_tunnel", &family.back(SYN | ACK).bare()).action, REDIRECT);
    assert_eq!(kernel.run("from_pod", &family.out(ACK).frame()).action, REDIRECT);
    assert_eq!(state(kernel, family), FlowState::Established as u8);
}

fn state(kernel: &mut Kernel, family: &Family) -> u8 {
    flow(kernel, family, TCP).expect("a flow").state
}

/// Sends a segment either way.
fn send(kernel: &mut Kernel, family: &Family, out: bool, flags: u8, seq: u32) {
    let outcome = if out {
        kernel.run("from_pod", &numbered(family.out(flags), seq).frame())
    } else {
        kernel.run("out_of_tunnel", &numbered(family.back(flags), seq).bare())
    };
    assert_eq!(outcome.action, REDIRECT, "its receiver judges it too");
}

/// What an exact reset is made of, for the client and for the server.
fn numbers(kernel: &mut Kernel, family: &Family) -> [u32; 2] {
    let flow = flow(kernel, family, TCP).expect("a flow");
    [flow.client_ack, flow.server_ack]
}

#[test]
fn an_acknowledgement_that_was_overtaken_takes_no_number_back() {
    let mut kernel = node::node();
    for family in families() {
        open(&mut kernel, &family);
        // Also around the end of all numbers. One that is beyond all bounds is no late one: it counts until the next.
        for last in [3000, 1 << 24, 1 << 31, u32::MAX - 5, 10, 1 << 30] {
            for late in [0, 1, 1448, 1 << 20] {
                for number in [last, last.wrapping_sub(late)] {
                    for (program, bytes) in [
                        ("from_pod", acknowledging(family.out(ACK), number).frame()),
                        ("out_of_tunnel", acknowledging(family.back(ACK), number).bare()),
                    ] {
                        assert_eq!(kernel.run(program, &bytes).action, REDIRECT);
                    }
                }
                assert_eq!(numbers(&mut kernel, &family), [last; 2], "{late} behind");
            }
        }
    }
}

#[test]
fn an_end_outside_the_window_is_not_believed() {
    let mut kernel = node::node();
    for family in families() {
        for out in [true, false] {
            for flags in [RST, RST | ACK, FIN | ACK] {
                open(&mut kernel, &family);
                for seq in [1999, 1000, 0, 2000 + (1 << 30), 2000_u32.wrapping_sub(1 << 30)] {
                    send(&mut kernel, &family, out, flags, seq);
                    assert_eq!(state(&mut kernel, &family), FlowState::Established as u8, "{flags} at {seq}");
                }
                send(&mut kernel, &family, out, flags, 2000);
                assert_eq!(
                    state(&mut kernel, &family),
                    FlowState::Closing as u8,
                    "{flags} at the very place"
                );
            }
        }
    }
}

#[test]
fn an_end_behind_data_on_its_way_is_believed() {
    let mut kernel = node::node();
    for family in families() {
        for out in [true, false] {
            for flags in [RST, FIN | ACK] {
                open(&mut kernel, &family);
                send(&mut kernel, &family, out, flags, 2000 + 60_000);
                assert_eq!(state(&mut kernel, &family), FlowState::Closing as u8);
            }
        }
    }
}

#[test]
fn a_reset_that_its_receiver_does_not_believe_ends_nothing() {
    let mut kernel = node::node();
    for family in families() {
        for out in [true, false] {
            open(&mut kernel, &family);
            send(&mut kernel, &family, out, RST, 2000 + 60_000);
            // What the receiver says to a reset that is not exact (RFC 5961).
            send(&mut kernel, &family, !out, ACK, 2000);
            assert_eq!(state(&mut kernel, &family), FlowState::Established as u8);
            send(&mut kernel, &family, out, RST, 2000);
            send(&mut kernel, &family, !out, ACK, 2000);
            assert_eq!(state(&mut kernel, &family), FlowState::Closing as u8, "an exact one is the end");
        }
    }
}

#[test]
fn a_reset_that_refuses_a_connection_needs_no_number() {
    for family in families() {
        let mut kernel = node::node();
        assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
        send(&mut kernel, &family, false, RST | ACK, 0);
        assert_eq!(state(&mut kernel, &family), FlowState::Closing as u8);
    }
}

/// The exact reset for a segment of [`Family::out`] to this port.
fn reset(family: &Family, port: u16) -> Outcome {
    let server = (family.service, port).into();
    let mut reset = numbered(Packet::tcp(server, family.client(), RST), 2000);
    reset.mac.reverse();
    reset.id = 0;
    Outcome { action: REDIRECT, bytes: reset.frame() }
}

fn segment(family: &Family, port: u16, flags: u8) -> Vec<u8> {
    Packet::tcp(family.client(), (family.service, port).into(), flags).frame()
}

#[test]
fn a_connection_with_neither_flow_nor_grant_is_reset_and_not_left_hanging() {
    for family in families() {
        let mut kernel = node::node();
        for (port, reason) in [(OFFERED, DropReason::NoGrant), (1, DropReason::PortNotOffered)] {
            assert_eq!(kernel.run("from_pod", &segment(&family, port, ACK)), reset(&family, port));
            assert_eq!(kernel.run("from_pod", &segment(&family, port, FIN | ACK)), reset(&family, port));
            assert_eq!(kernel.dropped(reason), 2);
        }
        kernel.set(name::GRANTS, family.grant_key(TCP), Grant { valid_until_ns: 1, ..grant() });
        assert_eq!(kernel.run("from_pod", &segment(&family, PORT, ACK)), reset(&family, PORT));
        assert_eq!(kernel.dropped(DropReason::Expired), 1);
        for flags in [SYN, RST, RST | ACK] {
            let frame = segment(&family, OFFERED, flags);
            let expected = Outcome { action: DROP, bytes: frame.clone() };
            assert_eq!(kernel.run("from_pod", &frame), expected, "no answer to {flags}");
        }
        assert_eq!(flow(&mut kernel, &family, TCP), None);
    }
}

#[test]
fn whoever_is_not_known_gets_no_reset() {
    for family in families() {
        let mut kernel = node::node();
        kernel.remove::<_, Workload>(
            name::WIRE,
            &WireKey { address: family.pod.into(), ifindex: LOOPBACK, pad: 0 },
        );
        let frame = segment(&family, OFFERED, ACK);
        let expected = Outcome { action: DROP, bytes: frame.clone() };
        assert_eq!(kernel.run("from_pod", &frame), expected);
    }
}

#[test]
fn resets_are_as_few_as_events() {
    let family = node::v4();
    let mut kernel = node::node();
    let frame = segment(&family, OFFERED, ACK);
    let mut answered = 0;
    for _ in 0..EVENTS_PER_WINDOW * 2 {
        answered += u32::from(kernel.run("from_pod", &frame).action == REDIRECT);
        kernel.events();
    }
    let limited = kernel.counter(counter::EVENTS_LIMITED);
    assert_eq!(u64::from(answered) + limited, u64::from(EVENTS_PER_WINDOW * 2));
}
