//! The time between a boot and the agent: routes are all that there is.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use enforcer::state::{self, State};
use enforcer_tests::{
    lab::{
        Lab, Place, Pod, Role,
        command::{finish, inside},
        network::{GATEWAY4, GATEWAY6, NODE4, NODE6, add_netns, ip},
        roles::enforcer,
        wait,
    },
    ways::{Plan, Way, text},
};

const WAYS: &[Way] = &[
    Way::Tcp,
    Way::Udp,
    Way::UdpConnected,
    Way::UdpLite,
    Way::Sctp,
    Way::Ping,
    Way::RawEcho,
    Way::RawUnknown,
    Way::RawHeader,
];
const SERVICES: &str = "198.18.0.0/16";
const WORKLOADS: &str = "198.19.0.0/16";
const ULA: [u16; 3] = [0xfdb0, 0x0a1b, 0x2c3d];

fn ula(subnet: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(ULA[0], ULA[1], ULA[2], subnet, 0, 0, 0, host)
}

/// Addresses of a service and of a workload, in both families.
fn guarded() -> Vec<SocketAddr> {
    let v4 = [[198, 18, 0, 7], [198, 19, 0, 9]].map(|ip| IpAddr::V4(Ipv4Addr::from(ip)));
    let v6 = [ula(2, 7), ula(0x1000, 9)].map(IpAddr::V6);
    v4.into_iter().chain(v6).map(|ip| SocketAddr::new(ip, 5432)).collect()
}

fn is_guarded(destination: &IpAddr) -> bool {
    match destination {
        IpAddr::V4(ip) => matches!(ip.octets(), [198, 18 | 19, ..]),
        IpAddr::V6(ip) => ip.segments()[..3] == ULA,
    }
}

/// Source and destination of a frame with IP in it.
fn ends(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?));
    let v6 = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?));
    match frame.get(12..14)? {
        [0x08, 0x00] => Some((v4(26)?, v4(30)?)),
        [0x86, 0xdd] => Some((v6(22)?, v6(38)?)),
        _ => None,
    }
}

/// As kube-proxy does it.
fn translate(lab: &Lab, from: &str, to: IpAddr) {
    let program = if to.is_ipv4() { "iptables-legacy" } else { "ip6tables-legacy" };
    let line = format!("-t nat -A PREROUTING -d {from} -j DNAT --to-destination {to}");
    let outcome =
        lab.elsewhere("node").run(program, &line.split(' ').collect::<Vec<_>>()).expect("it starts");
    assert!(outcome.success, "{line}: {}", outcome.said());
}

const CLUSTER: [&str; 2] = ["10.96.0.10", "fd00:96::10"];

/// The namespaces of a node after its boot: a pod, a hostNetwork pod, and somebody who is merely routed.
fn booted() -> Lab {
    let lab = Lab::new(&[Pod::new("shop", "web", &[]), Pod::new("shop", "hostnet", &[]).host_network()])
        .expect("the lab comes up");
    let prefix = format!("{:x}:{:x}:{:x}::/48", ULA[0], ULA[1], ULA[2]);
    let ranges = (prefix.parse(), SERVICES.parse(), WORKLOADS.parse());
    let (Ok(ula), Ok(services), Ok(workloads)) = ranges else { panic!("prefixes") };
    state::save(&lab.state_file(), &State::new(ula, services, workloads)).expect("the state is saved");
    let (node, beside) = (lab.id.netns("node"), lab.id.netns("beside"));
    add_netns(&beside).expect("the namespace is made");
    let lines = format!(
        "link add beside0 type veth peer name eth0 netns {beside}
         addr add 10.99.0.1/24 dev beside0
         addr add fd99::1/64 dev beside0 nodad
         link set beside0 up"
    );
    ip(&node, &lines).expect("the node's end is made");
    let lines = "addr add 10.99.0.2/24 dev eth0
         addr add fd99::2/64 dev eth0 nodad
         link set eth0 up
         route add default via 10.99.0.1
         -6 route add default via fd99::1";
    ip(&beside, lines).expect("the other end is made");
    for (from, to) in CLUSTER.into_iter().zip([guarded()[0], guarded()[2]]) {
        translate(&lab, from, to.ip());
    }
    lab
}

/// Sends everything from everywhere, and returns from whom something guarded was seen on the underlay.
fn leaks(lab: &Lab, name: &str) -> BTreeSet<(IpAddr, IpAddr)> {
    let capture = lab.capture(name).expect("tcpdump starts");
    let addresses = |list: [&str; 2]| list.map(|ip| ip.parse().expect("an address"));
    let cluster = addresses(CLUSTER).map(|ip: IpAddr| SocketAddr::new(ip, 5432));
    let mut first_mark = 10_000;
    for place in [lab.place("web"), lab.place("hostnet"), lab.system(), lab.elsewhere("beside")] {
        let plan = Plan {
            ways: WAYS.to_vec(),
            first_mark,
            device: None,
            control: addresses([GATEWAY4, GATEWAY6]),
            node: addresses([NODE4, NODE6]),
            victim: addresses([GATEWAY4, GATEWAY6]),
            targets: guarded().into_iter().chain(cluster).collect(),
        };
        send(&place, &plan);
        let mut missing: BTreeSet<u16> = plan.marks().into_iter().map(|(mark, _)| mark).collect();
        wait::for_true("what nobody guards is seen", || {
            missing.retain(|mark| !capture.has(|frame| shows(frame, *mark)));
            missing.is_empty()
        })
        .unwrap_or_else(|err| panic!("{name}: {err:#}: {missing:?}"));
        first_mark += 1_000;
    }
    let mut seen = BTreeSet::new();
    let all = std::cell::RefCell::new(&mut seen);
    capture
        .finish_foreign(|frame| {
            all.borrow_mut().extend(ends(frame).filter(|(_, destination)| is_guarded(destination)));
            false
        })
        .expect("the capture ends");
    seen
}

