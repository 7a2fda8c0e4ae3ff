//! The node's end of every tunnel: one task a gateway makes the device, waits until it is guarded, configures it, and
//! keeps reporting how it is.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use enforcer_common::{Addr, config::Tunnel as TunnelValue};
use ipnet::IpNet;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    compile::{Ledger, TunnelDevice, TunnelEnd},
    netlink::Link,
    resolve::{Gateway, Resolved},
    tunnel::{self, DeviceConfig, DeviceStatus, KEEPALIVE, Mode, PeerConfig, TunnelError, blocking},
};

/// How often a device that works is asked how it is.
const REFRESH: Duration = Duration::from_secs(2);
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What all tunnels of the node have in common.
#[derive(Clone)]
pub struct Common {
    pub node: String,
    pub mode: Mode,
    pub run_dir: PathBuf,
    pub netns: PathBuf,
    pub private_key: [u8; 32],
}

/// What a tunnel task tells.
#[derive(Debug)]
pub struct Report {
    pub gateway: String,
    pub news: News,
}

#[derive(Debug)]
pub enum News {
    /// The device is there, without a peer: now is the time to guard it.
    Made {
        mode: &'static str,
        ifindex: u32,
    },
    Configured(DeviceStatus),
    Failed(String),
}

/// A device as it should be.
#[derive(Clone, PartialEq)]
struct Wanted {
    mtu: u32,
    config: DeviceConfig,
}

/// One tunnel as it is known.
pub struct TunnelState {
    pub device: String,
    pub slot: u32,
    pub gateway: Gateway,
    pub mtu: u32,
    pub mode: &'static str,
    pub ifindex: Option<u32>,
    pub status: Option<DeviceStatus>,
    pub problem: Option<String>,
    wanted: watch::Sender<Wanted>,
    /// Index of the device that is guarded.
    guarded: watch::Sender<Option<u32>>,
    task: JoinHandle<()>,
}

