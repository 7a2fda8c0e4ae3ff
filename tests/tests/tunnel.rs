//! The encrypted tunnel by itself: `enforcer tunnel` against itself and against wireguard-go. Needs root.

#![expect(
    clippy::unwrap_used,
    reason = "all of this is test, though clippy only knows the functions marked so"
)]

#[path = "tunnel/lab.rs"]
mod lab;

use std::{fs, net::IpAddr};

use enforcer::{keygen::encode_key, tunnel::PeerConfig};
use lab::{MTU, Site, eventually, ip, run, sites};

/// More than one packet, and not a multiple of anything.
const BULK: usize = 300_001;

fn bulk() -> Vec<u8> {
    (0..BULK).map(|index| (index % 251) as u8).collect()
}

/// Both ends run `enforcer tunnel` and know each other.
fn connected(case: char) -> [Site; 2] {
    let mut sites = sites(case);
    for site in &mut sites {
        site.start();
    }
    introduce(&mut sites);
    sites
}

fn introduce([a, b]: &mut [Site; 2]) {
    a.set_up();
    b.set_up();
    a.configure(vec![b.as_peer()]);
    b.configure(vec![a.as_peer()]);
}

fn assert_carries([a, b]: &[Site; 2]) {
    for address in b.addresses {
        let inside = format!("--net={}", a.inside.path().display());
        run("nsenter", &[&inside, "ping", "-c", "1", "-W", "10", &address.to_string()]);
        a.connect(b.echo(address)).exchange(&bulk());
    }
}

/// Seconds since the epoch of the last handshake that `site` had with `peer`, as `wg` says.
fn handshake(site: &Site, peer: &Site) -> u64 {
    let key = encode_key(&peer.public_key());
    let text = site.wg(&["show", "latest-handshakes"]);
    let line = text.lines().find_map(|line| line.strip_prefix(&key));
    line.unwrap_or_else(|| panic!("{key} is not in {text}")).trim().parse().unwrap()
}

#[test]
fn both_families_pass_and_wg_shows_the_peers() {
    let sites = connected('a');
    assert_carries(&sites);
    let [a, b] = &sites;
    for (site, peer) in [(a, b), (b, a)] {
        let shown = site.wg(&["show"]);
        for part in [
            format!("interface: {}", site.device),
            format!("peer: {}", encode_key(&peer.public_key())),
            format!("endpoint: {}", peer.endpoint),
            "latest handshake: ".to_owned(),
            "persistent keepalive: every 2 seconds".to_owned(),
        ] {
            assert!(shown.contains(&part), "{part:?} is not in\n{shown}");
        }
    }
}

#[test]
fn no_key_is_ever_logged_or_readable_by_others() {
    let sites = connected('b');
    assert_carries(&sites);
    for site in &sites {
        let log = fs::read_to_string(site.log()).unwrap();
        let hex = site.private_key.map(|byte| format!("{byte:02x}")).concat();
        let bytes = format!("{:?}", &site.private_key[..4]);
        for secret in [encode_key(&site.private_key), hex, bytes.trim_matches(['[', ']']).to_owned()] {
            assert!(!log.contains(&secret), "the private key is in the log");
        }
        assert!(log.contains("device is served"), "there is no log: {log}");
        assert_eq!(site.mode_of_configuration(), 0o600);
    }
}

#[test]
fn an_open_connection_survives_a_crash_of_either_end() {
    let mut sites = connected('c');
    let mut connections: Vec<_> = {
        let [a, b] = &sites;
        b.addresses.map(|address| a.connect(b.echo(address))).into()
    };
    for end in [0, 1] {
        for connection in &mut connections {
            connection.exchange(&bulk());
        }
        let before = fs::read_to_string(sites[end].configuration()).unwrap();
        sites[end].kill();
        sites[end].start();
        for connection in &mut connections {
            connection.exchange(&bulk());
        }
        assert_eq!(fs::read_to_string(sites[end].configuration()).unwrap(), before);
        assert_eq!(sites[end].mode_of_configuration(), 0o600);
    }
}

