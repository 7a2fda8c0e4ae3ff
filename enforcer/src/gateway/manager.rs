//! The loop: what changed, and then one cycle that brings kernel, tunnel and nodes to it.
//!
//! ```text
//! manifests, state ─┐
//! announcements ────┤                      ┌─▶ GW_* maps ─▶ Live, Released
//! probes ───────────┼─▶ compile ─▶ plan ───┤
//! routes, devices ──┘                      └─▶ resets of flows without a grant
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{info, warn};

use super::{
    claims::Pods,
    clock,
    compile::Compiled,
    far_end::{self, FarEnd},
    health::Health,
    monitor::Names,
    network::{TunnelNetwork, Ways},
    numbers::Numbers,
    probe::Report,
    registry::Registry,
    reset::Injector,
    revoke::{self, Revoker},
    sessions::Sessions,
};
use crate::{
    announce::server::{Event, Peers, Server},
    control::Asked,
    datapath::{
        gateway::GwTables,
        kernel::{KernelGateway, MapPressure},
        program::Program,
    },
    model::Kind,
    netlink::{DeviceEvent, Netlink, watch_devices},
    resolve::{Before, Resolved, is_alike, resolve_after},
    source::kubernetes::Hearing,
    state::State,
    store::Snapshot,
    tunnel::DeviceConfig,
};

mod cycle;
mod view;

/// What the command line said.
pub struct Settings {
    pub name: String,
    pub device: String,
    pub private_key: [u8; 32],
    pub listen_port: Option<u16>,
    /// `RUN_DIR/bindings.json`.
    pub bindings: PathBuf,
    /// Settings of this host that were changed at start.
    pub changed_sysctls: Vec<String>,
}

/// Ends of the channels to and from the other tasks.
pub struct Channels {
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    pub states: watch::Receiver<Option<Arc<State>>>,
    /// Of the API server, where the objects come from one.
    pub heard: Option<watch::Receiver<Hearing>>,
    pub said: mpsc::Receiver<Event>,
    /// Given to the announce server.
    pub say: mpsc::Sender<Event>,
    pub peers: watch::Sender<Peers>,
    pub reports: mpsc::Receiver<Report>,
    pub targets: watch::Sender<BTreeSet<SocketAddr>>,
    pub wanted: watch::Sender<Option<DeviceConfig>>,
    pub tunnel: watch::Receiver<far_end::Health>,
    pub names: watch::Sender<Arc<Names>>,
    pub asked: Arc<Asked>,
}

/// Where it listens for announcements.
struct Listening {
    ifindex: u32,
    addresses: Vec<SocketAddr>,
    _server: Server,
}

#[expect(clippy::struct_excessive_bools, reason = "what is due comes from different events")]
pub struct Manager {
    settings: Settings,
    channels: Channels,
    datapath: KernelGateway,
    /// What the kernel's maps hold.
    actual: GwTables,
    far_end: FarEnd,
    netlink: Netlink,
    injector: Injector,
    registry: Registry,
    numbers: Numbers,
    /// As they are in the file.
    kept: (Registry, Numbers),
    /// Why the file could not be written.
    keep_problem: Option<String>,
    sessions: Sessions,
    health: Health,
    /// Endpoints that the kernel used when this process began.
    adopted: BTreeSet<SocketAddr>,
    revoker: Revoker,
    resolved: Arc<Resolved>,
    /// What it follows from.
    taken: Option<(Arc<Snapshot>, Arc<State>)>,
    pods: Pods,
    compiled: Compiled,
    /// The kernel holds exactly `compiled`.
    exact: bool,
    ways: Ways,
    /// What is never a backend here, as of the last look at the network.
    own: BTreeSet<IpNet>,
    network: Option<TunnelNetwork>,
    attached: BTreeSet<(Program, u32, String)>,
    listening: Option<Listening>,
    /// `CLOCK_BOOTTIME` when grants were last looked through for those that are over.
    expiry_checked_ns: u64,
    /// How full the kernel's maps are.
    pressure: Vec<MapPressure>,
    /// Until then grants are not pruned, unless every node has sent its snapshot before; `None`: they are.
    grace: Option<Instant>,
    boot_time_unix_ns: u64,
    /// Type of the condition that is false → reason and message.
    problems: BTreeMap<&'static str, (&'static str, String)>,
    objects_due: bool,
    network_due: bool,
    dirty: bool,
}

