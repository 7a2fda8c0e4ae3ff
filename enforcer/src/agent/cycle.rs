//! One cycle of the agent: from what is known to the kernel, the tunnels, the gateways.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use serde_json::json;

use super::{
    Agent, announce_address, apply::Applied, boot_ns, boot_unix_ns, devices, ending, events, memory, pair,
    revoke, traffic, tunnels,
};
use crate::{
    compile::{Compiled, Input, Location, Pair, Pod, compile},
    datapath::{DatapathError, kernel::Device, program::Program},
    model::{Kind, ObjectKey, Spec},
    netlink::{Netlink, NetlinkError, Route, RouteKind},
    resolve::Node,
};

/// Nothing is to be tried again.
pub const NEVER: Duration = Duration::from_hours(1);
/// Until the next try to set up what is not there.
const SETUP_AGAIN: Duration = Duration::from_secs(1);
/// Ticks between two looks at how full the maps are: every key is counted.
const PRESSURE_TICKS: u64 = 15;
/// Ticks between two writes of what may be lost in a crash: every write waits for the disk.
const KEEP_TICKS: u64 = 5;
/// A wall clock that moved by more than this was stepped.
const STEP_NS: u128 = 100_000_000;

/// What the devices and routes were made for.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    node: Node,
    mtu: u32,
    ranges: [Vec<IpNet>; 3],
}

impl Agent {
    /// Runs one cycle and says when to run the next if nothing happens.
    pub(super) async fn cycle(&mut self) -> Option<Duration> {
        self.node.as_ref()?;
        let prepared = self.prepare().await;
        self.setup_problem = prepared.err().map(|error| format!("{error:#}"));
        if let Some(error) = &self.setup_problem {
            tracing::warn!(error, "the node cannot be set up");
            // What was set up once is kept right: a grant that goes does not wait for a device that comes.
            if self.pair == Pair::default() {
                return Some(SETUP_AGAIN);
            }
        }
        let retry = self.program();
        let again = self.setup_problem.is_some() || self.devices.problems().next().is_some();
        let at_once = self.devices.is_behind().then_some(Duration::ZERO);
        [retry, again.then_some(SETUP_AGAIN), at_once].into_iter().flatten().min()
    }

    /// Tunnel netns, pair, routes, and everything that guards; then the tunnels.
    async fn prepare(&mut self) -> anyhow::Result<()> {
        let Some(node) = self.node.clone() else { return Ok(()) };
        if std::mem::take(&mut self.look_around) {
            // Until it is done it has to be done again.
            let done = self.set_up(&node).await;
            self.look_around = done.is_err();
            done?;
        }
        let gateways = self.tunnels.all.values().filter(|tunnel| tunnel.status.is_some());
        let gateways: BTreeMap<String, IpAddr> =
            gateways.map(|tunnel| (tunnel.gateway.name.clone(), announce_address(&tunnel.gateway))).collect();
        self.announced.connect(&node, &gateways);
        Ok(())
    }

    async fn set_up(&mut self, node: &Node) -> anyhow::Result<()> {
        self.kept.keep(self.resolved.guarded());
        let host = Netlink::open(None)?;
        let mut mtus = BTreeMap::new();
        for (name, gateway) in &self.resolved.gateways {
            mtus.insert(name.clone(), tunnels::mtu(&host, &self.devices.links, gateway).await);
        }
        let setup = Setup {
            node: node.clone(),
            mtu: mtus.values().copied().min().unwrap_or(1420),
            ranges: self.resolved.ranges().map(<[IpNet]>::to_vec),
        };
        // Somebody took the pair or the tunnel netns away: everything that hung on it is made anew.
        self.guarded &= self.devices.links.contains_key(&self.pair.enforcer0) && self.netns.exists();
        let first = !self.guarded;
        if first || self.setup.as_ref() != Some(&setup) {
            self.pair = pair::ensure(&self.netns, node, &self.resolved, setup.mtu).await?;
            self.setup = Some(setup);
        }
        if first {
            self.tunnels.forget_guards();
            self.devices.replace(host.links().await?);
            self.guard(node)?;
        }
        let over = self.tunnels.update(&self.resolved, &mtus, &mut self.ledger);
        for tunnel in over {
            let (common, device) = (self.tunnels_common.clone(), tunnel.device.clone());
            tokio::spawn(async move {
                if let Err(error) = tunnels::remove(&common, device).await {
                    tracing::warn!(error = format!("{:#}", anyhow::Error::from(error)), "a tunnel stays");
                }
            });
        }
        Ok(())
    }

    /// Guard and configuration first, then the programs: what is attached never sees an empty guard.
    fn guard(&mut self, node: &Node) -> anyhow::Result<()> {
        let compiled = self.compile(node, &self.pods.all());
        if let Some(error) = Applied::guard_first(&mut self.datapath, &compiled).into_iter().next() {
            return Err(error.into());
        }
        let tunnel0 = Device {
            netns: Some(self.netns.clone()),
            name: pair::TUNNEL0.to_owned(),
            ifindex: self.pair.tunnel0,
        };
        self.datapath.attach(Program::IntoTunnel, &tunnel0)?;
        self.datapath.attach_cgroup(&crate::cgroup::root(self.args.cgroup_root.as_deref())?)?;
        self.guarded = true;
        tracing::info!(node = node.name, "guarded");
        Ok(())
    }

