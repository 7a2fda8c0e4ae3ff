//! Turns of the controller as values, and what a failed save does.

use std::time::Instant;

use serde_json::json;

use super::{
    standalone::{Controller, RETRY, STATUS_DELAY},
    *,
};
use crate::{
    model::{Kind, ObjectKey},
    source::manifests::read_text,
    state,
};

const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {env: production}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: host-1}
---
apiVersion: v1
kind: Pod
metadata: {name: batch, namespace: shop, labels: {app: web}}
spec: {nodeName: host-1}
status: {phase: Succeeded}
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: shop, labels: {app: other}}
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
spec: {publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI=, cluster: blue, node: host-1}
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
  source:
    kind: KubernetesCluster
    name: blue
    podSelector: {matchLabels: {app: web}}
    namespaceSelector: {matchLabels: {env: production, kubernetes.io/metadata.name: shop}}
  destination: {kind: Postgres, name: pg}
"#;

const APPLICATION: &str = r"---
apiVersion: enforcer.dev/v1alpha1
kind: Application
metadata: {name: shop, namespace: shop}
spec: {podSelector: {matchLabels: {app: other}}, services: [{name: pg, target: {kind: Postgres, name: pg}}]}
";

const OF_APPLICATION: &str = "---
apiVersion: enforcer.dev/v1alpha1
kind: ServiceConnection
metadata: {name: of-app, namespace: shop}
spec: {source: {kind: Application, name: shop}, destination: {kind: Postgres, name: pg}}
";

fn install() -> State {
    State::new(
        "fd00:1:2::/48".parse().unwrap(),
        "198.18.0.0/16".parse().unwrap(),
        "198.19.0.0/16".parse().unwrap(),
    )
}

fn web() -> ObjectKey {
    ObjectKey::new(Kind::ServiceConnection, "shop", "web")
}

fn status(state: &State, key: &str) -> serde_json::Value {
    json!(state.status[&key.parse().unwrap()])
}

#[test]
fn one_turn_says_everything_and_the_next_says_the_same() {
    let snapshot = read_text("a.yaml", OBJECTS);
    assert_eq!(snapshot.problems, []);
    let first = step(&snapshot, &install(), "2026-01-01T00:00:00Z");
    let valid = json!([{
        "type": "Valid",
        "status": "True",
        "reason": "Valid",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"
    }]);
    let expected = json!({
        "conditions": valid,
        "destinationDNS": "postgres-pg.shop.svc.cluster.local",
        "matchedPods": 1,
        "references": "KubernetesCluster/blue -> Postgres/pg"
    });
    assert_eq!(status(&first.state, "ServiceConnection/shop/web"), expected);
    let expected = json!({
        "conditions": valid,
        "privateNetworkingFQDN": "postgres-pg.shop.svc.cluster.local",
        "addresses": ["198.18.0.1"],
        "number": 1
    });
    assert_eq!(status(&first.state, "Postgres/shop/pg"), expected);
    let expected = json!({
        "conditions": valid,
        "number": 1,
        "addresses": ["198.19.0.1", "fd00:1:2:1001::1"],
        "ranges": {
            "ula": "fd00:1:2::/48",
            "service": "198.18.0.0/16",
            "workload": "198.19.0.0/16",
            "blocks": ["198.19.0.0/26"],
            "subnet": "fd00:1:2:1001::/64"
        }
    });
    assert_eq!(status(&first.state, "TunnelNode/n1"), expected);
    assert_eq!(step(&snapshot, &first.state, "2026-01-02T00:00:00Z"), first);
}

#[test]
fn the_file_that_an_object_is_in_means_nothing() {
    let first = step(&read_text("a.yaml", OBJECTS), &install(), "2026-01-01T00:00:00Z");
    let renamed = step(&read_text("z.yaml", OBJECTS), &first.state, "2026-01-02T00:00:00Z");
    assert_eq!(renamed, first);
}

