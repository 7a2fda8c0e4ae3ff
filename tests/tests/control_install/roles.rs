//! Roles at work with their own tokens: what they may do is enough.

use std::{path::PathBuf, process::Command, time::Duration};

use enforcer::{
    model::Kind,
    source::kubernetes::{Cluster, Connect, Interest, Pods, Resource, Written},
};
use enforcer_tests::{
    control_plane::ControlPlane,
    lab::{Running, roles::enforcer, wait},
};
use serde_json::{Value, json};

use super::installed;

const OBJECTS: &str = "
apiVersion: v1
kind: Node
metadata: {name: node-1}
spec: {taints: [{key: enforcer.dev/not-ready, effect: NoSchedule}]}
---
apiVersion: enforcer.dev/v1alpha1
kind: TunnelGateway
metadata: {name: eu-1}
spec:
  publicKey: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=
  endpoints: [\"192.0.2.1:51820\"]
  allowedNamespaces: [shop]
  allowedBackends: [{cidr: 203.0.113.0/24, ports: [{port: 5432}]}]
---
apiVersion: enforcer.dev/v1alpha1
kind: Postgres
metadata: {name: orders, namespace: shop}
spec: {gateways: [eu-1], endpoints: [{address: 203.0.113.10}]}
---
apiVersion: enforcer.dev/v1alpha1
kind: Application
metadata: {name: cart, namespace: shop}
spec: {podSelector: {matchLabels: {app: cart}}, services: [{name: db, target: {kind: Postgres, name: orders}}]}
";

/// As an agent writes its TunnelNode.
fn report(plane: &ControlPlane) {
    let document = json!({
        "apiVersion": "enforcer.dev/v1alpha1",
        "kind": "TunnelNode",
        "metadata": { "name": "node-1" },
        "spec": { "publicKey": "MTEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "cluster": "my-cluster", "node": "node-1" },
        "report": { "bootID": "boot-1", "conditions": [{ "type": "Guarded", "status": "True", "reason": "Guarded", "message": "all of it" }] },
    });
    let connect = Connect { kubeconfig: Some(kubeconfig(plane, "agent")), context: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut last = String::new();
    wait::for_true("an agent writes its TunnelNode", || {
        let resource = Resource::of(Kind::TunnelNode);
        let written = runtime.block_on(async {
            let cluster = Cluster::connect(&connect).await?;
            anyhow::Ok(cluster.apply(&resource, "enforcer-agent", None, &document).await?)
        });
        written.inspect_err(|err| last = format!("{err:#}")).is_ok()
    })
    .unwrap_or_else(|err| panic!("{err:#}: {last}"));
}

/// As kubelet tells of its node.
fn boot(plane: &ControlPlane) {
    let status = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": "node-1" },
        "status": { "nodeInfo": {
            "architecture": "amd64", "bootID": "boot-1", "containerRuntimeVersion": "x", "kernelVersion": "x",
            "kubeProxyVersion": "x", "kubeletVersion": "x", "machineID": "x", "operatingSystem": "linux", "osImage": "x",
            "systemUUID": "x",
        } },
    });
    let connect = Connect { kubeconfig: Some(plane.kubeconfig()), context: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let written = runtime.block_on(async {
        let cluster = Cluster::connect(&connect).await?;
        anyhow::Ok(cluster.apply(&Resource::of(Kind::Node), "kubelet", Some("status"), &status).await?)
    });
    written.expect("kubelet writes its node's status");
}

/// The server with all objects.
fn with_objects() -> ControlPlane {
    let plane = installed();
    plane.kubectl(&["create", "namespace", "shop"]).expect("it is made");
    let mut last = String::new();
    wait::for_true("the kinds are served", || {
        let made = plane.kubectl_with(&["apply", "--filename", "-"], OBJECTS);
        made.inspect_err(|err| last = format!("{err:#}")).is_ok()
    })
    .unwrap_or_else(|err| panic!("{err:#}: {last}"));
    plane
}

fn kubeconfig(plane: &ControlPlane, role: &str) -> PathBuf {
    plane.kubeconfig_of("enforcer-system", &format!("enforcer-{role}")).expect("a token is given")
}

#[test]
fn what_a_role_watches_it_may_watch() {
    let plane = with_objects();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let agent =
        Interest { pods: Pods::OfNode("node-1".to_owned()), only_services: false, written: Written::Nothing };
    let gateway = Interest { pods: Pods::All, only_services: false, written: Written::Nothing };
    let controller = Interest { pods: Pods::All, only_services: false, written: Written::All };
    let dns = Interest { pods: Pods::None, only_services: true, written: Written::Nothing };
    for (role, interest) in [("agent", agent), ("gateway", gateway), ("controller", controller), ("dns", dns)]
    {
        let connect = Connect { kubeconfig: Some(kubeconfig(&plane, role)), context: None };
        let objects = runtime.block_on(async {
            let cluster = Cluster::connect(&connect).await.expect("it is configured");
            let mut told = cluster.follow(&interest).told;
            let first = tokio::time::timeout(Duration::from_mins(1), told.changed()).await;
            first.unwrap_or_else(|_| panic!("{role}: a list never ends")).expect("it goes on");
            told.borrow().snapshot.objects.len()
        });
        assert!(objects > 0, "{role}");
    }
}

#[test]
fn what_the_controller_may_write_is_enough_and_an_agent_writes_its_node() {
    let plane = with_objects();
    report(&plane);
    boot(&plane);
    let controller = kubeconfig(&plane, "controller");
    let (run_dir, log) = (controller.with_extension("run"), controller.with_extension("log"));
    let mut command = Command::new(enforcer().expect("it was built"));
    command.arg("controller").arg("--kubeconfig").arg(&controller).arg("--run-dir").arg(&run_dir);
    let _running = Running::start(&mut command, &log).expect("it starts");
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let get = |what: &str| -> Option<Value> {
        let words: Vec<&str> = what.split(' ').collect();
        let text = plane.kubectl(&[&["get"], &words[..], &["--output", "json"]].concat()).ok()?;
        serde_json::from_str(&text).ok()
    };
    let has_number = |what: &str| get(what)?["status"]["number"].as_u64().map(|_| ());
    for what in ["postgres orders --namespace shop", "tunnelgateway eu-1", "tunnelnode node-1"] {
        wait::until(what, || has_number(what)).unwrap_or_else(|err| panic!("{err:#}\n{}", said()));
    }
    for what in [
        "service postgres-orders",
        "endpointslice postgres-orders-v4",
        "serviceconnection cart-db",
        "configmap cart-services",
    ] {
        let what = format!("{what} --namespace shop");
        wait::until(&what, || get(&what)).unwrap_or_else(|err| panic!("{err:#}\n{}", said()));
    }
    // The server itself gives a node that is not ready taints of its own.
    let is_free = || {
        let node = get("node node-1")?;
        (!node["spec"]["taints"].to_string().contains("enforcer.dev/not-ready")).then_some(())
    };
    wait::until("the taint is gone", is_free).unwrap_or_else(|err| panic!("{err:#}\n{}", said()));
    assert!(!said().contains("not allowed"), "{}", said());
}
