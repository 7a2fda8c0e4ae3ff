//! The controller of a folder: allocations are kept in a state file, which everybody else reads.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use serde_json::json;
use tokio::sync::watch;

use super::{Args, Turns, condition, install, ranges};
use crate::{
    control::{self, View, Views},
    netlink::Netlink,
    signals,
    source::manifests,
    state::{self, State},
    store::Snapshot,
};

/// A failed save is tried again this often.
pub(super) const RETRY: Duration = Duration::from_secs(2);
/// What the file is late by where only status has changed: every reader reads it anew. The references that a new object
/// has first are part of that: an edit within this time is judged by the roles when the file has them.
pub(super) const STATUS_DELAY: Duration = Duration::from_secs(1);

/// How often, and how far apart, the lock of the state file is tried.
const LOCK_TRIES: u32 = 30;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Runs until it is told to end.
pub(super) async fn run(args: Args, manifests: &Path) -> anyhow::Result<()> {
    let path = args.source.state.clone().unwrap_or_else(|| state::default_path(manifests));
    outside(&path, manifests)?;
    let _lock = lock(&path).await?;
    let saved = state::load(&path)?.map(Arc::new);
    let before = match &saved {
        Some(state) => adopt(state, &path, &args).map(|()| Arc::clone(state))?,
        None => Arc::new(install(&args)?),
    };
    let taken = in_use(&before).await.context("cannot read the routes and addresses of this machine")?;
    ranges::check(&before, &taken)?;
    let memory = manifests::Memory::Own(state::accepted_path(&path));
    let mut snapshots = manifests::watch(manifests, memory)?;
    fs::create_dir_all(&args.run_dir)
        .with_context(|| format!("cannot make --run-dir {}", args.run_dir.display()))?;
    let (views, view) = watch::channel(View::default());
    let mut serving =
        tokio::spawn(control::serve(args.run_dir.join("controller.sock"), Views::told(view), None));

    let mut controller = Controller { path, saved, late: None, turns: Turns::from(before) };
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

pub(super) struct Controller {
    pub(super) path: PathBuf,
    /// What the file says.
    pub(super) saved: Option<Arc<State>>,
    /// Since when the file says less than the state, but for nothing that is urgent.
    pub(super) late: Option<Instant>,
    pub(super) turns: Turns,
}

impl Controller {
    /// The view of this turn, and when to save what the file does not have yet.
    pub(super) fn cycle(&mut self, snapshot: Arc<Snapshot>, at: Instant) -> (View, Option<Duration>) {
        let (resolved, problems) = self.turns.turn(&snapshot);
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
            state: Some(Arc::clone(&self.turns.state)),
            role: json!({"role": "controller", "name": name, "conditions": conditions}),
            ..View::default()
        };
        (view, save_after)
    }

    /// Writes what the file does not have. Allocations at once: until they are saved they are given to nobody, because
    /// readers have the file. Returns when to write the rest, or why nothing could be written.
    fn save(&mut self, at: Instant) -> Result<Option<Duration>, String> {
        if self.saved.as_ref() == Some(&self.turns.state) {
            self.late = None;
            return Ok(None);
        }
        let since = *self.late.get_or_insert(at);
        let is_urgent = self.saved.as_ref().is_none_or(|saved| !saved.means_the_same_as(&self.turns.state));
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
        if self.saved.as_ref() != Some(&self.turns.state) {
            let written = state::save(&self.path, &self.turns.state);
            written.map_err(|error| format!("{:#}", anyhow::Error::new(error)))?;
            self.saved = Some(Arc::clone(&self.turns.state));
        }
        self.late = None;
        Ok(())
    }
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
