//! What was resolved before, as a store of work already done: with or without it the outcome is the same, but a
//! connection that comes to a thousand others costs what one costs.

use super::{Resolved, destinations, infrastructure, references};
use crate::{
    model::Kind,
    state::State,
    store::{Change, Snapshot},
};

/// The last outcome and what it followed from.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    pub snapshot: &'a Snapshot,
    pub state: &'a State,
    pub resolved: &'a Resolved,
}

/// Kinds that nothing but connections depends on. Of pods some say where the infrastructure is.
const LEAVES: [Kind; 4] = [Kind::Namespace, Kind::Pod, Kind::ServiceConnection, Kind::Application];

impl Before<'_> {
    /// Whether everything but the connections is what it was.
    pub fn holds(&self, snapshot: &Snapshot, state: &State) -> bool {
        let changes = snapshot.since(self.snapshot);
        let pods_changed = changes.iter().any(|change| change.key.kind == Kind::Pod);
        changes.iter().all(|change| LEAVES.contains(&change.key.kind) || is_beside_us(change))
            && references::is_alike(snapshot, self.state, state)
            && (!pods_changed || infrastructure::resolve(snapshot) == self.resolved.infrastructure)
    }
}

/// A cluster has thousands of Services that nothing of ours depends on.
fn is_beside_us(change: &Change) -> bool {
    match change.key.kind {
        Kind::Service => !infrastructure::concerns(change) && !destinations::may_have_name(change.key),
        Kind::EndpointSlice => !infrastructure::concerns(change),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        controller,
        resolve::{resolve, resolve_after},
        source::manifests::read_text,
    };

    const OBJECTS: &str = r#"
apiVersion: enforcer.dev/v1alpha1
kind: TunnelGateway
metadata: {name: eu-1}
spec:
  publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=
  endpoints: ["203.0.113.1:51820"]
  allowedNamespaces: [shop]
  allowedBackends: [{cidr: 192.0.2.0/24, ports: [{port: 5432}]}]
  crossNamespaceSources: true
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
---
apiVersion: enforcer.dev/v1alpha1
kind: Postgres
metadata: {name: pg, namespace: shop}
spec: {gateways: [eu-1], endpoints: [{address: 192.0.2.10}]}
---
apiVersion: enforcer.dev/v1alpha1
kind: PostgresDatabase
metadata: {name: orders, namespace: shop}
spec: {instance: pg, database: orders}
---
apiVersion: enforcer.dev/v1alpha1
kind: Application
metadata: {name: web, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, services: [{name: pg, target: {kind: Postgres, name: pg}}]}
---
apiVersion: enforcer.dev/v1alpha1
kind: ServiceConnection
metadata: {name: of-app, namespace: shop}
spec: {source: {kind: Application, name: web}, destination: {kind: Postgres, name: pg}}
---
apiVersion: enforcer.dev/v1alpha1
kind: ServiceConnection
metadata: {name: old, namespace: shop, creationTimestamp: "2026-01-02T00:00:00Z"}
spec: {source: {kind: KubernetesCluster, name: blue}, destination: {kind: PostgresDatabase, name: orders}}
"#;

    /// Objects that say what they said before are the same ones, as when their file is not read again.
    fn objects(text: &str, before: &Snapshot) -> Snapshot {
        let mut snapshot = read_text("a.yaml", text);
        assert_eq!(snapshot.problems, [], "{text}");
        for (key, object) in &mut snapshot.objects {
            if let Some(same) = before.objects.get(key).filter(|before| *before == object) {
                *object = Arc::clone(same);
            }
        }
        snapshot
    }

    /// Each with whether all but the connections is what it was.
    fn turns() -> Vec<(String, bool)> {
        let more = "---\napiVersion: enforcer.dev/v1alpha1\nkind: ServiceConnection\nmetadata: {name: new, namespace: shop}\n\
                    spec: {source: {kind: KubernetesCluster, name: red}, destination: {kind: Postgres, name: pg}}\n";
        let taken = "---\napiVersion: v1\nkind: Service\nmetadata: {name: postgres-pg, namespace: shop}\n";
        let node = "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                    metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}\n\
                    endpoints: [{addresses: [192.0.2.10]}]\n";
        let host = "kind: Pod\nmetadata: {name: web, namespace: shop}\nspec: {hostNetwork: true, nodeName: n}\n\
                    status: {podIPs: [{ip: 192.0.2.10}]}\n";
        let with = |from: &str, to: &str| {
            assert!(OBJECTS.contains(from), "{from}");
            OBJECTS.replace(from, to)
        };
        vec![
            (OBJECTS.to_owned() + more, true),
            (with("app: web", "app: cart"), true),
            (with("2026-01-02", "2026-01-09"), true),
            (with("PostgresDatabase, name: orders}}", "Postgres, name: pg}}"), true),
            (OBJECTS.to_owned() + &more.replace("name: new", "name: web-pg"), true),
            (
                with(
                    "kind: Application\nmetadata: {name: web,",
                    "kind: Application\nmetadata: {name: other,",
                ),
                true,
            ),
            (OBJECTS.to_owned() + taken, false),
            (OBJECTS.to_owned() + &taken.replace("postgres-pg", "web"), true),
            (OBJECTS.to_owned() + &taken.replace("postgres-pg", "kubernetes"), true),
            (OBJECTS.to_owned() + &node.replace("default", "shop"), true),
            (OBJECTS.to_owned() + node, false),
            (with("192.0.2.10", "192.0.2.11"), false),
            (with("crossNamespaceSources: true", "crossNamespaceSources: false"), false),
            (with("instance: pg", "instance: other"), false),
            (with("kind: Pod\nmetadata: {name: web, namespace: shop}\n", host), false),
            (String::new(), false),
        ]
    }

    #[test]
    fn what_was_resolved_before_saves_work_and_changes_nothing() {
        let install = State::new(
            "fd00:1:2::/48".parse().unwrap(),
            "198.18.0.0/16".parse().unwrap(),
            "198.19.0.0/16".parse().unwrap(),
        );
        let first = objects(OBJECTS, &Snapshot::default());
        // Nothing is allocated yet; then the references are known that were seen first.
        let told = controller::step(&first, &install, "2026-01-01T00:00:00Z").state;
        for state in [&install, &told] {
            let resolved = resolve(&first, state);
            let before = Before { snapshot: &first, state, resolved: &resolved };
            assert_eq!(resolve_after(&first, state, Some(before)), resolved);
            assert_eq!(resolve_after(&first, &told, Some(before)), resolve(&first, &told));
            for (text, same) in &turns() {
                let next = objects(text, &first);
                assert_eq!(before.holds(&next, state), *same, "{text}");
            }
            for (one, _) in &turns() {
                let one = objects(one, &first);
                let resolved = resolve(&one, state);
                let before = Before { snapshot: &one, state, resolved: &resolved };
                for (text, _) in &turns() {
                    let next = objects(text, &one);
                    assert_eq!(resolve_after(&next, state, Some(before)), resolve(&next, state), "{text}");
                }
            }
        }
    }
}