const TICK: Duration = Duration::from_secs(1);
/// Routes are asked for again after so many ticks, besides every event of a device: nothing tells of routes.
const ROUTES_EVERY: u32 = 2;
/// The maps are counted after so many ticks: it walks through all their keys.
const PRESSURE_EVERY: u32 = 15;
/// How long grants that nobody has announced yet stay when the bindings file was lost.
const GRACE: Duration = Duration::from_secs(30);
/// A clock that stepped by more than this is taken over.
const CLOCK_STEP_NS: u64 = 100_000_000;

/// What the manager is made of besides its channels.
pub struct Parts {
    pub datapath: KernelGateway,
    pub actual: GwTables,
    pub far_end: FarEnd,
    pub netlink: Netlink,
    pub injector: Injector,
    pub registry: Registry,
    pub numbers: Numbers,
    /// The bindings file was there and good.
    pub bindings_known: bool,
}

impl Manager {
    pub fn new(settings: Settings, channels: Channels, parts: Parts) -> Self {
        let Parts { datapath, actual, far_end, netlink, injector, registry, mut numbers, bindings_known } =
            parts;
        for grant in actual.grants.values() {
            numbers.reserve(grant.id, grant.connection);
        }
        let adopted = actual.backends.values();
        let adopted =
            adopted.map(|backend| SocketAddr::new(backend.address.ip(), backend.port.get())).collect();
        let grace = (!bindings_known && !actual.grants.is_empty()).then(|| Instant::now() + GRACE);
        Self {
            kept: (registry.clone(), numbers.clone()),
            keep_problem: None,
            settings,
            channels,
            datapath,
            actual,
            far_end,
            netlink,
            injector,
            registry,
            numbers,
            sessions: Sessions::default(),
            health: Health::default(),
            adopted,
            revoker: Revoker::default(),
            resolved: Arc::default(),
            taken: None,
            pods: Pods::default(),
            compiled: Compiled::default(),
            exact: false,
            ways: Ways::default(),
            own: BTreeSet::new(),
            network: None,
            attached: BTreeSet::new(),
            listening: None,
            expiry_checked_ns: 0,
            pressure: Vec::new(),
            grace,
            boot_time_unix_ns: clock::boot_time_unix_ns(),
            problems: BTreeMap::new(),
            objects_due: true,
            network_due: true,
            dirty: true,
        }
    }

