//! `verdict_ns`: what a verdict costs in the kernel that runs here, net of an empty program.
//!
//! Rounds go through all paths in turn, so that a machine whose speed drifts does so for all of them.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use enforcer_common::{
    Port,
    config::NodeConfig,
    grant::{Grant, GrantKey},
    maps::{counter, name},
    verdict::DropReason,
    workload::{WireKey, Workload},
};

use super::{
    Scope,
    empty::Empty,
    figure::{Bound, Figure},
};
use crate::{
    packet::{ACK, Packet, SYN, TCP},
    prog::{
        kernel::{Kernel, LOOPBACK},
        node::{self, Family, OFFERED, PORT},
    },
};

/// Packets of one measurement.
const REPEAT: u32 = 20_000;

/// What is measured.
struct Path {
    name: &'static str,
    /// Nanoseconds that it may cost, net.
    reference: f64,
    packet: fn(&Family) -> Packet,
    /// Which counter every packet must raise; `None` for packets that nothing counts.
    counter: Option<u32>,
}

const PATHS: [Path; 3] = [
    Path {
        name: "unguarded",
        reference: 40.0,
        packet: |family| Packet::tcp(family.client(), (family.elsewhere, 5432).into(), ACK),
        counter: None,
    },
    Path {
        name: "deny",
        reference: 110.0,
        packet: |family| Packet::tcp(family.client(), (family.service, OFFERED).into(), SYN),
        counter: Some(DropReason::NoGrant as u32),
    },
    Path {
        name: "allow",
        reference: 300.0,
        packet: |family| family.out(ACK),
        counter: Some(counter::ALLOWED),
    },
];

/// `verdict_ns` of `from_pod` for every path and family: the same packet again and again, and packets of as many grants as
/// a large node has.
pub fn figures(scope: Scope) -> Result<Vec<Figure>> {
    let empty = Empty::load().context("cannot load an empty program")?;
    let mut figures = hot(scope, &empty)?;
    figures.extend(spread(scope, &empty)?);
    Ok(figures)
}

fn hot(scope: Scope, empty: &Empty) -> Result<Vec<Figure>> {
    let mut kernel = node::node_of_its_own(64);
    let families = [("v4", node::v4()), ("v6", node::v6())];
    let mut samples: Vec<Vec<f64>> = vec![Vec::new(); PATHS.len() * families.len()];
    for _ in 0..scope.rounds(21) {
        node::hear(&mut kernel);
        let mut each = samples.iter_mut();
        for (_, family) in &families {
            for (path, samples) in PATHS.iter().zip(&mut each) {
                samples.push(sample(&mut kernel, empty, path, family)?);
            }
        }
    }
    let labels = families.iter().flat_map(|(name, _)| PATHS.iter().map(move |path| (*name, path)));
    let figure = |((family, path), samples): ((&str, &Path), Vec<f64>)| {
        Figure::median("verdict_ns", samples, "ns")
            .label("path", path.name)
            .label("family", family)
            .label("keys", "hot")
            .label("grants", "4")
            .reference(Bound::AtMost(path.reference))
    };
    Ok(labels.zip(samples).map(figure).collect())
}

/// Nanoseconds of one run, net, with the counter as witness that it went where it was meant to go.
fn sample(kernel: &mut Kernel, empty: &Empty, path: &Path, family: &Family) -> Result<f64> {
    let frame = (path.packet)(family).frame();
    let count = |kernel: &mut Kernel| path.counter.map_or(0, |index| kernel.counter(index));
    let before = count(kernel);
    let gross = kernel.time("from_pod", &frame, REPEAT);
    let counted = count(kernel) - before;
    let expected = path.counter.map_or(0, |_| u64::from(REPEAT));
    ensure!(counted == expected, "{}: {counted} of {expected} packets were counted", path.name);
    let base = empty.time(&frame, REPEAT).context("cannot run the empty program")?;
    Ok(f64::from(u32::try_from(gross).unwrap_or(u32::MAX)) - f64::from(base))
}

/// Grants of one family in the spread run: pods, each with as many services.
const PODS: u16 = 100;
const SERVICES: u16 = 1000;
/// Packets of other flows in front of each that is measured, and how many flows.
const WARM: u32 = 200;
const WARM_FLOWS: u32 = 8;
/// Nanoseconds that a packet may cost whose grant and flow no cache holds.
const SPREAD_NS: f64 = 900.0;