fn send(place: &Place, plan: &Plan) {
    let args = plan.args();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = place.run(env!("CARGO_BIN_EXE_enforcer-lab"), &args).expect("the sender starts");
    assert!(outcome.success, "{}: {}", place.netns, outcome.said());
}

/// A packet to the control address: SYNs carry no text, but the mark as their port.
fn shows(frame: &[u8], mark: u16) -> bool {
    let text = text(mark);
    let l4 = if frame.get(12..14) == Some(&[0x08, 0x00]) { 34 } else { 54 };
    frame.get(l4 + 2..l4 + 4) == Some(&mark.to_be_bytes()[..])
        || frame.windows(text.len()).any(|window| window == text.as_bytes())
}

fn prepare(lab: &Lab) -> String {
    let node = lab.id.netns("node");
    let mut command = inside(&node, &lab.id.tools(), &enforcer().expect("it was built").to_string_lossy());
    finish(command.args(["agent", "--prepare", "--state"]).arg(lab.state_file())).expect("it succeeds")
}

/// Blackholes and routes of ours in a namespace: the destinations.
fn routes(lab: &Lab, which: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let node = lab.id.netns("node");
    for family in ["-4", "-6"] {
        let words =
            [&[family, "-n", &node, "route", "show"][..], &which.split(' ').collect::<Vec<_>>()].concat();
        // Without the device there are no routes of it.
        let text = enforcer_tests::lab::command::run("ip", &words).unwrap_or_default();
        let prefix = |line: &str| line.split(' ').find(|word| word.contains(['.', ':'])).map(str::to_owned);
        found.extend(text.lines().filter_map(prefix));
    }
    found
}

#[test]
fn between_a_boot_and_the_agent_the_boot_guard_keeps_every_sender_in() {
    let mut lab = booted();
    let ends = |destination: usize, sources: &[&str]| {
        sources
            .iter()
            .map(|source| (source.parse().unwrap(), guarded()[destination].ip()))
            .collect::<Vec<_>>()
    };
    let [web4, web6] = lab.pod("web").addresses();
    let (v4, v6) = ([&web4[..], NODE4, "10.99.0.2"], [&web6[..], NODE6, "fd99::2"]);
    let everybody: BTreeSet<(IpAddr, IpAddr)> =
        [ends(0, &v4), ends(1, &v4), ends(2, &v6), ends(3, &v6)].concat().into_iter().collect();
    assert_eq!(leaks(&lab, "unprepared"), everybody, "without the boot guard everything is open");

    let ranges = [SERVICES, WORKLOADS, &ula_net(2, 64), &ula_net(3, 64), &ula_net(0x1000, 52)];
    let told = ranges.map(|range| format!("blackhole {range}\n")).concat();
    assert_eq!([prepare(&lab), prepare(&lab)], [told.clone(), told], "twice is as good as once");
    let ranges = BTreeSet::from(ranges.map(str::to_owned));
    assert_eq!(routes(&lab, "type blackhole proto 239"), ranges);
    assert_eq!(leaks(&lab, "prepared"), BTreeSet::new());

    // The agent takes them over, and takes them away with the ranges that they are for.
    lab.save_tunnel_ends("").expect("the objects are saved");
    for role in [Role::Controller, Role::Agent] {
        lab.start(role).expect("the role starts");
    }
    let services = BTreeSet::from([SERVICES.to_owned(), ula_net(2, 64)]);
    wait::for_true("routes into the tunnel", || routes(&lab, "dev enforcer0 proto 239") == services)
        .unwrap_or_else(|err| panic!("{err:#}: {:?}", routes(&lab, "dev enforcer0 proto 239")));
    assert_eq!(routes(&lab, "type blackhole proto 239"), ranges, "the boot guard's, and no others");
    lab.kill(Role::Controller).expect("the controller is killed");
    let mut moved = state::load(&lab.state_file()).expect("it reads").expect("it is there");
    moved.service_range = "198.51.0.0/16".parse().unwrap();
    state::save(&lab.state_file(), &moved).expect("the state is saved");
    let replaced = |set: &BTreeSet<String>| -> BTreeSet<String> {
        set.iter().map(|range| range.replace(SERVICES, "198.51.0.0/16")).collect()
    };
    wait::for_true("the old range is let go", || {
        routes(&lab, "dev enforcer0 proto 239") == replaced(&services)
            && routes(&lab, "type blackhole proto 239") == replaced(&ranges)
    })
    .unwrap_or_else(|err| panic!("{err:#}: {:?}", routes(&lab, "proto 239")));
}

fn ula_net(subnet: u16, length: u8) -> String {
    format!("{}/{length}", ula(subnet, 0))
}
