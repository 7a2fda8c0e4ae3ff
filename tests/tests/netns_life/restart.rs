//! What an agent finds that was away while things changed.

use std::fs;

use enforcer_tests::lab::{
    Lab, Pod, Role,
    network::{Network, host_end, ip},
    query::Family,
    wait,
};

use crate::{
    held::{self, Held, TCP_PORT, soon},
    maps,
    shared::{Turn, lab},
};

/// A port that the destination moves to.
const MOVED_PORT: u16 = 7710;

fn with_label(lab: &Lab, pod: &str, app: &str) -> Pod {
    Pod { labels: vec![("app".into(), app.into())], ..lab.pod(pod).clone() }
}

/// The lab with pods that the others do not have, and three destinations that are one server.
fn ready() -> Turn {
    let mut lab = lab();
    held::serve(&mut lab);
    let id = lab.id.clone();
    for (name, app) in [("leaver", "cart"), ("swapped", "cart"), ("gone", "cart")] {
        lab.network.add_pod(&id, Pod::new("shop", name, &[("app", app)])).expect("the pod is joined");
        lab.save_pod(lab.pod(name)).expect("the pod is saved");
    }
    let gateway = lab.id.gateway();
    held::destination(&lab, "moved", &[&gateway], TCP_PORT);
    held::destination(&lab, "lost", &[&gateway], TCP_PORT);
    held::connection(&lab, "moved", "moved", "{matchLabels: {app: cart}}");
    held::connection(&lab, "removed", "lost", "{matchLabels: {app: cart}}");
    held::connection(&lab, "changed", "lost", "{matchLabels: {app: plain}}");
    lab
}

/// Its pod object and namespace go, and another pod gets its addresses.
fn reuse_addresses(lab: &mut Lab, old: &str, new: &str) {
    let old = lab.pod(old).clone();
    lab.delete(&format!("pod-{}.yaml", old.name)).expect("the pod is removed");
    ip(&lab.id.netns("node"), &format!("link delete {}", host_end(&old))).expect("its device goes");
    enforcer_tests::lab::command::run("ip", &["netns", "delete", &old.netns]).expect("its namespace goes");
    lab.network.pods.retain(|pod| pod.name != old.name);
    // One that is not granted anything: the number of the last pod is the next one's again.
    let Network { pods } = &lab.network;
    assert!(pods.iter().all(|pod| pod.number < old.number), "the youngest pod is the one that goes");
    let id = lab.id.clone();
    lab.network.add_pod(&id, Pod::new("shop", new, &[("app", "audit")])).expect("the pod is joined");
    assert_eq!(lab.pod(new).addresses(), old.addresses());
    lab.save_pod(lab.pod(new)).expect("the pod is saved");
}

/// The node's end of a pod's veth is made anew, with another index.
fn replace_device(lab: &Lab, pod: &str) {
    let pod = lab.pod(pod);
    let (node, device, [v4, v6]) = (lab.id.netns("node"), host_end(pod), pod.addresses());
    let lines = format!(
        "link delete {device}
         link add {device} type veth peer name eth0 netns {netns}
         addr add 169.254.1.1/32 dev {device}
         addr add fe80::1/64 dev {device} nodad
         link set {device} up",
        netns = pod.netns
    );
    ip(&node, &lines).expect("the node's end is made anew");
    let lines = format!(
        "addr add {v4}/32 dev eth0
         addr add {v6}/128 dev eth0 nodad
         addr add fe80::2/64 dev eth0 nodad
         link set eth0 up
         route add 169.254.1.1 dev eth0
         route add default via 169.254.1.1 dev eth0
         -6 route add default via fe80::1 dev eth0"
    );
    ip(&pod.netns, &lines).expect("the pod's end is made anew");
    ip(&node, &format!("route add {v4}/32 dev {device}\n-6 route add {v6}/128 via fe80::2 dev {device}"))
        .expect("the node knows the way");
}

/// Nothing is in the kernel of an earlier agent; the ledger stays, or no number would be the same.
fn forget_kernel(lab: &Lab) {
    for part in ["links", "progs", "maps"] {
        fs::remove_dir_all(lab.id.bpffs().join("node").join(part)).expect("the pins are removed");
    }
}

