//! A node as a DaemonSet's agent sees it: the host has mounts and systemd's folders of its own, the agent sees less.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use enforcer::model::crd;
use enforcer_tests::{
    control_plane::ControlPlane,
    lab::{
        Lab, Running,
        command::{finish, inside},
        roles::enforcer,
        wait,
    },
};
use serde_json::Value;

pub const CLUSTER: &str = "blue";

/// A server with the definitions of our kinds, and a controller.
pub fn plane() -> Result<(ControlPlane, Running)> {
    let plane = ControlPlane::start()?;
    let controller = controlled(&plane)?;
    Ok((plane, controller))
}

/// Gives a server the definitions of our kinds, and a controller.
pub fn controlled(plane: &ControlPlane) -> Result<Running> {
    let definitions: Result<Vec<_>, _> =
        crd::definitions(crd::Rules::None).iter().map(serde_norway::to_string).collect();
    plane.kubectl_with(&["apply", "--filename", "-"], &definitions?.join("---\n"))?;
    plane.kubectl(&["create", "namespace", "enforcer-system"])?;
    let run_dir = plane.dir().join("run/controller").display().to_string();
    plane.role("controller", &["controller", "--run-dir", &run_dir])
}

/// The machine that a node is.
pub struct Host<'a> {
    pub lab: &'a Lab,
    plane: &'a ControlPlane,
    /// Its first process, and mount namespace.
    first: Running,
    /// What Kubernetes calls it.
    node: String,
}

impl<'a> Host<'a> {
    /// Starts it; `booted_by_systemd` as far as its files tell.
    pub fn start(lab: &'a Lab, plane: &'a ControlPlane, booted_by_systemd: bool) -> Result<Self> {
        plane.reach_from(&lab.id.netns("node"))?;
        let systemd = if booted_by_systemd { "mkdir /run/systemd/system &&" } else { "" };
        let script = format!(
            "mount -t tmpfs none /etc/systemd && mount -t tmpfs none /run/systemd && {systemd} mkdir /etc/systemd/system && \
             mount --make-rshared / && echo ready && exec sleep infinity"
        );
        let mut command = inside(&lab.id.netns("node"), &lab.id.tools(), "unshare");
        command.args(["--mount", "sh", "-c", &script]);
        let first = Running::start(&mut command, &lab.id.log("host"))?;
        wait::for_true("the host is there", || lab.log("host").contains("ready"))?;
        Ok(Self { lab, plane, first, node: lab.id.node() })
    }

    /// The same node under another name.
    pub fn called(self, node: &str) -> Self {
        Self { node: node.to_owned(), ..self }
    }

    /// A file of the host.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.first.pid()))
    }

    /// What the agent keeps for the next boot.
    pub fn guarded(&self) -> PathBuf {
        self.lab.id.dir.join("state/node.guarded.json")
    }

    /// The agent in its container.
    fn command(&self, more: &[&str]) -> Result<Command> {
        let host = format!("/proc/{}/ns/mnt", self.first.pid());
        let script = "mount -t tmpfs none /run/systemd && mount -t tmpfs none /etc/systemd && exec \"$@\"";
        let mut command = inside(&self.lab.id.netns("node"), &self.lab.id.tools(), "nsenter");
        command.arg(format!("--mount={host}"));
        command.args(["unshare", "--mount", "--propagation", "slave", "sh", "-c", script, "sh"]);
        let (id, dir) = (&self.lab.id, self.lab.id.dir.display());
        command.arg(enforcer()?).arg("agent").args([
            format!("--node={}", self.node),
            format!("--key={dir}/state/node.key"),
            format!("--run-dir={dir}/run/node"),
            format!("--bpffs={}/node", id.bpffs().display()),
            format!("--tunnel-netns=/run/netns/{}", self.lab.tunnel_netns()),
            format!("--cgroup-root={}", id.kube().display()),
            format!("--kubeconfig={}", self.plane.kubeconfig().display()),
            format!("--guarded={}", self.guarded().display()),
            format!("--host-mounts={host}"),
            "--tunnel=userspace".to_owned(),
        ]);
        if !more.iter().any(|word| word.starts_with("--cluster-name=")) {
            command.arg(format!("--cluster-name={CLUSTER}"));
        }
        command.args(more);
        Ok(command)
    }

    pub fn agent(&self, more: &[&str]) -> Result<Running> {
        std::fs::create_dir_all(self.lab.id.dir.join("state")).context("cannot make the state folder")?;
        Running::start(&mut self.command(more)?, &self.lab.id.log("agent"))
    }

    /// The agent to its end, and what it prints.
    pub fn agent_once(&self, more: &[&str]) -> Result<String> {
        finish(&mut self.command(more)?)
    }

    /// A condition of the node's TunnelNode: `True BootGuard: `
    pub fn condition(&self, kind: &str) -> String {
        let text =
            self.plane.kubectl(&["get", "tunnelnode", &self.node, "--output", "json"]).unwrap_or_default();
        let object: Value = serde_json::from_str(&text).unwrap_or_default();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|found| found["type"] == kind);
        found.map_or_else(String::new, |found| {
            let text = |field: &str| found[field].as_str().unwrap_or_default();
            format!("{} {}: {}", text("status"), text("reason"), text("message"))
        })
    }

    pub fn wait_for(&self, kind: &str, wanted: &str) -> Result<()> {
        let waited = wait::for_true(&format!("{kind} is {wanted}"), || self.condition(kind) == wanted);
        waited.with_context(|| format!("it is \"{}\"; {}", self.condition(kind), self.lab.log("agent")))
    }
}
