//! What whoever writes something wrong is told, by the server where its schema knows better, and by the object's
//! conditions otherwise. Servers before 1.25 know no rules in CEL: the controller says the same.
//!
//! One server and one controller take the whole table at once: every object has a name of its own.

#[path = "invalid/administrators.rs"]
mod administrators;
#[path = "invalid/projects.rs"]
mod projects;

use std::collections::{BTreeMap, BTreeSet};

use enforcer::{model::Kind, source::kubernetes::Resource};
use enforcer_tests::{control_plane::Api, lab::wait};
use serde_json::{Value, json};

use crate::world::World;

/// Who says it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    /// The server, which does not take the object; without what it says of any object.
    Refused(&'static str),
    /// The object's condition `Valid`, which is `False`: reason and message.
    Invalid(&'static str),
}

/// One mistake.
struct Case {
    kind: Kind,
    namespace: &'static str,
    /// No two are the same.
    name: &'static str,
    /// In YAML.
    spec: String,
    /// What its author makes of it when it is valid.
    then: Option<&'static str>,
    told: Told,
}

impl Case {
    fn new(kind: Kind, name: &'static str, spec: &str, told: Told) -> Self {
        let namespace = if kind.namespaced() { "shop" } else { "" };
        Self { kind, namespace, name, spec: spec.to_owned(), then: None, told }
    }

    fn of(self, namespace: &'static str) -> Self {
        Self { namespace, ..self }
    }

    /// The object is valid at first; then this is merged into its spec.
    fn then(self, change: &'static str) -> Self {
        Self { then: Some(change), ..self }
    }

    fn document(&self, spec: &str) -> Value {
        let spec: Value = serde_norway::from_str(spec).expect("the table is YAML");
        let mut metadata = json!({ "name": self.name });
        if !self.namespace.is_empty() {
            metadata["namespace"] = self.namespace.into();
        }
        json!({ "apiVersion": self.kind.api_version(), "kind": self.kind.name(), "metadata": metadata, "spec": spec })
    }

    /// The conditions `Valid` and `Ready`, once the controller has seen what the object is now.
    fn conditions(&self, api: &Api) -> Option<String> {
        let object =
            api.get(&Resource::of(self.kind), self.namespace, self.name).expect("the server answers");
        let object = object?;
        let is_seen = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        let conditions = object["status"]["conditions"].as_array().filter(|_| is_seen)?;
        let says = |kind: &str| {
            let condition = conditions.iter().find(|condition| condition["type"] == kind)?;
            let text = |field: &str| condition[field].as_str().unwrap_or_default();
            Some(format!("{kind}={} {}: {}", text("status"), text("reason"), text("message")))
        };
        Some(format!("{}, {}", says("Valid")?, says("Ready")?))
    }

    fn expected(&self) -> String {
        match self.told {
            Told::Refused(message) => {
                let (kind, name) = (self.kind, self.name);
                let place = if self.namespace.is_empty() { "" } else { "/" };
                let object = format!("{kind} {}{place}{name}", self.namespace);
                format!("refused: {object}: {kind}.enforcer.dev \"{name}\" is invalid: {message}")
            }
            Told::Invalid(message) => format!("Valid=False {message}, Ready=False NotValid: "),
        }
    }

    fn found(&self, api: &Api, refusal: Option<&str>) -> String {
        let taken = || self.conditions(api).unwrap_or_default();
        refusal.map_or_else(taken, |refusal| format!("refused: {refusal}"))
    }
}

/// Makes the object, and what its author makes of it.
fn write(api: &Api, case: &Case) -> Result<(), String> {
    api.create(&case.document(&case.spec)).map_err(|refused| refused.to_string())?;
    let Some(then) = case.then else { return Ok(()) };
    wait::for_true(case.name, || case.conditions(api).is_some_and(|said| said.starts_with("Valid=True ")))
        .map_err(|error| format!("{error}: {:?}", case.conditions(api)))?;
    api.change(&case.document(then)).map(drop).map_err(|refused| refused.to_string())
}

#[test]
fn every_mistake_is_told_by_the_server_or_by_the_objects_conditions() {
    let (world, _controller) = World::with_objects().expect("the world starts");
    world.apply(NEIGHBOURS).expect("they are taken");
    let api = world.plane.api().expect("there is a client");
    let cases: Vec<Case> = projects::all().into_iter().chain(administrators::all()).collect();
    let names: BTreeSet<_> = cases.iter().map(|case| (case.kind, case.name)).collect();
    assert_eq!(names.len(), cases.len(), "no two have one name");
    let refusals: Vec<_> = cases.iter().map(|case| write(&api, case).err()).collect();
    let mut wrong = BTreeMap::new();
    let all_told = wait::for_true("everything is told", || {
        let found = cases.iter().zip(&refusals).filter_map(|(case, refusal)| {
            let found = case.found(&api, refusal.as_deref());
            (found != case.expected())
                .then(|| (case.name, format!("expected {}\n  found {found}", case.expected())))
        });
        wrong = found.collect();
        wrong.is_empty()
    });
    assert!(all_told.is_ok(), "{} of {} differ: {wrong:#?}", wrong.len(), cases.len());
}

/// Beside the world's objects: what others have.
const NEIGHBOURS: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: host-1}
---
apiVersion: v1
kind: Namespace
metadata: {name: blog, labels: {kubernetes.io/metadata.name: blog}}
---
apiVersion: enforcer.dev/v1alpha1
kind: TunnelGateway
metadata: {name: eu-2}
spec: {publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAw=, endpoints: ["198.51.100.1:51820"]}
---
apiVersion: enforcer.dev/v1alpha1
kind: Postgres
metadata: {name: other, namespace: shop}
spec: {gateways: [eu-1], endpoints: [{address: 192.0.2.11}]}
---
apiVersion: enforcer.dev/v1alpha1
kind: ServiceConnection
metadata: {name: till-taken, namespace: shop}
spec:
  source: {kind: KubernetesCluster, name: blue, podSelector: {matchLabels: {app: web}}}
  destination: {kind: Postgres, name: pg}
"#;