#[test]
fn a_restart_after_changes_is_as_good_as_a_fresh_start_and_disturbs_nobody_who_may() {
    let mut lab = ready();
    let service = |lab: &Lab, name| held::address_of(lab, name, Family::V4, TCP_PORT);
    let (held, moved, lost) = (service(&lab, "held"), service(&lab, "moved"), service(&lab, "lost"));
    let open = |lab: &Lab, pod: &str, to, mode: &str| {
        Held::open(lab, &lab.place(pod), to, mode, &format!("away-{pod}-{mode}-{to}"))
    };
    let mut kept = [("cart", "idle"), ("cart", "stream"), ("hostnet", "poke")]
        .map(|(pod, mode)| open(&lab, pod, held, mode));
    let mut over = [("leaver", held), ("cart", moved), ("hostnet", moved), ("cart", lost)]
        .map(|(pod, to)| open(&lab, pod, to, "idle"));

    lab.kill(Role::Agent).expect("the agent is killed");
    lab.save_pod(&with_label(&lab, "leaver", "nobody")).expect("the pod is saved");
    lab.save_pod(&with_label(&lab, "audit", "cart")).expect("the pod is saved");
    replace_device(&lab, "swapped");
    reuse_addresses(&mut lab, "gone", "newcomer");
    held::destination(&lab, "moved", &[&lab.id.gateway()], MOVED_PORT);
    lab.delete("connection-removed.yaml").expect("the connection is removed");
    held::connection(&lab, "changed", "lost", "{matchExpressions: [{key: app, operator: Exists}]}");
    lab.delete("connection-changed.yaml").expect("the connection is removed");
    held::connection(&lab, "added", "held", "{matchLabels: {app: audit}}");
    // Nobody has noticed anything yet.
    for held in kept.iter_mut().chain(&mut over) {
        assert!(held.is_open(), "{}: {}", held.tag, lab.log(&held.tag));
    }
    lab.start(Role::Agent).expect("the agent starts");
    // The verifier takes its time before there is an agent to end anything.
    wait::for_true("the agent answers", || lab.status(Role::Agent).is_ok()).expect("it is there");
    for held in &mut over {
        let end = soon(|| held.end(&lab));
        assert!(
            matches!(end.as_deref(), Some("ConnectionReset" | "ConnectionAborted")),
            "{}: {end:?}",
            held.tag
        );
    }
    settle(&mut lab);
    let restarted = maps::tables(&lab);
    for held in &mut kept {
        assert!(held.is_open(), "{}: {}", held.tag, lab.log(&held.tag));
    }
    drop(open(&lab, "swapped", held, "idle"));
    drop(open(&lab, "newcomer", held, "idle"));
    drop(open(&lab, "cart", (moved.ip(), MOVED_PORT).into(), "idle"));

    lab.kill(Role::Agent).expect("the agent is killed");
    forget_kernel(&lab);
    lab.start(Role::Agent).expect("the agent starts");
    settle(&mut lab);
    let fresh = maps::tables(&lab);
    for (map, entries) in &fresh {
        assert_eq!(&restarted[map], entries, "{map} after the restart, and of a fresh agent");
    }
    end(&mut lab);
}

/// Until every grant that there is to be is live.
fn settle(lab: &mut Lab) {
    wait::for_true("every grant is live", || {
        let Ok(status) = lab.status(Role::Agent) else { return false };
        let good = |line: &serde_json::Value| line["status"] == "True";
        let conditions = status["conditions"].as_array().is_some_and(|all| all.iter().all(good));
        let pods = status["pods"].as_array().cloned().unwrap_or_default();
        conditions
            && pods.len() == lab.network.pods.len()
            && pods.iter().all(|pod| pod["grants"] == pod["live"])
    })
    .unwrap_or_else(|err| panic!("{err:#}: {:?}", lab.status(Role::Agent)));
}

/// Takes away what only this test has.
fn end(lab: &mut Lab) {
    for pod in ["leaver", "newcomer", "swapped"] {
        lab.delete(&format!("pod-{pod}.yaml")).expect("the pod is removed");
        let pod = lab.pod(pod).clone();
        ip(&lab.id.netns("node"), &format!("link delete {}", host_end(&pod))).expect("its device goes");
        enforcer_tests::lab::command::run("ip", &["netns", "delete", &pod.netns])
            .expect("its namespace goes");
        lab.network.pods.retain(|other| other.name != pod.name);
    }
    for file in ["connection-added.yaml", "connection-moved.yaml", "moved.yaml", "lost.yaml"] {
        lab.delete(file).expect("the object is removed");
    }
    lab.save_pod(lab.pod("audit")).expect("the pod is saved");
    let granted = |pod: &serde_json::Value| pod["pod"] == "shop/audit" && pod["grants"] != 0;
    wait::for_true("the label is back", || {
        let status = lab.status(Role::Agent).unwrap_or_default();
        status["pods"].as_array().is_some_and(|pods| !pods.iter().any(granted))
    })
    .expect("the label is taken over");
}

/// Starts the agent and returns what it says when it ends at once.
fn refusal(lab: &mut Lab) -> String {
    let _ = fs::remove_file(lab.id.log(Role::Agent.name()));
    lab.start(Role::Agent).expect("the agent starts");
    let mut agent = lab.processes.remove(Role::Agent.name()).expect("it was started");
    let status = wait::until("the agent ends", || agent.ended()).expect("it does not run");
    let said = lab.log(Role::Agent.name());
    assert_eq!(status.code(), Some(1), "{said}");
    said.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn maps_of_another_layout_are_refused_and_go_on_to_guard() {
    let mut lab = lab();
    held::serve(&mut lab);
    let service = held::address(&lab, Family::V4, TCP_PORT);
    let mut session = Held::open(&lab, &lab.place("cart"), service, "poke", "layout");
    lab.kill(Role::Agent).expect("the agent is killed");
    let bpffs = lab.id.bpffs().join("node");

    let version = maps::set_layout(&lab, 999);
    let said = refusal(&mut lab);
    let expected = format!("enforcer: pinned maps in {} have layout version 999", bpffs.display());
    assert!(said.starts_with(&expected), "{said}");
    maps::set_layout(&lab, version);

    let (pin, aside) = (bpffs.join("maps/GRANTS"), bpffs.join("aside"));
    fs::rename(&pin, &aside).expect("the pin is moved");
    maps::pin_other_shape(&lab, "GRANTS");
    let said = refusal(&mut lab);
    let expected = format!("enforcer: pinned map GRANTS in {} is a array of 7 entries", bpffs.display());
    assert!(said.starts_with(&expected), "{said}");
    fs::remove_file(&pin).expect("the pin is removed");
    fs::rename(&aside, &pin).expect("the pin is moved back");

    assert!(session.is_open(), "what was there goes on: {}", lab.log("layout"));
    let denied = Held::is_refused(&lab.place("plain"), service);
    assert!(denied, "and who may not still may not");
    lab.start(Role::Agent).expect("the agent starts");
    lab.wait_ready().expect("it is ready again");
    assert!(session.is_open(), "{}", lab.log("layout"));
}
