//! Two nodes with one gateway: a second node beside the lab's, with a pod of its own.

use std::{fs, process::Command};

use enforcer_tests::lab::{
    Lab, Place,
    command::finish,
    manifests::{CLUSTER, PROJECT},
    network::{GATEWAY4, add_netns, ip, sysctl},
    query::Family,
    roles::enforcer,
};

use crate::{
    held::{self, Held, TCP_PORT},
    shared::{Turn, lab},
};

const PROCESSES: [&str; 2] = ["agent-2", "node-2-tunnel"];

/// The second node.
struct Node {
    name: String,
    pod: Place,
}

impl Node {
    fn start(lab: &mut Lab) -> Self {
        let name = format!("{}-2", lab.id.node());
        let cgroup = lab.id.cgroup.join("kube2");
        let node = Self { pod: Place { netns: lab.id.netns("far"), cgroup: cgroup.join("far") }, name };
        fs::create_dir_all(&node.pod.cgroup).expect("a cgroup");
        node.build(lab);
        let mut keygen = Command::new(enforcer().expect("it was built"));
        keygen
            .args(["keygen", "node", &node.name, "--cluster", CLUSTER, "--key"])
            .arg(lab.id.dir.join("node2.key"));
        lab.save("node-2.yaml", &finish(&mut keygen).expect("a key is made")).expect("the node is saved");
        node.save_pod(lab, "cart");
        let (dir, run_dir) = (lab.id.dir.display().to_string(), lab.id.dir.join("run/node2"));
        fs::create_dir_all(&run_dir).expect("a run directory");
        let run_dir = run_dir.display();
        let agent = format!(
            "agent --manifests {} --state {} --node {} --cluster-name {CLUSTER} --key {dir}/node2.key --run-dir {run_dir} \
             --bpffs {}/node2 --tunnel userspace --tunnel-netns /run/netns/{} --cgroup-root {}",
            lab.id.manifests().display(),
            lab.state_file().display(),
            node.name,
            lab.id.bpffs().display(),
            lab.id.netns("tun2"),
            cgroup.display(),
        );
        Self::run(lab, PROCESSES[0], &agent);
        Self::run(lab, PROCESSES[1], &format!("tunnel --run-dir {run_dir}"));
        node
    }

    fn run(lab: &mut Lab, process: &str, line: &str) {
        let program = enforcer().expect("it was built").to_string_lossy().into_owned();
        let args: Vec<&str> = line.split_whitespace().collect();
        let started = lab.elsewhere("node2").start_plain(&program, &args, &lab.id.log(process));
        lab.processes.insert(process.into(), started.expect("the role starts"));
    }

    fn build(&self, lab: &Lab) {
        let (lan, node, far) = (lab.id.netns("lan"), lab.id.netns("node2"), &self.pod.netns);
        for netns in [&node, far] {
            add_netns(netns).expect("the namespace is made");
        }
        ip(
            &lan,
            &format!("link add node20 type veth peer name eth0 netns {node}\nlink set node20 master br0 up"),
        )
        .expect("it is joined to the underlay");
        sysctl(&node, &["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]).expect("it forwards");
        let lines = format!(
            "addr add 192.0.2.12/24 dev eth0
             link set eth0 up
             route add default via {GATEWAY4}
             link add far0 type veth peer name eth0 netns {far}
             addr add 169.254.1.1/32 dev far0
             addr add fe80::1/64 dev far0 nodad
             link set far0 up"
        );
        ip(&node, &lines).expect("it has a pod");
        let lines = "addr add 10.244.1.10/32 dev eth0
             addr add fd00:10:244:1::a/128 dev eth0 nodad
             addr add fe80::2/64 dev eth0 nodad
             link set eth0 up
             route add 169.254.1.1 dev eth0
             route add default via 169.254.1.1 dev eth0
             -6 route add default via fe80::1 dev eth0";
        ip(far, lines).expect("the pod has addresses");
        ip(
            &node,
            "route add 10.244.1.10/32 dev far0\n-6 route add fd00:10:244:1::a/128 via fe80::2 dev far0",
        )
        .expect("the node knows the way");
    }

    fn save_pod(&self, lab: &Lab, app: &str) {
        let yaml = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: far\n  namespace: {PROJECT}\n  uid: uid-far\n  \
             labels: {{app: {app}}}\n  annotations: {{enforcer.dev/netns: {}}}\nspec: {{nodeName: {}}}\n\
             status:\n  podIPs: [{{ip: 10.244.1.10}}, {{ip: \"fd00:10:244:1::a\"}}]\n",
            self.pod.netns, self.name
        );
        lab.save("pod-far.yaml", &yaml).expect("the pod is saved");
    }

    fn end(lab: &mut Lab) {
        for file in ["pod-far.yaml", "node-2.yaml"] {
            lab.delete(file).expect("the object is removed");
        }
        for process in PROCESSES {
            if let Some(process) = lab.processes.remove(process) {
                process.kill().expect("it is killed");
            }
        }
        ip(&lab.id.netns("lan"), "link delete node20").expect("its devices are removed");
    }
}

fn ready() -> Turn {
    let mut lab = lab();
    held::serve(&mut lab);
    lab
}

#[test]
fn two_nodes_share_a_gateway_and_nothing_else() {
    let mut lab = ready();
    let node = Node::start(&mut lab);
    let open = |lab: &Lab| {
        Family::ALL.map(|family| {
            let service = held::address(lab, family, TCP_PORT);
            let tag = |name: &str| format!("{name}-{}", family.name());
            let far = Held::open(lab, &node.pod, service, "poke", &tag("far"));
            (Held::open(lab, &lab.place("cart"), service, "poke", &tag("near")), far)
        })
    };
    // What one node's pod loses, and that its agent dies, is not noticed by the other.
    for (mut near, mut far) in open(&lab) {
        node.save_pod(&lab, "nobody");
        let end = far.end(&lab);
        let told = matches!(end.as_deref(), Some("ConnectionReset" | "ConnectionAborted"));
        assert!(told, "{} is told: {end:?}", far.tag);
        assert_eq!(far.far_end(&lab).as_deref(), Some("ConnectionReset"), "the far end of {}", far.tag);
        assert!(near.is_open(), "{}: {}", near.tag, lab.log(&near.tag));
        node.save_pod(&lab, "cart");
    }
    let all = open(&lab);
    lab.processes.remove(PROCESSES[0]).expect("it was started").kill().expect("it is killed");
    lab.delete("connection-held.yaml").expect("the connection is removed");
    for (mut near, mut far) in all {
        let ends = [near.end(&lab), far.end(&lab)];
        let told =
            |end: &Option<String>| matches!(end.as_deref(), Some("ConnectionReset" | "ConnectionAborted"));
        assert!(ends.iter().all(told), "the gateway ends what no agent does: {ends:?}");
    }
    Node::end(&mut lab);
}
