//! A real Kubernetes cluster of one node or two, in namespaces and folders of its own.
//!
//! The first node takes the place of a lab's: beside it are the lab's gateway and services' host, with the same addresses, and
//! nothing has a route to this machine's own networks. Like a lab it is found by its name, also by another process.

mod cgroups;
pub mod client;
mod daemons;
pub mod enforcer;
mod files;
pub mod node;
pub mod pods;
pub mod reboot;
mod second;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

pub use cgroups::hierarchies;
use client::Client;
pub use files::{DNS, PAUSE, PODS, SERVICES};
use node::{FIRST, Node, SECOND};

use crate::{
    control_plane::{Authority, Credentials},
    lab::{Id, Lab, clean, command::finish},
};

/// How pods are joined to the node.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Cni {
    /// Each by a route to its device
    #[default]
    Ptp,
    /// All by one bridge
    Bridge,
}

/// What a cluster is to be like.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Shape {
    pub cni: Cni,
    pub two_nodes: bool,
}

/// A cluster that stays up until it is taken down.
pub struct Cluster {
    /// The lab that it is part of.
    pub lab: Lab,
    client: Client,
    authority: Authority,
    programs: PathBuf,
    cni: Cni,
}

impl AsRef<Client> for Cluster {
    fn as_ref(&self) -> &Client {
        &self.client
    }
}

impl Cluster {
    /// The cluster of this name: the one that is up, or a new one. What a failed start or a crash left goes first.
    pub fn up(name: &str, programs: &Path, shape: Shape) -> Result<Self> {
        if let Some(cluster) = Self::find(name)? {
            if shape.two_nodes && cluster.nodes().count() == 1 {
                bail!("the cluster {name} is up with one node, expected two: end it first");
            }
            return Ok(cluster);
        }
        clean::dead_labs()?;
        Self::down(name)?;
        let lab = Lab::build(Id::of(name)?, &[])?;
        let authority = Authority::new(&lab.id.dir.join("keys"))?;
        let mut cluster = Self::of(lab, authority, programs.to_owned(), shape.cni);
        let started = cluster.start();
        if let Err(err) = started.and_then(|()| if shape.two_nodes { cluster.add_second() } else { Ok(()) }) {
            cluster.lab.print_logs();
            return Err(err);
        }
        clean::leave(cluster.id())?;
        cluster.lab.keep();
        Ok(cluster)
    }

    fn of(lab: Lab, authority: Authority, programs: PathBuf, cni: Cni) -> Self {
        let (kubectl, kubeconfig) = (lab.id.dir.join("kubectl"), authority.kubeconfig_path("admin"));
        Self { client: Client::of_lab(&lab.id, kubectl, kubeconfig), lab, authority, programs, cni }
    }

    /// The cluster of this name, if it is up.
    pub fn find(name: &str) -> Result<Option<Self>> {
        let id = Id::of(name)?;
        let Some(programs) = fs::read_link(id.dir.join("bin")).ok().filter(|_| Self::is_kept(&id)) else {
            return Ok(None);
        };
        let authority = Authority::new(&id.dir.join("keys"))?;
        let mut lab = Lab::around(id);
        lab.keep();
        let cluster = Self::of(lab, authority, programs, Cni::default());
        Ok(cluster.ready().is_ok().then_some(cluster))
    }

    /// The cluster that the environment names; none, and said so, where tests were started without.
    ///
    /// # Panics
    /// When tests may not be skipped.
    pub fn of_tests() -> Result<Option<Self>> {
        let Ok(name) = std::env::var("ENFORCER_CLUSTER") else {
            let required = std::env::var_os("ENFORCER_REQUIRE_ALL").is_some();
            assert!(!required, "ENFORCER_CLUSTER names no cluster: run `cargo xtask test cluster`");
            // Past the capture of the test harness.
            let _ = writeln!(std::io::stderr(), "SKIP: ENFORCER_CLUSTER names no cluster");
            return Ok(None);
        };
        Self::find(&name)?.map(Some).with_context(|| format!("no cluster {name} is up"))
    }

    fn is_kept(id: &Id) -> bool {
        clean::is_kept(id) && FIRST.first_process(id).is_some()
    }

