//! `cargo xtask bench`: what a verdict costs, in the kernel that runs here.
//!
//! Every figure is net of an empty program's time in the same round; rounds go through all paths in turn, so that a
//! machine whose speed drifts does so for all of them. The value is the median of the rounds, with the quartiles.

mod empty;

use anyhow::{Context as _, Result, ensure};
use enforcer_common::{maps::counter, verdict::DropReason};
use serde_json::{Value, json};

use crate::{
    packet::{ACK, Packet},
    prog::{
        kernel::Kernel,
        node::{self, Family, OFFERED},
    },
};
use empty::Empty;

/// Packets of one measurement.
const REPEAT: u32 = 20_000;
const ROUNDS: usize = 21;

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

/// Measures and prints; `json`: an object a line.
#[expect(clippy::print_stdout, reason = "the figures are the result")]
pub fn run(as_json: bool) -> Result<()> {
    if !as_json {
        println!(
            "{:<12} {:<10} {:<6} {:>8} {:>8} {:>8} {:>10}",
            "metric", "path", "family", "median", "low", "high", "reference"
        );
    }
    for figure in verdicts()? {
        if as_json {
            println!("{figure}");
            continue;
        }
        let text = |field: &str| figure[field].as_str().unwrap_or_default().to_owned();
        let number = |field: &str| figure[field].as_f64().unwrap_or_default();
        println!(
            "{:<12} {:<10} {:<6} {:>8.0} {:>8.0} {:>8.0} {:>7} {}",
            text("metric"),
            text("path"),
            text("family"),
            number("value"),
            number("low"),
            number("high"),
            number("reference"),
            text("unit"),
        );
    }
    Ok(())
}

/// `verdict_ns` of `from_pod` for every path and family, hot keys.
fn verdicts() -> Result<Vec<Value>> {
    let empty = Empty::load().context("cannot load an empty program")?;
    let mut kernel = node::node();
    let families = [("v4", node::v4()), ("v6", node::v6())];
    let mut samples: Vec<Vec<f64>> = vec![Vec::new(); PATHS.len() * families.len()];
    for _ in 0..ROUNDS {
        node::hear(&mut kernel);
        let mut each = samples.iter_mut();
        for (_, family) in &families {
            for (path, samples) in PATHS.iter().zip(&mut each) {
                samples.push(sample(&mut kernel, &empty, path, family)?);
            }
        }
    }
    let labels = families.iter().flat_map(|(name, _)| PATHS.iter().map(move |path| (*name, path)));
    Ok(labels.zip(samples).map(|((family, path), samples)| figure(family, path, samples)).collect())
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

fn figure(family: &str, path: &Path, mut samples: Vec<f64>) -> Value {
    samples.sort_by(f64::total_cmp);
    json!({
        "metric": "verdict_ns", "path": path.name, "family": family, "keys": "hot",
        "value": samples[samples.len() / 2],
        "low": samples[samples.len() / 4],
        "high": samples[samples.len() * 3 / 4],
        "unit": "ns", "reference": path.reference,
    })
}