#[test]
fn a_condition_has_the_time_of_its_change() {
    let good = read_text("a.yaml", OBJECTS);
    let bad = read_text("a.yaml", &OBJECTS.replace("[shop]", "[blog]"));
    let first = step(&good, &install(), "2026-01-01T00:00:00Z");
    let second = step(&bad, &first.state, "2026-01-02T00:00:00Z");
    let third = step(&bad, &second.state, "2026-01-03T00:00:00Z");
    assert_eq!(third.state, second.state);
    let conditions = json!([{
        "type": "Valid",
        "status": "False",
        "reason": "NamespaceNotAllowed",
        "message": "spec.gateways[0]: TunnelGateway eu-1 does not allow namespace \"shop\", \
                    expected it in its allowedNamespaces",
        "lastTransitionTime": "2026-01-02T00:00:00Z"
    }]);
    assert_eq!(status(&third.state, "Postgres/shop/pg"), json!({ "conditions": conditions, "number": 1 }));
    assert_eq!(third.state.services, first.state.services, "an invalid object keeps its address");
}

#[test]
fn references_may_be_corrected_until_they_were_valid_once() {
    let typo = read_text("a.yaml", &OBJECTS.replace("kind: Postgres, name: pg", "kind: Postgres, name: gp"));
    let first = step(&typo, &install(), "2026-01-01T00:00:00Z");
    assert!(first.resolved.connections.is_empty());
    let corrected = step(&read_text("a.yaml", OBJECTS), &first.state, "2026-01-02T00:00:00Z");
    assert_eq!(corrected.resolved.connections.len(), 1);
    let edited = step(&typo, &corrected.state, "2026-01-03T00:00:00Z");
    let reason = &edited.state.status[&web()].conditions[0].reason;
    assert_eq!(reason, "Immutable");
    let deleted = step(&Snapshot::default(), &edited.state, "2026-01-04T00:00:00Z");
    assert_eq!(deleted.state.status, std::collections::BTreeMap::new());
}