    /// Ends its processes and removes all of it. What is not there is fine.
    pub fn down(name: &str) -> Result<()> {
        clean::remove(&Id::of(name)?)
    }

    pub fn id(&self) -> &Id {
        &self.lab.id
    }

    /// For a user who may do everything; the address in it is the node's, reached in its network only.
    pub fn kubeconfig(&self) -> PathBuf {
        self.authority.kubeconfig_path("admin")
    }

    /// A script that is kubectl for this cluster.
    pub fn kubectl_path(&self) -> PathBuf {
        self.client.kubectl_path().to_owned()
    }

    /// Runs kubectl as a user who may do everything, and returns what it prints.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.client.kubectl(args)
    }

    /// The same with standard input, as for `apply --filename -`.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String> {
        self.client.kubectl_with(args, input)
    }

    /// Runs a command of enforcer as a user who may do everything, and returns what it prints.
    pub fn enforcer(&self, args: &[&str]) -> Result<String> {
        self.client.enforcer(args)
    }

    /// Writes a kubeconfig for somebody outside of the node.
    pub fn kubeconfig_of(&self, name: &str, credentials: &Credentials) -> Result<PathBuf> {
        self.authority.kubeconfig(name, &self.servers().url(), credentials)
    }

    /// Those that run.
    fn nodes(&self) -> impl Iterator<Item = Node> {
        [FIRST, SECOND].into_iter().filter(|node| node.first_process(self.id()).is_some())
    }

    /// Runs a program on the first node, and returns what it prints.
    pub fn on_node(&self, program: &str, args: &[&str]) -> Result<String> {
        finish(FIRST.command(self.id(), program)?.args(args))
    }

    /// Whether every node is ready for pods.
    pub fn ready(&self) -> Result<String> {
        for node in self.nodes() {
            let node = node.name(self.id());
            let said = self.kubectl(&[
                "get",
                "node",
                &node,
                "--output",
                "jsonpath={.status.conditions[?(@.type==\"Ready\")].status} {.spec.taints}",
                "--request-timeout=10s",
            ])?;
            if said.trim() != "True" {
                bail!("{node} is not ready: {said}");
            }
        }
        // Made by a controller; pods cannot be created without.
        self.kubectl(&["get", "serviceaccount", "default", "--namespace=default", "--output=name"])
    }

    /// How to use it, for a person at a shell.
    pub fn usage(&self) -> String {
        let (id, kubectl) = (self.id(), self.kubectl_path());
        let version = self.kubectl(&["version", "--short"]).unwrap_or_default();
        let version = version.lines().last().unwrap_or_default().trim_start_matches("Server Version: ");
        let nodes: Vec<String> = self.nodes().map(|node| node.name(id)).collect();
        format!(
            "up: Kubernetes {version}, {} {}\n\n  {} get pods --all-namespaces\n\nor, in the network of the node:\n\n  \
             export KUBECONFIG={}\n  ip netns exec {} {} get nodes\n\nlogs are in {}",
            if nodes.len() > 1 { "nodes" } else { "node" },
            nodes.join(" and "),
            kubectl.display(),
            self.kubeconfig().display(),
            id.netns("node"),
            self.programs.join("kubectl").display(),
            id.dir.join("log").display(),
        )
    }

    fn start(&mut self) -> Result<()> {
        std::os::unix::fs::symlink(&self.programs, self.id().dir.join("bin"))
            .context("cannot link the programs")?;
        self.prepare()?;
        self.write_kubectl()?;
        FIRST.start(self.id(), &self.programs)?;
        self.start_daemons()?;
        self.wait("the node is ready", Self::ready)
    }

    fn write_kubectl(&self) -> Result<()> {
        let path = self.kubectl_path();
        let script = format!(
            "#!/bin/sh\nexec nsenter --net=/run/netns/{} {} --kubeconfig {} --cache-dir {} \"$@\"\n",
            self.id().netns("node"),
            self.programs.join("kubectl").display(),
            self.kubeconfig().display(),
            self.id().dir.join("kubectl-cache").display(),
        );
        fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", path.display()))
    }
}
