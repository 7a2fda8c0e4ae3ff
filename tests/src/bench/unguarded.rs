//! `unguarded_pps_ratio`, `unguarded_rr_ratio`: what traffic that is none of ours pays for our being there.
//!
//! Two labs that are alike stand side by side, an agent guards one of them. Pods send through their node to the host
//! beside it: past the programs of the pod's veth and of the node's uplink.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;

use super::{
    Scope,
    figure::{Bound, Figure},
    traffic::{self, Exchange},
};
use crate::lab::{
    Lab, Pod, Role,
    manifests::PROJECT,
    network::{GATEWAY4, NODE4, ip},
    wait,
};

const PORT: u16 = 7777;
/// Nobody listens there, and the refusals are not waited for.
const NOWHERE: u16 = 9;

pub fn figures(scope: Scope) -> Result<Vec<Figure>> {
    let (with, without) = (lab(true)?, lab(false)?);
    let open = |lab: &Lab| Exchange::open(&lab.id.netns("plain"), to(PORT), &lab.id.netns("gw"));
    let mut ends = [(&with, open(&with)?), (&without, open(&without)?)];
    let time = Duration::from_millis(if scope.quick { 20 } else { 100 });
    let (pairs, mut pps, mut trips) = (scope.rounds(48), Vec::new(), Vec::new());
    for round in 0..pairs {
        // Whoever is first has the colder caches, so they take turns.
        let mut rates = [[0.0; 2]; 2];
        for turn in 0..2 {
            let at = (round + turn) % 2;
            let (lab, exchange) = &mut ends[at];
            let (pod, beside) = (lab.id.netns("plain"), lab.id.netns("gw"));
            rates[at][0] = traffic::datagrams_pps(&pod, to(NOWHERE), (&beside, "eth0"), time)?;
            rates[at][1] = exchange.rate(time)?;
        }
        pps.push(rates[0][0] / rates[1][0]);
        trips.push(rates[0][1] / rates[1][1]);
    }
    let least = Bound::AtLeast(0.97);
    Ok(vec![
        Figure::median("unguarded_pps_ratio", pps, "").label("bytes", 64).reference(least),
        Figure::median("unguarded_rr_ratio", trips, "").reference(least),
    ])
}

fn to(port: u16) -> SocketAddr {
    SocketAddr::new(GATEWAY4.parse().expect("an address"), port)
}

fn lab(guarded: bool) -> Result<Lab> {
    let mut lab = Lab::new(&[Pod::new(PROJECT, "plain", &[("app", "plain")])])?;
    ip(&lab.id.netns("gw"), &format!("route add 10.244.0.0/16 via {NODE4}"))?;
    if guarded {
        lab.save_objects()?;
        lab.save_tunnel_ends("")?;
        for role in [Role::Controller, Role::NodeTunnel, Role::Agent] {
            lab.start(role)?;
        }
        let links = lab.id.bpffs().join("node/links");
        wait::for_true("the node is guarded", || {
            let Ok(entries) = std::fs::read_dir(&links) else { return false };
            let names: Vec<String> =
                entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            ["from_pod@", "to_wire@"].iter().all(|start| names.iter().any(|name| name.starts_with(start)))
        })?;
    }
    Ok(lab)
}