    fn compile(&mut self, node: &Node, pods: &BTreeMap<String, Arc<Pod>>) -> Compiled {
        let ends = self.tunnels.ends();
        let input = Input {
            resolved: &self.resolved,
            cluster: &self.args.cluster_name,
            node,
            pair: self.pair,
            flow_quota: self.args.flow_quota,
            pods,
            tunnels: &ends,
            acknowledged: self.announced.acknowledged(),
            boot_unix_ns: self.boot_unix_ns,
        };
        compile(&input, &mut self.ledger, &self.applied.compiled)
    }

    /// From what is known to the kernel. Returns when to try again what failed.
    fn program(&mut self) -> Option<Duration> {
        let node = self.node.clone()?;
        self.pods.locate(&self.devices.links);
        let settled = self.pods.settled();
        let pods = self.pods.all();
        let behind: BTreeSet<u32> = pods
            .values()
            .filter_map(|pod| match &pod.location {
                Location::Netns { ifindex, .. } if *ifindex != 0 => Some(*ifindex),
                _ => None,
            })
            .collect();
        let guarded = self.devices.sync(&mut self.datapath, self.pair.enforcer0, &behind, settled);
        self.tell_guarded(guarded);

        let compiled = self.compile(&node, &pods);
        // What is said to the kernel or a gateway must be known after a crash.
        if let Err(error) = self.ledger_file.save_urgent(&self.ledger) {
            let text = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(error = text, "nothing is changed");
            self.applied.failures = vec![text];
            return Some(SETUP_AGAIN);
        }
        let done = self.applied.step(&mut self.datapath, compiled, settled);
        if done.retry.is_some() {
            tracing::warn!(error = self.applied.failures.join("; "), "the kernel does not hold everything");
        }
        let tunnels = &self.tunnels;
        self.announced.announce(&self.applied.compiled, |gateway| tunnels.slot(gateway));
        self.end_sessions(&done.revoked);
        self.publish_names();
        if settled {
            self.forget();
        }
        done.retry
    }

    /// Says of devices that they are guarded, and what had left them before.
    fn tell_guarded(&self, guarded: Vec<devices::Guarded>) {
        if guarded.is_empty() {
            return;
        }
        // From this moment on nothing leaves in clear; the count that is asked for now is of before, and may have
        // more in it.
        let time = events::now();
        let monitor = self.monitor.clone();
        tokio::spawn(async move {
            let host = Netlink::open(None);
            for device in guarded {
                let sent = match &host {
                    Ok(host) => host.sent_packets(device.ifindex).await.ok().flatten(),
                    Err(_) => None,
                };
                // Without a listener there is nobody to be told.
                let _nobody = monitor.send(events::device_guarded(&time, &device, sent));
            }
        });
    }

    fn end_sessions(&mut self, revoked: &[enforcer_common::grant::GrantKey]) {
        // An agent that died in between may have taken grants away and ended nothing: once, everything is looked at.
        let first = self.applied.is_exact() && !std::mem::replace(&mut self.swept, true);
        if revoked.is_empty() && !first {
            return;
        }
        let uids = self.ledger.uids();
        let sockets = revoke::doomed(revoked, &self.applied.compiled, &uids, |uid| self.pods.sockets(uid));
        let (netns, tunnel0) = (self.netns.clone(), self.pair.tunnel0);
        self.ending.order(ending::Order { sockets, netns, tunnel0 });
    }

    fn publish_names(&self) {
        self.names.send_replace(events::Names {
            compiled: Arc::clone(&self.applied.compiled),
            resolved: Arc::clone(&self.resolved),
            cluster: self.args.cluster_name.clone(),
            boot_unix_ns: self.boot_unix_ns,
        });
    }

    /// Drops what belongs to pods and connections that are gone.
    fn forget(&mut self) {
        self.pods.forget_departed();
        let pods = self.pods.all();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.ledger.retain(now, |uid| pods.contains_key(uid), |uid| self.announced.told(uid));
        self.announced.retain(|uid| pods.contains_key(uid));
        let connections = self.applied.compiled.connections.keys().copied().collect();
        self.ledger.retain_connections(&connections);
    }

    /// A new tunnel device gets its last guard and the route of the announce connection.
    pub(super) async fn tunnel_report(&mut self, report: tunnels::Report) {
        let Some((gateway, ifindex)) = self.tunnels.report(report) else { return };
        match self.guard_tunnel(&gateway, ifindex).await {
            Ok(()) => self.tunnels.set_guarded(&gateway, ifindex),
            Err(error) => {
                let problem = format!("{error:#}");
                tracing::warn!(gateway, error = problem, "the tunnel is not guarded");
                if let Some(tunnel) = self.tunnels.all.get_mut(&gateway) {
                    tunnel.problem = Some(problem);
                }
            }
        }
    }

