//! A lab whose roles have their objects from a real API server, each with its own account. There is no kubelet: pods are
//! made here as kubelet would leave them.
//!
//! ```text
//!  API server (127.…) ◀── lines ── node, gateway     everything else as in `lab`
//! ```

mod crowd;

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

pub use crowd::{Crowd, Size, connection, destination};

use crate::lab::Running;
use crate::{
    control_plane::{Api, ControlPlane, Line},
    lab::{
        Lab, Place, Role,
        command::{finish, inside},
        manifests::{CLUSTER, PROJECT},
        roles::enforcer,
        wait,
    },
};

pub struct ApiLab {
    pub lab: Lab,
    pub plane: ControlPlane,
    pub api: Api,
    /// Of the node (its agent, and the controller) and of the gateway.
    pub lines: [Line; 2],
}

/// A pod of the node, before it is there.
pub struct NewPod {
    pub name: String,
    pub labels: Value,
    pub netns: String,
    pub addresses: Vec<String>,
}

impl ApiLab {
    /// Everything that is installed, the project and the gateway; no role yet.
    pub fn start() -> Result<Self> {
        let plane = ControlPlane::start()?;
        let cluster_name = format!("clusterName={CLUSTER}");
        let install = ["install", "--kube-version", "1.20", "--set", &cluster_name];
        let manifests = finish(Command::new(enforcer()?).args(install))?;
        plane.kubectl_with(&["apply", "--filename", "-"], &manifests)?;
        let mut lab = Lab::new(&[])?;
        let lines = [plane.line(Some(&lab.id.netns("node")))?, plane.line(Some(&lab.id.netns("gw")))?];
        for role in [Role::Controller, Role::Agent, Role::Gateway] {
            let account = format!("enforcer-{}", role.name());
            let kubeconfig = plane.kubeconfig_of("enforcer-system", &account)?;
            lab.kubeconfigs.insert(role.name(), kubeconfig);
        }
        let api = plane.api()?;
        let gateway: Value = serde_norway::from_str(&lab.far_end("")?)?;
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": { "name": PROJECT, "labels": { "kubernetes.io/metadata.name": PROJECT } },
        });
        api.create(&namespace)?;
        let mut last = String::new();
        wait::for_true("the kinds are served", || {
            api.create(&gateway).inspect_err(|err| last = err.to_string()).is_ok()
        })
        .with_context(|| last.clone())?;
        Ok(Self { lab, plane, api, lines })
    }

    pub fn start_roles(&mut self) -> Result<()> {
        let roles = [Role::Controller, Role::Gateway, Role::GatewayTunnel, Role::Agent, Role::NodeTunnel];
        roles.into_iter().try_for_each(|role| self.lab.start(role))
    }

    /// Objects, and for each a cgroup of its uid with a process in the pod's namespace. Returns where each is.
    pub fn add_pods(&mut self, pods: &[NewPod]) -> Result<BTreeMap<String, Place>> {
        let object = |pod: &NewPod| {
            let mut object = pod_object(&pod.name, &self.lab.id.node());
            object["metadata"]["labels"] = pod.labels.clone();
            object
        };
        let made = self.api.create_all(pods.iter().map(object).collect())?;
        let mut places = BTreeMap::new();
        for object in made {
            let metadata = &object["metadata"];
            let name = metadata["name"].as_str().context("a pod has a name")?;
            let uid = metadata["uid"].as_str().context("a pod has a uid")?;
            let pod = pods.iter().find(|pod| pod.name == name).context("it was asked for")?;
            let cgroup = self.lab.id.kube().join("kubepods").join(format!("pod{uid}"));
            fs::create_dir_all(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
            let mut command = inside(&pod.netns, &cgroup, "sleep");
            let process = Running::start(command.arg("infinity"), &self.lab.id.log("pods"))?;
            self.lab.processes.insert(format!("pod-{name}"), process);
            places.insert(name.to_owned(), Place { netns: pod.netns.clone(), cgroup });
        }
        let status = |pod: &NewPod| pod_status(&pod.name, &pod.addresses);
        self.api.say_all(pods.iter().map(status).collect())?;
        Ok(places)
    }

    /// The condition of a role: `True Informed: `; empty while there is none.
    pub fn condition(&self, role: Role, kind: &str) -> String {
        let status = self.lab.status(role).unwrap_or_default();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|condition| condition["type"] == kind);
        found.map_or_else(String::new, |found| {
            let text = |field: &str| found[field].as_str().unwrap_or_default();
            format!("{} {}: {}", text("status"), text("reason"), text("message"))
        })
    }
}

fn pod_object(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": PROJECT },
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": false,
            "containers": [{ "name": "app", "image": "registry.example/shop/app:1.2.3" }],
        },
    })
}

fn pod_status(name: &str, addresses: &[String]) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|address| json!({ "ip": address })).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": PROJECT },
        "status": { "phase": "Running", "podIP": addresses.first(), "podIPs": ips },
    })
}
