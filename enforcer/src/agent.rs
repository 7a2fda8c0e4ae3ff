//! `enforcer agent`: keeps a node's kernel at what the objects say.
//!
//! ```text
//! manifests, state ─▶ resolve ─┐
//! devices, visits ─▶ pods ─────┼─▶ compile ─▶ plan ─▶ maps
//! tunnels, acknowledgements ───┘        └──▶ announce
//! ```
//!
//! One loop owns everything: it takes all events that are there, then runs one cycle. Nothing polls on the way of a
//! new pod. The kernel keeps working without this process.

mod announced;
mod apply;
mod args;
mod boot_unit;
mod cleanup;
mod cycle;
mod devices;
mod ending;
mod events;
mod guarded;
mod memory;
mod pair;
mod pods;
mod prepare;
mod register;
mod revoke;
mod start;
mod traffic;
mod tunnels;
mod view;

use std::{
    collections::BTreeMap,
    fs::File,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use enforcer_common::grant::GrantStats;
use nix::fcntl::Flock;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, watch};

use crate::{
    announce::client::AckUpdate,
    compile::{Ledger, Pair},
    control::{self, Asked, MonitorEvent, Views},
    datapath::kernel::{Events, KernelNode, namespace_inode},
    netlink,
    resolve::{self, Before, Node, Resolved},
    signals, state,
    store::Snapshot,
};

pub use args::Args;
pub use cleanup::cleanup;
pub use prepare::prepare;

/// Between two looks at the clock, counters and tunnels.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two views that nobody has asked for.
const SHOW_TICKS: u64 = 10;
/// Lines that a slow `monitor` may be behind.
const MONITOR_BACKLOG: usize = 4096;

/// Everything the loop owns.
pub(crate) struct Agent {
    args: Args,
    netns: PathBuf,
    _lock: Flock<File>,
    datapath: KernelNode,
    ledger: Ledger,
    ledger_file: start::LedgerFile,
    snapshot: Arc<Snapshot>,
    state: Option<Arc<state::State>>,
    resolved: Arc<Resolved>,
    /// This node, once it has its addresses.
    node: Option<Node>,
    setup: Option<cycle::Setup>,
    setup_problem: Option<String>,
    pair: Pair,
    pods: pods::Pods,
    devices: devices::Devices,
    tunnels: tunnels::Tunnels,
    tunnels_common: tunnels::Common,
    announced: announced::Announced,
    applied: apply::Applied,
    conditions: view::Conditions,
    ending: ending::Ending,
    /// What a predecessor may have left to be ended has been looked for.
    swept: bool,
    /// Everything that guards is attached.
    guarded: bool,
    /// For the next boot.
    kept: guarded::Kept,
    /// What is wrong with the boot guard; none where nobody asked for one.
    boot_guard: Option<watch::Receiver<boot_unit::Wrong>>,
    /// Devices, routes and tunnels are to be compared with the objects.
    look_around: bool,
    ticks: u64,
    boot_unix_ns: i128,
    /// Grants that ended before this moment have been dealt with.
    expired_until: u64,
    pressure: Value,
    /// Events that the kernel had left out at the last look.
    events_missed: Option<u64>,
    /// What the kernel has counted, as of the last look.
    accounts: watch::Receiver<Arc<traffic::Ledger>>,
    /// By the number of the connection.
    traffic: BTreeMap<u32, GrantStats>,
    names: watch::Sender<events::Names>,
    asked: Arc<Asked>,
    monitor: broadcast::Sender<MonitorEvent>,
    /// Where the objects come from an API server.
    server: Option<register::Registered>,
}

/// Runs the role until it is told to end. What it has set up stays.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let run_dir = args.run_dir.clone().unwrap_or_else(|| Path::new("/run/enforcer").join(&args.node));
    let lock = start::lock(&run_dir)?;
    let (mut agent, inputs, outputs) = open(args, &run_dir, lock).await?;
    let monitor = agent.monitor.clone();
    let socket = run_dir.join("agent.sock");
    let control = tokio::spawn(control::serve(socket, outputs.views, Some(monitor.clone())));
    if let Some(events) = outputs.events {
        tokio::spawn(events::run(events, outputs.names, monitor));
    }
    let stop = signals::told_to_end()?;
    let result = tokio::select! {
        result = agent.run(inputs) => result,
        ended = control => ended.context("the control socket's task failed")?.context("control socket"),
        () = stop => Ok(()),
    };
    agent.keep_names();
    tracing::info!("the agent ends, the kernel keeps working");
    result
}

