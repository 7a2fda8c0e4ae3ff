//! Inside the tunnel and around it: a second node with a key of its own, and what somebody on the way can send again.

use std::{
    cell::RefCell,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
};

use enforcer::state;
use enforcer_common::config::ANNOUNCE_PORT;
use enforcer_tests::{
    lab::{
        Lab, Place, Role, Running,
        command::finish,
        destination::Destination,
        manifests::CLUSTER,
        network::{GATEWAY4, TUNNEL_PORT, add_netns, ip},
        roles::enforcer,
        wait,
    },
    packet::Packet,
    ways::text,
};

use crate::{
    inbound::{datagram, drops_of, hear},
    instrument::device,
    shared::{lab, probe},
};

const PROBE: &str = env!("CARGO_BIN_EXE_enforcer-lab");
const PORT: u16 = 9995;

/// The lab's usual services do not hear datagrams.
fn hearing(lab: &mut Lab) -> [SocketAddr; 2] {
    let port = PORT.to_string();
    let destination = Destination::new("heard", PORT);
    lab.serve(&destination, "svc", PROBE, &["hear", &port], &["cart"]).expect("the destination is there")
}

fn send_bare(place: &Place, packet: &Packet) {
    let hex = packet.bare().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let sent = place.run(PROBE, &["send-bare", &packet.destination.to_string(), &hex]);
    let sent = sent.expect("the sender starts");
    assert!(sent.success, "{}", sent.said());
}

/// A pod's addresses inside the tunnel.
fn workload(lab: &Lab, pod: &str) -> [IpAddr; 2] {
    let status = lab.status(Role::Agent).expect("the agent answers");
    let pods = status["pods"].as_array().expect("a list of pods");
    let found = pods.iter().find(|found| found["pod"] == pod).expect("the pod is known");
    let address =
        |index: usize| found["addresses"][index].as_str().expect("an address").parse().expect("an address");
    [address(0), address(1)]
}

/// A node that runs a WireGuard of its own, and nothing of ours.
struct Stranger {
    place: Place,
    /// Its own address, and one of its block that it has announced for nobody.
    own: [IpAddr; 2],
    block: [IpAddr; 2],
    _tunnel: Running,
}

fn stranger(lab: &Lab) -> Stranger {
    let (name, netns, lan) = ("stranger", lab.id.netns("stranger"), lab.id.netns("lan"));
    let (key, wg) = (lab.id.dir.join("stranger.key"), format!("wg-{}", lab.id.id));
    let mut keygen = Command::new(enforcer().expect("the binary is built"));
    let keygen = keygen.args(["keygen", "node", name, "--cluster", CLUSTER, "--key"]).arg(&key);
    lab.save("stranger.yaml", &finish(keygen).expect("a key is made")).expect("the node is saved");
    add_netns(&netns).expect("the namespace is made");
    let line = format!(
        "link add stranger0 type veth peer name eth0 netns {netns}\nlink set stranger0 master br0 up"
    );
    ip(&lan, &line).expect("it is on the underlay");
    ip(&netns, "addr add 192.0.2.66/24 dev eth0\nlink set eth0 up").expect("it has an address");
    let state = wait::until("the node has addresses", || {
        let state = state::load(&lab.state_file()).ok().flatten()?;
        state.nodes.contains_key(name).then_some(state)
    })
    .expect("the node has addresses");
    let node = &state.nodes[name];
    let place = lab.elsewhere(name);
    let tunnel = place.start_plain("wireguard-go", &["--foreground", &wg], &lab.id.log(name));
    let tunnel = tunnel.expect("wireguard-go starts");
    let gateway = fs::read_to_string(lab.id.manifests().join("gateway.yaml")).expect("there is a gateway");
    let public = gateway.lines().find_map(|line| line.trim().strip_prefix("publicKey: "));
    let line = format!(
        "set {wg} private-key {} peer {} endpoint {GATEWAY4}:{TUNNEL_PORT} allowed-ips 0.0.0.0/0,::/0",
        key.display(),
        public.expect("it has a key").trim_matches('"'),
    );
    wait::for_true("wireguard-go takes its settings", || {
        place.run("wg", &line.split(' ').collect::<Vec<_>>()).is_ok_and(|outcome| outcome.success)
    })
    .expect("wireguard-go takes its settings");
    let lines = format!(
        "addr add {}/32 dev {wg}\naddr add {}/128 dev {wg} nodad\nlink set {wg} up mtu 1420
         route add 198.18.0.0/15 dev {wg}\n-6 route add fc00::/7 dev {wg}",
        node.v4, node.v6
    );
    ip(&netns, &lines).expect("its tunnel has addresses and routes");
    let block4 = Ipv4Addr::from(u32::from(node.blocks[0].network()) + 9);
    let block6 = Ipv6Addr::from(u128::from(node.subnet.network()) + 9);
    let own = [node.v4.into(), node.v6.into()];
    Stranger { place, own, block: [block4.into(), block6.into()], _tunnel: tunnel }
}

