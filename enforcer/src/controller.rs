//! `enforcer controller`: the only allocator of numbers and addresses, and the author of `status`.
//!
//! ```text
//! manifests ─▶ Snapshot ─┐
//!                        ├─▶ step (pure): allocate, resolve, status ─▶ state file, View
//! last State ────────────┘
//! ```

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    net::Ipv6Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use ipnet::{Ipv4Net, Ipv6Net};
use nix::fcntl::{Flock, FlockArg};
use serde_json::json;
use tokio::sync::watch;

use crate::{
    control::{self, View, Views},
    netlink::Netlink,
    resolve::{Resolved, resolve, resolve_after},
    signals,
    source::manifests,
    state::{self, Condition, State},
    store::Snapshot,
};

pub mod allocate;
#[cfg(test)]
mod bad_input;
pub mod ranges;
mod status;
#[cfg(test)]
mod tests;

/// A failed save is tried again this often.
const RETRY: Duration = Duration::from_secs(2);
/// What the file is late by where only status has changed: every reader reads it anew. The references that a new object
/// has first are part of that: an edit within this time is judged by the roles when the file has them.
const STATUS_DELAY: Duration = Duration::from_secs(1);

/// How often, and how far apart, the lock of the state file is tried.
const LOCK_TRIES: u32 = 30;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

const DEFAULT_SERVICE_RANGE: &str = "198.18.0.0/16";
const DEFAULT_WORKLOAD_RANGE: &str = "198.19.0.0/16";

/// What `enforcer controller` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Folder of YAML that has the objects
    #[arg(long, value_name = "DIR")]
    pub manifests: PathBuf,
    /// Where allocations are kept [default: DIR.state.json]
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Addresses of services; fixed once the state file exists [default: 198.18.0.0/16]
    #[arg(long, value_name = "PREFIX")]
    pub service_range: Option<Ipv4Net>,
    /// Addresses of workloads, nodes and gateways; fixed once the state file exists [default: 198.19.0.0/16]
    #[arg(long, value_name = "PREFIX")]
    pub workload_range: Option<Ipv4Net>,
    /// Folder of the control socket
    #[arg(long, value_name = "DIR", default_value = "/run/enforcer/controller")]
    pub run_dir: PathBuf,
}

/// Runs until the process ends.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let path = args.state.clone().unwrap_or_else(|| state::default_path(&args.manifests));
    outside(&path, &args.manifests)?;
    let _lock = lock(&path).await?;
    let saved = state::load(&path)?.map(Arc::new);
    let before = match &saved {
        Some(state) => adopt(state, &path, &args).map(|()| Arc::clone(state))?,
        None => Arc::new(install(&args)?),
    };
    let taken = in_use(&before).await.context("cannot read the routes and addresses of this machine")?;
    ranges::check(&before, &taken)?;
    let memory = manifests::Memory::Own(state::accepted_path(&path));
    let mut snapshots = manifests::watch(&args.manifests, memory)?;
    fs::create_dir_all(&args.run_dir)
        .with_context(|| format!("cannot make --run-dir {}", args.run_dir.display()))?;
    let (views, view) = watch::channel(View::default());
    let mut serving =
        tokio::spawn(control::serve(args.run_dir.join("controller.sock"), Views::told(view), None));

    let counted = status::Counted::default();
    let mut controller =
        Controller { path, saved, state: before, late: None, last: None, counted, logged: Vec::new() };
    let stop = signals::told_to_end()?;
    tokio::pin!(stop);
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        let (view, save_after) = controller.cycle(snapshot, Instant::now());
        views.send_replace(view);
        tokio::select! {
            changed = snapshots.changed() => changed.context("the manifests are not watched any more")?,
            () = tokio::time::sleep(save_after.unwrap_or_default()), if save_after.is_some() => {}
            ended = &mut serving => return ended.context("the control socket has crashed")?,
            () = &mut stop => return controller.write().map_err(anyhow::Error::msg),
        }
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

struct Controller {
    path: PathBuf,
    /// What the file says.
    saved: Option<Arc<State>>,
    state: Arc<State>,
    /// Since when the file says less than the state, but for nothing that is urgent.
    late: Option<Instant>,
    /// The last turn: the objects, and what was made of them.
    last: Option<(Arc<Snapshot>, Arc<Resolved>, allocate::Shortages)>,
    counted: status::Counted,
    /// Problems that are in the log already.
    logged: Vec<String>,
}

