//! A second gateway beside the first: a namespace, its way to the services, its roles.

use std::process::Command;

use enforcer_tests::lab::{
    Lab,
    command::finish,
    manifests,
    network::{SERVER4, SERVER6, TUNNEL_PORT, add_netns, ip},
    roles::enforcer,
};

const UNDERLAY4: &str = "192.0.2.3";
/// The second gateway as services see it.
pub const SIDE4: &str = "203.0.113.2";
const SIDE6: &str = "2001:db8:2::2";
/// Its port on the underlay's bridge.
pub const PORT: &str = "gw20";
const PROCESSES: [&str; 2] = ["gateway-2", "gateway-2-tunnel"];

pub fn name(lab: &Lab) -> String {
    format!("{}-2", lab.id.gateway())
}

/// Makes it and starts its roles.
pub fn start(lab: &mut Lab) {
    build(lab);
    let key = lab.id.dir.join("gw2.key");
    let endpoint = format!("{UNDERLAY4}:{TUNNEL_PORT}");
    let mut keygen = Command::new(enforcer().expect("it was built"));
    keygen.args(["keygen", "gateway", &name(lab), "--endpoint", &endpoint, "--key"]).arg(&key);
    let manifest = finish(&mut keygen).expect("a key is made");
    let public =
        manifest.lines().find_map(|line| line.trim().strip_prefix("publicKey:")).expect("it has one");
    let own = lab.id.gateway();
    let yaml = manifests::gateway(&lab.id, public.trim(), "")
        .replace(&format!("name: {own}\n"), &format!("name: {}\n", name(lab)))
        .replace(enforcer_tests::lab::network::GATEWAY4, UNDERLAY4);
    lab.save("gateway-2.yaml", &yaml).expect("the gateway is saved");
    let (dir, run_dir) = (lab.id.dir.display().to_string(), lab.id.dir.join("run/gw2"));
    std::fs::create_dir_all(&run_dir).expect("a run directory");
    let gateway = format!(
        "gateway --manifests {} --state {} --name {} --key {dir}/gw2.key --run-dir {} --bpffs {}/gw2 --tunnel userspace",
        lab.id.manifests().display(),
        lab.state_file().display(),
        name(lab),
        run_dir.display(),
        lab.id.bpffs().display(),
    );
    let tunnel = format!("tunnel --run-dir {}", run_dir.display());
    let program = enforcer().expect("it was built").to_string_lossy().into_owned();
    for (process, line) in PROCESSES.into_iter().zip([gateway, tunnel]) {
        let args: Vec<&str> = line.split(' ').collect();
        let started = lab.elsewhere("gw2").start_plain(&program, &args, &lab.id.log(process));
        lab.processes.insert(process.into(), started.expect("the role starts"));
    }
}

fn build(lab: &Lab) {
    let (lan, services, gateway) = (lab.id.netns("lan"), lab.id.netns("svc"), lab.id.netns("gw2"));
    add_netns(&gateway).expect("the namespace is made");
    ip(
        &lan,
        &format!("link add {PORT} type veth peer name eth0 netns {gateway}\nlink set {PORT} master br0 up"),
    )
    .expect("it is joined to the underlay");
    let lines = format!(
        "addr add {UNDERLAY4}/24 dev eth0
         link set eth0 up
         link add svc0 type veth peer name eth1 address 02:00:00:00:02:10 netns {services}
         addr add {SIDE4}/32 dev svc0
         addr add {SIDE6}/128 dev svc0 nodad
         link set svc0 up
         route add {SERVER4}/32 dev svc0 src {SIDE4}
         -6 route add {SERVER6}/128 dev svc0 src {SIDE6}
         neigh add {SERVER6} lladdr 02:00:00:00:02:10 dev svc0"
    );
    ip(&gateway, &lines).expect("it is joined to the services");
    let lines = format!("link set eth1 up\nroute add {SIDE4}/32 dev eth1\n-6 route add {SIDE6}/128 dev eth1");
    ip(&services, &lines).expect("the services know it");
}

/// Takes it away with all that it had.
pub fn end(lab: &mut Lab) {
    lab.delete("gateway-2.yaml").expect("the gateway is removed");
    for process in PROCESSES {
        lab.processes.remove(process).expect("it was started").kill().expect("it is killed");
    }
    for (netns, device) in [(lab.id.netns("lan"), PORT), (lab.id.netns("svc"), "eth1")] {
        ip(&netns, &format!("link delete {device}")).expect("its devices are removed");
    }
}
