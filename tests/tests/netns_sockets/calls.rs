//! System call × who calls × family: what it returns, whether the service hears it, and nothing on the underlay.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    net::SocketAddr,
};

use enforcer_tests::{
    lab::{
        Lab, Place, Pod,
        destination::Destination,
        network::{ip, sysctl},
        wait,
    },
    probe::calls::Call,
};

use crate::shared::lab;

const PORT: u16 = 9998;
const PROBE: &str = env!("CARGO_BIN_EXE_enforcer-lab");

/// Who calls. The order is that of the table's columns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Who {
    Granted,
    NotGranted,
    /// No object says that it exists.
    Unknown,
    /// A pod whose packets may leave by a device that no hook sees.
    NotGuardable,
}

/// What a call returns to each of them, and whether the service hears it from the granted.
type Row = (Call, bool, [&'static str; 4]);

const REFUSED: &str = "connect EPERM";
const SILENT: &str = "connect silence";
const DONE: &str = "connect ok, send ok";

/// Protocols that nothing carries are not heard. Those without a hook in the kernel's `connect` or `sendto` die on the
/// wire: UDP-Lite's connect, ping's `sendto`, raw sockets, SCTP and DCCP.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    (Call::Tcp, true, [DONE, REFUSED, SILENT, REFUSED]),
    (Call::TcpNonBlocking, true, [
        "connect EINPROGRESS, then ok, send ok", REFUSED, "connect EINPROGRESS, then silence", REFUSED,
    ]),
    (Call::FastOpen, true, ["sendto ok", "sendto EPERM", "sendto silence", "sendto EPERM"]),
    (Call::FastOpenConnect, true, [
        "connect ok, send ok, then ok", REFUSED, "connect ok, send ok, then silence", REFUSED,
    ]),
    (Call::Mptcp, true, [DONE, REFUSED, SILENT, REFUSED]),
    (Call::TcpMapped, true, [DONE, REFUSED, SILENT, REFUSED]),
    (Call::TcpRing, true, [DONE, REFUSED, SILENT, REFUSED]),
    // Resolvers probe with it: never refused, and what is sent dies on the wire.
    (Call::UdpConnected, true, [DONE, DONE, DONE, REFUSED]),
    // To the kernel, what is sent to a mapped address has a destination of its own.
    (Call::UdpConnectedMapped, true, [DONE, "connect ok, send EPERM", DONE, REFUSED]),
    (Call::SendTo, true, ["sendto ok", "sendto EPERM", "sendto ok", "sendto EPERM"]),
    (Call::SendMsg, true, ["sendmsg ok", "sendmsg EPERM", "sendmsg ok", "sendmsg EPERM"]),
    (Call::SendMmsg, true, ["sendmmsg 2", "sendmmsg EPERM", "sendmmsg 2", "sendmmsg EPERM"]),
    (Call::PacketInfo, true, ["sendmsg ok", "sendmsg EPERM", "sendmsg ok", "sendmsg EPERM"]),
    (Call::SendToMapped, true, ["sendto ok", "sendto EPERM", "sendto ok", "sendto EPERM"]),
    (Call::SendMsgRing, true, ["sendmsg ok", "sendmsg EPERM", "sendmsg ok", "sendmsg EPERM"]),
    (Call::UdpLite, false, ["sendto EPERM", "sendto EPERM", "sendto ok", "sendto EPERM"]),
    (Call::UdpLiteConnected, false, [DONE, DONE, DONE, DONE]),
    (Call::Sctp, false, [SILENT, SILENT, SILENT, SILENT]),
    (Call::Dccp, false, [SILENT, SILENT, SILENT, SILENT]),
    (Call::Ping, false, ["sendto ok", "sendto ok", "sendto ok", "sendto ok"]),
    (Call::PingConnected, false, [REFUSED, REFUSED, DONE, REFUSED]),
    (Call::Raw, false, ["sendto ok", "sendto ok", "sendto ok", "sendto ok"]),
    (Call::RawConnected, false, [DONE, DONE, DONE, DONE]),
];

/// Where the hook is in the sender's own namespace, these sockets are told that the packet was dropped.
const TOLD_OF_DROPS: &[(Call, bool)] =
    &[(Call::Ping, true), (Call::PingConnected, true), (Call::Raw, false), (Call::RawConnected, false)];

/// What the kernel of this machine has not, or does not let us have.
const ABSENT: &[&str] =
    &["socket EPROTONOSUPPORT", "socket ESOCKTNOSUPPORT", "socket ENOPROTOOPT", "ring ENOSYS", "ring EPERM"];

struct Caller {
    who: Who,
    title: &'static str,
    place: Place,
}

impl Caller {
    /// Every row that this caller's calls should read, by call and family.
    fn expected(&self, targets: &[SocketAddr], node: &str) -> BTreeMap<String, String> {
        let rows = TABLE.iter().flat_map(|row| targets.iter().map(move |to| (row, *to)));
        let rows = rows.filter(|((call, ..), to)| call.is_for(*to));
        rows.map(|((call, _, steps), to)| {
            let steps = steps[self.who as usize];
            let told = self.place.netns == node && TOLD_OF_DROPS.contains(&(*call, to.is_ipv4()));
            let steps = match steps.strip_suffix("ok") {
                Some(start) if told => format!("{start}ENOBUFS"),
                _ => steps.to_owned(),
            };
            (name(*call, to), steps)
        })
        .collect()
    }

    /// A macvlan tells of drops once it knows its neighbour, so that one cannot say whether it does.
    fn normal(&self, steps: &str) -> String {
        if self.who == Who::NotGuardable { steps.replace("ENOBUFS", "ok") } else { steps.to_owned() }
    }

    /// What the service should hear of it.
    fn heard(&self, targets: &[SocketAddr], absent: &BTreeSet<String>) -> BTreeSet<String> {
        if self.who != Who::Granted {
            return BTreeSet::new();
        }
        let rows = TABLE.iter().filter(|(_, carried, _)| *carried);
        rows.flat_map(|(call, ..)| targets.iter().map(|to| (*call, *to)))
            .filter(|(call, to)| call.is_for(*to) && !absent.contains(&name(*call, *to)))
            .map(|(call, to)| call.text(self.title, to))
            .collect()
    }
}

fn name(call: Call, to: SocketAddr) -> String {
    format!("{call:?} {}", if to.is_ipv4() { "IPv4" } else { "IPv6" })
}

/// Adds one on the host without a grant, one that reaches the underlay by itself, and one that nobody announces.
fn callers(lab: &mut Lab) -> Vec<Caller> {
    let id = lab.id.clone();
    let mut add = |pod: Pod| {
        lab.network.add_pod(&id, pod).expect("the pod is joined");
        lab.network.pods.last().expect("a pod was added").clone()
    };
    let other = [("app", "audit")];
    let host_audit = add(Pod::new("shop", "hostaudit", &other).host_network());
    let two_homed = add(Pod::new("shop", "twohomed", &other));
    let ghost = add(Pod::new("shop", "ghost", &other));
    lab.network.pods.retain(|pod| pod.name != ghost.name);
    let netns = &two_homed.netns;
    let macvlan =
        format!("link add side0 link eth0 type macvlan mode bridge\nlink set side0 netns {netns} name eth1");
    ip(&id.netns("node"), &macvlan).expect("the macvlan is made");
    let lines = "addr add 192.0.2.77/24 dev eth1
         addr add 2001:db8:1::77/64 dev eth1 nodad
         link set eth1 up
         route add 198.18.0.0/15 via 192.0.2.1 dev eth1
         -6 route add fc00::/7 via 2001:db8:1::1 dev eth1";
    ip(netns, lines).expect("the pod has a second way out");
    for pod in [&host_audit, &two_homed] {
        lab.save_pod(pod).expect("the pod is saved");
    }
    wait::for_true("it is known that the pod cannot be guarded", || {
        lab.get("pod", "twohomed").is_ok_and(|pod| pod["status"]["guarded"] == "NotGuardable")
    })
    .expect("it is known that the pod cannot be guarded");
    let caller = |who, title, place: Place| {
        // Data in the SYN, with no cookie of the server's.
        sysctl(&place.netns, &["net.ipv4.tcp_fastopen=5"]).expect("it may open fast");
        Caller { who, title, place }
    };
    vec![
        caller(Who::NotGranted, "audit", lab.place("audit")),
        caller(Who::NotGranted, "hostaudit", Place::from(&host_audit)),
        caller(Who::NotGuardable, "twohomed", Place::from(&two_homed)),
        caller(Who::Unknown, "ghost", Place::from(&ghost)),
        caller(Who::Unknown, "system", lab.system()),
        // The last, so that nothing of the others can still be on its way.
        caller(Who::Granted, "hostnet", lab.place("hostnet")),
        caller(Who::Granted, "cart", lab.place("cart")),
    ]
}

fn run(caller: &Caller, targets: &[SocketAddr]) -> BTreeMap<String, String> {
    // Long enough for a SYN and its first retransmission, or for a busy machine.
    let patience = if caller.who == Who::Granted { "20000" } else { "1500" };
    let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
    let args = ["calls", caller.title, patience].into_iter().chain(targets.iter().map(String::as_str));
    let args: Vec<&str> = args.collect();
    let outcome = caller.place.run(PROBE, &args).expect("the calls start");
    assert!(outcome.success, "{}: {}", caller.title, outcome.said());
    let lines = outcome.stdout.lines().filter_map(|line| line.split_once(": "));
    lines.map(|(call, steps)| (call.to_owned(), caller.normal(steps))).collect()
}

/// Texts that the service has heard.
fn heard(lab: &Lab) -> BTreeSet<String> {
    let log = lab.log("hearing");
    log.lines().filter_map(|line| Some(line.split_once(" over")?.0.to_owned() + " over")).collect()
}

#[test]
fn every_call_is_told_what_the_table_says_and_only_the_granted_are_heard() {
    let mut lab = lab();
    sysctl(&lab.id.netns("svc"), &["net.ipv4.tcp_fastopen=1538"]).expect("the server takes data in SYNs");
    let callers = callers(&mut lab);
    let port = PORT.to_string();
    let (destination, pods) = (Destination::new("hearing", PORT), ["cart", "hostnet"]);
    let targets = lab.serve(&destination, "svc", PROBE, &["hear", &port], &pods);
    let targets = targets.expect("the destination is there");
    let node = lab.id.netns("node");
    let capture = lab.capture("calls").expect("tcpdump starts");
    let mut absent = BTreeSet::new();
    let mut to_be_heard = BTreeSet::new();
    for caller in &callers {
        let mut expected = caller.expected(&targets, &node);
        let mut told = run(caller, &targets);
        absent.extend(
            told.iter().filter(|(_, steps)| ABSENT.contains(&steps.as_str())).map(|(call, _)| call.clone()),
        );
        expected.retain(|call, _| !absent.contains(call));
        told.retain(|call, _| !absent.contains(call));
        assert_eq!(told, expected, "{}", caller.title);
        to_be_heard.extend(caller.heard(&targets, &absent));
    }
    // Not a test that is skipped, but rows of it: no kernel has all of these any more.
    if !absent.is_empty() {
        // Past the capture of the test harness.
        let _ = writeln!(std::io::stderr(), "part skipped: this kernel has no sockets for {absent:?}");
    }
    let all = wait::for_true("the service hears the granted", || heard(&lab).is_superset(&to_be_heard));
    assert_eq!(heard(&lab), to_be_heard, "{all:?}");
    let mut foreign = capture.finish().expect("the capture ends").foreign;
    // A device that is new says so to groups of its link.
    foreign.retain(|frame| !frame.contains(" > ff02::"));
    assert_eq!(foreign, Vec::<String>::new());
}
