//! What `enforcer install` prints, on a real API server: it takes all of it, and every role may do what it needs and
//! nothing else.

#[path = "control_install/rights.rs"]
mod rights;
#[path = "control_install/roles.rs"]
mod roles;

use std::process::Command;

use enforcer_tests::{
    control_plane::ControlPlane,
    lab::{command::finish, roles::enforcer, wait},
};
use serde_json::Value;

/// What `enforcer install` prints.
fn install(more: &[&str]) -> String {
    let mut command = Command::new(enforcer().expect("it was built"));
    finish(command.arg("install").args(more)).expect("it prints")
}

/// Everything that can be installed.
const ALL: [&str; 4] = ["--set", "gateway.enabled=true", "--set", "dns.enabled=true"];

/// A server with all of it.
fn installed() -> ControlPlane {
    let plane = ControlPlane::start().expect("the control plane starts");
    let kubeconfig = plane.kubeconfig().to_string_lossy().into_owned();
    let manifests = install(&[&["--kubeconfig", &kubeconfig], &ALL[..]].concat());
    plane.kubectl_with(&["apply", "--filename", "-"], &manifests).expect("the server takes it");
    plane
}

#[test]
fn the_server_takes_every_document_and_its_kinds_come_into_being() {
    let plane = ControlPlane::start().expect("the control plane starts");
    let kubeconfig = plane.kubeconfig().to_string_lossy().into_owned();
    let asked = install(&[&["--kubeconfig", &kubeconfig], &ALL[..]].concat());
    assert_eq!(
        asked,
        install(&[&["--kube-version", "1.20"], &ALL[..]].concat()),
        "asked or told is the same"
    );

    // What is in a namespace can be tried only where it is.
    plane.kubectl(&["create", "namespace", "enforcer-system"]).expect("it is made");
    let tried = plane.kubectl_with(&["apply", "--dry-run=server", "--filename", "-"], &asked);
    let tried = tried.expect("the server takes every document");
    let documents = asked.lines().filter(|line| *line == "---").count();
    assert_eq!(tried.lines().count(), documents, "{tried}");

    for _ in ["at first", "and again: nothing is immutable"] {
        plane.kubectl_with(&["apply", "--filename", "-"], &asked).expect("the server takes it");
    }
    let mut conditions = Vec::new();
    wait::for_true("every kind is established", || {
        let list =
            plane.kubectl(&["get", "customresourcedefinitions", "--output", "json"]).expect("they are there");
        let list: Value = serde_json::from_str(&list).expect("JSON");
        let of = |item: &Value| item["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions = list["items"].as_array().expect("a list").iter().map(of).collect();
        let has = |conditions: &Vec<Value>, kind: &str| {
            conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
        };
        conditions.iter().all(|conditions| has(conditions, "Established") && has(conditions, "NamesAccepted"))
    })
    .unwrap_or_else(|err| panic!("{err:#}: {conditions:?}"));
    assert!(!conditions.is_empty());
    let wrong: Vec<_> =
        conditions.iter().flatten().filter(|condition| condition["type"] == "NonStructuralSchema").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn ranges_that_the_cluster_uses_are_refused_before_anything_is_installed() {
    let plane = ControlPlane::start().expect("the control plane starts");
    let kubeconfig = plane.kubeconfig().to_string_lossy().into_owned();
    let address = plane.kubectl(&["get", "service", "kubernetes", "--output", "jsonpath={.spec.clusterIP}"]);
    let address = address.expect("the server's own Service is there");
    let range = format!(
        "ranges.service={}/16",
        address.rsplitn(3, '.').last().map(|net| format!("{net}.0.0")).expect("an address")
    );
    let mut command = Command::new(enforcer().expect("it was built"));
    let refused = finish(command.args(["install", "--kubeconfig", &kubeconfig, "--set", &range]));
    let refused = refused.expect_err("an overlap").to_string();
    assert!(refused.contains(&format!("overlaps Service default/kubernetes, {address}/32")), "{refused}");
}
