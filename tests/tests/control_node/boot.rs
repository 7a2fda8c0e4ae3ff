//! What an agent leaves for the next boot, when neither it nor the API server is there.

use std::{collections::BTreeSet, fs, path::Path};

use enforcer_tests::lab::{
    Lab,
    command::{finish, inside, run},
    network::{GATEWAY4, add_netns},
    wait,
};
use serde_json::Value;

use crate::host::{Host, plane};

const UNIT: &str = "/etc/systemd/system/enforcer-boot-guard.service";
const WANTED: &str = "/etc/systemd/system/multi-user.target.wants/enforcer-boot-guard.service";

fn gateway(guarded: &str) -> String {
    format!(
        "
apiVersion: enforcer.dev/v1alpha1
kind: TunnelGateway
metadata: {{name: eu-1}}
spec:
  publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=
  endpoints: [\"{GATEWAY4}:51820\"]
  allowedNamespaces: [shop]
  allowedBackends: [{{cidr: 203.0.113.0/24, ports: [{{port: 5432}}]}}]
  guardedCIDRs: [{guarded}]
"
    )
}

/// What the file says is guarded; nothing while it is not there.
fn kept(path: &Path) -> BTreeSet<String> {
    let value: Value =
        fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let nets = value["guarded"].as_array().cloned().unwrap_or_default();
    nets.iter().filter_map(|net| net.as_str().map(str::to_owned)).collect()
}

/// Runs the unit's command in the network of a machine that has just booted, and returns what leads nowhere there.
fn boot(lab: &Lab, unit: &str) -> BTreeSet<String> {
    let netns = lab.id.netns("booted");
    add_netns(&netns).expect("the namespace is made");
    let line =
        unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("the unit starts something");
    let mut words = line.split(' ');
    let mut command = inside(&netns, &lab.id.tools(), words.next().expect("a program"));
    finish(command.args(words)).expect("it succeeds");
    let mut found = BTreeSet::new();
    for family in ["-4", "-6"] {
        let text = run("ip", &[family, "-n", &netns, "route", "show", "type", "blackhole", "proto", "239"]);
        let text = text.expect("they are shown");
        let prefix = |line: &str| line.split(' ').find(|word| word.contains(['.', ':'])).map(str::to_owned);
        found.extend(text.lines().filter_map(prefix));
    }
    found
}

#[test]
fn a_node_that_boots_without_an_api_server_guards_what_its_agent_heard_last() {
    let (plane, _controller) = plane().expect("the control plane starts");
    let lab = Lab::new(&[]).expect("the lab comes up");
    let host = Host::start(&lab, &plane, true).expect("the host starts");
    let take = |guarded: &str| {
        let taken = || plane.kubectl_with(&["apply", "--filename", "-"], &gateway(guarded)).is_ok();
        wait::for_true("the gateway is taken", taken).expect("the gateway is taken");
    };
    take("203.0.114.0/24");
    let agent = host.agent(&["--boot-guard=true"]).expect("the agent starts");
    host.wait_for("BootGuard", "True BootGuard: ").expect("the node has a boot guard");
    let listed = |net: &str| kept(&host.guarded()).contains(net);
    wait::for_true("it is kept", || listed("203.0.114.0/24")).expect("it is kept");
    take("203.0.115.0/24");
    wait::for_true("what changes is kept", || listed("203.0.115.0/24")).expect("what changes is kept");
    let log = lab.log("agent");
    assert!(!log.contains("Invalid value"), "what it tells of its node is taken as it is: {log}");
    agent.kill().expect("the node crashes");
    // Nobody needs it any more: the boot has its own network, from which no server is reached.

    let guarded = kept(&host.guarded());
    assert!(!guarded.contains("203.0.114.0/24"), "{guarded:?}");
    // Services and workloads of both families, gateways of IPv6, what is listed.
    assert_eq!(guarded.len(), 6, "{guarded:?}");
    let unit = fs::read_to_string(host.path(UNIT)).expect("the host has the unit");
    assert_eq!(fs::read_to_string(host.path(WANTED)).expect("systemd starts it"), unit);
    assert_eq!(boot(&lab, &unit), guarded);
}

#[test]
fn a_boot_guard_comes_and_goes_with_its_agent_and_is_missed_where_there_is_no_systemd() {
    let (plane, _controller) = plane().expect("the control plane starts");
    let lab = Lab::new(&[]).expect("the lab comes up");
    let host = Host::start(&lab, &plane, false).expect("the host starts");
    let there = || [UNIT, WANTED].map(|path| host.path(path).exists());

    let agent = host.agent(&["--boot-guard=true"]).expect("the agent starts");
    let missed = "False NoSystemd: the host was not booted by systemd, there is no /run/systemd/system: what kubelet \
                  starts at a boot before the agent is not guarded";
    host.wait_for("BootGuard", missed).expect("it is said");
    host.wait_for("Guarded", "True Guarded: ").expect("the node is guarded all the same");
    assert_eq!(there(), [false, false]);
    agent.kill().expect("the agent is killed");

    fs::create_dir(host.path("/run/systemd/system")).expect("systemd is there");
    let agent = host.agent(&["--boot-guard=true"]).expect("the agent starts");
    host.wait_for("BootGuard", "True BootGuard: ").expect("it is there");
    assert_eq!(there(), [true, true]);
    agent.kill().expect("the agent is killed");

    let agent = host.agent(&["--boot-guard=false"]).expect("the agent starts");
    wait::for_true("what is not wanted goes", || there() == [false, false]).expect("it goes");
    assert!(host.guarded().exists(), "it is kept for whoever wants it later");
    agent.kill().expect("the agent is killed");

    let agent = host.agent(&["--boot-guard=true"]).expect("the agent starts");
    wait::for_true("it is there again", || there() == [true, true]).expect("it is there");
    agent.kill().expect("the agent is killed");
    let said = host.agent_once(&["--boot-guard=true", "--cleanup"]).expect("the node is cleaned up");
    assert_eq!(there(), [false, false], "{said}");
    let state = fs::read_dir(lab.id.dir.join("state")).expect("the folder is not ours");
    assert_eq!(state.count(), 0, "{said}");
}
