//! Roles at work with their own tokens: what they may do is enough.

use std::{process::Command, time::Duration};

use enforcer::source::kubernetes::{Cluster, Connect, Interest, Pods};
use enforcer_tests::lab::{Running, command::finish, roles::enforcer, wait};
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

#[test]
fn what_the_roles_may_do_is_enough_for_them() {
    let plane = installed();
    plane.kubectl(&["create", "namespace", "shop"]).expect("it is made");
    wait::for_true("the kinds are served", || {
        plane.kubectl_with(&["apply", "--filename", "-"], OBJECTS).is_ok()
    })
    .expect("the objects are made");

    // What each role watches it may watch: every list comes to its end.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for (role, pods) in [("agent", Pods::OfNode("node-1".to_owned())), ("gateway", Pods::All)] {
        let kubeconfig =
            plane.kubeconfig_of("enforcer-system", &format!("enforcer-{role}")).expect("a token");
        let interest = Interest { pods, all_services: role == "gateway", written: false };
        let told = runtime.block_on(async {
            let connect = Connect { kubeconfig: Some(kubeconfig), context: None };
            let cluster = Cluster::connect(&connect).await.expect("it is configured");
            let mut told = cluster.follow(&interest);
            tokio::time::timeout(Duration::from_mins(1), told.changed())
                .await
                .expect("every list")
                .expect("it goes on");
            let told = told.borrow().clone();
            told.snapshot.objects.len()
        });
        assert!(told > 3, "{role}: {told}");
    }

    let kubeconfig = plane.kubeconfig_of("enforcer-system", "enforcer-agent").expect("a token");
    let file = kubeconfig.with_extension("yaml");
    std::fs::write(&file, TUNNEL_NODE).expect("it is written");
    let apply = ["apply", "--server-side", "--filename", &file.to_string_lossy()];
    plane.kubectl_as(&kubeconfig, &apply).expect("an agent writes its TunnelNode");

    let kubeconfig = plane.kubeconfig_of("enforcer-system", "enforcer-controller").expect("a token");
    let (run_dir, log) = (kubeconfig.with_extension("run"), kubeconfig.with_extension("log"));
    let mut command = Command::new(enforcer().expect("it was built"));
    command.arg("controller").arg("--kubeconfig").arg(&kubeconfig).arg("--run-dir").arg(&run_dir);
    let controller = Running::start(&mut command, &log).expect("it starts");
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let get = |what: &[&str]| -> Option<Value> {
        let text = plane.kubectl(&[&["get"], what, &["--output", "json"]].concat()).ok()?;
        serde_json::from_str(&text).ok()
    };
    let shop = |kind: &str, name: &str| get(&[kind, name, "--namespace", "shop"]);
    let done = [
        (
            "a service has its address",
            &(|| shop("postgres", "orders")?["status"]["number"].as_u64().map(|_| ()))
                as &dyn Fn() -> Option<()>,
        ),
        ("its name is in the DNS", &|| shop("service", "postgres-orders").map(drop)),
        ("with an address", &|| shop("endpointslice", "postgres-orders-v4").map(drop)),
        ("an Application has its connection", &|| shop("serviceconnection", "cart-db").map(drop)),
        ("and what it reads", &|| shop("configmap", "cart-services").map(drop)),
        ("a node has its number", &|| {
            get(&["tunnelnode", "node-1"])?["status"]["number"].as_u64().map(|_| ())
        }),
        ("the taint is gone", &|| get(&["node", "node-1"])?["spec"]["taints"].is_null().then_some(())),
    ];
    for (what, is_done) in done {
        wait::until(what, is_done).unwrap_or_else(|err| panic!("{err:#}\n{}", said()));
    }
    let mut status = Command::new(enforcer().expect("it was built"));
    status.args(["status", "--quiet", "--require", "Leading", "--require", "Written", "--socket"]);
    wait::for_true("everything is written", || finish(status.arg(run_dir.join("controller.sock"))).is_ok())
        .unwrap_or_else(|err| panic!("{err:#}\n{}", said()));
    assert!(!said().contains("not allowed"), "{}", said());
    drop(controller);
}
