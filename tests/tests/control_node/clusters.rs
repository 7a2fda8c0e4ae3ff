//! Clusters that share an API server for their connections: each has its pods at its own.

use std::fs;

use enforcer_tests::{
    control_plane::ControlPlane,
    lab::{Lab, Running, command::finish, network::GATEWAY4, roles::enforcer, wait},
};
use serde_json::{Value, json};

use crate::host::{Host, controlled};

/// In the project: the namespaces have no labels, and one of them is in no cluster.
fn objects() -> String {
    format!(
        "
apiVersion: enforcer.dev/v1alpha1
kind: TunnelGateway
metadata: {{name: eu-1}}
spec:
  publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=
  endpoints: [\"{GATEWAY4}:51820\"]
  allowedNamespaces: [shop, blog]
  allowedBackends: [{{cidr: 203.0.113.0/24, ports: [{{port: 5432}}]}}]
---
apiVersion: enforcer.dev/v1alpha1
kind: Postgres
metadata: {{name: pg, namespace: shop}}
spec: {{gateways: [eu-1], endpoints: [{{address: 203.0.113.10}}]}}
---
apiVersion: enforcer.dev/v1alpha1
kind: Postgres
metadata: {{name: posts, namespace: blog}}
spec: {{gateways: [eu-1], endpoints: [{{address: 203.0.113.11}}]}}
"
    )
}

fn connection(cluster: &str) -> String {
    format!(
        "
apiVersion: enforcer.dev/v1alpha1
kind: ServiceConnection
metadata: {{name: {cluster}-pg, namespace: shop}}
spec:
  source:
    kind: KubernetesCluster
    name: {cluster}
    podSelector: {{matchLabels: {{app: web}}}}
    namespaceSelector: {{matchLabels: {{team: a}}}}
  destination: {{kind: Postgres, name: pg}}
"
    )
}

/// In each cluster: they differ in nothing.
const PODS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
spec: {taints: [{key: enforcer.dev/not-ready, effect: NoSchedule}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  nodeName: node-1
  automountServiceAccountToken: false
  containers: [{name: c, image: none}]
";

/// A cluster of one node that has nothing of ours at its own server, but a controller.
struct Member<'a> {
    name: &'a str,
    plane: &'a ControlPlane,
    project: &'a ControlPlane,
    _controller: Running,
}

impl<'a> Member<'a> {
    fn start(name: &'a str, plane: &'a ControlPlane, project: &'a ControlPlane) -> Self {
        plane.kubectl(&["create", "namespace", "enforcer-system"]).expect("it is made");
        plane.kubectl_with(&["apply", "--filename", "-"], PODS).expect("the pods are made");
        let mut node = get(plane, "node", "node-1");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("it is read");
        node["status"]["nodeInfo"]["bootID"] = json!(boot.trim());
        for field in ["machineID", "systemUUID", "kernelVersion", "osImage", "containerRuntimeVersion"] {
            node["status"]["nodeInfo"][field] = json!("x");
        }
        let args = ["replace", "--raw", "/api/v1/nodes/node-1/status", "--filename", "-"];
        plane.kubectl_with(&args, &node.to_string()).expect("kubelet says which boot it is");
        let run_dir = plane.dir().join("run/controller").display().to_string();
        let there = project.kubeconfig().display().to_string();
        let args =
            ["controller", "--run-dir", &run_dir, "--connections-kubeconfig", &there, "--cluster-name", name];
        let controller = plane.role("controller", &args).expect("the controller starts");
        Self { name, plane, project, _controller: controller }
    }

    fn agent(&self, host: &Host) -> Running {
        self.project.reach_from(&host.lab.id.netns("node")).expect("the project is reached");
        let words = [
            ("cluster-name", self.name.to_owned()),
            ("connections-kubeconfig", self.project.kubeconfig().display().to_string()),
        ]
        .map(|(flag, value)| format!("--{flag}={value}"));
        host.agent(&words.each_ref().map(String::as_str)).expect("the agent starts")
    }

    /// Connections that the node's agent has pods for: name and number of pods.
    fn granted(&self) -> Vec<(String, u64)> {
        let node = get(self.project, "tunnelnode", &format!("{}.node-1", self.name));
        let connections = node["report"]["connections"].as_array().cloned().unwrap_or_default();
        let one = |one: &Value| {
            (one["name"].as_str().unwrap_or_default().to_owned(), one["pods"].as_u64().unwrap_or(0))
        };
        connections.iter().map(one).collect()
    }

    fn is_tainted(&self) -> bool {
        get(self.plane, "node", "node-1")["spec"]["taints"].to_string().contains("enforcer.dev/not-ready")
    }

    fn has(&self, kind: &str, name: &str) -> bool {
        get(self.plane, kind, name) != Value::Null
    }
}

/// The object; null while it is not there.
fn get(plane: &ControlPlane, kind: &str, name: &str) -> Value {
    let text = plane.kubectl(&["get", kind, name, "--namespace", "shop", "--output", "json"]);
    text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

fn wait_for(what: &str, ask: impl FnMut() -> bool, seen: impl Fn() -> String) {
    wait::for_true(what, ask).unwrap_or_else(|err| panic!("{err:#}: {}", seen()));
}

#[test]
fn of_two_clusters_with_the_same_pods_the_one_that_is_named_is_granted() {
    let planes = std::thread::scope(|scope| {
        let starts =
            [(); 3].map(|()| scope.spawn(|| ControlPlane::start().expect("the control plane starts")));
        starts.map(|start| start.join().expect("it starts"))
    });
    let [project, blue, red] = &planes;
    let _controller = controlled(project).expect("the project has a controller");
    for namespace in ["shop", "blog"] {
        project.kubectl(&["create", "namespace", namespace]).expect("it is made");
    }
    let labs = [Lab::new(&[]), Lab::new(&[])].map(|lab| lab.expect("the lab comes up"));
    let host =
        |at: usize, plane| Host::start(&labs[at], plane, false).expect("the host starts").called("node-1");
    let hosts = [host(0, blue), host(1, red)];
    let blue = Member::start("blue", blue, project);
    let put = |documents: &str| {
        let taken = || project.kubectl_with(&["apply", "--filename", "-"], documents).is_ok();
        wait_for("the objects are taken", taken, String::new);
    };
    put(&objects());
    put(&connection("blue"));

    let _blue_agent = blue.agent(&hosts[0]);
    let only = |name: &str| vec![(format!("shop/{name}-pg"), 1)];
    wait_for("blue's pod is granted", || blue.granted() == only("blue"), || labs[0].log("agent"));
    wait_for(
        "blue's node is let go",
        || !blue.is_tainted(),
        || format!("{:?}", get(blue.plane, "node", "node-1")),
    );
    // A controller that writes this has seen the other's node, and that it is guarded.
    let red = Member::start("red", red, project);
    wait_for("red has the name", || red.has("endpointslice", "postgres-pg-v4"), String::new);
    assert!(red.is_tainted(), "its own agent does not run, whatever another's node-1 says");
    let _red_agent = red.agent(&hosts[1]);
    wait_for("red's node is let go", || !red.is_tainted(), || labs[1].log("agent"));
    assert_eq!(red.granted(), []);
    put(&connection("red"));
    wait_for("red's pod is granted", || red.granted() == only("red"), || labs[1].log("agent"));
    assert_eq!(blue.granted(), only("blue"));
    let matched = || get(project, "serviceconnection", "blue-pg")["status"]["matchedPods"].clone();
    wait_for("the project knows how many", || matched() == 1, || matched().to_string());

    named(&blue, project);
    let mut status = std::process::Command::new(enforcer().expect("it was built"));
    status.args(["status", "--socket"]).arg(labs[0].id.dir.join("run/node/agent.sock"));
    assert!(finish(&mut status).expect("it answers").contains("Informed"), "both servers are heard");
}

/// Names of destinations come and go where the pods are, in namespaces that are there.
fn named(cluster: &Member, project: &ControlPlane) {
    wait_for("the name is there", || cluster.has("endpointslice", "postgres-pg-v4"), String::new);
    let service = get(cluster.plane, "service", "postgres-pg");
    assert_eq!(
        service["metadata"]["ownerReferences"],
        Value::Null,
        "its owner is nobody that this server knows"
    );
    let status = cluster.plane.dir().join("run/controller/controller.sock");
    let mut command = std::process::Command::new(enforcer().expect("it was built"));
    command.args(["status", "--output", "json", "--socket"]).arg(status);
    let said = finish(&mut command).expect("the controller answers");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["writes"]["failed"], 0, "a namespace that is not here is nobody's: {said}");
    project.kubectl(&["delete", "postgres", "pg", "--namespace", "shop"]).expect("it is deleted");
    wait_for("the name goes", || !cluster.has("service", "postgres-pg"), String::new);
}
