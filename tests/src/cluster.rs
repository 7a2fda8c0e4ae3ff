//! A real Kubernetes cluster of one node, in namespaces and folders of its own.
//!
//! The node takes the place of a lab's: beside it are the lab's gateway and services' host, with the same addresses, and
//! nothing has a route to this machine's own networks. Like a lab it is found by its name, also by another process.

mod cgroups;
mod daemons;
pub mod enforcer;
mod files;
pub mod node;
pub mod pods;
pub mod reboot;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

pub use cgroups::hierarchies;
pub use files::{DNS, PAUSE, PODS, SERVICES};

use crate::{
    control_plane::{Authority, Credentials},
    lab::{
        self, Id, Lab, clean,
        command::{finish, finish_with, inside},
    },
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

/// A cluster that stays up until it is taken down.
pub struct Cluster {
    /// The lab that it is part of.
    pub lab: Lab,
    authority: Authority,
    programs: PathBuf,
    cni: Cni,
}

impl Cluster {
    /// The cluster of this name: the one that is up, or a new one. What a failed start or a crash left goes first.
    pub fn up(name: &str, programs: &Path, cni: Cni) -> Result<Self> {
        if let Some(cluster) = Self::find(name)? {
            return Ok(cluster);
        }
        clean::dead_labs()?;
        Self::down(name)?;
        let lab = Lab::build(Id::of(name)?, &[])?;
        let authority = Authority::new(&lab.id.dir.join("keys"))?;
        let mut cluster = Self { lab, authority, programs: programs.to_owned(), cni };
        if let Err(err) = cluster.start() {
            cluster.lab.print_logs();
            return Err(err);
        }
        clean::leave(cluster.id())?;
        cluster.lab.keep();
        Ok(cluster)
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
        let cluster = Self { lab, authority, programs, cni: Cni::default() };
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
        clean::is_kept(id) && node::first_process(id).is_some()
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
        self.id().dir.join("kubectl")
    }

    /// Runs kubectl as a user who may do everything, and returns what it prints.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        finish(Command::new(self.kubectl_path()).args(args))
    }

    /// The same with standard input, as for `apply --filename -`.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String> {
        finish_with(Command::new(self.kubectl_path()).args(args), input)
    }

    /// Runs a command of enforcer as a user who may do everything, and returns what it prints.
    pub fn enforcer(&self, args: &[&str]) -> Result<String> {
        let program = lab::enforcer()?;
        let mut command = inside(&self.id().netns("node"), &self.id().tools(), &program.to_string_lossy());
        finish(command.args(args).env("KUBECONFIG", self.kubeconfig()))
    }

    /// Writes a kubeconfig for somebody outside of the node.
    pub fn kubeconfig_of(&self, name: &str, credentials: &Credentials) -> Result<PathBuf> {
        self.authority.kubeconfig(name, &self.servers().url(), credentials)
    }

    /// Runs a program on the node, and returns what it prints.
    pub fn on_node(&self, program: &str, args: &[&str]) -> Result<String> {
        finish(node::command(self.id(), program)?.args(args))
    }

    /// Whether the node is ready for pods.
    pub fn ready(&self) -> Result<String> {
        let node = self.id().node();
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
        // Made by a controller; pods cannot be created without.
        self.kubectl(&["get", "serviceaccount", "default", "--namespace=default", "--output=name"])
    }

    /// How to use it, for a person at a shell.
    pub fn usage(&self) -> String {
        let (id, kubectl) = (self.id(), self.kubectl_path());
        let version = self.kubectl(&["version", "--short"]).unwrap_or_default();
        let version = version.lines().last().unwrap_or_default().trim_start_matches("Server Version: ");
        format!(
            "up: Kubernetes {version}, node {}\n\n  {} get pods --all-namespaces\n\nor, in the network of the node:\n\n  \
             export KUBECONFIG={}\n  ip netns exec {} {} get nodes\n\nlogs are in {}",
            id.node(),
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
        node::start(self.id(), &self.programs)?;
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
