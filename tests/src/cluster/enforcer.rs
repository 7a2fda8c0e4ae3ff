//! enforcer on the cluster, installed as the README says, with the lab's gateway and PostgreSQL outside of it.

use std::process::Command;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::{Cluster, DNS};
use crate::{
    control_plane::Credentials,
    lab::{
        Outcome, Running,
        command::{finish, inside},
        enforcer,
        network::{GATEWAY4, SERVER4, TUNNEL_PORT},
        wait,
    },
};

/// Namespace of what is installed.
pub const NAMESPACE: &str = "enforcer-system";
/// The agents' `--cluster-name`.
pub const NAME: &str = "lab";
/// Image of enforcer, as `cargo xtask image` calls it.
const REPOSITORY: &str = "enforcer.dev/enforcer";

/// The cluster with enforcer on it.
pub struct Installed {
    pub cluster: Cluster,
}

impl Installed {
    /// Installs it where it is not yet, and waits until every part of it is ready.
    pub fn on(cluster: Cluster) -> Result<Self> {
        let settings = settings();
        let install: Vec<&str> = ["install"].into_iter().chain(settings.iter().map(String::as_str)).collect();
        let documents = cluster.enforcer(&install)?;
        cluster.client.apply(&documents)?;
        let key = cluster.id().dir.join("gw.key").display().to_string();
        let endpoint = format!("{GATEWAY4}:{TUNNEL_PORT}");
        let name = cluster.id().gateway();
        let gateway =
            cluster.enforcer(&["keygen", "gateway", &name, "--key", &key, "--endpoint", &endpoint])?;
        cluster.client.apply_soon(&gateway)?;
        let allowed = json!({ "spec": {
            "allowedNamespaces": ["shop"],
            "allowedBackends": [{ "cidr": format!("{SERVER4}/32"), "ports": [{ "port": 5432 }] }],
        } });
        let patch = ["patch", "tunnelgateway", &name, "--type", "merge", "--patch", &allowed.to_string()];
        cluster.kubectl(&patch)?;
        let mut installed = Self { cluster };
        installed.start_gateway()?;
        if !installed.cluster.id().dir.join("data/postgres").exists() {
            installed.cluster.lab.start_postgres()?;
        }
        installed.wait_ready()?;
        Ok(installed)
    }

    /// The gateway and its tunnel with the gateway's own token, where they do not run yet.
    fn start_gateway(&mut self) -> Result<()> {
        let dir = self.cluster.id().dir.clone();
        let run_dir = dir.join("run/gw").display().to_string();
        if self.gateway(&["status", "-o", "json"]).is_ok() {
            return Ok(());
        }
        let token = self.token("enforcer-gateway")?;
        let kubeconfig = self.cluster.kubeconfig_of("gateway", &Credentials::Token(token))?;
        let (kubeconfig, key) = (kubeconfig.display().to_string(), dir.join("gw.key").display().to_string());
        let bpffs = self.cluster.id().bpffs().join("gw").display().to_string();
        let name = self.cluster.id().gateway();
        let gateway = [
            "gateway",
            "--kubernetes",
            "--kubeconfig",
            &kubeconfig,
            "--name",
            &name,
            "--key",
            &key,
            "--run-dir",
            &run_dir,
            "--bpffs",
            &bpffs,
            "--tunnel",
            "userspace",
        ];
        self.outside("gateway", &gateway)?;
        self.outside("gateway-tunnel", &["tunnel", "--run-dir", &run_dir])
    }

    /// A role of enforcer on the gateway's host.
    fn outside(&mut self, log: &str, args: &[&str]) -> Result<()> {
        let id = self.cluster.id();
        let mut command = inside(&id.netns("gw"), &id.tools(), &enforcer()?.to_string_lossy());
        let process = Running::start(command.args(args), &id.log(log))?;
        self.cluster.lab.processes.insert(log.into(), process);
        Ok(())
    }

    /// A command of enforcer that asks the gateway.
    pub fn gateway(&self, args: &[&str]) -> Result<String> {
        let socket = self.cluster.id().dir.join("run/gw/gateway.sock");
        finish(Command::new(enforcer()?).args(args).arg("--socket").arg(socket))
    }

    /// A command of enforcer that asks the agent, as a person at kubectl does.
    pub fn ask_agent(&self, args: &[&str]) -> Result<Outcome> {
        let agent = self.agent()?;
        let mut kubectl = Command::new(self.cluster.kubectl_path());
        kubectl.args(["--namespace", NAMESPACE, "exec", &agent, "--", "/enforcer"]).args(args);
        Outcome::of(&mut kubectl)
    }

