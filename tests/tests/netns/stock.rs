//! A stock WireGuard in the place of `enforcer tunnel`: what is on the wire is the standard's, and so is UAPI.

use std::process::Command;

use enforcer_tests::lab::{
    Lab, Role,
    manifests::Service,
    network::ip,
    query::{Answer, Family},
    wait,
};

use super::shared::{Turn, lab};

/// Names of tunnel devices in a namespace.
fn devices(netns: &str) -> Vec<String> {
    let output = Command::new("ip").args(["-n", netns, "-brief", "link"]).output().expect("ip starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = text.lines().filter_map(|line| line.split([' ', '@']).next());
    names.filter(|name| name.starts_with("ef-")).map(str::to_owned).collect()
}

fn only_device(netns: &str) -> String {
    let devices = devices(netns);
    assert_eq!(devices.len(), 1, "one gateway, one device: {devices:?}");
    devices[0].clone()
}

/// Runs wireguard-go instead of a tunnel, and comes back when traffic flows again.
fn replace(lab: &mut Turn, role: Role, part: &str, device: &str, netns: Option<&str>) {
    lab.kill(role).expect("the tunnel is killed");
    let mut args = vec!["stock-tunnel", device];
    args.extend(netns);
    let log = lab.id.log("stock");
    let stock = lab.elsewhere(part).start_plain(env!("CARGO_BIN_EXE_enforcer-lab"), &args, &log);
    // Under the role's name: what comes next treats it as the role.
    lab.processes.insert(role.name().into(), stock.expect("wireguard-go starts"));
    traffic_flows(lab);
    assert!(
        lab.log("stock").is_empty() || !lab.log("stock").contains("enforcer-lab:"),
        "{}",
        lab.log("stock")
    );
}

/// Waits for the tunnel first, then asks everything.
fn traffic_flows(lab: &Lab) {
    let works =
        |service, family| lab.place("cart").query(service, family).is_ok_and(|got| got == Answer::Works);
    wait::for_true("the tunnel carries traffic", || works(Service::KeyValueStore, Family::V4))
        .unwrap_or_else(|err| panic!("{err:#}: {}", lab.log("stock")));
    for service in Service::ALL {
        for family in Family::ALL {
            assert!(works(service, family), "{service:?} over {family:?}");
        }
    }
}

fn restore(lab: &mut Turn, role: Role) {
    lab.kill(role).expect("wireguard-go is killed");
    lab.start(role).expect("the tunnel starts");
    traffic_flows(lab);
}

#[test]
fn wg_shows_the_user_space_tunnels() {
    let lab = lab();
    for netns in [lab.tunnel_netns(), lab.id.netns("gw")] {
        let device = only_device(&netns);
        let output =
            Command::new("wg").args(["show", &device, "latest-handshakes"]).output().expect("wg starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let seconds = text.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
        assert!(seconds.is_some_and(|seconds| seconds > 0), "a handshake on {device}: {text}");
    }
}

#[test]
fn wireguard_go_takes_the_gateways_place() {
    let mut lab = lab();
    let device = only_device(&lab.id.netns("gw"));
    replace(&mut lab, Role::GatewayTunnel, "gw", &device, None);
    restore(&mut lab, Role::GatewayTunnel);
}

#[test]
fn wireguard_go_takes_the_nodes_place() {
    let mut lab = lab();
    let (node, netns) = (lab.id.netns("node"), format!("/run/netns/{}", lab.tunnel_netns()));
    let device = only_device(&lab.tunnel_netns());
    // wireguard-go looks the device up in its own namespace, where it needs one of that name that is up.
    let double =
        format!("link add {device} type veth peer name double\nlink set double up\nlink set {device} up");
    ip(&node, &double).expect("the double is made");
    replace(&mut lab, Role::NodeTunnel, "node", &device, Some(&netns));
    ip(&node, "link delete double").expect("the double is removed");
    restore(&mut lab, Role::NodeTunnel);
}
