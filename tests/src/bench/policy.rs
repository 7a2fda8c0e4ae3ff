//! `policy_vs_iptables`, `policy_vs_nftables`: what a decision costs beside the same number of allow rules of a packet
//! filter, for each packet and for each new connection, with 10 to 10 000 of them.
//!
//! Filters: routers that are alike, one without a rule; real traffic crosses each in turn, and what the empty router
//! takes is taken off. enforcer: its program on the pod's device with as many grants, net of an empty program.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::Result;

use super::{Scope, figure::Figure, traffic};
use crate::lab::{
    Id, Lab,
    command::run,
    network::{add_netns, ip, sysctl},
};

mod filters;
mod own;

use filters::Filter;

const PORT: u16 = 5432;
/// Nobody listens there; its packets are allowed by a rule of their own.
const NOWHERE: u16 = 9;

pub fn figures(scope: Scope) -> Result<Vec<Figure>> {
    let sizes: &[u32] = if scope.quick { &[10, 100] } else { &[10, 1_000, 10_000] };
    let lab = Lab::new(&[])?;
    let routers: Vec<Router> = Filter::ALL
        .into_iter()
        .enumerate()
        .map(|(index, filter)| Router::new(&lab.id, index, filter))
        .collect::<Result<_>>()?;
    let mut figures = Vec::new();
    for rules in sizes {
        routers.iter().try_for_each(|router| router.filter.install(&router.netns, *rules))?;
        let mut samples = vec![[const { Vec::new() }; 2]; routers.len()];
        for round in 0..scope.rounds(12) {
            for turn in 0..routers.len() {
                let at = (round + turn) % routers.len();
                let [packet, connection] = routers[at].measure(scope)?;
                samples[at][0].push(packet);
                samples[at][1].push(connection);
            }
        }
        let empty = samples[0].clone();
        for (router, samples) in routers.iter().zip(samples).skip(1) {
            for (index, of) in ["packet", "connection"].into_iter().enumerate() {
                let net =
                    samples[index].iter().zip(&empty[index]).map(|(gross, empty)| gross - empty).collect();
                let figure = Figure::median(router.filter.metric(), net, "ns");
                figures.push(figure.label("by", router.filter.name()).label("of", of).label("rules", rules));
            }
        }
        for (of, samples) in own::measure(*rules, scope)? {
            for metric in ["policy_vs_iptables", "policy_vs_nftables"] {
                let figure = Figure::median(metric, samples.clone(), "ns");
                figures.push(figure.label("by", "enforcer").label("of", of).label("rules", rules));
            }
        }
    }
    Ok(figures)
}

/// A client, a server, and a router between them.
struct Router {
    filter: Filter,
    client: String,
    server: String,
    netns: String,
    listener: TcpListener,
    to: [u8; 4],
}

impl Router {
    fn new(id: &Id, index: usize, filter: Filter) -> Result<Self> {
        let [client, netns, server] = ["c", "r", "s"].map(|part| id.netns(&format!("{part}{index}")));
        for netns in [&client, &netns, &server] {
            add_netns(netns)?;
        }
        ip(
            &netns,
            &format!(
                "link add left type veth peer name eth0 netns {client}
                 link add right type veth peer name eth0 netns {server}
                 addr add 10.1.0.1/24 dev left
                 addr add 10.2.0.1/24 dev right
                 link set left up
                 link set right up"
            ),
        )?;
        sysctl(&netns, &["net.ipv4.ip_forward=1"])?;
        for (end, address) in [(&client, "10.1.0"), (&server, "10.2.0")] {
            let lines = format!(
                "addr add {address}.2/24 dev eth0\nlink set eth0 up\nroute add default via {address}.1"
            );
            ip(end, &lines)?;
        }
        run("ip", &["netns", "exec", &client, "ping", "-qc1", "-W5", "10.2.0.2"])?;
        let to = [10, 2, 0, 2];
        let listener = traffic::listen(&server, SocketAddr::from((to, PORT)))?;
        Ok(Self { filter, client, server, netns, listener, to })
    }

    /// Nanoseconds of a packet and of a connection.
    fn measure(&self, scope: Scope) -> Result<[f64; 2]> {
        let time = Duration::from_millis(if scope.quick { 10 } else { 60 });
        let to = |port| SocketAddr::from((self.to, port));
        let pps = traffic::datagrams_pps(&self.client, to(NOWHERE), (&self.server, "eth0"), time)?;
        let count = if scope.quick { 10 } else { 200 };
        Ok([1e9 / pps, traffic::accepted_ns(&self.client, &self.listener, to(PORT), count)?])
    }
}
