//! What `enforcer uninstall` leaves of an install that was in use: nothing, on the server and on the node.

use enforcer_tests::{
    cluster::{
        Cluster,
        enforcer::{Installed, NAMESPACE},
    },
    lab::wait,
};

/// Everything of enforcer's that a node can have.
const NODE: &str = "
find /sys/fs/bpf -mindepth 1 ! -name '*.debug'
find /run/enforcer /var/lib/enforcer /etc/systemd/system -mindepth 1 ! -type d
ls /run/netns | grep enforcer
ip -brief link | grep enforcer
for family in -4 -6; do ip $family route show table all proto 239; done
bpftool cgroup tree /sys/fs/cgroup/unified 2>/dev/null | grep connect || bpftool cgroup tree /sys/fs/cgroup 2>/dev/null | grep connect
true
";

/// What of it the server has.
fn on_the_server(cluster: &Cluster) -> Vec<String> {
    let kinds = "crds,clusterroles,clusterrolebindings,namespaces";
    let all = cluster.kubectl(&["get", kinds, "--output=name"]).expect("the server answers");
    all.lines().filter(|name| name.contains("enforcer")).map(str::to_owned).collect()
}

#[test]
fn an_uninstall_leaves_nothing_on_the_server_and_on_the_node() {
    let Some(cluster) = Cluster::of_tests().expect("the cluster is up") else { return };
    let Installed { cluster } = Installed::on(cluster).expect("it is installed");
    let on_the_node = || {
        let said = cluster.on_node("sh", &["-c", NODE]).expect("the node looks");
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = on_the_node();
    for part in [
        "/sys/fs/bpf/",
        "enforcer0",
        "blackhole 198.18.0.0/16",
        "/var/lib/enforcer/",
        "boot-guard",
        "connect4",
    ] {
        assert!(before.iter().any(|line| line.contains(part)), "{part} is there: {before:#?}");
    }
    assert!(on_the_server(&cluster).contains(&format!("namespace/{NAMESPACE}")));
    let refused = format!("{:#}", cluster.enforcer(&["uninstall"]).expect_err("it does nothing unasked"));
    assert!(refused.contains("--yes does it"), "{refused}");
    assert_eq!(on_the_node(), before);

    cluster.enforcer(&["uninstall", "--yes"]).expect("it is taken away");

    assert_eq!(on_the_node(), Vec::<String>::new());
    wait::for_true("the server has forgotten it", || on_the_server(&cluster).is_empty())
        .unwrap_or_else(|err| panic!("{err:#}: {:?}", on_the_server(&cluster)));
}
