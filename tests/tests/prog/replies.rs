//! The way back, and the last guards: only packets of live flows pass.

use enforcer_common::{
    Addr, Port,
    config::{ANNOUNCE_PORT, Tunnel},
    flow::{Flow, FlowState, SECOND},
    grant::{Grant, GrantStats},
    maps::name,
    verdict::DropReason,
    workload::Place,
};
use enforcer_tests::{
    packet::{ACK, Packet, RST, SYN, TCP},
    prog::{
        kernel::{DROP, LOOPBACK, NEXT, Outcome, REDIRECT, ago_ns},
        node::{self, GRANT, SLOT, WORKLOAD, families, flow, ip, v4},
    },
};

#[test]
fn packets_of_no_flow_pass_no_guard() {
    for family in families() {
        let mut kernel = node::node();
        let out = family.out(SYN).frame();
        assert_eq!(kernel.run("into_tunnel", &out), Outcome { action: DROP, bytes: out.clone() });
        let back = family.back(ACK).bare();
        assert_eq!(kernel.run("out_of_tunnel", &back), Outcome { action: DROP, bytes: back.clone() });
        let mut delivered = family.back(ACK);
        delivered.destination = family.pod;
        let delivered = delivered.bare();
        assert_eq!(kernel.run("to_workload", &delivered), Outcome { action: DROP, bytes: delivered.clone() });
        assert_eq!(kernel.dropped(DropReason::NoFlow), 3);
    }
}

#[test]
fn nothing_but_ip_passes_the_last_guard() {
    let mut kernel = node::node();
    let arp = [vec![0xff; 12], vec![0x08, 0x06], vec![0; 46]].concat();
    assert_eq!(kernel.run("into_tunnel", &arp).action, DROP);
    let noise = vec![0; 60];
    assert_eq!(kernel.run("out_of_tunnel", &noise).action, DROP);
}

#[test]
fn a_flow_that_is_over_passes_nothing() {
    for family in families() {
        let mut kernel = node::node();
        assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
        let open = flow(&mut kernel, &family, TCP).expect("a flow");
        kernel.set(name::FLOWS, family.key(TCP), Flow { state: 0, ..open });
        assert_eq!(kernel.run("into_tunnel", &family.out(ACK).frame()).action, DROP);
        assert_eq!(kernel.run("out_of_tunnel", &family.back(ACK).bare()).action, DROP);
    }
}

#[test]
fn a_reply_comes_only_through_the_tunnel_of_its_flow() {
    for family in families() {
        let mut kernel = node::node();
        assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
        let tunnel: Tunnel = kernel.at(name::TUNNELS, SLOT);
        kernel.put(name::TUNNELS, SLOT, Tunnel { ifindex: 999, ..tunnel });
        assert_eq!(kernel.run("out_of_tunnel", &family.back(SYN | ACK).bare()).action, DROP);
        assert_eq!(kernel.dropped(DropReason::NoFlow), 1);
    }
}

#[test]
fn a_reply_belongs_to_the_workload_that_asked() {
    for family in families() {
        let mut kernel = node::node();
        assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
        let place = Place { address: Addr::from(family.pod), ifindex: LOOPBACK, workload: WORKLOAD + 1 };
        kernel.set(name::PLACES, Addr::from(family.inside), place);
        assert_eq!(kernel.run("out_of_tunnel", &family.back(SYN | ACK).bare()).action, DROP);
    }
}

#[test]
fn replies_are_charged_to_the_grant() {
    for family in families() {
        let mut kernel = node::node();
        assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
        let reply = family.back(SYN | ACK).payload(100).bare();
        assert_eq!(kernel.run("out_of_tunnel", &reply).action, REDIRECT);
        let out = u64::from(family.headers);
        let expected = GrantStats {
            packets_out: 1,
            bytes_out: out,
            packets_in: 1,
            bytes_in: out + 100,
            flows: 1,
            last_ns: 0,
        };
        assert_eq!(kernel.stats(GRANT), expected);
    }
}

#[test]
fn without_the_grant_replies_end_and_resets_pass() {
    for family in families() {
        let mut kernel = node::node();
        assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
        kernel.remove::<_, Grant>(name::GRANTS, &family.grant_key(TCP));
        assert_eq!(kernel.run("out_of_tunnel", &family.back(ACK).bare()).action, DROP);
        assert_eq!(kernel.dropped(DropReason::Revoked), 1);
        assert_eq!(flow(&mut kernel, &family, TCP).expect("a flow").state, FlowState::Revoking as u8);
        let reset = family.back(RST | ACK);
        let mut delivered = reset.clone();
        delivered.destination = family.pod;
        let expected = Outcome { action: REDIRECT, bytes: delivered.bare() };
        assert_eq!(kernel.run("out_of_tunnel", &reset.bare()), expected);
        assert_eq!(kernel.run("to_workload", &delivered.bare()), expected);
    }
}

