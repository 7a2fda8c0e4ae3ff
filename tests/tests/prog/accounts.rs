//! What a grant has carried: live flows have it in their entries, and leave it behind however they end.

use enforcer_common::{
    flow::{Flow, FlowKey},
    grant::{Grant, GrantStats},
    maps::name,
};
use enforcer_tests::{
    packet::{ACK, Packet, SYN, TCP},
    prog::{
        kernel::{Kernel, REDIRECT},
        node::{self, Family, GRANT, families, flow, grant},
    },
};

/// Opens the flow and sends 100 bytes either way. What its grant has carried then.
fn talk(kernel: &mut Kernel, family: &Family) -> GrantStats {
    for packet in [family.out(SYN), family.out(ACK).payload(100)] {
        assert_eq!(kernel.run("from_pod", &packet.frame()).action, REDIRECT);
    }
    let reply = family.back(ACK).payload(100).bare();
    assert_eq!(kernel.run("out_of_tunnel", &reply).action, REDIRECT);
    let headers = u64::from(family.headers);
    let (out, back) = (2 * headers + 100, headers + 100);
    GrantStats { packets_out: 2, bytes_out: out, packets_in: 1, bytes_in: back, flows: 1, last_ns: 0 }
}

/// The flow is over.
fn end(kernel: &mut Kernel, family: &Family) {
    let flow = flow(kernel, family, TCP).expect("a flow");
    kernel.set(name::FLOWS, family.key(TCP), node::over(flow));
}

fn and_a_flow_of_one_packet(stats: GrantStats, family: &Family) -> GrantStats {
    let headers = u64::from(family.headers);
    GrantStats {
        packets_out: stats.packets_out + 1,
        bytes_out: stats.bytes_out + headers,
        flows: stats.flows + 1,
        ..stats
    }
}

#[test]
fn a_flow_that_is_begun_anew_adds_to_what_it_was() {
    for family in families() {
        let mut kernel = node::node();
        let carried = talk(&mut kernel, &family);
        assert_eq!(kernel.stats(GRANT), carried);
        end(&mut kernel, &family);
        assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
        assert_eq!(kernel.stats(GRANT), and_a_flow_of_one_packet(carried, &family));
        let live = flow(&mut kernel, &family, TCP).expect("a flow");
        assert_eq!((live.packets_out, live.packets_in), (1, 0), "the new flow's own");
    }
}

#[test]
fn a_flow_whose_room_another_takes_leaves_behind_what_it_carried() {
    for family in families() {
        let mut kernel = node::node_with_flows(1);
        let carried = talk(&mut kernel, &family);
        end(&mut kernel, &family);
        let other = Packet::tcp((family.pod, 1000).into(), family.server(), SYN);
        assert_eq!(kernel.run("from_pod", &other.frame()).action, REDIRECT);
        assert_eq!(kernel.get::<FlowKey, Flow>(name::FLOWS, &family.key(TCP)), None, "it was reclaimed");
        assert_eq!(kernel.stats(GRANT), and_a_flow_of_one_packet(carried, &family));
    }
}

#[test]
fn a_flow_that_another_connection_is_charged_for_leaves_behind_what_it_carried() {
    for family in families() {
        let mut kernel = node::node();
        let carried = talk(&mut kernel, &family);
        kernel.set(name::GRANTS, family.grant_key(TCP), Grant { id: GRANT + 1, ..grant() });
        let headers = u64::from(family.headers);
        let reply = family.back(ACK).payload(30).bare();
        assert_eq!(kernel.run("out_of_tunnel", &reply).action, REDIRECT);
        assert_eq!(kernel.run("from_pod", &family.out(ACK).payload(20).frame()).action, REDIRECT);
        assert_eq!(kernel.stats(GRANT), carried);
        let since = GrantStats {
            packets_out: 1,
            bytes_out: headers + 20,
            packets_in: 1,
            bytes_in: headers + 30,
            ..GrantStats::default()
        };
        assert_eq!(kernel.stats(GRANT + 1), since);
    }
}
