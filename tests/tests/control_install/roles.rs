//! Roles at work with their own tokens: what they may do is enough.

use std::{path::PathBuf, process::Command, time::Duration};

use enforcer::source::kubernetes::{Cluster, Connect, Interest, Pods};
use enforcer_tests::{
    control_plane::ControlPlane,
    lab::{Running, roles::enforcer, wait},
};
use serde_json::Value;

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

/// What an agent writes of its node.
const TUNNEL_NODE: &str = "
apiVersion: enforcer.dev/v1alpha1
kind: TunnelNode
metadata: {name: node-1}
spec: {publicKey: MTEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=, cluster: my-cluster, node: node-1}
report:
  bootID: \"\"
  conditions: [{type: Guarded, status: \"True\", reason: Guarded, message: \"\"}]
";

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
    let agent = Interest { pods: Pods::OfNode("node-1".to_owned()), all_services: false, written: false };
    let gateway = Interest { pods: Pods::All, all_services: false, written: false };
    let controller = Interest { pods: Pods::All, all_services: false, written: true };
    for (role, interest) in [("agent", agent), ("gateway", gateway), ("controller", controller)] {
        let connect = Connect { kubeconfig: Some(kubeconfig(&plane, role)), context: None };
        let objects = runtime.block_on(async {
            let cluster = Cluster::connect(&connect).await.expect("it is configured");
            let mut told = cluster.follow(&interest);
            let first = tokio::time::timeout(Duration::from_mins(1), told.changed()).await;
            first.unwrap_or_else(|_| panic!("{role}: a list never ends")).expect("it goes on");
            told.borrow().snapshot.objects.len()
        });
        assert!(objects > 3, "{role}: {objects}");
    }
}

#[test]
fn what_the_controller_may_write_is_enough_and_an_agent_writes_its_node() {
    let plane = with_objects();
    let agent = kubeconfig(&plane, "agent");
    let file = agent.with_extension("yaml");
    std::fs::write(&file, TUNNEL_NODE).expect("it is written");
    let apply = ["apply", "--server-side", "--filename", &file.to_string_lossy()];
    wait::for_true("an agent writes its TunnelNode", || plane.kubectl_as(&agent, &apply).is_ok())
        .expect("an agent writes its TunnelNode");

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
    for what in ["service postgres-orders", "endpointslice postgres-orders-v4", "serviceconnection cart-db", "configmap cart-services"] {
        let what = format!("{what} --namespace shop");
        wait::until(&what, || get(&what)).unwrap_or_else(|err| panic!("{err:#}\n{}", said()));
    }
    let is_free = || get("node node-1")?["spec"]["taints"].is_null().then_some(());
    wait::until("the taint is gone", is_free).unwrap_or_else(|err| panic!("{err:#}\n{}", said()));
    assert!(!said().contains("not allowed"), "{}", said());
}
