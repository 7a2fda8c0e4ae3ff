//! Agents: what outlives them, what they may not do, and what must wait for them.

use enforcer_tests::{
    cluster::enforcer::NAMESPACE,
    lab::{query::Answer, wait},
};
use serde_json::{Value, json};

use crate::world::{self, HOST, Like};

#[test]
fn open_sessions_outlive_the_agents_pod_and_rights_hold_while_it_is_away() {
    let Some((world, _turn)) = world::alone() else { return };
    let granted = world::pod(world, "granted", "web", Like::default()).expect("it runs");
    let stranger = world::pod(world, "unknown", "stranger", Like::default()).expect("it runs");
    world::wait_for(&granted, &Answer::Works).expect("it is granted");
    let mut session = granted.open_session(HOST).expect("the session is open");
    let before = world.agent().expect("there is one");

    let held = world.hold_agent().expect("it ends, and no other starts");
    assert_eq!(granted.query(HOST).expect("psql runs"), Answer::Works);
    assert_eq!(stranger.query(HOST).expect("psql runs"), Answer::NotPermitted);
    assert!(session.is_open(), "the session goes on without an agent");
    held.release().expect("another starts");

    assert_ne!(world.agent().expect("there is one"), before);
    assert!(session.is_open(), "the session goes on with another agent");
    assert_eq!(granted.query(HOST).expect("psql runs"), Answer::Works);
}

#[test]
fn a_stolen_token_of_an_agent_changes_nothing_at_the_gateway() {
    let Some((world, _turn)) = world::alone() else { return };
    let pod = world::pod(world, "robbed", "web", Like::default()).expect("it runs");
    world::wait_for(&pod, &Answer::Works).expect("it is granted");
    let node = world.cluster.id().node();
    let spec = || world.get("tunnelnode", &node).expect("it is there")["spec"].clone();
    let honest = spec();
    let peers = || {
        let status = world.gateway(&["status", "-o", "json"]).expect("the gateway answers");
        let status: Value = serde_json::from_str(&status).expect("it answers JSON");
        let peers = status["peers"].as_array().expect("it has peers").clone();
        peers.into_iter().map(|peer| (peer["node"].clone(), peer["publicKey"].clone())).collect::<Vec<_>>()
    };
    let before = peers();
    let thief = world.kubectl_as("enforcer-agent").expect("it has a token");

    let stolen =
        json!({ "spec": { "publicKey": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAk=", "node": "another" } });
    let held = world.hold_agent().expect("nobody mends it");
    thief(&["patch", "tunnelnode", &node, "--type", "merge", "--patch", &stolen.to_string()])
        .expect("the server lets the token write it");
    assert_ne!(spec(), honest);
    let said = |object: &Value| {
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions
            .iter()
            .any(|condition| condition["type"] == "IdentityAccepted" && condition["status"] == "False")
    };
    wait::for_true("it is said", || world.get("tunnelnode", &node).is_ok_and(|object| said(&object)))
        .expect("a person can see it");
    assert_eq!(peers(), before);
    assert_eq!(pod.query(HOST).expect("psql runs"), Answer::Works);

    for what in [&["get", "secrets", "--namespace", NAMESPACE][..], &["delete", "tunnelnode", &node]] {
        let refused = format!("{:#}", thief(what).expect_err("it may not"));
        assert!(refused.contains("forbidden"), "{refused}");
    }
    held.release().expect("it starts");
    wait::for_true("the agent says who it is again", || spec() == honest).expect("it does");
}
