//! The agent's command line.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::builder::ArgPredicate;
use enforcer_common::maps::name;
use tokio::sync::watch;

use super::boot_unit;
use crate::{
    datapath::kernel::{Hooks, Options, pins_of},
    keygen::{self, KeyError},
    mounts,
    source::{Project, SourceArgs},
    tunnel::Mode,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Before kubelet: only lead what is guarded nowhere, as --guarded or the state file knows it, and end
    #[arg(long)]
    pub(super) prepare: bool,
    /// Remove everything that an agent has made on this node, its key as well, and end
    #[arg(long, conflicts_with = "prepare")]
    pub(super) cleanup: bool,
    /// Do not end then, but wait to be told to: in a DaemonSet, what ends is started again
    #[arg(long, requires = "cleanup")]
    pub(super) stay: bool,
    #[command(flatten)]
    pub(super) source: SourceArgs,
    #[command(flatten)]
    pub(super) project: Project,
    /// Name of this node's TunnelNode; with --connections-kubeconfig it is CLUSTER-NAME.NAME
    #[arg(
        long,
        value_name = "NAME",
        required = false,
        required_unless_present = "prepare",
        default_value_if("prepare", ArgPredicate::IsPresent, "-")
    )]
    pub(super) node: String,
    /// What Kubernetes calls this node [default: the same]
    #[arg(long, value_name = "NAME")]
    pub(super) kubernetes_node: Option<String>,
    /// Name of the cluster, as ServiceConnections call it
    #[arg(
        long,
        value_name = "NAME",
        required = false,
        required_unless_present_any = ["prepare", "cleanup"],
        default_value_ifs([("prepare", ArgPredicate::IsPresent, "-"), ("cleanup", ArgPredicate::IsPresent, "-")])
    )]
    pub(super) cluster_name: String,
    /// The node's private key, as `enforcer keygen` writes it; made if the objects come from an API server
    #[arg(
        long,
        value_name = "FILE",
        required = false,
        required_unless_present_any = ["prepare", "cleanup"],
        default_value_ifs([("prepare", ArgPredicate::IsPresent, "-"), ("cleanup", ArgPredicate::IsPresent, "-")])
    )]
    pub(super) key: PathBuf,
    /// Control socket and ledger [default: /run/enforcer/NODE]
    #[arg(long, value_name = "DIR")]
    pub(super) run_dir: Option<PathBuf>,
    /// Where programs, links and maps are pinned [default: /sys/fs/bpf/enforcer-NODE]
    #[arg(long, value_name = "DIR")]
    pub(super) bpffs: Option<PathBuf>,
    /// Namespace of the tunnel devices [default: /run/netns/enforcer-NODE]
    #[arg(long, value_name = "PATH")]
    pub(super) tunnel_netns: Option<PathBuf>,
    /// How programs come to devices [default: tcx where the kernel has it]
    #[arg(long, value_enum)]
    pub(super) attach: Option<Hooks>,
    /// Kind of tunnel devices
    #[arg(long, value_enum, default_value = "auto")]
    pub(super) tunnel: Mode,
    /// cgroup (v2) below which connects are judged [default: the root]
    #[arg(long, value_name = "PATH")]
    pub(super) cgroup_root: Option<PathBuf>,
    /// In a container: mount namespace to do in what a container may not [example: /proc/1/ns/mnt]
    #[arg(long, value_name = "PATH")]
    pub(super) host_mounts: Option<PathBuf>,
    /// Keep what is guarded in this file, for the boot guard [default: the state file has it]
    #[arg(long, value_name = "FILE")]
    pub(super) guarded: Option<PathBuf>,
    /// Have this program run by systemd before kubelet, with --prepare and --guarded; `false`: not any more
    #[arg(long, value_name = "BOOL", requires = "guarded")]
    pub(super) boot_guard: Option<bool>,
    /// Most flows of one pod
    #[arg(long, value_name = "COUNT", default_value_t = 16_384)]
    pub(super) flow_quota: u32,
    /// Most flows of the node; fixed for as long as programs are pinned [default: 131072]
    #[arg(long, value_name = "COUNT")]
    pub(super) flow_table: Option<u32>,
    /// Most grants of the node's pods; fixed for as long as programs are pinned [default: 262144]
    #[arg(long, value_name = "COUNT")]
    pub(super) grant_table: Option<u32>,
}

impl Args {
    /// Whether it is the boot guard that is wanted, not the role.
    pub const fn is_boot_guard(&self) -> bool {
        self.prepare
    }

    /// Whether the node is to be left as it was, not the role to be run.
    pub const fn is_cleanup(&self) -> bool {
        self.cleanup
    }

    /// From now on that which needs the host's mounts is done there, if any are named.
    pub fn use_host_mounts(&self) -> anyhow::Result<()> {
        let Some(path) = &self.host_mounts else { return Ok(()) };
        mounts::use_host(path).with_context(|| format!("--host-mounts {}", path.display()))
    }

    /// Begins to keep the boot guard on the host, or away from it; what is wrong, where one is wanted.
    pub(super) fn keep_boot_guard(&self) -> Option<watch::Receiver<boot_unit::Wrong>> {
        let wrong = boot_unit::keep(self.boot_guard?, self.guarded.clone()?);
        self.boot_guard.filter(|wanted| *wanted).map(|_| wrong)
    }

    /// What the TunnelNode is called: where several clusters share an API server, the names of their nodes may be the
    /// same.
    pub fn tunnel_node(&self) -> String {
        if self.project.is_elsewhere() {
            return format!("{}.{}", self.cluster_name, self.node);
        }
        self.node.clone()
    }

    /// What Kubernetes calls the node.
    pub fn kubernetes_node(&self) -> &str {
        self.kubernetes_node.as_deref().unwrap_or(&self.node)
    }

    /// With an API server nobody has to write the TunnelNode by hand, so that nobody has to make a key either.
    pub(super) fn private_key(&self) -> Result<[u8; 32], KeyError> {
        if self.source.manifests.is_some() {
            return keygen::read_private_key(&self.key);
        }
        keygen::ensure_private_key(&self.key)
    }

    /// Where maps and links are pinned.
    pub fn bpffs_path(&self) -> PathBuf {
        self.bpffs.clone().unwrap_or_else(|| pins_of(&self.node))
    }

    /// Sizes of the maps.
    pub(super) fn options(&self) -> Options {
        let grants = self.grant_table.map(|grants| (name::GRANTS, grants));
        Options {
            sizes: grants.into_iter().collect(),
            flows: self.flow_table,
            hooks: self.attach,
            ..Options::default()
        }
    }
}
