//! Where senders run: pods and what stands beside them, with and without the connect hooks.

use enforcer_tests::lab::{
    Lab, Place,
    network::{GATEWAY4, GATEWAY6, add_netns, ip, sysctl},
    wait,
};

/// Somewhere that packets come from.
#[derive(Clone, Debug)]
pub struct Spot {
    pub title: &'static str,
    pub place: Place,
    /// The device that its sockets are bound to.
    pub device: Option<&'static str>,
}

impl Spot {
    pub fn pod(lab: &Lab, pod: &'static str) -> Self {
        Self { title: pod, place: lab.place(pod), device: None }
    }

    /// In the namespace of a pod, but outside of the cgroups that the connect hooks apply to.
    pub fn without_hooks(lab: &Lab, pod: &'static str) -> Self {
        let place = Place { cgroup: lab.id.tools(), ..lab.place(pod) };
        Self { title: "no connect hooks", place, device: None }
    }

    pub fn system(lab: &Lab) -> Self {
        Self { title: "node", place: lab.system(), device: None }
    }

    pub fn elsewhere(lab: &Lab, part: &'static str) -> Self {
        Self { title: part, place: lab.elsewhere(part), device: None }
    }
}

/// Adds the places that the shared lab does not have; they stay until it goes.
pub fn add_once(lab: &Lab) {
    static ADDED: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());
    let mut added = ADDED.lock().expect("no test fails here");
    if *added == lab.id.id {
        return;
    }
    // What a router may be told to do: follow source routes.
    let node = lab.id.netns("node");
    sysctl(
        &node,
        &[
            "net.ipv4.conf.all.accept_source_route=1",
            "net.ipv6.conf.all.accept_source_route=1",
            "net.ipv6.conf.all.seg6_enabled=1",
            "net.ipv6.conf.default.seg6_enabled=1",
        ],
    )
    .expect("the node follows source routes");
    for pod in lab.network.pods.iter().filter(|pod| !pod.host_network) {
        let setting = format!("net.ipv6.conf.pod{}.seg6_enabled=1", pod.number);
        sysctl(&node, &[&setting]).expect("the node follows source routes of pods");
    }
    add_forwarded(lab, "beside", 99);
    add_macvlan(lab);
    add_second_interface(lab);
    for device in ["beside0", "two0"] {
        wait_guarded(lab, device);
    }
    (*added).clone_from(&lab.id.id);
}

/// A namespace that nobody announced, with the node as its router.
pub fn add_forwarded(lab: &Lab, part: &str, number: u8) {
    let (node, netns) = (lab.id.netns("node"), lab.id.netns(part));
    add_netns(&netns).expect("the namespace is made");
    let lines = format!(
        "link add {part}0 type veth peer name eth0 netns {netns}
         addr add 10.{number}.0.1/24 dev {part}0
         addr add fd99:{number}::1/64 dev {part}0 nodad
         link set {part}0 up"
    );
    ip(&node, &lines).expect("the node's end is made");
    sysctl(&node, &[&format!("net.ipv6.conf.{part}0.seg6_enabled=1")]).expect("it follows source routes");
    let lines = format!(
        "addr add 10.{number}.0.2/24 dev eth0
         addr add fd99:{number}::2/64 dev eth0 nodad
         link set eth0 up
         route add default via 10.{number}.0.1
         -6 route add default via fd99:{number}::1"
    );
    ip(&netns, &lines).expect("the other end is made");
}

/// A pod that is on the underlay with an address of its own: its packets meet no hook but that of the node's uplink.
fn add_macvlan(lab: &Lab) {
    let netns = lab.id.netns("macvlan");
    add_netns(&netns).expect("the namespace is made");
    ip(
        &lab.id.netns("node"),
        &format!(
            "link add macvlan0 link eth0 type macvlan mode bridge\nlink set macvlan0 netns {netns} name eth0"
        ),
    )
    .expect("the macvlan is made");
    let lines = format!(
        "addr add 192.0.2.77/24 dev eth0
         addr add 2001:db8:1::77/64 dev eth0 nodad
         link set eth0 up
         route add default via {GATEWAY4}
         -6 route add default via {GATEWAY6}"
    );
    ip(&netns, &lines).expect("the macvlan has addresses");
}

/// A second interface of the pod `plain`, with routes of its own.
fn add_second_interface(lab: &Lab) {
    let (node, netns) = (lab.id.netns("node"), &lab.pod("plain").netns);
    let lines = format!(
        "link add two0 type veth peer name eth1 netns {netns}
         addr add 10.98.0.1/24 dev two0
         addr add fd99:98::1/64 dev two0 nodad
         link set two0 up"
    );
    ip(&node, &lines).expect("the node's end is made");
    let lines = "addr add 10.98.0.2/24 dev eth1
         addr add fd99:98::2/64 dev eth1 nodad
         link set eth1 up
         route add default via 10.98.0.1 dev eth1 metric 500
         -6 route add default via fd99:98::1 dev eth1 metric 5000
         route add 198.18.0.0/15 via 10.98.0.1 dev eth1
         -6 route add fc00::/7 via fd99:98::1 dev eth1";
    ip(netns, lines).expect("the other end is made");
}

/// Waits until the agent has attached its programs to a device of the node.
pub fn wait_guarded(lab: &Lab, device: &str) {
    // The pin of a filter has one part more than that of a link.
    let pins = [("links", format!("@{device}")), ("filters", format!("@{device}@"))];
    wait::for_true("the new device is guarded", || {
        let names: Vec<String> = pins
            .iter()
            .filter_map(|(folder, end)| {
                Some((std::fs::read_dir(lab.id.bpffs().join("node").join(folder)).ok()?, end))
            })
            .flat_map(|(entries, end)| entries.map(move |entry| (entry, end)))
            .filter_map(|(entry, end)| Some((entry.ok()?.file_name().to_string_lossy().into_owned(), end)))
            .filter_map(|(name, end)| name.ends_with(end.as_str()).then_some(name))
            .collect();
        ["to_wire@", "from_wire@"].iter().all(|program| names.iter().any(|name| name.starts_with(program)))
    })
    .unwrap_or_else(|err| panic!("{device}: {err:#}"));
}