/// Takes over what a predecessor left in the kernel and in files, and begins to follow everything.
async fn open(args: Args, run_dir: &Path, lock: Flock<File>) -> anyhow::Result<(Agent, Inputs, Outputs)> {
    let bpffs = args.bpffs_path();
    if let Some(path) = args.source.state_path() {
        start::refuse_missing(&path, &bpffs)?;
        // A damaged file is told now; later ones leave the last good state.
        state::load(&path)?;
    }
    let (ledger_file, ledger) = start::LedgerFile::load(run_dir, &bpffs)?;
    let common = common(&args, run_dir)?;
    let mut datapath = KernelNode::open(&bpffs, &args.options())?;
    let events = datapath.take_events().context("cannot read the kernel's events")?;
    let (pods, sights) = pods::Pods::new(args.source.manifests.is_none());
    let (tunnels, reports) = tunnels::Tunnels::new(common.clone());
    let (announced, acks) = announced::Announced::new(common.netns.clone());
    let (snapshots, states, server) = register::follow(&args, run_dir, &common.private_key).await?;
    let inputs = Inputs { snapshots, states, devices: netlink::watch_devices(None)?, sights, reports, acks };
    let (names, names_receiver) = watch::channel(events::Names::default());
    let (asked, views) = Views::asked();
    let host_netns = namespace_inode(None).context("cannot tell the own network namespace")?;
    let agent = Agent {
        netns: common.netns.clone(),
        _lock: lock,
        applied: apply::Applied::adopt(&datapath)?,
        ending: ending::Ending::start(datapath.orphans()?).context("cannot start a thread")?,
        accounts: traffic::follow(datapath.accounts()?).context("cannot start a thread")?,
        devices: devices::Devices::adopt(&datapath, host_netns).context("cannot read what is attached")?,
        datapath,
        ledger,
        ledger_file,
        snapshot: Arc::default(),
        state: None,
        resolved: Arc::default(),
        node: None,
        setup: None,
        setup_problem: None,
        pair: Pair::default(),
        pods,
        tunnels,
        tunnels_common: common,
        announced,
        conditions: view::Conditions::default(),
        swept: false,
        guarded: false,
        kept: guarded::Kept::at(args.guarded.clone()),
        boot_guard: args.keep_boot_guard(),
        look_around: true,
        ticks: 0,
        boot_unix_ns: boot_unix_ns(),
        expired_until: boot_ns(),
        pressure: Value::Null,
        events_missed: None,
        traffic: BTreeMap::new(),
        names,
        asked: Arc::new(asked),
        monitor: broadcast::channel(MONITOR_BACKLOG).0,
        server,
        args,
    };
    Ok((agent, inputs, Outputs { events, names: names_receiver, views }))
}

fn common(args: &Args, run_dir: &Path) -> anyhow::Result<tunnels::Common> {
    // Without it no connect is judged, and no other guard is attached either.
    crate::cgroup::root(args.cgroup_root.as_deref())?;
    Ok(tunnels::Common {
        node: args.node.clone(),
        mode: args.tunnel,
        netns: args.tunnel_netns.clone().unwrap_or_else(|| tunnels::default_netns(&args.node)),
        private_key: args.private_key()?,
        run_dir: run_dir.to_owned(),
    })
}

/// Where to tell what the loop knows and what the kernel sees.
struct Outputs {
    events: Option<Events>,
    names: watch::Receiver<events::Names>,
    views: Views,
}

/// What comes from outside.
struct Inputs {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    states: watch::Receiver<Option<Arc<state::State>>>,
    devices: mpsc::UnboundedReceiver<netlink::DeviceEvent>,
    sights: mpsc::UnboundedReceiver<pods::Found>,
    reports: mpsc::UnboundedReceiver<tunnels::Report>,
    acks: mpsc::Receiver<AckUpdate>,
}