impl Drop for TunnelState {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub struct Tunnels {
    common: Common,
    /// Key: name of the gateway.
    pub all: BTreeMap<String, TunnelState>,
    /// Gateways that got no slot.
    pub refused: Vec<String>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Tunnels {
    pub fn new(common: Common) -> (Self, mpsc::UnboundedReceiver<Report>) {
        let (reports, receiver) = mpsc::unbounded_channel();
        (Self { common, all: BTreeMap::new(), refused: Vec::new(), reports }, receiver)
    }

    /// Takes over which gateways there are; `mtus` by gateway. Returns the tunnels that are over, for cleaning up.
    pub fn update(
        &mut self,
        resolved: &Resolved,
        mtus: &BTreeMap<String, u32>,
        ledger: &mut Ledger,
    ) -> Vec<TunnelState> {
        self.refused.clear();
        for (name, gateway) in &resolved.gateways {
            let Some(slot) = ledger.slot(name, |name| resolved.gateways.contains_key(name)) else {
                self.refused.push(name.clone());
                continue;
            };
            let device = device_name(&self.common.node, name);
            let mtu = mtus.get(name).copied().unwrap_or(gateway.mtu);
            let wanted = Wanted { mtu, config: self.config(&device, gateway, resolved) };
            let Some(state) = self.all.get_mut(name) else {
                let state = self.start(device, slot, gateway.clone(), wanted);
                self.all.insert(name.clone(), state);
                continue;
            };
            state.gateway = gateway.clone();
            state.mtu = mtu;
            state.wanted.send_if_modified(|old| {
                let modified = *old != wanted;
                if modified {
                    *old = wanted;
                }
                modified
            });
        }
        let over: Vec<String> =
            self.all.keys().filter(|name| !resolved.gateways.contains_key(*name)).cloned().collect();
        over.iter().filter_map(|name| self.all.remove(name)).collect()
    }

    fn config(&self, device: &str, gateway: &Gateway, resolved: &Resolved) -> DeviceConfig {
        let own = [IpNet::from(IpAddr::V4(gateway.v4)), IpNet::from(IpAddr::V6(gateway.v6))];
        let peer = PeerConfig {
            public_key: gateway.public_key,
            endpoint: gateway.endpoints.first().copied(),
            allowed_ips: own.into_iter().chain(resolved.service_ranges.iter().copied()).collect(),
            keepalive: KEEPALIVE,
        };
        DeviceConfig {
            name: device.to_owned(),
            private_key: self.common.private_key,
            listen_port: 0,
            peers: vec![peer],
        }
    }

    fn start(&self, device: String, slot: u32, gateway: Gateway, wanted: Wanted) -> TunnelState {
        let mtu = wanted.mtu;
        let (wanted, wanted_receiver) = watch::channel(wanted);
        let (guarded, guarded_receiver) = watch::channel(None);
        let task = Task {
            gateway: gateway.name.clone(),
            common: self.common.clone(),
            wanted: wanted_receiver,
            guarded: guarded_receiver,
            reports: self.reports.clone(),
        };
        let task = tokio::spawn(task.run());
        TunnelState {
            device,
            slot,
            gateway,
            mtu,
            mode: "unknown",
            ifindex: None,
            status: None,
            problem: None,
            wanted,
            guarded,
            task,
        }
    }

    /// Takes a report over. Returns the device that is new and has to be guarded now.
    pub fn report(&mut self, report: Report) -> Option<(String, u32)> {
        let state = self.all.get_mut(&report.gateway)?;
        match report.news {
            News::Made { mode, ifindex } => {
                state.mode = mode;
                let new = state.ifindex.replace(ifindex) != Some(ifindex) || state.guarded.borrow().is_none();
                new.then_some((report.gateway, ifindex))
            }
            News::Configured(status) => {
                state.problem = None;
                state.status = Some(status);
                None
            }
            News::Failed(problem) => {
                state.problem = Some(problem);
                None
            }
        }
    }

    /// The device has its last guard: it may have a peer.
    pub fn set_guarded(&mut self, gateway: &str, ifindex: u32) {
        if let Some(state) = self.all.get(gateway) {
            state.guarded.send_replace(Some(ifindex));
        }
    }

    /// The tunnel netns was made anew: whatever has the index of a device there is not the one that was guarded.
    pub fn forget_guards(&mut self) {
        for state in self.all.values() {
            state.guarded.send_replace(None);
        }
    }

    pub fn slot(&self, gateway: &str) -> Option<u32> {
        self.all.get(gateway).map(|tunnel| tunnel.slot)
    }

    /// What compile needs.
    pub fn ends(&self) -> BTreeMap<String, TunnelEnd> {
        self.all.iter().map(|(name, state)| (name.clone(), state.end())).collect()
    }
}

impl TunnelState {
    fn end(&self) -> TunnelEnd {
        let device = || {
            let ifindex = *self.guarded.borrow();
            let tunnel = TunnelValue {
                gateway4: Addr::v4(self.gateway.v4),
                gateway6: Addr::v6(self.gateway.v6),
                ifindex: ifindex?,
                mtu: self.mtu,
            };
            let local_port = self.status.as_ref()?.listen_port;
            Some(TunnelDevice { tunnel, endpoints: self.gateway.endpoints.clone(), local_port })
        };
        TunnelEnd { slot: self.slot, device: device() }
    }
}

/// Keeps one device.
struct Task {
    gateway: String,
    common: Common,
    wanted: watch::Receiver<Wanted>,
    guarded: watch::Receiver<Option<u32>>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Task {
    async fn run(mut self) {
        let mut failures = 0_u32;
        loop {
            let wait = match self.round().await {
                Ok(()) => {
                    failures = 0;
                    REFRESH
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    self.tell(News::Failed(format!("{:#}", anyhow::Error::from(error))));
                    (FIRST_WAIT * (1 << failures.min(10))).min(LONGEST_WAIT)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = self.wanted.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn round(&mut self) -> Result<(), TunnelError> {
        let wanted = self.wanted.borrow_and_update().clone();
        let (common, name, mtu) = (self.common.clone(), wanted.config.name.clone(), wanted.mtu);
        let (mode, ifindex) = blocking(&wanted.config.name, move || {
            let mut tunnel = tunnel::open(common.mode, &common.run_dir, Some(&common.netns))?;
            let ifindex = tunnel.ensure_device(&name, mtu)?;
            Ok((tunnel.mode(), ifindex))
        })
        .await?;
        self.tell(News::Made { mode, ifindex });
        if self.guarded.wait_for(|guarded| *guarded == Some(ifindex)).await.is_err() {
            return Ok(());
        }
        let (common, config) = (self.common.clone(), wanted.config);
        let name = config.name.clone();
        let status = blocking(&name, move || {
            tunnel::open(common.mode, &common.run_dir, Some(&common.netns))?.configure(&config)
        })
        .await?;
        self.tell(News::Configured(status));
        Ok(())
    }

    fn tell(&self, news: News) {
        // Nobody listens any more only when the agent ends.
        let _ended = self.reports.send(Report { gateway: self.gateway.clone(), news });
    }
}

/// Several nodes fit one machine: a device has the name of both ends.
pub fn device_name(node: &str, gateway: &str) -> String {
    tunnel::device_name(&format!("{node}/{gateway}"))
}

/// Takes away the device of a gateway that is no more.
pub async fn remove(common: &Common, device: String) -> Result<(), TunnelError> {
    let (mode, run_dir, netns) = (common.mode, common.run_dir.clone(), common.netns.clone());
    let name = device.clone();
    blocking(&device, move || tunnel::open(mode, &run_dir, Some(&netns))?.remove_device(&name)).await
}

/// MTU of a tunnel: what the gateway says, or less where the way to its endpoint is narrower by WireGuard's 80 bytes.
/// `links` are the host's devices: with thousands of pods the kernel is not asked for all of them at every look.
pub async fn mtu(host: &crate::netlink::Netlink, links: &BTreeMap<u32, Link>, gateway: &Gateway) -> u32 {
    let Some(endpoint) = gateway.endpoints.first() else { return gateway.mtu };
    let Ok(Some(route)) = host.route_to(endpoint.ip()).await else { return gateway.mtu };
    let device = route.mtu.or_else(|| links.get(&route.ifindex).map(|link| link.mtu));
    device.map_or(gateway.mtu, |mtu| gateway.mtu.min(mtu.saturating_sub(80)))
}

/// The tunnel netns of a node.
pub fn default_netns(node: &str) -> PathBuf {
    Path::new(crate::netns::NETNS_DIR).join(format!("enforcer-{node}"))
}
