//! `enforcer controller`: the only allocator of numbers and addresses, and the author of `status`.
//!
//! ```text
//! manifests ─▶ Snapshot ─┐
//!                        ├─▶ step (pure): allocate, resolve, status ─▶ state file, View
//! last State ────────────┘
//! ```

use std::{collections::BTreeMap, fs, io::Read as _, net::Ipv6Addr, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use ipnet::{Ipv4Net, Ipv6Net};

use crate::{
    resolve::{Resolved, resolve, resolve_after},
    source::{Project, SourceArgs},
    state::{Condition, State},
    store::Snapshot,
};

pub mod allocate;
#[cfg(test)]
mod bad_input;
mod cluster;
pub mod ranges;
mod standalone;
mod status;
#[cfg(test)]
mod tests;

const DEFAULT_SERVICE_RANGE: &str = "198.18.0.0/16";
const DEFAULT_WORKLOAD_RANGE: &str = "198.19.0.0/16";

/// What `enforcer controller` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub project: Project,
    /// Name of the cluster, as its agents have it: taints are removed from nodes of no other [default: from all]
    #[arg(long, value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// Namespace of the Lease that says which controller leads
    #[arg(long, value_name = "NAME", default_value = "enforcer-system")]
    pub lease_namespace: String,
    /// Addresses of services; fixed once there are allocations [default: 198.18.0.0/16]
    #[arg(long, value_name = "PREFIX")]
    pub service_range: Option<Ipv4Net>,
    /// Addresses of workloads, nodes and gateways; fixed once there are allocations [default: 198.19.0.0/16]
    #[arg(long, value_name = "PREFIX")]
    pub workload_range: Option<Ipv4Net>,
    /// Folder of the control socket
    #[arg(long, value_name = "DIR", default_value = "/run/enforcer/controller")]
    pub run_dir: PathBuf,
}

/// Runs until it is told to end.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.source.manifests.clone() {
        Some(manifests) => standalone::run(args, &manifests).await,
        None => cluster::run(args).await,
    }
}

/// What of the objects and the last state follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub state: State,
    pub resolved: Resolved,
    pub shortages: allocate::Shortages,
}

/// One turn of the controller; pure. `now` is RFC 3339 and lands in conditions that changed. `last` is the turn whose
/// outcome `before` was; it and `counted` are only stores of work already done.
fn step_after(
    snapshot: &Snapshot,
    before: &State,
    now: &str,
    last: Option<status::Last>,
    counted: &mut status::Counted,
) -> Step {
    // What pods need depends on the connections, and those on addresses: first the addresses, then the blocks.
    let (mut state, mut shortages) = allocate::allocate(snapshot, &BTreeMap::new(), before);
    let mut last = last.filter(|last| last.followed_from(before).holds(snapshot, &state));
    let mut resolved = resolve_after(snapshot, &state, last.map(|last| last.followed_from(before)));
    let nodes = state.nodes.clone();
    shortages.extend(allocate::blocks(snapshot, &status::workloads(snapshot, &resolved), &mut state));
    if state.nodes != nodes {
        resolved = resolve(snapshot, &state);
        last = None;
    }
    status::write(snapshot, (&resolved, &shortages), now, &mut state, counted, last);
    Step { state, resolved, shortages }
}

/// The first turn of a controller.
#[cfg(test)]
pub fn step(snapshot: &Snapshot, before: &State, now: &str) -> Step {
    step_after(snapshot, before, now, None, &mut status::Counted::default())
}

fn condition(kind: &str, good: &str, bad: &str, failures: &[String]) -> Condition {
    let is_good = failures.is_empty();
    Condition {
        kind: kind.to_owned(),
        status: if is_good { "True" } else { "False" }.to_owned(),
        reason: if is_good { good } else { bad }.to_owned(),
        message: failures.join("\n"),
        last_transition_time: None,
    }
}

fn now() -> String {
    let second = jiff::Timestamp::now().as_second();
    jiff::Timestamp::from_second(second).map_or_else(|_| String::new(), |time| time.to_string())
}

fn install(args: &Args) -> anyhow::Result<State> {
    let or = |given: Option<Ipv4Net>, default: &str| given.map_or_else(|| default.parse(), Ok);
    let service_range = or(args.service_range, DEFAULT_SERVICE_RANGE)?;
    let workload_range = or(args.workload_range, DEFAULT_WORKLOAD_RANGE)?;
    Ok(State::new(random_ula()?, service_range, workload_range))
}

/// RFC 4193: fd and 40 random bits.
fn random_ula() -> anyhow::Result<Ipv6Net> {
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes[1..6]))
        .context("cannot read /dev/urandom")?;
    Ok(Ipv6Net::new(Ipv6Addr::from(bytes), 48)?)
}

/// One turn after another.
struct Turns {
    state: Arc<State>,
    /// The last turn: the objects, and what was made of them.
    last: Option<(Arc<Snapshot>, Arc<Resolved>, allocate::Shortages)>,
    counted: status::Counted,
    /// Problems that are in the log already.
    logged: Vec<String>,
}

impl Turns {
    fn from(state: Arc<State>) -> Self {
        Self { state, last: None, counted: status::Counted::default(), logged: Vec::new() }
    }

    /// Takes the objects, and returns what they mean and what is wrong with them.
    fn turn(&mut self, snapshot: &Arc<Snapshot>) -> (Arc<Resolved>, Vec<String>) {
        let last = self.last.as_ref();
        let last = last.map(|(snapshot, resolved, shortages)| status::Last { snapshot, resolved, shortages });
        let step = step_after(snapshot, &self.state, &now(), last, &mut self.counted);
        let mut problems: Vec<String> = snapshot.problems.iter().map(ToString::to_string).collect();
        problems.extend(step.resolved.problems(snapshot).iter().map(ToString::to_string));
        problems.extend(step.shortages.iter().map(|(key, message)| format!("{key}: {message}")));
        problems.dedup();
        for problem in problems.iter().filter(|problem| !self.logged.contains(problem)) {
            tracing::warn!("{problem}");
        }
        self.logged.clone_from(&problems);
        let resolved = Arc::new(step.resolved);
        self.last = Some((Arc::clone(snapshot), Arc::clone(&resolved), step.shortages));
        self.state = Arc::new(step.state);
        (resolved, problems)
    }
}
