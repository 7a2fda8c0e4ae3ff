//! What ought to become of a packet, from the objects alone: no map, no compiler, no code of the programs but the ladder.

use std::net::IpAddr;

use enforcer_common::verdict::{DropReason, Facts, GrantFacts, Verdict, decide};
use enforcer_tests::packet::{TCP, UDP};

use crate::scene::{Connection, HERE, Pod, Probe, Scene, Validity};

/// Programs that judge each packet.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Program {
    FromPod,
    ToWire,
    FromWire,
}

impl Program {
    pub const ALL: [Self; 3] = [Self::FromPod, Self::ToWire, Self::FromWire];
}

pub fn expected(scene: &Scene, probe: &Probe, program: Program) -> Verdict {
    let (source, destination) = (guarded(probe.source), guarded(probe.destination));
    match program {
        Program::ToWire if source || destination => Verdict::Deny(DropReason::ClearText),
        Program::FromWire if source => Verdict::Deny(DropReason::ClearSource),
        Program::ToWire | Program::FromWire => Verdict::Pass,
        Program::FromPod if !destination && source => Verdict::Deny(DropReason::ClearSource),
        Program::FromPod if !destination => Verdict::Pass,
        Program::FromPod => to_guarded(scene, probe),
    }
}

pub fn guarded(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            (a, b) == (198, 18) || (a, b) == (198, 19) || (a, b, c) == (10, 99, 0)
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            (a, b, c) == (0xfd00, 1, 2) || (a, b, c) == (0xfd00, 9, 9)
        }
    }
}

fn to_guarded(scene: &Scene, probe: &Probe) -> Verdict {
    let mut here = scene.pods.iter().filter(|pod| pod.ifindex == HERE).peekable();
    let interface_known = here.peek().is_some();
    let pod = here.find(|pod| pod.addresses().contains(&probe.source));
    if pod.is_none() && interface_known {
        return Verdict::Deny(DropReason::Spoofed);
    }
    if pod.is_some() && probe.protocol != TCP && probe.protocol != UDP {
        return Verdict::Deny(DropReason::NotCarried);
    }
    let port = (probe.protocol, probe.port);
    let destination =
        scene.destinations.iter().find(|destination| destination.addresses().contains(&probe.destination));
    let granting: Vec<_> = scene
        .connections
        .iter()
        .filter(|connection| destination.is_some_and(|it| it.number == connection.destination))
        .filter(|connection| connection.ports.contains(&port))
        .filter(|connection| pod.is_some_and(|pod| selects(connection, pod)))
        .collect();
    let acknowledged =
        destination.zip(pod).is_some_and(|(destination, pod)| pod.acknowledged.contains(&destination.number));
    let facts = Facts {
        guarded: true,
        not_guardable: pod.is_some_and(|pod| !pod.guardable),
        workload_known: pod.is_some(),
        destination_known: destination.is_some(),
        port_offered: destination.is_some_and(|destination| destination.ports.contains(&port)),
        grant: granting.iter().map(|connection| end(connection)).max().map(|valid_until_ns| GrantFacts {
            valid_until_ns,
            acknowledged,
            answering: acknowledged && scene.answering,
        }),
    };
    decide(&facts, NOW)
}

/// Any moment between what is over and what is later.
const NOW: u64 = 1_000;

fn end(connection: &Connection) -> u64 {
    match connection.validity {
        Validity::Forever => u64::MAX,
        Validity::Over => NOW - 1,
        Validity::Later => NOW + 1,
    }
}

fn selects(connection: &Connection, pod: &Pod) -> bool {
    connection.app.is_none_or(|app| app == pod.app)
        && connection.env.is_none_or(|env| env == pod.env)
        && connection.only_namespace.is_none_or(|namespace| namespace == pod.namespace)
}
