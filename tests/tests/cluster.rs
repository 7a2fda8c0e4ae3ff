//! A real cluster: `cargo xtask test cluster` starts one, with the image of enforcer in it, and names it to these tests.

use std::{io::Write as _, path::Path};

use enforcer_tests::{
    cluster::{Cluster, PAUSE},
    lab::wait,
};
use serde_json::{Value, json};

/// As `cargo xtask image` calls it.
const IMAGE: &str = "enforcer.dev/enforcer:dev";

/// The cluster that the environment names; none where these tests were started without.
fn cluster() -> Option<Cluster> {
    let Ok(name) = std::env::var("ENFORCER_CLUSTER") else {
        let required = std::env::var_os("ENFORCER_REQUIRE_ALL").is_some();
        assert!(!required, "ENFORCER_CLUSTER names no cluster: run `cargo xtask test cluster`");
        // Past the capture of the test harness.
        let _ = writeln!(std::io::stderr(), "SKIP: ENFORCER_CLUSTER names no cluster");
        return None;
    };
    Some(Cluster::find(&name).expect("its folder can be read").expect("the cluster is up"))
}

/// A pod, gone when this is.
struct Pod<'a> {
    cluster: &'a Cluster,
    name: &'a str,
}

impl<'a> Pod<'a> {
    fn start(cluster: &'a Cluster, name: &'a str, mut spec: Value) -> Self {
        spec["terminationGracePeriodSeconds"] = json!(0);
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        cluster.kubectl_with(&["apply", "--filename", "-"], &pod.to_string()).expect("the pod is made");
        Self { cluster, name }
    }

    /// What the API server says about it.
    fn get(&self) -> Value {
        let text = self.cluster.kubectl(&["get", "pod", self.name, "--output", "json"]);
        serde_json::from_str(&text.expect("the pod is there")).expect("kubectl prints JSON")
    }

    /// Waits for the phase and returns the status.
    fn wait(&self, phase: &str) -> Value {
        let mut last = Value::Null;
        let reached = wait::until(&format!("{} is {phase}", self.name), || {
            last = self.get()["status"].clone();
            (last["phase"] == phase).then_some(())
        });
        reached.unwrap_or_else(|err| panic!("{err}: {last}"));
        last
    }

    fn exec(&self, command: &[&str]) -> Result<String, String> {
        let args: Vec<&str> = ["exec", self.name, "--"].into_iter().chain(command.iter().copied()).collect();
        self.cluster.kubectl(&args).map_err(|err| err.to_string())
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        if let Err(err) = self.cluster.kubectl(&["delete", "pod", self.name, "--wait=false"]) {
            eprintln!("{} stays: {err:#}", self.name);
        }
    }
}

/// A container that sleeps.
fn sleeper() -> Value {
    json!({"name": "main", "image": PAUSE, "imagePullPolicy": "Never", "command": ["sleep", "1000000"]})
}

#[test]
fn pods_are_joined_to_the_node_and_reach_the_api_server() {
    let Some(cluster) = cluster() else { return };
    let pod = Pod::start(&cluster, "joined", json!({"containers": [sleeper()]}));

    let status = pod.wait("Running");

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
    let pod = Pod::start(&cluster, "grouped", json!({"containers": [sleeper()], "hostNetwork": true}));

    let status = pod.wait("Running");

    let uid = pod.get()["metadata"]["uid"].as_str().expect("it has a uid").to_owned();
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
    let container = |command: Value| {
        json!({
            "restartPolicy": "Never",
            "containers": [{
                "name": "main", "image": IMAGE, "imagePullPolicy": "Never", "args": ["--version"], "command": command,
            }],
        })
    };
    let version = Pod::start(&cluster, "version", container(Value::Null));
    let shell = Pod::start(&cluster, "shell", container(json!(["/bin/sh"])));

    version.wait("Succeeded");
    let refused = shell.wait("Failed");

    let printed = cluster.kubectl(&["logs", "version"]).expect("it has printed something");
    assert_eq!(printed.trim(), format!("enforcer {}", env!("CARGO_PKG_VERSION")));
    let refused = refused["containerStatuses"][0]["state"]["terminated"]["message"].to_string();
    assert!(refused.contains("no such file or directory"), "{refused}");
}

#[test]
fn what_the_node_writes_the_machine_does_not_see() {
    let Some(cluster) = cluster() else { return };
    let mut spec = json!({"containers": [sleeper()]});
    spec["containers"][0]["command"] = json!(["sh", "-c", "echo here >/host/enforcer-cluster-test"]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "host", "mountPath": "/host"}]);
    spec["volumes"] = json!([{"name": "host", "hostPath": {"path": "/var/lib"}}]);
    spec["restartPolicy"] = json!("Never");
    let pod = Pod::start(&cluster, "writer", spec);

    pod.wait("Succeeded");

    let path = Path::new("/var/lib/enforcer-cluster-test");
    assert!(!path.exists());
    let node = cluster.on_node("cat", &[&path.to_string_lossy()]).expect("the node has the file");
    assert_eq!(node, "here\n");
}