#[test]
fn wireguard_go_can_take_the_place_of_either_process() {
    for (case, end) in [('d', 0), ('e', 1)] {
        let mut sites = sites(case);
        sites[end].start_wireguard_go();
        sites[1 - end].start();
        introduce(&mut sites);
        assert_carries(&sites);
        let [a, b] = &mut sites;
        let (peer_of_a, peer_of_b) = (b.as_peer(), a.as_peer());
        for (site, peer) in [(a, peer_of_a), (b, peer_of_b)] {
            let status = site.configure(vec![peer.clone()]);
            let found: Vec<_> = status.peers.iter().map(|peer| (peer.public_key, peer.endpoint)).collect();
            assert_eq!(found, [(peer.public_key, peer.endpoint)]);
            assert!(status.peers[0].last_handshake > 0, "there was no handshake");
        }
    }
}

#[test]
fn a_change_of_one_peer_leaves_the_session_of_another_alone() {
    let mut sites = connected('f');
    let [a, b] = &mut sites;
    let mut connection = a.connect(b.echo(b.addresses[0]));
    connection.exchange(b"before");
    let before = handshake(b, a);
    let other = PeerConfig {
        public_key: [9; 32],
        endpoint: None,
        allowed_ips: vec!["198.19.9.0/24".parse().unwrap()],
        keepalive: 0,
    };
    // The session of `a` goes on through a new peer, a new prefix of its own, and the end of the other peer.
    let wider = PeerConfig {
        allowed_ips: [a.as_peer().allowed_ips, vec!["198.19.8.0/24".parse().unwrap()]].concat(),
        ..a.as_peer()
    };
    for peers in
        [vec![a.as_peer(), other.clone()], vec![wider.clone(), other], vec![wider], vec![a.as_peer()]]
    {
        let count = peers.len();
        assert_eq!(b.configure(peers).peers.len(), count);
        connection.exchange(b"between");
        assert_eq!(handshake(b, a), before, "there was another handshake");
    }
}

#[test]
fn a_peer_may_be_set_with_wg() {
    let mut sites = connected('g');
    let [a, b] = &mut sites;
    let key = encode_key(&a.public_key());
    b.wg(&["set", "peer", &key, "remove"]);
    assert_eq!(b.wg(&["show", "peers"]), "");
    let allowed: Vec<String> = a.addresses.iter().map(IpAddr::to_string).collect();
    let (allowed, endpoint) = (allowed.join(","), a.endpoint.to_string());
    let settings = ["allowed-ips", &allowed, "endpoint", &endpoint, "persistent-keepalive", "2"];
    b.wg(&[&["set", "peer", &key], &settings[..]].concat());
    eventually("a handshake", || (handshake(b, a) > 0).then_some(()));
    assert_carries(&sites);
    let saved = fs::read_to_string(sites[1].configuration()).unwrap();
    assert!(saved.contains(&format!("allowed_ip={}/32\n", sites[0].addresses[0])), "not saved: {saved}");
}

#[test]
fn a_device_that_is_deleted_disturbs_no_other_and_is_served_again_when_it_is_back() {
    let mut sites = connected('h');
    let [a, b] = &mut sites;
    let mut connection = a.connect(b.echo(b.addresses[0]));
    connection.exchange(b"before");
    let second = format!("{}x", b.device);
    b.tunnel.ensure_device(&second, MTU).unwrap();
    eventually("the second device", || enforcer::tunnel::socket_path(&second).exists().then_some(()));
    ip(&format!("-n {} link delete {second}", b.inside.0));
    eventually("the end of its socket", || (!enforcer::tunnel::socket_path(&second).exists()).then_some(()));
    connection.exchange(b"between");
    b.tunnel.ensure_device(&second, MTU).unwrap();
    eventually("its return", || enforcer::tunnel::socket_path(&second).exists().then_some(()));
    b.tunnel.remove_device(&second).unwrap();
    eventually("the end of its socket", || (!enforcer::tunnel::socket_path(&second).exists()).then_some(()));
    connection.exchange(b"after");
}
