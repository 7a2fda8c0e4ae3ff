//! What runs on the node: etcd, the API server and its controllers beside it, containerd, kubelet and kube-proxy on it.

use std::{fs, net::Ipv4Addr, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use super::{
    Cluster, files,
    node::{self, FIRST, Node},
};
use crate::{
    control_plane::{Credentials, Servers, User},
    lab::{
        Running,
        command::{finish, inside},
        network::NODE4,
        wait,
    },
};

/// Half a minute where others take most of the processor.
const WATCHDOG: Duration = Duration::from_mins(5);
const ADMISSION: &str = "--enable-admission-plugins=NodeRestriction";
/// Nothing resolves the name of the node.
const TO_KUBELET: &str = "--kubelet-preferred-address-types=InternalIP";

impl Cluster {
    /// Keys, certificates and files of everybody.
    pub(super) fn prepare(&self) -> Result<()> {
        let (authority, servers) = (&self.authority, self.servers());
        servers.prepare()?;
        // Calls of the API server to the kubelet, as for `kubectl exec`.
        authority.client("api-client", User { name: "api-server", groups: &["system:masters"] })?;
        for (name, user, groups) in [
            ("controller-manager", "system:kube-controller-manager", &[][..]),
            ("scheduler", "system:kube-scheduler", &[]),
            ("proxy", "system:kube-proxy", &[]),
        ] {
            let user = Credentials::Certificate(User { name: user, groups });
            authority.kubeconfig(name, &servers.url(), &user)?;
        }
        self.prepare_node(FIRST)
    }

    /// What a node's own programs read.
    pub(super) fn prepare_node(&self, node: Node) -> Result<()> {
        let (authority, name) = (&self.authority, node.name(self.id()));
        authority.serve(&node.file(files::KUBELET_SERVER), &node.addresses, &[&name])?;
        let user = User { name: &format!("system:node:{name}"), groups: &["system:nodes"] };
        let user = Credentials::Certificate(user);
        authority.kubeconfig(&node.file("kubelet"), &self.servers().url(), &user)?;
        files::write(&self.id().dir, authority, self.cni, node)
    }

    pub(super) fn servers(&self) -> Servers<'_> {
        Servers {
            programs: &self.programs,
            authority: &self.authority,
            address: NODE4.parse().expect("an address"),
            store: Ipv4Addr::LOCALHOST,
        }
    }

    /// Starts everything that no pod is needed for. Later starts wait for what they need themselves.
    pub(super) fn start_daemons(&mut self) -> Result<()> {
        let servers = self.servers();
        let store = servers.store(&self.id().dir.join("store"));
        let key = |file: &str| self.authority.path(file).display().to_string();
        let certificate = format!("--kubelet-client-certificate={}", key("api-client.crt"));
        let client_key = format!("--kubelet-client-key={}", key("api-client.key"));
        let services = format!("--service-cluster-ip-range={}", files::SERVICES);
        let more = [ADMISSION, TO_KUBELET, files::GATES, &services, &certificate, &client_key];
        let api = servers.api(&more);
        self.beside("etcd", &store)?;
        self.beside("kube-apiserver", &api)?;
        self.beside("kube-controller-manager", &self.controllers())?;
        self.beside("kube-scheduler", &self.scheduler())?;
        self.start_node(FIRST, "")
    }

    /// What runs on a node itself. It goes on when this process ends.
    pub(super) fn start_node(&self, node: Node, taints: &str) -> Result<()> {
        let start = |name: &str, command: &mut Command| {
            Running::start(command, &self.id().log(&node.file(name))).map(Running::leave)
        };
        let config = self.id().dir.join(node.file(files::CONTAINERD)).display().to_string();
        start("containerd", node.command(self.id(), "containerd")?.args(["--config", &config]))?;
        wait::until_within(WATCHDOG, "containerd answers", || {
            self.ctr(node, &["version"]).and_then(|mut command| finish(&mut command)).ok()
        })?;
        start("kubelet", self.kubelet(node)?.arg(format!("--register-with-taints={taints}")))?;
        start("kube-proxy", &mut self.proxy(node)?)
    }

    /// A program on the node that only its network is for: not in a place where hooks of the node apply.
    fn beside(&mut self, name: &'static str, command: &Command) -> Result<()> {
        let (netns, cgroup) = (self.id().netns("node"), self.id().tools());
        let mut detached = inside(&netns, &cgroup, "setsid");
        detached.arg(command.get_program()).args(command.get_args());
        self.on(name, &mut detached)
    }

    fn on(&mut self, name: &'static str, command: &mut Command) -> Result<()> {
        let process = Running::start(command, &self.id().log(name))?;
        self.lab.processes.insert(name.into(), process);
        Ok(())
    }

    /// Asks until there is no error, or until one of the daemons has ended.
    pub(super) fn wait(&mut self, what: &str, mut ask: impl FnMut(&Self) -> Result<String>) -> Result<()> {
        let mut last = String::new();
        let result = wait::until_within(WATCHDOG, what, || {
            for (name, process) in &mut self.lab.processes {
                if let Some(status) = process.ended() {
                    return Some(Err(format!("{name} ended: {status}")));
                }
            }
            match ask(self) {
                Ok(_) => return Some(Ok(())),
                Err(err) => last = format!("{err:#}"),
            }
            None
        });
        match result.with_context(|| last.clone())? {
            Ok(()) => Ok(()),
            Err(why) => bail!("{what}: {why}"),
        }
    }

    fn controllers(&self) -> Command {
        let key = |file: &str| self.authority.path(file).display().to_string();
        let mut command = Command::new(self.programs.join("kube-controller-manager"));
        command.args([
            "--allocate-node-cidrs=true".into(),
            "--bind-address=127.0.0.1".into(),
            format!("--cert-dir={}", key("controller-manager")),
            format!("--cluster-cidr={}", files::PODS),
            files::GATES.into(),
            format!("--kubeconfig={}", key("controller-manager.kubeconfig")),
            "--leader-elect=false".into(),
            "--port=0".into(),
            format!("--root-ca-file={}", key("ca.crt")),
            format!("--service-account-private-key-file={}", key("accounts.key")),
            format!("--service-cluster-ip-range={}", files::SERVICES),
            "--use-service-account-credentials=true".into(),
        ]);
        command
    }

    fn scheduler(&self) -> Command {
        let key = |file: &str| self.authority.path(file).display().to_string();
        let mut command = Command::new(self.programs.join("kube-scheduler"));
        command.args([
            "--bind-address=127.0.0.1".into(),
            format!("--cert-dir={}", key("scheduler")),
            format!("--kubeconfig={}", key("scheduler.kubeconfig")),
            "--leader-elect=false".into(),
            "--port=0".into(),
        ]);
        command
    }

    fn kubelet(&self, node: Node) -> Result<Command> {
        let dir = &self.id().dir;
        let program = dir.join(node::PROGRAMS).join("kubelet");
        let mut command = node.command(self.id(), &program.to_string_lossy())?;
        command.args([
            format!("--config={}", dir.join(node.file(files::KUBELET)).display()),
            "--container-runtime=remote".into(),
            "--container-runtime-endpoint=unix:///run/containerd/containerd.sock".into(),
            format!("--hostname-override={}", node.name(self.id())),
            format!("--kubeconfig={}", self.authority.kubeconfig_path(&node.file("kubelet")).display()),
            format!("--node-ip={}", node.addresses.join(",")),
        ]);
        Ok(command)
    }

    fn proxy(&self, node: Node) -> Result<Command> {
        let program = self.id().dir.join(node::PROGRAMS).join("kube-proxy");
        let mut command = node.command(self.id(), &program.to_string_lossy())?;
        command.args([
            format!("--cluster-cidr={}", files::PODS),
            // These settings are the machine's, not the node's.
            "--conntrack-max-per-core=0".into(),
            "--conntrack-tcp-timeout-close-wait=0".into(),
            "--conntrack-tcp-timeout-established=0".into(),
            files::GATES.into(),
            format!("--hostname-override={}", node.name(self.id())),
            format!("--kubeconfig={}", self.authority.kubeconfig_path("proxy").display()),
            "--proxy-mode=iptables".into(),
        ]);
        Ok(command)
    }

    /// `ctr` of a node's containerd, for the images that its kubelet sees.
    pub(super) fn ctr(&self, node: Node, args: &[&str]) -> Result<Command> {
        let mut command = node.command(self.id(), "ctr")?;
        command.args(["--namespace", "k8s.io"]).args(args);
        Ok(command)
    }

    /// Imports an image from a tar file, for all pods.
    pub fn import(&self, tar: &Path) -> Result<()> {
        for node in self.nodes() {
            let file = fs::File::open(tar).with_context(|| format!("cannot open {}", tar.display()))?;
            finish(self.ctr(node, &["images", "import", "-"])?.stdin(file))?;
        }
        Ok(())
    }
}
