//! What a person reads who wrote something wrong: file, object, field, what is there, what was expected.
//!
//! Each case is one file beside a folder of good objects, and the only message that it may cause.

use std::{fs, path::PathBuf};

use crate::{controller, source::manifests, state::State};

mod cases;
mod reach;

/// The good neighbours.
const GOOD: &str = r#"
apiVersion: enforcer.dev/v1alpha1
kind: TunnelGateway
metadata: {name: eu-1}
spec:
  publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=
  endpoints: ["203.0.113.1:51820"]
  allowedNamespaces: [shop]
  allowedBackends: [{cidr: 192.0.2.0/24, ports: [{port: 5432}, {port: 6379}]}]
---
apiVersion: v1
kind: Node
metadata: {name: host-1}
status: {addresses: [{type: InternalIP, address: 192.0.2.90}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}
endpoints: [{addresses: [192.0.2.91]}]
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {clusterIP: 192.0.2.92}
---
apiVersion: enforcer.dev/v1alpha1
kind: Postgres
metadata: {name: pg, namespace: shop}
spec: {gateways: [eu-1], endpoints: [{address: 192.0.2.10}]}
---
apiVersion: enforcer.dev/v1alpha1
kind: ServiceConnection
metadata: {name: app-taken, namespace: shop}
spec: {source: {kind: KubernetesCluster, name: blue, namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}, destination: {kind: Postgres, name: pg}}
"#;

struct Case {
    name: &'static str,
    text: String,
    message: &'static str,
}

fn raw(name: &'static str, text: &str, message: &'static str) -> Case {
    Case { name, text: text.to_owned(), message }
}

/// A document of ours with this kind, metadata and spec.
fn object(name: &'static str, kind: &str, metadata: &str, spec: &str, message: &'static str) -> Case {
    let text =
        format!("apiVersion: enforcer.dev/v1alpha1\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n");
    Case { name, text, message }
}

fn connection(name: &'static str, spec: &str, message: &'static str) -> Case {
    object(name, "ServiceConnection", "{name: bad, namespace: shop}", spec, message)
}

/// A connection that is right but for what stands beside source and destination.
fn connection_with(name: &'static str, rest: &str, message: &'static str) -> Case {
    let spec = "source: {kind: KubernetesCluster, name: blue, namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}, destination: {kind: Postgres, name: pg}";
    connection(name, &format!("{{{spec}, {rest}}}"), message)
}

fn source(name: &'static str, source: &str, message: &'static str) -> Case {
    connection(name, &format!("{{source: {source}, destination: {{kind: Postgres, name: pg}}}}"), message)
}

fn destination(name: &'static str, destination: &str, message: &'static str) -> Case {
    connection(
        name,
        &format!("{{source: {{kind: KubernetesCluster, name: blue}}, destination: {destination}}}"),
        message,
    )
}

fn postgres(name: &'static str, spec: &str, message: &'static str) -> Case {
    object(name, "Postgres", "{name: bad, namespace: shop}", spec, message)
}

fn gateway(name: &'static str, spec: &str, message: &'static str) -> Case {
    let key = "publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI=";
    object(name, "TunnelGateway", "{name: bad}", &format!("{{{key}, {spec}}}"), message)
}

/// Everything that the controller says about a folder with the good objects and this file.
fn said(index: usize, text: &str) -> Vec<String> {
    let dir: PathBuf =
        std::env::temp_dir().join(format!("enforcer-bad-input-{}-{index}", std::process::id()));
    fs::create_dir_all(&dir).expect("a folder to work in");
    fs::write(dir.join("a-good.yaml"), GOOD).expect("a file in the folder");
    fs::write(dir.join("bad.yaml"), text).expect("a file in the folder");
    let snapshot = manifests::load(&dir);
    fs::remove_dir_all(&dir).expect("the folder to be removable");
    let range = |text: &str| text.parse().expect("a range");
    let ula = "fd00:1:2::/48".parse().expect("a range");
    let state = State::new(ula, range("198.18.0.0/16"), range("198.19.0.0/16"));
    let step = controller::step(&snapshot, &state, "2026-01-01T00:00:00Z");
    let mut problems = snapshot.problems.clone();
    problems.extend(step.resolved.problems(&snapshot));
    let mut said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    // A field that is wrong by itself is refused by the source, and the object's status says the same.
    said.dedup();
    said
}

#[test]
fn every_mistake_has_its_message() {
    let cases: Vec<Case> = cases::all().into_iter().chain(reach::all()).collect();
    let mut wrong = Vec::new();
    for (index, Case { name, text, message }) in cases.iter().enumerate() {
        let said = said(index, text);
        if said != [*message] {
            wrong.push(format!("{name}:\n  expected {message}\n  found    {}", said.join("\n           ")));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn the_good_neighbours_cause_no_message() {
    assert_eq!(said(usize::MAX, ""), Vec::<String>::new());
}
