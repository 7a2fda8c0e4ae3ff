//! Roles at work with their own tokens: what they may do is enough.

use std::{path::PathBuf, time::Duration};

use enforcer::source::kubernetes::{Cluster, Connect, Interest, Pods};
use enforcer_tests::{control_plane::ControlPlane, lab::wait};

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
    let agent = Interest { pods: Pods::OfNode("node-1".to_owned()), only_services: false, written: false };
    let gateway = Interest { pods: Pods::All, only_services: false, written: false };
    let controller = Interest { pods: Pods::All, only_services: false, written: true };
    let dns = Interest { pods: Pods::None, only_services: true, written: false };
    for (role, interest) in [("agent", agent), ("gateway", gateway), ("controller", controller), ("dns", dns)]
    {
        let connect = Connect { kubeconfig: Some(kubeconfig(&plane, role)), context: None };
        let objects = runtime.block_on(async {
            let cluster = Cluster::connect(&connect).await.expect("it is configured");
            let mut told = cluster.follow(&interest);
            let first = tokio::time::timeout(Duration::from_mins(1), told.changed()).await;
            first.unwrap_or_else(|_| panic!("{role}: a list never ends")).expect("it goes on");
            told.borrow().snapshot.objects.len()
        });
        assert!(objects > 0, "{role}");
    }
}
