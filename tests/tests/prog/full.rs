//! Everything is full, and no agent is there to help: what is old goes on, what is new is refused and counted.

use enforcer_common::{
    Addr,
    flow::{Flow, FlowKey},
    grant::GrantKey,
    maps::{counter, name},
    verdict::DropReason,
    workload::{WireKey, Workload},
};
use enforcer_tests::{
    packet::{ACK, Packet, SYN, TCP},
    prog::{
        kernel::{DROP, Kernel, LOOPBACK, REDIRECT},
        node::{self, Family, GRANT, QUOTA, WORKLOAD, families, grant, ip, workload},
    },
};

const FLOWS: u16 = 64;

/// Makes another pod, with the same grant.
fn neighbour(kernel: &mut Kernel, family: &Family, number: u8) -> Family {
    let pod =
        ip(&if family.pod.is_ipv4() { format!("10.0.1.{number}") } else { format!("fd10::1:{number}") });
    let id = WORKLOAD + 100 + u32::from(number);
    let wire = WireKey { address: Addr::from(pod), ifindex: LOOPBACK, pad: 0 };
    kernel.set(name::WIRE, wire, Workload { id, ..workload() });
    kernel.set(name::GRANTS, GrantKey { workload: id, ..family.grant_key(6) }, grant());
    Family { pod, ..*family }
}

/// Sends a segment from a port, and says whether it passed.
fn passes(kernel: &mut Kernel, family: &Family, port: u16, flags: u8) -> bool {
    let frame = Packet::tcp((family.pod, port).into(), family.server(), flags).frame();
    let action = kernel.run("from_pod", &frame).action;
    assert!([REDIRECT, DROP].contains(&action));
    action == REDIRECT
}

#[test]
fn at_twice_its_size_the_flow_table_keeps_what_lives_and_counts_what_it_refuses() {
    for family in families() {
        let mut kernel = node::node_with_flows(FLOWS.into());
        let pods: Vec<_> = (1..=8).map(|number| neighbour(&mut kernel, &family, number)).collect();
        let all = || (0..2 * FLOWS).map(|turn| (usize::from(turn % 8), 1000 + turn / 8));
        let mut passed = Vec::new();
        for (pod, port) in all() {
            if passes(&mut kernel, &pods[pod], port, SYN) {
                passed.push((pod, port));
            }
        }
        assert_eq!(passed.len(), usize::from(FLOWS));
        assert_eq!(kernel.dropped(DropReason::FlowTableFull), u64::from(FLOWS));
        assert_eq!(kernel.count::<FlowKey, Flow>(name::FLOWS), usize::from(FLOWS));
        for (pod, port) in &passed {
            assert!(passes(&mut kernel, &pods[*pod], *port, ACK), "old flows go on");
        }
        assert_eq!(kernel.counter(counter::ALLOWED), u64::from(2 * FLOWS));

        // Every second one is over: as many new ones find room, and none that lives gives way.
        let (over, alive): (Vec<_>, Vec<_>) = passed.iter().partition(|(_, port)| port % 2 == 0);
        for (pod, port) in &over {
            let mut key = family.key(6);
            (key.client, key.client_port) = (pods[*pod].pod.into(), enforcer_common::Port::new(*port));
            let flow: Flow = kernel.get(name::FLOWS, &key).expect("a flow");
            kernel.set(name::FLOWS, key, node::over(flow));
        }
        let tried = all().map(|(pod, port)| (pod, port + 1000));
        let found = tried.filter(|(pod, port)| passes(&mut kernel, &pods[*pod], *port, SYN)).count();
        assert_eq!(found, over.len());
        for (pod, port) in &alive {
            assert!(passes(&mut kernel, &pods[*pod], *port, ACK), "nobody living gave way");
        }
        let counts =
            (1..=8).map(|number| kernel.get::<u32, u32>(name::FLOW_COUNTS, &(WORKLOAD + 100 + number)));
        assert_eq!(counts.map(Option::unwrap_or_default).sum::<u32>(), u32::from(FLOWS), "counted once each");
    }
}

#[test]
fn a_greedy_pod_gets_its_quota_and_its_neighbour_what_is_left() {
    for family in families() {
        let mut kernel = node::node_with_flows(FLOWS.into());
        let greedy = neighbour(&mut kernel, &family, 1);
        let modest = neighbour(&mut kernel, &family, 2);
        let quota = QUOTA as u16;
        let passed = (1..=3 * quota).filter(|port| passes(&mut kernel, &greedy, *port, SYN)).count();
        assert_eq!(passed, usize::from(quota));
        assert_eq!(kernel.dropped(DropReason::QuotaExceeded), u64::from(2 * QUOTA));
        let passed = (1..=quota).filter(|port| passes(&mut kernel, &modest, *port, SYN)).count();
        assert_eq!(passed, usize::from(quota));
        assert!((1..=quota).all(|port| passes(&mut kernel, &greedy, port, ACK)), "old flows go on");
    }
}

#[test]
fn where_no_grant_can_be_counted_any_more_packets_pass_all_the_same() {
    for family in families() {
        // Room for the counters of no grant but one, which another has.
        let mut kernel = node::node_with_sizes(FLOWS.into(), &[(name::GRANT_STATS, 1)]);
        kernel.begin_stats(1);
        for (out, back) in [(SYN, SYN | ACK), (ACK, ACK)] {
            assert_eq!(kernel.run("from_pod", &family.out(out).frame()).action, REDIRECT);
            assert_eq!(kernel.run("out_of_tunnel", &family.back(back).bare()).action, REDIRECT);
        }
        assert_eq!(kernel.counter(counter::ALLOWED), 2);
        assert_eq!(kernel.stats(GRANT).flows, 0, "nowhere to count it");
        let flow = node::flow(&mut kernel, &family, TCP).expect("a flow");
        assert_eq!((flow.packets_out, flow.packets_in), (2, 2), "the flow knows");
    }
}