#[test]
fn a_failed_save_is_said_and_tried_again() {
    let dir = std::env::temp_dir().join(format!("enforcer-controller-{}", std::process::id()));
    let _absent = fs::remove_dir_all(&dir);
    let path = dir.join("state.json");
    let turns = Turns::from(Arc::new(install()));
    let mut controller = Controller { path: path.clone(), saved: None, late: None, turns };
    let snapshot = Arc::new(read_text("a.yaml", OBJECTS));
    let now = Instant::now();
    let (view, save_after) = controller.cycle(snapshot.clone(), now);
    assert_eq!(save_after, Some(RETRY));
    assert_eq!(view.role["conditions"][0]["reason"], "SaveFailed");
    fs::create_dir_all(&dir).unwrap();
    let (view, save_after) = controller.cycle(snapshot.clone(), now);
    assert_eq!(save_after, None);
    assert_eq!(view.role["conditions"][0]["reason"], "Saved");
    assert_eq!(state::load(&path).unwrap().as_ref(), view.state.as_deref());

    // What did not change is not written again.
    fs::remove_file(&path).unwrap();
    assert_eq!(controller.cycle(snapshot, now).1, None);
    assert_eq!(state::load(&path).unwrap(), None);

    // Status alone can wait, and does not wait for ever; an address does not.
    let refused = Arc::new(read_text(
        "a.yaml",
        &OBJECTS.replace("kind: Postgres, name: pg", "kind: Postgres, name: gp"),
    ));
    let half = now + STATUS_DELAY / 2;
    assert_eq!(controller.cycle(refused.clone(), now).1, Some(STATUS_DELAY));
    assert_eq!(controller.cycle(refused.clone(), half).1, Some(STATUS_DELAY / 2));
    assert_eq!(state::load(&path).unwrap(), None);
    let (view, save_after) = controller.cycle(refused, now + STATUS_DELAY);
    assert_eq!((save_after, state::load(&path).unwrap().as_ref()), (None, view.state.as_deref()));
    let another =
        OBJECTS.replace("kind: Postgres\nmetadata: {name: pg", "kind: Postgres\nmetadata: {name: other");
    let (view, save_after) = controller.cycle(Arc::new(read_text("a.yaml", &another)), now + STATUS_DELAY);
    assert_eq!((save_after, state::load(&path).unwrap().as_ref()), (None, view.state.as_deref()));
    // What a reader knows an object by may not be older than the object.
    let wait = |controller: &mut Controller, text: &str| {
        let (view, save_after) = controller.cycle(Arc::new(read_text("a.yaml", text)), now + STATUS_DELAY);
        (save_after, state::load(&path).unwrap().as_ref() == view.state.as_deref())
    };
    assert_eq!(wait(&mut controller, OBJECTS), (None, true));
    let renamed = OBJECTS.replace(
        "kind: ServiceConnection\nmetadata: {name: web",
        "kind: ServiceConnection\nmetadata: {name: late",
    );
    assert_ne!(renamed, OBJECTS);
    assert_eq!(wait(&mut controller, &renamed), (None, true));
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn what_was_counted_before_saves_work_and_changes_nothing() {
    const NOW: &str = "2026-01-01T00:00:00Z";
    const LATER: &str = "2026-01-02T00:00:00Z";
    let texts = [
        OBJECTS.to_owned(),
        // Another pod, another label of the namespace, another node's cluster, another connection.
        OBJECTS.replace(
            "name: other, namespace: shop, labels: {app: other}",
            "name: o, namespace: shop, labels: {app: web}",
        ),
        OBJECTS.replace(
            "env: production}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: web",
            "env: test}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: web",
        ),
        OBJECTS.replace("cluster: blue", "cluster: red"),
        OBJECTS.replace("podSelector: {matchLabels: {app: web}}", "podSelector: {matchLabels: {app: other}}"),
        OBJECTS.to_owned() + APPLICATION,
        // A connection of an Application that is there, is not, is refused, and whose ports are not offered.
        OBJECTS.to_owned() + APPLICATION + OF_APPLICATION,
        OBJECTS.replace("env: production", "env: test") + OF_APPLICATION,
        OBJECTS.to_owned() + OF_APPLICATION,
        OBJECTS.to_owned() + &APPLICATION.replace("name: pg, target", "name: PG!, target") + OF_APPLICATION,
        OBJECTS.to_owned() + APPLICATION + &OF_APPLICATION.replace("}}", "}, ports: [{port: 1}]}"),
        OBJECTS.to_owned() + &OF_APPLICATION.replace("}}", "}, ports: [{port: 1}]}"),
        String::new(),
    ];
    let mut snapshots: Vec<_> = texts.iter().map(|text| read_text("a.yaml", text)).collect();
    for (text, snapshot) in texts.iter().zip(&snapshots) {
        assert_eq!(snapshot.problems.is_empty(), !text.contains("PG!"), "{text}");
    }
    // The same, but for a document that is refused.
    let mut kept = snapshots[0].clone();
    kept.kept.insert(web(), "a.yaml: it is not whole".to_owned());
    snapshots.push(kept);
    let matched = |step: &Step| {
        let status = step.state.status.get(&web());
        status.map(|status| status.fields["matchedPods"].clone())
    };
    let counts: Vec<_> =
        snapshots.iter().filter_map(|snapshot| matched(&step(snapshot, &install(), NOW))).collect();
    assert_eq!(counts, [1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    for first in &snapshots {
        for second in &snapshots {
            let mut counted = status::Counted::default();
            let before = step_after(first, &install(), NOW, None, &mut counted);
            assert_eq!(before, step(first, &install(), NOW));
            let last =
                status::Last { snapshot: first, resolved: &before.resolved, shortages: &before.shortages };
            let after = step_after(second, &before.state, LATER, Some(last), &mut counted);
            assert_eq!(after, step(second, &before.state, LATER), "{first:?} {second:?}");
        }
    }
}
