//! An API server that knows our kinds, and a controller beside it.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use enforcer::model::crd;
use enforcer_tests::{
    control_plane::ControlPlane,
    lab::{Running, command::finish, roles::enforcer, wait},
};
use serde_json::Value;

pub struct World {
    pub plane: ControlPlane,
}

/// A gateway and its project, a node, a pod on it, and a server of PostgreSQL.
pub const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {kubernetes.io/metadata.name: shop}}
---
apiVersion: enforcer.dev/v1alpha1
kind: TunnelGateway
metadata: {name: eu-1}
spec:
  publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=
  endpoints: ["203.0.113.1:51820"]
  allowedNamespaces: [shop]
  allowedBackends: [{cidr: 192.0.2.0/24, ports: [{port: 5432}]}]
---
apiVersion: enforcer.dev/v1alpha1
kind: TunnelNode
metadata: {name: n1}
spec: {publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI=, cluster: blue, node: n1}
---
apiVersion: enforcer.dev/v1alpha1
kind: Postgres
metadata: {name: pg, namespace: shop}
spec: {gateways: [eu-1], endpoints: [{address: 192.0.2.10}]}
---
apiVersion: enforcer.dev/v1alpha1
kind: ServiceConnection
metadata: {name: web, namespace: shop}
spec:
  source: {kind: KubernetesCluster, name: blue, podSelector: {matchLabels: {app: web}}}
  destination: {kind: Postgres, name: pg}
"#;

impl World {
    /// A server with the definitions of our kinds.
    pub fn start() -> Result<Self> {
        let world = Self { plane: ControlPlane::start()? };
        let definitions = crd::definitions(crd::Rules::None);
        // As YAML: this kubectl, built with a newer Go than it was made for, ends with a panic on long JSON.
        let documents: Result<Vec<_>, _> = definitions.iter().map(serde_norway::to_string).collect();
        world.apply(&documents?.join("---\n"))?;
        for definition in &definitions {
            let name = definition["metadata"]["name"].as_str().context("a definition has a name")?;
            world.plane.kubectl(&[
                "wait",
                "--for",
                "condition=Established",
                "--timeout",
                "30s",
                "crd",
                name,
            ])?;
        }
        world.plane.kubectl(&["create", "namespace", "enforcer-system"])?;
        Ok(world)
    }

    /// The same with the objects, and a controller that leads.
    pub fn with_objects() -> Result<(Self, Running)> {
        let world = Self::start()?;
        wait::for_true("the objects are taken", || world.apply(OBJECTS).is_ok())?;
        let controller = world.controller("controller")?;
        Ok((world, controller))
    }

    pub fn apply(&self, documents: &str) -> Result<String> {
        self.plane.kubectl_with(&["apply", "--filename", "-"], documents)
    }

    /// Starts a controller; its name is that of its log and run directory.
    pub fn controller(&self, name: &str) -> Result<Running> {
        let run_dir = self.run_dir(name);
        self.plane.role(name, &["controller", "--run-dir", &run_dir.to_string_lossy()])
    }

    pub fn run_dir(&self, name: &str) -> PathBuf {
        self.plane.dir().join("run").join(name)
    }

    /// The object as the server has it.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        let text = self.plane.kubectl(&["get", kind, name, "--namespace", "shop", "--output", "json"])?;
        serde_json::from_str(&text).context("kubectl prints JSON")
    }

    /// A condition of an object: `True Valid: `; empty while it is not there.
    pub fn condition(&self, kind: &str, name: &str, condition: &str) -> String {
        let Ok(object) = self.get(kind, name) else { return String::new() };
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|found| found["type"] == condition);
        found.map_or_else(String::new, |found| {
            let text = |field: &str| found[field].as_str().unwrap_or_default();
            format!("{} {}: {}", text("status"), text("reason"), text("message"))
        })
    }

    /// What a controller of this name says of itself.
    pub fn status(&self, name: &str) -> Result<Value> {
        let socket = self.run_dir(name).join("controller.sock");
        let mut command = Command::new(enforcer()?);
        let text = finish(command.args(["status", "-o", "json", "--socket"]).arg(socket))?;
        serde_json::from_str(&text).context("it answers in JSON")
    }

    /// Waits until the condition is that, and says what it is otherwise.
    pub fn wait_for(&self, kind: &str, name: &str, condition: &str, wanted: &str) -> Result<()> {
        let what = || self.condition(kind, name, condition);
        let waited = wait::for_true(&format!("{kind} {name} is {condition} {wanted}"), || what() == wanted);
        waited.with_context(|| format!("it is \"{}\"", what()))
    }
}