    /// Token of a service account of enforcer, as its pods have it.
    pub fn token(&self, account: &str) -> Result<String> {
        let jsonpath = |of: &str| format!("jsonpath={{{of}}}");
        let get = |args: &[&str]| self.cluster.kubectl(&[&["--namespace", NAMESPACE, "get"], args].concat());
        let secret = wait::until(&format!("{account} has a token"), || {
            let secret = get(&["serviceaccount", account, "--output", &jsonpath(".secrets[0].name")]).ok()?;
            (!secret.is_empty()).then_some(secret)
        })?;
        let encoded = get(&["secret", &secret, "--output", &jsonpath(".data.token")])?;
        crate::lab::command::finish_with(Command::new("base64").arg("--decode"), &encoded)
    }

    /// Waits until every part of the install is ready.
    pub fn wait_ready(&self) -> Result<()> {
        for part in ["daemonset/enforcer-agent", "deployment/enforcer-controller", "deployment/enforcer-dns"]
        {
            self.cluster.client.rolled_out(part, NAMESPACE)?;
        }
        let node = self.cluster.id().node();
        self.wait_for("tunnelgateway", &self.cluster.id().gateway(), "Ready", "True Ready: ")?;
        self.wait_for("tunnelnode", &node, "Ready", "True Ready: ")
    }

    /// Applies YAML.
    pub fn apply(&self, documents: &str) -> Result<String> {
        self.cluster.client.apply(documents)
    }

    /// An object of namespace `shop` or of none.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        self.cluster.client.get(kind, name, "shop")
    }

    /// Waits until a condition of such an object is this, as `True Ready: `.
    pub fn wait_for(&self, kind: &str, name: &str, condition: &str, wanted: &str) -> Result<()> {
        self.cluster.client.wait_for([kind, name, "shop"], condition, wanted)
    }

    /// kubectl with the token of one of enforcer's service accounts, as a thief of it has it.
    pub fn kubectl_as(&self, account: &str) -> Result<impl Fn(&[&str]) -> Result<String> + use<'_>> {
        let kubeconfig = self.cluster.kubeconfig_of(account, &Credentials::Token(self.token(account)?))?;
        let kubeconfig = kubeconfig.display().to_string();
        Ok(move |args: &[&str]| self.cluster.kubectl(&[&["--kubeconfig", &kubeconfig], args].concat()))
    }

    /// Ends the agent's pod, and lets no other start until what is returned is released or gone.
    pub fn hold_agent(&self) -> Result<Held<'_>> {
        let held = Held(self);
        self.select_nodes(&json!({ "enforcer.dev/held": "true" }))?;
        wait::for_true("the agent's pod has gone", || self.agents().is_ok_and(|names| names.is_empty()))?;
        Ok(held)
    }

    /// Nodes that the agent is to run on.
    fn select_nodes(&self, labels: &Value) -> Result<()> {
        let patch = json!({ "spec": { "template": { "spec": { "nodeSelector": labels } } } }).to_string();
        let args = ["--namespace", NAMESPACE, "patch", "daemonset", "enforcer-agent", "--patch", &patch];
        self.cluster.kubectl(&args).map(drop)
    }

    /// The name of the agent's pod.
    pub fn agent(&self) -> Result<String> {
        match self.agents()?.as_slice() {
            [name] => Ok(name.clone()),
            names => bail!("one agent is expected, there are {names:?}"),
        }
    }

    fn agents(&self) -> Result<Vec<String>> {
        let (component, names) = ("app.kubernetes.io/component=agent", "jsonpath={.items[*].metadata.name}");
        let args = ["--namespace", NAMESPACE, "get", "pods", "--selector", component, "--output", names];
        Ok(self.cluster.kubectl(&args)?.split_whitespace().map(str::to_owned).collect())
    }
}

/// No agent runs while this is there.
pub struct Held<'a>(&'a Installed);

impl Held<'_> {
    /// Waits until another agent is ready.
    pub fn release(self) -> Result<()> {
        let installed = self.0;
        drop(self);
        installed.wait_ready()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Err(err) = self.0.select_nodes(&json!({ "enforcer.dev/held": null })) {
            eprintln!("no agent starts any more: {err:#}");
        }
    }
}

/// What `install` is told of this cluster.
fn settings() -> Vec<String> {
    let settings = [
        format!("clusterName={NAME}"),
        format!("image.repository={REPOSITORY}"),
        "image.tag=dev".into(),
        "image.pullPolicy=Never".into(),
        "bootGuard=true".into(),
        "dns.enabled=true".into(),
        format!("dns.clusterIP={DNS}"),
    ];
    settings.into_iter().flat_map(|setting| ["--set".into(), setting]).collect()
}