impl Agent {
    async fn run(&mut self, mut inputs: Inputs) -> anyhow::Result<()> {
        self.devices.replace(netlink::Netlink::open(None)?.links().await?);
        self.take_objects(&mut inputs);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut due = tokio::time::Instant::now();
        let asked = Arc::clone(&self.asked);
        loop {
            let mut ticked = false;
            tokio::select! {
                changed = inputs.snapshots.changed() => changed.context("the manifests are not followed any more")?,
                changed = inputs.states.changed() => changed.context("the state file is not followed any more")?,
                event = inputs.devices.recv() => self.device_event(event, &mut inputs).await?,
                // Most looks find what the one before has found.
                Some(found) = inputs.sights.recv() => if !self.pods.found(found) { continue },
                Some(report) = inputs.reports.recv() => self.tunnel_report(report).await,
                Some(update) = inputs.acks.recv() => self.acknowledgement(update),
                () = asked.wanted() => {
                    self.show();
                    continue;
                }
                _ = tick.tick() => {
                    self.tick();
                    ticked = true;
                }
                () = tokio::time::sleep_until(due) => {}
            }
            // One cycle for everything that is there.
            while let Ok(event) = inputs.devices.try_recv() {
                self.device_event(Some(event), &mut inputs).await?;
            }
            while let Ok(found) = inputs.sights.try_recv() {
                self.pods.found(found);
            }
            while let Ok(report) = inputs.reports.try_recv() {
                self.tunnel_report(report).await;
            }
            while let Ok(update) = inputs.acks.try_recv() {
                self.acknowledgement(update);
            }
            self.take_objects(&mut inputs);
            let retry = self.cycle().await;
            due = tokio::time::Instant::now() + retry.unwrap_or(cycle::NEVER);
            // Conditions keep the time when they changed, to the second, whether anybody asks or not.
            if ticked {
                view::note(self);
                self.report();
                // What whoever asks gets from an agent that is busy for long.
                if self.ticks % SHOW_TICKS == 1 {
                    self.show();
                }
            }
        }
    }

    fn report(&mut self) {
        if self.server.is_none() {
            return;
        }
        let report = register::report(self);
        if let Some(server) = &self.server {
            server.report.send_if_modified(|known| {
                let is_new = *known != report;
                *known = report;
                is_new
            });
        }
    }

    fn show(&mut self) {
        let view = view::view(self);
        self.asked.answer(view);
    }

    /// Takes over new objects and allocations.
    fn take_objects(&mut self, inputs: &mut Inputs) {
        // Compared by identity: waiting for a change has marked it as seen.
        let snapshot = Arc::clone(&inputs.snapshots.borrow_and_update());
        let state = inputs.states.borrow_and_update().clone();
        let same_objects = Arc::ptr_eq(&self.snapshot, &snapshot);
        let same_state = match (&self.state, &state) {
            (Some(old), Some(new)) => {
                Arc::ptr_eq(old, new) || same_objects && resolve::is_alike(&snapshot, old, new)
            }
            (None, None) => true,
            _ => false,
        };
        let old =
            (std::mem::replace(&mut self.snapshot, snapshot), std::mem::replace(&mut self.state, state));
        if same_state && same_objects {
            return;
        }
        if let Some(state) = &self.state {
            let before = old.1.as_deref();
            let before = before.map(|state| Before { snapshot: &old.0, state, resolved: &self.resolved });
            self.resolved(resolve::resolve_after(&self.snapshot, state, before));
        }
        self.update_pods();
    }

    /// Takes over what objects and allocations mean. Devices, routes and tunnels follow from a part of it only.
    fn resolved(&mut self, resolved: Resolved) {
        if *self.resolved != resolved {
            let before = std::mem::replace(&mut self.resolved, Arc::new(resolved));
            self.look_around |=
                before.gateways != self.resolved.gateways || before.ranges() != self.resolved.ranges();
        }
        if let Some(node) = self.resolved.nodes.get(&self.args.tunnel_node())
            && self.node.as_ref() != Some(node)
        {
            self.node = Some(node.clone());
            self.look_around = true;
        }
    }

    async fn device_event(
        &mut self,
        event: Option<netlink::DeviceEvent>,
        inputs: &mut Inputs,
    ) -> anyhow::Result<()> {
        if let Some(event) = event {
            if let Some(ifindex) = self.devices.event(event) {
                self.pods.device_changed(ifindex);
            }
            return Ok(());
        }
        // More came at once than the socket holds: begin anew, subscription first.
        inputs.devices = netlink::watch_devices(None)?;
        self.devices.replace(netlink::Netlink::open(None)?.links().await?);
        Ok(())
    }

    fn acknowledgement(&mut self, update: AckUpdate) {
        if let AckUpdate::Released { gateway, uid } = &update {
            self.ledger.released(uid, gateway);
        }
        let tunnels = &self.tunnels;
        self.announced.update(update, |gateway| tunnels.slot(gateway));
    }
}

/// Nanoseconds of `CLOCK_BOOTTIME`.
fn boot_ns() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    time.map_or(0, |time| u64::try_from(Duration::from(time).as_nanos()).unwrap_or(u64::MAX))
}

/// Unix time minus `CLOCK_BOOTTIME`.
fn boot_unix_ns() -> i128 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(unix.as_nanos()).unwrap_or_default() - i128::from(boot_ns())
}

/// The address that a gateway's announce connection goes to.
fn announce_address(gateway: &crate::resolve::Gateway) -> IpAddr {
    IpAddr::V4(gateway.v4)
}
