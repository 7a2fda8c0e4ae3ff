//! Who reaches the database, who does not, and what changes that.

use std::collections::BTreeMap;

use enforcer_tests::lab::query::Answer;

use crate::world::{self, HOST, Like};

#[test]
fn granted_pods_reach_postgres_by_name_and_all_others_are_not_permitted() {
    let Some((world, _turn)) = world::shared() else { return };
    let host_network = Like { host_network: true, ..Like::default() };
    let elsewhere = Like { namespace: Some("other"), ..Like::default() };
    let plan = [
        ("web", "web", Like::default(), Answer::Works),
        ("web-on-the-node", "web", host_network, Answer::Works),
        ("stranger", "stranger", Like::default(), Answer::NotPermitted),
        ("web-of-another-namespace", "web", elsewhere, Answer::NotPermitted),
        ("stranger-on-the-node", "stranger", host_network, Answer::NotPermitted),
    ];
    let pods = plan.each_ref().map(|(name, app, like, _)| world::pod(world, name, app, *like).expect(name));

    for (pod, (name, _, _, answer)) in pods.iter().zip(&plan) {
        if *answer == Answer::Works {
            world::wait_for(pod, answer).expect(name);
        }
    }
    let said: BTreeMap<_, _> =
        pods.iter().zip(&plan).map(|(pod, (name, ..))| (*name, pod.query(HOST).expect(name))).collect();

    assert_eq!(said, plan.into_iter().map(|(name, _, _, answer)| (name, answer)).collect());
}

#[test]
fn a_label_grants_to_a_running_pod_and_its_removal_takes_the_grant_away() {
    let Some((world, _turn)) = world::shared() else { return };
    let pod = world::pod(world, "late", "late", Like::default()).expect("it runs");
    let label = |value: &str| {
        let args = ["label", "pod", "late", "--namespace", "shop", "--overwrite", value];
        world.cluster.kubectl(&args).expect("it is labelled");
    };
    assert_eq!(pod.query(HOST).expect("psql runs"), Answer::NotPermitted);

    label("app=web");
    world::wait_for(&pod, &Answer::Works).expect("it is granted");
    label("app=late");
    world::wait_for(&pod, &Answer::NotPermitted).expect("it is granted no more");
}

#[test]
fn the_agent_says_why_a_pod_is_refused() {
    let Some((world, _turn)) = world::shared() else { return };
    let pod = world::pod(world, "puzzled", "puzzled", Like::default()).expect("it runs");
    assert_eq!(pod.query(HOST).expect("psql runs"), Answer::NotPermitted);

    let check = ["check", "--from", "pod/puzzled", "--to", "postgres/pg:5432", "--namespace", "shop"];
    let outcome = world.ask_agent(&check).expect("the agent is asked");

    let why = "does not mean it: pod label app: \"puzzled\", expected \"";
    assert!(!outcome.success && outcome.said().contains(why), "{}", outcome.said());
}

#[test]
fn deleting_the_connection_cuts_the_open_session() {
    let Some((world, _turn)) = world::shared() else { return };
    world::grant(world, "cut").expect("it is granted");
    let pod = world::pod(world, "cut", "cut", Like::default()).expect("it runs");
    world::wait_for(&pod, &Answer::Works).expect("it is granted");
    let session = pod.open_session(HOST).expect("the session is open");

    world::revoke(world, "cut").expect("it is deleted");

    let (end, said) = session.end().expect("psql is waited for");
    assert!(end.is_some_and(|status| !status.success()), "the session ends with an error: {said}");
    assert_eq!(pod.query(HOST).expect("psql runs"), Answer::NotPermitted);
}