    async fn guard_tunnel(&mut self, gateway: &str, ifindex: u32) -> anyhow::Result<()> {
        let (Some(tunnel), Some(node)) = (self.tunnels.all.get(gateway), &self.node) else { return Ok(()) };
        let device = Device { netns: Some(self.netns.clone()), name: tunnel.device.clone(), ifindex };
        self.datapath.attach(Program::OutOfTunnel, &device)?;
        let inside = Netlink::open(Some(&self.netns))?;
        let ways: [(IpAddr, IpAddr); 2] =
            [(tunnel.gateway.v4.into(), node.v4.into()), (tunnel.gateway.v6.into(), node.v6.into())];
        for (address, own) in ways {
            let kind = RouteKind::Device { ifindex, source: Some(own), mtu: None };
            set_route(&inside, address, kind).await?;
        }
        Ok(())
    }

    /// What is looked at now and then: the clock, grants whose time is over, how full the maps are.
    pub(super) fn tick(&mut self) {
        let boot_unix = boot_unix_ns();
        if boot_unix.abs_diff(self.boot_unix_ns) > STEP_NS {
            tracing::info!("the wall clock was set: validUntil is reckoned anew");
            self.boot_unix_ns = boot_unix;
        }
        self.look_around = true;
        self.ticks += 1;
        if self.ticks.is_multiple_of(KEEP_TICKS) {
            self.keep_names();
        }
        let now = boot_ns();
        if self.resolved.connections.iter().any(|connection| connection.valid_until_unix_ns.is_some()) {
            let expired = revoke::expired(&self.applied.compiled, self.expired_until, now);
            self.end_sessions(&expired);
        }
        self.expired_until = now;
        let accounts = Arc::clone(&self.accounts.borrow());
        self.traffic = traffic::by_connection(&self.applied.compiled, &accounts);
        if let Err(error) = self.forget_counts(&accounts) {
            let text = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(error = text, "counts of what is gone stay in the kernel");
        }
        self.tell_missed();
        if self.ticks % PRESSURE_TICKS == 2 {
            memory::give_back();
        }
        if self.ticks % PRESSURE_TICKS == 2
            && let Ok(pressure) = self.datapath.pressure(self.applied.grants())
        {
            let line = |map: &crate::datapath::kernel::MapPressure| json!({ "map": map.map, "entries": map.entries, "capacity": map.capacity });
            self.pressure = pressure.iter().map(line).collect();
        }
    }

    /// Writes what was not urgent. What must not be lost is not done before it is written.
    pub(super) fn keep_names(&mut self) {
        if let Err(error) = self.ledger_file.save(&self.ledger) {
            tracing::warn!(error = format!("{:#}", anyhow::Error::from(error)), "names are not kept yet");
        }
    }

    /// Tells listeners how many events the kernel has left out since the last look.
    fn tell_missed(&mut self) {
        let Ok(counters) = self.datapath.counters() else { return };
        let all = counters.events_limited + counters.events_lost;
        let before = self.events_missed.replace(all);
        if let Some(count) = before.and_then(|before| all.checked_sub(before)).filter(|count| *count > 0) {
            let time = format!("{:.3}", jiff::Timestamp::now());
            let _nobody = self.monitor.send(events::missed(&time, count));
        }
    }

    /// Drops what the kernel has counted for grants and pods that are gone.
    fn forget_counts(&mut self, accounts: &traffic::Ledger) -> Result<(), DatapathError> {
        // What is not known yet is not gone.
        if !self.applied.is_exact() {
            return Ok(());
        }
        let compiled = &self.applied.compiled;
        for grant in traffic::leftovers(compiled, accounts) {
            self.datapath.forget_grant_stats(grant)?;
        }
        self.datapath.forget_workloads(|id| compiled.pods.contains_key(&id))
    }

    pub(super) fn update_pods(&mut self) {
        let own = ObjectKey::new(Kind::TunnelNode, "", self.args.tunnel_node());
        let mut names = BTreeSet::from([self.args.node.clone(), self.args.kubernetes_node().to_owned()]);
        if let Some(Spec::TunnelNode(spec)) = self.snapshot.objects.get(&own).map(|object| &object.spec)
            && !spec.node.is_empty()
        {
            names.insert(spec.node.clone());
        }
        // The second address: the first of a range is not one that anybody routes to.
        let targets = self.resolved.service_ranges.iter().filter_map(|range| range.hosts().nth(1)).collect();
        self.pods.update(&self.snapshot, &names, targets);
    }
}

async fn set_route(netlink: &Netlink, address: IpAddr, kind: RouteKind) -> Result<(), NetlinkError> {
    netlink.set_route(&Route { destination: IpNet::from(address), metric: 0, kind }).await
}
