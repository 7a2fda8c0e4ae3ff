//! The gateway role: the far end of the tunnel.
//!
//! Keeps the gateway's maps, its tunnel device and its announce connections equal to the objects and to what the
//! nodes say. The kernel forwards; killing this process opens, closes and resets nothing.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::builder::ArgPredicate;
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::{broadcast, mpsc, watch};
use tracing::{info, warn};

use crate::{
    control::{self, Views},
    datapath::{
        gateway::GatewayDatapath as _,
        kernel::{Hooks, KernelGateway, Options, pins_of},
    },
    keygen, mounts,
    netlink::Netlink,
    source::{
        Followed, SourceArgs,
        kubernetes::{Interest, Pods, Written},
        manifests::Memory,
    },
    tunnel::{self, Mode},
};

pub mod allowed;
pub mod claims;
mod cleanup;
mod clock;
pub mod compile;
mod far_end;
pub mod health;
mod manager;
mod monitor;
mod network;
pub mod numbers;
pub mod ports;
mod probe;
pub mod registry;
pub mod reset;
mod revoke;
mod sessions;
mod status;
mod store;

pub use cleanup::cleanup;
use manager::{Channels, Manager, Parts, Settings};

const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Flags of `enforcer gateway`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Remove everything that a gateway of this name has made on this host, but its key, and end
    #[arg(long)]
    cleanup: bool,
    /// Do not end then, but wait to be told to: in a Deployment, what ends is started again
    #[arg(long, requires = "cleanup")]
    stay: bool,
    #[command(flatten)]
    source: SourceArgs,
    /// Name of the TunnelGateway that this process is
    #[arg(long)]
    name: String,
    /// Private key, as `enforcer keygen gateway` made it
    #[arg(
        long,
        value_name = "FILE",
        required = false,
        required_unless_present = "cleanup",
        default_value_if("cleanup", ArgPredicate::IsPresent, "-")
    )]
    key: PathBuf,
    /// Folder for what belongs to this process; /run/enforcer/NAME where absent
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// BPF file system to pin programs and maps in; /sys/fs/bpf/enforcer-NAME where absent
    #[arg(long, value_name = "DIR")]
    bpffs: Option<PathBuf>,
    /// How programs come to devices [default: tcx where the kernel has it]
    #[arg(long, value_enum)]
    attach: Option<Hooks>,
    /// Which WireGuard to use
    #[arg(long, value_enum, default_value_t)]
    tunnel: Mode,
    /// UDP port of the tunnel; the port of the TunnelGateway's first endpoint where absent
    #[arg(long, value_name = "PORT")]
    listen_port: Option<u16>,
    /// In a container: mount namespace to do in what a container may not [example: /proc/1/ns/mnt]
    #[arg(long, value_name = "PATH")]
    host_mounts: Option<PathBuf>,
}

impl Args {
    /// Whether the host is to be left as it was, not the role to be run.
    pub const fn is_cleanup(&self) -> bool {
        self.cleanup
    }

    fn run_dir(&self) -> PathBuf {
        self.run_dir.clone().unwrap_or_else(|| PathBuf::from("/run/enforcer").join(&self.name))
    }

    fn bpffs(&self) -> PathBuf {
        self.bpffs.clone().unwrap_or_else(|| pins_of(&self.name))
    }
}

