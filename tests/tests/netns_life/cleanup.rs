//! A node that is left: nothing of ours is there any more, and everything of others is.

use std::{collections::BTreeSet, fs, path::Path};

use enforcer_tests::lab::{
    Lab, Pod, Role,
    command::{finish, inside, run},
    network::host_end,
    roles::enforcer,
    wait,
};

/// Everything of a node that enforcer could have changed.
#[derive(Debug, Eq, PartialEq)]
struct Node {
    devices: BTreeSet<String>,
    routes: BTreeSet<String>,
    addresses: BTreeSet<String>,
    /// Of the pod's device.
    filters: BTreeSet<String>,
    /// Programs in the kernel by the names that ours have.
    programs: BTreeSet<String>,
}

fn lines(program: &str, args: &str) -> BTreeSet<String> {
    let args: Vec<&str> = args.split(' ').collect();
    let text = run(program, &args).expect("it is shown");
    text.lines().map(|line| line.trim().to_owned()).collect()
}

fn seen(lab: &Lab, pod: &Pod) -> Node {
    let node = lab.id.netns("node");
    let name = |line: &String| line.split([' ', '@']).next().unwrap_or_default().to_owned();
    let filter =
        |direction: &str| lines("tc", &format!("-n {node} filter show dev {} {direction}", host_end(pod)));
    let mut routes = lines("ip", &format!("-4 -n {node} route show"));
    routes.extend(lines("ip", &format!("-6 -n {node} route show")));
    Node {
        devices: lines("ip", &format!("-n {node} -brief link")).iter().map(name).collect(),
        routes,
        addresses: lines("ip", &format!("-n {node} -brief address")),
        filters: filter("ingress").into_iter().chain(filter("egress")).collect(),
        programs: attached(lab, pod),
    }
}

/// What `ip` says of programs on the pod's device, and what is pinned.
fn attached(lab: &Lab, pod: &Pod) -> BTreeSet<String> {
    let bpffs = lab.id.bpffs().join("node");
    let mut found = BTreeSet::new();
    for folder in ["links", "filters", "maps", "progs"] {
        let entries = fs::read_dir(bpffs.join(folder)).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| entry.path().display().to_string()));
    }
    let device = host_end(pod);
    let netns = Path::new("/run/netns").join(lab.id.netns("node"));
    for (name, attach_type) in
        [("ingress", aya::programs::TcAttachType::Ingress), ("egress", aya::programs::TcAttachType::Egress)]
    {
        let device = device.clone();
        let query = move || {
            aya::programs::SchedClassifier::query_tcx(&device, attach_type).map(|found| found.1.len())
        };
        let count = enforcer::netns::run_in(&netns, query).expect("the namespace is there");
        // A kernel without tcx has none.
        found.extend((0..count.unwrap_or(0)).map(|number| format!("tcx {name} {number}")));
    }
    found
}

fn cleanup(lab: &Lab) -> anyhow::Result<String> {
    let node = lab.id.netns("node");
    let mut command = inside(&node, &lab.id.tools(), &enforcer().expect("it was built").to_string_lossy());
    command.args(["agent", "--cleanup", "--node", &lab.id.node(), "--tunnel-netns"]);
    command.arg(format!("/run/netns/{}", lab.tunnel_netns()));
    command.arg("--run-dir").arg(lab.run_dir(Role::Agent));
    command.arg("--bpffs").arg(lab.id.bpffs().join("node"));
    command.arg("--key").arg(lab.id.dir.join("node.key"));
    finish(&mut command)
}

/// A node with a stranger's route, and a stranger's filter where ours will be.
fn with_strangers() -> (Lab, Pod) {
    let lab = Lab::new(&[Pod::new("shop", "web", &[("app", "cart")])]).expect("the lab comes up");
    let (pod, node) = (lab.pod("web").clone(), lab.id.netns("node"));
    let device = host_end(&pod);
    let filter = format!("-n {node} filter add dev {device} ingress pref 7 bpf bytecode");
    for (program, args, last) in [
        ("ip", format!("-n {node} route add blackhole 203.0.113.0/24 proto"), "200"),
        ("tc", format!("-n {node} qdisc add dev {device}"), "clsact"),
        ("tc", filter, "1,6 0 0 0,"),
    ] {
        let args: Vec<&str> = args.split(' ').chain([last]).collect();
        run(program, &args).expect("a stranger comes first");
    }
    (lab, pod)
}

/// An agent that has set everything up, the tunnel too.
fn guard(lab: &mut Lab, pod: &Pod) {
    lab.save_tunnel_ends("").expect("the objects are saved");
    lab.save_pod(pod).expect("the pod is saved");
    for role in [Role::Controller, Role::Agent, Role::NodeTunnel] {
        lab.start(role).expect("the role starts");
    }
    let guarded = |lab: &Lab| {
        let status = lab.status(Role::Agent).ok()?;
        let conditions = status["conditions"].as_array()?;
        let is = |kind: &str| {
            conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
        };
        (is("Guarded") && is("Programmed")).then_some(())
    };
    wait::until("the node is guarded", || guarded(lab)).expect("the node is guarded");
    wait::for_true("the tunnel device is made", || {
        let links = lines("ip", &format!("-n {} -brief link", lab.tunnel_netns()));
        links.iter().any(|line| line.starts_with("ef-"))
    })
    .expect("the tunnel device is made");
}

#[test]
fn a_node_that_is_left_is_as_it_was_and_what_others_have_there_stays() {
    let (mut lab, pod) = with_strangers();
    let before = seen(&lab, &pod);
    assert!(before.filters.iter().any(|filter| filter.contains("pref 7 bpf")), "{before:?}");
    guard(&mut lab, &pod);
    let during = seen(&lab, &pod);
    assert!(during.devices.contains("enforcer0"), "{during:?}");
    assert!(!during.programs.is_empty() && during.routes != before.routes, "{during:?}");

    let refused = cleanup(&lab).expect_err("an agent runs").to_string();
    assert!(refused.contains("another agent runs"), "{refused}");
    lab.kill(Role::Agent).expect("the agent is killed");
    let said = cleanup(&lab).expect("it is cleaned up");
    assert!(said.contains("program from_pod of device"), "{said}");

    assert_eq!(seen(&lab, &pod), before, "{said}");
    let tunnel_netns = Path::new("/run/netns").join(lab.tunnel_netns());
    let ours =
        [tunnel_netns, lab.run_dir(Role::Agent), lab.id.dir.join("node.key"), lab.id.bpffs().join("node")];
    // The tunnel in user space still runs.
    let left: Vec<_> = ours.iter().filter(|path| path.exists()).collect();
    assert!(left.is_empty(), "{left:?}: {said}");
    let again = cleanup(&lab).expect("there is nothing to do");
    assert!(!again.contains("program") && !again.contains("device"), "{again}");
    assert_eq!(seen(&lab, &pod), before, "{again}");
}
