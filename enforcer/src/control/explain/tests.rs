//! Answers as a person reads them.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::{controller, source::manifests, state::State};

const OBJECTS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
---
apiVersion: v1
kind: Pod
metadata: {name: old, namespace: shop, labels: {app: web}}
status: {phase: Succeeded}
---
apiVersion: v1
kind: Pod
metadata: {name: job, namespace: shop, labels: {app: job}}
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
kind: Postgres
metadata: {name: pg, namespace: shop}
spec: {gateways: [eu-1], endpoints: [{address: 192.0.2.10}]}
---
apiVersion: enforcer.dev/v1alpha1
kind: Postgres
metadata: {name: far, namespace: shop}
spec: {gateways: [eu-1], endpoints: [{address: 198.51.100.1}]}
---
apiVersion: enforcer.dev/v1alpha1
kind: ServiceConnection
metadata: {name: web, namespace: shop}
spec:
  source: {kind: KubernetesCluster, name: blue, podSelector: {matchLabels: {app: web}}}
  destination: {kind: Postgres, name: pg}
---
apiVersion: enforcer.dev/v1alpha1
kind: ServiceConnection
metadata: {name: ended, namespace: shop}
spec:
  source: {kind: KubernetesCluster, name: blue, podSelector: {matchLabels: {app: web}}}
  destination: {kind: Postgres, name: pg}
  validUntil: 1970-01-01T00:00:01Z
"#;

fn view() -> View {
    let snapshot = manifests::read_text("a.yaml", OBJECTS);
    let range = |text: &str| text.parse().unwrap();
    let state = State::new("fd00:1:2::/48".parse().unwrap(), range("198.18.0.0/16"), range("198.19.0.0/16"));
    let step = controller::step(&snapshot, &state, "2026-01-01T00:00:00Z");
    let pods = json!([{"pod": "shop/web", "state": "Guarded", "grants": 1, "live": 0}]);
    View {
        snapshot: Arc::new(snapshot),
        resolved: Arc::new(step.resolved),
        role: json!({"role": "agent", "name": "n1", "cluster": "blue", "pods": pods}),
        ..View::default()
    }
}

fn said(pod: &str, to: &str, port: Option<u16>) -> Vec<String> {
    let question = Question { namespace: "shop".into(), pod: pod.into(), to: to.into(), port };
    let steps = explain(&view(), &question, 5_000_000_000);
    steps.iter().map(|step| format!("{:?}: {}", step.verdict, step.text)).collect()
}

#[test]
fn every_step_is_told_up_to_the_one_that_fails() {
    let known = "Yes: Pod shop/web is known".to_owned();
    let named = "Yes: Postgres shop/pg has the name postgres-pg.shop.svc.cluster.local".to_owned();
    let way = vec![
        known.clone(),
        named.clone(),
        "Note: ServiceConnection shop/ended does not mean it: its validUntil is over".to_owned(),
        "Yes: ServiceConnection shop/web means it".to_owned(),
        "Yes: the node knows where it is".to_owned(),
        "No: 0 of 1 grants are live on both ends".to_owned(),
    ];
    for to in ["postgres/pg", "postgres-pg.shop.svc.cluster.local", "198.18.0.2"] {
        assert_eq!(said("web", to, Some(5432)), way, "{to}");
    }
    assert_eq!(
        said("web", "Postgres/pg", Some(22)),
        [known.clone(), named.clone(), "No: it offers TCP/5432, not 22".to_owned()]
    );
    assert_eq!(
        said("job", "postgres/pg", None)[1..],
        [
            named,
            "No: ServiceConnection shop/ended does not mean it: pod label app: \"job\", expected \"web\""
                .to_owned(),
            "No: ServiceConnection shop/web does not mean it: pod label app: \"job\", expected \"web\""
                .to_owned(),
            "No: no ServiceConnection lets it reach Postgres shop/pg".to_owned(),
        ]
    );
    assert_eq!(
        said("web", "postgres/far", None),
        [
            known.clone(),
            "No: Postgres shop/far is not valid: spec.endpoints[0].address: 198.51.100.1 with port TCP/5432 is not \
             in the allowedBackends of TunnelGateway eu-1, expected one that is"
                .to_owned(),
        ]
    );
    assert_eq!(said("web", "mysql/pg", None), [known, "No: nothing here is called mysql/pg".to_owned()]);
    assert_eq!(said("old", "postgres/pg", None), ["No: Pod shop/old has ended (Succeeded)"]);
    assert_eq!(said("nobody", "postgres/pg", None), ["No: there is no Pod shop/nobody"]);
}