/// Runs the gateway until it is told to stop.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let (run_dir, bpffs) = (args.run_dir(), args.bpffs());
    std::fs::create_dir_all(&run_dir).with_context(|| format!("cannot make {}", run_dir.display()))?;
    let _lock = lock(&run_dir).await?;
    if let Some(path) = &args.host_mounts {
        mounts::use_host(path).with_context(|| format!("--host-mounts {}", path.display()))?;
    }
    let reserve = || mounts::on_host(|| Ok(ports::reserve()));
    let changed_sysctls = reserve().context("cannot reach the host's mounts")?.context(
        "ports 61000-65535 cannot be kept for translation; let this process write, or put them into \
         net.ipv4.ip_local_reserved_ports before it starts",
    )?;
    for change in &changed_sysctls {
        info!(change, "keeping ports 61000-65535 for translation");
    }
    let settings = Settings {
        device: tunnel::device_name(&args.name),
        private_key: keygen::read_private_key(&args.key)?,
        listen_port: args.listen_port,
        bindings: run_dir.join("bindings.json"),
        changed_sysctls,
        name: args.name.clone(),
    };
    let far_end = far_end::FarEnd::open(args.tunnel, run_dir.clone()).await?;
    let mut datapath = KernelGateway::open(&bpffs, &Options { hooks: args.attach, ..Options::default() })
        .with_context(|| format!("cannot open the datapath in {}", bpffs.display()))?;
    let events = datapath.take_events().context("cannot read the kernel's events")?;
    let kept = store::load(&settings.bindings).unwrap_or_else(|error| {
        warn!(error = far_end::chain(&error), "starting without what the nodes announced before");
        None
    });
    let bindings_known = kept.is_some();
    let kept = kept.unwrap_or_default();
    let parts = Parts {
        actual: datapath.dump().context("cannot read the kernel's maps")?,
        datapath,
        far_end: far_end.clone(),
        netlink: Netlink::open(None)?,
        injector: reset::Injector::open().context("cannot open raw sockets for resets")?,
        registry: kept.registry,
        numbers: kept.numbers,
        bindings_known,
    };
    let (channels, ends) = channels(&args, &run_dir).await?;
    tokio::spawn(far_end.keep(ends.wanted, ends.tunnel));
    tokio::spawn(probe::run(ends.targets, ends.reports));
    let (listeners, _) = broadcast::channel(1024);
    if let Some(events) = events {
        tokio::spawn(monitor::run(events, ends.names, listeners.clone()));
    }
    let stop = crate::signals::told_to_end()?;
    let serving = control::serve(run_dir.join("gateway.sock"), ends.views, Some(listeners));
    tokio::select! {
        result = Manager::new(settings, channels, parts).run(stop) => result,
        result = serving => result,
    }
}

/// The other tasks' ends of the channels.
struct Ends {
    wanted: watch::Receiver<Option<crate::tunnel::DeviceConfig>>,
    tunnel: watch::Sender<far_end::Health>,
    targets: watch::Receiver<std::collections::BTreeSet<SocketAddr>>,
    reports: mpsc::Sender<probe::Report>,
    names: watch::Receiver<Arc<monitor::Names>>,
    views: Views,
}

async fn channels(args: &Args, run_dir: &Path) -> anyhow::Result<(Channels, Ends)> {
    // Of pods that it can read the gateway checks what nodes say of them.
    let interest = Interest { pods: Pods::All, only_services: false, written: Written::Nothing };
    let followed = args.source.follow(Memory::Own(run_dir.join("accepted")), &interest).await?;
    let Followed { snapshots, states, server } = followed;
    let (say, said) = mpsc::channel(64);
    let (peers, _) = watch::channel(Arc::default());
    let (report, reports) = mpsc::channel(64);
    let (targets, wanted_targets) = watch::channel(std::collections::BTreeSet::new());
    let (wanted, wanted_device) = watch::channel(None);
    let (tunnel_health, tunnel) = watch::channel(far_end::Health::default());
    let (names, known_names) = watch::channel(Arc::default());
    let (asked, views) = Views::asked();
    let channels = Channels {
        snapshots,
        states,
        heard: server.map(|(_, watched)| watched.heard),
        said,
        say,
        peers,
        reports,
        targets,
        wanted,
        tunnel,
        names,
        asked: Arc::new(asked),
    };
    let ends = Ends {
        wanted: wanted_device,
        tunnel: tunnel_health,
        targets: wanted_targets,
        reports: report,
        names: known_names,
        views,
    };
    Ok((channels, ends))
}

/// One gateway per run directory: a second one would undo what the first does. One that was killed a moment ago may
/// not be quite gone, so it is waited for.
async fn lock(run_dir: &Path) -> anyhow::Result<Flock<std::fs::File>> {
    let path = run_dir.join("gateway.lock");
    let mut file = std::fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    for _ in 0..LOCK_TRIES {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((unlocked, nix::Error::EAGAIN)) => file = unlocked,
            Err((_, error)) => return Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    anyhow::bail!("another gateway runs with {}", run_dir.display())
}
