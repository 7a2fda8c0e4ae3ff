//! Nodes that are new, and nodes that boot again: what runs there before the agent does reaches nothing.

use std::{io::Write as _, path::Path};

use anyhow::{Context as _, Result};
use enforcer_tests::{
    cluster::{Cluster, pods::Pod, reboot::Disk},
    lab::{query::Answer, wait},
};
use serde_json::Value;

use crate::world::{self, HOST, Like};

const TAINT: &str = "enforcer.dev/not-ready";
const UNIT: &str = "/etc/systemd/system/enforcer-boot-guard.service";

/// Does what systemd would at this place of a boot.
fn run_boot_guard(cluster: &Cluster) -> Result<()> {
    let unit = cluster.on_node("cat", &[UNIT])?;
    let line =
        unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).context("the unit starts nothing")?;
    let words: Vec<&str> = line.split(' ').collect();
    cluster.on_node(words[0], &words[1..]).map(drop)
}

/// Waits until kubelet has started the pod's container again.
fn runs_again(pod: &Pod) {
    wait::for_true("the pod runs again", || {
        pod.get().is_ok_and(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1)
            && pod.exec(&["true"]).is_ok()
    })
    .expect("it does");
}

#[test]
fn a_node_that_boots_leaks_nothing_before_its_agent_runs() {
    if !Path::new("/etc/systemd").is_dir() {
        let required = std::env::var_os("ENFORCER_REQUIRE_ALL").is_some();
        assert!(
            !required,
            "this machine has no /etc/systemd, which the node of the lab would have of its own"
        );
        // Past the capture of the test harness.
        let _ = writeln!(std::io::stderr(), "SKIP: this machine has no /etc/systemd");
        return;
    }
    let Some((world, _turn)) = world::alone() else { return };
    let granted = world::pod(world, "booted", "web", Like::default()).expect("it runs");
    let stranger = world::pod(world, "booted-too", "stranger", Like::default()).expect("it runs");
    world::wait_for(&granted, &Answer::Works).expect("it is granted");
    let address = world.get("postgres", "pg").expect("it is there")["status"]["addresses"][0].clone();
    let address = address.as_str().expect("it has an address");
    let node = world.cluster.id().node();
    world.wait_for("tunnelnode", &node, "BootGuard", "True BootGuard: ").expect("the host has it");
    let held = world.hold_agent().expect("the node boots without one");

    let capture = world.cluster.lab.capture("boot").expect("tcpdump listens");
    world.cluster.reboot(Disk::Kept, "", run_boot_guard).expect("the node boots");
    for pod in [&granted, &stranger] {
        runs_again(pod);
        assert_eq!(pod.query(address).expect("psql runs"), Answer::Silence);
    }
    let guarded = |frame: &[u8]| frame.get(30..32) == Some(&[198, 18]);
    let leaked = capture.finish_foreign(guarded).expect("the capture is whole");
    assert_eq!(leaked, Vec::<String>::new());

    held.release().expect("it starts");
    world::wait_for(&granted, &Answer::Works).expect("it is granted again");
    assert_eq!(stranger.query(HOST).expect("psql runs"), Answer::NotPermitted);
}

#[test]
fn a_new_node_takes_no_ordinary_pod_before_its_agent_has_guarded_it() {
    let Some((world, _turn)) = world::alone() else { return };
    let (cluster, node) = (&world.cluster, world.cluster.id().node());
    let held = world.hold_agent().expect("the agent is the last that starts");
    let forget = |cluster: &Cluster| {
        cluster.kubectl(&["delete", "tunnelnode", &node])?;
        cluster.kubectl(&["delete", "node", &node]).map(drop)
    };
    cluster.reboot(Disk::New, &format!("{TAINT}=:NoSchedule"), forget).expect("a node of this name comes");
    let taints = || {
        let node = world.get("node", &node).unwrap_or_default();
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        taints.iter().map(|taint| taint["key"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    wait::for_true("the node is ready but for our taint", || taints() == [TAINT]).expect("it is");

    let spec = enforcer_tests::cluster::pods::machine(world::WAIT).expect("the lab is built");
    let pod = world::start(world, "early", "shop", "stranger", spec).expect("it is made");
    let waits = |pod: Value| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|condition| {
            condition["reason"] == "Unschedulable"
                && condition["message"].as_str().is_some_and(|message| message.contains(TAINT))
        })
    };
    wait::for_true("nobody takes the pod", || pod.get().is_ok_and(waits)).expect("it waits");
    assert_eq!(taints(), [TAINT]);
    held.release().expect("it starts");

    pod.wait("Running").expect("the node takes it now");
    assert_eq!(taints(), [""; 0]);
    assert_eq!(pod.query(HOST).expect("psql runs"), Answer::NotPermitted);
}
