//! Commands at a real API server.

use std::{os::unix::fs::symlink, process::Command};

use enforcer::model::crd;
use enforcer_tests::{
    control_plane::ControlPlane,
    lab::{enforcer, wait},
};
use serde_json::{Value, json};

use super::desk::{Desk, EVERY_KIND, Said, said, words};

/// A server that knows our kinds, with the namespaces `shop` and `blog`.
fn server() -> ControlPlane {
    let plane = ControlPlane::start().expect("the control plane starts");
    let definitions =
        json!({ "apiVersion": "v1", "kind": "List", "items": crd::definitions(crd::Rules::None) });
    plane.kubectl_with(&["apply", "--filename", "-"], &definitions.to_string()).expect("they are taken");
    for namespace in ["shop", "blog"] {
        plane.kubectl(&["create", "namespace", namespace]).expect("a namespace is made");
    }
    let lists = |definition: &Value| {
        let name = definition["metadata"]["name"].as_str().expect("a name").to_owned();
        plane.kubectl(&["get", &name]).is_ok()
    };
    wait::for_true("every kind is served", || crd::definitions(crd::Rules::None).iter().all(lists))
        .expect("they are served");
    plane
}

fn at(plane: &ControlPlane, desk: &Desk, line: &str) -> Said {
    let mut command = desk.command();
    command.env("KUBECONFIG", plane.kubeconfig()).args(words(line));
    said(command.output().expect("it starts"))
}

/// Says of an object what its controller would.
fn conclude(plane: &ControlPlane, path: &str, status: &Value) {
    let path = format!("/apis/enforcer.dev/v1alpha1/{path}");
    let object = plane.kubectl(&["get", "--raw", &path]).expect("it is there");
    let mut object: Value = serde_json::from_str(&object).expect("JSON");
    object["status"] = status.clone();
    plane
        .kubectl_with(
            &["replace", "--raw", &format!("{path}/status"), "--filename", "-"],
            &object.to_string(),
        )
        .expect("it is taken");
}

fn condition(kind: &str, status: &str, generation: i64) -> Value {
    json!({
        "type": kind, "status": status, "reason": "Because", "message": "so", "observedGeneration": generation,
        "lastTransitionTime": "2026-11-26T07:00:00Z",
    })
}

#[test]
fn objects_are_made_found_and_deleted_at_a_real_server() {
    let (plane, desk) = (server(), Desk::new());
    let at = |line: &str| at(&plane, &desk, line);

    let mut made = Vec::new();
    for line in EVERY_KIND {
        let said = at(&format!("{line} -o yaml"));
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{line}");
        made.push(said.out);
    }
    // The server keeps all of it: what comes back is what a dry run prints.
    for (line, printed) in EVERY_KIND.iter().zip(&made) {
        assert_eq!(at(&format!("{line} --dry-run")).out, *printed, "{line}");
    }
    let pg = at("get postgres orders -n shop -o json").out;
    let pg: Value = serde_json::from_str(&pg).expect("JSON");
    assert_eq!(pg["spec"], json!({ "gateways": ["eu-1"], "endpoints": [{ "address": "203.0.113.10" }] }));

    assert_eq!(
        at("get sc -A"),
        Said::done(
            "NAMESPACE   NAME          SOURCE                         DESTINATION       DESTINATION-DNS   READY\n\
             shop        cart-orders   kubernetescluster/my-cluster   postgres/orders\n"
        )
    );
    assert_eq!(
        at("get sc"),
        Said { err: "there is no ServiceConnection in project default\n".into(), ..Said::done("") }
    );
    assert_eq!(
        at("describe sc cart-order -n shop"),
        Said::failed(
            3,
            "enforcer: there is no ServiceConnection shop/cart-order: did you mean cart-orders?\n"
        )
    );
    assert_eq!(
        at("get pg orders"),
        Said::failed(3, "enforcer: there is no Postgres default/orders: project shop has one (-n)\n")
    );
    assert_eq!(
        at(EVERY_KIND[4]),
        Said::failed(
            1,
            "enforcer: Postgres shop/orders exists already: delete it first, or change it with kubectl edit\n"
        )
    );
    let shop = at(&EVERY_KIND[4].replace("-n shop", "-n shopp"));
    assert_eq!(
        shop,
        Said::failed(1, "enforcer: Postgres shopp/orders: there is no Namespace shopp: did you mean shop?\n")
    );
    assert_eq!(
        at("delete sc/cart-orders pg/orders -n shop --wait"),
        Said::done(
            "serviceconnection.enforcer.dev/cart-orders deleted\npostgres.enforcer.dev/orders deleted\n"
        )
    );
    assert_eq!(at("get sc,pg -n shop").out, "");
}

