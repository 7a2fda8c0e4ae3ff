//! A real API server: what it is asked is what it keeps, over its own restarts.

use enforcer_tests::{control_plane::ControlPlane, lab::wait};

#[test]
fn what_the_api_server_was_told_it_knows_after_it_was_killed() {
    let mut plane = ControlPlane::start().expect("the control plane starts");
    plane.kubectl(&["create", "namespace", "shop"]).expect("a namespace is made");
    let uid = |plane: &ControlPlane| {
        let args = ["get", "namespace", "shop", "--output", "jsonpath={.metadata.uid}"];
        plane.kubectl(&args)
    };
    let before = uid(&plane).expect("the namespace is there");

    plane.kill().expect("it is killed");
    let refused = uid(&plane).expect_err("nobody answers").to_string();
    plane.restart().expect("it starts again");

    assert!(refused.contains("refused"), "{refused}");
    assert_eq!(uid(&plane).expect("the namespace is still there"), before);
}

#[test]
fn a_server_that_is_paused_answers_when_it_goes_on() {
    let plane = ControlPlane::start().expect("the control plane starts");
    let ready = || plane.kubectl(&["get", "--raw", "/readyz", "--request-timeout", "1s"]);

    plane.pause().expect("it is paused");
    let paused = ready();
    plane.resume().expect("it goes on");

    assert!(paused.is_err(), "{paused:?}");
    wait::for_true("the server answers", || ready().is_ok()).expect("it answers");
}

#[test]
fn a_service_account_may_do_what_its_role_says_and_no_more() {
    let plane = ControlPlane::start().expect("the control plane starts");
    for args in [
        "create namespace shop",
        "create serviceaccount reader --namespace shop",
        "create role reader --verb get,list --resource configmaps --namespace shop",
        "create rolebinding reader --role reader --serviceaccount shop:reader --namespace shop",
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        plane.kubectl(&args).expect("it is made");
    }
    let kubeconfig = plane.kubeconfig_of("shop", "reader").expect("a token is given");
    let may = |what: &str| {
        let args = ["get", what, "--namespace", "shop", "--output", "name"];
        plane.kubectl_as(&kubeconfig, &args).map_err(|err| err.to_string())
    };

    // The authorizer reads roles with a delay of its own.
    wait::for_true("the role is in force", || may("configmaps").is_ok()).expect("the role is in force");
    let refused = may("secrets").expect_err("secrets are not in the role");

    assert!(
        refused.contains("system:serviceaccount:shop:reader\" cannot list resource \"secrets\""),
        "{refused}"
    );
}