#[test]
fn resets_made_in_user_space_reach_the_workload_as_frames() {
    for family in families() {
        let mut kernel = node::node();
        assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
        let open = flow(&mut kernel, &family, TCP).expect("a flow");
        kernel.set(name::FLOWS, family.key(TCP), Flow { state: FlowState::Revoking as u8, ..open });
        let mut reset = Packet::tcp(family.server(), family.client(), RST);
        reset.mac = [[0x02, 0xef, 0, 0, 0, 1], [0x02, 0xef, 0, 0, 0, 2]];
        let frame = reset.frame();
        assert_eq!(kernel.run("to_workload", &frame), Outcome { action: REDIRECT, bytes: frame.clone() });
        let segment = Packet { ..Packet::tcp(family.server(), family.client(), ACK) };
        assert_eq!(kernel.run("to_workload", &segment.bare()).action, DROP);
    }
}

#[test]
fn replies_to_host_sockets_go_to_the_local_stack() {
    for family in families() {
        let mut kernel = node::node();
        assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
        let open = flow(&mut kernel, &family, TCP).expect("a flow");
        kernel.set(name::FLOWS, family.key(TCP), Flow { ifindex: 0, ..open });
        let mut delivered = family.back(SYN | ACK);
        delivered.destination = family.pod;
        let bytes = delivered.bare();
        assert_eq!(kernel.run("to_workload", &bytes), Outcome { action: NEXT, bytes: bytes.clone() });
    }
}

#[test]
fn only_the_announce_connection_reaches_the_nodes_own_address() {
    for family in families() {
        let mut kernel = node::node();
        let gateway = (family.gateway, ANNOUNCE_PORT).into();
        let node = (family.node, 50_000).into();
        let announce = Packet::tcp(gateway, node, SYN | ACK).bare();
        assert_eq!(kernel.run("out_of_tunnel", &announce), Outcome { action: NEXT, bytes: announce.clone() });
        let other = if family.pod.is_ipv4() { ip("198.19.255.2") } else { ip("fd00:1:2:1fff::2") };
        for packet in [
            Packet::tcp((other, ANNOUNCE_PORT).into(), node, ACK),
            Packet::tcp((family.gateway, 22).into(), node, ACK),
            Packet::udp(gateway, node, 20),
        ] {
            assert_eq!(kernel.run("out_of_tunnel", &packet.bare()).action, DROP, "{packet:?}");
        }
        let tunnel: Tunnel = kernel.at(name::TUNNELS, SLOT);
        kernel.put(name::TUNNELS, SLOT, Tunnel { ifindex: 999, ..tunnel });
        assert_eq!(kernel.run("out_of_tunnel", &announce).action, DROP, "through another tunnel");
    }
}

#[test]
fn ports_are_part_of_a_flow() {
    let family = v4();
    let mut kernel = node::node();
    assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
    let mut key = family.key(TCP);
    key.client_port = Port::new(40_001);
    assert_eq!(kernel.get::<_, Flow>(name::FLOWS, &key), None);
    let other = Packet::tcp(family.server(), (family.inside, 40_001).into(), ACK);
    assert_eq!(kernel.run("out_of_tunnel", &other.bare()).action, DROP);
}

#[test]
fn a_client_is_told_of_the_end_that_a_reply_found() {
    for family in families() {
        let mut kernel = node::node();
        assert_eq!(kernel.run("from_pod", &family.out(SYN).frame()).action, REDIRECT);
        let open = flow(&mut kernel, &family, TCP).expect("a flow");
        // Idle for longer than a revoked flow is kept.
        let seen_ns = ago_ns(60 * SECOND);
        let idle = Flow { state: FlowState::Established as u8, seen_ns, ..open };
        kernel.set(name::FLOWS, family.key(TCP), idle);
        kernel.remove::<_, Grant>(name::GRANTS, &family.grant_key(TCP));
        assert_eq!(kernel.run("out_of_tunnel", &family.back(ACK).bare()).action, DROP);
        assert_eq!(kernel.run("from_pod", &family.out(ACK).frame()).action, REDIRECT, "the reset");
        assert_eq!(kernel.dropped(DropReason::Revoked), 2);
    }
}

#[test]
fn the_nodes_own_answers_reach_host_sockets_without_a_flow() {
    for family in families() {
        let mut kernel = node::node();
        let about = |client| {
            let mut bytes = Packet::udp((client, 40_000).into(), family.server(), 10).bare();
            bytes.truncate(usize::from(family.headers) - 12);
            let (kind, code) = if family.pod.is_ipv4() { (3, 1) } else { (1, 3) };
            Packet::icmp(family.service, client, kind, code, 0, bytes)
        };
        let answer = about(family.node);
        let frame = answer.frame();
        assert_eq!(kernel.run("to_workload", &frame), Outcome { action: NEXT, bytes: frame.clone() });
        assert_eq!(kernel.run("to_workload", &answer.bare()).action, DROP, "out of the tunnel");
        assert_eq!(kernel.run("to_workload", &about(family.pod).frame()).action, DROP, "for a pod");
    }
}
