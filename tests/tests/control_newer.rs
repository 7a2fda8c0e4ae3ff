//! What only a newer server knows, as `enforcer install` has it for one: rules in CEL, and admission policies.

use std::process::Command;

use enforcer::model::Kind;
use enforcer_tests::{
    control_plane::{Api, DEFINITION, Newer},
    lab::{command::finish, roles::enforcer, wait},
};
use serde::Deserialize as _;
use serde_json::{Value, json};

const AGENT: &str = "system:serviceaccount:enforcer-system:enforcer-agent";
const CONTROLLER: &str = "system:serviceaccount:enforcer-system:enforcer-controller";
const MEMBER: &str = "system:serviceaccount:enforcer-system:enforcer-member";
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

const LAB: &str = "{source: {kind: KubernetesCluster, name: lab}, destination: {kind: Postgres, name: pg}}";

const API: &str = "{source: {kind: Application, name: api}, destination: {kind: Postgres, name: pg}}";

/// What is said to whoever breaks a rule.
const IMMUTABLE: &str = "references are immutable: delete the object and create it anew";
const SELECTORS: &str = "spec.source: Invalid value: an Application has its own podSelector and namespace: no selectors beside it";
const OWN: &str = "an agent writes the TunnelNode of its own node only";
const MEMBERS: &str = "a node of another cluster has the TunnelNode CLUSTER.NODE";
const CHANGES: &str = "the controller changes only what has the label app.kubernetes.io/managed-by=enforcer";
const MAKES: &str = "what the controller makes has the label app.kubernetes.io/managed-by=enforcer";

/// What is installed on the newest server that is known.
fn documents() -> Vec<Value> {
    let mut install = Command::new(enforcer().expect("it was built"));
    let text = finish(install.args(["install", "--kube-version", "1.36"])).expect("it prints");
    let documents = serde_norway::Deserializer::from_str(&text);
    documents.map(|document| Value::deserialize(document).expect("YAML")).collect()
}

/// A server with our kinds, each of which it has found good.
fn newer() -> Option<Newer> {
    let documents = documents();
    let newer = Newer::start(&documents).expect("the server starts")?;
    let api = newer.api("admin").expect("it answers");
    let kinds: Vec<Value> =
        documents.into_iter().filter(|document| document["kind"] == DEFINITION.kind).collect();
    assert_eq!(kinds.len(), Kind::ALL.iter().filter(|kind| kind.is_ours()).count());
    // Whatever a rule could have wrong, its syntax, its types, what it may cost: the server refuses it here.
    api.create_all(kinds).expect("the server takes every kind with its rules");
    let mut last = Vec::new();
    wait::for_true("every kind is established, and nothing is wrong with it", || {
        last = api.list(&DEFINITION).expect("it answers");
        last.iter().all(|kind| {
            let conditions = kind["status"]["conditions"].as_array();
            let is = |of: &str| {
                conditions
                    .is_some_and(|all| all.iter().any(|one| one["type"] == of && one["status"] == "True"))
            };
            is("Established") && !is("NonStructuralSchema")
        })
    })
    .unwrap_or_else(|err| panic!("{err:#}: {last:#?}"));
    Some(newer)
}

/// What the server says of it; `taken` if it takes it.
fn told(answer: Result<Value, impl std::fmt::Display>) -> String {
    let said = match answer {
        Ok(_) => return "taken".to_owned(),
        Err(err) => err.to_string(),
    };
    // Without what it says of any object.
    for before in ["is invalid: ", "denied request: "] {
        if let Some((_, why)) = said.split_once(before) {
            return why.to_owned();
        }
    }
    said
}

/// `spec` in YAML.
fn of(kind: Kind, name: &str, spec: &str) -> Value {
    let spec: Value = serde_norway::from_str(spec).expect("YAML");
    let mut document = json!({ "apiVersion": kind.api_version(), "kind": kind.name(), "metadata": { "name": name }, "spec": spec });
    if kind.namespaced() {
        document["metadata"]["namespace"] = "shop".into();
    }
    document
}

fn connection(name: &str, spec: &str) -> Value {
    of(Kind::ServiceConnection, name, spec)
}

