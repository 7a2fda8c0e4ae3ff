//! A real cluster: `cargo xtask test cluster` starts one, with the image of enforcer in it, and names it to these tests.

use std::path::Path;

use enforcer_tests::{
    cluster::{
        Cluster,
        pods::{Pod, busybox, machine},
    },
    lab::wait,
};
use serde_json::{Value, json};

/// As `cargo xtask image` calls it.
const IMAGE: &str = "enforcer.dev/enforcer:dev";

fn cluster() -> Option<Cluster> {
    Cluster::of_tests().expect("the cluster is up")
}

const SLEEP: &[&str] = &["sleep", "1000000"];

#[test]
fn pods_are_joined_to_the_node_and_reach_the_api_server() {
    let Some(cluster) = cluster() else { return };
    let pod = Pod::start(&cluster, &json!({"name": "joined"}), busybox(SLEEP)).expect("it is made");

    let status = pod.wait("Running").expect("it runs");

    let own = pod.exec(&["ip", "addr", "show", "eth0"]).expect("it has a device");
    for (index, prefix) in ["10.244.0.", "fd00:10:244::"].into_iter().enumerate() {
        let address = status["podIPs"][index]["ip"].as_str().expect("it has an address of each family");
        assert!(address.starts_with(prefix) && own.contains(&format!(" {address}/")), "{address}: {own}");
    }
    assert_eq!(status["hostIP"], "192.0.2.11");
    let port = "nc -w 10 \"$KUBERNETES_SERVICE_HOST\" \"$KUBERNETES_SERVICE_PORT\" </dev/null";
    wait::for_true("the API server's Service leads to it", || pod.exec(&["sh", "-c", port]).is_ok())
        .expect("it is reached");
}

#[test]
fn every_container_has_a_cgroup_of_its_own_below_that_of_the_node() {
    let Some(cluster) = cluster() else { return };
    let mut spec = busybox(SLEEP);
    spec["hostNetwork"] = json!(true);
    let pod = Pod::start(&cluster, &json!({"name": "grouped"}), spec).expect("it is made");

    let status = pod.wait("Running").expect("it runs");

    let uid = pod.get().expect("it is there")["metadata"]["uid"].as_str().expect("it has a uid").to_owned();
    let container = status["containerStatuses"][0]["containerID"].as_str().expect("it has a container");
    let container = container.trim_start_matches("containerd://");
    let cgroup = format!("kubepods/besteffort/pod{uid}/{container}");
    let processes = cluster.id().kube().join(cgroup).join("cgroup.procs");
    let processes = std::fs::read_to_string(&processes).unwrap_or_else(|err| panic!("{processes:?}: {err}"));
    assert_eq!(processes.lines().count(), 1, "{processes}");
    assert_eq!(status["podIPs"], json!([{"ip": "192.0.2.11"}, {"ip": "2001:db8:1::11"}]));
}

#[test]
fn the_image_is_the_binary_and_nothing_else() {
    let Some(cluster) = cluster() else { return };
    let start = |name: &str, command: Value| {
        let spec = json!({
            "restartPolicy": "Never",
            "containers": [{
                "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "args": ["--version"], "command": command,
            }],
        });
        Pod::start(&cluster, &json!({"name": name}), spec).expect("it is made")
    };
    let version = start("version", Value::Null);
    let shell = start("shell", json!(["/bin/sh"]));

    version.wait("Succeeded").expect("it ends");
    let refused = shell.wait("Failed").expect("it does not start");

    let printed = version.logs().expect("it has printed something");
    assert_eq!(printed.trim(), format!("enforcer {}", env!("CARGO_PKG_VERSION")));
    let refused = refused["containerStatuses"][0]["state"]["terminated"]["message"].to_string();
    assert!(refused.contains("no such file or directory"), "{refused}");
}

#[test]
fn what_the_node_writes_the_machine_does_not_see() {
    let Some(cluster) = cluster() else { return };
    let mut spec = busybox(&["sh", "-c", "echo here >/host/enforcer-cluster-test"]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "host", "mountPath": "/host"}]);
    spec["volumes"] = json!([{"name": "host", "hostPath": {"path": "/var/lib"}}]);
    spec["restartPolicy"] = json!("Never");
    let pod = Pod::start(&cluster, &json!({"name": "writer"}), spec).expect("it is made");

    pod.wait("Succeeded").expect("it ends");

    let path = Path::new("/var/lib/enforcer-cluster-test");
    assert!(!path.exists());
    let node = cluster.on_node("cat", &[&path.to_string_lossy()]).expect("the node has the file");
    assert_eq!(node, "here\n");
}

#[test]
fn pods_can_have_the_programs_of_this_machine() {
    let Some(cluster) = cluster() else { return };
    let spec = machine(SLEEP).expect("the lab is built");
    let pod = Pod::start(&cluster, &json!({"name": "machine"}), spec).expect("it is made");
    pod.wait("Running").expect("it runs");

    let client = pod.exec(&["redis-cli", "--version"]).expect("it has the clients of Debian");
    let nobody = pod.exec(&["enforcer-lab", "tcp-connect", "127.0.0.1:1"]);

    assert!(client.starts_with("redis-cli "), "{client}");
    let said = format!("{nobody:?}");
    assert!(said.contains("refused"), "{said}");
}
