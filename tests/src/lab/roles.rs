//! Every role as a process of its own, started and restarted as an administrator would.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use enforcer::control::MonitorEvent;
use serde_json::Value;

use super::{
    Lab, Running,
    command::{finish, inside},
    manifests::{self, CLUSTER, PROJECT, Service},
    network::{DNS4, DNS6, GATEWAY4, TUNNEL_PORT},
    wait,
};

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Role {
    Controller,
    Dns,
    Gateway,
    GatewayTunnel,
    Agent,
    NodeTunnel,
}

impl Role {
    /// In the order in which they are started; any other would do as well.
    pub const ALL: [Self; 6] =
        [Self::Controller, Self::Dns, Self::Gateway, Self::GatewayTunnel, Self::Agent, Self::NodeTunnel];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Dns => "dns",
            Self::Gateway => "gateway",
            Self::GatewayTunnel => "gateway-tunnel",
            Self::Agent => "agent",
            Self::NodeTunnel => "node-tunnel",
        }
    }

    /// Namespace that it runs in.
    const fn part(self) -> &'static str {
        match self {
            Self::Gateway | Self::GatewayTunnel => "gw",
            Self::Controller | Self::Dns | Self::Agent | Self::NodeTunnel => "node",
        }
    }
}

/// The binary that was built together with this one.
pub fn enforcer() -> Result<PathBuf> {
    let own = env::current_exe().context("cannot find the own binary")?;
    // Test binaries lie one folder deeper.
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join("enforcer")).find(|path| path.is_file());
    found.with_context(|| format!("no `enforcer` beside {}; run `cargo xtask build`", own.display()))
}

impl Lab {
    /// Makes the keys and writes the two ends of the tunnel into the watched folder.
    pub fn save_tunnel_ends(&self, gateway_more: &str) -> Result<()> {
        self.save("gateway.yaml", &self.far_end(gateway_more)?)?;
        let key = self.keygen(&["node", &self.id.node()], "node.key")?;
        self.save("node.yaml", &manifests::node(&self.id, &key))
    }

    /// The gateway's object, with a key that is made.
    pub fn far_end(&self, more: &str) -> Result<String> {
        let endpoint = format!("{GATEWAY4}:{TUNNEL_PORT}");
        let key = self.keygen(&["gateway", &self.id.gateway(), "--endpoint", &endpoint], "gw.key")?;
        Ok(manifests::gateway(&self.id, &key, more))
    }

    /// Public half of a new key; the same again where the file is there.
    fn keygen(&self, args: &[&str], file: &str) -> Result<String> {
        let path = self.id.dir.join(file);
        let manifest = finish(Command::new(enforcer()?).arg("keygen").args(args).arg("--key").arg(path))?;
        let line = manifest.lines().find_map(|line| line.trim().strip_prefix("publicKey:"));
        Ok(line.context("keygen printed no publicKey")?.trim().trim_matches(['"', '\'']).to_owned())
    }

    pub fn start_roles(&mut self) -> Result<()> {
        Role::ALL.into_iter().try_for_each(|role| self.start(role))
    }

    pub fn start(&mut self, role: Role) -> Result<()> {
        let binary = self.binary.clone().map_or_else(enforcer, Ok)?;
        let mut command = inside(&self.id.netns(role.part()), &self.id.tools(), &binary.to_string_lossy());
        command
            .args(self.role_args(role))
            .env("RUST_LOG", env::var("RUST_LOG").unwrap_or_else(|_| "info".into()));
        let process = Running::start(&mut command, &self.id.log(role.name()))?;
        self.processes.insert(role.name().into(), process);
        Ok(())
    }

    pub fn process(&self, role: Role) -> &Running {
        self.processes.get(role.name()).expect("the role was started")
    }

    pub fn kill(&mut self, role: Role) -> Result<()> {
        self.processes.remove(role.name()).expect("the role was started").kill()
    }

    pub fn run_dir(&self, role: Role) -> PathBuf {
        let name = match role {
            Role::Controller | Role::Dns => "controller",
            Role::Gateway | Role::GatewayTunnel => "gw",
            Role::Agent | Role::NodeTunnel => "node",
        };
        self.id.dir.join("run").join(name)
    }

    pub fn state_file(&self) -> PathBuf {
        self.id.dir.join("state.json")
    }

    pub fn tunnel_netns(&self) -> String {
        self.id.netns("tun")
    }