#[test]
fn another_nodes_key_opens_nothing_for_addresses_that_are_not_its_own() {
    let mut lab = lab();
    let targets = hearing(&mut lab);
    let stranger = stranger(&lab);
    let state = state::load(&lab.state_file()).expect("the state is good").expect("there is a state");
    let announce = SocketAddr::new(state.gateways[&lab.id.gateway()].v4.into(), ANNOUNCE_PORT).to_string();
    wait::for_true("its tunnel works", || {
        stranger.place.run(PROBE, &["tcp-connect", &announce]).is_ok_and(|outcome| outcome.success)
    })
    .expect("its tunnel works");
    let netns = lab.id.netns("gw");
    let capture = lab.capture_at("stranger", &netns, &device(&netns)).expect("tcpdump starts");
    let before = drops_of(&lab, Role::Gateway, "NoGrant") + drops_of(&lab, Role::Gateway, "UnknownNode");
    let sources = [workload(&lab, "shop/cart"), stranger.block, stranger.own];
    for (mark, source) in (700..).step_by(10).zip(sources) {
        for (family, to) in targets.iter().enumerate() {
            let source = SocketAddr::new(source[family], 4000);
            send_bare(&stranger.place, &datagram(source, *to, mark + family as u16));
        }
    }
    let seen = |mark: u16| {
        let text = text(mark);
        capture.has(|packet| packet.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    wait::for_true("what is its own comes out of the tunnel", || [710, 711, 720, 721].into_iter().all(seen))
        .expect("what is its own comes out of the tunnel");
    assert!(!seen(700) && !seen(701), "the tunnel ties addresses to keys");
    wait::for_true("the rest is dropped", || {
        drops_of(&lab, Role::Gateway, "NoGrant") + drops_of(&lab, Role::Gateway, "UnknownNode") >= before + 4
    })
    .expect("the rest is dropped");
    // What is granted still goes its way, after all of that.
    let said = lab.place("cart").run(PROBE, &["calls", "granted", "20000", &targets[0].to_string()]);
    assert!(said.expect("the calls start").success);
    wait::for_true("the granted are heard", || lab.log("heard").contains("granted Tcp "))
        .expect("they are heard");
    assert!(!lab.log("heard").contains("way 007"), "{}", lab.log("heard"));
    lab.delete("stranger.yaml").expect("the node is removed");
}

/// As the gateway itself might send it, if somebody had taken it over.
#[test]
fn what_comes_out_of_the_tunnel_without_a_flow_reaches_nobody() {
    let mut lab = lab();
    let targets = hearing(&mut lab);
    let state = state::load(&lab.state_file()).expect("the state is good").expect("there is a state");
    let gateway = &state.gateways[&lab.id.gateway()];
    let node = &state.nodes[&lab.id.node()];
    let (place, before) = (lab.elsewhere("gw"), drops_of(&lab, Role::Agent, "NoFlow"));
    let (hearing, log) = (hear(&lab, &lab.place("cart"), "unsolicited"), "unsolicited");
    let host = hear(&lab, &lab.elsewhere("node"), "unsolicited-node");
    let to = |ip: IpAddr| SocketAddr::new(ip, crate::inbound::PORT);
    let mut sent = 0;
    for family in 0..2 {
        let [own, cart] =
            [[node.v4.into(), node.v6.into()], workload(&lab, "shop/cart")].map(|pair| pair[family]);
        let from = [IpAddr::V4(gateway.v4), IpAddr::V6(gateway.v6)][family];
        // A service's, the gateway's, and of the announce port, but not of its protocol.
        let sources = [targets[family], SocketAddr::new(from, 4000), SocketAddr::new(from, ANNOUNCE_PORT)];
        for source in sources {
            for receiver in [own, cart] {
                send_bare(&place, &datagram(source, to(receiver), 730));
                sent += 1;
            }
        }
    }
    wait::for_true("they are dropped", || drops_of(&lab, Role::Agent, "NoFlow") >= before + sent)
        .unwrap_or_else(|err| {
            panic!("{err:#}: {} of {sent}", drops_of(&lab, Role::Agent, "NoFlow") - before)
        });
    for log in [log, "unsolicited-node"] {
        assert!(!lab.log(log).contains("way "), "{}", lab.log(log));
    }
    drop((hearing, host));
}

/// Frames of the tunnel that were recorded on the underlay, in one direction, the last first.
fn recorded(capture: &enforcer_tests::lab::capture::Capture, to_gateway: bool) -> Vec<String> {
    let port = TUNNEL_PORT.to_be_bytes();
    let frames = RefCell::new(Vec::new());
    // Datagrams with data (type 4) in IPv4.
    let at = if to_gateway { 36 } else { 34 };
    capture.has(|frame| {
        if frame.len() > 46 && frame[12..14] == [8, 0] && frame[at..at + 2] == port && frame[42] == 4 {
            frames
                .borrow_mut()
                .push(frame.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")));
        }
        false
    });
    let mut frames = frames.into_inner();
    frames.reverse();
    frames.truncate(40);
    frames
}

fn replay(lab: &Lab, device: &str, frames: &[String]) {
    let args: Vec<&str> = ["inject", device].into_iter().chain(frames.iter().map(String::as_str)).collect();
    let sent = lab.elsewhere("lan").run(PROBE, &args).expect("the sender starts");
    assert!(sent.success, "{}", sent.said());
}

#[test]
fn datagrams_of_the_tunnel_that_are_sent_again_do_nothing() {
    let mut lab = lab();
    let [service, _] = hearing(&mut lab);
    let say = |lab: &Lab, word: &str| {
        let line = format!("printf '{word} over' >/dev/udp/{}/{}", service.ip(), service.port());
        let outcome = lab.place("cart").run("bash", &["-c", &line]).expect("bash starts");
        assert!(outcome.success, "{}", outcome.said());
        wait::for_true("it is heard", || lab.log("heard").contains(word)).expect("it is heard");
    };
    let capture = lab.capture("recorded").expect("tcpdump starts");
    say(&lab, "once-only");
    let mut there = Vec::new();
    let mut back = Vec::new();
    wait::for_true("it is recorded", || {
        there = recorded(&capture, true);
        back = recorded(&capture, false);
        !there.is_empty() && !back.is_empty()
    })
    .expect("it is recorded");
    let arrived = lab.capture_at("again", &lab.id.netns("gw"), "eth0").expect("tcpdump starts");
    replay(&lab, "gw0", &there);
    replay(&lab, "node0", &back);
    let first: Vec<u8> = (0..there[0].len() / 2)
        .map(|at| u8::from_str_radix(&there[0][at * 2..at * 2 + 2], 16).expect("a byte"))
        .collect();
    wait::for_true("they arrive once more", || arrived.has(|frame| frame == first)).expect("they arrive");
    say(&lab, "and-then");
    assert_eq!(lab.log("heard").matches("once-only").count(), 1, "{}", lab.log("heard"));

    // To whoever listens for the gateway, a recorded datagram sounds like it: that delays the news of its end.
    lab.kill(Role::GatewayTunnel).expect("the tunnel is killed");
    for _ in 0..3 {
        replay(&lab, "node0", &back);
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    let clients = format!("for i in 1 2 3; do timeout 2 {PROBE} tcp-connect {service} & done; wait");
    wait::for_true("connects are refused as unreachable", || {
        let outcome = lab.place("cart").run("sh", &["-c", &clients]).expect("the clients start");
        outcome.said().contains("No route to host")
    })
    .expect("the loss of the tunnel is noticed");
    lab.start(Role::GatewayTunnel).expect("the tunnel starts");
    wait::for_true("connects work again", || {
        probe(&lab, "cart", &["tcp-connect", &service.to_string()]).success
    })
    .expect("connects work again");
}