#[test]
fn what_a_server_would_do_is_asked_of_it_and_nothing_is_done() {
    let (plane, desk) = (server(), Desk::new());
    let at = |line: &str| at(&plane, &desk, line);
    let line = EVERY_KIND[4];
    let postgres = "postgres.enforcer.dev/orders";
    let tried = at(&format!("{line} --dry-run=server"));
    assert_eq!((tried.code, tried.out), (Some(0), format!("{postgres} created (server dry run)\n")));
    let made = at(&format!("{line} --dry-run=server -o json")).out;
    let made: Value = serde_json::from_str(&made).expect("JSON");
    assert!(made["metadata"]["uid"].is_string(), "the server has filled it in: {made}");
    let gone = Said::failed(3, "enforcer: there is no Postgres shop/orders\n");
    assert_eq!(at("get pg orders -n shop"), gone, "nothing was made");
    let elsewhere = at(&format!("{} --dry-run=server", line.replace("-n shop", "-n nowhere")));
    assert_eq!(elsewhere.code, Some(1), "the server refuses what it would refuse: {elsewhere:?}");

    assert_eq!(at(line).code, Some(0));
    let twice = at(&format!("{line} --dry-run=server"));
    assert!(twice.err.contains("exists already"), "{twice:?}");
    for (flag, said) in [("--dry-run", "dry run"), ("--dry-run=server", "server dry run")] {
        assert_eq!(
            at(&format!("delete pg orders -n shop --wait {flag}")),
            Said::done(&format!("{postgres} deleted ({said})\n"))
        );
        assert_eq!(at("get pg orders -n shop").code, Some(0), "{flag} deletes nothing");
    }
}

#[test]
fn waiting_believes_only_what_is_said_of_the_generation_that_is_there() {
    let (plane, desk) = (server(), Desk::new());
    let line = EVERY_KIND[8];
    let unsaid = at(&plane, &desk, &format!("{line} --wait --timeout 0"));
    assert_eq!(unsaid.code, Some(4));
    let why = "ServiceConnection shop/cart-orders is not ready after 0 s: nobody has said yet whether it is Ready\n";
    assert!(unsaid.err.ends_with(why), "{}", unsaid.err);

    let mut command = desk.command();
    let line = line.replace("cart-orders", "cart-2") + " --wait --timeout 2m";
    command.env("KUBECONFIG", plane.kubeconfig()).args(words(&line));
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().expect("it starts");
    let path = "namespaces/shop/serviceconnections/cart-2";
    let raw = format!("/apis/enforcer.dev/v1alpha1/{path}");
    wait::for_true("it is made", || plane.kubectl(&["get", "--raw", &raw]).is_ok()).expect("it is made");
    conclude(
        &plane,
        path,
        &json!({ "conditions": [condition("Valid", "True", 1), condition("Ready", "True", 0)] }),
    );
    conclude(
        &plane,
        path,
        &json!({
            "conditions": [condition("Valid", "True", 1), condition("Ready", "True", 1)],
            "destinationDNS": "postgres-orders.shop.svc.cluster.local",
        }),
    );
    let ready = said(child.wait_with_output().expect("it ends"));
    assert_eq!(
        (ready.code, ready.out.as_str()),
        (
            Some(0),
            "serviceconnection.enforcer.dev/cart-2 created\n\
             ServiceConnection shop/cart-2 is ready: postgres-orders.shop.svc.cluster.local\n"
        ),
        "{}",
        ready.err
    );
}

#[test]
fn a_server_that_refuses_or_is_not_there_is_told_apart() {
    let (mut plane, desk) = (ControlPlane::start().expect("the control plane starts"), Desk::new());
    assert_eq!(
        at(&plane, &desk, "get pg -A"),
        Said::failed(
            1,
            "enforcer: the API server knows no Postgres: expected enforcer's definitions to be installed there\n"
        )
    );
    for line in ["create namespace shop", "create serviceaccount nobody --namespace shop"] {
        plane.kubectl(&words(line).iter().map(String::as_str).collect::<Vec<_>>()).expect("it is made");
    }
    let nobody = plane.kubeconfig_of("shop", "nobody").expect("a token is given");
    let refused = desk.run(&format!("get pg --kubeconfig {}", nobody.display()));
    assert_eq!(refused.code, Some(1));
    let why = "enforcer: list of postgreses: not allowed: ";
    assert!(
        refused.err.starts_with(why) && refused.err.contains("system:serviceaccount:shop:nobody"),
        "{}",
        refused.err
    );

    plane.kill().expect("it is killed");
    let gone = at(&plane, &desk, "get pg");
    assert_eq!(gone.code, Some(1));
    assert!(
        gone.err.starts_with("enforcer: list of postgreses: the API server cannot be asked: "),
        "{}",
        gone.err
    );
}

#[test]
fn kubectl_runs_it_as_its_plugin() {
    let (plane, desk) = (server(), Desk::new());
    symlink(enforcer().expect("the binary is built"), desk.dir.join("kubectl-enforcer")).expect("a link");
    let path = format!("{}:{}", desk.dir.display(), std::env::var("PATH").unwrap_or_default());
    let kubectl = |line: &str| {
        let mut command = Command::new(plane.program("kubectl"));
        command
            .args(words(line))
            .env("PATH", &path)
            .env("HOME", &desk.dir)
            .env("KUBECONFIG", plane.kubeconfig());
        said(command.output().expect("kubectl starts"))
    };
    let created = kubectl(&format!("enforcer {}", EVERY_KIND[5]));
    assert_eq!(created.out, "postgresdatabase.enforcer.dev/carts created\n", "{}", created.err);
    assert_eq!(
        kubectl("enforcer get pgdb carts -n shop -o name"),
        Said::done("postgresdatabase.enforcer.dev/carts\n")
    );
    assert!(kubectl("enforcer get").err.contains("Usage: kubectl enforcer get "));
}
