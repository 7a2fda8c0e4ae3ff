//! `verdict_ns`: what a verdict costs in the kernel that runs here, net of an empty program.
//!
//! Rounds go through all paths in turn, so that a machine whose speed drifts does so for all of them.

use anyhow::{Context as _, Result, ensure};
use enforcer_common::{maps::counter, verdict::DropReason};

use super::{
    Scope,
    empty::Empty,
    figure::{Bound, Figure},
};
use crate::{
    packet::{ACK, Packet},
    prog::{
        kernel::Kernel,
        node::{self, Family, OFFERED},
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
        packet: |family| Packet::tcp(family.client(), (family.service, OFFERED).into(), ACK),
        counter: Some(DropReason::NoGrant as u32),
    },
    Path {
        name: "allow",
        reference: 300.0,
        packet: |family| family.out(ACK),
        counter: Some(counter::ALLOWED),
    },
];

/// `verdict_ns` of `from_pod` for every path and family, hot keys.
pub fn figures(scope: Scope) -> Result<Vec<Figure>> {
    let empty = Empty::load().context("cannot load an empty program")?;
    let mut kernel = node::node();
    let families = [("v4", node::v4()), ("v6", node::v6())];
    let mut samples: Vec<Vec<f64>> = vec![Vec::new(); PATHS.len() * families.len()];
    for _ in 0..scope.rounds(21) {
        node::hear(&mut kernel);
        let mut each = samples.iter_mut();
        for (_, family) in &families {
            for (path, samples) in PATHS.iter().zip(&mut each) {
                samples.push(sample(&mut kernel, &empty, path, family)?);
            }
        }
    }
    let labels = families.iter().flat_map(|(name, _)| PATHS.iter().map(move |path| (*name, path)));
    let figure = |((family, path), samples): ((&str, &Path), Vec<f64>)| {
        Figure::median("verdict_ns", samples, "ns")
            .label("path", path.name)
            .label("family", family)
            .label("keys", "hot")
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