    /// Runs until the future `stop` is ready.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut devices = watch_devices(None)?;
        let mut tick = 0_u32;
        tokio::pin!(stop);
        let asked = Arc::clone(&self.channels.asked);
        // Flows may have lost their grant while no manager was there to see it.
        self.revoker.grants_went();
        loop {
            tokio::select! {
                () = &mut stop => {
                    self.keep();
                    return Ok(());
                }
                () = asked.wanted() => {
                    self.publish();
                    continue;
                }
                Ok(()) = self.channels.snapshots.changed() => self.objects_due = true,
                Ok(()) = self.channels.states.changed() => self.objects_due = true,
                Some(event) = self.channels.said.recv() => self.heard(event),
                Some(report) = self.channels.reports.recv() => self.reported(report),
                event = devices.recv() => match event {
                    Some(event) => self.device_changed(&event),
                    None => devices = watch_devices(None)?,
                },
                _ = ticks.tick() => {
                    tick = tick.wrapping_add(1);
                    self.network_due |= tick.is_multiple_of(ROUTES_EVERY);
                    if tick % PRESSURE_EVERY == 1 {
                        self.measure();
                    }
                    self.ticked();
                }
            }
            while let Ok(event) = self.channels.said.try_recv() {
                self.heard(event);
            }
            while let Ok(report) = self.channels.reports.try_recv() {
                self.reported(report);
            }
            if self.dirty || self.objects_due || self.network_due {
                self.cycle().await;
            }
        }
    }

    fn heard(&mut self, event: Event) {
        match event {
            Event::Joined { node, session, outbox } => {
                info!(node, "announce connection is up");
                self.sessions.joined(node, session, outbox);
            }
            Event::Snapshot { node, session, bindings, .. } if self.sessions.is_current(&node, session) => {
                self.registry.snapshot(&node, bindings);
                self.sessions.ready(&node);
                self.dirty = true;
            }
            Event::Upsert { node, session, binding } if self.sessions.is_current(&node, session) => {
                self.registry.upsert(&node, binding);
                self.dirty = true;
            }
            Event::Remove { node, session, uid } if self.sessions.is_current(&node, session) => {
                self.registry.remove(&node, &uid);
                self.dirty = true;
            }
            Event::Left { node, session } => {
                if self.sessions.is_current(&node, session) {
                    warn!(node, "announce connection lost: its bindings are kept");
                }
                self.sessions.left(&node, session);
            }
            Event::Snapshot { .. } | Event::Upsert { .. } | Event::Remove { .. } => {}
        }
    }

    fn reported(&mut self, Report { target, connected }: Report) {
        if self.health.report(target, connected) {
            info!(%target, connected, "endpoint changed");
            self.dirty = true;
        }
    }

    fn device_changed(&mut self, event: &DeviceEvent) {
        self.network_due = true;
        if let DeviceEvent::Removed { ifindex, .. } = event {
            self.attached.retain(|(_, attached, _)| attached != ifindex);
            if let Err(error) = self.datapath.collect_links() {
                warn!(error = far_end::chain(&error), "links of a removed device are left");
            }
        }
    }

    fn ticked(&mut self) {
        let now = clock::boot_ns();
        let boot_time = clock::boot_time_unix_ns();
        if boot_time.abs_diff(self.boot_time_unix_ns) > CLOCK_STEP_NS {
            info!("the clock stepped: validUntil is placed anew");
            self.boot_time_unix_ns = boot_time;
            self.dirty = true;
        }
        let over_since = self.expiry_checked_ns..now;
        // Of a hundred thousand grants none may have an end.
        let may_end = !self.exact
            || self.resolved.connections.iter().any(|connection| connection.valid_until_unix_ns.is_some());
        if may_end && self.actual.grants.values().any(|grant| over_since.contains(&grant.valid_until_ns)) {
            self.revoker.grants_went();
        }
        self.expiry_checked_ns = now;
        self.revoke(now);
        self.release(now);
        self.keep();
        self.dirty |= self.grace.is_some_and(|until| until <= Instant::now()) || self.listening.is_none();
    }

    fn measure(&mut self) {
        match self.datapath.pressure(self.exact.then_some(self.actual.grants.len())) {
            Ok(pressure) => self.pressure = pressure,
            Err(error) => {
                warn!(error = far_end::chain(&error), "cannot count the entries of the kernel's maps");
            }
        }
    }

    fn revoke(&mut self, now_ns: u64) {
        if self.revoker.is_due() && self.grace.is_none() {
            let ended = self.revoker.round(&mut self.datapath, &self.actual, &self.injector, now_ns);
            if ended > 0 {
                info!(flows = ended, "flows ended because their grant is gone");
            }
        }
    }

    /// Answers what left and has no flow any more.
    fn release(&mut self, now_ns: u64) {
        if !self.registry.is_leaving() {
            return;
        }
        match self.datapath.flows() {
            Ok(flows) => {
                for (node, uid) in self.registry.release(&revoke::busy(&flows, now_ns)) {
                    self.sessions.released(&node, &uid);
                }
                self.keep_bindings();
            }
            Err(error) => warn!(%error, "cannot read the flows to release what left"),
        }
    }

    /// Takes new objects over.
    fn resolve_objects(&mut self) {
        self.objects_due = false;
        let snapshot = Arc::clone(&self.channels.snapshots.borrow_and_update());
        // Without the controller's state there is no truth; what the kernel has stays.
        let state = self.channels.states.borrow_and_update().clone();
        if let (Some((old, before)), Some(now)) = (&self.taken, &state)
            && Arc::ptr_eq(old, &snapshot)
            && is_alike(&snapshot, before, now)
        {
            return;
        }
        let before = self.taken.as_ref().map(|(before, _)| snapshot.since(before));
        let tell_pods = |kind| matches!(kind, Kind::Pod | Kind::TunnelNode);
        if before.is_none_or(|changes| changes.iter().any(|change| tell_pods(change.key.kind))) {
            self.pods = Pods::of(&snapshot);
        }
        if let Some(state) = &state {
            let before = self.taken.as_ref();
            let before = before.map(|(snapshot, state)| Before { snapshot, state, resolved: &self.resolved });
            let resolved = resolve_after(&snapshot, state, before);
            // Pods and connections change nothing about devices, routes and tunnels.
            self.network_due |= self.resolved.destinations != resolved.destinations
                || self.resolved.gateways != resolved.gateways
                || self.resolved.nodes != resolved.nodes
                || self.resolved.ranges() != resolved.ranges()
                || self.resolved.infrastructure != resolved.infrastructure;
            if *self.resolved != resolved {
                self.resolved = Arc::new(resolved);
            }
        }
        self.taken = state.map(|state| (snapshot, state));
    }
}
