//! Refusals that a person must see, as Events.

use std::{collections::BTreeMap, process::Command};

use enforcer_tests::lab::{command::finish, roles::enforcer, wait};
use serde_json::{Value, json};

use crate::world::World;

const REFUSED: &str = "
apiVersion: enforcer.dev/v1alpha1
kind: Postgres
metadata: {name: far, namespace: shop}
spec: {gateways: [eu-1], endpoints: [{address: 198.51.100.9}]}
---
apiVersion: v1
kind: Service
metadata: {name: postgres-taken, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: enforcer.dev/v1alpha1
kind: Postgres
metadata: {name: taken, namespace: shop}
spec: {gateways: [eu-1], endpoints: [{address: 192.0.2.11}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: app-services, namespace: shop}
---
apiVersion: enforcer.dev/v1alpha1
kind: Application
metadata: {name: app, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  services: [{name: db, target: {kind: Postgres, name: pg}}]
";

/// Every Event of ours: what it is of, and what it says how often.
fn events(world: &World) -> BTreeMap<String, Vec<(String, String, i64)>> {
    let list = world.plane.kubectl(&["get", "events", "--all-namespaces", "--output", "json"]);
    let list: Value = serde_json::from_str(&list.expect("they are listed")).expect("JSON");
    let mut events: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for event in list["items"].as_array().expect("a list") {
        if event["source"]["component"] != "enforcer-controller" {
            continue;
        }
        assert_eq!(event["type"], "Warning");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let of = &event["involvedObject"];
        let says = (text(&event["reason"]), text(&event["message"]), event["count"].as_i64().unwrap_or(0));
        events.entry(format!("{} {}", text(&of["kind"]), text(&of["name"]))).or_default().push(says);
    }
    events
}

fn patch(world: &World, kind: &str, name: &str, change: &Value) {
    let change = change.to_string();
    let args = ["patch", kind, name, "--namespace", "shop", "--type", "merge", "--patch", &change];
    world.plane.kubectl(&args).expect("it is changed");
}

/// Waits until the events are these; each is the object's condition of this type, told so many times.
fn wait_for(world: &World, wanted: &[(&str, &str, &str, i64)]) {
    let mut seen = BTreeMap::new();
    let expected = || {
        let mut all: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (kind, name, condition, count) in wanted {
            let said = world.condition(kind, name, condition);
            let (reason, message) = said.strip_prefix("False ")?.split_once(": ")?;
            let title = format!("{kind} {name}");
            all.entry(title).or_default().push((reason.to_owned(), message.to_owned(), *count));
        }
        Some(all)
    };
    wait::for_true("the events are written", || {
        seen = events(world);
        expected().is_some_and(|expected| expected == seen)
    })
    .unwrap_or_else(|err| panic!("{err:#}: {:?} and not {seen:?}", expected()));
}

#[test]
fn what_is_refused_is_told_once_and_by_no_other_controller_again() {
    let (world, controller) = World::with_objects().expect("the world starts");
    world.wait_for("tunnelnode", "n1", "Ready", "True Ready: ").expect("the node is known");
    world.apply(REFUSED).expect("the objects are made");
    patch(
        &world,
        "tunnelnode",
        "n1",
        &json!({ "spec": { "publicKey": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAk=" } }),
    );
    let pods = ["shop/a: eth0 is a macvlan", "shop/b: eth0 is a macvlan"];
    let report = json!({ "report": { "connections": [
        { "name": "shop/web", "generation": 1, "pods": 2, "live": 0, "notGuardable": pods },
    ] } });
    patch(&world, "tunnelnode", "n1", &report);
    let all = [
        ("Application", "app", "Programmed", 1),
        ("Postgres", "far", "Valid", 1),
        ("Postgres", "taken", "Programmed", 1),
        ("ServiceConnection", "web", "Guardable", 1),
        ("TunnelNode", "n1", "IdentityAccepted", 1),
    ];
    wait_for(&world, &all);
    let denied =
        format!("False NotGuardable: denied, because they have another way out: {}", pods.join("; "));
    assert_eq!(world.condition("serviceconnection", "web", "Guardable"), denied);
    let taken = "False NameTaken: ConfigMap shop/app-services: not ours, expected the name to be free";
    assert_eq!(world.condition("application", "app", "Programmed"), taken);

    controller.stop().expect("the controller ends");
    let _next = world.controller("next").expect("another one leads");
    let two = "
apiVersion: enforcer.dev/v1alpha1
kind: Postgres
metadata: {name: too, namespace: shop}
spec: {gateways: [eu-1], endpoints: [{address: 198.51.100.10}]}
";
    world.apply(two).expect("it is made");
    let more = [&all[..], &[("Postgres", "too", "Valid", 1)]].concat();
    wait_for(&world, &more);

    // What returns is the same event, once more.
    for address in ["192.0.2.12", "198.51.100.9"] {
        let holds = if address.starts_with("192") { "True " } else { "False " };
        patch(&world, "postgres", "far", &json!({ "spec": { "endpoints": [{ "address": address }] } }));
        let is_seen = || world.condition("postgres", "far", "Valid").starts_with(holds);
        wait::for_true("the controller has seen it", is_seen).expect("it has");
    }
    let mut returned = more;
    returned[1].3 = 2;
    wait_for(&world, &returned);
    described(&world);
}

/// What `describe` shows of an event that was told twice.
fn described(world: &World) {
    let mut describe = Command::new(enforcer().expect("it was built"));
    describe
        .args(["describe", "postgres", "far", "-n", "shop", "--kubeconfig"])
        .arg(world.plane.kubeconfig());
    let page = finish(&mut describe).expect("it is described");
    let (_, shown) = page.split_once("Events:\n").unwrap_or_else(|| panic!("{page}"));
    let words: Vec<&str> = shown.split_whitespace().take(5).collect();
    assert_eq!(words, ["TYPE", "REASON", "AGE", "FROM", "MESSAGE"]);
    assert!(shown.contains("Warning") && shown.contains("(x2 over "), "{page}");
}