/// Pod and service of a number.
fn pair(family: &Family, pod: u16, service: u16) -> (IpAddr, IpAddr) {
    let number = |address: IpAddr, low: u16| match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            let [c, d] = low.to_be_bytes();
            IpAddr::from([a, b, c, d])
        }
        IpAddr::V6(address) => {
            let mut parts = address.segments();
            parts[7] = low;
            IpAddr::from(parts)
        }
    };
    (number(family.pod, 0x1000 + pod), number(family.service, 0x1000 + service))
}

/// Nodes that are filled one after another: where in memory the entries of one lie is luck, and decides by half.
const NODES: usize = 5;

/// Every packet is another pod's, to another service: its open flow, its grant and its counters come from memory.
fn spread(scope: Scope, empty: &Empty) -> Result<Vec<Figure>> {
    let (pods, services) = if scope.quick { (10, 10) } else { (PODS, SERVICES) };
    let grants = u32::from(pods) * u32::from(services);
    let mut figures = Vec::new();
    for (name, family) in [("v4", node::v4()), ("v6", node::v6())] {
        let mut samples = Vec::new();
        for _ in 0..scope.rounds(NODES) {
            spread_over_one(scope, empty, &family, (pods, services), &mut samples)?;
        }
        figures.push(
            Figure::median("verdict_ns", samples, "ns")
                .label("path", "allow")
                .label("family", name)
                .label("keys", "spread")
                .label("grants", grants.to_string())
                .reference(Bound::AtMost(SPREAD_NS)),
        );
    }
    Ok(figures)
}

fn spread_over_one(
    scope: Scope,
    empty: &Empty,
    family: &Family,
    (pods, services): (u16, u16),
    samples: &mut Vec<f64>,
) -> Result<()> {
    let grants = u32::from(pods) * u32::from(services);
    let mut kernel = node::node_of_its_own(grants + 64);
    fill(&mut kernel, family, pods, services);
    let frame = |number: u32| {
        // Neighbours in this order share neither pod nor service.
        let (pod, service) = (number % u32::from(pods), number / u32::from(pods));
        let (source, destination) = pair(family, pod as u16, service as u16);
        Packet::tcp((source, 40_000).into(), (destination, PORT).into(), ACK).frame()
    };
    for number in 0..grants {
        kernel.run("from_pod", &frame(number));
    }
    for step in 0..scope.rounds(400) as u32 {
        if step % 100 == 0 {
            node::hear(&mut kernel);
        }
        // The system calls in between have taken the program's own code out of the caches; its entries are to be
        // cold, not that. Several other flows, as on a node that has many: the processor learns how deep in its
        // buckets a flow is found, and one and the same would decide all samples by its luck.
        let mut warm = Vec::new();
        for other in 0..WARM_FLOWS {
            warm = frame((step * 7907 + other * 104_729 + grants / 2) % grants);
            kernel.time("from_pod", &warm, WARM / WARM_FLOWS);
        }
        let frame = frame((step * 7919) % grants);
        let before = kernel.counter(counter::ALLOWED);
        let gross = kernel.time("from_pod", &frame, 1);
        ensure!(kernel.counter(counter::ALLOWED) == before + 1, "a packet of a flow was not allowed");
        empty.time(&warm, WARM).context("cannot run the empty program")?;
        let base = empty.time(&frame, 1).context("cannot run the empty program")?;
        samples.push(f64::from(u32::try_from(gross).unwrap_or(u32::MAX)) - f64::from(base));
    }
    Ok(())
}

fn fill(kernel: &mut Kernel, family: &Family, pods: u16, services: u16) {
    let config: NodeConfig = kernel.at(name::NODE_CONFIG, 0);
    kernel.put(name::NODE_CONFIG, 0, NodeConfig { flow_quota: u32::from(services) + 64, ..config });
    for pod in 0..pods {
        let (address, _) = pair(family, pod, 0);
        let workload = Workload { id: 1000 + u32::from(pod), ..node::workload() };
        kernel.set(name::WIRE, WireKey { address: address.into(), ifindex: LOOPBACK, pad: 0 }, workload);
        for service in 0..services {
            let (_, service_address) = pair(family, pod, service);
            let key = GrantKey {
                service: service_address.into(),
                workload: workload.id,
                port: Port::new(PORT),
                protocol: TCP,
                pad: 0,
            };
            let id = 1000 + u32::from(pod) * u32::from(services) + u32::from(service);
            kernel.set(name::GRANTS, key, Grant { id, ..node::grant() });
        }
    }
}
