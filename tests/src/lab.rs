//! The lab: one node with pods, one gateway, one host of services, joined by two networks, all in namespaces.
//!
//! ```text
//!  pods (ef-ID-NAME)             node (ef-ID-node)            gateway (ef-ID-gw)           services (ef-ID-svc)
//!  10.244.0.N  ───── veth ─────  192.0.2.11 ── br0 (ef-ID-lan) ── 192.0.2.1   203.0.113.1 ───── 203.0.113.10
//! ```
//!
//! Nothing in it has a route to the machine's own networks. Everything is owned by [`Lab`] and goes with it; what a
//! killed process leaves behind is found by its owner file (`clean`).

pub mod capture;
pub mod clean;
pub mod client;
pub mod command;
pub mod crowd;
pub mod destination;
pub mod granted;
pub mod manifests;
pub mod network;
pub mod query;
pub mod roles;
pub mod servers;
pub mod session;
pub mod wait;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

pub use client::{Outcome, Place};
pub use command::Running;
pub use network::{Network, Pod};
pub use roles::{Role, enforcer};

/// Where labs keep their files, one folder each.
pub const LABS: &str = "/run/enforcer-lab";
/// Root of the unified cgroup hierarchy.
pub const CGROUPS: &[&str] = &["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// Names and paths of one lab.
#[derive(Clone, Debug)]
pub struct Id {
    pub id: String,
    /// Files: manifests, state, keys, run folders, logs, data of the servers.
    pub dir: PathBuf,
    /// Holds every process of the lab, so that all of them can be ended together.
    pub cgroup: PathBuf,
}

impl Id {
    pub(crate) fn new() -> Result<Self> {
        // The process and a count in it: unique among the labs that can be alive at the same time.
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let id = format!("{:x}{count:x}", std::process::id());
        Self::of(&id)
    }

    pub(crate) fn of(id: &str) -> Result<Self> {
        let root = CGROUPS.iter().map(Path::new).find(|root| root.join("cgroup.procs").exists());
        let root = root.context("no cgroup v2 is mounted below /sys/fs/cgroup")?;
        Ok(Self {
            id: id.to_owned(),
            dir: Path::new(LABS).join(id),
            cgroup: root.join(format!("enforcer-{id}")),
        })
    }

    /// Name of a network namespace.
    pub fn netns(&self, part: &str) -> String {
        format!("ef-{}-{part}", self.id)
    }

    /// Below it the connect hooks apply: pods and, in `system`, what else runs on the node.
    pub fn kube(&self) -> PathBuf {
        self.cgroup.join("kube")
    }

    /// For servers, roles and tools: outside of the hooks.
    pub fn tools(&self) -> PathBuf {
        self.cgroup.join("tools")
    }

    pub fn bpffs(&self) -> PathBuf {
        self.dir.join("bpffs")
    }

    pub fn manifests(&self) -> PathBuf {
        self.dir.join("manifests")
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join("log").join(name)
    }

    pub fn node(&self) -> String {
        format!("node-{}", self.id)
    }

    pub fn gateway(&self) -> String {
        format!("eu-{}", self.id)
    }
}

/// A running lab.
pub struct Lab {
    pub id: Id,
    pub network: Network,
    /// Key: name as of [`Role::name`], or of a server.
    pub processes: BTreeMap<String, Running>,
    /// More words for the command lines of roles. Key: name as of [`Role::name`].
    pub more: BTreeMap<&'static str, String>,
    /// Roles that have their objects from an API server. Key: name as of [`Role::name`].
    pub kubeconfigs: BTreeMap<&'static str, PathBuf>,
    /// Roles are started from this binary; `None`: from the one that was built together with this one.
    pub binary: Option<PathBuf>,
    keep: bool,
}

impl Lab {
    /// Namespaces, networks and pods; no process yet.
    pub fn new(pods: &[Pod]) -> Result<Self> {
        clean::dead_labs()?;
        Self::build(Id::new()?, pods)
    }

    /// The same for a lab whose name somebody has chosen, and that is not there.
    pub(crate) fn build(id: Id, pods: &[Pod]) -> Result<Self> {
        // The owner file comes first: whatever happens next, somebody can find and remove what there is.
        clean::own(&id)?;
        let mut lab = Self::around(id);
        for dir in ["manifests", "log", "bpffs", "run/node", "run/gw", "run/controller", "data"] {
            let dir = lab.id.dir.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        for dir in [lab.id.kube(), lab.id.kube().join("system"), lab.id.tools()] {
            fs::create_dir_all(&dir).with_context(|| format!("cannot make the cgroup {}", dir.display()))?;
        }
        command::run("mount", &["-t", "bpf", "bpf", &lab.id.bpffs().to_string_lossy()])?;
        lab.network = Network::build(&lab.id, pods)?;
        Ok(lab)
    }

    /// What stands under this name, with nothing in it: it goes with this value unless [`Lab::keep`] was called.
    pub(crate) fn around(id: Id) -> Self {
        Self {
            network: Network::default(),
            processes: BTreeMap::new(),
            more: BTreeMap::new(),
            kubeconfigs: BTreeMap::new(),
            binary: None,
            keep: false,
            id,
        }
    }

    pub fn pod(&self, name: &str) -> &Pod {
        self.network.pods.iter().find(|pod| pod.name == name).expect("the lab has this pod")
    }

    /// Leaves everything up when this goes.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// What a process has written so far.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.id.log(name)).unwrap_or_default()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.keep {
            for (_, process) in std::mem::take(&mut self.processes) {
                process.leave();
            }
            return;
        }
        if std::thread::panicking() {
            self.print_logs();
        }
        if let Err(err) = clean::remove(&self.id) {
            eprintln!("lab {}: {err:#}; `cargo xtask clean-lab` removes the rest", self.id.id);
        }
    }
}

impl Lab {
    /// The end of every log, for whoever reads why a test failed.
    pub fn print_logs(&self) {
        let logs = fs::read_dir(self.id.dir.join("log")).into_iter().flatten();
        let mut names: Vec<_> = logs.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        for name in &names {
            let log = self.log(name);
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            eprintln!("--- {name}");
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}