impl Controller {
    /// The view of this turn, and when to save what the file does not have yet.
    fn cycle(&mut self, snapshot: Arc<Snapshot>, at: Instant) -> (View, Option<Duration>) {
        let last = self.last.as_ref();
        let last = last.map(|(snapshot, resolved, shortages)| status::Last { snapshot, resolved, shortages });
        let step = step_after(&snapshot, &self.state, &now(), last, &mut self.counted);
        let mut problems: Vec<String> = snapshot.problems.iter().map(ToString::to_string).collect();
        problems.extend(step.resolved.problems(&snapshot).iter().map(ToString::to_string));
        problems.extend(step.shortages.iter().map(|(key, message)| format!("{key}: {message}")));
        problems.dedup();
        for problem in problems.iter().filter(|problem| !self.logged.contains(problem)) {
            tracing::warn!("{problem}");
        }
        self.logged.clone_from(&problems);
        let resolved = Arc::new(step.resolved);
        self.last = Some((Arc::clone(&snapshot), Arc::clone(&resolved), step.shortages));
        self.state = Arc::new(step.state);
        let (failure, save_after) = match self.save(at) {
            Ok(after) => (None, after),
            Err(failure) => (Some(failure), Some(RETRY)),
        };
        let conditions = [
            condition("StateSaved", "Saved", "SaveFailed", failure.as_slice()),
            condition("ManifestsAccepted", "Accepted", "Refused", &problems),
        ];
        let name = self.path.display().to_string();
        let view = View {
            snapshot,
            resolved,
            state: Some(Arc::clone(&self.state)),
            role: json!({"role": "controller", "name": name, "conditions": conditions}),
            ..View::default()
        };
        (view, save_after)
    }

    /// Writes what the file does not have. Allocations at once: until they are saved they are given to nobody, because
    /// readers have the file. Returns when to write the rest, or why nothing could be written.
    fn save(&mut self, at: Instant) -> Result<Option<Duration>, String> {
        if self.saved.as_ref() == Some(&self.state) {
            self.late = None;
            return Ok(None);
        }
        let since = *self.late.get_or_insert(at);
        let is_urgent = self.saved.as_ref().is_none_or(|saved| !saved.means_the_same_as(&self.state));
        let wait = STATUS_DELAY.saturating_sub(at.duration_since(since));
        if !is_urgent && !wait.is_zero() {
            return Ok(Some(wait));
        }
        self.write().inspect_err(|message| {
            tracing::error!("{message}; tried again in {} s", RETRY.as_secs());
        })?;
        Ok(None)
    }

    /// Brings the file to the state.
    fn write(&mut self) -> Result<(), String> {
        if self.saved.as_ref() != Some(&self.state) {
            let written = state::save(&self.path, &self.state);
            written.map_err(|error| format!("{:#}", anyhow::Error::new(error)))?;
            self.saved = Some(Arc::clone(&self.state));
        }
        self.late = None;
        Ok(())
    }
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

/// A state file in the watched folder would be taken for a manifest.
fn outside(path: &Path, manifests: &Path) -> anyhow::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (Ok(parent), Ok(manifests)) = (parent.canonicalize(), manifests.canonicalize()) else {
        return Ok(());
    };
    ensure!(
        !parent.starts_with(&manifests),
        "--state {}: expected a file outside of --manifests {}",
        path.display(),
        manifests.display()
    );
    Ok(())
}

/// Two allocators would give one address twice. A predecessor that was killed a moment ago may still be dying.
async fn lock(path: &Path) -> anyhow::Result<Flock<fs::File>> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let open = || fs::OpenOptions::new().write(true).create(true).truncate(false).open(&beside);
    let mut file = open().with_context(|| format!("cannot open {}", beside.display()))?;
    for _ in 0..LOCK_TRIES {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((same, nix::errno::Errno::EWOULDBLOCK)) => file = same,
            Err((_, error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", beside.display()));
            }
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    bail!("another enforcer controller has the state file {}", path.display())
}

/// Ranges are for the life of an install: addresses in use cannot be moved.
fn adopt(state: &State, path: &Path, args: &Args) -> anyhow::Result<()> {
    let pairs = [
        ("--service-range", args.service_range, state.service_range),
        ("--workload-range", args.workload_range, state.workload_range),
    ];
    for (flag, given, kept) in pairs {
        if let Some(given) = given.filter(|given| *given != kept) {
            bail!("{flag} {given}: state file {} was made with {kept}, expected the same", path.display());
        }
    }
    Ok(())
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

/// Addresses and routes of this machine that are not ours: an agent beside us has routes to the very ranges.
async fn in_use(state: &State) -> anyhow::Result<Vec<ranges::Taken>> {
    let netlink = Netlink::open(None)?;
    let links = netlink.links().await?;
    let name = |index: u32| {
        let link = links.iter().find(|link| link.ifindex == index);
        link.map_or_else(|| format!("device {index}"), |link| link.name.clone())
    };
    let ours = |name: &str| name == "enforcer0" || name == "tunnel0" || name.starts_with("ef-");
    let own_prefixes = [state.service_range.into(), state.workload_range.into()];
    let mut taken = Vec::new();
    for (index, address) in netlink.addresses(None).await? {
        let name = name(index);
        if !ours(&name) {
            taken.push((format!("address of {name}"), address));
        }
    }
    for (prefix, index) in netlink.routed_prefixes().await? {
        // The kernel shows IPv6 blackholes as routes of `lo`.
        match index.map(name).filter(|name| name != "lo") {
            Some(name) if ours(&name) => {}
            Some(name) => taken.push((format!("route of {name}"), prefix)),
            // Blackholes: the boot guard's and an agent's are of our ranges exactly.
            None if own_prefixes.contains(&prefix) || is_own_v6(state, prefix) => {}
            None => taken.push(("route without a device".to_owned(), prefix)),
        }
    }
    Ok(taken)
}

fn is_own_v6(state: &State, prefix: ipnet::IpNet) -> bool {
    ipnet::IpNet::from(state.ula).contains(&prefix)
}
