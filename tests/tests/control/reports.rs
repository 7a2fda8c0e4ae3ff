//! What nodes report, and what the controller makes of it.

use enforcer_tests::lab::wait;
use serde_json::{Value, json};

use crate::world::World;

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  nodeName: n1
  automountServiceAccountToken: false
  containers: [{name: c, image: none}]
";

/// Writes what the agent of n1 would.
fn report(world: &World, report: &Value) {
    let change = json!({ "report": report }).to_string();
    let args = ["patch", "tunnelnode", "n1", "--type", "merge", "--patch", &change];
    world.plane.kubectl(&args).expect("the report is written");
}

fn guarded(boot: &str) -> Value {
    json!({ "bootID": boot, "conditions": [{ "type": "Guarded", "status": "True", "reason": "Guarded" }] })
}

#[test]
fn a_connection_is_ready_when_all_nodes_with_its_pods_have_it_and_a_gateway_has_answered() {
    let (world, _controller) = World::with_objects().expect("the world starts");
    world.wait_for("serviceconnection", "web", "Ready", "True Ready: ").expect("nobody is waited for");
    world.apply(POD).expect("the pod is made");
    let waiting = "False WaitingForNodes: nodes report 0 of 1 pods";
    world.wait_for("serviceconnection", "web", "Programmed", waiting).expect("the node is waited for");

    let connection = |live: u32| {
        let mut report = guarded("boot-1");
        report["connections"] = json!([{ "name": "shop/web", "generation": 1, "pods": 1, "live": live }]);
        report
    };
    report(&world, &connection(0));
    world.wait_for("serviceconnection", "web", "Programmed", "True Programmed: ").expect("the node has it");
    let waiting = "False WaitingForGateway: 0 of 1 pods have a gateway's answer";
    world.wait_for("serviceconnection", "web", "Ready", waiting).expect("the gateway is waited for");
    report(&world, &connection(1));
    world.wait_for("serviceconnection", "web", "Ready", "True Ready: ").expect("it is ready");

    let status = world.get("serviceconnection", "web").expect("it is there")["status"].clone();
    assert_eq!((&status["matchedPods"], &status["activePods"]), (&json!(1), &json!(1)));
    assert_eq!(status["nodes"], json!(["n1"]));
    assert_eq!(status["destinationDNS"], "postgres-pg.shop.svc.cluster.local");
}

#[test]
fn another_key_cluster_or_node_is_said_and_not_taken() {
    let (world, _controller) = World::with_objects().expect("the world starts");
    world.wait_for("tunnelnode", "n1", "Ready", "True Ready: ").expect("it is ready");
    let key = || world.get("tunnelnode", "n1").expect("it is there")["status"]["publicKey"].clone();
    let (first, stolen) = (key(), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAk=");
    let write = |spec: Value| {
        let change = json!({ "spec": spec }).to_string();
        let args = ["patch", "tunnelnode", "n1", "--type", "merge", "--patch", &change];
        world.plane.kubectl(&args).expect("whoever has the token may write it");
    };
    write(json!({ "publicKey": stolen }));
    let said = |differences: &str| {
        let end = "to accept what it asks for, delete the TunnelNode";
        let said = format!("False IdentityChanged: {differences}: {end}");
        world.wait_for("tunnelnode", "n1", "IdentityAccepted", &said).expect("it is said");
    };
    let first_key = first.as_str().expect("a key is a text").to_owned();
    said(&format!("spec.publicKey is \"{stolen}\", \"{first_key}\" is in force"));
    write(json!({ "publicKey": first_key, "cluster": "green", "node": "n2" }));
    said("spec.cluster is \"green\", \"blue\" is in force, spec.node is \"n2\", \"n1\" is in force");
    let status = world.get("tunnelnode", "n1").expect("it is there")["status"].clone();
    assert_eq!(
        (&status["publicKey"], &status["cluster"], &status["node"]),
        (&first, &json!("blue"), &json!("n1"))
    );

    world.plane.kubectl(&["delete", "tunnelnode", "n1"]).expect("an administrator deletes it");
    let new = crate::world::OBJECTS.split("---").nth(2).expect("the node").to_owned();
    world.apply(&new.replace("AAAAI=", "AAAAk=")).expect("the agent makes it again");
    world.wait_for("tunnelnode", "n1", "Ready", "True Ready: ").expect("it is ready");
    assert_eq!(key(), stolen);
    assert_eq!(world.condition("tunnelnode", "n1", "IdentityAccepted"), "");
}

#[test]
fn a_node_loses_its_taint_when_it_is_guarded_since_it_booted() {
    let (world, _controller) = World::with_objects().expect("the world starts");
    world
        .apply(
            "
apiVersion: v1
kind: Node
metadata: {name: n1}
spec:
  taints: [{key: enforcer.dev/not-ready, effect: NoSchedule}, {key: other, effect: NoSchedule}]
",
        )
        .expect("the node registers");
    let mut node: Value = world.get("node", "n1").expect("it is there");
    node["status"]["nodeInfo"]["bootID"] = json!("boot-2");
    for field in ["machineID", "systemUUID", "kernelVersion", "osImage", "containerRuntimeVersion"] {
        node["status"]["nodeInfo"][field] = json!("x");
    }
    let args = ["replace", "--raw", "/api/v1/nodes/n1/status", "--filename", "-"];
    world.plane.kubectl_with(&args, &node.to_string()).expect("kubelet says which boot it is");
    let taints = || {
        let node = world.get("node", "n1").expect("it is there");
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let keys = taints.iter().map(|taint| taint["key"].as_str().unwrap_or_default().to_owned());
        keys.filter(|key| !key.starts_with("node.kubernetes.io/")).collect::<Vec<_>>()
    };
    report(&world, &guarded("boot-1"));
    world.wait_for("tunnelnode", "n1", "Guarded", "True Guarded: ").expect("the report has arrived");
    assert_eq!(taints(), ["enforcer.dev/not-ready", "other"], "guarded before it booted is not guarded");
    report(&world, &guarded("boot-2"));
    wait::for_true("the taint goes", || taints() == ["other"]).expect("it goes");
}