    /// The words of its command line; none of the lab's paths holds a space.
    fn role_args(&self, role: Role) -> Vec<String> {
        let (dir, run_dir, bpffs) = (self.id.dir.display(), self.run_dir(role), self.id.bpffs());
        let (run_dir, bpffs) = (run_dir.display(), bpffs.display());
        let folder = || {
            format!("--manifests {} --state {}", self.id.manifests().display(), self.state_file().display())
        };
        let source = self.kubeconfigs.get(role.name());
        let source = source.map_or_else(folder, |path| format!("--kubeconfig {}", path.display()));
        // Most tests are about the user-space tunnel; those of the tier `vm` run on the kernel's.
        let tunnel = env::var("ENFORCER_LAB_TUNNEL").unwrap_or_else(|_| "userspace".into());
        let attach = env::var("ENFORCER_LAB_ATTACH").map(|how| format!("--attach {how}")).unwrap_or_default();
        let line = match role {
            Role::Controller => format!("controller {source} --run-dir {run_dir}"),
            Role::Dns => format!("dns {source} --listen {DNS4}:53 --listen [{DNS6}]:53"),
            Role::Gateway => format!(
                "gateway {source} --name {} --key {dir}/gw.key --run-dir {run_dir} --bpffs {bpffs}/gw \
                 --tunnel {tunnel} {attach}",
                self.id.gateway(),
            ),
            Role::Agent => format!(
                "agent {source} --node {} --cluster-name {CLUSTER} --key {dir}/node.key --run-dir {run_dir} \
                 --bpffs {bpffs}/node --tunnel {tunnel} {attach} --tunnel-netns /run/netns/{} --cgroup-root {}",
                self.id.node(),
                self.tunnel_netns(),
                self.id.kube().display(),
            ),
            Role::GatewayTunnel | Role::NodeTunnel => format!("tunnel --run-dir {run_dir}"),
        };
        let more = self.more.get(role.name()).map(String::as_str).unwrap_or_default();
        line.split_whitespace().chain(more.split_whitespace()).map(str::to_owned).collect()
    }

    /// `status -o json` of a role.
    pub fn status(&self, role: Role) -> Result<Value> {
        let text = self.ask(role, &["status", "-o", "json"])?;
        serde_json::from_str(&text).with_context(|| format!("{role:?} answers no JSON: {text}"))
    }

    /// An object of the project with the agent's status.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        let text = self.ask(Role::Agent, &["get", kind, name, "-n", PROJECT, "-o", "json"])?;
        serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
    }

    /// A command of `enforcer` that asks a role over its control socket.
    pub fn ask(&self, role: Role, args: &[&str]) -> Result<String> {
        let socket = self.run_dir(role).join(format!("{}.sock", role.name()));
        finish(Command::new(enforcer()?).args(args).arg("--socket").arg(socket))
    }

    /// `monitor -o json` of a role, into the log `monitor`.
    pub fn start_monitor(&mut self, role: Role) -> Result<()> {
        let socket = self.run_dir(role).join(format!("{}.sock", role.name()));
        let mut command = Command::new(enforcer()?);
        command.args(["monitor", "-o", "json", "--socket"]).arg(socket);
        let monitor = Running::start(&mut command, &self.id.log("monitor"))?;
        self.processes.insert("monitor".into(), monitor);
        Ok(())
    }

    /// What the monitor has seen so far.
    pub fn events(&self) -> Vec<MonitorEvent> {
        self.log("monitor").lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until no role has anything left to do: every grant of the lab is live on both ends.
    pub fn wait_ready(&mut self) -> Result<()> {
        let mut last = String::new();
        let ready = wait::until("every role is ready", || {
            // A monitor ends with the agent that it listens to.
            self.processes.retain(|name, process| name != "monitor" || process.ended().is_none());
            for (name, process) in &mut self.processes {
                if let Some(status) = process.ended() {
                    return Some(Err(format!("{name} ended: {status}")));
                }
            }
            last = match self.unready() {
                Ok(None) => return Some(Ok(())),
                Ok(Some(why)) => why,
                Err(err) => format!("{err:#}"),
            };
            None
        });
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => bail!(why),
            Err(err) => Err(err.context(last)),
        }
    }

    /// Why it is not ready: from the roles' own conditions, and from what the lab has written that they may not have
    /// read yet.
    fn unready(&self) -> Result<Option<String>> {
        for role in [Role::Controller, Role::Gateway, Role::Agent] {
            let status = self.status(role)?;
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            if conditions.is_empty() {
                return Ok(Some(format!("{} reports no condition", role.name())));
            }
            if let Some(open) = conditions.iter().find(|condition| condition["status"] != "True") {
                return Ok(Some(format!("{}: {open}", role.name())));
            }
        }
        let granted = self.network.pods.iter().filter(|pod| pod.is_granted()).count() as u64;
        for service in Service::ALL {
            let name = format!("cart-{}", service.name());
            let status = self.get("serviceconnection", &name)?["status"].clone();
            if status["activePods"].as_u64() != Some(granted) {
                return Ok(Some(format!("agent: {name} should serve {granted} pods: {status}")));
            }
        }
        Ok(None)
    }
}