#[test]
#[ignore = "long: builds a newer server"]
fn the_server_itself_refuses_a_reference_that_changes_and_names_the_field() {
    let Some(newer) = newer() else { return };
    let api = newer.api("admin").expect("it answers");
    let immutable = |field: &str, value: &str| format!("spec.{field}: Invalid value: {value:?}: {IMMUTABLE}");
    let connection = |changed: &str| (Kind::ServiceConnection, LAB, changed.to_owned());
    let application = |selector: &str| {
        (Kind::ServiceConnection, API, API.replace("name: api", &format!("name: api, {selector}: {{}}")))
    };
    let database =
        |kind| (kind, "{instance: pg, database: orders}", "{instance: other, database: orders}".to_owned());
    for (number, ((kind, first, then), expected)) in [
        (connection(&LAB.replace("name: pg", "name: other")), immutable("destination.name", "other")),
        (connection(&LAB.replace("Postgres", "MySQL")), immutable("destination.kind", "MySQL")),
        (connection(&LAB.replace("name: lab", "name: blue")), immutable("source.name", "blue")),
        (
            connection(&LAB.replace("KubernetesCluster", "Application")),
            immutable("source.kind", "Application"),
        ),
        // Whom it selects may change.
        (
            connection(&LAB.replace("name: lab", "name: lab, podSelector: {matchLabels: {app: api}}")),
            "taken".to_owned(),
        ),
        (application("podSelector"), SELECTORS.to_owned()),
        (application("namespaceSelector"), SELECTORS.to_owned()),
        (database(Kind::PostgresDatabase), immutable("instance", "other")),
        (database(Kind::MySQLDatabase), immutable("instance", "other")),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("case-{number}");
        assert_eq!(told(api.apply(&of(kind, &name, first), None)), "taken", "{first}");
        assert_eq!(told(api.apply(&of(kind, &name, &then), None)), expected, "{first} becomes {then}");
    }
    let (_, _, both) = application("podSelector");
    assert_eq!(told(api.create(&self::connection("new", &both))), SELECTORS, "also when it is made");
}

/// A TunnelNode as somebody writes it who says that it is of this cluster and node.
fn node(name: &str, cluster: Option<&str>, node: &str) -> Value {
    let mut node = of(Kind::TunnelNode, name, &format!("{{publicKey: {KEY}, node: {node}}}"));
    if let Some(cluster) = cluster {
        node["spec"]["cluster"] = cluster.into();
    }
    node
}

#[test]
#[ignore = "long: builds a newer server"]
fn a_token_writes_the_nodes_that_are_its_own_and_no_other() {
    let Some(newer) = newer() else { return };
    let on_n1 = format!("{AGENT}@n1");
    let lab = Some("lab");
    // A refused one first: the object that is there later is nobody's reason.
    for (who, document, expected) in [
        (on_n1.as_str(), node("n2", lab, "n2"), OWN),
        (&on_n1, node("n2", lab, "n1"), OWN),
        (&on_n1, node("n1", lab, "n2"), OWN),
        (AGENT, node("n1", lab, "n1"), OWN),
        (MEMBER, node("n1", lab, "n1"), MEMBERS),
        (MEMBER, node("n1", Some("blue"), "n1"), MEMBERS),
        (&on_n1, node("n1", lab, "n1"), "taken"),
        (MEMBER, node("blue.n1", Some("blue"), "n1"), "taken"),
        // An administrator's.
        ("admin", node("n2", lab, "n2"), "taken"),
        (&on_n1, node("n2", lab, "n2"), OWN),
        (&on_n1, node("n1", lab, "n1"), "taken"),
    ] {
        let api = newer.api(who).expect("it answers");
        let (name, spec) = (&document["metadata"]["name"], &document["spec"]);
        assert_eq!(told(api.apply(&document, None)), expected, "{who} writes {name}: {spec}");
    }
    // An agent without a cluster's name says less than a member has to.
    let said = told(newer.api(MEMBER).expect("it answers").apply(&node("n1", None, "n1"), None));
    assert!(said.ends_with("no such key: cluster"), "{said}");
}

#[test]
#[ignore = "long: builds a newer server"]
fn the_controller_changes_only_what_a_controller_has_made() {
    let Some(newer) = newer() else { return };
    let (admin, controller) =
        (newer.api("admin").expect("it answers"), newer.api(CONTROLLER).expect("it answers"));
    let somebodys = connection("theirs", API);
    let labelled = |mut document: Value| {
        document["metadata"]["labels"] = json!({ "app.kubernetes.io/managed-by": "enforcer" });
        document
    };
    let delete = |api: &Api, document: &Value| told(api.delete(document).map(|()| Value::Null));

    assert_eq!(told(controller.apply(&somebodys, None)), MAKES);
    assert_eq!(told(admin.apply(&somebodys, None)), "taken");
    assert_eq!(told(controller.apply(&somebodys, None)), CHANGES);
    assert_eq!(
        told(controller.apply(&labelled(somebodys.clone()), None)),
        CHANGES,
        "it cannot make it its own"
    );
    assert_eq!(delete(&controller, &somebodys), CHANGES);

    let own = labelled(connection("own", API));
    assert_eq!(told(controller.apply(&own, None)), "taken");
    assert_eq!(delete(&controller, &own), "taken");
    let status = json!({ "apiVersion": Kind::ServiceConnection.api_version(), "kind": "ServiceConnection",
        "metadata": { "name": "theirs", "namespace": "shop" }, "status": { "matchedPods": 1 } });
    assert_eq!(told(controller.apply(&status, Some("status"))), "taken", "what it says of theirs");
    assert_eq!(delete(&admin, &somebodys), "taken");
}
