//! Devices that appear while pods are sending.

use std::net::IpAddr;

use enforcer::control::MonitorEvent;
use enforcer_tests::lab::{Lab, Role, command, manifests::Service, network::ip, query::Family, wait};
use nix::sys::signal::Signal;

use crate::shared::{address, lab};

/// Leads these addresses out of the node through a second uplink, which is made before and moved in at once.
fn appear(lab: &Lab, targets: &[IpAddr]) {
    let (node, lan) = (lab.id.netns("node"), lab.id.netns("lan"));
    ip(&lan, &format!("link set uplink1 netns {node}")).expect("the device appears");
    let lines = "addr add 192.0.2.12/32 dev uplink1
         addr add 2001:db8:1::12/128 dev uplink1 nodad
         link set uplink1 up
         route add 192.0.2.2/32 dev uplink1
         -6 route add 2001:db8:1::2/128 dev uplink1
         neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev uplink1
         neigh add 2001:db8:1::2 lladdr 02:00:00:00:00:02 dev uplink1";
    ip(&node, lines).expect("it has neighbours");
    for target in targets {
        let (family, router) = if target.is_ipv4() { ("-4", "192.0.2.2") } else { ("-6", "2001:db8:1::2") };
        ip(&node, &format!("{family} route replace {target} via {router} dev uplink1"))
            .expect("it has a route");
    }
}

/// Microseconds of the Unix epoch.
fn micros(event: &MonitorEvent) -> u64 {
    let text = command::run("date", &["-u", "-d", &event.time, "+%s%6N"]).expect("the time is one");
    text.trim().parse().expect("a number")
}

#[test]
fn nothing_leaves_a_new_device_after_its_event_and_the_window_before_is_told() {
    let mut lab = lab();
    let targets: Vec<IpAddr> = [Family::V4, Family::V6]
        .map(|family| address(&lab, "cart", Service::Postgres, family).expect("an address").ip())
        .to_vec();
    let (node, lan) = (lab.id.netns("node"), lab.id.netns("lan"));
    ip(&lan, "link add node1 type veth peer name uplink1\nlink set node1 up").expect("the device is made");
    let capture = lab.capture_at("late", &lan, "node1").expect("tcpdump starts");
    let mut args = vec!["flood".to_owned()];
    args.extend(targets.iter().map(|target| std::net::SocketAddr::new(*target, 5432).to_string()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let flood =
        lab.elsewhere("node").start_plain(env!("CARGO_BIN_EXE_enforcer-lab"), &args, &lab.id.log("flood"));
    lab.processes.insert("flood".into(), flood.expect("the sender starts"));

    // An agent that is busy with something else: the window is open for as long as the test wants.
    lab.process(Role::Agent).signal(Signal::SIGSTOP).expect("the agent is paused");
    appear(&lab, &targets);
    let flooded = |frame: &[u8]| frame.ends_with(b"flood");
    let open = wait::for_true("the window is open", || capture.has(flooded));
    lab.process(Role::Agent).signal(Signal::SIGCONT).expect("the agent goes on");
    open.expect("the instrument sees what leaves");
    let event = wait::until("the device is guarded", || {
        let told = |event: &MonitorEvent| {
            event.kind == "device-guarded" && event.explanation.starts_with("uplink1: ")
        };
        lab.events().into_iter().rev().find(told)
    })
    .expect("the event is told");
    // The sender goes on for a while: its packets are counted where they die.
    let drops = |lab: &Lab| {
        let status = lab.status(Role::Agent).expect("the agent answers");
        status["counters"]["drops"]["ClearText"].as_u64().unwrap_or_default()
    };
    let before = drops(&lab);
    wait::for_true("the sender goes on", || drops(&lab) > before + 200).expect("packets are refused");
    lab.processes.remove("flood").expect("it was started").kill().expect("it is killed");

    let times = capture.finish_times(flooded).expect("the capture ends");
    let guarded = micros(&event);
    let after = times.iter().filter(|time| **time > guarded).count();
    let window = times.len() - after;
    assert_eq!(after, 0, "{window} before, then {}: {}", event.time, event.explanation);
    assert!(window > 0, "the window was open");
    let told = event.explanation.rsplit_once("appeared, ").and_then(|(_, rest)| rest.split(' ').next());
    let told: usize = told.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{event:?}"));
    assert!(told >= window, "no less than what left is told: {window} of {}", event.explanation);
    let status = lab.status(Role::Agent).expect("the agent answers");
    let device = status["devices"].as_array().into_iter().flatten().find(|line| line["device"] == "uplink1");
    let shown = device.map(|line| (line["as"].as_str(), line["guardedAfterMs"].is_number()));
    assert_eq!(shown, Some((Some("Wire"), true)), "{}", status["devices"]);
    ip(&node, "link delete uplink1").expect("the device is removed");
}
