//! The cluster that `KUBECONFIG` names: enforcer is installed there as people do it, works, and goes without a trace.
//!
//! It is one test: whatever happens, what was made is removed at its end.

#[path = "cluster_existing/world.rs"]
mod world;

#[path = "cluster_existing/traces.rs"]
mod traces;

use enforcer_tests::lab::query::Answer;

use world::{OTHER, PROJECT, World};

#[test]
fn an_install_grants_and_refuses_cuts_and_goes_without_a_trace() {
    let Some(world) = World::of_tests().expect("enforcer is installed") else { return };
    the_granted_reach_the_database_by_its_name_and_nobody_else(&world);
    a_label_grants_to_a_running_pod(&world);
    the_end_of_a_connection_cuts_its_session(&world);
    an_application_connects_with_nothing_but_its_environment(&world);
    world.remove().expect("it is removed");
}

fn the_granted_reach_the_database_by_its_name_and_nobody_else(world: &World) {
    let granted = world.pod("web", PROJECT, "web").expect("it runs");
    let stranger = world.pod("stranger", PROJECT, "stranger").expect("it runs");
    let elsewhere = world.pod("web", OTHER, "web").expect("it runs");

    world.wait_for(&granted, &Answer::Works).expect("it is granted");

    for pod in [&stranger, &elsewhere] {
        assert_eq!(pod.query(&world.host).expect("psql runs"), Answer::NotPermitted);
    }
}

fn a_label_grants_to_a_running_pod(world: &World) {
    let pod = world.pod("late", PROJECT, "late").expect("it runs");
    assert_eq!(pod.query(&world.host).expect("psql runs"), Answer::NotPermitted);

    let args = ["label", "pod", "late", "--namespace", PROJECT, "--overwrite", "app=web"];
    world.client.kubectl(&args).expect("it is labelled");

    world.wait_for(&pod, &Answer::Works).expect("it is granted");
}

fn the_end_of_a_connection_cuts_its_session(world: &World) {
    world.grant("cut").expect("it is granted");
    let pod = world.pod("cut", PROJECT, "cut").expect("it runs");
    world.wait_for(&pod, &Answer::Works).expect("it is granted");
    let session = pod.open_session(&world.host).expect("the session is open");

    let args = ["delete", "serviceconnection", "cut", "--namespace", PROJECT];
    world.client.kubectl(&args).expect("it is deleted");

    let (end, said) = session.end().expect("psql is waited for");
    assert!(end.is_some_and(|status| !status.success()), "the session ends with an error: {said}");
    assert_eq!(pod.query(&world.host).expect("psql runs"), Answer::NotPermitted);
}

fn an_application_connects_with_nothing_but_its_environment(world: &World) {
    let pod = world.application("cart").expect("it is made");

    pod.wait("Succeeded").expect("it has asked the database");

    let said = pod.logs().expect("it has said something");
    assert_eq!(said.lines().last(), Some("1"), "{said}");
}
